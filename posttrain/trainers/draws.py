"""Does the engine draw by the seeds it is given? One seed must repeat, and another must differ.

Three short batches of one prompt: seeds A, seeds A again, seeds B (those of another run). An engine whose answers do not
depend on the seed either repeats itself (then A = B) or does not (then A differs from A), so one of the two shows it.
How likely equal answers would be by chance is known: the engine gives the log-prob of each.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from rollouts.records import Completion, Engine, Sampling
from rollouts.seeds import derive

ROWS = 8
TOKENS = 8
CHANCE = -20.7
"""ln of 1e-9: equal answers less likely than this are no chance."""


def probe(engine: Engine, prompt: Sequence[int], sampling: Sampling, run_seed: int) -> str | None:
    """What is wrong with the engine's randomness; None = nothing, or the policy is too sure of itself to tell."""
    short = replace(sampling, max_tokens=min(TOKENS, sampling.max_tokens))
    prompts = [list(prompt)] * ROWS

    def ask(seed: int) -> list[Completion]:
        return engine.generate(prompts, short, [derive(seed, "draws", i) for i in range(ROWS)])

    first, again, other = ask(run_seed), ask(run_seed), ask(run_seed + 1)
    if same(first, other) and certainty(other) < CHANCE:
        return (
            f"{ROWS} answers to one prompt came out the same, token for token, with the seeds of run.seed {run_seed} "
            f"and of {run_seed + 1}: it draws without looking at the seeds, so runs that should differ repeat each other"
        )
    # Rounding may turn a draw now and then, so one answer that repeats is enough.
    if not any(a.ids == b.ids for a, b in zip(first, again, strict=True)):
        return (
            f"none of {ROWS} answers came out the same when they were asked for again with the same seeds: it draws "
            "without looking at the seeds, so no run can be repeated"
        )
    return None


def same(a: Sequence[Completion], b: Sequence[Completion]) -> bool:
    return all(x.ids == y.ids for x, y in zip(a, b, strict=True))


def certainty(made: Sequence[Completion]) -> float:
    """ln of the chance that other draws, each on its own, come out like these."""
    return sum(sum(one.logprobs) for one in made)
