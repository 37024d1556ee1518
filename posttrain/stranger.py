"""`posttrain plan --no-code`: a recipe of someone else's, shown and checked without running anything of it.

Import paths in a recipe run the code behind them, with the rights of whoever starts it. Here nothing that the recipe names
is imported, constructed, fetched or asked: what it would be is listed, so that it can be read first.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.text import Text

from posttrain import models, terminal
from posttrain.errors import Mistake
from posttrain.evaluation import BENCHMARKS
from posttrain.imports import load_object
from posttrain.recipe import Recipe
from posttrain.recipe.check import check, is_ours
from posttrain.recipe.rules import name_of
from posttrain.recipe.text import dotted

PARTS = ("rewards.", "rollouts.engines.", "rollouts.strategies.", "posttrain.trainers.", "posttrain.miniature.",
         "posttrain.evaluation.benchmarks.")  # fmt: skip
"""Modules of ours whose functions and classes are there to be named in recipes."""
_PATH = re.compile(r"(?:[\w.]+|.*\.py):[A-Za-z_][\w.]*")
_DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


@dataclass(frozen=True)
class Named:
    """Something that a run of the recipe would import, fetch, ask or write."""

    key: str
    """Where the recipe says it."""
    does: str
    """`imports`, `may import`, `fetches`, `asks`, `sends`, `reads`, `writes`."""
    what: str
    detail: str = ""


def show(loaded: Any, console: Console | None = None) -> None:
    """Check what can be checked without the recipe's code, and print all that a run of it would do besides training.

    Raises:
        Mistake: the first things that are wrong.
    """
    console = console or Console()
    recipe: Recipe = loaded.recipe
    console.rule("recipe, with every default")
    text = yaml.safe_dump(recipe.model_dump(mode="json", by_alias=True), sort_keys=False, allow_unicode=True)
    console.print(Text(terminal.clean(text.rstrip())))
    check(recipe, loaded=loaded, benchmarks=BENCHMARKS, code=False)
    if ":" not in recipe.model.name and recipe.model.name not in models.MODELS:
        models.locate(recipe.model)
    for title, found in (
        ("code that a run would import and call: read it first", [*imports(recipe)]),
        ("what a run would fetch, ask, read and write", [*reaches(recipe)]),
    ):
        console.rule(title)
        console.print(_lines(found) if found else Text("nothing"), soft_wrap=True)
    console.rule()
    console.print(
        Text(
            "Checked without importing, loading or asking anything that the recipe names; arguments of code that is not "
            "posttrain's own, data and prompts are not checked."
        )
    )


def imports(recipe: Recipe) -> Iterator[Named]:
    """All code that a run would import, posttrain's own shipped parts included."""
    for key, use in _uses(recipe):
        yield Named(key, "imports", use, _origin(use))
    held: dict[str, Any] = {
        "model.with": recipe.model.with_,
        "trainer.args": recipe.trainer.args,
        "adapter": (recipe.adapter.model_extra or {}) if recipe.adapter else {},
        **{f"rewards.{i}.with": reward.with_ for i, reward in enumerate(recipe.rewards)},
    }
    for part, setting in (("engine", recipe.rollouts.engine), ("strategy", recipe.rollouts.strategy)):
        held[f"rollouts.{part}.with"] = {} if isinstance(setting, str) else setting.with_
    for part, source in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        held[f"data.{part}.with"] = {} if source is None else source.with_
    for key, value in held.items():
        for inner, text in _texts(value):
            if _PATH.fullmatch(text) or (key == "rollouts.engine.with" and _DOTTED.fullmatch(text)):
                yield Named(f"{key}.{dotted(inner)}", "may import", text, _origin(text))
    yield from _code_of_model(recipe)


