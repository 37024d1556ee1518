"""The judge against a real vLLM server: its tiny model knows nothing, but must answer in the schema that is asked for."""

import asyncio
import sys
import time
from pathlib import Path

import pytest

from rewards.criteria import Verdict
from rewards.judge import Counts, Judge, JudgeError, Question

pytestmark = [pytest.mark.vllm, pytest.mark.slow]
SAYS = (Verdict.MET, Verdict.UNMET)


def questions(n, name="Go on", criteria=("says alpha",)):
    return [Question(f"{name} {k}.", f"alpha {k}", c) for k in range(n) for c in criteria]


def rule(url, asked, **settings):
    counts = Counts()

    async def run():
        judge = Judge({"model": "judge", "url": url, "max_tokens": 200, **settings})
        try:
            return await judge.rule(asked, counts)
        finally:
            await judge.close()

    return asyncio.run(run()), counts


@pytest.fixture(scope="module")
def _vllm(tmp_path_factory):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    sys.path.insert(0, str(Path(__file__).parent))
    import vllm_server

    folder = tmp_path_factory.mktemp("judge")
    vllm_server.build(folder / "model")
    server = vllm_server.VLLM(folder / "model", folder / "log")
    yield server
    server.kill()
    sys.path.remove(str(Path(__file__).parent))


@pytest.fixture
def vllm(_vllm, monkeypatch):
    """The server, running."""
    import vllm_server

    monkeypatch.setenv("POSTTRAIN_JUDGE_KEY", vllm_server.KEY)
    return _vllm if _vllm.running else _vllm.start().wait()


@pytest.fixture
def counting(vllm):
    """A proxy before it that counts."""
    import vllm_server

    made = vllm_server.Counting(vllm.port)
    yield made
    made.stop()


@pytest.mark.parametrize("mode", ["criterion", "response"])
def test_every_answer_is_a_verdict_and_costs_what_the_server_says(vllm, counting, tmp_path, mode):
    asked = questions(20, mode, ("says alpha", "says beta", "is short"))
    requests = 60 if mode == "criterion" else 20
    before = vllm.counted()
    settings = {"mode": mode, "concurrency": 5, "cache": str(tmp_path / "v.sqlite")}
    found, counts = rule(counting.url, asked, **settings)
    after = vllm.counted()
    assert {r.verdict for r in found} <= set(SAYS), [r.explanation for r in found if r.verdict not in SAYS]
    assert (counts.questions, counts.calls, counts.cached, counts.failed) == (60, requests, 0, 0)
    assert counting.requests == after["success"] - before["success"] == requests
    used = sum(after[name] - before[name] for name in ("prompt_tokens", "generation_tokens"))
    assert counts.tokens == sum(r.tokens for r in found) == used
    assert counting.most == 5

    again, counts = rule(counting.url, asked, **settings)
    assert [(r.verdict, r.explanation) for r in again] == [(r.verdict, r.explanation) for r in found]
    assert (counts.calls, counts.tokens, counts.cached, counting.requests) == (0, 0, 60, requests)


def test_votes_are_several_answers(vllm, counting):
    found, counts = rule(counting.url, questions(12, "votes"), votes=3, temperature=1.0, seed=4)
    assert counting.requests == counts.calls == 36
    assert {r.verdict for r in found} <= set(SAYS)
    assert {r.agreement for r in found} <= {2 / 3, 1.0}
    assert {r.verdict for r in found} == set(SAYS)
    assert 2 / 3 in {r.agreement for r in found}  # the seeds are not one draw three times


def test_a_key_that_the_server_does_not_take(vllm, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_JUDGE_KEY", "wrong-key-entirely")
    with pytest.raises(JudgeError, match=r"status 401.*is the key in POSTTRAIN_JUDGE_KEY right\?") as caught:
        rule(vllm.url, questions(3))
    assert "wrong-key-entirely" not in str(caught.value)


def test_a_model_that_the_server_does_not_have(vllm):
    with pytest.raises(JudgeError, match=r"judge other: status 404: .*are url and model right\?"):
        rule(vllm.url, questions(3), model="other")


def test_a_prompt_longer_than_the_model_fails_alone(vllm):
    long = Question("Go on.", "alpha beta " * 3000, "says alpha")
    found, counts = rule(vllm.url, [*questions(2, "long"), long])
    assert [r.verdict in SAYS for r in found] == [True, True, False]
    assert found[2].verdict is Verdict.FAILED
    assert "status 400" in found[2].explanation
    assert counts.calls == 3  # and is not asked again


def test_a_server_killed_in_the_middle_and_started_again(vllm, tmp_path):
    """What it had said is kept, what it had not is FAILED while it is away, and answered when it is back."""
    asked = questions(150, "kill")
    cache = {"cache": str(tmp_path / "v.sqlite"), "concurrency": 4}

    async def killed_after(n):
        judge = Judge({"model": "judge", "url": vllm.url, "max_tokens": 200, "retries": 1, **cache})
        before = vllm.counted()["success"]
        ruling = asyncio.ensure_future(judge.rule(asked))
        while await asyncio.to_thread(lambda: vllm.counted()["success"]) < before + n:
            await asyncio.sleep(0.02)
        await asyncio.to_thread(vllm.kill)
        found = await ruling
        await judge.close()
        return found

    cut = asyncio.run(killed_after(20))
    answered = [r.verdict in SAYS for r in cut]
    assert 10 <= sum(answered) < 150
    assert all(r.verdict is Verdict.FAILED for r, there in zip(cut, answered, strict=True) if not there)
    assert all("tried 2 times" in r.explanation for r, there in zip(cut, answered, strict=True) if not there)

    async def back_in_a_while():
        judge = Judge(
            {"model": "judge", "url": vllm.url, "max_tokens": 200, "retries": 500, "patience": 900.0, **cache}
        )
        counts = Counts()
        ruling = asyncio.ensure_future(judge.rule(asked, counts))
        await asyncio.sleep(1)
        vllm.start()
        await asyncio.to_thread(vllm.wait)
        found = await ruling
        await judge.close()
        return found, counts

    whole, counts = asyncio.run(back_in_a_while())
    assert {r.verdict for r in whole} <= set(SAYS)
    assert counts.cached == sum(answered)
    kept = [(a.verdict, a.explanation) for a, there in zip(cut, answered, strict=True) if there]
    assert kept == [(b.verdict, b.explanation) for b, there in zip(whole, answered, strict=True) if there]
    assert counts.calls > 150 - sum(answered)  # those that found nobody there are counted


def test_a_server_that_stands_still_is_waited_for_no_longer_than_allowed(vllm):
    """Stopped by a signal it takes connections and says nothing."""
    import os
    import signal

    os.killpg(vllm.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    try:
        found, counts = rule(vllm.url, questions(6, "still"), timeout=1.5, retries=1, concurrency=6)
    finally:
        os.killpg(vllm.process.pid, signal.SIGCONT)
    assert time.monotonic() - began < 30
    assert [r.verdict for r in found] == [Verdict.FAILED] * 6
    assert all("no answer within 1.5 s" in r.explanation for r in found)
    assert counts.calls == 12
    assert rule(vllm.url, questions(6, "still"), concurrency=6)[1].failed == 0
