import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from rewards.criteria import Verdict
from rewards.judge import Counts, Judge, Question
from rewards.judges.cache import Cache, key_of

ROOT = Path(__file__).resolve().parents[3]
QUESTIONS = [Question("q", "alpha", "says alpha"), Question("q", "alpha", "says beta")]
RIGHT = [Verdict.MET, Verdict.UNMET]


def rule(server, cache, questions=QUESTIONS, **settings):
    counts = Counts()

    async def run():
        judge = Judge({"model": "m", "url": server.url, "cache": str(cache), **settings})
        found = await judge.rule(questions, counts)
        await judge.close()
        return found

    return asyncio.run(run()), counts


def test_what_was_judged_costs_nothing_again(serve, tmp_path):
    server, cache = serve(), tmp_path / "deep" / "v.sqlite"
    first, counts = rule(server, cache)
    assert ([r.verdict for r in first], counts.calls, counts.cached) == (RIGHT, 2, 0)
    again, counts = rule(server, cache)
    assert ([r.verdict for r in again], counts.calls, counts.cached, counts.tokens) == (RIGHT, 0, 2, 0)
    assert [r.explanation for r in again] == [r.explanation for r in first]
    assert all(r.cached for r in again)
    assert len(server.bodies) == 2


@pytest.mark.parametrize(
    "change",
    [
        {"model": "other"},
        {"seed": 1},
        {"temperature": 0.5},
        {"top_p": 0.9},
        {"max_tokens": 99},
        {"structured": "none"},
        {"extra": {"top_k": 1}},
        {"mode": "response"},
    ],
)
def test_another_judge_or_sampling_is_another_verdict(serve, tmp_path, change):
    server, cache = serve(), tmp_path / "v.sqlite"
    rule(server, cache)
    assert rule(server, cache, **change)[1].cached == 0


@pytest.mark.parametrize(
    ("question", "settings", "cached"),
    [
        (Question("q", "alpha", "says alpha", 5.0), {}, 1),  # points that the judge does not see
        (Question("q", "alpha", "says alpha", 5.0), {"show_points": True}, 0),
        (Question("q", "alpha ", "says alpha"), {}, 0),
        (Question("r", "alpha", "says alpha"), {}, 0),
        (Question([{"role": "user", "content": "q"}], "alpha", "says alpha"), {}, 1),
        (
            Question([{"role": "system", "content": "s"}, {"role": "user", "content": "q"}], "alpha", "says alpha"),
            {},
            0,
        ),
        (Question("q", "alpha", "says  alpha"), {}, 0),
    ],
)
def test_the_key_is_what_the_judge_sees(serve, tmp_path, question, settings, cached):
    server, cache = serve(), tmp_path / "v.sqlite"
    rule(server, cache, **settings)
    assert rule(server, cache, [question], **settings)[1].cached == cached


def test_another_template_is_another_verdict(serve, tmp_path, monkeypatch):
    from rewards.judges import template

    server, cache = serve(), tmp_path / "v.sqlite"
    rule(server, cache)
    monkeypatch.setattr(template, "_ONE", template._ONE + " ")
    assert rule(server, cache)[1].cached == 0


def test_failures_are_never_kept(serve, tmp_path):
    cache = tmp_path / "v.sqlite"
    for trouble in ("nonsense", 500, 400):
        found, counts = rule(serve(lambda n, body, trouble=trouble: trouble), cache, retries=0)
        assert (counts.failed, counts.cached) == (2, 0)
    assert not cache.exists()
    found, counts = rule(serve(), cache)
    assert ([r.verdict for r in found], counts.calls) == (RIGHT, 2)
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (2,)
        assert connection.execute("PRAGMA journal_mode").fetchone() == ("wal",)
    found, counts = rule(serve(lambda n, body: "nonsense"), cache, retries=0, model="another")
    assert (counts.failed, counts.cached) == (2, 0)
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (2,)


def test_only_the_votes_that_failed_are_asked_again(serve, tmp_path):
    cache, three = tmp_path / "v.sqlite", {"votes": 3, "temperature": 1, "attempts": 1}
    rule(serve(lambda n, body: "nonsense" if body["seed"] == 1 else None), cache, **three)
    found, counts = rule(serve(), cache, **three)
    assert ([r.verdict for r in found], counts.calls, counts.cached) == (RIGHT, 2, 0)
    assert rule(serve(), cache, **three)[1].cached == 2


