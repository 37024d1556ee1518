"""The second look at a recipe: does what passes through it fit what it is for?

`trainer.args` against the fields of the TRL configuration class (by type hint: constructing it would touch devices),
`adapter` against PEFT's, and every `with` against the signature behind its `use`. Imports TRL, PEFT and the user's code.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
import typing
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from posttrain.errors import Mistake
from posttrain.imports import load_object, wrong_arguments
from posttrain.recipe.faults import did_you_mean, not_among
from posttrain.recipe.hints import is_list, is_number, mismatch
from posttrain.recipe.homes import HOMES, config_class
from posttrain.recipe.reading import MOST_MISTAKES, Loaded
from posttrain.recipe.rules import OTHER_NUMERICS, name_of, shows_more_by_name, truncated_with_correction
from posttrain.recipe.schema import Evaluation, Recipe, Source, Use
from posttrain.recipe.text import Path, dotted, show
from rollouts.engines import ENGINES
from rollouts.engines.adapters import changes_base, obstacle
from rollouts.strategies import STRATEGIES

VLLM_HOTTEST = 2.0

Found = Iterator[tuple[Path, str]]

FROM_TRL = ("prompts", "completions", "completion_ids", "trainer_state", "log_extra", "log_metric", "environments")
"""Keyword arguments with which TRL calls every reward function, besides the data's columns."""


def check(
    recipe: Recipe,
    config: Any = None,
    loaded: Loaded | None = None,
    *,
    benchmarks: Collection[str] = (),
    bank: Callable[[Evaluation], None] | None = None,
    code: bool = True,
) -> None:
    """Check what can be checked without data, a model or a device.

    Args:
        recipe: a recipe that `load` returned.
        config: the configuration class of its trainer; absent = found by `trainer.algorithm`.
        loaded: gives file and line to messages.
        benchmarks: the known short names of benchmarks; empty = not checked.
        bank: raises `Mistake` if the item bank of an adaptive evaluation does not fit it; absent = not checked.
        code: False = import nothing that the recipe names but our own modules; what needs more is not checked.

    Raises:
        Mistake: one line for each of the first mistakes.
    """
    if config is None and (code or ":" not in recipe.trainer.algorithm):
        config = config_class(recipe)
    wrong = [
        *(_trainer_args(recipe.trainer.args, config) if config is not None else ()),
        *_adapter(recipe),
        *_served(recipe),
        *_plugged_in(recipe, code),
        *_sampling_by_code(recipe, code),
        *_off_policy(recipe, code),
        *_benchmarks(recipe, benchmarks, code),
        *_banks(recipe, bank),
    ]
    if wrong:
        lines = [loaded.line(path, text) if loaded else f"{dotted(path)}: {text}" for path, text in wrong]
        more = f" (and {len(lines) - MOST_MISTAKES} more)" if len(lines) > MOST_MISTAKES else ""
        raise Mistake("\n".join(lines[:MOST_MISTAKES]) + more)


def reward_names(recipe: Recipe) -> list[str]:
    """A name for each reward, all different: its own `name`, else its function's, numbered where two would be equal."""
    taken = {reward.name for reward in recipe.rewards if reward.name is not None}
    names = []
    for reward in recipe.rewards:
        name = reward.name
        if name is None:
            own = reward.use.rpartition(":")[2].rpartition(".")[2]
            name, number = own, 1
            while name in taken:
                number += 1
                name = f"{own}_{number}"
            taken.add(name)
        names.append(name)
    return names


# trainer.args

_GRPO_LOSSES = ("grpo", "bnpo", "dr_grpo", "dapo", "cispo", "luspo", "sapo", "vespo")
_DPO_LOSSES = (
    *("sigmoid", "hinge", "ipo", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "aot", "aot_unpaired"),
    *("apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm"),
)

