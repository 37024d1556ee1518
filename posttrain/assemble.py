"""From a checked recipe to the parts of a run. Each function makes one part and needs only what it takes."""

from __future__ import annotations

import hashlib
import inspect
from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

from posttrain import adapters, engines, models
from posttrain.data import load_rows
from posttrain.errors import Mistake
from posttrain.imports import Use, load_object, resolve_path
from posttrain.plan.batches import GROUP
from posttrain.recipe import Recipe
from posttrain.recipe.check import FROM_TRL as COLUMNS_FROM_TRL
from posttrain.recipe.check import reward_names
from posttrain.recipe.homes import trl_arguments
from posttrain.recipe.schema import Source
from posttrain.recipe.schema import Use as UseSetting
from posttrain.rundir import RunDir
from posttrain.scaffolding import Widest, widest
from posttrain.trainers import ONLINE, TRAINERS
from posttrain.trainers.parts import Parts
from posttrain.trainers.scorer import Judged
from rewards.runtime import Guard
from rollouts.records import Engine, Sampling, Strategy
from rollouts.strategies import STRATEGIES


def trainer_class(recipe: Recipe) -> Any:
    """The class behind `trainer.algorithm`.

    Raises:
        Mistake: it is not something that can be built from parts.
    """
    where = "trainer.algorithm"
    found = load_object(resolve_path(recipe.trainer.algorithm, TRAINERS, where), where)
    if not (isinstance(found, type) and hasattr(found, "build") and hasattr(found, "Config")):
        raise Mistake(
            f"{where}: {recipe.trainer.algorithm} has no `Config` and `build(parts)`; "
            "subclass posttrain.trainers.grpo:GRPO, or another of our trainers"
        )
    return found


def is_online(recipe: Recipe) -> bool:
    """True if the trainer samples from the policy while it trains."""
    if recipe.trainer.algorithm in TRAINERS:
        return recipe.trainer.algorithm in ONLINE
    from posttrain.trainers.online import Online

    return issubclass(trainer_class(recipe), Online)


def sampling(recipe: Recipe) -> Sampling:
    """How training rollouts are drawn."""
    wanted = recipe.rollouts.sampling.model_dump()
    return Sampling(**{**wanted, "stop": tuple(wanted["stop"])})


def use_of(setting: str | UseSetting) -> tuple[str, dict[str, Any]]:
    """Name and arguments of a setting that may be short (`engine: vllm`) or long (`engine: {use:, with:}`)."""
    return (setting, {}) if isinstance(setting, str) else (setting.use, dict(setting.with_))


def strategy(recipe: Recipe) -> Strategy:
    name, arguments = use_of(recipe.rollouts.strategy)
    where = "rollouts.strategy"
    use = Use(resolve_path(name, STRATEGIES, f"{where}.use"), arguments, where)
    try:
        made = use.build()
        if callable(fits := getattr(made, "fits", None)):
            fits(recipe.trainer.args.get("num_generations", GROUP.get(recipe.trainer.algorithm, GROUP["grpo"])))
        return made
    except ValueError as error:
        raise Mistake(f"{where}: {' '.join(str(error).split())}") from error


def scaffolds(recipe: Recipe, strategy: Strategy, rows: Any, tokenizer: Any) -> Widest:
    """The longest scaffolds of the training rows.

    Raises:
        Mistake: see `widest`.
    """
    return widest(
        strategy,
        rows,
        tokenizer,
        room=models.max_length(recipe.model, models.load_config(recipe.model)),
        max_tokens=recipe.rollouts.sampling.max_tokens,
        template_args=recipe.model.template_args,
    )


def engine(recipe: Recipe, run: RunDir, tokenizer: Any) -> Engine:
    name, arguments = use_of(recipe.rollouts.engine)
    # A server may be shared by runs of one name in different folders; a resumed run must find its own adapters again.
    place = hashlib.blake2b(str(run.root.resolve()).encode(), digest_size=3).hexdigest()
    spec = engines.spec(recipe.model, tokenizer, adapter=recipe.adapter, run_id=f"{recipe.run.name}-{place}")
    return engines.build(name, arguments, spec)


def judged(recipe: Recipe) -> list[Judged]:
    """The recipe's rewards, each in its guard, under names that differ."""
    made = []
    for index, (setting, name) in enumerate(zip(recipe.rewards, reward_names(recipe), strict=True)):
        where = f"rewards.{index}"
        make = Use(resolve_path(setting.use, None, f"{where}.use"), dict(setting.with_), where)
        if setting.processes == 0:
            reward_of(make)  # a wrong argument shows now, not at the first batch
        guard = Guard(
            make.build,
            name=name,
            timeout=setting.timeout,
            processes=setting.processes,
            memory=setting.memory,
            where=where,
        )
        made.append(Judged(name=name, where=where, setting=setting, guard=guard))
    return made


