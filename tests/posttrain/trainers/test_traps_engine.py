"""TRL's traps between trainer and engine: merging in place, importance sampling by length, the KL's gradient."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoModelForCausalLM

from posttrain.trainers.correction import Correction
from posttrain.trainers.grpo import GRPO
from posttrain.trainers.rloo import RLOO

# -- the base under the adapter -----------------------------------------------------------------------------------


def in_bfloat16(built, tiny):
    built.model = AutoModelForCausalLM.from_pretrained(tiny, dtype=torch.bfloat16)
    return built


def base_of(model):
    return {
        k.replace("base_model.model.", "").replace(".base_layer", ""): v.detach().clone()
        for k, v in model.named_parameters()
        if "lora_" not in k
    }


def changed(before, after):
    """Share of the numbers that are others."""
    different = sum((after[k] != before[k]).sum().item() for k in before)
    return different / sum(v.numel() for v in before.values())


def test_syncs_into_the_base_corrupt_it(parts, bare, tiny):
    """TRL's own sync (merge, hand over, unmerge), 100 times: a bfloat16 base has drifted. Ours never merges."""
    from trl.generation.vllm_generation import DistributedBackend, VLLMGeneration

    theirs = bare(model=in_bfloat16(parts(), tiny).model, max_steps=1)
    with torch.no_grad():
        for name, p in theirs.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.05, generator=torch.Generator().manual_seed(0))
    received = []
    receiver = SimpleNamespace(load_weights=lambda pairs: received.append(pairs[0][0]))
    sync = object.__new__(VLLMGeneration)  # all of it but the engine itself, which only receives
    sync.model, sync.accelerator, sync._dist = theirs.model, theirs.accelerator, DistributedBackend(theirs.accelerator)
    sync.mode, sync.enable_sleep_mode = "colocate", False
    executor = SimpleNamespace(driver_worker=SimpleNamespace(model_runner=SimpleNamespace(model=receiver)))
    sync.llm = SimpleNamespace(llm_engine=SimpleNamespace(model_executor=executor), reset_prefix_cache=lambda: None)
    before = base_of(theirs.model)
    for _ in range(100):
        sync.sync_weights()
    assert received
    assert changed(before, base_of(theirs.model)) > 0.02

    built = in_bfloat16(
        parts(args={"max_steps": 4}, model={"name": tiny, "dtype": "bfloat16"}, watch={"parity": 1.0}), tiny
    )
    before = base_of(built.model)
    trainer = GRPO.build(built)
    trainer.train()
    built.stack.close()
    after = base_of(trainer.model)
    assert after.keys() == before.keys()
    assert changed(before, after) == 0
    assert built.engine.version == 3
    assert any(v.abs().max() > 0 for k, v in trainer.model.named_parameters() if "lora_B" in k)


# -- sampler and trainer that differ a little ---------------------------------------------------------------------


def test_the_default_importance_weight_unlearns_long_answers(parts, bare):
    """Log-ratios of standard deviation 0.05 a token (measured in bfloat16), mean weight 1 a token: TRL's product over the
    sequence loses most of a long answer; ours weighs it like a short one."""
    short, long, sd = 4, 420, 0.05
    rows = 16
    lengths = [short if i % 2 else long for i in range(rows)]

    def sampled(prompts):
        noise = torch.Generator().manual_seed(3)
        return [torch.randint(6, 260, (n,), generator=noise).tolist() for n in lengths]

    theirs = bare(ids=sampled, max_steps=1, per_device_train_batch_size=rows)
    assert theirs.args.vllm_importance_sampling_mode == "sequence_mask"
    # What use_vllm does to the loss, without an engine: the tokens and their log-probs are given.
    theirs.use_vllm, theirs._last_loaded_step = True, 0
    # The sampler's are 0 in `bare`, so the log-ratio is what the trainer's are.
    noise = torch.Generator().manual_seed(7)
    logps_of = theirs._get_per_token_logps_and_entropies

    def with_noise(*args, **kwargs):
        values = logps_of(*args, **kwargs)
        if torch.is_grad_enabled():
            return values
        return sd * torch.randn(values[0].shape, generator=noise) - sd**2 / 2, *values[1:]

    theirs._get_per_token_logps_and_entropies = with_noise
    made = []
    inner = theirs._generate_and_score_completions
    theirs._generate_and_score_completions = lambda given: made.append(inner(given)) or made[-1]
    theirs.train()
    batch = made[0]
    weights = batch["importance_sampling_ratio"]
    assert weights.shape == (rows, 1)
    is_long = torch.tensor(lengths) == long
    assert weights[~is_long].mean() == pytest.approx(1, abs=0.1)
    assert weights[is_long].median() < 0.75

    old, sampler = batch["old_per_token_logps"], batch["sampling_per_token_logps"]
    mask = batch["completion_mask"]
    for mode in ("token_truncate", "geometric_mask"):
        ours = Correction.of(mode, None, None, same_numerics=False).weights(old, sampler, mask)
        mean = (ours * mask).sum(1) / mask.sum(1)
        assert mean[is_long].median() == pytest.approx(1, abs=0.02), mode
    auto = Correction.of("auto", None, None, same_numerics=False)
    assert auto.mode == "token_truncate"
    assert parts().recipe.rollouts.correction.mode == "auto"


