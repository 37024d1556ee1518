"""OpenAI-style rows read: `messages`, `tools`, and for each message of the assistant whether it is trained on.

The flag is `train` (true or false) or OpenAI's `weight` (1 or 0); without one, what the assistant says is trained on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from posttrain.data.agents.steps import Provenance, Trajectory, first_fault
from posttrain.errors import Mistake

_KNOWN = {
    "system": {"content", "name"},
    "developer": {"content", "name"},
    "user": {"content", "name"},
    "assistant": {"content", "name", "tool_calls", "reasoning_content", "train", "weight"},
    "tool": {"content", "name", "tool_call_id"},
}


def read(
    row: Mapping[str, Any], where: str, *, source: str = "chat", licence: str | None = None, filled: bool = False
) -> Trajectory:
    """One chat. Its name is its `id`, else the last part of `where` (`row 3`).

    Raises:
        Mistake: a role, key or content that is none, arguments that are no JSON object, calls and results that do not match.
    """
    messages = row.get("messages")
    if not isinstance(messages, list) or not messages:
        raise Mistake(f"{where}: messages: is missing or empty")
    if filled:
        raise Mistake(f"{where}: chats are read from .json and .jsonl; a table adds keys to the arguments of calls")
    if odd := set(row) - {"messages", "tools", "id"}:
        raise Mistake(f"{where}: {min(odd)}: no such field of a chat; they are id, messages, tools")
    content: list[dict[str, Any]] = []
    for i, message in enumerate(messages):
        content += _steps(message, i, f"{where}: messages.{i}")
    body = {"tools": row["tools"]} if row.get("tools") is not None else {}
    origin = Provenance(source=source, licence=licence, format="chat", schema_version="openai")
    try:
        return Trajectory.model_validate(
            {"id": str(row.get("id") or where.rsplit(", ", 1)[-1]), "content": content, "provenance": origin, **body}
        )
    except ValidationError as error:
        raise Mistake(f"{where}: {first_fault(error)}") from error


def _steps(message: Any, number: int, at: str) -> list[dict[str, Any]]:
    if not isinstance(message, Mapping) or message.get("role") not in _KNOWN:
        given = message.get("role") if isinstance(message, Mapping) else type(message).__name__
        raise Mistake(f"{at}.role: {given!r} is none of {', '.join(_KNOWN)}")
    role = message["role"]
    given = {key: value for key, value in message.items() if value is not None and key != "role"}
    for key in given:
        if key not in _KNOWN[role]:
            raise Mistake(f"{at}.{key}: no such field of a message of role {role}")
    text = _text(given.get("content", ""), at)
    named = {"name": given["name"]} if "name" in given else {}
    if role in ("system", "developer"):
        return [{"class_": "system_message", "content": text}]
    if role == "user":
        return [{"class_": "text_observation", "content": text, "source": "user", **named}]
    if role == "tool":
        if "tool_call_id" not in given:
            raise Mistake(f"{at}.tool_call_id: is missing")
        link = {"tool_call_id": given["tool_call_id"]}
        return [{"class_": "text_observation", "content": text, "source": "environment", **named, **link}]
    flag = given.get("train", given.get("weight", 1))
    if flag not in (0, 1):
        raise Mistake(f"{at}.train: {flag!r} is neither 0 nor 1")
    common = {
        **({"reasoning_content": given["reasoning_content"]} if "reasoning_content" in given else {}),
        **({"kept": {"train": 0}} if not flag else {}),
    }
    if not given.get("tool_calls"):
        return [{"class_": "message_action", "content": text, "turn": number, **common}]
    out = [_call(call, f"{at}.tool_calls.{i}", number) for i, call in enumerate(given["tool_calls"])]
    out[0] |= {**({"description": text} if text else {}), **common}
    return out


def _call(call: Any, at: str, number: int) -> dict[str, Any]:
    function = call.get("function") if isinstance(call, Mapping) else None
    if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
        raise Mistake(f"{at}.function.name: is missing")
    arguments = function.get("arguments", {})
    if isinstance(arguments, str):
        try:
            arguments = json.loads(arguments or "{}")
        except (ValueError, RecursionError) as error:
            raise Mistake(f"{at}.function.arguments: not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise Mistake(f"{at}.function.arguments: must be an object")
    link = {"tool_call_id": call["id"]} if call.get("id") is not None else {}
    return {"class_": "api_action", "function": function["name"], "kwargs": arguments, "turn": number, **link}


def _text(content: Any, at: str) -> str:
    if isinstance(content, str):
        return content
    if isinstance(content, list) and all(isinstance(p, Mapping) and p.get("type") == "text" for p in content):
        return "\n".join(str(part.get("text", "")) for part in content)
    raise Mistake(f"{at}.content: must be text or a list of text parts")
