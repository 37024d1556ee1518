"""The judge behind a rubric is asked one plain thing before the first step, and nothing else if it does not answer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from posttrain.miniature import arithmetic
from rewards.criteria import running

RUBRIC = [{"criterion": "says 1", "points": 2}, {"criterion": "short", "points": 1, "check": {"length": {"max": 9}}}]


@pytest.fixture
def serve(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "rewards" / "judges"))
    import judge_server

    started = []

    def start(script=lambda n, body: None):
        started.append(judge_server.Server(script))
        return started[-1]

    yield start
    for server in started:
        server.stop()
    running.close()


@pytest.fixture
def looked(look, tmp_path):
    """`looked(url, **judge)`: what the preflight found of a run with rubrics that are judged in part."""
    file = tmp_path / "rows.jsonl"
    rows = [{**{k: row[k] for k in ("prompt", "answer")}, "rubric": RUBRIC} for row in arithmetic.train(64)]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    def do(url, **judge):
        settings = {
            "use": "rewards.rubric:Rubric",
            "timeout": 600,
            "with": {"judge": {"model": "m", "url": url, **judge}},
        }
        return look(f"data.train={{path: '{file}'}}", f"rewards={json.dumps([settings])}")

    return do


def test_one_that_answers(looked, serve):
    server = serve()
    rows = looked(server.url)
    assert rows["reward Rubric: judge"].ok
    assert rows["reward Rubric: judge"].looked.startswith(f"judge m at {server.url} answers, 100 tokens in ")
    assert rows["reward Rubric: spread"].ok


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (401, "status 401"),
        ("nonsense", "no complete JSON object"),
        (400, "status 400"),
        ("close", "cannot be reached"),
    ],
)
def test_one_that_does_not_is_asked_nothing_else(looked, serve, trouble, words, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_JUDGE_KEY", "s3cret-word")
    server = serve(lambda n, body: trouble)
    rows = looked(server.url)
    row = rows["reward Rubric: judge"]
    assert row.ok is False
    assert words in row.looked
    assert words in rows["reward Rubric: spread"].looked
    assert len(server.bodies) <= 3
    assert not any("s3cret-word" in one.line() for one in rows.values())
