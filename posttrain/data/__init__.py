"""Rows: from a hub data set, a file or a function to the data set that a trainer reads."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from posttrain.data.sources import SOURCES
from posttrain.errors import Mistake

if TYPE_CHECKING:
    from datasets import Dataset

    from posttrain.recipe.schema import Source

__all__ = ["SOURCES", "load_rows"]


def load_rows(
    source: Source,
    tokenizer: Any = None,
    *,
    max_prompt_tokens: int | None = None,
    where: str = "data.train",
    template_args: Mapping[str, Any] | None = None,
) -> tuple[Dataset, dict[str, int]]:
    """The rows of a source, ready for a trainer. The same settings and the same source give the same rows.

    Columns: `row_id` (text), `prompt` (messages, or text with `chat: false`), where the source has them `completion`,
    `chosen` and `rejected` (messages or text, as the prompt), and every other column of the source. They are held in
    memory; neither the source nor the settings of `datasets` are touched.

    Args:
        tokenizer: absent = lengths are not checked.
        max_prompt_tokens: longest prompt as the policy sees it; absent = any.
        where: key of the source in the recipe, for messages.
        template_args: keyword arguments of the chat template.

    Returns:
        The rows, and counts: `read`, `dropped`, `cut`, `kept`.

    Raises:
        Mistake: one line that names the key, and the row or line where there is one.
    """
    from posttrain.data import filters, prompts, sources

    shaper = prompts.Shaper(source, where)
    name, raw = sources.read(source, where)
    named = prompts.name_rows(raw, name, where)
    renamed = prompts.rename(raw, source.columns, where)
    if "row_id" in source.columns:
        named = prompts.name_rows(renamed, name, where)
    rows = [
        shaper.shape(row, row_id, number) for number, (row, row_id) in enumerate(zip(renamed, named, strict=True), 1)
    ]
    counts = {"read": len(rows), "dropped": 0, "cut": 0}
    if tokenizer is not None and max_prompt_tokens is not None:
        rows, fitted = filters.fit(rows, tokenizer, max_prompt_tokens, source.overlong, where, template_args)
        counts.update(fitted)
    counts["kept"] = len(rows)
    return _table(rows, where), counts


def _table(rows: list[dict[str, Any]], where: str) -> Dataset:
    """An in-memory data set; rows that lack a column have null there."""
    import pyarrow
    from datasets import Dataset

    names = list(dict.fromkeys(name for row in rows for name in row))
    columns: dict[str, list[Any]] = {name: [row.get(name) for row in rows] for name in names}
    # Arrow would give every call the arguments of all others, and every check the keys of all others, as nulls, and refuses a
    # check that is a text here and a list there: such columns are kept as JSON.
    free = [name for name, values in columns.items() if any(map(_has_forms, values))]
    try:
        if not free:
            return Dataset.from_dict(columns)
        from datasets import Features, Json, List

        if any(not isinstance(value, list | None) for name in free for value in columns[name]):
            raise TypeError("a list of JSON would take a text apart")
        known = Dataset.from_dict({name: values for name, values in columns.items() if name not in free}).features
        return Dataset.from_dict(columns, features=Features({n: known.get(n, List(Json())) for n in names}))
    except (pyarrow.ArrowException, TypeError, ValueError, OverflowError) as error:
        for name, values in columns.items():
            kinds: dict[str, int] = {}
            for number, value in enumerate(values, 1):
                if value is not None:
                    kinds.setdefault(type(value).__name__, number)
            if len(kinds) > 1:
                told = ", ".join(f"{kind} (row {number})" for kind, number in kinds.items())
                raise Mistake(f'{where}: column "{name}" holds different kinds of values: {told}') from error
        text = " ".join(str(error).split())[:240]
        raise Mistake(f"{where}: the rows do not make a table: {text}") from error


def _has_forms(value: Any) -> bool:
    """True for what holds mappings of no one form: messages with calls of tools, definitions of tools, and rubrics."""
    entries = value if isinstance(value, list) else []
    return any(
        isinstance(one, dict) and ("tool_calls" in one or "criterion" in one or one.get("type") == "function")
        for one in entries
    )
