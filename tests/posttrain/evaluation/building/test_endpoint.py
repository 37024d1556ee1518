"""Faults of an endpoint, each from a server that really misbehaves over HTTP; and the journal of a build that was cut off."""

from __future__ import annotations

import json
import time

import pytest

from posttrain.errors import Alarm, Mistake
from posttrain.evaluation.building.endpoint import KEY, Endpoint, Failed
from posttrain.evaluation.building.journal import Journal, Reply, Request

SECRET = "sekret-0123456789"


def requests(n):
    return [Request(f"d#{i}", "open-ended", ({"role": "user", "content": f"chunk {i}"},)) for i in range(n)]


def ask(server, n=1, **settings):
    outcomes = {}
    endpoint = Endpoint(server.url, **({"pause": 0.001, "timeout": 5, "retries": 2} | settings))
    endpoint.ask(requests(n), lambda request, outcome: outcomes.__setitem__(request.chunk, outcome))
    return outcomes


def test_answers_and_the_limit_on_what_is_under_way(faulty, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)

    def say(server, body):
        time.sleep(0.02)
        return faulty.said(body["messages"][0]["content"].upper())

    server = faulty(say)
    outcomes = ask(server, 12, concurrency=3, temperature=0.5, max_tokens=7)
    assert outcomes == {f"d#{i}": Reply(f"CHUNK {i}", "stop", "m-1", 5, 2) for i in range(12)}
    assert server.most <= 3
    assert server.keys == {f"Bearer {SECRET}"}
    assert all((b["model"], b["temperature"], b["max_tokens"]) == ("m", 0.5, 7) for b in server.asked)


@pytest.mark.parametrize(
    "fault",
    [
        (500, {}, "oops"),
        (503, {}, '{"error": {"message": "loading"}}'),
        (429, {"Retry-After": "0.01"}, '{"error": {"message": "slow down"}}'),
        (408, {}, "{}"),
        (200, {}, "<html>gateway</html>"),
        (200, {}, '{"choices": []}'),
        (200, {}, '{"choices": [{"message": null}]}'),
        None,
    ],
    ids=["500", "503", "429", "408", "page", "empty", "null", "cut connection"],
)
def test_what_passes_is_asked_again_and_what_stays_is_counted(faulty, fault):
    server = faulty(lambda server, body: faulty.said() if len(server.asked) > 2 else fault)
    (outcome,) = ask(server).values()
    assert isinstance(outcome, Reply)
    assert len(server.asked) == 3
    server = faulty(lambda server, body: fault)
    (outcome,) = ask(server).values()
    assert isinstance(outcome, Failed)
    assert outcome.reason in ("HTTP 500", "HTTP 503", "HTTP 429", "HTTP 408", "no sense", "no connection")
    assert len(server.asked) == 3, "the first and two retries"


def test_a_refused_request_is_not_asked_again_and_the_others_go_on(faulty):
    def say(server, body):
        if "chunk 1" in body["messages"][0]["content"]:
            return 400, {}, '{"error": {"message": "too long: 9000 tokens\\u001b[2J"}}'
        return faulty.said()

    server = faulty(say)
    outcomes = ask(server, 3)
    assert outcomes["d#1"] == Failed("refused (HTTP 400)", "too long: 9000 tokens\\x1b[2J")
    assert [isinstance(outcomes[f"d#{i}"], Reply) for i in (0, 2)] == [True, True]
    assert len(server.asked) == 3


def test_the_other_name_of_the_token_limit(faulty):
    def say(server, body):
        if "max_tokens" in body:
            return 400, {}, '{"error": {"message": "Unsupported parameter; use max_completion_tokens"}}'
        return faulty.said()

    server = faulty(say)
    outcomes = ask(server, 2, concurrency=1)
    assert all(isinstance(one, Reply) for one in outcomes.values())
    assert len(server.asked) == 3


def test_a_slow_one_runs_out_of_time(faulty):
    server = faulty(lambda server, body: time.sleep(1) or faulty.said())
    outcomes = ask(server, 2, timeout=0.2, retries=0)
    assert {one.reason for one in outcomes.values()} == {"timeout"}


