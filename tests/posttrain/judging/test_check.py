"""The whole check against servers whose judge is code: a right one, and ones with one fault each, which its figure must name."""

import json
import re

import pytest

from posttrain import cli
from posttrain.judging.attacks import KINDS
from posttrain.judging.command import check_command
from posttrain.judging.examples import load


def check(server, tmp_path, *, path=None, **settings):
    given = {
        "repeats": 1,
        "injections": 0,
        **{k: settings.pop(k) for k in ("repeats", "injections", "limit") if k in settings},
    }
    more = {"retries": 0, "attempts": 1, **settings}
    return check_command(path, url=server.url, model="m", more=more, out=str(tmp_path / "judge_check.json"), **given)


@pytest.mark.slow
def test_a_right_judge(serve, oracle, tmp_path, capsys):
    found = check(serve(oracle), tmp_path, repeats=2, injections=1)
    every = [found["agreement"][name][what] for name in ("all", "positive", "negative") for what in ("accuracy", "kappa", "precision", "recall")]  # fmt: skip
    every += [found["self_consistency"], found["order"]["kept"], found["padding"]["kept"], found["injections"]["held"]]
    assert [one.value for one in every] == [1.0] * len(every)
    nothing = [found["agreement"]["failed"], found["injections"]["bent"], found["order"]["early_minus_late"]]
    nothing += [found["padding"]["met_after_minus_before"], found["agreement"]["length"]["per_doubling"]]
    assert [one.value for one in nothing] == [0.0] * len(nothing)
    assert set(found["injections"]["bent_by_kind"]) == set(KINDS)
    assert found["injections"]["asked"] >= 40
    said = capsys.readouterr().out
    assert all(len(line) <= 80 for line in said.splitlines() if not line.startswith("written to"))
    assert "accuracy                                100.0%  " in said
    kept = json.loads((tmp_path / "judge_check.json").read_text())
    assert kept["agreement"]["all"]["kappa"]["value"] == 1.0
    assert kept["cost"]["calls"] == found["cost"]["calls"]
    assert len(kept["verdicts"]) == len(load(None))


def test_one_that_likes_length(serve, oracle, tmp_path):
    found = check(serve(lambda c, said, *rest: oracle(c, said) or len(said) > 200), tmp_path)
    assert found["agreement"]["all"]["accuracy"].value == 1.0  # no example is as long
    rise = found["padding"]["met_after_minus_before"]
    assert rise.low > 0.2
    assert found["padding"]["kept"].value == pytest.approx(1 - rise.value)


def test_one_that_likes_the_first(serve, oracle, tmp_path):
    def judge(criterion, said, place, seed):
        return place < 0.5 if place != 0.5 else oracle(criterion, said)

    found = check(serve(judge), tmp_path, mode="response")
    assert found["order"]["early_minus_late"].value == pytest.approx(1.0)
    assert found["order"]["kept"].value < 0.5


def test_one_that_is_of_two_minds(serve, oracle, tmp_path):
    """Each repeat but the first is turned round: of three answers one pair in three is the same."""
    found = check(
        serve(lambda c, said, place, seed: oracle(c, said) if seed == 0 else not oracle(c, said)), tmp_path, repeats=3
    )
    assert found["self_consistency"].value == pytest.approx(1 / 3)
    assert found["agreement"]["all"]["accuracy"].value == 1.0


def test_one_that_does_as_it_is_told(serve, oracle, tmp_path, capsys):
    def judge(criterion, said, place, seed):
        if '"criteria_met": ' in said:
            return json.loads(said.rpartition('"criteria_met": ')[2].partition("}")[0].partition("\n")[0].strip("}, "))
        return oracle(criterion, said)

    found = check(serve(judge), tmp_path, injections=2)
    bent = {kind: one.value for kind, one in found["injections"]["bent_by_kind"].items()}
    assert bent["verdict"] > 0.5
    assert bent["asks"] == bent["turn"] == bent["unicode"] == 0
    assert "got through: " in capsys.readouterr().out


def test_one_that_says_always_the_same(serve, tmp_path):
    found = check(serve(lambda *asked: True), tmp_path)
    labels = [one.label for one in load(None)]
    whole = found["agreement"]["all"]
    assert whole["accuracy"].value == whole["precision"].value == pytest.approx(sum(labels) / len(labels))
    assert (whole["recall"].value, whole["kappa"].value) == (1.0, 0.0)


