"""A few rollouts before the first: drawn by the run's own engine and strategy, scored again by the trainer's own weights.

Seeds are those of the run, so these are the samples that the run itself would draw of these prompts at version 0. All
processes draw a share (where weights are sharded, sampling is something that all do together) and get to know all of them.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posttrain.errors import Alarm, Mistake
from posttrain.preflight.sharding import sharded
from rollouts.records import Ask, EngineError, Progress, Rollout, Row, Sampling, Session, StaleRollout

if TYPE_CHECKING:
    from posttrain.preflight.scene import Scene

FIRST = 8
"""Rollouts that are always drawn."""
SAMPLES = 4
"""Of each prompt, at most."""
MORE = 56
"""And so many more where eight do not settle it (all rewards alike, or most of them cut)."""
SCORED = 64
"""Tokens of a plain completion drawn to compare log-probs, where the run's own sampling cannot be compared."""


@dataclass
class Scored:
    """One rollout with the trainer's log-probs of its tokens."""

    rollout: Rollout
    ours: list[float]


@dataclass
class Probe:
    """What was drawn so far."""

    rollouts: list[tuple[dict[str, Any], Rollout]] = field(default_factory=list)
    """Row of the data, and a rollout of it. Samples of one row follow each other."""
    scored: list[Scored] = field(default_factory=list)
    fault: str | None = None
    """What failed while they were drawn: one line."""
    alarm: str | None = None
    """What the comparison after the sync found."""
    absent: str | None = None
    """Why none could be drawn at all."""
    uncompared: str | None = None
    """Why their log-probs were not computed."""


def begin(scene: Scene) -> None:
    """Bring the engine to the trainer's version, draw the first rollouts and compare their log-probs. All processes call it."""
    if scene.parts.engine.same_numerics and sharded(scene.trainer.accelerator):
        scene.probe.absent = "the module that samples is spread over processes when training starts"
        return
    try:
        scene.parts.follower.follow(scene.trainer)
    except Alarm as alarm:
        # The first look after a sync found something. All processes have the same; the engine has what it was given.
        scene.probe.alarm = one_line(alarm)
    except Exception as error:
        if scene.world.num_processes > 1:
            raise  # who fails here alone must not leave the others waiting
        scene.probe.fault = one_line(error)
    if scene.probe.fault is None:
        draw(scene, 0, FIRST)
    if sharded(scene.trainer.accelerator):
        scene.probe.uncompared = (
            "weights are spread over processes when training starts: compared after the first sync"
        )
    elif scene.probe.fault is None:
        score(scene)


