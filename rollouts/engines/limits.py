"""How many tokens a request may still get."""

from __future__ import annotations

from collections.abc import Sequence

from rollouts.records import EngineError, Sampling


def room(prompt_ids: Sequence[Sequence[int]], sampling: Sampling, max_model_len: int, engine: str) -> list[int]:
    """Longest completion of each prompt in tokens: `max_tokens`, or less where prompt and model length demand it.

    Raises:
        EngineError: a prompt is empty, or leaves no room for a single token.
    """
    limits = []
    for i, ids in enumerate(prompt_ids):
        if not len(ids):
            raise EngineError(f"{engine}: prompt {i + 1} of {len(prompt_ids)} is empty; it needs at least one token")
        left = min(sampling.max_tokens, max_model_len - len(ids))
        if left < 1:
            raise EngineError(
                f"{engine}: prompt {i + 1} of {len(prompt_ids)} has {len(ids)} tokens and the model's length is "
                f"{max_model_len}, so there is no room for a completion; shorten the prompt or raise the length"
            )
        limits.append(left)
    return limits