def reaches(recipe: Recipe) -> Iterator[Named]:
    """Whatever a run would fetch from, send to or write on the world outside its process."""
    model, args = recipe.model, recipe.trainer.args
    if Path(model.name).expanduser().is_dir():
        yield Named("model.name", "reads", str(Path(model.name).expanduser().resolve()))
    elif ":" not in model.name and model.name not in models.MODELS:
        yield Named("model.name", "fetches", f"{model.name} from the hub", f"revision {model.revision or 'main'}")
    for key, path in (
        ("model.chat_template", model.chat_template),
        ("adapter.start_from", recipe.adapter.start_from if recipe.adapter else None),
        *((f"data.{n}.path", s.path) for n, s in (("train", recipe.data.train), ("eval", recipe.data.eval)) if s),
        *((f"evaluation.{i}.path", one.path) for i, one in enumerate(recipe.evaluation)),
        *(
            (f"evaluation.{i}.adaptive.bank", one.adaptive.bank)
            for i, one in enumerate(recipe.evaluation)
            if one.adaptive
        ),
    ):
        if path is not None:
            there = _exists(path)
            yield Named(key, "reads", str(Path(path).expanduser()), "" if there else "not there")
    for name, source in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        if source is not None and source.hub is not None:
            yield Named(
                f"data.{name}.hub", "fetches", f"{source.hub} from the hub", f"revision {source.revision or 'main'}"
            )
    for i, one in enumerate(recipe.evaluation):
        if one.is_file and one.path is None:
            there = _exists(one.benchmark)
            yield Named(f"evaluation.{i}.benchmark", "reads", one.benchmark, "" if there else "not there")
        elif one.path is None and ":" not in one.benchmark and one.benchmark != "arithmetic":
            yield Named(f"evaluation.{i}.benchmark", "fetches", f"{one.benchmark} from the hub")
    engine = recipe.rollouts.engine
    for key, text in _texts({} if isinstance(engine, str) else engine.with_):
        if re.match(r"(?i)[a-z][a-z0-9+.-]*://", text):
            variable = engine.with_.get("api_key_env", "POSTTRAIN_VLLM_KEY") if not isinstance(engine, str) else ""
            yield Named(
                f"rollouts.engine.with.{dotted(key)}", "asks", text, f"sends it the key in {variable}, and adapters"
            )
    for i, reward in enumerate(recipe.rewards):
        yield from _judge(f"rewards.{i}.with", reward.with_)
    for tracker in recipe.run.report_to:
        yield Named("run.report_to", "sends", f"metrics to {tracker}")
    if args.get("push_to_hub"):
        yield Named(
            "trainer.args.push_to_hub", "sends", f"the model to the hub ({args.get('hub_model_id') or 'your account'})"
        )
    target = Path(recipe.run.directory) / recipe.run.name
    inside = target.resolve().is_relative_to(Path.cwd())
    yield Named("run", "writes", str(target), "" if inside else "outside the working directory")


def _judge(key: str, arguments: Mapping[str, Any]) -> Iterator[Named]:
    """Whom a rubric's judge would be, which key it would be sent, and what is kept."""
    if isinstance(rubric := arguments.get("criteria"), str):
        yield Named(f"{key}.criteria", "reads", rubric, "" if _exists(rubric) else "not there")
    judge = arguments.get("judge")
    if isinstance(judge, str):
        yield Named(f"{key}.judge", "reads", judge, "" if _exists(judge) else "not there")
        judge = _yaml(judge)
    if not isinstance(judge, Mapping):
        return
    variable = judge.get("api_key_env", "POSTTRAIN_JUDGE_KEY")
    detail = f"sends it the key in {variable} (or the file that {variable}_FILE names), prompts and answers"
    yield Named(f"{key}.judge.url", "asks", str(judge.get("url") or "https://api.openai.com/v1"), detail)
    if judge.get("cache") is not None:
        yield Named(f"{key}.judge.cache", "writes", str(judge["cache"]), "kept verdicts")


def _yaml(path: str) -> Any:
    try:
        return yaml.safe_load(Path(path).expanduser().read_bytes())
    except (OSError, ValueError, RuntimeError, RecursionError, yaml.YAMLError):
        return None


