"""From problems to sample lines: render, ask the engine, take the reasoning span off, judge, and note what it took."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.prompts import Style
from posttrain.evaluation.reasoning import BEGINNINGS, ENDS, answer_part, opens_thinking
from rewards.grading import Verdict
from rollouts.prompts import encode
from rollouts.records import Completion, Engine, Prompt, Sampling
from rollouts.seeds import derive

LOWEST = 16
"""Smallest token budget for which accuracy is shown, ..."""
MOST = 8
"""... and how many of them below the limit: a limit of 32768 is shown from 128 on."""


def budgets(max_tokens: int) -> list[int]:
    """Powers of two below `max_tokens`, the largest `MOST`, and `max_tokens` itself, rising."""
    powers = [2**i for i in range(int(math.log2(LOWEST)), max_tokens.bit_length()) if 2**i < max_tokens]
    return [*powers[-MOST:], max_tokens]


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
    cuts: bool = True
    """Judge each sample also as if it had been cut at every token budget."""

    def ask(self, pairs: Sequence[tuple[Problem, int]], digest: str) -> list[dict[str, Any]]:
        """Lines for `samples.jsonl` (see `posttrain.evaluation.results`), one for each (problem, sample number), in order.

        Args:
            digest: of the settings, written into every line.

        Raises:
            Mistake: a problem without a prompt of its own under the style `own`.
            EngineError: from the engine.
        """
        prompts = {p.item_id: self.benchmark.prompt(p, self.style) for p, _ in pairs}
        ids = {item: encode(self.tokenizer, prompt, **self.template_args) for item, prompt in prompts.items()}
        seeds = [derive(self.seed, self.benchmark.name, p.item_id, j) for p, j in pairs]
        started = time.perf_counter()
        made = self.engine.generate([ids[p.item_id] for p, _ in pairs], self.sampling, seeds)
        asked = time.perf_counter()
        if len(made) != len(pairs):
            raise RuntimeError(f"the engine returned {len(made)} completions for {len(pairs)} prompts")
        opened = {item: opens_thinking(self.tokenizer.decode(found[-16:])) for item, found in ids.items()}
        problems = [p for p, _ in pairs]
        thinking = [opened[p.item_id] for p in problems]
        answers = [self.answer(one.ids, open_) for one, open_ in zip(made, thinking, strict=True)]
        verdicts = self.benchmark.judge(problems, answers)
        cuts = self._cuts(problems, made, thinking)
        judged = time.perf_counter()
        shares = {
            "seconds": round((asked - started) / max(1, len(pairs)), 6),
            "grading_seconds": round((judged - asked) / max(1, len(pairs)), 6),
        }
        return [
            self._line(p, j, s, prompts[p.item_id], len(ids[p.item_id]), one, verdict, digest) | {"cuts": cut} | shares
            for (p, j), s, one, verdict, cut in zip(pairs, seeds, made, verdicts, cuts, strict=True)
        ]

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

    def _cuts(
        self, problems: Sequence[Problem], made: Sequence[Completion], thinking: Sequence[bool]
    ) -> list[dict[str, str]]:
        """For each completion, the verdict on its beginning at every budget below its length."""
        if not self.cuts:
            return [{} for _ in made]
        sizes = budgets(self.sampling.max_tokens)
        places = [(i, size) for i, one in enumerate(made) for size in sizes if size < len(one.ids)]
        texts = [self.answer(made[i].ids[:size], thinking[i]) for i, size in places]
        found: list[dict[str, str]] = [{} for _ in made]
        if places:
            verdicts = self.benchmark.judge([problems[i] for i, _ in places], texts)
            for (i, size), verdict in zip(places, verdicts, strict=True):
                found[i][str(size)] = str(verdict.verdict.value)
        return found

    def _line(
        self,
        problem: Problem,
        sample: int,
        seed: int,
        prompt: Prompt,
        prompt_tokens: int,
        one: Completion,
        verdict: Verdict,
        digest: str,
    ) -> dict[str, Any]:
        return {
            "benchmark": self.benchmark.name,
            "item_id": problem.item_id,
            "sample": sample,
            "seed": seed,
            "prompt": prompt,
            "completion": self.tokenizer.decode(one.ids, skip_special_tokens=True),
            "finish": one.finish,
            "prompt_tokens": prompt_tokens,
            "completion_tokens": len(one.ids),
            "cached_tokens": one.cached,
            "logprob": round(math.fsum(one.logprobs), 6),
            "gold": problem.gold,
            "extracted": verdict.extracted,
            "parsed": verdict.parsed,
            "verdict": str(verdict.verdict.value),
            "strict": str(verdict.strict.value),
            "score": 1.0 if verdict.verdict == "RIGHT" else 0.0,
            "rule": verdict.rule,
            "version": one.version,
            "cluster": problem.cluster,
            "settings": digest,
        }
