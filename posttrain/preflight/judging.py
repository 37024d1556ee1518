"""Do the rewards tell right from wrong? Asked on answers whose worth is known, before the policy's own."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from posttrain.findings import Finding, bad, good, idle
from posttrain.imports import Use
from posttrain.preflight import answers
from posttrain.preflight.answers import Case, Target
from posttrain.preflight.scene import Scene
from posttrain.trainers.scorer import Judged
from rewards.runtime import Fault, Guard, Scores
from rollouts.records import Rollout

TRIED = 4
"""Rows whose golds are tried."""
PATIENCE = 3.0
"""Seconds that a reward may take for an answer that breaks graders."""
GRADER_PATIENCE = 0.75
"""The same for a grader that is told its limit: it stops by itself."""
WEIGHTLESS = "weight 0: only shown"


@dataclass(frozen=True)
class Answer:
    """A completion, and the row that it answers."""

    row: Mapping[str, Any]
    text: str
    ids: Sequence[int]
    info: Mapping[str, Any] = field(default_factory=dict)


class Judge:
    """One reward in a guard of its own: the run's has not been called yet when the first batch comes."""

    def __init__(self, scene: Scene, one: Judged):
        self.scene = scene
        self.one = one
        self.target = Target.of(one.guard.make)
        self.seen: list[float] = []  # every number it gave
        self.silent = ""  # why the model behind it cannot be asked; then it is not
        self._guard: Guard | None = None

    def score(self, answers_: Sequence[Answer], *, bounded: bool = False) -> Scores:
        """Ask it. `bounded`: in a guard that can stop it; see `unstoppable`."""
        if self.silent:
            return Scores([None] * len(answers_), [Fault(self.one.where, None, None, "exception", self.silent)], 0.0)
        if bounded:
            with self._bounded() as guard:
                scores = _ask(guard, self.scene, answers_)
        else:
            one = self.one.guard
            self._guard = self._guard or self._made(one.make, one.timeout, min(one.processes, 1))
            scores = _ask(self._guard, self.scene, answers_)
        self.seen += [value for value in scores.values if value is not None]
        return scores

    def close(self) -> None:
        if self._guard is not None:
            self._guard.close()

    @property
    def stops_by_itself(self) -> bool:
        """True if it runs here and its grader is told its limit."""
        return self.one.guard.processes == 0 and self.target.use is not None and self.target.own_deadline is not None

    @property
    def unstoppable(self) -> str | None:
        """Why it is not asked what might never end; None = it can be stopped."""
        if self.one.guard.processes > 0 or self.stops_by_itself:
            return None
        if isinstance(self.target.function, type):
            # A second copy of whatever it loads, perhaps a model, on the same device.
            return "a class in this process"
        needed = sorted({"trainer_state", "environments"} & self.target.parameters.keys())
        return f"reads {needed[0]}, which stays in this process" if needed else None

    @contextmanager
    def _bounded(self) -> Iterator[Guard]:
        """A guard that can stop the reward: a process of its own, unless its grader stops by itself."""
        if self.stops_by_itself:
            arguments = {**self.target.arguments, self.target.own_deadline: GRADER_PATIENCE}
            use = Use(self.target.use.path, arguments, self.target.use.where)
            guard = self._made(use.build, self.one.guard.timeout, 0)
        else:
            guard = self._made(self.one.guard.make, min(self.one.guard.timeout, PATIENCE), 1)
        try:
            yield guard
        finally:
            guard.close()

    def _made(self, make: Any, timeout: float, processes: int) -> Guard:
        one = self.one.guard
        return Guard(make, name=one.name, timeout=timeout, processes=processes, memory=one.memory, where=one.where)


def _ask(guard: Guard, scene: Scene, given: Sequence[Answer]) -> Scores:
    names = [k for k in given[0].row if k not in ("prompt", "completion", "completion_ids")]
    infos = sorted({key for one in given for key in one.info})
    columns = {name: [one.row.get(name) for one in given] for name in names}
    columns |= {name: [one.info.get(name) for one in given] for name in infos}
    extras = {
        "trainer_state": copy.deepcopy(scene.trainer.state),
        "log_extra": lambda *_: None,
        "log_metric": lambda *_: None,
    }
    chat = not isinstance(given[0].row["prompt"], str)
    completions = [[{"role": "assistant", "content": one.text}] if chat else one.text for one in given]
    return guard.score(
        [one.row["prompt"] for one in given], completions, [list(one.ids) for one in given], columns, extras
    )


