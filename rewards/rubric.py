"""Rubrics as a reward: each answer's criteria are decided, by code or by a judge, and come to earned over positive points."""

from __future__ import annotations

import asyncio
import json
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite
from pathlib import Path
from typing import Any, get_args

from rewards.completions import text_of, until
from rewards.criteria import reading, running
from rewards.criteria.item import Criterion, Verdict
from rewards.criteria.scoring import OnError, Undecided, score
from rewards.judge import Counts, Judge, JudgeError, Question
from rewards.judges.limits import processes

WINDOW = 1000
"""Verdicts over which `at_most` counts."""
PAUSE = 30.0
"""Seconds after an alarm in which every call raises it again, so that rows that are asked again singly do not ask a dead judge."""
READ = 20_000
"""Rubrics kept as read, so that the answers of a group and the epochs of a run read each once."""


class Rubric:
    """A reward that scores each answer by its row's rubric: sum of the points met / sum of the positive points, not clipped.

    Give it a place of its own among the rewards: where a second one gives a number, TRL counts this one's None as 0.

    Args:
        column: the data's column with the rubrics (see `rewards.criteria.reading.rubric`). A row that holds null there is not judged.
        criteria: a rubric for every row instead, as a list or as the path of a YAML file.
        judge: settings of `rewards.judge.JudgeSettings`, or a YAML file with them; needed where a criterion has no `check`.
        on_error: what an answer with a criterion that nobody could decide gets: `mask_row` None, `drop_criterion` the score without
            it, `raise` an error.
        at_most: the alarm: more failed verdicts than this share of 1000, among the last 1000, raise.
        floor: the least score; None = none (the paper's).
        check_seconds: what one check by code may take.
        code_in_data: let a `check: {use: ...}` in the column run the code that it names. Whoever wrote the data would run it here, so
            it is refused by default; those under `criteria` are the recipe's own.
        skip_reasoning: decide on what follows the last `</think>` alone; for policies that reason, since another could hide behind one.

    Raises:
        ValueError: a setting or the rubric under `criteria` is wrong; one line.
    """

    def __init__(
        self,
        column: str = "rubric",
        criteria: str | list[dict[str, Any]] | None = None,
        judge: Mapping[str, Any] | str | None = None,
        on_error: OnError = "mask_row",
        at_most: float = 0.05,
        floor: float | None = None,
        check_seconds: float = running.SECONDS,
        skip_reasoning: bool = False,
        code_in_data: bool = False,
    ):
        if on_error not in get_args(OnError):
            raise ValueError(f"on_error should be one of {', '.join(get_args(OnError))}, not {on_error!r}")
        if isinstance(at_most, bool) or not isinstance(at_most, (int, float)) or not 0 <= at_most <= 1:
            raise ValueError(f"at_most should be a share from 0 to 1, not {at_most!r}")
        if floor is not None and (
            isinstance(floor, bool) or not isinstance(floor, (int, float)) or not isfinite(floor)
        ):
            raise ValueError(f"floor should be a number, not {floor!r}")
        for name, value in (("skip_reasoning", skip_reasoning), ("code_in_data", code_in_data)):
            if not isinstance(value, bool):
                raise ValueError(f"{name} should be true or false, not {value!r}")
        if (
            isinstance(check_seconds, bool)
            or not isinstance(check_seconds, (int, float))
            or not 0 < check_seconds < float("inf")
        ):
            raise ValueError(f"check_seconds should be a positive number, not {check_seconds!r}")
        self.column = column
        self.on_error: OnError = on_error
        self.at_most = at_most
        self.floor = floor
        self.check_seconds = check_seconds
        self.skip_reasoning = skip_reasoning
        self.code_in_data = code_in_data
        self.judge = None if judge is None else Judge(judge)
        self._for_all: list[Criterion] | None = None
        if isinstance(criteria, (str, Path)):
            self._for_all = reading.yaml_file(criteria)
        elif criteria is not None:
            self._for_all = reading.rubric(criteria, "criteria", code=True)
        if self._for_all is not None:
            self._decidable(self._for_all, "criteria")
        self._read: OrderedDict[str, list[Criterion]] = OrderedDict()
        self._recent: deque[bool] = deque(maxlen=WINDOW)
        self._alarm: tuple[float, str] | None = None

    def check(self, rows: Iterable[Mapping[str, Any]]) -> int:
        """Read the rubrics of a data set's rows before anything is trained; how many criteria there are.

        Raises:
            ValueError: the first that cannot be used; one line with its row.
        """
        if self._for_all is not None:
            return len(self._for_all)
        found = 0
        for number, row in enumerate(rows, 1):
            name = f"row {row.get('row_id') or number}"
            if self.column not in row:
                raise ValueError(
                    f'{name}: no column "{self.column}" with a rubric (it has {", ".join(row) or "none"})'
                )
            found += len(self._rubric(row[self.column], name) or ())
        if not found:
            raise ValueError(f'column "{self.column}" holds null in every row, so that nothing would be judged')
        return found

    async def __call__(
        self,
        completions: Sequence[Any],
        prompts: Sequence[Any] | None = None,
        log_extra: Callable[[str, list[Any]], None] | None = None,
        log_metric: Callable[[str, float], None] | None = None,
        **columns: Any,
    ) -> list[float | None]:
        """One score an answer; None = not judged.

        Raises:
            ValueError: no such column, a rubric that cannot be used, the alarm, or a failed criterion with `on_error: raise`.
        """
        if self._alarm is not None and time.monotonic() < self._alarm[0]:
            raise ValueError(self._alarm[1])
        texts = [text_of(completion) for completion in completions]
        if self.skip_reasoning:
            texts = [text.rpartition("</think>")[2] for text in texts]
        names = [f"row {name}" for name in columns.get("row_id") or range(1, len(texts) + 1)]
        rubrics = self._rubrics(names, columns)
        found: list[list[dict[str, Any]]] = [[_blank(c) for c in criteria or ()] for criteria in rubrics]
        counts = Counts()
        try:
            await asyncio.gather(
                self._by_code(found, texts, rubrics),
                self._by_judge(found, texts, rubrics, prompts and list(map(until, prompts, completions)), counts),
            )
        except JudgeError as error:  # nobody else needs to be refused by it, row by row
            self._alarm = (time.monotonic() + PAUSE, str(error))
            raise
        scores: list[float | None] = []
        for name, criteria, decided in zip(names, rubrics, found, strict=True):
            try:
                verdicts = [one["verdict"] for one in decided]
                scores.append(None if criteria is None else score(criteria, verdicts, self.on_error, self.floor))
            except Undecided as error:
                why = next(one["why"] for one in decided if one["verdict"] is Verdict.FAILED)
                raise ValueError(f"{name}: {error}: {why}") from error
        self._tell(found, scores, rubrics, counts, log_extra, log_metric)
        self._watch(found)
        return scores

    async def _by_code(
        self, found: list[list[dict[str, Any]]], texts: Sequence[str], rubrics: Sequence[list[Criterion] | None]
    ) -> None:
        checks = [[c.check for c in criteria or () if c.check] for criteria in rubrics]
        # In a thread: the event loop is the judge's meanwhile.
        checked = await asyncio.to_thread(running.run, list(zip(texts, checks, strict=True)), self.check_seconds)
        for row, findings in zip(found, checked, strict=True):
            for one, (verdict, why) in zip((r for r in row if r["by"] == "code"), findings, strict=True):
                one.update(verdict=verdict, why=why)

    async def _by_judge(
        self,
        found: list[list[dict[str, Any]]],
        texts: Sequence[str],
        rubrics: Sequence[list[Criterion] | None],
        prompts: Sequence[Any] | None,
        counts: Counts,
    ) -> None:
        places = [(i, k) for i, row in enumerate(rubrics) for k, c in enumerate(row or ()) if c.check is None]
        if not places or self.judge is None:
            return
        if prompts is None:
            raise ValueError("the judge needs the prompts")
        asked = [(prompts[i], texts[i], found[i][k]) for i, k in places]
        rulings = await self.judge.rule([Question(p, t, one["text"], one["points"]) for p, t, one in asked], counts)
        for (_, _, one), ruling in zip(asked, rulings, strict=True):
            one.update(verdict=ruling.verdict, why=ruling.explanation, agreement=ruling.agreement)

    def _rubrics(self, names: Sequence[str], columns: Mapping[str, Any]) -> list[list[Criterion] | None]:
        if self._for_all is not None:
            return [self._for_all] * len(names)
        values = columns.get(self.column)
        if values is None:
            have = ", ".join(sorted(k for k, v in columns.items() if isinstance(v, list))) or "none"
            raise ValueError(f'the data has no column "{self.column}" with the rubrics (others: {have}); set column')
        return [self._rubric(value, name) for name, value in zip(names, values, strict=True)]

    def _rubric(self, value: Any, name: str) -> list[Criterion] | None:
        if value is None:
            return None
        try:
            key = json.dumps(value, default=repr)
        except (TypeError, ValueError, RecursionError):
            key = None  # reading it says what is wrong
        if key is None or (known := self._read.get(key)) is None:
            known = reading.rubric(value, f'{name}, column "{self.column}"', code=self.code_in_data)
            self._decidable(known, name)
            if key is not None:
                self._read[key] = known
            if len(self._read) > READ:
                self._read.popitem(last=False)
        return known

    def _decidable(self, criteria: Sequence[Criterion], name: str) -> None:
        for number, one in enumerate(criteria, 1):
            if one.check is None and self.judge is None:
                raise ValueError(
                    f"{name}: criterion {number} ({one.text[:60]!r}) has no check and there is no judge; set judge, or give it a check"
                )

    def _tell(
        self,
        found: Sequence[Sequence[dict[str, Any]]],
        scores: Sequence[float | None],
        rubrics: Sequence[list[Criterion] | None],
        counts: Counts,
        log_extra: Callable[[str, list[Any]], None] | None,
        log_metric: Callable[[str, float], None] | None,
    ) -> None:
        if log_extra is not None:
            rows = zip(found, scores, rubrics, strict=True)
            log_extra("rubric", [None if r is None else {"criteria": list(f), "score": s} for f, s, r in rows])
        every = [one["verdict"] for row in found for one in row]
        if log_metric is not None and every:
            log_metric("rubric/failed", every.count(Verdict.FAILED) / len(every))
            if judged := [s for s in scores if s is not None]:
                log_metric("rubric/mean", sum(judged) / len(judged))
        if log_metric is not None and self.judge is not None:
            # TRL takes the mean over those processes that log one; what is paid for is the sum.
            for name in ("questions", "calls", "cached", "tokens"):
                log_metric(f"judge/{name}", getattr(counts, name) * processes())
            log_metric("judge/seconds", counts.seconds)
        if log_metric is not None and counts.questions:
            log_metric("judge/failed", counts.failed / counts.questions)
            agreed = [one["agreement"] for row in found for one in row if one["agreement"] is not None]
            if agreed:
                log_metric("judge/agreement", sum(agreed) / len(agreed))

    def _watch(self, found: Sequence[Sequence[dict[str, Any]]]) -> None:
        every = [one for row in found for one in row]
        failed = most = sum(self._recent)
        for one in every:  # one by one: a call of thousands may have failed before its last 1000
            if len(self._recent) == WINDOW:
                failed -= self._recent[0]
            self._recent.append(one["verdict"] is Verdict.FAILED)
            failed += self._recent[-1]
            most = max(most, failed)
        if most <= self.at_most * WINDOW:
            return
        last = next((one["why"] for one in reversed(every) if one["verdict"] is Verdict.FAILED), "")
        line = (
            f"{most} of the last {len(self._recent)} verdicts failed, at_most {self.at_most:g} allows "
            f"{self.at_most * WINDOW:g} of {WINDOW}; last: {last}"
        )
        self._recent.clear()
        self._alarm = (time.monotonic() + PAUSE, line)
        raise ValueError(line)


def _blank(criterion: Criterion) -> dict[str, Any]:
    return {
        "text": criterion.text,
        "points": criterion.points,
        "tags": list(criterion.tags),
        "by": "judge" if criterion.check is None else "code",
        "verdict": Verdict.FAILED,
        "why": "",
        "agreement": None,
    }
