"""Engine and trainer: one policy, the run's own, whose first samples can be learned from."""

from __future__ import annotations

from posttrain import adapters
from posttrain.findings import Finding, bad, good, idle
from posttrain.preflight import probe
from posttrain.preflight.probe import Scored
from posttrain.preflight.scene import Scene, few

TOLERANCE = {"float32": 1e-3, "float16": 0.03, "bfloat16": 0.25}
"""Largest mean of |engine - trainer|, in nats a token; the single token may be ten times as far off. In float32 two
implementations differ by rounding alone (vLLM's CPU build from PEFT by 1e-6). In bfloat16 a spread of 0.05 a token is usual
(huggingface/trl#6789), of single tokens up to 1."""
OUTLIER = 10.0


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
    if mean <= limit and most <= OUTLIER * limit:
        return good(told) if scene.probe.alarm is None else bad(scene.probe.alarm, "")
    return bad(f"{told}; allowed {limit:g}, and {OUTLIER * limit:g} at most", _looks_like(scene, mean, limit))


def tolerance(scene: Scene) -> float:
    """The recipe's `watch.parity`, else by the type that is computed in."""
    if scene.recipe.watch.parity is not None:
        return scene.recipe.watch.parity
    import torch

    args = scene.trainer.args
    computed = [scene.recipe.model.dtype, "bfloat16" if args.bf16 else "float16" if args.fp16 else "float32"]
    if torch.cuda.is_available() and not scene.parts.engine.same_numerics:
        computed.append("float16")  # products of float32 may be TF32 there, which keeps as many bits
    return max(TOLERANCE[dtype] for dtype in computed)


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
        trained = [(p, p.requires_grad) for p in model.parameters()]
        with model.disable_adapter():
            bare = probe.logprobs(scene.trainer, rollouts)
        for parameter, flag in trained:  # PEFT makes all of the adapter trainable again, also what someone froze
            parameter.requires_grad_(flag)
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