def test_odd_texts_are_kept(tmp_path):
    cache = Cache(tmp_path / "v.sqlite")
    key = key_of(["\ud800", "é", None, 1.5])
    cache.put([(key, (True, "lone \ud800 and \x00"))])
    assert cache.get([key])[key] == (True, "lone ? and \x00")
    cache.put([(key, (False, "later"))])
    assert cache.get([key])[key][0] is True
    cache.close()


def test_a_file_that_is_none_is_refused(tmp_path):
    file = tmp_path / "notes.txt"
    file.write_text("not a data base, but long enough to be looked at" * 40)
    with pytest.raises(ValueError, match=r"judge\.cache: .*notes\.txt cannot be used"):
        Cache(file)
    assert file.read_text().startswith("not a data base")


def test_nothing_is_made_before_the_first_verdict(tmp_path):
    """A plan builds the judge too, and leaves nothing behind."""
    cache = Cache(tmp_path / "deep" / "v.sqlite")
    assert cache.get([key_of(["a"])]) == {}
    assert list(tmp_path.iterdir()) == []
    cache.put([(key_of(["a"]), (True, "why"))])
    assert cache.get([key_of(["a"])]) == {key_of(["a"]): (True, "why")}
    cache.close()


def test_one_that_could_not_be_made_is_refused_at_once(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"judge\.cache: .*v\.sqlite cannot be used: .*file is no folder"):
        Cache(tmp_path / "file" / "deep" / "v.sqlite")


def test_one_that_breaks_later_is_done_without(serve, tmp_path, caplog):
    made = Cache(tmp_path / "v.sqlite")
    made.put([(key_of(["another"]), (True, ""))])
    made.close()

    async def run():
        judge = Judge({"model": "m", "url": serve().url, "cache": str(tmp_path / "v.sqlite")})
        with sqlite3.connect(tmp_path / "v.sqlite") as connection:
            connection.execute("DROP TABLE verdicts")
        found = [r.verdict for r in await judge.rule(QUESTIONS)]
        await judge.close()
        return found

    assert asyncio.run(run()) == RIGHT
    assert sum("cannot be used" in record.message for record in caplog.records) == 1


JUDGING = """
import asyncio, json, sys
from rewards.judge import Counts, Judge, Question
url, cache, first = sys.argv[1:]
questions = [Question("q", f"w{k}", f"says w{k % 7}") for k in range(150)]
if first == "1":
    questions.reverse()
counts = Counts()
found = asyncio.run(Judge({"model": "m", "url": url, "cache": cache, "concurrency": 8}).rule(questions, counts))
print(json.dumps([[q.response, r.verdict] for q, r in zip(questions, found)] + [[counts.failed, counts.cached + counts.calls]]))
"""


FIRST = """
import sys
from rewards.judges.cache import Cache, key_of
cache = Cache(sys.argv[1])
print("ready", flush=True)
sys.stdin.read(1)
cache.put([(key_of([sys.argv[2], k]), (True, "")) for k in range(20)])
print(cache._said)
"""


@pytest.mark.processes
def test_many_processes_make_one_file_at_once(tmp_path):
    """SQLite itself does not wait here: one of some hundred such starts found the file locked."""
    command = [sys.executable, "-c", FIRST]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True, "env": environment}
    for at in range(3):
        file = tmp_path / f"{at}.sqlite"
        running = [subprocess.Popen([*command, str(file), str(one)], **pipes) for one in range(8)]
        assert [one.stdout.readline() for one in running] == ["ready\n"] * 8
        for one in running:
            one.stdin.write("g")
            one.stdin.flush()
        assert [one.communicate(timeout=60)[0] for one in running] == ["False\n"] * 8
        assert len(Cache(file).get([key_of([str(i), k]) for i in range(8) for k in range(20)])) == 160


@pytest.mark.processes
def test_two_processes_share_one_file(serve, tmp_path):
    server, cache = serve(), tmp_path / "v.sqlite"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", JUDGING, server.url, str(cache)]
    both = [subprocess.Popen([*command, str(k)], stdout=subprocess.PIPE, env=environment) for k in (0, 1)]
    ended = [json.loads(process.communicate(timeout=120)[0]) for process in both]
    expected = {f"w{k}": ("met" if f"w{k % 7}" in f"w{k}" else "unmet") for k in range(150)}
    for found in ended:
        assert found.pop() == [0, 150]
        assert dict(found) == expected
    with sqlite3.connect(cache) as connection:
        assert connection.execute("SELECT count(*) FROM verdicts").fetchone() == (150,)
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    asked = len(server.bodies)
    assert 150 <= asked <= 300
    third = subprocess.run([*command, "0"], capture_output=True, env=environment, check=True, timeout=120)
    assert json.loads(third.stdout)[-1] == [0, 150]
    assert len(server.bodies) == asked
