"""Drawing tokens inside transformers' `generate`, one random stream a request.

`generate` knows a single random stream for the whole batch, so that a sample depends on its neighbours. Here every
request brings its own uniforms; a token is the inverse of the cumulative distribution at the next of them. What is drawn
then depends on the request's seed and its own logits only.

The order of the processors is that of vLLM's sampler: repetition penalty, (greedy stops here), temperature, min-p,
top-k, top-p. Log-probs are those of the distribution that was drawn from, in float32; a greedy token gets the one under
the distribution without temperature, as in vLLM.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from transformers import (
    LogitsProcessor,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    StoppingCriteria,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from rollouts import pulse
from rollouts.records import Sampling

GREEDY_BELOW = 1e-5
"""Temperatures below this are greedy, as in vLLM."""

# Keeps u * total below total when both are rounded to float64, so that the search always ends on a token of mass > 0.
_BELOW_ONE = 1.0 - 2.0**-40


def uniforms(seeds: Sequence[int], steps: int) -> np.ndarray:
    """Numbers in [0, 1), shape (requests, steps), float64. Row i depends on `seeds[i]` only, and a shorter draw is the
    beginning of a longer one."""
    rows = [np.random.Generator(np.random.Philox(key=int(seed) % 2**64)).random(steps) for seed in seeds]
    return np.stack(rows) * _BELOW_ONE


class Draw(LogitsProcessor):
    """The last processor of `generate`: draws every row's next token, notes its log-prob, and forces it."""

    def __init__(self, sampling: Sampling, seeds: Sequence[int], steps: int, attention_mask: torch.Tensor):
        """`attention_mask`: of the left-padded prompts, shape (requests, width). `steps`: most tokens to be drawn."""
        self.width = attention_mask.shape[1]
        self.padding = attention_mask == 0
        self.penalty = (
            RepetitionPenaltyLogitsProcessor(sampling.repetition_penalty)
            if sampling.repetition_penalty != 1.0
            else None
        )
        self.greedy = sampling.temperature < GREEDY_BELOW
        self.warpers: list[Callable[..., torch.Tensor]] = []
        self.uniforms: torch.Tensor | None = None
        if not self.greedy:
            if sampling.temperature != 1.0:
                self.warpers.append(TemperatureLogitsWarper(float(sampling.temperature)))
            if sampling.min_p > 0.0:
                self.warpers.append(MinPLogitsWarper(sampling.min_p))
            if sampling.top_k > 0:
                self.warpers.append(TopKLogitsWarper(sampling.top_k))
            if sampling.top_p < 1.0:
                self.warpers.append(TopPLogitsWarper(sampling.top_p))
            self.uniforms = torch.from_numpy(uniforms(seeds, steps)).to(attention_mask.device)
        self.drawn: list[torch.Tensor] = []
        """Per step the log-probs of the drawn tokens, float32, shape (requests,)."""

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        scores = scores.float()
        if self.penalty is not None:
            scores = self.penalty(self._without_padding(input_ids), scores)
        for warper in self.warpers:
            scores = warper(input_ids, scores)
        logprobs = torch.log_softmax(scores, dim=-1)
        if self.uniforms is None:
            tokens = scores.argmax(dim=-1, keepdim=True)
        else:
            # Summed in float64: in float32 the tail of a large vocabulary would be rounded away.
            cumulative = logprobs.exp().cumsum(dim=-1, dtype=torch.float64)
            step = input_ids.shape[1] - self.width
            aim = self.uniforms[:, step : step + 1] * cumulative[:, -1:]
            # NaN logits end beyond the last token; the caller sees their log-prob and says so.
            tokens = torch.searchsorted(cumulative, aim, right=True).clamp_(max=scores.shape[-1] - 1)
        self.drawn.append(logprobs.gather(-1, tokens).squeeze(-1))
        pulse.beat()
        return torch.full_like(scores, -torch.inf).scatter_(-1, tokens, 0.0)

    def _without_padding(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Padding replaced by a token that the prompt has anyway: it must not be penalised."""
        ids = input_ids.clone()
        last = ids[:, self.width - 1 : self.width]
        ids[:, : self.width] = torch.where(self.padding, last, ids[:, : self.width])
        return ids


class RowLimit(StoppingCriteria):
    """Ends each row at its own limit, so that `generate` can stop early."""

    def __init__(self, limits: torch.Tensor, width: int):
        self.limits = limits
        self.width = width

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        return self.limits <= input_ids.shape[1] - self.width


class StopStrings(StoppingCriteria):
    """Ends a row when its completion (never the prompt) contains one of `stop`. `ends[i]`: tokens up to there."""

    def __init__(self, tokenizer: Any, stop: Sequence[str], rows: int, width: int):
        self.tokenizer = tokenizer
        self.stop = [s for s in stop if s]
        self.width = width
        self.ends: list[int | None] = [None] * rows
        # A token is at least one byte, apart from specials that decode to nothing; a few are allowed for.
        self.window = max((len(s.encode()) for s in self.stop), default=0) + 16

    def __call__(self, input_ids: torch.Tensor, scores: Any, **kwargs: Any) -> torch.Tensor:
        made = input_ids.shape[1] - self.width
        tails = input_ids[:, self.width :][:, -self.window :].tolist()
        for row, tail in enumerate(tails):
            if self.ends[row] is None:
                text = self.tokenizer.decode(tail, skip_special_tokens=False)
                if any(s in text for s in self.stop):
                    self.ends[row] = made
        return torch.tensor([end is not None for end in self.ends], device=input_ids.device)
