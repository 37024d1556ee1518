"""The cost formula against a token-by-token count, published sizes and the paper's own proportions."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.evaluation.kinetics import PAPER, Cost, Shape, contexts, intensity, problem_cost, shape_of

# Hugging Face configs of Qwen3: layers, hidden, intermediate, heads, kv heads (head size 128), tied; billions as published.
QWEN3 = {
    "0.6B": (28, 1024, 3072, 16, 8, True, 0.596),
    "1.7B": (28, 2048, 6144, 16, 8, True, 1.72),
    "4B": (36, 2560, 9728, 32, 8, True, 4.02),
    "8B": (36, 4096, 12288, 32, 8, False, 8.19),
    "14B": (40, 5120, 17408, 40, 8, False, 14.77),
    "32B": (64, 5120, 25600, 64, 8, False, 32.76),
}


def shape(name: str) -> Shape:
    layers, _, _, heads, kv, _, billions = QWEN3[name]
    return Shape(int(billions * 1e9), heads, kv, 128, ((layers, None),))


def by_token(s: Shape, prompt: int, output: int, chains: int, budget: int | None = None) -> tuple[float, float]:
    """FLOPs and bytes of `chains` chains that go on in step: every product and every read of each step, one by one."""
    layers = s.layers[0][0]
    flops = read = 0.0
    for t in range(1, output + 1):
        own = t - 0.5
        seen = prompt + own if budget is None else min(budget, prompt + own)
        flops += chains * (2 * s.parameters + 2 * 2 * s.heads * s.head_size * seen * layers)  # q·k, and the mean of v
        cached = 2 * s.kv_heads * s.head_size * layers * 2  # key and value, two bytes each
        read += cached * (prompt + chains * own) if budget is None else cached * chains * seen
    return flops, read


@pytest.mark.parametrize("name", QWEN3)
def test_the_closed_form_is_the_sum_over_tokens(name):
    for prompt, output, chains in ((200, 4096, 1), (1, 1, 1), (777, 300, 5)):
        found = problem_cost(shape(name), prompt, [output] * chains)
        flops, read = by_token(shape(name), prompt, output, chains)
        assert found.linear + found.attention == pytest.approx(flops, rel=1e-9)
        assert found.memory == pytest.approx(read, rel=1e-9)
        assert found.eflops(100.0) == pytest.approx(flops + 100 * read, rel=1e-9)


def test_lengths_enter_by_the_mean_of_their_squares():
    s = shape("4B")
    one_each = [problem_cost(s, 100, [n]) for n in (500, 4000)]
    both = problem_cost(s, 100, [500, 4000])
    assert both.linear + both.attention == pytest.approx(sum(c.linear + c.attention for c in one_each))
    prompts = 2 * 100 * s.elements(36) * (500 + 4000)
    assert both.memory == pytest.approx(sum(c.memory for c in one_each) - prompts / 2), (
        "the prompt is read for both at once"
    )
    assert both.attention > problem_cost(s, 100, [2250, 2250]).attention


def test_the_sparse_sum():
    assert contexts(200, 8192, 1024) == pytest.approx(8.05e6, rel=1e-3)
    for prompt, output, budget in ((200, 2000, 1024), (2000, 50, 1024), (10, 20, 1024), (1024, 9, 1024)):
        brute = math.fsum(min(budget, prompt + t - 0.5) for t in range(1, output + 1))
        assert contexts(prompt, output, budget) == pytest.approx(brute, rel=1e-9)
        s = shape("8B")
        found = problem_cost(s, prompt, [output] * 3, budget)
        flops, read = by_token(s, prompt, output, 3, budget)
        if prompt + output > budget:
            assert (found.linear + found.attention, found.memory) == pytest.approx((flops, read), rel=1e-9)


@given(st.integers(1, 3000), st.integers(1, 3000), st.integers(1, 4000))
def test_less_is_read_with_a_budget(prompt, output, budget):
    assert 0 < contexts(prompt, output, budget) <= contexts(prompt, output)
    assert contexts(prompt, output, budget) <= budget * output


def attention_share(name: str, output: int, per_byte: float) -> float:
    cost = problem_cost(shape(name), 200, [output])
    return 1 - cost.linear / cost.eflops(per_byte)


def test_the_share_of_attention():
    """The card's: 84 % (32B) to 99 % (0.6B) at 4k tokens, 97 to 100 % at 32k; with I = 206 66 to 97 % at 4k."""
    assert attention_share("32B", 4096, PAPER) == pytest.approx(0.84, abs=0.015)
    assert attention_share("0.6B", 4096, PAPER) == pytest.approx(0.99, abs=0.006)
    assert attention_share("32B", 32768, PAPER) == pytest.approx(0.97, abs=0.01)
    assert attention_share("0.6B", 32768, PAPER) > 0.995
    assert attention_share("32B", 4096, 206) == pytest.approx(0.66, abs=0.02)
    assert attention_share("0.6B", 4096, 206) == pytest.approx(0.97, abs=0.01)