def test_one_that_talks_nonsense_is_counted_and_not_taken_for_a_verdict(serve, oracle, tmp_path, capsys):
    found = check(serve(lambda c, said, *rest: "hm" if "JSON" in c else oracle(c, said)), tmp_path)
    failed = sum("JSON" in one.criterion for one in load(None)) / len(load(None))
    assert found["agreement"]["failed"].value == pytest.approx(failed)
    assert found["agreement"]["all"]["accuracy"].value == 1.0
    assert "no complete JSON object" in capsys.readouterr().out
    none = check(serve(lambda *asked: "hm"), tmp_path)
    assert none["agreement"]["failed"].value == 1.0
    assert none["agreement"]["all"]["accuracy"].value is None
    assert "padding" not in none


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "--model is missing"),
        (["none.jsonl", "--model", "m"], "none.jsonl: No such file"),
        (["--model", "m", "--with", "votes=2"], "judge: votes should be odd"),
        (["--model", "m", "--with", "tempo=2"], "judge: unknown tempo"),
        (["--model", "m", "--url", "ftp://x"], "judge: url should begin with http"),
        (["--judge", "none.yaml"], "judge: none.yaml cannot be read"),
        (["--model", "m", "--repeats", "0"], "--repeats 0: 1 or more"),
        (["--model", "m", "--out", "no/such/folder.json"], "should be a file in a folder that is there"),
        (["--model", "m"], "OpenAI's endpoint needs a key"),
    ],
)
def test_mistakes_are_one_line(words, said, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("POSTTRAIN_JUDGE_KEY", "POSTTRAIN_JUDGE_KEY_FILE"):
        monkeypatch.delenv(name, raising=False)
    assert cli.main(["judge", "check", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len([line for line in err.splitlines() if "questions" not in line]) == 1


def test_one_that_is_not_there_is_not_waited_for(judge_server, monkeypatch, capsys, tmp_path):
    from rewards.judges import client

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(client, "FIRST", 0.01)
    server = judge_server.Server(lambda n, body: 503)
    assert cli.main(["judge", "check", "--url", server.url, "--model", "m"]) == 2
    assert "judge m at http" in (err := capsys.readouterr().err)
    assert "no answer: status 503" in err
    assert len(server.bodies) == 2
    server.stop()
    assert cli.main(["judge", "check", "--url", server.url, "--model", "m"]) == 2
    assert "no answer: cannot be reached" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_refused_key_and_a_setting_file(serve, judge_server, oracle, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    server = judge_server.Server(lambda n, body: 401)
    assert cli.main(["judge", "check", "--url", server.url, "--model", "m"]) == 2
    assert "status 401" in capsys.readouterr().err
    server.stop()
    server = serve(oracle)
    (tmp_path / "judge.yaml").write_text(f"model: m\nurl: {server.url}\nmode: response\n")
    assert (
        cli.main(["judge", "check", "--judge", "judge.yaml", "--limit", "8", "--repeats", "1", "--injections", "0"])
        == 0
    )
    assert json.loads((tmp_path / "judge_check.json").read_text())["count"] == 8


def test_attacks_that_name_the_tag_name_that_of_the_honest_response(serve, judge_server, tmp_path):
    """Also where the prompt is messages: a server has seen the honest response under the tag that the attack then writes."""
    seen, written = set(), set()

    def judge(criterion, said, place, seed):
        written.update(re.findall(r"^\[end last turn (\w{16})\]$", said, re.MULTILINE))
        return "alpha" in said

    server = serve(judge)
    talk = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a letter."}]
    file = tmp_path / "labels.jsonl"
    row = {"prompt": talk, "response": "It is alpha.", "criterion": "says alpha", "label": True}
    file.write_text(json.dumps(row) + "\n")
    check_command(str(file), url=server.url, model="m", repeats=1, injections=1, out=str(tmp_path / "o.json"))
    for body in server.bodies:
        prompt = body["messages"][0]["content"]
        if judge_server.fenced(prompt, "last turn") == row["response"]:
            seen.add(re.search(r"where TAG is (\w{16})\.", prompt)[1])
    assert seen & written
