"""What must hold between the keys of a recipe. Nothing here imports torch, TRL or the user's code."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from posttrain import metrics
from posttrain.recipe import faults
from posttrain.recipe.schema import Recipe, Source, Use
from posttrain.recipe.text import Path, show
from rollouts.engines import ENGINES
from rollouts.strategies import STRATEGIES

ALGORITHMS = ("grpo", "rloo", "dpo", "sft")
"""Short names of `trainer.algorithm`."""

ONLINE = ("grpo", "rloo")
"""Those that sample from the policy while they train."""

OTHER_NUMERICS = ("vllm", "vllm-server")
"""Engines whose log-probs are not the trainer's own, so that `correction: auto` corrects."""

Found = Iterator[tuple[Path, str]]


def broken(recipe: Recipe) -> list[tuple[Path, str]]:
    """Every rule that `recipe` breaks: the path of the key to change, and what to do."""
    rules = (
        _names,
        _model,
        _sources,
        _rewards,
        _sampling,
        _strategy,
        _correction,
        _evaluation,
        _checkpoints,
        _trainer_args,
        _adapter,
    )
    return [found for rule in rules for found in rule(recipe)]


def name_of(setting: str | Use) -> str:
    """The name in a setting that may be short (`engine: vllm`) or long (`engine: {use: vllm}`)."""
    return setting if isinstance(setting, str) else setting.use


def _names(recipe: Recipe) -> Found:
    rollouts = recipe.rollouts
    for path, given, known in (
        (("trainer", "algorithm"), recipe.trainer.algorithm, ALGORITHMS),
        (("rollouts", "engine"), name_of(rollouts.engine), ENGINES),
        (("rollouts", "strategy"), name_of(rollouts.strategy), STRATEGIES),
    ):
        if ":" not in given and given not in known:
            yield path, f"{show(given)} is not known{faults.did_you_mean(given, known)} (or give an import path)"
    for i, reward in enumerate(recipe.rewards):
        if ":" not in reward.use:
            yield (
                ("rewards", i, "use"),
                f"{show(reward.use)} is not an import path (package.module:function or file.py:function)",
            )


def _model(recipe: Recipe) -> Found:
    model = recipe.model
    if model.with_ and ":" not in model.name and not model.name.startswith("miniature/"):
        yield ("model", "with"), f"{show(model.name)} is not a function, so it takes no arguments; leave `with` out"
    longest = recipe.rollouts.sampling.max_tokens
    online = recipe.trainer.algorithm not in ALGORITHMS or recipe.trainer.algorithm in ONLINE
    if online and model.max_length is not None and model.max_length <= longest:
        yield (
            ("model", "max_length"),
            f"{model.max_length} leaves no room for a prompt before rollouts.sampling.max_tokens = {longest}",
        )
    prompt = recipe.data.train.max_prompt_tokens
    if online and None not in (model.max_length, prompt) and longest < model.max_length < prompt + longest:
        yield (
            ("data", "train", "max_prompt_tokens"),
            f"{prompt} + rollouts.sampling.max_tokens {longest} = {prompt + longest} is more than model.max_length {model.max_length}",
        )


def _sources(recipe: Recipe) -> Found:
    for name, source in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        if source is not None:
            for key, text in _source(source, recipe.trainer.algorithm):
                yield ("data", name, *key), text


def _source(source: Source, algorithm: str) -> Found:
    given = [key for key in ("use", "hub", "path") if getattr(source, key) is not None]
    if not given:
        yield (), "says no source; give one of use (a function), hub (a data set id), path (a file)"
    elif len(given) > 1:
        yield (given[1],), f"{' and '.join(given)} are given; a source has one of use, hub, path"
    if source.with_ and source.use is None:
        yield ("with",), "arguments go with `use`; this source has none"
    if source.config is not None and source.hub is None:
        yield ("config",), "a configuration goes with `hub`; this source has none"
    if source.system is not None and not source.chat:
        yield ("system",), "a system turn needs the chat template; set chat: true or leave it out"
    if source.completion is not None and algorithm in ("grpo", "rloo", "dpo"):
        yield ("completion",), f"only sft reads it; {algorithm} would ignore it, leave it out"
    if source.path is not None and not source.path.lower().endswith((".json", ".jsonl", ".csv", ".parquet")):
        yield ("path",), f"{show(source.path)} should end in .json, .jsonl, .csv or .parquet"


