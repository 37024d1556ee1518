"""The question writer without a server: an engine of this process (transformers, vllm, or an import path)."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from typing import Any

from posttrain.errors import Mistake
from posttrain.evaluation.building.endpoint import Done, Failed
from posttrain.evaluation.building.journal import Reply, Request
from rollouts.prompts import encode
from rollouts.records import Engine, Sampling
from rollouts.seeds import derive

AT_ONCE = 32
"""Requests handed to the engine at once; what a kill can lose."""


class Local:
    """Questions from an engine.

    Args:
        start: makes the engine; called when the first question is asked, so that a finished build loads no model.
        tokenizer: the model's, with a chat template.
        model: its name, for the record.
    """

    def __init__(
        self,
        start: Callable[[], Engine],
        tokenizer: Any,
        model: str,
        max_length: int,
        temperature: float | None = None,
        max_tokens: int = 4096,
        seed: int = 0,
    ):
        if not getattr(tokenizer, "chat_template", None):
            raise Mistake(f"{model}: its tokenizer has no chat template, so it cannot be told what to write")
        self._start = start
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.sampling = Sampling(temperature=0.7 if temperature is None else temperature, max_tokens=max_tokens)
        self.settings: dict[str, Any] = {
            "model": model,
            "temperature": self.sampling.temperature,
            "max_tokens": max_tokens,
            "seed": seed,
        }

    def ask(self, requests: Sequence[Request], done: Done) -> None:
        """Ask them all, some at a time; one whose prompt leaves no room is `Failed`."""
        fitting: list[tuple[Request, list[int]]] = []
        for request in requests:
            ids = encode(self.tokenizer, [dict(m) for m in request.messages])
            room = self.max_length - len(ids)
            if room < 1:
                done(request, Failed("no room", f"{len(ids)} tokens, the model takes {self.max_length}"))
            else:
                fitting.append((request, ids))
        if not fitting:
            return
        engine = self._start()
        try:
            for start in range(0, len(fitting), AT_ONCE):
                part = fitting[start : start + AT_ONCE]
                seeds = [derive(self.settings["seed"], r.kind, _digest(ids)) for r, ids in part]
                made = engine.generate([ids for _, ids in part], self.sampling, seeds)
                for (request, ids), one in zip(part, made, strict=True):
                    if one.finish == "abort":
                        done(request, Failed("given up by the engine"))
                        continue
                    text = self.tokenizer.decode(one.ids, skip_special_tokens=True)
                    done(request, Reply(text, one.finish, self.settings["model"], len(ids), len(one.ids)))
        finally:
            engine.close()


def _digest(ids: Sequence[int]) -> str:
    return hashlib.blake2b(repr(list(ids)).encode(), digest_size=8).hexdigest()
