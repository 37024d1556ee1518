"""Training on rubrics with a judge: a real vLLM server that is killed in the second step, and one of code that two processes ask."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import yaml

pytestmark = [pytest.mark.processes, pytest.mark.slow]
SERVERS = str(Path(__file__).resolve().parents[1] / "rewards" / "judges")

STRATEGY = '''
import os
import signal

from rollouts.strategies.single import SingleTurn


class Kills(SingleTurn):
    """In the second step, before anything is sampled, the judge dies."""

    def run(self, asks, session):
        if session.engine.version == 1:
            os.killpg(int(os.environ["JUDGE_PID"]), signal.SIGKILL)
        return super().run(asks, session)
'''
RUBRIC = [
    {"criterion": "Explains how the sum is found.", "points": 3},
    {"criterion": "Has a box.", "points": 5, "check": {"contains": "boxed"}},
    {"criterion": "Is long.", "points": -2, "check": {"length": {"unit": "chars", "min": 60}}},
]


@pytest.fixture(scope="module")
def _vllm(tmp_path_factory):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    sys.path.insert(0, SERVERS)
    import vllm_server

    folder = tmp_path_factory.mktemp("judge")
    vllm_server.build(folder / "model")
    server = vllm_server.VLLM(folder / "model", folder / "log")
    yield server
    server.kill()
    sys.path.remove(SERVERS)


@pytest.fixture
def train(_vllm, launch, recipes, tmp_path):
    """`train(...)`: three steps of 16 rollouts with settings of the rubric."""
    import vllm_server

    if not _vllm.running:
        _vllm.start().wait()

    def do(**settings):
        recipe = yaml.safe_load((recipes / "arithmetic_grpo.yaml").read_text())
        judge = {"model": "judge", "url": _vllm.url, "max_tokens": 100, "retries": 1, "cache": "verdicts.sqlite"}
        rubric = {"criteria": RUBRIC, "judge": judge, **settings}
        recipe["rewards"] = [{"use": "rewards.rubric:Rubric", "timeout": 300, "with": rubric}]
        recipe["rollouts"]["strategy"] = "mine.py:Kills"
        recipe["rollouts"]["sampling"]["max_tokens"] = 48
        recipe["trainer"]["args"] |= {"per_device_train_batch_size": 16, "max_steps": 3}
        recipe |= {"evaluation": [], "preflight": "off"}
        (tmp_path / "mine.py").write_text(STRATEGY)
        (tmp_path / "judged.yaml").write_text(yaml.safe_dump(recipe))
        environment = {"JUDGE_PID": str(_vllm.process.pid), "POSTTRAIN_JUDGE_KEY": vllm_server.KEY}
        ended = launch("judged.yaml", env=environment, timeout=400)
        _vllm.process.wait()
        return ended

    return do


@pytest.mark.vllm
def test_rows_without_a_verdict_are_masked(train):
    ended = train(at_most=1.0)
    assert ended.code == 0, ended.err[-3000:]
    assert ended.json("status.json")["steps"] == 3
    rows = ended.rollouts()
    assert len(rows) == 48
    for row in rows:
        told = row["extras"]["rubric"]
        judged, *by_code = told["criteria"]
        assert [one["by"] for one in told["criteria"]] == ["judge", "code", "code"]
        assert {one["verdict"] for one in by_code} <= {"met", "unmet"}
        points = sum(one["points"] for one in told["criteria"] if one["verdict"] == "met")
        if row["step"] == 0:
            assert judged["verdict"] in ("met", "unmet")
            assert told["score"] == pytest.approx(points / 8)
        else:
            assert judged["verdict"] == "failed"
            assert "cannot be reached" in judged["why"]
            assert told["score"] is None
    failed = ended.metrics("rubric/failed")
    # Equal answers to one prompt are one question; of a request that nobody takes one more is tried.
    assert all(0 < calls <= 16 * tries for calls, tries in zip(ended.metrics("judge/calls"), (1, 2, 2), strict=True))
    assert ended.metrics("judge/tokens")[1:] == [0, 0]
    assert failed == pytest.approx([0, 1 / 3, 1 / 3])
    assert all(loss == 0 for loss in ended.metrics("loss")[1:])


@pytest.mark.vllm
def test_too_many_of_them_stop_the_run(train):
    ended = train(at_most=0.01)
    assert ended.code == 3, ended.err[-3000:]
    assert "16 of the last 96 verdicts failed, at_most 0.01 allows 10 of 1000" in ended.err
    assert "cannot be reached" in ended.err
    assert "Traceback" not in ended.err
    assert ended.json("status.json")["steps"] == 1
    assert "only-for-tests" not in ended.err + ended.out


@pytest.fixture
def judge(monkeypatch):
    """Its verdict on `says WORD` is whether WORD is in the answer."""
    monkeypatch.syspath_prepend(SERVERS)
    import judge_server

    server = judge_server.Server()
    yield server
    server.stop()


def test_two_processes_share_a_judge_and_its_cache_and_the_same_run_again_asks_nothing(
    judge, launch, recipes, tmp_path
):
    recipe = yaml.safe_load((recipes / "arithmetic_grpo.yaml").read_text())
    criteria = [{"criterion": "says tens", "points": 3}, {"criterion": "says 7", "points": -1}]
    settings = {"model": "m", "url": judge.url, "cache": "verdicts.sqlite"}
    recipe["rewards"] = [
        {"use": "rewards.rubric:Rubric", "timeout": 300, "with": {"criteria": criteria, "judge": settings}}
    ]
    recipe["trainer"]["args"] |= {"per_device_train_batch_size": 16, "max_steps": 2}
    recipe |= {"evaluation": [], "preflight": "off"}
    (tmp_path / "judged.yaml").write_text(yaml.safe_dump(recipe))

    first = launch("judged.yaml", processes=2, name="first", env={"POSTTRAIN_JUDGE_KEY": "k"}, timeout=400)
    assert first.code == 0, first.err[-3000:]
    asked = len(judge.bodies)
    rows = first.rollouts()
    assert len(rows) == 2 * 2 * 16
    for row in rows:
        found = [word in row["completion"] for word in ("tens", "7")]
        told = row["extras"]["rubric"]["criteria"]
        assert [one["verdict"] for one in told] == ["met" if f else "unmet" for f in found]
        assert row["rewards"]["Rubric"] == pytest.approx((3 * found[0] - found[1]) / 3)
    # Of both processes together, though TRL logs means.
    assert first.metrics("judge/questions") == [64, 64]
    assert sum(first.metrics("judge/calls")) == asked
    assert 0 < asked <= 128

    again = launch("judged.yaml", processes=2, name="again", env={"POSTTRAIN_JUDGE_KEY": "k"}, timeout=400)
    assert again.code == 0, again.err[-3000:]
    assert len(judge.bodies) == asked
    assert again.metrics("judge/cached") == again.metrics("judge/questions") == [64, 64]
    assert again.metrics("judge/calls") == [0, 0]
    assert [row["rewards"] for row in again.rollouts()] == [row["rewards"] for row in rows]