CLOSED: dict[str, dict[str, tuple[Any, ...]]] = {
    "GRPOConfig": {
        "loss_type": _GRPO_LOSSES,
        "scale_rewards": ("group", "batch", "none", True, False),
        "importance_sampling_level": ("token", "sequence"),
        "multi_objective_aggregation": ("sum_then_normalize", "normalize_then_sum"),
    },
    "SFTConfig": {
        "loss_type": ("nll", "dft"),
        "truncation_mode": ("keep_start", "keep_end"),
        "packing_strategy": ("bfd", "bfd_split", "wrapped"),
    },
    "DPOConfig": {
        "loss_type": _DPO_LOSSES,
        "truncation_mode": ("keep_start", "keep_end"),
        "f_divergence_type": ("reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"),
    },
}
"""Values that TRL annotates as plain text but checks, some of them only after a first generation: class → key → values."""

AT_LEAST: dict[str, float] = {
    "per_device_train_batch_size": 1,
    "per_device_eval_batch_size": 1,
    "gradient_accumulation_steps": 1,
    "num_generations": 2,
    "num_generations_eval": 1,
    "generation_batch_size": 1,
    "steps_per_generation": 1,
    "num_iterations": 1,
    "save_total_limit": 1,
    "max_length": 1,
    "learning_rate": 0,
    "num_train_epochs": 0,
    "weight_decay": 0,
    "warmup_steps": 0,
    "max_grad_norm": 0,
    "beta": 0,
    "epsilon": 0,
    "epsilon_high": 0,
    "logging_steps": 0,
    "save_steps": 0,
    "eval_steps": 0,
    "dataloader_num_workers": 0,
}
"""Least sensible value of a number, where TRL would go wrong late or silently below it."""


def _trainer_args(args: Mapping[str, Any], config: Any) -> Found:
    fields = {f.name: f for f in dataclasses.fields(config) if f.init}
    hints = typing.get_type_hints(config)
    closed = {k: v for base in reversed(config.__mro__) for k, v in CLOSED.get(base.__name__, {}).items()}
    known = [name for name in fields if name not in HOMES and not name.startswith("vllm_")]
    for key, value in args.items():
        path: Path = ("trainer", "args", key)
        if key not in fields:
            yield path, f"unknown key of {config.__name__}{did_you_mean(key, known)}"
        elif key in closed:
            yield from _among(path, value, closed[key], hints[key])
        elif choices := fields[key].metadata.get("choices"):
            yield from _among(path, value, tuple(choices), hints[key])
        elif text := mismatch(value, hints[key]):
            yield path, text
        elif is_number(value) and value < AT_LEAST.get(key, value):
            yield path, f"should be at least {AT_LEAST[key]:g}, got {show(value)}"


def _among(path: Path, value: Any, allowed: tuple[Any, ...], hint: Any) -> Found:
    many = isinstance(value, list) and is_list(hint)
    if not many and value is None and mismatch(None, hint) is None:
        return
    for i, one in enumerate(value if many else [value]):
        if not any(type(one) is type(a) and one == a for a in allowed):
            names = [str(a).lower() if isinstance(a, bool) else str(a) for a in allowed]
            yield (*path, i) if many else path, not_among(one, names)


# adapter


def _adapter(recipe: Recipe) -> Found:
    if recipe.adapter is None:
        return
    from peft import LoraConfig

    hints = typing.get_type_hints(LoraConfig)
    known = [f.name for f in dataclasses.fields(LoraConfig) if f.init]
    for key, value in (recipe.adapter.model_extra or {}).items():
        if key not in known:
            yield ("adapter", key), f"unknown key of LoraConfig{did_you_mean(key, [*known, 'start_from'])}"
        elif text := mismatch(value, hints[key]):
            yield ("adapter", key), text
    if changes_base(recipe.adapter.model_extra or {}):
        yield (
            ("adapter", "init_lora_weights"),
            f"{recipe.adapter.model_extra['init_lora_weights']} changes the base weights in memory, so the saved adapter would "
            "not fit the base model; use true or gaussian",
        )


# Whatever is plugged in


