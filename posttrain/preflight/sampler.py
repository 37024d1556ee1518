"""Engine and trainer: one policy, the run's own, whose first samples can be learned from."""

from __future__ import annotations

from posttrain import adapters
from posttrain.preflight import probe
from posttrain.preflight.probe import Scored
from posttrain.preflight.rows import Finding, bad, good, idle
from posttrain.preflight.scene import Scene, few

TOLERANCE = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05}
"""Largest mean of |engine - trainer|, in nats a token. In float32 two implementations differ by rounding alone (vLLM's CPU
build from PEFT: 1e-6 here, kernels of a GPU with TF32 up to some 1e-4). In bfloat16 a standard deviation of 0.05 a token is
usual (huggingface/trl#6789), so a mean of 0.04; a wrong adapter, template or temperature is far above either."""


def is_ours(scene: Scene) -> Finding:
    """The engine holds no other run's adapter, and serves the version that the trainer is at."""
    engine = scene.parts.engine
    name = type(engine).__name__
    version = int(scene.trainer.state.global_step)
    if scene.probe.fault is not None:
        return idle("the engine did not get as far as that")
    foreign = engine.foreign() if hasattr(engine, "foreign") else []
    if foreign:
        return bad(
            f"{name} holds {len(foreign)} adapter(s) of another run: {few(foreign)}",
            "end that run, restart the server, or set rollouts.engine.with.takeover: true",
        )
    if engine.version != version:
        return bad(f"{name} serves version {engine.version}, the trainer is at {version}", "mend the engine's sync")
    kind = "shared with other processes" if engine.shared else "of this process alone"
    return good(f"{name}, {kind}: version {version}, no other run's adapter")


def agree(scene: Scene) -> Finding:
    """The log-probs of sampled tokens, as the engine reports them and as the trainer computes them."""
    if scene.probe.fault is not None:
        return bad(scene.probe.fault, "mend what it names; the first step would fail alike")
    if scene.probe.absent is not None:
        return idle(scene.probe.absent)
    if scene.probe.uncompared is not None:
        return idle(scene.probe.uncompared)
    scored = scene.probe.scored
    gaps = [gap for one in scored for gap in _gaps(one.rollout.logprobs, one)]
    if not gaps:
        return idle("the strategy reports no log-probs of the policy's own tokens")
    mean, most = sum(gaps) / len(gaps), max(gaps)
    limit = tolerance(scene)
    told = (
        f"{len(scored)} rollouts, {len(gaps)} tokens: |engine - trainer| {mean:.2g} nats a token, at most {most:.2g}"
    )
    if mean <= limit:
        return good(told)
    return bad(f"{told}, allowed {limit:g}", _looks_like(scene, mean, limit))


def tolerance(scene: Scene) -> float:
    """The recipe's `watch.parity`, else by the type that is computed in."""
    if scene.recipe.watch.parity is not None:
        return scene.recipe.watch.parity
    args = scene.trainer.args
    autocast = "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"
    return max(TOLERANCE[scene.recipe.model.dtype], TOLERANCE[autocast])


def _gaps(theirs: list[float], one: Scored) -> list[float]:
    """|difference| of each token that the policy wrote and the engine gave a log-prob for."""
    return [
        abs(a - b)
        for a, b, mine in zip(theirs, one.ours, one.rollout.mask, strict=True)
        if mine and a == a  # NaN: the engine gave none
    ]


def _looks_like(scene: Scene, mean: float, limit: float) -> str:
    """What the engine seems to serve: compared once more without the trainer's adapter."""
    model = scene.trainer.model
    if adapters.is_peft(model):
        rollouts = [one.rollout for one in scene.probe.scored]
        with model.disable_adapter():
            bare = probe.logprobs(scene.trainer, rollouts)
        gaps = [g for r, ours in zip(rollouts, bare, strict=True) for g in _gaps(r.logprobs, Scored(r, ours))]
        without = sum(gaps) / len(gaps)
        if without <= limit < mean:
            return f"without the adapter the two agree ({without:.2g}): the engine does not serve it"
    return (
        "the engine serves other weights (another adapter or base model), another dtype, or samples at another temperature; "
        "check what was started for it (`posttrain serve RECIPE`)"
    )


def rewards_spread(scene: Scene, totals: list[float | None]) -> Finding:
    """Some group of samples of one prompt has rewards that differ: else the first step has no gradient."""
    drawn = scene.probe.rollouts
    if not drawn:
        return idle("no rollouts")
    groups: dict[str, list[float]] = {}
    for (row, _), total in zip(drawn, totals, strict=True):
        if total is not None:
            groups.setdefault(str(row.get("row_id")), []).append(total)
    values = [v for group in groups.values() for v in group]
    if not values:
        return bad(f"none of {len(drawn)} rollouts could be judged", "see the rewards' own checks above")
    alive = sum(len(set(group)) > 1 for group in groups.values())
    mean = sum(values) / len(values)
    told = f"{len(values)} rollouts of {len(groups)} prompts: mean reward {mean:.3g}, {alive} of {len(groups)} groups differ"
    if alive:
        return good(told)
    if len(set(values)) == 1:
        # Nothing seen in n draws: with 95 % confidence less than 3/n (Hanley & Lippman-Hand 1983).
        return bad(
            f"all {len(values)} rollouts of {len(groups)} prompts have reward {values[0]:g}: another value in fewer than "
            f"{min(3 / len(values), 1):.0%} of them",
            "take easier (or harder) rows, a model that sometimes succeeds (sft first), or a finer reward",
        )
    return bad(
        f"{told}: the samples of a prompt are all alike", "raise rollouts.sampling.temperature, or use a finer reward"
    )


def not_cut(scene: Scene) -> Finding:
    """At most half of the probe's rollouts were cut at the token limit."""
    drawn = [rollout for _, rollout in scene.probe.rollouts]
    if not drawn:
        return idle("no rollouts")
    cut = sum(r.finish == "length" for r in drawn)
    most = scene.parts.sampling.max_tokens
    told = f"{cut} of {len(drawn)} rollouts cut at {most} tokens"
    if 2 * cut <= len(drawn):
        return good(told)
    return bad(
        told, "raise rollouts.sampling.max_tokens, or check that the model ends its answers (EOS, chat template)"
    )


def settled(scene: Scene, totals: list[float | None]) -> bool:
    """True if the rollouts so far pass; chance is in few."""
    return bool(rewards_spread(scene, totals).ok and not_cut(scene).ok)
