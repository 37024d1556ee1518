"""Real vLLM in this process against transformers + PEFT, float32."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from rollouts.records import Engine, EngineError, Policy, Sampling

pytest.importorskip("vllm", reason="vLLM is not installed")
from rollouts.engines.vllm import VLLMEngine

pytestmark = pytest.mark.vllm

SAMPLING = Sampling(temperature=0.8, max_tokens=40)


@pytest.fixture(scope="module")
def engine(tiny) -> Iterator[VLLMEngine]:
    made = VLLMEngine(tiny.spec(lora_rank=8, run_id="test"))
    yield made
    made.close()


def gap(tiny, prompts, completions, adapter, temperature=1.0) -> float:
    """Largest difference of a token's log-prob between the engine and a plain forward pass."""
    return max(
        np.abs(np.array(c.logprobs) - tiny.logprobs(p, c.ids, adapter, temperature)).max()
        for p, c in zip(prompts, completions, strict=True)
    )


def test_sampler_and_trainer_agree(tiny, adapters, engine):
    assert isinstance(engine, Engine)
    prompts = tiny.prompts([3, 20, 100, 57] * 4)
    for version, adapter in ((1, adapters(1)), (2, None), (3, adapters(2))):
        engine.sync(Policy(version, adapter_dir=adapter))
        made = engine.generate(prompts, SAMPLING, range(16))
        assert {c.version for c in made} == {version}
        difference = gap(tiny, prompts, made, adapter, 0.8)
        print(f"largest difference of a log-prob, adapter {adapter}: {difference:.2e}")
        assert difference < 1e-4
        if adapter is not None:  # the adapter matters, or the comparison would say nothing
            assert gap(tiny, prompts, made, None, 0.8) > 0.1


def test_greedy_tokens_and_their_log_probs(tiny, adapters, engine):
    from rollouts.engines.transformers import TransformersEngine

    policy = Policy(4, adapter_dir=adapters(1))
    engine.sync(policy)
    reference = TransformersEngine(tiny.spec())
    reference.sync(policy)
    prompts = tiny.prompts([30, 60])
    greedy = Sampling(temperature=0.0, max_tokens=30)
    for ours, theirs in zip(
        engine.generate(prompts, greedy, [0, 1]), reference.generate(prompts, greedy, [0, 1]), strict=True
    ):
        assert (ours.ids, ours.finish) == (theirs.ids, theirs.finish)
        np.testing.assert_allclose(ours.logprobs, theirs.logprobs, atol=1e-4)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(temperature=0.0, repetition_penalty=1.3, max_tokens=30),
        Sampling(temperature=0.7, top_p=0.8, top_k=20, min_p=0.02, repetition_penalty=1.2, max_tokens=1),
    ],
    ids=["greedy", "sampled"],
)
def test_both_engines_process_logits_alike(tiny, adapters, engine, sampling):
    """Same order of penalty, temperature, min-p, top-k and top-p: same log-prob for every token that both draw."""
    from rollouts.engines.transformers import TransformersEngine

    policy = Policy(5, adapter_dir=adapters(2))
    engine.sync(policy)
    reference = TransformersEngine(tiny.spec())
    reference.sync(policy)
    (prompt,) = tiny.prompts([30], seed=1)
    n = 1 if sampling.temperature == 0 else 400
    ours = engine.generate([prompt] * n, sampling, range(n))
    theirs = reference.generate([prompt] * n, sampling, range(n))
    if n == 1:
        assert ours[0].ids == theirs[0].ids
        np.testing.assert_allclose(ours[0].logprobs, theirs[0].logprobs, atol=1e-4)
        return
    first, second = ({c.ids[0]: c.logprobs[0] for c in made} for made in (ours, theirs))
    common = first.keys() & second.keys()
    assert len(common) >= 0.8 * max(len(first), len(second))
    for token in common:
        assert first[token] == pytest.approx(second[token], abs=1e-4)


