"""A rubric as the reward of a run: rubrics read before it, verdicts in its record, failures out of the group's baseline."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import pytest
from datasets import Dataset

from posttrain import assemble
from posttrain.errors import Mistake
from posttrain.preview import try_reward
from posttrain.recipe import load
from posttrain.rundir import read_lines
from posttrain.trainers.grpo import GRPO
from rewards.criteria import running
from rewards.rubric import Rubric

RUBRIC = [
    {"criterion": "is long", "points": 4, "check": {"length": {"unit": "chars", "min": 12}}},
    {"criterion": "says %", "points": 4},
    {"criterion": "says /", "points": -2},
]


def undecidable(text):
    """About half of the random texts that an untrained model writes."""
    return sum(map(ord, text)) % 2 == 1


@pytest.fixture
def server(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "rewards" / "judges"))
    import judge_server

    def script(n, body):
        return "no idea" if undecidable(judge_server.fenced(body["messages"][0]["content"], "last turn")) else None

    started = judge_server.Server(script)
    yield started
    started.stop()
    running.close()


def test_a_run_with_a_judge(parts, server, tmp_path):
    judge = {"model": "m", "url": server.url, "attempts": 1, "cache": str(tmp_path / "v.sqlite")}
    make = partial(Rubric, judge=judge, at_most=1.0)
    make.__name__ = "rubric"
    built = parts(rewards=[make], args={"max_steps": 2, "logging_steps": 1})
    built.train = built.train.add_column("rubric", [RUBRIC] * len(built.train))
    trainer = GRPO.build(built)
    trainer.train()
    built.stack.close()
    rows = [json.loads(x) for f in sorted(built.run.rollouts.iterdir()) for x in f.read_text().splitlines()]
    assert len(rows) == 16
    kinds = set()
    for row in rows:
        told = row["extras"]["rubric"]
        text = row["completion"] if isinstance(row["completion"], str) else row["completion"][-1]["content"]
        said = [c["verdict"] for c in told["criteria"]]
        assert [c["by"] for c in told["criteria"]] == ["code", "judge", "judge"]
        assert said[0] == ("met" if len(text) >= 12 else "unmet")
        failed = undecidable(text)
        kinds.add(failed)
        assert said[1:] == (["failed"] * 2 if failed else ["met" if letter in text else "unmet" for letter in "%/"])
        expected = None if failed else (4 * (said[0] == "met") + 4 * ("%" in text) - 2 * ("/" in text)) / 8
        assert told["score"] == expected
        assert row["rewards"]["rubric"] == expected
    assert kinds == {True, False}
    numbers = [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]
    failed = sum(c["verdict"] == "failed" for row in rows for c in row["extras"]["rubric"]["criteria"])
    assert sum(m["rubric/failed"] for m in numbers) / 2 == pytest.approx(failed / 48)
    assert sum(m["judge/calls"] for m in numbers) == len(server.bodies)


def test_the_mean_is_clipped_last_of_all(parts):
    """One log of two batches: a mean over both, below 0, which HealthBench reports as 0."""
    criteria = [
        {"criterion": "is long", "points": 4, "check": {"length": {"unit": "chars", "min": 12}}},
        {"criterion": "is there", "points": -6, "check": {"length": {"unit": "chars", "min": 0}}},
    ]
    make = partial(Rubric, criteria=criteria)
    make.__name__ = "rubric"
    built = parts(rewards=[make], args={"max_steps": 2, "logging_steps": 2})
    GRPO.build(built).train()
    built.stack.close()
    running.close()
    rows = [json.loads(x) for f in sorted(built.run.rollouts.iterdir()) for x in f.read_text().splitlines()]
    (line,) = [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]
    mean = sum(row["extras"]["rubric"]["score"] for row in rows) / len(rows)
    assert mean < 0
    assert line["rubric/mean"] == pytest.approx(mean)
    assert line["rubric/clipped_mean"] == 0


def recipe(tmp_path, setting=None, **given):
    return load(
        {
            "model": {"name": "m"},
            "data": {"train": {"path": "x.jsonl"}},
            "rewards": [{"use": "rewards.rubric:Rubric", "with": given, **(setting or {})}],
            "trainer": {"algorithm": "grpo"},
            "run": {"name": "r", "directory": str(tmp_path)},
        }
    )


def test_rubrics_are_read_before_the_run(tmp_path):
    good = {"row_id": "a", "rubric": RUBRIC[:1]}
    assemble.rubrics_fit(recipe(tmp_path), Dataset.from_list([good]), "data.train")
    for rubric, words in [
        ([{"criterion": "x", "points": 0}], 'data.train: row b, column "rubric": criterion 1 has 0 points'),
        (RUBRIC[1:2], r"data.train: row b: criterion 1 \('says %'\) has no check and there is no judge"),
    ]:
        with pytest.raises(Mistake, match=words):
            assemble.rubrics_fit(recipe(tmp_path), [good, {"row_id": "b", "rubric": rubric}], "data.train")


def test_wrong_settings_are_mistakes(tmp_path):
    with pytest.raises(Mistake, match=r"^rewards\.0\.with: judge: model is missing"):
        assemble.judged(recipe(tmp_path, judge={"url": "http://127.0.0.1:1/v1"}))
    with pytest.raises(Mistake, match=r"^rewards\.0\.with: at_most should be a share"):
        assemble.judged(recipe(tmp_path, at_most=3))
    with pytest.raises(Mistake, match=r"^reward\.with: judge: model is missing"):
        try_reward("rewards.rubric:Rubric", arguments={"judge": {"url": "http://127.0.0.1:1/v1"}})


def test_a_batch_has_time_for_its_judge(tmp_path):
    """With the default of a reward, rows would time out before a judge that is down is given up, and the reason be lost."""
    rows = [{"row_id": "a", "rubric": RUBRIC}]
    judge = {"model": "m", "url": "http://127.0.0.1:1/v1"}
    with pytest.raises(
        Mistake, match=r"^rewards\.0\.timeout: 60 s for a batch is less than the 240 s .* set rewards\.0\.timeout: 600"
    ):
        assemble.rubrics_fit(recipe(tmp_path, judge=judge), rows, "data.train")
    assemble.rubrics_fit(recipe(tmp_path, {"timeout": 240}, judge=judge), rows, "data.train")
    assemble.rubrics_fit(recipe(tmp_path, judge={**judge, "timeout": 10, "patience": 40}), rows, "data.train")
    assemble.rubrics_fit(recipe(tmp_path), [{"row_id": "a", "rubric": RUBRIC[:1]}], "data.train")
    with pytest.raises(Mistake, match=r"^rewards\.0\.processes: 2 processes would each ask the judge"):
        assemble.rubrics_fit(recipe(tmp_path, {"timeout": 240, "processes": 2}, judge=judge), rows, "data.train")


def test_checking_a_reward_says_that_its_judge_is_down(server):
    def refuse(n, body):
        return 401

    server.script = refuse
    with pytest.raises(Mistake, match=r"^rewards\.rubric:Rubric: judge m: status 401"):
        try_reward("rewards.rubric:Rubric", arguments={"judge": {"model": "m", "url": server.url}, "criteria": RUBRIC})
    assert len(server.bodies) == 1
    server.script = lambda n, body: None
    scores = try_reward(
        "rewards.rubric:Rubric", arguments={"judge": {"model": "m", "url": server.url}, "criteria": RUBRIC}
    )
    assert scores.values[0] == pytest.approx(0.5)  # long enough; neither % nor /
