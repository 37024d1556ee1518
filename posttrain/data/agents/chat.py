"""A trajectory as a chat: messages, calls, and for each message whether it is trained on.

Only what the agent wrote is trained on. Two styles: `native` leaves calls to the tokenizer's template (`tool_calls`, role `tool`,
`tools`); `text` writes definitions, calls and results into system, assistant and user turns, in the form that Hermes and Qwen
models know, so that every template shows them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from posttrain.data.agents.atif_out import code_call
from posttrain.data.agents.steps import Call, CodeAction, Observation, SystemMessage, Trajectory

CODE_TOOLS = {
    "execute_bash": ("command", "Run a command in a shell."),
    "execute_ipython_cell": ("code", "Run a cell of Python."),
    "execute_code": ("content", "Run code in a language."),
}


@dataclass(frozen=True)
class Chat:
    messages: list[dict[str, Any]]
    train: list[int]
    """1 where the agent wrote the message, 0 elsewhere; as long as `messages`."""
    tools: list[dict[str, Any]]
    owner: list[int]
    """For each message, the first step that it was made of (from 0)."""


def definitions(trajectory: Trajectory, tools: Sequence[dict[str, Any]] = ()) -> list[dict[str, Any]]:
    """The row's own tools, those of its source (where the row does not define one of that name), and those that run its code."""
    out = list(trajectory.tools or [])
    own = {tool.get("function", {}).get("name") for tool in out}
    out += [tool for tool in tools if tool["function"]["name"] not in own]
    known = {tool.get("function", {}).get("name") for tool in out}
    used = dict.fromkeys(code_call(step)[0] for step in trajectory.content if isinstance(step, CodeAction))
    for name in used:
        if name not in known:
            argument, does = CODE_TOOLS[name]
            names = [argument, *(["language"] if name == "execute_code" else [])]
            parameters = {"type": "object", "properties": {n: {"type": "string"} for n in names}, "required": names}
            out.append({"type": "function", "function": {"name": name, "description": does, "parameters": parameters}})
    return out


def write(trajectory: Trajectory, tools: Sequence[dict[str, Any]] = ()) -> Chat:
    """The chat, in `native` style. `tools`: definitions that hold for its source."""
    messages: list[dict[str, Any]] = []
    train: list[int] = []
    owner: list[int] = []
    before: Any = None
    made = 0
    waiting: str | None = None
    for number, step in enumerate(trajectory.content):
        message: dict[str, Any] | None
        trained = 0
        if isinstance(step, Call):
            call_id = step.tool_call_id
            waiting = None
            if call_id is None:
                made += 1
                call_id = waiting = f"unnamed_{made}"
            name, arguments = code_call(step) if isinstance(step, CodeAction) else (step.function, step.kwargs)
            call = {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}
            same = isinstance(before, Call) and before.turn == step.turn
            if (
                same
                and None not in (before.tool_call_id, step.tool_call_id)
                and not (step.description or step.reasoning_content)
            ):
                messages[-1]["tool_calls"].append(call)
                message = None
            else:
                message = {"role": "assistant", "content": step.description or "", "tool_calls": [call]}
                trained = 1
        elif isinstance(step, Observation):
            text = seen(step)
            linked = step.tool_call_id or (waiting if isinstance(before, Call) else None)
            if linked is not None:
                message = {"role": "tool", "tool_call_id": linked, "content": text}
            else:
                message = {"role": "assistant" if getattr(step, "source", "") == "agent" else "user", "content": text}
        elif isinstance(step, SystemMessage):
            message = {"role": "system", "content": step.content}
        else:
            said = f"{step.description}\n\n{step.content}" if step.description else step.content
            message, trained = {"role": "assistant", "content": said}, 1
        if message is not None:
            if trained and step.reasoning_content:
                message["reasoning_content"] = step.reasoning_content
            messages.append(message)
            train.append(0 if _context(step) else trained)
            owner.append(number)
        before = step
    return Chat(messages, train, definitions(trajectory, tools), owner)


def _context(step: Any) -> bool:
    """The row says that this was not written in it: a flag of a chat, ATIF's `is_copied_context`."""
    kept = step.kept or {}
    return kept.get("train") == 0 or (kept.get("step") or {}).get("is_copied_context") is True


def seen(step: Any) -> str:
    """An observation as text: a page by its accessibility tree, else its source; an image by its path."""
    if step.class_ == "web_observation":
        return "\n".join(part for part in (step.url, step.axtree or step.html) if part)
    return step.content if step.class_ == "text_observation" else f"[image: {step.content}]"


def as_text(chat: Chat) -> Chat:
    """The same chat in system, user and assistant turns alone. Results that follow each other are one turn."""
    messages: list[dict[str, Any]] = []
    train: list[int] = []
    owner: list[int] = []
    system = ""
    if chat.tools:
        listed = "\n".join(json.dumps(tool, ensure_ascii=False) for tool in chat.tools)
        system = f"# Tools\n\n<tools>\n{listed}\n</tools>\n\nA call is JSON with name and arguments between <tool_call> and </tool_call>."
    for i, (message, flag) in enumerate(zip(chat.messages, chat.train, strict=True)):
        if i == 0 and system:
            first = message["role"] == "system"
            said = f"{message['content']}\n\n{system}" if first else system
            messages.append({"role": "system", "content": said})
            train.append(0)
            owner.append(chat.owner[i])
            if first:
                continue
        if message["role"] == "tool":
            said = f"<tool_response>\n{message['content']}\n</tool_response>"
            if i and chat.messages[i - 1]["role"] == "tool":
                messages[-1] = {"role": "user", "content": f"{messages[-1]['content']}\n{said}"}
                continue
            made = {"role": "user", "content": said}
        else:
            parts = [message["content"]] if message["content"] else []
            if thought := message.get("reasoning_content"):
                parts.insert(0, f"<think>\n{thought}\n</think>\n")
            for call in message.get("tool_calls", ()):
                parts.append(f"<tool_call>\n{json.dumps(call['function'], ensure_ascii=False)}\n</tool_call>")
            made = {"role": message["role"], "content": "\n".join(parts)}
        messages.append(made)
        train.append(flag)
        owner.append(chat.owner[i])
    return Chat(messages, train, [], owner)


def losses(trajectory: Trajectory) -> list[str]:
    """What a chat does not carry, in this trajectory: names, sorted. Empty = nothing that is read here is lost."""
    lost = set()
    for step in trajectory.content:
        if step.reward is not None:
            lost.add("reward")
        if getattr(step, "metrics", None) is not None:
            lost.add("metrics")
        if step.class_ in ("web_observation", "image_observation", "code_action"):
            lost.add(step.class_)
        if step.class_ == "text_observation" and (
            step.name is not None or step.source != ("user" if step.tool_call_id is None else "environment")
        ):
            lost.add("source")
        if step.class_ == "message_action" and step.description is not None:
            lost.add("description")
    lost |= {name for name in ("details",) if getattr(trajectory, name)}
    return sorted(lost)
