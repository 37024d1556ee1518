"""HealthBench's rows as training data: its published JSONL, or the layout of verl (parquet, JSON or JSONL).

    train: {use: "posttrain.data.healthbench:rows", with: {path: healthbench.jsonl, part: train}}

Nothing is downloaded. The split is by the rows' names and ours: it is not the one of 4500 and 500 rows that RuscaRL released.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Literal, get_args

from posttrain.data import sources
from posttrain.errors import Mistake
from rewards.criteria import Criterion, reading

Part = Literal["all", "train", "held_out"]
ROLES = ("system", "developer", "user", "assistant")


def rows(path: str, part: Part = "all", held_out: int = 500, code_in_data: bool = False) -> list[dict[str, Any]]:
    """Rows with `row_id` (the prompt's id, where there is one), `prompt` (messages as stored, ending with a user turn) and
    `rubric` (a list of `{criterion, points, tags, check?}`; rules in tags become texts, which `rewards.criteria.reading` reads alike).

    Args:
        path: `.jsonl`, `.json` or `.parquet`.
        part: `held_out` = those `held_out` rows whose names have the smallest hashes, `train` = the others.
        held_out: how many rows are held out.
        code_in_data: take checks that name code to run (`use`); the reward has to allow it, too.

    Raises:
        Mistake: no such file; a row without usable messages or rubric (it is named); two of one
            name; too few rows to hold out; a part without names.
    """
    if part not in get_args(Part):
        raise Mistake(f"part should be one of {', '.join(get_args(Part))}, not {part!r}")
    if isinstance(held_out, bool) or not isinstance(held_out, int) or held_out < 1:
        raise Mistake(f"held_out should be a whole number from 1 on, not {held_out!r}")
    if not isinstance(code_in_data, bool):
        raise Mistake(f"code_in_data should be true or false, not {code_in_data!r}")
    stored = sources.from_file(Path(path), "path")
    found = [_row(raw, f"{path}, row {number}", code_in_data) for number, raw in enumerate(stored, 1)]
    seen: dict[str, int] = {}
    for number, row in enumerate(found, 1):
        # Both would fall on one side of the split, and the count that is held out would be off.
        first = seen.setdefault(row.get("row_id", f"\0{number}"), number)
        if first != number:
            raise Mistake(
                f"{path}, rows {first} and {number} have the same prompt_id {row['row_id']!r}; leave one out"
            )
    if part == "all":
        return found
    if nameless := next((n for n, row in enumerate(found, 1) if "row_id" not in row), None):
        raise Mistake(f"{path}, row {nameless} has no prompt_id, by which rows are held out; set part: all")
    if held_out >= len(found):
        raise Mistake(f"{path} has {len(found)} rows, so {held_out} cannot be held out; lower held_out")
    order = sorted(
        found, key=lambda row: hashlib.blake2b(row["row_id"].encode("utf-8", "surrogatepass"), digest_size=8).digest()
    )
    chosen = {row["row_id"] for row in order[:held_out]}
    return [row for row in found if (row["row_id"] in chosen) == (part == "held_out")]


def _row(raw: Mapping[str, Any], where: str, code: bool) -> dict[str, Any]:
    extra = raw.get("extra_info")
    extra = extra if isinstance(extra, Mapping) else {}
    names = (str(n).strip() for n in (raw.get("prompt_id"), extra.get("prompt_id")) if n is not None)
    name = next((n for n in names if n), None)
    where = f"{where} ({name})" if name else where
    try:
        stored = reading.healthbench(raw, where)
        criteria = reading.rubric(stored, where, code=code)
    except ValueError as error:
        raise Mistake(str(error)) from error
    prompt = raw.get("prompt")
    row = {
        "prompt": _messages(extra.get("prompt") if prompt is None else prompt, where),
        "rubric": [_item(c, given) for c, given in zip(criteria, stored, strict=True)],
    }
    return {"row_id": name, **row} if name else row


def _item(criterion: Criterion, given: Mapping[str, Any]) -> dict[str, Any]:
    item = {"criterion": criterion.text, "points": criterion.points, "tags": list(criterion.tags)}
    check = given.get("check")
    # As text, so that checks of different kinds make one table.
    return item if check is None else {**item, "check": check if isinstance(check, str) else json.dumps(check)}


def _messages(value: Any, where: str) -> list[dict[str, str]]:
    if isinstance(value, (str, bytes, Mapping)) or not isinstance(value, Iterable):
        raise Mistake(f"{where}: prompt should be a list of messages, not {type(value).__name__}")
    messages = []
    for number, turn in enumerate(value, 1):
        role, content = (turn.get("role"), turn.get("content")) if isinstance(turn, Mapping) else (None, None)
        if role not in ROLES or not isinstance(content, str):
            raise Mistake(f"{where}: message {number} should have a role of {', '.join(ROLES)} and a text as content")
        messages.append({"role": role, "content": content})
    if not messages or messages[-1]["role"] != "user":
        raise Mistake(f"{where}: the prompt should end with a user turn")
    return messages