@pytest.mark.parametrize("name", QWEN3)
def test_shapes_are_read_from_configs(name):
    from transformers import Qwen3Config

    layers, hidden, inner, heads, kv, tied, billions = QWEN3[name]
    found = shape_of(
        Qwen3Config(
            vocab_size=151936, hidden_size=hidden, intermediate_size=inner, num_hidden_layers=layers, head_dim=128,
            num_attention_heads=heads, num_key_value_heads=kv, tie_word_embeddings=tied,
        )
    )  # fmt: skip
    assert found is not None
    assert found.parameters / 1e9 == pytest.approx(billions, abs=0.006)
    assert (found.heads, found.kv_heads, found.head_size, found.layers) == (heads, kv, 128, ((layers, None),))
    card = {"0.6B": 0.752, "1.7B": 2.03}.get(name)
    if card:  # the paper's code counts the tied matrix twice for the two smallest
        assert (found.parameters + 151936 * hidden) / 1e9 == pytest.approx(card, abs=0.006)


def test_experts_that_a_token_does_not_visit_are_not_active():
    from transformers import Qwen3MoeConfig

    found = shape_of(
        Qwen3MoeConfig(
            vocab_size=151936, hidden_size=2048, intermediate_size=6144, moe_intermediate_size=768, num_hidden_layers=48,
            num_attention_heads=32, num_key_value_heads=4, head_dim=128, num_experts=128, num_experts_per_tok=8,
            tie_word_embeddings=False,
        )
    )  # fmt: skip
    assert found is not None
    assert found.parameters / 1e9 == pytest.approx(3.35, abs=0.1), "Qwen3-30B-A3B: 30.5 B, 3.3 B of them active"


def test_windows_bound_the_context_of_their_layers():
    from transformers import Gemma3TextConfig

    config = Gemma3TextConfig(
        vocab_size=1000, hidden_size=64, intermediate_size=64, num_hidden_layers=6, num_attention_heads=4,
        num_key_value_heads=2, head_dim=16, sliding_window=128,
    )  # fmt: skip
    found = shape_of(config)
    assert found is not None
    assert found.layers == ((1, None), (5, 128))
    near = Shape(found.parameters, 4, 2, 16, ((5, 128),))
    assert problem_cost(near, 50, [1000]).attention == pytest.approx(
        2 * 2 * near.elements(5) * contexts(50, 1000, 128)
    )


def test_models_without_such_a_cache_have_no_shape():
    from transformers import DeepseekV3Config, MambaConfig

    assert shape_of(MambaConfig(hidden_size=32, num_hidden_layers=2)) is None
    assert shape_of(DeepseekV3Config()) is None


def test_devices():
    assert intensity("NVIDIA H200") == (pytest.approx(206, abs=1), "H200")
    assert intensity("NVIDIA H100 80GB HBM3")[1] == "H100"
    assert intensity("NVIDIA H100 PCIe")[1] == "H100 PCIE"
    assert intensity("NVIDIA A100-SXM4-80GB")[1] == "A100"
    assert intensity("NVIDIA A100-SXM4-40GB")[1] == "A100-SXM4-40GB"
    assert intensity("NVIDIA L40S")[1] == "L40S"
    assert intensity("CPU") == (PAPER, "B200, as in the paper")


def test_nothing_costs_nothing():
    assert problem_cost(shape("4B"), 10, []) == Cost()
