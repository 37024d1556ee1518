"""From problems to sample lines: render, ask the engine, take the reasoning span off, judge, and note what it took."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.judging import Cut, cut, judge
from posttrain.evaluation.prompts import Style
from posttrain.evaluation.reasoning import BEGINNINGS, ENDS, answer_part, opens_thinking
from rollouts.prompts import encode
from rollouts.records import Completion, Engine, Sampling, Times
from rollouts.seeds import derive

LOWEST = 16
"""Smallest token budget for which accuracy is shown, ..."""
MOST = 8
"""... and how many of them below the limit: a limit of 32768 is shown from 128 on."""


def budgets(max_tokens: int) -> list[int]:
    """Powers of two below `max_tokens`, the largest `MOST`, and `max_tokens` itself, rising."""
    powers = [2**i for i in range(int(math.log2(LOWEST)), max_tokens.bit_length()) if 2**i < max_tokens]
    return [*powers[-MOST:], max_tokens]


def at_once(times: Sequence[Times | None]) -> int | None:
    """Most requests that were worked on at the same moment; None if some do not say when they were."""
    known = [one for one in times if one is not None]
    if len(known) < len(times) or not known:
        return None
    # At one moment those that end go first: of two requests in a row there is one at a time.
    steps = sorted([(one.started, 1) for one in known] + [(one.ended, -1) for one in known])
    return max(1, *itertools.accumulate(step for _, step in steps))


def _worked(times: Times | None) -> dict[str, float | None]:
    """How long a request waited, and how long its prompt and its tokens took; None where the engine does not say."""
    first = None if times is None else times.first
    return {
        "queue_seconds": _rounded(None if times is None else times.queue),
        "prefill_seconds": _rounded(first),
        "decode_seconds": _rounded(None if times is None or first is None else times.ended - times.started - first),
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(max(0.0, value), 6)


@dataclass(frozen=True)
class Asking:
    """What stays the same from call to call: whom to ask, what, and how."""

    benchmark: Benchmark
    engine: Engine
    tokenizer: Any
    sampling: Sampling
    seed: int
    """The seed of a request is a hash of this, the benchmark, the item and the sample's number: never a neighbour of another's,
    so that an engine which counts seeds up for further samples could not give two requests one stream."""
    style: Style
    template_args: Mapping[str, Any] = field(default_factory=dict)

    def ask(self, pairs: Sequence[tuple[Problem, int]], marks: Mapping[str, str]) -> list[dict[str, Any]]:
        """Lines for `samples.jsonl` (see `posttrain.evaluation.results`), one for each (problem, sample number), in order.

        Args:
            marks: written into every line: the digests `settings` and `generation` (`resuming.marks`).

        Raises:
            Mistake: a problem without a prompt of its own under the style `own`.
            EngineError: from the engine.
        """
        prompts = {p.item_id: self.benchmark.prompt(p, self.style) for p, _ in pairs}
        ids = {item: encode(self.tokenizer, prompt, **self.template_args) for item, prompt in prompts.items()}
        seeds = [derive(self.seed, self.benchmark.name, p.item_id, j) for p, j in pairs]
        started = time.perf_counter()
        made = self.engine.generate([ids[p.item_id] for p, _ in pairs], self.sampling, seeds)
        seconds = round((time.perf_counter() - started) / max(1, len(pairs)), 6)
        if len(made) != len(pairs):
            raise RuntimeError(f"the engine returned {len(made)} completions for {len(pairs)} prompts")
        opened = {item: opens_thinking(self.tokenizer.decode(found[-16:])) for item, found in ids.items()}
        problems = [p for p, _ in pairs]
        thinking = [opened[p.item_id] for p in problems]
        answers = [self.answer(one.ids, open_) for one, open_ in zip(made, thinking, strict=True)]
        cuts = [self._cuts(*one) for one in zip(made, answers, thinking, strict=True)]
        judged = judge(self.benchmark, problems, answers, cuts)
        most = at_once([one.times for one in made])
        lines = []
        for (p, j), seed, one, answer, cut_at, verdict in zip(pairs, seeds, made, answers, cuts, judged, strict=True):
            text = self.tokenizer.decode(one.ids, skip_special_tokens=True)
            lines.append(
                {
                    "benchmark": self.benchmark.name,
                    "item_id": p.item_id,
                    "sample": j,
                    "seed": seed,
                    "prompt": prompts[p.item_id],
                    "completion": text,
                    "answer": None if answer == text else answer,
                    "finish": one.finish,
                    "prompt_tokens": len(ids[p.item_id]),
                    "completion_tokens": len(one.ids),
                    "cached_tokens": one.cached,
                    "logprob": round(math.fsum(one.logprobs), 6),
                    "version": one.version,
                    **verdict,
                    "cut_at": cut_at,
                    "seconds": seconds,
                    **_worked(one.times),
                    "at_once": most,
                    **marks,
                }
            )
        return lines

    def answer(self, ids: Sequence[int], opened: bool) -> str:
        """The part of a completion in which an answer counts: what stands after its last end-of-thinking mark, nothing if a
        thought begins (or, with `opened`, the prompt began one) and never ends.

        Marks that are special tokens are not in the decoded text: they are looked for among the ids.
        """
        begins, ends = self._marks
        if not (begins | ends).intersection(ids):
            return answer_part(self.tokenizer.decode(ids, skip_special_tokens=True), opened=opened)
        last = max((place for place, token in enumerate(ids) if token in ends), default=-1)
        if last < 0 and opened:
            return ""
        after = ids[last + 1 :]
        until = next((place for place, token in enumerate(after) if token in begins), len(after))
        return self.tokenizer.decode(after[:until], skip_special_tokens=True)

    @cached_property
    def _marks(self) -> tuple[frozenset[int], frozenset[int]]:
        """Ids of the beginning and of the end marks, as far as they are special tokens."""
        # A mark that the vocabulary lacks is given the id of the unknown token, which is a special token too.
        special = set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}
        begins, ends = (
            frozenset({self.tokenizer.convert_tokens_to_ids(mark) for mark in marks} & special)
            for marks in (BEGINNINGS, ENDS)
        )
        return begins, ends

    def _cuts(self, one: Completion, answer: str, thinking: bool) -> dict[str, Cut]:
        """What there was of the answer at every budget below the completion's length."""
        sizes = [size for size in budgets(self.sampling.max_tokens) if size < len(one.ids)]
        # A cut may go through the bytes of a character, of which decoding makes a mark of its own.
        return {str(size): cut(answer, self.answer(one.ids[:size], thinking).rstrip("\ufffd")) for size in sizes}