def _served(recipe: Recipe) -> Found:
    """What vLLM cannot serve as PEFT means it, or cannot be given at all."""
    engine = name_of(recipe.rollouts.engine)
    if engine not in ("vllm", "vllm-server"):
        return
    if recipe.adapter is None:
        if engine == "vllm-server":
            yield (
                ("rollouts", "engine"),
                "vllm-server follows adapters only; give the recipe an `adapter`, or use engine: vllm or transformers",
            )
    elif (why := obstacle(recipe.adapter.model_dump())) is not None:
        yield ("adapter",), f"vLLM would not serve {why} as PEFT means it; leave it out, or use engine: transformers"
    if recipe.rollouts.sampling.temperature > VLLM_HOTTEST:
        yield (
            ("rollouts", "sampling", "temperature"),
            f"vLLM takes at most {VLLM_HOTTEST:g}, not {recipe.rollouts.sampling.temperature:g}",
        )


OURS = ("posttrain", "rewards", "rollouts")


def is_ours(use: str) -> bool:
    """True if an import path leads into the packages that come with posttrain."""
    module = use.rpartition(":")[0]
    return not module.endswith(".py") and module.split(".")[0] in OURS


def _plugged_in(recipe: Recipe, code: bool) -> Found:
    rollouts = recipe.rollouts
    for i, reward in enumerate(recipe.rewards):
        if code or is_ours(reward.use):
            yield from _fault(("rewards", i), reward.use, reward.with_, _reward)
    for part, setting, short, fit in (
        ("engine", rollouts.engine, ENGINES, _engine),
        ("strategy", rollouts.strategy, STRATEGIES, _strategy),
    ):
        if code or is_ours(short.get(name_of(setting), name_of(setting))):
            yield from _seam(("rollouts", part), setting, short, fit)
    if not code:
        return
    for name, source in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        if isinstance(source, Source) and source.use is not None and ":" in source.use:
            yield from _fault(("data", name), source.use, source.with_, _function)
    if ":" in recipe.model.name and not os.path.isdir(recipe.model.name):
        yield from _fault(("model",), recipe.model.name, recipe.model.with_, _function, key="name")


Fit = Callable[[Any, Mapping[str, Any]], Iterator[tuple[Path, str]]]


def _seam(path: Path, setting: str | Use, short: Mapping[str, str], fit: Fit) -> Found:
    name = name_of(setting)
    given = {} if isinstance(setting, str) else setting.with_
    yield from _fault(path, short.get(name, name), given, fit, key=None if isinstance(setting, str) else "use")


def _fault(path: Path, use: str, given: Mapping[str, Any], fit: Fit, key: str | None = "use") -> Found:
    """What is wrong with `use` and the arguments beside it."""
    at = path if key is None else (*path, key)
    mark = "\0"
    try:
        target = load_object(use, mark)
    except Mistake as mistake:
        yield at, str(mistake).removeprefix(f"{mark}: ")
        return
    for inner, text in fit(target, given):
        yield ((*path, *inner) if inner else at), text


def _wrong(target: Any, given: Mapping[str, Any], *, complete: bool, ours: Collection[str] = ()) -> Found:
    for name in given:
        if name in ours:
            yield ("with", name), "is given by posttrain; leave it out"
    every = {**dict.fromkeys(ours), **given}
    for name, text in wrong_arguments(target, every, complete=complete):
        if name not in ours:
            yield ("with", name) if name else ("with",), text


def _function(target: Any, given: Mapping[str, Any]) -> Found:
    if not callable(target):
        yield (), "is not a function"
    else:
        yield from _wrong(target, given, complete=True)


def _engine(target: Any, given: Mapping[str, Any]) -> Found:
    if not inspect.isclass(target):
        yield (), "is not a class; an engine is one, with generate, sync and close"
        return
    for method in ("generate", "sync", "close"):
        if not callable(getattr(target, method, None)):
            yield (), f"{target.__name__} has no method {method}; an engine has generate, sync and close"
    yield from _wrong(target, given, complete=True, ours=("spec",))


def _strategy(target: Any, given: Mapping[str, Any]) -> Found:
    if not inspect.isclass(target) or not callable(getattr(target, "run", None)):
        yield (), "is not a class with a method run(asks, session)"
    else:
        yield from _wrong(target, given, complete=True)


