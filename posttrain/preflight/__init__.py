"""Checks of a run before its first step, through its own engine, rewards, tokenizer and trainer.

Each check says what it looked at, and if that is wrong, what to do. They change nothing: a run that was checked and one
that was not are the same, bit for bit.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from posttrain import assemble, rubrics, shadow
from posttrain.errors import Mistake
from posttrain.findings import Finding, Row, as_json, bad, good, print_table
from posttrain.machine import processor_seconds
from posttrain.preflight import adapter, chat, judging, probe, room, rows_to_learn, sampler
from posttrain.preflight.scene import Scene
from posttrain.preflight.untouched import untouched
from posttrain.rundir import write_json
from posttrain.trainers.parts import Parts

__all__ = ["FILE", "Row", "run"]

FILE = "preflight.json"
"""In the run's folder: every check with what it found."""


def run(trainer: Any, parts: Parts, world: Any, mode: str) -> list[Row]:
    """Check a run that is built and has not begun. All processes call it; the main one prints and writes `preflight.json`.

    Args:
        mode: `stop` at a failed check, `warn` and go on, or `off`.

    Returns:
        What each check found.

    Raises:
        Mistake: checks failed and `mode` is `stop`; one line each.
    """
    main = world.is_main_process
    file = parts.run.root / FILE
    if mode == "off":
        if main:
            write_json(file, {"mode": mode, "created": time.time(), "checks": []})
            print("preflight: switched off", flush=True)
        return []
    wall, cpu = time.monotonic(), processor_seconds()
    with untouched(trainer):
        rows = _checks(Scene(trainer, parts, world, online=assemble.is_online(parts.recipe)))
    wall, cpu = time.monotonic() - wall, processor_seconds() - cpu
    failed = [row for row in rows if row.ok is False]
    if main:
        write_json(file, {"mode": mode, "created": time.time(), "seconds": round(wall, 2), "cpu_seconds": round(cpu, 2),
                          "checks": as_json(rows)})  # fmt: skip
        told = f"{len(failed)} failed" if failed else "all well"
        print_table(rows, f"preflight: {len(rows)} checks, {told} ({wall:.1f} s, {cpu:.1f} s of CPU)")
    if failed and mode == "stop":
        mend = "preflight: warn goes on all the same, --no-preflight skips the checks"
        raise Mistake("\n".join(["preflight failed", *(row.line() for row in failed), mend]))
    return rows


def _checks(scene: Scene) -> list[Row]:
    """All rows, on every process: all draw, the main one judges."""
    main = scene.world.is_main_process
    made = [_row(name, do, scene) for name, do in BEFORE] if main else []
    if scene.online:
        made += _online(scene)
    elif main:
        made += [_row(*_on_rows(scene), scene)]
    if main:
        made += [_row(name, do, scene) for name, do in AFTER]
    return _shared(made, scene)


def _names() -> Finding:
    try:
        shadow.refuse()
    except Mistake as mistake:
        return bad(str(mistake), "")
    return good("rewards and rollouts are posttrain's own")


BEFORE: tuple[tuple[str, Callable[[Scene], Finding]], ...] = (
    ("package names", lambda scene: _names()),
    ("chat template", chat.template_leads_up),
    ("BOS", chat.one_bos),
    ("EOS and pad", chat.eos_and_pad),
    ("lengths", room.prompts_fit),
    ("adapter", adapter.kind_is_carried),
    ("base weights", adapter.nothing_merges),
)
AFTER: tuple[tuple[str, Callable[[Scene], Finding]], ...] = (
    ("memory", room.memory_fits),
    ("disk", room.disk_fits),
)


def _on_rows(scene: Scene) -> tuple[str, Callable[[Scene], Finding]]:
    columns = getattr(scene.trainer.train_dataset, "column_names", None) or []
    return (
        ("pairs", rows_to_learn.pairs_are_clean)
        if "rejected" in columns
        else ("answers", rows_to_learn.answers_are_clean)
    )


def _online(scene: Scene) -> list[Row]:
    """Rewards, engine and first samples. All processes draw."""
    main = scene.world.is_main_process
    judges = [judging.Judge(scene, one) for one in scene.parts.judged] if main else []
    asked = [_row(f"reward {j.one.name}: judge", lambda _, j=j: _heard(j), scene) for j in judges if _asks(j)]
    try:
        probe.begin(scene)
        columns = _judged(scene, judges, 0)
        totals = judging.totals(scene, columns)
        if _shared(main and scene.probe.fault is None and not sampler.settled(scene, totals), scene):
            first = len(scene.probe.rollouts)
            probe.draw(scene, first, probe.MORE)
            columns = [old + new for old, new in zip(columns, _judged(scene, judges, first), strict=True)]
            totals = judging.totals(scene, columns)
        if not main:
            return []
        rows = asked + [
            _row(f"reward {j.one.name}: answers", lambda _, j=j: judging.golds_win(j), scene) for j in judges
        ]
        rows += [_row(f"reward {j.one.name}: spread", lambda _, j=j: judging.varies(j), scene) for j in judges]
        rows += [_row("engine", sampler.is_ours, scene), _row("log-probs", sampler.agree, scene)]
        rows += [
            _row("probe: rewards", lambda s: sampler.rewards_spread(s, totals), scene),
            _row("probe: length", sampler.not_cut, scene),
        ]
        return rows
    finally:
        for judge in judges:
            judge.close()
        if hasattr(scene.parts.engine, "forget"):
            # What it still knows of these prompts would be taken from its cache later on, and computed in other pieces.
            scene.parts.engine.forget()


def _asks(judge: judging.Judge) -> bool:
    use = judge.target.use
    return use is not None and rubrics.judge_of(use) is not None


def _heard(judge: judging.Judge) -> Finding:
    """The model that a reward asks answers. Else nothing more is asked of it here, which would take its patience each time."""
    found = rubrics.heard(rubrics.judge_of(judge.target.use))
    judge.silent = "" if found.ok else found.looked
    return found


def _judged(scene: Scene, judges: Sequence[judging.Judge], first: int) -> list[list[float | None]]:
    """Each reward's numbers of the rollouts from `first` on; on the main process, which has the judges."""
    drawn = scene.probe.rollouts[first:]
    found, fault = probe.guarded(lambda: judging.judged(judges, drawn))
    # What went wrong shows in the reward's own checks, which ask it again.
    return found if fault is None else [[None] * len(drawn) for _ in judges]


def _row(name: str, do: Callable[[Scene], Finding], scene: Scene) -> Row:
    begun = time.monotonic()
    try:
        found = do(scene)
    except Exception as error:
        # A check that cannot look is not passed; the run's own code is likely to fail alike.
        found = bad(f"could not be checked: {probe.one_line(error)}", "mend that, or set preflight: warn")
    return Row(name, found.ok, found.looked, found.mend, round(time.monotonic() - begun, 3))


def _shared(mine: Any, scene: Scene) -> Any:
    """What the main process has, on all."""
    if scene.world.num_processes == 1:
        return mine
    from accelerate.utils import broadcast_object_list

    box = [mine]
    broadcast_object_list(box)
    return box[0]
