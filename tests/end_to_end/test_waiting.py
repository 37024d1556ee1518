"""Process 1 of 2 of a real run is killed, stopped or stuck in its reward: process 0 ends within its deadline and names it."""

from __future__ import annotations

import pytest

pytestmark = [pytest.mark.processes, pytest.mark.slow]

REWARD = """
import os, signal, time
calls = []
def digits(completions, **_):
    calls.append(1)
    if len(calls) == 3 and os.environ.get("RANK") == "1":
        fault = os.environ["FAULT"]
        if fault == "sleep":
            time.sleep(1000)
        os.kill(os.getpid(), getattr(signal, fault))
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [sum("0" <= x <= "9" for x in t) / max(len(t), 1) for t in texts]
"""
SMALL = [
    "evaluation=[]",
    "preflight=off",
    "trainer.args.max_steps=5",
    "trainer.args.per_device_train_batch_size=8",
    "trainer.args.num_generations=4",
    "rollouts.sampling.max_tokens=8",
    "checkpoints.every=1",
    "watch.stall=5",
    "watch.deadline=10",
]


@pytest.mark.parametrize(
    ("fault", "how"),
    [
        ("SIGKILL", "is gone (killed"),
        ("SIGSTOP", "is stopped (SIGSTOP"),
        ("sleep", "is stuck in rewards of step 3, at digits (slow.py:9)"),
    ],
)
def test_the_missing_one_is_named_and_the_same_command_goes_on(launch, recipes, tmp_path, fault, how):
    (tmp_path / "slow.py").write_text(REWARD)
    words = [recipes / "arithmetic_grpo.yaml", *SMALL, 'rewards=[{use: "slow.py:digits"}]']
    ended = launch(*words, processes=2, timeout=300, env={"FAULT": fault, "OMP_NUM_THREADS": "1"})
    assert ended.code == 1  # what accelerate answers; `posttrain train` answers 3
    (last,) = [line for line in ended.err.splitlines() if line.startswith("posttrain: stopped: ")]
    assert "process 1 (pid " in last
    assert how in last
    assert "the state of step 2 is kept in runs/test/checkpoints/checkpoint-2; the same command goes on" in last
    status = ended.json("status.json")
    assert (status["state"], status["steps"]) == ("stopped", 2)
    assert last.removeprefix("posttrain: stopped: ")[:400] == status["error"][:400]
    stacks = sorted(p.name for p in (ended.run / "stacks").glob("*.txt"))
    assert ("r0-1.txt" in stacks) == (fault != "SIGKILL")
    if fault == "SIGKILL":
        again = launch(*words, processes=2, timeout=300, env={"FAULT": "SIGCONT", "OMP_NUM_THREADS": "1"})
        assert again.code == 0, again.err[-3000:]
        assert again.json("status.json")["resumed_from"] == 2