def _reward(target: Any, given: Mapping[str, Any]) -> Found:
    if inspect.isclass(target):
        if not any("__call__" in vars(base) for base in target.__mro__):
            yield (), f"{target.__name__} has no __call__(prompts, completions, completion_ids, **columns)"
            return
        yield from _wrong(target, given, complete=True)
        return
    if not callable(target):
        yield (), "is not a function"
        return
    for name in given:
        if name in FROM_TRL:
            yield ("with", name), "is what every reward is called with; bind another name"
    free = {name: value for name, value in given.items() if name not in FROM_TRL}
    yield from _wrong(target, free, complete=False)
    yield from _swallowed(target, free)


def _swallowed(target: Any, given: Mapping[str, Any]) -> Found:
    """Arguments that only the `**columns` of a reward would take: misspelt, since there are named ones."""
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return
    named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
    if named and any(p.kind is p.VAR_KEYWORD for p in parameters):
        own = [name for name in named if name not in FROM_TRL]
        for name in given:
            if name not in named:
                yield (
                    ("with", name),
                    f"unknown argument of {getattr(target, '__name__', target)}{did_you_mean(name, own)}",
                )


def _sampling_by_code(recipe: Recipe, code: bool) -> Found:
    """Truncated sampling under `auto`, where a class named by import path alone can say whether there is a correction: an engine's,
    that it is not the trainer's own module, or a strategy's, that it shows the sampler more than the loss."""
    rollouts = recipe.rollouts
    names = name_of(rollouts.engine), name_of(rollouts.strategy)
    if not any(":" in name for name in names) or not all(":" not in n or code or is_ours(n) for n in names):
        return
    if rollouts.correction.mode != "auto" or recipe.trainer.algorithm in ("rloo", "sft", "dpo"):
        return
    engine, way = names
    try:
        apart = (
            engine in OTHER_NUMERICS if ":" not in engine else not getattr(load_object(engine), "same_numerics", True)
        )
        more = shows_more_by_name(recipe) if ":" not in way else _shows_more(rollouts.strategy)
    except Exception:  # said elsewhere, by what is wrong with it
        return
    if apart and not more:
        yield from truncated_with_correction(recipe)


def _off_policy(recipe: Recipe, code: bool) -> Found:
    """TRL tells off-policy rows by the sampler's log-probs, which are those of another prompt under a scaffold."""
    key, way = "off_policy_mask_threshold", name_of(recipe.rollouts.strategy)
    if recipe.trainer.args.get(key) is None or (":" in way and not code and not is_ours(way)):
        return
    try:
        more = shows_more_by_name(recipe) if ":" not in way else _shows_more(recipe.rollouts.strategy)
    except Exception:  # said elsewhere
        return
    if more:
        yield (
            ("trainer", "args", key),
            "would leave out the scaffolded rows whose advantage is negative (their prompt in the loss is not the sampler's); leave it "
            "out, or use scaffold_negative: drop of the strategy, which means it",
        )


def _shows_more(strategy: str | Use) -> bool:
    given = {} if isinstance(strategy, str) else strategy.with_
    return bool(getattr(load_object(name_of(strategy))(**given), "shows_more", False))


def _banks(recipe: Recipe, fits: Callable[[Evaluation], None] | None) -> Found:
    for i, one in enumerate(recipe.evaluation):
        if one.adaptive is not None and fits is not None:
            try:
                fits(one)
            except Mistake as wrong:
                yield ("evaluation", i, "adaptive", "bank"), str(wrong)


def _benchmarks(recipe: Recipe, known: Collection[str], code: bool) -> Found:
    for i, one in enumerate(recipe.evaluation):
        path: Path = ("evaluation", i, "benchmark")
        if ":" in one.benchmark:
            if code:
                yield from _fault(("evaluation", i), one.benchmark, {}, lambda *_: iter(()), key="benchmark")
        elif one.is_file:
            if not os.path.isfile(os.path.expanduser(one.benchmark)):
                yield path, f"{show(one.benchmark)}: no such file (looked in {os.getcwd()})"
        elif known and one.benchmark not in known:
            yield (
                path,
                f"{show(one.benchmark)} is not known{did_you_mean(one.benchmark, known)} (or give an import path)",
            )