def test_no_stale_prefix_block_is_served(tiny, adapters, engine):
    """A prompt of many full blocks under one adapter, then under another, then under the first name's successor."""
    (long,) = tiny.prompts([400], seed=2)
    prompts = [long, [*long[:390], *tiny.prompts([10], seed=3)[0]]]
    greedy = Sampling(temperature=0.0, max_tokens=24)
    seen = []
    for version, adapter in ((10, adapters(1)), (11, adapters(2)), (12, None), (12, adapters(2)), (13, adapters(1))):
        engine.sync(Policy(version, adapter_dir=adapter))
        for _ in range(2):  # the second time from the cache
            made = engine.generate(prompts, greedy, [0, 0])
            assert gap(tiny, prompts, made, adapter) < 1e-4
        seen.append(made[0].ids)
    assert seen[0] != seen[1]
    assert seen[0] == seen[4]


def test_one_version_trained_twice_is_not_mixed_up(tiny, adapters, engine, tmp_path):
    """A resumed run saves other weights under the same version and folder."""
    (long,) = tiny.prompts([400], seed=4)
    folder = tmp_path / "v20"
    for seed in (1, 2):
        shutil.copytree(adapters(seed), folder, dirs_exist_ok=True)
        engine.sync(Policy(20, adapter_dir=str(folder)))
        made = engine.generate([long], Sampling(temperature=0.0, max_tokens=8), [0])
        assert gap(tiny, [long], made, adapters(seed)) < 1e-4


def test_seeds(tiny, engine):
    engine.sync(Policy(30))
    (prompt,) = tiny.prompts([12], seed=5)
    made = engine.generate([prompt] * 20, Sampling(max_tokens=20), [*range(10), *range(10)])
    assert [c.ids for c in made[:10]] == [c.ids for c in made[10:]]
    assert len({tuple(c.ids) for c in made}) == 10
    (alone,) = engine.generate([prompt], Sampling(max_tokens=20), [7])
    assert alone.ids == made[7].ids


def test_finish_stop_strings_and_lengths(tiny, engine):
    engine.sync(Policy(31))
    prompts = tiny.prompts([10] * 60, seed=6)
    free = engine.generate(prompts, Sampling(max_tokens=25), range(60))
    assert {c.finish for c in free} == {"stop", "length"}
    assert {c.ids[-1] for c in free if c.finish == "stop"} == set(tiny.eos_ids)
    assert all(len(c.ids) == 25 for c in free if c.finish == "length")
    assert not {i for c in free for i in c.ids[:-1]} & set(tiny.eos_ids)
    stop = next(t for c in free for t in [tiny.tokenizer.decode(c.ids[5:6])] if len(t) == 1 and t.isascii())
    made = engine.generate(prompts, Sampling(max_tokens=25, stop=(stop,)), range(60))
    cut = [c for c, f in zip(made, free, strict=True) if stop in tiny.tokenizer.decode(f.ids)]
    assert cut
    for completion in cut:
        text = tiny.tokenizer.decode(completion.ids)
        assert completion.finish == "stop"
        assert stop in text
        assert stop not in tiny.tokenizer.decode(completion.ids[:-1])
    (end,) = engine.generate(tiny.prompts([510], seed=7), Sampling(max_tokens=25), [0])
    assert len(end.ids) <= 2
    with pytest.raises(EngineError, match="no room"):
        engine.generate(tiny.prompts([512], seed=7), Sampling(max_tokens=25), [0])


def test_the_trainer_s_random_state_is_left_alone(tiny, adapters, engine):
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    expected = (torch.rand(3), random.random(), np.random.rand())
    torch.manual_seed(5)
    random.seed(5)
    np.random.seed(5)
    engine.sync(Policy(40, adapter_dir=adapters(1)))
    engine.generate(tiny.prompts([5]), SAMPLING, [1])
    assert torch.equal(torch.rand(3), expected[0])
    assert (random.random(), np.random.rand()) == expected[1:]
    assert torch.is_grad_enabled()
    assert "vllm" not in torch.set_num_threads.__module__