def rewards_fit(recipe: Recipe, columns: Collection[str]) -> None:
    """Every reward can be called with the data's columns.

    Raises:
        Mistake: a column would silently replace an argument given under `with`, or an argument comes from nowhere.
    """
    for index, setting in enumerate(recipe.rewards):
        where = f"rewards.{index}"
        target = load_object(resolve_path(setting.use, None, f"{where}.use"), where)
        for name in setting.with_:
            if name in columns:
                raise Mistake(
                    f"{where}.with.{name}: the data has a column of that name; rename one (data.train.columns)"
                )
        call = target.__call__ if isinstance(target, type) else target
        given = {*columns, *COLUMNS_FROM_TRL, *(() if isinstance(target, type) else setting.with_), "self"}
        missing = [
            name
            for name, parameter in inspect.signature(call).parameters.items()
            if parameter.default is parameter.empty
            and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
            and name not in given
        ]
        if missing:
            has = ", ".join(c for c in columns if c not in ("prompt", "row_id"))
            raise Mistake(
                f"{where}: {setting.use} needs {', '.join(missing)}, which is neither a column of the data ({has or 'none'}) "
                f"nor under `with`; map a column with data.train.columns: {{{missing[0]}: ...}}, or give it under `with`"
            )


def rubrics_fit(recipe: Recipe, data: Any, where: str) -> None:
    """Every row's rubric can be read and decided, in the time that there is; nothing for recipes without a rubric reward.

    Raises:
        Mistake: the first that cannot; with its row.
    """
    from posttrain import rubrics

    for index, setting in enumerate(recipe.rewards):
        place = f"rewards.{index}"
        use = Use(resolve_path(setting.use, None, f"{place}.use"), dict(setting.with_), place)
        if rubrics.is_rubric(use):
            reward = reward_of(use)
            if reward.judge is not None:
                rubrics.room_for(reward.judge, setting, place)
            try:
                reward.check(data)
            except ValueError as error:
                raise Mistake(f"{where}: {error} ({place}: {setting.use})") from error


def reward_of(make: Use) -> Any:
    """A reward, built.

    Raises:
        Mistake: a setting of it is wrong.
    """
    try:
        return make.build()
    except ValueError as error:  # how a reward of ours says that a setting is wrong
        raise Mistake(f"{make.where}.with: {' '.join(str(error).split())}") from error


def rows(recipe: Recipe, source: Source, tokenizer: Any, where: str) -> tuple[Any, dict[str, int]]:
    """The data set of a source, ready for the trainer, and what was counted on the way (rows, dropped, cut)."""
    room = models.max_length(recipe.model, models.load_config(recipe.model))
    if is_online(recipe):
        room -= recipe.rollouts.sampling.max_tokens
    limit = source.max_prompt_tokens or room
    if limit < 1:
        raise Mistake(
            f"rollouts.sampling.max_tokens: {recipe.rollouts.sampling.max_tokens} leaves no room for a prompt"
        )
    template_args = recipe.model.template_args
    found, counts = load_rows(source, tokenizer, max_prompt_tokens=limit, where=where, template_args=template_args)
    if template_args and not is_online(recipe) and "chat_template_kwargs" not in found.column_names:
        # Where TRL tokenises rows itself, it takes the template's arguments from a column.
        found = found.add_column("chat_template_kwargs", [dict(template_args)] * len(found))
    return found, counts


def parts(recipe: Recipe, run: RunDir, stack: ExitStack) -> Parts:
    """Everything a trainer is built from. Loads the data and the model and starts the engine; `stack` ends what was
    started."""
    tokenizer = models.load_tokenizer(recipe.model)
    train, _ = rows(recipe, recipe.data.train, tokenizer, "data.train")
    rewards_fit(recipe, train.column_names)
    rubrics_fit(recipe, train, "data.train")
    held_out = rows(recipe, recipe.data.eval, tokenizer, "data.eval")[0] if recipe.data.eval else None
    if held_out is not None:
        rubrics_fit(recipe, held_out, "data.eval")
    scorers = judged(recipe)
    for one in scorers:
        stack.callback(one.guard.close)
    online = is_online(recipe)
    way = strategy(recipe) if online else None
    seen = scaffolds(recipe, way, train, tokenizer) if way is not None else Widest()
    wants_engine = online or bool(recipe.evaluation)
    sampler = engine(recipe, run, tokenizer) if wants_engine else None
    if sampler is not None:
        stack.callback(sampler.close)
    model = models.load_model(recipe.model)
    peft_config = None
    if recipe.adapter is not None and recipe.adapter.start_from:
        model = adapters.attach_existing(model, recipe.adapter)
    elif recipe.adapter is not None:
        peft_config = adapters.config(recipe.adapter)
    return Parts(
        recipe=recipe,
        run=run,
        model=model,
        tokenizer=tokenizer,
        arguments=trl_arguments(recipe, run),
        train=train,
        eval=held_out,
        peft_config=peft_config,
        engine=sampler,
        strategy=way,
        seen_tokens=seen.prompt,
        sampling=sampling(recipe),
        judged=scorers,
        stack=stack,
    )


def trainer(kind: Any, parts: Parts) -> Any:
    """The trainer, constructed.

    Raises:
        Mistake: TRL refuses the settings.
    """
    try:
        return kind.build(parts)
    except (ValueError, NotImplementedError) as error:
        raise Mistake(f"trainer.args: TRL refuses these settings: {' '.join(str(error).split())}") from error
    except RuntimeError as error:
        # transformers' trackers say so when they are constructed: "... requires ... to be installed. Run ..."
        if not parts.recipe.run.report_to or "install" not in str(error):
            raise
        raise Mistake(f"run.report_to: {' '.join(str(error).split())[:240]}") from error
