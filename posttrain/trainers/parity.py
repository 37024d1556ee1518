"""After each sync: does the engine serve the weights that the trainer holds?

The engine is asked for the next token after a few beginnings of one fixed prompt (one step of a batch), and one forward pass
of the trainer says how likely each is; for an engine with weights of its own also without the adapter, wherever that could
matter: where the adapter makes a difference, the engine must be on its side of it. The tokens are drawn
at a high temperature with a fixed seed: log-probs of the surest tokens are near 0 under any weights, so that a greedy
answer of a sharp policy would compare nothing.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from posttrain.adapters import is_peft
from rollouts.records import Completion, Engine, Sampling

TEMPERATURE = 2.0
PROMPT_TOKENS = 256
"""Longer prompts are cut here: where the tokens come from does not matter, only that both sides see the same."""
BEGINNINGS = {True: 1, False: 4}
"""How many, by `engine.same_numerics`: an engine that samples with the trainer's own module can lose little."""

TOLERANCE = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.25}
"""Largest mean difference in nats a token.

bfloat16 keeps 8 bits, so logits of 16 to 32 are rounded by up to 0.06 on each side, on top of what the layers before add;
the spread of a token of a 0.5B model was measured as 0.05 (trl#6789), and this is five of those. float16 keeps 11 bits: an
eighth. The miniature with vLLM on a CPU, 64 prompts: at most 1.4e-6 in float32, 0.017 in bfloat16. On a GPU the products
of float32 may be TF32, which keeps as many bits as float16.
"""


@dataclass(frozen=True)
class Gap:
    """Mean absolute differences of log-probs over the probe's tokens, nats."""

    engine: float
    """Engine against trainer."""
    without: float | None
    """Engine against trainer without its adapter; None: that was not looked at."""
    effect: float | None
    """Trainer with its adapter against trainer without."""


@dataclass
class Parity:
    """The comparison, and what earlier ones have taught about this engine's rounding.

    Args:
        tolerance: nats a token that are allowed.
        rounding: nats a token that rounding alone may come to, before anything was measured.
    """

    engine: Engine
    prompt: list[int]
    seed: int
    tolerance: float
    rounding: float
    noise: float = 0.0
    """The largest difference to the nearer of the two hypotheses (adapter there, adapter missing) so far: rounding, if
    the engine serves either."""
    last: Gap | None = None
    effect: float | None = None
    """Of the adapter, when it was last looked at."""

    @property
    def lengths(self) -> list[int]:
        """Of the beginnings, in tokens: spread over the prompt, the last one is all of it."""
        count = BEGINNINGS[self.engine.same_numerics]
        return sorted({-(-len(self.prompt) * (i + 1) // count) for i in range(count)})

    def ask(self) -> tuple[list[int], list[float]]:
        """The engine's tokens, one after each beginning, and their log-probs."""
        beginnings = [self.prompt[:length] for length in self.lengths]
        made: list[Completion] = self.engine.generate(
            beginnings,
            Sampling(temperature=TEMPERATURE, max_tokens=1),
            [self.seed + i for i in range(len(beginnings))],
        )
        return [one.ids[0] for one in made], [one.logprobs[0] for one in made]

    def compare(
        self, model: Any, ids: Sequence[int], logprobs: Sequence[float], further: Callable[[bool], bool]
    ) -> Gap:
        """Against `model`, the trainer's live module in evaluation mode.

        Args:
            further: whether to look at the model without its adapter too; it is told whether that could change the
                verdict. (A sharded model's passes are made by all processes or none.)
        """
        engine = torch.tensor(logprobs, dtype=torch.float32)
        on = score(model, self.prompt, self.lengths, ids, TEMPERATURE)
        gap = distance(engine, on)
        if self.engine.same_numerics or not is_peft(model):
            return Gap(gap, None, None)
        # Nearer to the model without the adapter, of an effect above 4 roundings, means further than 2 from the one with it.
        if not further(not gap <= 2 * max(self.noise, self.rounding)):
            return Gap(gap, None, None)
        trained = [(p, p.requires_grad) for p in model.parameters()]
        model.base_model.disable_adapter_layers()
        try:
            off = score(model, self.prompt, self.lengths, ids, TEMPERATURE)
        finally:
            model.base_model.enable_adapter_layers()
        for parameter, flag in trained:  # PEFT makes all of the adapter trainable again, also what someone froze
            if parameter.requires_grad != flag:
                parameter.requires_grad_(flag)
        return Gap(gap, distance(engine, off), distance(on, off))

    def judge(self, gap: Gap) -> str | None:
        """What is wrong; None = nothing."""
        self.last = gap
        # NaN is no parity either.
        far = not gap.engine <= self.tolerance
        if gap.without is not None and gap.effect is not None:
            self.effect = gap.effect
            rounding = max(self.noise, self.rounding)
            if gap.without < gap.engine and (far or gap.effect > 4 * rounding):
                return (
                    f"its log-probs are {gap.engine:.3g} nats a token from the trainer's and {gap.without:.3g} from those "
                    "of the trainer without its adapter: the adapter was not delivered, or is not used"
                )
            self.noise = max(self.noise, min(gap.engine, gap.without))
        if not far:
            return None
        return (
            f"its log-probs are {gap.engine:.3g} nats a token from the trainer's, allowed are {self.tolerance:g}: it serves "
            "other weights (another base model or revision, an older version), or reckons in another dtype"
        )

    def state_dict(self) -> dict[str, Any]:
        last = None if self.last is None else [self.last.engine, self.last.without, self.last.effect]
        return {"noise": self.noise, "last": last, "effect": self.effect}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.noise = float(state["noise"])
        self.last = None if state["last"] is None else Gap(*state["last"])
        self.effect = state["effect"]


def score(model: Any, prompt: Sequence[int], lengths: Sequence[int], ids: Sequence[int], temperature: float) -> Tensor:
    """The model's log-probs of `ids[i]` after the first `lengths[i]` tokens of `prompt`, shape (len(ids),), float32, nats,
    on the CPU. `lengths` ascend, the last is the prompt's."""
    device = next(model.parameters()).device
    whole = torch.tensor([prompt], dtype=torch.long, device=device)
    kept = len(prompt) - lengths[0] + 1
    with torch.no_grad():
        logits = model(input_ids=whole, use_cache=False, **_only(model, kept)).logits[0, -kept:]
    at = torch.tensor([length - lengths[0] for length in lengths], device=device)
    each = torch.log_softmax(logits[at].float() / temperature, dim=-1)
    return each.gather(-1, torch.tensor(ids, device=device)[:, None]).squeeze(-1).cpu()


def _only(model: Any, last: int) -> dict[str, int]:
    """The argument that spares a model the logits of all but the `last` positions, where it knows one."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return {"logits_to_keep": last} if "logits_to_keep" in inspect.signature(inner.forward).parameters else {}


def distance(a: Tensor, b: Tensor) -> float:
    return (a - b).abs().mean().item()


def tolerance(dtype: str, same_numerics: bool) -> float:
    """What the coarser of the two sides' dtypes allows."""
    if dtype == "float32" and not same_numerics and torch.cuda.is_available():
        return TOLERANCE["float16"]
    return TOLERANCE[dtype]
