"""What a generated token costs: eFLOPs, which count reading the KV cache beside computing.

Source: Sadhukhan et al., "Kinetics: Rethinking Test-Time Scaling Laws", arXiv 2506.05333. For N chains of a problem, P active
parameters, L_in prompt and L_out generated tokens, D = 2 × kv heads × head size × layers elements of KV cache a token,
r = query heads / kv heads, two bytes an element, I FLOPs that the device does while it moves one byte:

    compute = 2 N P L_out + 2 r N L_in D L_out + r N D L_out²
    memory  = 2 L_in D L_out + N D L_out²            bytes; the prompt's cache is read once for all N chains
    eFLOPs  = compute + I × memory

A token in the middle of its own step sees a context of L_in + t - 1/2; the sums over t = 1 … L_out are these formulas exactly.
Chains of different lengths enter with the mean of the squares of their lengths, which the square of the mean understates.
Reading the weights (a large batch shares that) and the prompt's own pass are not counted.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

PAPER = 562.5
"""FLOPs a byte of the paper's B200 (4.5 PFLOP/s, 8 TB/s)."""

INTENSITIES = {
    "B200": PAPER,
    "H200": 989.5 / 4.8,
    "H100": 989.5 / 3.35,
    "H100 PCIE": 756.5 / 2.0,
    "H100 NVL": 835.5 / 3.9,
    "H20": 148 / 4.0,
    "A100": 312 / 2.039,
    "A100-SXM4-40GB": 312 / 1.555,
    "A100-PCIE-40GB": 312 / 1.555,
    "L40S": 362 / 0.864,
    "L4": 121 / 0.3,
    "A10G": 70 / 0.6,
    "MI300X": 1307.4 / 5.3,
}
"""Of the makers' data sheets: dense bfloat16 TFLOP/s over TB/s (the B200's is the paper's own). The longest name that a device's
name holds counts."""


def intensity(device: str) -> tuple[float, str]:
    """FLOPs a byte of a device by its name, and whose they are: the paper's where the name says nothing."""
    words = device.upper().replace("NVIDIA", " ").replace("AMD", " ").split()
    known = [name for name in INTENSITIES if _holds(words, name.upper().split())]
    if not known:
        return PAPER, "B200, as in the paper"
    best = max(known, key=len)
    return INTENSITIES[best], best


def _holds(words: Sequence[str], name: Sequence[str]) -> bool:
    return all(any(word == part or word.startswith(part + "-") for word in words) for part in name)


@dataclass(frozen=True, slots=True)
class Shape:
    """What of a model the cost depends on."""

    parameters: int
    """Active ones: of experts, as many as a token visits."""
    heads: int
    kv_heads: int
    head_size: int
    layers: tuple[tuple[int, int | None], ...]
    """(how many, window): attention layers that see so many tokens at most; None = all of them."""

    def elements(self, layers: int) -> int:
        """KV elements a token in so many layers."""
        return 2 * self.kv_heads * self.head_size * layers


@dataclass(frozen=True, slots=True)
class Cost:
    """FLOPs of linear layers and of attention, and bytes of KV cache read."""

    linear: float = 0.0
    attention: float = 0.0
    memory: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.linear + other.linear, self.attention + other.attention, self.memory + other.memory)

    def eflops(self, intensity: float = PAPER) -> float:
        return self.linear + self.attention + intensity * self.memory


def contexts(prompt: float, output: float, budget: int | None = None) -> float:
    """Sum of the context lengths of all steps: of min(budget, prompt + t - 1/2) over t = 1 … output.

    With a budget b above the prompt this is b × output - (b - prompt)²/2, if the output reaches it.
    """
    dense = prompt * output + output * output / 2
    if budget is None or prompt + output <= budget:
        return dense
    return budget * output - max(0.0, budget - prompt) ** 2 / 2


def problem_cost(shape: Shape, prompt: int, outputs: Sequence[int], budget: int | None = None) -> Cost:
    """What the chains of one problem cost.

    Args:
        prompt: its tokens.
        outputs: generated tokens of each chain.
        budget: sparse attention that reads so many tokens of the cache a step at most (None = dense). Chains then read
            their own choice of the prompt, so nothing is shared.
    """
    if not outputs:
        return Cost()
    r = shape.heads / shape.kv_heads
    mean = sum(outputs) / len(outputs)
    attention = memory = 0.0
    for many, window in shape.layers:
        d = shape.elements(many)
        sizes = [size for size in (budget, window) if size is not None]
        limit = min(sizes, default=None)
        seen = sum(contexts(prompt, length, limit) for length in outputs)
        attention += 2 * r * d * seen
        if limit is None:
            memory += 2 * prompt * d * mean + d * sum(length * length for length in outputs)
        else:
            memory += 2 * d * seen
    return Cost(2.0 * shape.parameters * sum(outputs), attention, memory)


def shape_of(config: Any) -> Shape | None:
    """The shape that a transformers config describes; None for models of another kind (compressed KV caches, state
    instead of a cache in every layer, code of their own)."""
    heads = getattr(config, "num_attention_heads", None)
    layers = getattr(config, "num_hidden_layers", None)
    size = getattr(config, "hidden_size", None)
    if not (heads and layers and size) or getattr(config, "kv_lora_rank", None):
        return None
    kv_heads = getattr(config, "num_key_value_heads", None) or heads
    head_size = getattr(config, "head_dim", None) or size // heads
    kinds = getattr(config, "layer_types", None) or ["full_attention"] * layers
    window = getattr(config, "sliding_window", None)
    full = kinds.count("full_attention")
    near = kinds.count("sliding_attention") + kinds.count("chunked_attention")
    groups = [(full, None), (near, window)]
    if not full + near:
        return None
    parameters = active_parameters(config)
    if parameters is None:
        return None
    return Shape(parameters, heads, kv_heads, head_size, tuple((many, w) for many, w in groups if many))


def active_parameters(config: Any) -> int | None:
    """Parameters that a token visits, tied ones once; the model is built on the meta device (no memory, no weights).

    None if transformers cannot build it.
    """
    import copy

    import torch
    from transformers import AutoModelForCausalLM

    from posttrain import models

    try:
        with torch.device("meta"):
            built = AutoModelForCausalLM.from_config(
                copy.deepcopy(config), attn_implementation="eager", trust_remote_code=models.allows_code()
            )
        built.tie_weights()
    except Exception:  # whatever a model's own constructor may raise: the cost is then not known
        return None
    total = sum(p.numel() for p in built.parameters())
    experts = next(
        (n for key in ("num_experts", "num_local_experts", "n_routed_experts") if (n := getattr(config, key, None))), 0
    )
    visited = getattr(config, "num_experts_per_tok", None)
    if experts and visited:
        routed = sum(p.numel() for name, p in built.named_parameters() if ".experts." in f".{name}.")
        total -= round(routed * (1 - visited / experts))
    return total
