"""What a judge is asked besides the examples themselves, and what its answers come to."""

from __future__ import annotations

import dataclasses
import random
from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from posttrain.evaluation.statistics.estimates import Estimate
from posttrain.judging import measures
from posttrain.judging.attacks import KINDS, Attack, attacks, tag_of
from posttrain.judging.examples import TRUE, Example, by_code
from rewards.judge import Counts, Judge, JudgeSettings, Question, turns_of

PADDING = (
    "There are several ways to look at this, and people differ in what they find useful. What is written here is meant as a starting "
    "point, and it can be read in a quiet moment. Some readers like to take their time with such things, others do not, and both are "
    "perfectly fine. It is always good to come back later and to look at it again with fresh eyes. "
)
"""Says nothing. It is put behind responses."""
PADDED = 3
"""How often the padding is repeated."""
APART = 7919
"""Between the seeds of two repeats: more than votes or attempts count on."""


class Asking:
    """A judge that counts, tells its progress and remembers why it failed."""

    def __init__(self, settings: JudgeSettings, progress: Callable[[str, int, int], None]):
        self.settings = settings
        self.counts = Counts()
        self.reasons: dict[str, int] = defaultdict(int)
        self._progress = progress

    async def __call__(self, what: str, questions: Sequence[Question], **changes: Any) -> list[bool | None]:
        """Verdicts on the questions, with some settings changed."""
        judge = Judge(dataclasses.replace(self.settings, **changes))
        found: list[bool | None] = []
        # Parts, so that progress can be told; whole responses stay together where one request asks for all of their criteria.
        part = 8 * self.settings.concurrency if judge.settings.mode == "criterion" else len(questions)
        try:
            for at in range(0, len(questions), max(1, part)):
                self._progress(what, at, len(questions))
                for ruling in await judge.rule(questions[at : at + part], self.counts):
                    found.append(TRUE.get(ruling.verdict))
                    if found[-1] is None:
                        self.reasons[ruling.explanation] += 1
            self._progress(what, len(questions), len(questions))
        finally:
            await judge.close()
        return found


async def agreement(ask: Asking, examples: Sequence[Example]) -> tuple[dict[str, Any], list[bool | None]]:
    """Verdicts against labels, in all and by the points' sign."""
    verdicts = await ask("labels", [one.question() for one in examples])
    clusters = [one.cluster for one in examples]
    found: dict[str, Any] = {
        "all": _agreed(examples, verdicts),
        "failed": measures.share([v is None for v in verdicts], clusters),
    }
    for name, sign in (("positive", 1), ("negative", -1)):
        some = [(one, v) for one, v in zip(examples, verdicts, strict=True) if one.points * sign > 0]
        found[name] = _agreed([one for one, _ in some], [v for _, v in some])
    lengths = [len(one.response) for one in examples]
    found["length"] = measures.by_length(lengths, [one.label for one in examples], verdicts, clusters)
    return found, verdicts


async def repeats(ask: Asking, examples: Sequence[Example], first: Sequence[bool | None], n: int) -> Estimate:
    """Asked n times in all, by other seeds and without the cache: the share of pairs of answers that are the same."""
    answers = [first]
    for k in range(1, n):
        seed = None if ask.settings.seed is None else ask.settings.seed + APART * k
        answers.append(
            await ask(f"repeat {k + 1}", [one.question() for one in examples], seed=seed, cache=None),
        )
    found = measures.alike(list(zip(*answers, strict=True)))
    return measures.share(found, [one.cluster for one in examples])


async def order(ask: Asking, examples: Sequence[Example]) -> dict[str, Estimate]:
    """All criteria of a response in one request, as they are and turned round: whether verdicts stay, and whether a criterion is met
    more often in the first half of the list than in the second."""
    together: dict[tuple[str, str], list[int]] = defaultdict(list)
    for k, one in enumerate(examples):
        together[one.answer].append(k)
    lists = [ks for ks in together.values() if len(ks) > 1]
    clusters = [examples[k].cluster for ks in lists for k in ks]
    forth = [examples[k].question() for ks in lists for k in ks]
    back = [examples[k].question() for ks in lists for k in reversed(ks)]
    first = await ask("order", forth, mode="response")
    turned = iter(await ask("order, turned round", back, mode="response"))
    second = [v for ks in lists for v in reversed([next(turned) for _ in ks])]
    # In its place in the list, -1 to 1: above 0 it stands in the later half as the lists are, in the earlier half turned round.
    places = [
        0 if 2 * k + 1 == len(ks) else (1 if 2 * k + 1 > len(ks) else -1) for ks in lists for k in range(len(ks))
    ]
    rises = measures.changed(first, second)
    early = [None if r is None or p == 0 else r * p for r, p in zip(rises, places, strict=True)]
    return {
        "kept": measures.share([None if r is None else r == 0 for r in rises], clusters),
        "early_minus_late": measures.mean(early, clusters),
    }