def _rewards(recipe: Recipe) -> Found:
    algorithm = recipe.trainer.algorithm
    if algorithm in ONLINE and not recipe.rewards:
        yield ("rewards",), f"missing; {algorithm} needs at least one, for example - {{use: rewards.math:correct}}"
    elif algorithm in ALGORITHMS and algorithm not in ONLINE and recipe.rewards:
        yield ("rewards",), f"{algorithm} does not use rewards, they would be ignored; leave them out (rewards: [])"
    elif recipe.rewards and all(reward.weight == 0 for reward in recipe.rewards):
        yield ("rewards", 0, "weight"), "every reward has weight 0, so there is nothing to learn"
    named: dict[str, int] = {}
    for i, reward in enumerate(recipe.rewards):
        if reward.name is None:
            continue
        if not reward.name or not reward.name.isprintable() or "/" in reward.name:
            yield ("rewards", i, "name"), f"{show(reward.name)} cannot name a metric; use letters, digits, . _ -"
        elif reward.name in named:
            yield ("rewards", i, "name"), f"{show(reward.name)} is the name of rewards.{named[reward.name]} already"
        named.setdefault(reward.name, i)


def _sampling(recipe: Recipe) -> Found:
    stop = recipe.rollouts.sampling.stop
    for i, text in enumerate(stop):
        if not text:
            yield ("rollouts", "sampling", "stop", i), "an empty stop string would end every completion at once"


def _strategy(recipe: Recipe) -> Found:
    algorithm, name = recipe.trainer.algorithm, name_of(recipe.rollouts.strategy)
    if algorithm in ALGORITHMS and algorithm not in ONLINE and name != "single":
        yield (
            ("rollouts", "strategy"),
            f"{algorithm} draws no rollouts to train on, {name} would be ignored; leave it out",
        )


def _correction(recipe: Recipe) -> Found:
    correction = recipe.rollouts.correction
    algorithm, engine = recipe.trainer.algorithm, name_of(recipe.rollouts.engine)
    if (
        correction.clip_min is not None
        and correction.clip_max is not None
        and correction.clip_min >= correction.clip_max
    ):
        yield (
            ("rollouts", "correction", "clip_min"),
            f"{correction.clip_min:g} must be below clip_max {correction.clip_max:g}",
        )
    if algorithm == "rloo" and correction.mode not in ("auto", "off"):
        yield ("rollouts", "correction", "mode"), "rloo has no correction; leave it out, or use grpo"
        return
    if algorithm == "rloo" and name_of(recipe.rollouts.strategy) == "scaffold" and not shows_more_by_name(recipe):
        yield (
            ("rollouts", "strategy", "with", "in_loss"),
            "rloo trains on the row's own prompt alone; leave it out, or use grpo",
        )
    if algorithm in ("rloo", "dpo", "sft"):
        return
    on = correction.mode != "off"
    if correction.mode == "auto":
        # A strategy by import path has to be asked itself: `check` does.
        by_name = ":" not in name_of(recipe.rollouts.strategy)
        on = engine in OTHER_NUMERICS and by_name and not shows_more_by_name(recipe)
    if on:
        yield from truncated_with_correction(recipe)


def shows_more_by_name(recipe: Recipe) -> bool:
    """For strategies with a short name: samples are drawn under prompts that the loss does not have, so that `auto` corrects nothing."""
    strategy = recipe.rollouts.strategy
    given = {} if isinstance(strategy, str) else strategy.with_
    return name_of(strategy) == "scaffold" and not given.get("in_loss", False)