BARE_COLOCATED = """
import sys
from datasets import Dataset
from peft import LoraConfig
from trl import GRPOConfig, GRPOTrainer
folder, out = sys.argv[1:]
args = GRPOConfig(output_dir=out, use_cpu=True, bf16=False, gradient_checkpointing=False, report_to="none", max_steps=1,
                  per_device_train_batch_size=4, num_generations=2, max_completion_length=8, use_vllm=True,
                  vllm_mode="colocate", vllm_gpu_memory_utilization=0.1, vllm_max_model_length=128)
rows = Dataset.from_list([{"prompt": [{"role": "user", "content": f"say {i}"}]} for i in range(4)])
trainer = GRPOTrainer(folder, lambda completions, **_: [1.0] * len(completions), args, rows, peft_config=LoraConfig())
model = trainer.vllm_generation.llm.llm_engine.model_executor.driver_worker.model_runner.model
packed = any(not weight.numel() for weight in model.parameters())
print("constructed", "packed" if packed else "plain", flush=True)
trainer.train()
"""


@pytest.mark.vllm
@pytest.mark.slow
def test_trls_colocated_engine_fails_at_its_first_sync_without_a_gpu(tiny, tmp_path):
    """TRL merges the adapter and loads the whole model, which vLLM's CPU build cannot take once it has packed its weights, as it does
    on most CPUs (with AVX-512, say). Ours hands over the adapter, which it can (end_to_end/test_engines.py::test_vllm_in_process)."""
    if torch.cuda.is_available():
        pytest.skip("a trap of machines without a GPU")
    pytest.importorskip("vllm", reason="vLLM is not installed")
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    world = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    ended = subprocess.run(
        [sys.executable, "-c", BARE_COLOCATED, tiny, str(tmp_path)],
        env={**os.environ, **world, "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert "constructed" in ended.stdout, ended.stderr[-2000:]
    if "constructed plain" in ended.stdout:
        assert ended.returncode == 0, ended.stderr[-2000:]
        pytest.skip("vLLM leaves its weights as they are on this CPU, and takes new ones")
    assert ended.returncode != 0
    assert "AttributeError: 'Parameter' object has no attribute 'weight_loader'" in ended.stderr


# -- the gradient of the KL ---------------------------------------------------------------------------------------


@pytest.fixture(params=[(GRPO, "grpo"), (RLOO, "rloo")], ids=["grpo", "rloo"])
def one_token(request, parts):
    """A policy over the vocabulary at one position, and a reference that is another."""
    kind, algorithm = request.param
    args = {"beta": 1.0, "max_steps": 1, **({"loss_type": "grpo"} if algorithm == "grpo" else {})}
    built = parts(algorithm=algorithm, args=args)
    trainer = kind.build(built)
    trainer.current_gradient_accumulation_steps = 1
    model = trainer.model.train()
    with torch.no_grad():
        for name, p in model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    ids = torch.tensor([[5, 30, 31, 4]])
    with model.disable_adapter(), torch.no_grad():
        reference = model(ids).logits[0, -1].log_softmax(-1)
    trained = [p for p in model.parameters() if p.requires_grad]

    def gradient(loss):
        return torch.cat([g.flatten() for g in torch.autograd.grad(loss, trained)])

    def logps():
        return model(ids).logits[0, -1].log_softmax(-1)

    yield SimpleNamespace(
        trainer=trainer, ids=ids, reference=reference, logps=logps, gradient=gradient, name=algorithm
    )
    built.stack.close()


def exact(policy):
    """Gradients of KL(policy | reference) and of KL(reference | policy), by summing over the vocabulary."""
    now = policy.logps()
    reverse = policy.gradient((now.exp() * (now - policy.reference)).sum())
    now = policy.logps()
    return reverse, policy.gradient((policy.reference.exp() * (policy.reference - now)).sum())


def expected(policy):
    """The gradient of TRL's loss, in expectation over what the policy samples: every token once, by its probability."""
    trainer = policy.trainer
    old, total = policy.logps().detach(), 0.0
    for token in range(len(old)):
        k1 = (old[token] - policy.reference[token]).reshape(1)
        row = {
            "prompt_ids": policy.ids,
            "prompt_mask": torch.ones_like(policy.ids),
            "completion_ids": torch.tensor([[token]]),
            "completion_mask": torch.ones(1, 1, dtype=torch.long),
            # GRPO has the KL in the loss; RLOO takes k1 off the reward (the test below).
            "advantages": torch.zeros(1) if policy.name == "grpo" else -k1,
            "old_per_token_logps": old[token].reshape(1, 1),
            "old_logps": old[token].reshape(1),
            "ref_per_token_logps": policy.reference[token].reshape(1, 1),
            "num_items_in_batch": torch.tensor(1),
        }
        total = total + policy.gradient(trainer._compute_loss(trainer.model, row)) * old[token].exp()
    return total


def test_the_gradient_of_the_kl(one_token):
    """The defaults (GRPO: k3 weighted by the ratio, RLOO: k1 in the reward) have the gradient of KL(policy | reference);
    plain k3, which papers use, has that of KL(reference | policy)."""
    reverse, forward = exact(one_token)
    assert (expected(one_token) - reverse).norm() < 1e-4 * reverse.norm()
    if one_token.name == "grpo":
        assert one_token.trainer.args.use_bias_correction_kl is True
        one_token.trainer.args.use_bias_correction_kl = False
        plain = expected(one_token)
        assert (plain - forward).norm() < 1e-4 * forward.norm()
        assert (plain - reverse).norm() > 0.05 * reverse.norm()


def test_rloo_takes_k1_off_the_reward(parts):
    """With equal rewards the advantages are those of the penalty alone: less for the rows that went further."""
    built = parts(rewards=[lambda completions, **_: [0.5] * len(completions)], algorithm="rloo",
                  args={"beta": 0.5, "max_steps": 1})  # fmt: skip
    trainer = RLOO.build(built)
    with torch.no_grad():
        for name, p in trainer.model.named_parameters():
            if "lora_B" in name:
                p.normal_(std=0.1, generator=torch.Generator().manual_seed(0))
    trainer.model.train()
    made = trainer._generate_and_score_completions([dict(built.train[i // 4]) for i in range(8)])
    ids = torch.cat([made["prompt_ids"], made["completion_ids"]], 1)
    attention = torch.cat([made["prompt_mask"], made["completion_mask"]], 1)
    with torch.no_grad(), trainer.model.disable_adapter():
        reference = trainer._get_per_token_logps_and_entropies(
            trainer.model, ids, attention, made["completion_ids"].shape[1]
        )[0]
    kl = made["old_logps"] - (reference * made["completion_mask"]).sum(1)
    assert kl.abs().max() > 0.01
    for group in (slice(0, 4), slice(4, 8)):
        mine = -0.5 * kl[group]
        wanted = mine - (mine.sum() - mine) / 3
        torch.testing.assert_close(made["advantages"][group], wanted, atol=1e-4, rtol=1e-4)
    built.stack.close()