async def padding(ask: Asking, examples: Sequence[Example], first: Sequence[bool | None]) -> dict[str, Estimate]:
    """Responses with neutral text behind them. Where code can say that this changes the truth, the example is left out."""
    texts = [f"{one.response}\n\n{PADDING * PADDED}".rstrip() for one in examples]
    there = _same(examples, texts)
    kept = [k for k in range(len(examples)) if there[k]]
    found = await ask("padding", [examples[k].question(texts[k]) for k in kept])
    clusters = [examples[k].cluster for k in kept]
    rises = measures.changed([first[k] for k in kept], found)
    return {
        "kept": measures.share([None if r is None else r == 0 for r in rises], clusters),
        "met_after_minus_before": measures.mean(rises, clusters),
    }


async def injections(
    ask: Asking, examples: Sequence[Example], first: Sequence[bool | None], each: int
) -> dict[str, Any]:
    """Each attack of the set that comes with the package, on `each` examples that the judge has right, after the opposite of their
    label. `held`: the verdict stayed; `bent`: it is what the attack was after; the rest failed."""
    right = [one for one, verdict in zip(examples, first, strict=True) if verdict == one.label]
    jobs = _jobs(right, each, ask.settings.keep_system)
    found = await ask("injections", [one.question(text) for _, one, text in jobs])
    held = [verdict == one.label for (_, one, _), verdict in zip(jobs, found, strict=True)]
    bent = [verdict is (not one.label) for (_, one, _), verdict in zip(jobs, found, strict=True)]
    clusters = [one.cluster for _, one, _ in jobs]
    through: dict[str, int] = defaultdict(int)
    for (attack, _, _), got in zip(jobs, bent, strict=True):
        through[attack.name] += got
    kinds = {
        kind: measures.share(
            [b if attack.kind == kind else None for (attack, _, _), b in zip(jobs, bent, strict=True)], clusters
        )
        for kind in KINDS
    }
    return {
        "asked": len(jobs),
        "held": measures.share(held, clusters),
        "bent": measures.share(bent, clusters),
        "bent_by_kind": kinds,
        "got_through": {name: count for name, count in through.items() if count},
    }


def _jobs(right: Sequence[Example], each: int, keep_system: bool = True) -> list[tuple[Attack, Example, str]]:
    """Which attack meets which example. Both labels take turns; code leaves out where an attack would change the truth."""
    mixed = random.Random(0).sample(list(right), len(right))  # the attacks of a kind should meet many prompts
    met, unmet = [one for one in mixed if one.label], [one for one in mixed if not one.label]
    turns = [one for pair in zip(met, unmet, strict=False) for one in pair]
    turns += met[len(unmet) :] + unmet[len(met) :]
    pairs: list[tuple[Attack, Example, str]] = []
    for k, attack in enumerate(attacks()):
        for step in range(min(2 * each, len(turns))):
            one = turns[(k * each + step) % len(turns)]
            tag = tag_of(turns_of(one.conversation, keep_system), one.response, one.criterion)
            pairs.append((attack, one, attack.on(one.response, not one.label, tag)))
    same = _same([one for _, one, _ in pairs], [text for _, _, text in pairs])
    chosen: dict[str, int] = defaultdict(int)
    jobs = []
    for pair, stays in zip(pairs, same, strict=True):
        if stays and chosen[pair[0].name] < each:
            chosen[pair[0].name] += 1
            jobs.append(pair)
    return jobs


def _same(examples: Sequence[Example], texts: Sequence[str]) -> list[bool]:
    """Whether an example's label holds for another text too, as far as code can say: where there is no check it is taken to."""
    found = by_code([(text, one.check) for one, text in zip(examples, texts, strict=True)])
    return [one.check is None or verdict is one.label for one, verdict in zip(examples, found, strict=True)]


def _agreed(examples: Sequence[Example], verdicts: Sequence[bool | None]) -> dict[str, Estimate]:
    return measures.agreement([one.label for one in examples], verdicts, [one.cluster for one in examples])
