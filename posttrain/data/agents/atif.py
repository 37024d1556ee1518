"""ATIF 1.7 read and written: token ids, log-probs, metrics and rewards are kept.

A step of the agent is one model call: its message, the calls it made and what they brought. Here each of these is a step of its
own, with the ATIF step's number as `turn`; what ATIF says besides (timestamps, model names, extras) is `kept` for the writer.
Rewards and what only the Agent Data Protocol knows stand in `extra` under the names that the protocol's own converter uses
(`reward`, `adp_class`, `adp_source`, `language`, `web`, `description`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from posttrain.data.agents import adp
from posttrain.data.agents.atif_out import MADE, write
from posttrain.data.agents.atif_rows import VERSION, AtifRow, AtifStep, Result, ToolCall, text_of
from posttrain.data.agents.steps import Provenance, Trajectory, first_fault
from posttrain.errors import Mistake

__all__ = ["read", "write"]


def read(
    row: Mapping[str, Any], where: str, *, source: str = "atif", licence: str | None = None, filled: bool = False
) -> Trajectory:
    """One trajectory.

    Args:
        where: file and row, for messages.
        filled: it comes from a table; there, arguments and extras hold nulls of other rows, which cannot be told from its own.

    Raises:
        Mistake: another schema or version, a field that ATIF does not have, steps miscounted, links that lead nowhere.
    """
    if adp.generation(row) != "atif":
        said = (
            "ADP (it has `content`); read it as format: adp" if isinstance(row.get("content"), list) else "no ATIF row"
        )
        raise Mistake(f"{where}: this is {said}")
    if (version := row.get("schema_version")) != VERSION:
        raise Mistake(f"{where}: schema_version: {version!r}; only {VERSION} is read")
    if filled:
        raise Mistake(f"{where}: ATIF is read from .json and .jsonl; a table adds keys to arguments and extras")
    try:
        parsed = AtifRow.model_validate(dict(row))
    except ValidationError as error:
        raise Mistake(f"{where}: {first_fault(error)}") from error
    name = parsed.trajectory_id or parsed.session_id
    if name is None:
        raise Mistake(f"{where}: trajectory_id: is missing, and session_id too; the row needs a name")
    content = [step for one in parsed.steps for step in _inner(one)]
    kept = {key: value for key, value in row.items() if key not in ("steps", "schema_version")}
    kept["agent"] = {key: value for key, value in row["agent"].items() if key != "tool_definitions"}
    extra = parsed.extra or {}
    body: dict[str, Any] = {"details": dict(extra.get("adp_details") or {})}
    for key in ("available_apis", "available_custom_tools", "available_code_languages"):
        if extra.get(f"adp_{key}") is not None:
            body[key] = extra[f"adp_{key}"]
    if parsed.agent.tool_definitions is not None:
        body["tools"] = parsed.agent.tool_definitions
    provenance = Provenance(source=source, licence=licence, format="atif", schema_version=VERSION)
    try:
        return Trajectory.model_validate(
            {"id": name, "content": content, "kept": kept, "provenance": provenance, **body}
        )
    except ValidationError as error:
        raise Mistake(f"{where}: {first_fault(error)}") from error


def _inner(step: AtifStep) -> list[dict[str, Any]]:
    """Our steps of one of ATIF's, as mappings."""
    extra = step.extra or {}
    dumped = step.model_dump(mode="json", exclude_unset=True)
    known = {"step_id", "source", "message", "reasoning_content", "tool_calls", "observation", "metrics"}
    rest: dict[str, Any] = {key: value for key, value in dumped.items() if key not in known}
    if not isinstance(step.message, str) or not step.message:
        rest |= {"message": dumped["message"]} if "message" in dumped else {}
    if "tool_calls" in dumped and not dumped["tool_calls"]:
        rest["tool_calls"] = dumped["tool_calls"]
    if step.observation is not None:
        rest["observation"] = {key: value for key, value in dumped["observation"].items() if key != "results"}
    elif "observation" in dumped:
        rest["observation"] = None
    said = text_of(step.message)
    results = step.observation.results if step.observation else []
    out: list[dict[str, Any]] = []
    thinking = {
        **({"reasoning_content": step.reasoning_content} if "reasoning_content" in dumped else {}),
        **({"metrics": dumped["metrics"]} if "metrics" in dumped else {}),
        **({"reward": extra["reward"]} if _number(extra.get("reward")) else {}),
    }
    unnamed = set()
    if step.source == "system":
        out.append({"class_": "system_message", "content": said})
    elif step.source == "user":
        out.append({"class_": "text_observation", "content": said, "source": "user", **_named(extra)})
    elif step.tool_calls:
        for call in step.tool_calls:
            if (call.extra or {}).get(MADE):
                unnamed.add(call.tool_call_id)
            out.append(_call(call))
        out[0] |= {**({"description": said} if said else {}), **thinking}
    elif said or thinking or not results or step.llm_call_count:
        described = {"description": extra["description"]} if isinstance(extra.get("description"), str) else {}
        out.append({"class_": "message_action", "content": said, **described, **thinking})
    out += [_result(result, unnamed) for result in results]
    out[0]["kept"] = {**(out[0].get("kept") or {}), "step": rest}
    return [{**one, "turn": step.step_id} for one in out]


def _call(call: ToolCall) -> dict[str, Any]:
    extra = call.extra or {}
    link = {} if extra.get(MADE) else {"tool_call_id": call.tool_call_id}
    kept = {"kept": {"call": extra}} if call.extra is not None else {}
    if extra.get("adp_class") == "code_action" and isinstance(extra.get("language"), str):
        code = next((call.arguments[key] for key in ("command", "code", "content") if key in call.arguments), "")
        return {
            "class_": "code_action",
            "language": extra["language"],
            "content": code,
            "description": None,
            **link,
            **kept,
        }
    return {"class_": "api_action", "function": call.function_name, "kwargs": call.arguments, **link, **kept}


def _result(result: Result, unnamed: set[str]) -> dict[str, Any]:
    extra = result.extra or {}
    dumped = result.model_dump(mode="json", exclude_unset=True)
    link = {"tool_call_id": result.source_call_id} if result.source_call_id not in (None, *unnamed) else {}
    reward = {"reward": extra["reward"]} if _number(extra.get("reward")) else {}
    common = {**link, **reward, "kept": {"result": {k: v for k, v in dumped.items() if k != "source_call_id"}}}
    if result.source_call_id is None and "source_call_id" in dumped:
        common["kept"]["result"]["source_call_id"] = None
    source = extra.get("adp_source") if extra.get("adp_source") in ("user", "agent", "environment") else "environment"
    if isinstance(extra.get("web"), dict):
        return {"class_": "web_observation", **extra["web"], **common}
    parts = result.content
    if isinstance(parts, list) and len(parts) == 1 and parts[0].type == "image":
        marks = {"annotations": extra["annotations"]} if isinstance(extra.get("annotations"), list) else {}
        return {"class_": "image_observation", "content": parts[0].source.path, "source": source, **marks, **common}
    return {"class_": "text_observation", "content": text_of(parts), "source": source, **_named(extra), **common}


def _named(extra: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": extra["name"]} if isinstance(extra.get("name"), str) else {}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