@pytest.mark.parametrize("status", [401, 403])
def test_a_refused_key_ends_the_build_and_is_not_shown(faulty, monkeypatch, status):
    monkeypatch.setenv(KEY, SECRET)
    server = faulty(lambda server, body: (status, {}, json.dumps({"error": {"message": f"bad key {SECRET}"}})))
    with pytest.raises(Mistake) as caught:
        ask(server, 50, concurrency=2)
    assert KEY in str(caught.value)
    assert SECRET not in str(caught.value)
    assert len(server.asked) <= 2


def test_an_endpoint_that_repeats_the_key(faulty, monkeypatch):
    monkeypatch.setenv(KEY, SECRET)
    server = faulty(lambda server, body: faulty.said(f"your key is {SECRET}"))
    assert SECRET not in ask(server)["d#0"].text


def test_the_key_may_be_in_a_file(faulty, monkeypatch, tmp_path):
    (tmp_path / "key").write_text(SECRET + "\n")
    monkeypatch.setenv(f"{KEY}_FILE", str(tmp_path / "key"))
    server = faulty(lambda server, body: faulty.said())
    ask(server)
    assert server.keys == {f"Bearer {SECRET}"}
    monkeypatch.setenv(f"{KEY}_FILE", str(tmp_path / "missing"))
    with pytest.raises(Mistake, match="missing"):
        ask(server)


def test_an_unknown_model_ends_the_build(faulty):
    server = faulty(lambda server, body: (404, {}, '{"error": {"message": "no such model"}}'))
    with pytest.raises(Mistake, match="--model-name"):
        ask(server, 50, concurrency=1)
    assert len(server.asked) == 1


def test_nobody_there_ends_the_build(faulty):
    server = faulty(lambda server, body: None)
    with pytest.raises(Alarm, match="found nobody"):
        ask(server, 500, concurrency=2, retries=0)
    assert len(server.asked) < 10


@pytest.mark.parametrize("models", [(), ("a", "b")])
def test_a_model_must_be_chosen_where_there_is_not_one(faulty, models):
    server = faulty(lambda server, body: faulty.said(), models=models)
    with pytest.raises(Mistake, match="--model-name"):
        ask(server)
    assert isinstance(ask(server, model="a")["d#0"], Reply)


@pytest.mark.parametrize(
    "url", ["ftp://x", "localhost:8000", "http://", f"http://u:{SECRET}@host/v1", f"https://h/v1?key={SECRET}"]
)
def test_urls_that_are_none_or_hold_a_key(url):
    with pytest.raises(Mistake) as caught:
        Endpoint(url, "m")
    assert SECRET not in str(caught.value)


def test_nothing_listens():
    with pytest.raises(Mistake, match="is the endpoint running"):
        Endpoint("http://127.0.0.1:9", timeout=2)


# -- the journal


def test_a_journal_keeps_replies_and_survives_a_cut(tmp_path):
    path = tmp_path / "b.journal.jsonl"
    one, two = requests(2)
    settings = {"model": "m", "temperature": None}
    journal = Journal(path)
    journal.add(one.key(settings), one, Reply("\u2028hi\ud800", "stop", "m-1", 1, 2))
    journal.add(two.key(settings), two, Reply("ho", None, "m-1"))
    with path.open("a") as file:
        file.write('{"key": "half')
    again = Journal(path)
    assert len(again) == 2
    assert again.get(one.key(settings)).text == "\u2028hi\ud800"
    assert again.get(two.key(settings)) == Reply("ho", None, "m-1")
    assert again.get(one.key({**settings, "model": "n"})) is None
    assert one.key(settings) != two.key(settings)
    assert path.read_text().endswith("\n")


@pytest.mark.parametrize("content", ["{}\n", "[1]\n", "notes\n", '{"key": "x", "text": 3, "model": "m"}\n'])
def test_another_file_is_not_taken_for_a_journal(tmp_path, content):
    (tmp_path / "j").write_text(content)
    with pytest.raises(Mistake, match="line 1"):
        Journal(tmp_path / "j")
