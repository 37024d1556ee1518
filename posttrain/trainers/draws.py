"""Does the engine draw by the seeds it is given? One seed must repeat, and another must differ.

Three short batches of one prompt: seeds A, seeds A again, seeds B (those of another run). An engine whose answers do not
depend on the seed either repeats itself (then A = B) or does not (then A differs from A), so one of the two shows it.

How much two answers have in common is measured in nats: minus the log-prob of the tokens they share from the start. Two
independent draws share more than t nats with probability at most exp(-t): the shortest beginnings that are so unlikely
exclude each other, and two draws both have one of probability p with probability p². So over `ROWS` pairs chance gives a
sum below a Gamma(ROWS, 1) variable, mean 8, whatever the policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollouts.records import Completion, Engine, Sampling
from rollouts.seeds import derive

ROWS = 8
TOKENS = 16
TOO_MUCH = 40.0
"""Nats that `ROWS` pairs of independent draws share with probability 2e-10 or less."""
TELLING = 30.0
"""Nats of all answers together below which the policy is too sure of itself to tell chance from repetition."""
REPEATED = 0.25
"""Least share of an answer's nats that must come again. Not all: rounding turns a draw now and then."""


def probe(engine: Engine, prompt: Sequence[int], sampling: Sampling, run_seed: int) -> str | None:
    """What is wrong with the engine's randomness; None = nothing, or it cannot be told."""
    short = replace(sampling, max_tokens=min(TOKENS, sampling.max_tokens))
    prompts = [list(prompt)] * ROWS

    def ask(seed: int) -> list[Completion]:
        return engine.generate(prompts, short, [derive(seed, "draws", i) for i in range(ROWS)])

    first, again, other = ask(run_seed), ask(run_seed), ask(run_seed + 1)
    if (common := shared(first, other)) > TOO_MUCH:
        return (
            f"{ROWS} answers to one prompt came out the same with the seeds of run.seed {run_seed} and of {run_seed + 1} "
            f"({common:.0f} nats in common; chance gives about {ROWS}): it draws without looking at the seeds, so runs that "
            "should differ repeat each other"
        )
    everything = shared(first, first)
    if everything > TELLING and shared(first, again) < REPEATED * everything:
        return (
            f"{ROWS} answers came out different when they were asked for again with the same seeds: it draws without "
            "looking at the seeds, so no run can be repeated"
        )
    return None


def shared(a: Sequence[Completion], b: Sequence[Completion]) -> float:
    """Nats that the answers of `a` and `b` have in common from the start, summed over pairs."""
    total = 0.0
    for x, y in zip(a, b, strict=True):
        for left, right, logprob in zip(x.ids, y.ids, x.logprobs, strict=False):
            if left != right:
                break
            total -= logprob
    return total