def draw(scene: Scene, start: int, wanted: int) -> None:
    """Draw `wanted` rollouts (a few more where they don't divide), from sample number `start` on. All processes call it."""
    world, rank = scene.world.num_processes, scene.world.process_index
    share = -(-wanted // world)
    group = min(SAMPLES, scene.trainer.num_generations)
    rows = scene.rows
    asked: list[tuple[int, int]] = []
    for number in range(start + rank * share, start + (rank + 1) * share):
        asked.append(((number // group) % len(rows), number % group + group * (number // (group * len(rows)))))
    made, fault = guarded(lambda: _roll(scene, [(rows[i], sample) for i, sample in asked], scene.parts.sampling))
    told = _gather([(fault, list(zip(asked, made or (), strict=False)))])
    scene.probe.fault = next((f for f, _ in told if f), None)
    if scene.probe.fault is None:
        drawn = [(rows[i], rollout) for _, one in told for (i, _), rollout in one]
        scene.probe.rollouts += drawn


def score(scene: Scene) -> None:
    """Compare log-probs on the rollouts drawn first, or, where some tokens could not be drawn or were penalised (then the
    sampler's log-probs are those of another distribution by design), on plain ones. All processes call it."""
    sampling = scene.parts.sampling
    world, rank = scene.world.num_processes, scene.world.process_index
    share = -(-min(FIRST, len(scene.probe.rollouts)) // world)
    mine = scene.probe.rollouts[rank * share : (rank + 1) * share]

    def measured() -> list[Scored]:
        rollouts = [rollout for _, rollout in mine]
        if sampling.truncates or sampling.repetition_penalty != 1.0:
            plain = dataclasses.replace(
                sampling, top_p=1.0, top_k=0, min_p=0.0, repetition_penalty=1.0, max_tokens=min(sampling.max_tokens, SCORED)
            )  # fmt: skip
            rollouts = _roll(scene, [(row, i) for i, (row, _) in enumerate(mine)], plain)
        return [
            Scored(rollout, ours) for rollout, ours in zip(rollouts, logprobs(scene.trainer, rollouts), strict=True)
        ]

    made, fault = guarded(measured)
    told = _gather([(fault, made or [])])
    scene.probe.fault = next((f for f, _ in told if f), None)
    scene.probe.scored = [one for _, some in told for one in some]


def logprobs(trainer: Any, rollouts: Sequence[Rollout]) -> list[list[float]]:
    """The trainer's own log-probs of the tokens of `rollouts`, in evaluation mode and the trainer's own precision."""
    import torch

    device = trainer.accelerator.device
    pad = trainer.processing_class.pad_token_id
    # Under the prompt that the engine saw, which a scaffold makes another than the row's.
    left, right = max(len(r.asked_ids) for r in rollouts), max(len(r.completion_ids) for r in rollouts)
    ids = torch.full((len(rollouts), left + right), pad, dtype=torch.long)
    mask = torch.zeros_like(ids)
    for i, r in enumerate(rollouts):
        begin, end = left - len(r.asked_ids), left + len(r.completion_ids)
        ids[i, begin:end] = torch.tensor([*r.asked_ids, *r.completion_ids])
        mask[i, begin:end] = 1
    model = trainer.model
    training = model.training
    model.eval()
    try:
        with torch.no_grad(), trainer.accelerator.autocast():
            values = trainer._get_per_token_logps_and_entropies(
                model, ids.to(device), mask.to(device), right,
                batch_size=min(len(rollouts), trainer.args.per_device_train_batch_size),
            )[0]  # fmt: skip
    finally:
        model.train(training)
    return [values[i, : len(r.completion_ids)].float().tolist() for i, r in enumerate(rollouts)]


def _roll(scene: Scene, asked: Sequence[tuple[dict[str, Any], int]], sampling: Sampling) -> list[Rollout]:
    parts = scene.parts
    asks = [
        Ask(
            Row(
                row_id=str(row.get("row_id", "row")),
                prompt=row["prompt"],
                columns={k: v for k, v in row.items() if k not in ("prompt", "row_id")},
            ),
            sample,
        )
        for row, sample in asked
    ]
    session = Session(
        parts.engine,
        parts.tokenizer,
        sampling,
        parts.recipe.run.seed,
        template_kwargs=scene.template_args,
        # As the first rollouts of the run will be drawn: a scaffold is there to make something to learn from.
        progress=Progress(1, max(scene.trainer.args.max_steps, 2)),
        group=scene.trainer.num_generations,
        training=True,
    )
    rollouts = _spare(parts.strategy).run(asks, session)
    if len(rollouts) != len(asks):
        raise ValueError(f"the strategy returned {len(rollouts)} rollouts for {len(asks)} asks")
    return rollouts


def _spare(strategy: Any) -> Any:
    """A copy, so that a strategy that remembers does not remember this; the thing itself where it cannot be copied."""
    try:
        return copy.deepcopy(strategy)
    except Exception:  # locks, sockets, clients: what the user's class holds
        return strategy


def guarded(do: Any) -> tuple[Any, str | None]:
    """What `do` returns, or one line saying why it failed: the other processes wait for this one's answer."""
    try:
        return do(), None
    except Exception as error:
        return None, one_line(error)


def one_line(error: Exception) -> str:
    text = " ".join(str(error).split())[:400]
    if isinstance(error, (Mistake, Alarm, EngineError, StaleRollout)):
        return text  # made to be read as it is
    return f"{type(error).__name__}{': ' if text else ''}{text}"


def _gather(mine: list[Any]) -> list[Any]:
    from accelerate.utils import gather_object

    return gather_object(mine)