def _uses(recipe: Recipe) -> Iterator[tuple[str, str]]:
    rollouts = recipe.rollouts
    if ":" in recipe.model.name and not Path(recipe.model.name).is_dir():
        yield "model.name", recipe.model.name
    for name, source in (("train", recipe.data.train), ("eval", recipe.data.eval)):
        if source is not None and source.use is not None and ":" in source.use:
            yield f"data.{name}.use", source.use
    for i, reward in enumerate(recipe.rewards):
        yield f"rewards.{i}.use", reward.use
    for key, use in (
        ("rollouts.engine", name_of(rollouts.engine)),
        ("rollouts.strategy", name_of(rollouts.strategy)),
        ("trainer.algorithm", recipe.trainer.algorithm),
        *((f"evaluation.{i}.benchmark", one.benchmark) for i, one in enumerate(recipe.evaluation)),
    ):
        if ":" in use:
            yield key, use


def _origin(use: str) -> str:
    """Whose code an import path leads to: a file with its digest, posttrain's own, an installed package. Nothing is imported."""
    if is_ours(use):
        return _own(use)
    module = use.rpartition(":")[0] or use
    if module.endswith(".py"):
        return _file(module)
    top = module.split(".")[0]
    for beside in (Path.cwd() / f"{top}.py", Path.cwd() / top):
        if beside.exists():
            return f"{beside}, if the working directory is on Python's path"
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError, AttributeError):
        spec = None
    return "not installed" if spec is None else f"installed: {spec.origin or top}"


def _own(use: str) -> str:
    """Our modules are safe to import, but not whatever they hold is meant to be called by a recipe."""
    try:
        module = getattr(load_object(use), "__module__", None)
    except Mistake:
        return "posttrain has no such part"
    if isinstance(module, str) and module.startswith(PARTS):
        return "a part of posttrain"
    return f"reached through posttrain, but no part for recipes (it is of {module}): see what it does"


def _file(name: str) -> str:
    try:
        path = Path(name).expanduser()
        if not path.is_file():
            return "not there"
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        return f"cannot be read ({getattr(error, 'strerror', None) or error})"
    digest = hashlib.sha256(content).hexdigest()
    return f"{len(content.splitlines()):,} lines, sha256 {digest[:16]}"


def _code_of_model(recipe: Recipe) -> Iterator[Named]:
    """Code that a local model brings along and asks transformers to run. (What is on the hub is not looked at.)"""
    folder = Path(recipe.model.name).expanduser()
    if not _exists(recipe.model.name) or not folder.is_dir():
        return
    for name in ("config.json", "tokenizer_config.json", "generation_config.json"):
        try:
            found = json.loads((folder / name).read_bytes()) if (folder / name).is_file() else None
        except (OSError, ValueError, RecursionError):
            continue
        wanted = found.get("auto_map") if isinstance(found, dict) else None
        if wanted:
            named = ", ".join(text for _, text in _texts(wanted))
            yield Named("model.name", "may import", f"{folder / name}: {named}", "refused without --trust-remote-code")


def _exists(path: str) -> bool:
    try:
        return Path(path).expanduser().exists()
    except (OSError, ValueError, RuntimeError):
        return False


def _texts(value: Any, path: tuple[str | int, ...] = ()) -> Iterator[tuple[tuple[str | int, ...], str]]:
    inner: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, dict):
        inner = value.items()
    elif isinstance(value, list):
        inner = enumerate(value)
    for key, one in inner:
        yield from _texts(one, (*path, key))


def _lines(found: list[Named]) -> Text:
    """One thing a line, never broken, so that paths can be copied."""
    return Text("\n").join(
        Text.assemble(
            (terminal.line(one.key), "bold"),
            f" {one.does} {terminal.line(one.what)}",
            (f"  ({terminal.line(one.detail)})" if one.detail else "", "dim"),
        )
        for one in found
    )