def truncated_with_correction(recipe: Recipe) -> Found:
    """The fault of truncated sampling under an importance-sampling correction."""
    sampling, mode = recipe.rollouts.sampling, recipe.rollouts.correction.mode
    reason = f"{name_of(recipe.rollouts.engine)} engine's default" if mode == "auto" else mode
    for key, off in (("top_p", 1.0), ("top_k", 0), ("min_p", 0.0)):
        if (value := getattr(sampling, key)) != off:
            yield (
                ("rollouts", "sampling", key),
                f"{value:g} with importance-sampling correction ({reason}) is biased: the sampler's log-probs are "
                f"renormalised over fewer tokens than the trainer's; set {key}: {off:g} or rollouts.correction.mode: off",
            )


def _evaluation(recipe: Recipe) -> Found:
    seen: dict[str, int] = {}
    for i, one in enumerate(recipe.evaluation):
        if one.samples > 1 and one.temperature == 0:
            yield (
                ("evaluation", i, "samples"),
                f"{one.samples} samples at temperature 0 would all be equal; set evaluation.{i}.temperature, or samples: 1",
            )
        if one.adaptive is not None and one.adaptive.batch > one.adaptive.items:
            yield (
                ("evaluation", i, "adaptive", "batch"),
                f"{one.adaptive.batch} items at once are more than all {one.adaptive.items}; set a smaller one",
            )
        if not (one.before or one.after or one.every):
            yield ("evaluation", i), "never due: before and after are false and every is not given; leave it out"
        if one.name in seen:
            yield (
                ("evaluation", i, "benchmark"),
                f"{show(one.name)} is evaluation.{seen[one.name]} already; their results would overwrite each other",
            )
        seen.setdefault(one.name, i)


def _checkpoints(recipe: Recipe) -> Found:
    wanted = recipe.checkpoints
    if not wanted.keep_best:
        if wanted.metric is not None:
            yield ("checkpoints", "metric"), "never used: keep_best is 0; set checkpoints.keep_best, or leave it out"
        return
    if not wanted.every:
        yield (
            ("checkpoints", "keep_best"),
            "no checkpoints are saved on schedule (checkpoints.every: 0), so none is the best",
        )
        return
    if wanted.metric is None:
        yield (
            ("checkpoints", "metric"),
            "missing; keep_best needs to know by what: a benchmark, or a metric such as reward",
        )
        return
    asked = next(((i, e) for i, e in enumerate(recipe.evaluation) if e.name == wanted.metric), None)
    if asked is not None:
        i, entry = asked
        if entry.every is None:
            yield (
                ("evaluation", i, "every"),
                f"missing; checkpoints.metric looks at {show(wanted.metric)} at every checkpoint",
            )
        elif wanted.every % entry.every:
            yield (
                ("checkpoints", "every"),
                f"{wanted.every} is no multiple of evaluation.{i}.every = {entry.every}, so checkpoints would go unmeasured",
            )
        return
    own = any(":" in entry.benchmark for entry in recipe.evaluation)  # it has a name that only its code knows
    if not own and metrics.describe(wanted.metric) is None:
        names = [*metrics.METRICS, *(entry.name for entry in recipe.evaluation)]
        if (near := faults.nearest(wanted.metric, names)) is not None:
            yield (
                ("checkpoints", "metric"),
                f'{show(wanted.metric)} is neither a benchmark nor a known metric; did you mean "{near}"?',
            )
    logging = recipe.trainer.args.get("logging_steps", 1)
    if isinstance(logging, int) and logging > 0 and wanted.every % logging:
        yield (
            ("checkpoints", "every"),
            f"{wanted.every} is no multiple of trainer.args.logging_steps = {logging}, so checkpoints would go unmeasured",
        )