def test_mistakes_are_one_line(tiny, adapters, engine, tmp_path):
    with pytest.raises(EngineError, match="adapter_config"):
        engine.sync(Policy(50, adapter_dir=str(tmp_path)))
    bad = tmp_path / "dora"
    shutil.copytree(adapters(1), bad)
    config = json.loads((bad / "adapter_config.json").read_text())
    for key, value in (("use_dora", True), ("rank_pattern", {"q_proj": 4}), ("init_lora_weights", "pissa"), ("r", 64)):
        (bad / "adapter_config.json").write_text(json.dumps({**config, key: value}))
        with pytest.raises(EngineError) as caught:
            engine.sync(Policy(51, adapter_dir=str(bad)))
        assert "\n" not in str(caught.value)
    for options, text in (({"enforce_eagre": True}, "enforce_eager"), ({"dtype": "half"}, "model.dtype")):
        with pytest.raises(EngineError, match=text):
            VLLMEngine(tiny.spec(), **options)


def test_whole_models_are_reloaded_in_place(tiny, adapters, tmp_path):
    """Full fine-tuning: the same long prompt under changed weights, then under the base again."""
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(tiny.path)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)
    folder = tmp_path / "whole"
    other.save_pretrained(folder)
    engine = VLLMEngine(tiny.spec())
    try:
        (long,) = tiny.prompts([400], seed=8)
        for version, state_dir in enumerate([None, str(folder), str(folder), None]):
            engine.sync(Policy(version, state_dir=state_dir))
            (made,) = engine.generate([long], Sampling(max_tokens=30), [1])
            assert made.version == version
            model = other if state_dir else tiny.model()
            with torch.no_grad():
                logits = model(torch.tensor([long + made.ids])).logits[0, len(long) - 1 : -1]
            expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(made.ids)[:, None])[:, 0]
            np.testing.assert_allclose(made.logprobs, expected, atol=1e-4)
        with pytest.raises(EngineError, match="lora_rank"):
            engine.sync(Policy(9, adapter_dir=adapters(1)))
        with pytest.raises(EngineError, match="reload"):
            engine.sync(Policy(9, state_dir=str(tmp_path / "nowhere")))
    finally:
        engine.close()
    engine.close()
    with pytest.raises(EngineError, match="closed"):
        engine.generate([[5]], Sampling(), [0])


@pytest.mark.processes
def test_each_of_two_processes_has_its_own_engine_and_keeps_its_process_group(tiny, adapters, tmp_path):
    """As under `accelerate launch`: the group of the trainers is there first, in use between, and there afterwards."""
    program = tmp_path / "program.py"
    program.write_text(f"""
import json, torch
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
from rollouts.engines.vllm import VLLMEngine
from rollouts.records import EngineSpec, Policy, Sampling
engine = VLLMEngine(EngineSpec({tiny.path!r}, {tiny.eos_ids!r}, 0, 128, lora_rank=8))
engine.sync(Policy(1, adapter_dir={adapters(1)!r}))
# other amounts of other work in each: neither waits for the other
prompts = [[10 + rank, 20, 30]] * (2 + 3 * rank)
made = engine.generate(prompts, Sampling(max_tokens=12), range(len(prompts)))
engine.close()
total = torch.ones(1)
torch.distributed.all_reduce(total)
json.dump([total.item(), prompts, [[c.ids, c.logprobs] for c in made]], open({str(tmp_path)!r} + f"/{{rank}}.json", "w"))
""")
    ended = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2]), "OMP_NUM_THREADS": "1"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr[-3000:]
    for rank in range(2):
        total, prompts, made = json_of(tmp_path / f"{rank}.json")
        assert total == 2.0
        assert len(made) == 2 + 3 * rank
        for prompt, (ids, logprobs) in zip(prompts, made, strict=True):
            np.testing.assert_allclose(logprobs, tiny.logprobs(prompt, ids, adapters(1)), atol=1e-4)


def json_of(file):
    return json.loads(file.read_text())
