"""The Agent Data Protocol's `std` rows, version 1 and 1.2, read and written.

Three schemas go by that name, and they are told apart by what a row says: version 1 says no version (the paper's, and what the
hub's `std` splits hold); 1.x says `schema_version` and knows links, rewards and reasoning; the newest tree of the protocol holds
ATIF rows (`steps`), which `posttrain.data.agents.atif` reads. Fields per version as of neulab/agent-data-protocol, schema/.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import ValidationError

from posttrain.data.agents.steps import Call, Observation, Provenance, SystemMessage, Trajectory, first_fault
from posttrain.errors import Mistake

VERSIONS = ("1.0.0", "1.1.0", "1.2.0")
"""What `schema_version` may say. A row without it is version `1`."""
NEWEST = VERSIONS[-1]

Generation = Literal["adp-1", "adp-1.x", "atif", "chat"]

_FIELDS_1 = {
    "api_action": {"class_", "function", "kwargs", "description"},
    "code_action": {"class_", "language", "content", "description"},
    "message_action": {"class_", "content", "description"},
    "text_observation": {"class_", "content", "name", "source"},
    "image_observation": {"class_", "content", "annotations", "source"},
    "web_observation": {"class_", "html", "axtree", "url", "viewport_size", "image_observation"},
}
_FIELDS_2 = {
    name: fields
    | {"reward"}
    | ({"tool_call_id"} if name != "message_action" else set())
    | ({"reasoning_content"} if name.endswith("_action") else set())
    for name, fields in _FIELDS_1.items()
}
_ROW_1 = {"id", "content", "details"}
_ROW_2 = {*_ROW_1, "schema_version", "available_apis", "available_custom_tools", "available_code_languages"}


def generation(row: Mapping[str, Any]) -> Generation | None:
    """Which schema a row is of, by what it says; None = none of them."""
    if str(row.get("schema_version") or "").startswith("ATIF") or isinstance(row.get("steps"), list):
        return "atif"
    if isinstance(row.get("content"), list):
        return "adp-1.x" if row.get("schema_version") is not None else "adp-1"
    return "chat" if isinstance(row.get("messages"), list) else None


def read(
    row: Mapping[str, Any], where: str, *, source: str = "adp", licence: str | None = None, filled: bool = False
) -> Trajectory:
    """One `std` row.

    Args:
        where: file and row, for messages.
        filled: the row comes from a table (parquet, the hub), where every step has every column: nulls that the step's kind
            does not know are the table's, not the row's.

    Raises:
        Mistake: it is of another schema, or breaks its own; field and fault in one line.
    """
    kind = generation(row)
    if kind not in ("adp-1", "adp-1.x"):
        raise Mistake(f"{where}: {_other(row, kind)}")
    version = row.get("schema_version")
    if version is not None and version not in VERSIONS:
        raise Mistake(
            f"{where}: schema_version: {version!r} is none of {', '.join(VERSIONS)}, which are the ADP versions known here"
        )
    known, fields = (_ROW_1, _FIELDS_1) if version is None else (_ROW_2, _FIELDS_2)
    given = {key: value for key, value in row.items() if not (filled and value is None and key not in known)}
    for key in given:
        if key not in known:
            raise Mistake(f"{where}: {key}: no such field in ADP {version or 1}{_later(key, version, _ROW_2)}")
    content = [_step(step, i, fields, version, where, filled) for i, step in enumerate(given["content"])]
    provenance = Provenance(source=source, licence=licence, format="adp", schema_version=version or "1")
    body = {k: v for k, v in given.items() if k not in ("schema_version", "content")}
    try:
        made = Trajectory.model_validate({**body, "content": content, "provenance": provenance})
    except ValidationError as error:
        raise Mistake(f"{where}: {first_fault(error)}") from error
    if version is not None and (fault := _loose(made, version)):
        raise Mistake(f"{where}: {fault}")
    return made


def _other(row: Mapping[str, Any], kind: Generation | None) -> str:
    if kind == "atif":
        return (
            f"this is {row.get('schema_version') or 'an ATIF row'} (it has `steps`), not ADP; read it as format: atif"
        )
    if kind == "chat":
        return "this is a chat (it has `messages`), not ADP; read it as format: chat"
    if isinstance(row.get("conversations"), list):
        return (
            "this is a row of an `sft_...` split (it has `conversations`), made for one harness; take the `std` split"
        )
    return f"content: is missing, so this is no ADP row; its fields are {', '.join(map(str, row)) or 'none'}"


def _later(key: str, version: Any, fields: set[str]) -> str:
    return (
        f"; it came with 1.2, and the row says no schema_version (give it: {NEWEST})"
        if version is None and key in fields
        else ""
    )


def _step(step: Any, i: int, fields: Mapping[str, set[str]], version: Any, where: str, filled: bool) -> dict[str, Any]:
    at = f"{where}: content.{i}"
    if not isinstance(step, Mapping):
        raise Mistake(f"{at}: a step is an object, not {type(step).__name__}")
    kind = step.get("class_")
    if kind is None:
        raise Mistake(f"{at}: the step has no `class_`; it is not guessed from the other fields")
    if kind not in fields:
        # The protocol's own SCHEMA.md shows steps of a form that its schema refuses.
        hint = "; names are in lower case with underscores" if str(kind).lower() != kind else ""
        raise Mistake(f"{at}.class_: {kind!r} is none of {', '.join(sorted(fields))}{hint}")
    given = {key: value for key, value in step.items() if not (filled and value is None and key not in fields[kind])}
    for key in given:
        if key not in fields[kind]:
            raise Mistake(
                f"{at}.{key}: no such field of a {kind} in ADP {version or 1}{_later(key, version, _FIELDS_2[kind])}"
            )
    if kind == "code_action" and "description" not in given:
        raise Mistake(
            f"{at}.description: is missing; a code_action has the key always, null where there is no thought"
        )
    if given.get("source") == "user_msg":
        raise Mistake(f'{at}.source: "user_msg" is of a schema before version 1; it is "user" now')
    image = given.get("image_observation")
    if isinstance(image, Mapping):
        given["image_observation"] = _step(image, i, fields, version, f"{where} (image_observation)", filled)
    return given


def _loose(made: Trajectory, version: str) -> str | None:
    """What 1.x checks beyond the links themselves."""
    for i, step in enumerate(made.content):
        if not isinstance(step, Call):
            continue
        after = made.content[i + 1] if i + 1 < len(made.content) else None
        if step.tool_call_id is None and version == NEWEST and isinstance(after, Observation):
            return f"content.{i}.tool_call_id: is missing, and an observation follows the call"
        if step.tool_call_id is not None and not any(
            getattr(later, "tool_call_id", None) == step.tool_call_id for later in made.content[i + 1 :]
        ):
            return f'content.{i}.tool_call_id: the call "{step.tool_call_id}" has no observation'
    if made.available_code_languages is not None:
        used = {step.language for step in made.content if step.class_ == "code_action"}
        if used != set(made.available_code_languages):
            return (
                f"available_code_languages: {sorted(made.available_code_languages)} are named and {sorted(used)} are used; "
                "they must be the same"
            )
    return None


def write(trajectory: Trajectory, version: str | None = None) -> dict[str, Any]:
    """A `std` row. What was read as ADP comes back field by field, nulls and absent fields as they were.

    Of other formats the protocol has no place for token ids and log-probs, definitions of tools and the numbering of model
    calls: they are left out (`losses` names them). A system message becomes an environment's text named `system`.

    Args:
        version: one of `VERSIONS`, or `1`; absent = the row's own, and `NEWEST` for rows of other formats.

    Raises:
        Mistake: that version refuses it (rewards in version 1, calls without ids in 1.2, ...).
    """
    own = trajectory.provenance.format == "adp"
    version = version or (trajectory.provenance.schema_version if own else NEWEST)
    if version not in ("1", *VERSIONS):
        raise Mistake(f"version: {version!r} is none of 1, {', '.join(VERSIONS)}")
    fields, known = (_FIELDS_1, _ROW_1) if version == "1" else (_FIELDS_2, _ROW_2)
    answered = {getattr(step, "tool_call_id", None) for step in trajectory.content if isinstance(step, Observation)}
    content = []
    for step in trajectory.content:
        if isinstance(step, SystemMessage):
            content.append(
                {"class_": "text_observation", "content": step.content, "name": "system", "source": "environment"}
            )
            continue
        dumped = step.model_dump(mode="json", exclude_unset=True)
        kept = {key: value for key, value in dumped.items() if key in fields[step.class_]}
        if isinstance(step, Call) and step.tool_call_id is not None and step.tool_call_id not in answered:
            kept.pop("tool_call_id", None)  # a last call: the protocol links only what was answered
        if step.class_ == "code_action":
            kept.setdefault("description", None)
        content.append(kept)
    row = trajectory.model_dump(mode="json", exclude_unset=True, exclude={"content", "provenance", "kept", "tools"})
    row = {key: value for key, value in row.items() if key in known}
    made = {**({} if version == "1" else {"schema_version": version}), **row, "content": content}
    if not own or version != trajectory.provenance.schema_version:
        read(made, f"{trajectory.id} as ADP {version}")
    return made


def losses(trajectory: Trajectory) -> list[str]:
    """What `write` at `NEWEST` has no place for, in this trajectory: field names, sorted."""
    lost = set()
    for step in trajectory.content:
        if getattr(step, "metrics", None) is not None:
            lost |= {f"metrics.{name}" for name in step.metrics.model_fields_set}
        lost |= {name for name in ("turn", "kept") if getattr(step, name) is not None}
    if trajectory.tools is not None:
        lost.add("tools")
    if trajectory.kept:
        lost.add("kept")
    return sorted(lost)