def _trainer_args(recipe: Recipe) -> Found:
    args: dict[str, Any] = recipe.trainer.args
    at = ("trainer", "args")
    if args.get("loss_type") == "cispo" and args.get("epsilon_high") is None:
        yield (
            (*at, "loss_type"),
            "cispo needs epsilon_high, the cap of its weights, for example 5.0; without it TRL takes epsilon and caps all of them at 0.2",
        )
    cap = args.get("epsilon_high")
    if args.get("loss_type") == "cispo" and isinstance(cap, int | float) and not isinstance(cap, bool) and cap < 1:
        yield (
            (*at, "epsilon_high"),
            f"{cap:g} is below 1: cispo takes it as the cap of its weights, so that every token's would be {cap:g}; "
            "give for example 5.0",
        )
    yield from _cut(recipe)
    level = {"luspo": "sequence", "vespo": "token"}.get(str(args.get("loss_type")))
    if level is not None and args.get("importance_sampling_level", "token") != level:
        yield (*at, "loss_type"), f"{args['loss_type']} needs importance_sampling_level: {level}"
    if args.get("bf16") is True and args.get("fp16") is True:
        yield (*at, "fp16"), "bf16 is true as well; choose one"
    if args.get("auto_find_batch_size") is True and recipe.trainer.algorithm in ONLINE:
        yield (
            (*at, "auto_find_batch_size"),
            "groups must stay whole, so the batch cannot shrink by itself; leave it out",
        )
    if args.get("sync_ref_model") is True and recipe.adapter is not None:
        yield (
            (*at, "sync_ref_model"),
            "with an adapter the reference is the base model itself, it cannot follow the policy",
        )
    if args.get("generation_batch_size") is not None and args.get("steps_per_generation") is not None:
        yield (
            (*at, "generation_batch_size"),
            "steps_per_generation is given as well; one follows from the other, leave one out",
        )
    evaluates = args.get("eval_strategy", "no") not in ("no", None)
    if evaluates and args.get("log_completions") is True:
        yield (
            (*at, "log_completions"),
            "TRL writes the completions of an evaluation over those of the training step; leave it out, "
            "the run's rollouts/ hold both",
        )
    if evaluates and recipe.data.eval is None:
        yield (
            (*at, "eval_strategy"),
            "needs rows under data.eval (benchmarks under `evaluation` need no eval_strategy)",
        )
    if recipe.data.eval is not None and not evaluates:
        yield ("data", "eval"), "never used: trainer.args.eval_strategy is not set (steps or epoch)"


def _cut(recipe: Recipe) -> Found:
    """Losses of pairs that depend on how an optimiser step is cut into micro-batches."""
    args = recipe.trainer.args
    steps = args.get("gradient_accumulation_steps", 1)
    if recipe.trainer.algorithm != "dpo" or not isinstance(steps, int) or steps < 2:
        return
    losses = args.get("loss_type", "sigmoid")
    losses = losses if isinstance(losses, list) else [losses]
    at = ("trainer", "args", "gradient_accumulation_steps")
    for name in ("aot", "aot_unpaired"):
        if name in losses:
            yield (
                at,
                f"{name} sorts the pairs of a micro-batch, so {steps} micro-batches would give another gradient than one; "
                "set 1, with a larger per_device_train_batch_size",
            )
    if "sft" in losses and args.get("use_weighting") is True:
        yield (
            at,
            f"use_weighting with loss_type sft gives another gradient in {steps} micro-batches than in one; set 1",
        )


def _adapter(recipe: Recipe) -> Found:
    if recipe.adapter is None:
        return
    for key in ("target_modules", "modules_to_save"):
        value = getattr(recipe.adapter, key, None)
        names = [value] if isinstance(value, str) else value if isinstance(value, list) else []
        for name in names:
            if isinstance(name, str) and name.rpartition(".")[2] == "lm_head":
                yield ("adapter", key), "lm_head cannot be adapted: TRL computes log-probs from its weight directly"
