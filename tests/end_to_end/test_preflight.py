"""The checks in whole runs: they stop one that is wrong, and leave one that is right exactly as it would have been."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

SMALL = ("data.train.with={n: 64}", "trainer.args.max_steps=3", "trainer.args.num_generations=8", "evaluation=[]")
TIMES = ("time", "step_time", "train_runtime")


def left(ended):
    """Weights, metrics but for times, rollouts."""
    assert ended.code == 0, ended.err[-3000:]
    metrics = [
        {k: v for k, v in m.items() if not k.startswith(TIMES) and "per_second" not in k}
        for m in ended.lines("metrics.jsonl")
    ]
    key = lambda r: (r["step"], r["row_id"], r["sample"])  # noqa: E731
    return (
        (ended.run / "adapter" / "adapter_model.safetensors").read_bytes(),
        metrics,
        sorted(ended.rollouts(), key=key),
    )


def test_two_processes_are_the_same_with_and_without(launch, recipes):
    words = (*SMALL, "trainer.args.per_device_train_batch_size=16", "adapter.lora_dropout=0.1")
    checked = launch(recipes / "arithmetic_grpo.yaml", *words, name="checked", processes=2)
    plain = launch(recipes / "arithmetic_grpo.yaml", *words, "preflight=off", name="plain", processes=2)
    assert left(checked) == left(plain)
    told = checked.json("preflight.json")
    assert all(c["ok"] is not False for c in told["checks"])
    (compared,) = [c["looked"] for c in told["checks"] if c["name"] == "log-probs"]
    assert compared.startswith("8 rollouts")
    assert checked.out.count("preflight: ") == 1
    assert plain.json("preflight.json")["checks"] == []


def test_a_run_that_was_cut_goes_on_the_same(launch, recipes, tmp_path):
    """Checked at its first start and at its second; killed between two checkpoints."""
    (tmp_path / "deadly.py").write_text(
        "import os, pathlib, signal\n"
        "def judge(completions, answer, trainer_state, **columns):\n"
        "    once = pathlib.Path('killed')\n"
        "    if os.environ.get('DEADLY') and trainer_state.global_step == 3 and not once.exists():\n"
        "        once.touch()\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return [float(f'{{{a}}}' in c[0]['content']) for c, a in zip(completions, answer)]\n"
    )
    words = (*SMALL, "trainer.args.per_device_train_batch_size=16", "adapter.lora_dropout=0.1", "checkpoints.every=2",
             "trainer.args.max_steps=5", "rewards=[{use: 'deadly.py:judge'}]")  # fmt: skip
    plain = launch(recipes / "arithmetic_grpo.yaml", *words, "preflight=off", name="plain")
    killed = launch(recipes / "arithmetic_grpo.yaml", *words, name="cut", env={"DEADLY": "1"})
    assert killed.code != 0
    assert (tmp_path / "killed").exists()
    again = launch(recipes / "arithmetic_grpo.yaml", *words, name="cut", env={"DEADLY": "1"})
    assert again.out.count("preflight: ") == 1
    assert left(again) == left(plain)


def test_a_wrong_run_ends_before_its_first_step(launch, recipes):
    words = (*SMALL, "trainer.args.per_device_train_batch_size=16", "rollouts.sampling.max_tokens=10")
    ended = launch(recipes / "arithmetic_grpo.yaml", *words, processes=2)
    said = ended.err.split("posttrain: ")[1]
    assert said.startswith("preflight failed\n")
    assert "probe: length: 64 of 64 rollouts cut at 10 tokens; raise rollouts.sampling.max_tokens" in said
    assert "Traceback" not in said.split("torch.distributed")[0].split("E1")[0]
    assert ended.json("status.json")["state"] == "failed"
    assert not (ended.run / "metrics.jsonl").exists()
    warned = launch(
        recipes / "arithmetic_grpo.yaml", *words, "preflight=warn", "trainer.args.max_steps=1", name="warned"
    )
    assert warned.code == 0, warned.err[-3000:]
    assert "✗" in warned.out
    skipped = launch(
        recipes / "arithmetic_grpo.yaml", *words, "--no-preflight", "trainer.args.max_steps=1", name="off"
    )
    assert skipped.code == 0, skipped.err[-3000:]
    assert "preflight: switched off" in skipped.out


@pytest.mark.vllm
def test_vllm_in_process_is_the_same_with_and_without(launch, recipes):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    words = (*SMALL, "trainer.args.per_device_train_batch_size=16")
    checked = launch(recipes / "arithmetic_grpo_vllm.yaml", *words, name="checked")
    plain = launch(recipes / "arithmetic_grpo_vllm.yaml", *words, "preflight=off", name="plain")
    assert left(checked) == left(plain)
    assert {c["name"] for c in checked.json("preflight.json")["checks"] if c["ok"]} >= {"engine", "log-probs"}