def answer(scene: Scene, row: Mapping[str, Any], text: str) -> Answer:
    """A completion that ends by itself."""
    ids = scene.tokenizer(text, add_special_tokens=False)["input_ids"] if text else []
    return Answer(row, text, [*ids, scene.tokenizer.eos_token_id])


def endless(scene: Scene, row: Mapping[str, Any]) -> Answer:
    """One that goes on until it is cut."""
    most = scene.parts.sampling.max_tokens
    piece = scene.tokenizer("and so on, ", add_special_tokens=False)["input_ids"]
    ids = (piece * (most // max(len(piece), 1) + 1))[:most]
    return Answer(row, scene.tokenizer.decode(ids, skip_special_tokens=True), ids)


def rolled(scene: Scene, row: Mapping[str, Any], rollout: Rollout) -> Answer:
    """A rollout, as the rewards will see it."""
    text = scene.tokenizer.decode(rollout.completion_ids, skip_special_tokens=True)
    return Answer(row, text, rollout.completion_ids, rollout.info)


# Golds


def golds_win(judge: Judge) -> Finding:
    """A verifying reward gives the gold answer more than a wrong one, an empty one, and those that break graders."""
    scene, one = judge.scene, judge.one
    # A list of criteria (a rubric) is no right answer.
    columns = [c for c in scene.rows[0] if c not in ("prompt", "row_id") and not _criteria(scene.rows[0][c])]
    column = answers.named_column(judge.target, columns) or _by_trial(judge, answers.gold_columns(columns))
    if column is None:
        return idle("reads no column of right answers")
    cases = answers.cases(scene.rows, column)[:TRIED]
    if not cases:
        return bad(
            f'column "{column}" holds no answer that can be read in any of {len(scene.rows)} rows',
            f"map the right column (data.train.columns: {{{column}: ...}})",
        )
    found = _tried(judge, cases, column)
    if found.ok is False and one.setting.weight == 0:
        return idle(f"{found.looked} ({WEIGHTLESS})")
    return found


def _criteria(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, Mapping) for one in value)


def _tried(judge: Judge, cases: Sequence[Case], column: str) -> Finding:
    scene, one = judge.scene, judge.one
    sign = -1.0 if one.setting.weight < 0 else 1.0  # a penalty is the better the lower it is
    label, form, golds = _form(judge, cases, sign)
    golden = f"{len(cases)} golds {label} from {column}"
    if isinstance(golds, str):
        return bad(f"{golden}: {golds}", f"mend {one.setting.use}; it must judge every gold")
    every = [case.gold for case in cases]
    calm = [("wrong", case.text(form, answers.wrong(case.gold, every)), case) for case in cases]
    calm.append(("empty", "", cases[0]))
    odd = [(what, cases[0].text(form, text), cases[0]) for what, text in answers.pathological(cases[0].gold).items()]
    told: dict[str, list[float]] = {}
    untried = judge.unstoppable
    for asked, bounded in ((calm, False), (odd, True)) if untried is None else ((calm, False),):
        scores = judge.score([answer(scene, case.row, text) for _, text, case in asked], bounded=bounded)
        faults = {f.row: f for f in scores.faults}
        for i, ((what, text, case), value) in enumerate(zip(asked, scores.values, strict=True)):
            if (fault := faults.get(i) or faults.get(None)) is not None:
                if what != "wrong" and one.setting.on_error.do == "skip_row":
                    continue  # such a row is left out, as the recipe asks
                return _faulty(judge, what, fault, bounded)
            if value is None:
                continue
            told.setdefault(what, []).append(value)
            if sign * value >= sign * golds[case.name]:
                return bad(
                    f"{_kind(what)} answer {text[:60]!r} scores {value:g}, the gold one {golds[case.name]:g} (row {case.name})",
                    f"mend {one.setting.use}, or what it reads in column {column}",
                )
    shown = ", ".join(f"{what} {_range(v)}" for what, v in told.items())
    full = max(golds.values(), key=lambda v: sign * v)
    least = min((v for values in told.values() for v in values), key=lambda v: sign * v, default=full)
    for case in cases:
        # Not all golds need score alike (a length may count), but each is nearer to full marks than to none.
        if sign * golds[case.name] < sign * (full + least) / 2:
            return bad(
                f"the gold {case.gold[:60]!r} scores {golds[case.name]:g}, others {full:g} (row {case.name})",
                f"mend {one.setting.use}, or that row's {column}",
            )
    if untried is not None:
        shown += f" (nothing that might hang was tried: {untried}; {one.where}.processes: 1 can be stopped)"
    return good(f"{golden}: {_range(golds.values())}; {shown}")


def _by_trial(judge: Judge, columns: Sequence[str]) -> str | None:
    """The first of `columns` that makes a difference to a reward that takes any column."""
    scene = judge.scene
    if not judge.target.takes_any:
        return None
    for column in columns:
        case = next(iter(answers.cases(scene.rows, column)), None)
        if case is None:
            continue
        changed = {**case.row, column: answers.wrong(case.gold)}
        texts = [case.text(form, case.gold) for _, form in answers.FORMS]
        scores = judge.score([answer(scene, r, text) for r in (case.row, case.row, changed) for text in texts])
        n = len(texts)
        first, again, other = scores.values[:n], scores.values[n : 2 * n], scores.values[2 * n :]
        if first == again != other:  # one that says something else each time reads nothing by that
            return column
    return None


def _form(judge: Judge, cases: Sequence[Case], sign: float) -> tuple[str, str | None, dict[str, float] | str]:
    """The form in which the golds score best, and their scores by row; text instead says why there are none."""
    scene = judge.scene
    asked = [answer(scene, case.row, case.text(form, case.gold)) for _, form in answers.FORMS for case in cases]
    scores = judge.score(asked)
    parts = [scores.values[i : i + len(cases)] for i in range(0, len(asked), len(cases))]
    whole = [i for i, part in enumerate(parts) if None not in part]
    if not whole:
        fault = next((f"{f.kind}: {f.text}" for f in scores.faults), "none of them is judged (None)")
        return *answers.FORMS[0], fault
    best = max(whole, key=lambda i: sign * sum(parts[i]))  # the first of equals
    return *answers.FORMS[best], {case.name: float(v) for case, v in zip(cases, parts[best], strict=True)}


def _faulty(judge: Judge, what: str, fault: Any, bounded: bool) -> Finding:
    one = judge.one
    said = f"{_kind(what)} answer: {fault.kind}: {fault.text}"
    if bounded and fault.kind in ("timeout", "crash") and one.setting.processes == 0:
        mend = f"set {one.where}.processes: 1, so that it can be stopped, and {one.where}.on_error: {{do: skip_row}}"
    else:
        mend = f"mend {one.setting.use}, or set {one.where}.on_error: {{do: skip_row}}; the policy will write such answers"
    return bad(said, mend)


def _kind(what: str) -> str:
    return {"wrong": "a wrong", "empty": "an empty"}.get(what, f"{what}: an")


def _range(values: Any) -> str:
    found = sorted(set(values))
    return f"{found[0]:g}" if len(found) == 1 else f"{found[0]:g} to {found[-1]:g}"


# Spread


def varies(judge: Judge) -> Finding:
    """A reward gives different completions different numbers: right, wrong, empty and endless ones, and some of the policy."""
    scene, one = judge.scene, judge.one
    if len(set(judge.seen)) > 1:
        return good(f"{len(judge.seen)} different completions score {_range(judge.seen)}")
    row = scene.rows[0]
    mixed = [answer(scene, row, form % "12") for _, form in answers.FORMS if form is not None]
    mixed += [answer(scene, row, ""), answer(scene, row, "I do not know."), endless(scene, row)]
    scores = judge.score(mixed)
    n = len(judge.seen)
    if not n:
        fault = next((f"{f.kind}: {f.text}" for f in scores.faults), "it judges none (None)")
        return bad(f"no number for any of {len(mixed)} different completions: {fault}", f"mend {one.setting.use}")
    if len(set(judge.seen)) > 1:
        return good(f"{n} different completions score {_range(judge.seen)}")
    constant = f"{n} different completions, right, wrong, empty and endless, all score {judge.seen[0]:g}"
    if one.setting.weight == 0:
        return idle(f"{constant} ({WEIGHTLESS})")
    return bad(constant, f"a constant teaches nothing: mend {one.setting.use} or its arguments ({one.where}.with)")


def judged(judges: Sequence[Judge], drawn: Sequence[tuple[Mapping[str, Any], Rollout]]) -> list[list[float | None]]:
    """Each reward's numbers of some rollouts; a fault is None."""
    given = [[rolled(judge.scene, row, rollout) for row, rollout in drawn] for judge in judges]
    return [judge.score(some).values if some else [] for judge, some in zip(judges, given, strict=True)]


def totals(scene: Scene, columns: Sequence[Sequence[float | None]]) -> list[float | None]:
    """The weighted sum of each rollout; None where one of the rewards did not judge it."""
    weights = [one.setting.weight for one in scene.parts.judged]
    return [
        None if None in row else sum(w * v for w, v in zip(weights, row, strict=True))
        for row in zip(*columns, strict=True)
    ]
