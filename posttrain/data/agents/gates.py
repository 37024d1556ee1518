"""What a trajectory must be to be trained on: calls that are calls, a question, an end. Faults are named, never mended.

The gates are those of the Agent Data Protocol's paper (syntax of calls, a thought with 80 % of them, a proper end).
"""

from __future__ import annotations

from typing import Any

from posttrain.data.agents.atif_out import code_call
from posttrain.data.agents.chat import CODE_TOOLS
from posttrain.data.agents.steps import Call, CodeAction, Observation, Trajectory

ENDS = frozenset({"finish", "submit", "final_answer", "stop", "end"})
"""Calls that end a trajectory, as a last message does."""
LEAST_THOUGHTS = 0.8


def fault(trajectory: Trajectory, tools: list[dict[str, Any]] | None = None) -> str | None:
    """Why it is not taken; None = it is. The words are few, so that they can be counted.

    Args:
        tools: definitions that hold for its source, beside its own.
    """
    content = trajectory.content
    defined = {
        tool["function"]["name"]: tool["function"].get("parameters") or {}
        for tool in [*(trajectory.tools or []), *(tools or [])]
        if isinstance(tool.get("function"), dict) and "name" in tool["function"]
    }
    if not any(isinstance(s, Observation) for s in content[: _first_action(content)]):
        return "no question before the first action"
    for i, step in enumerate(content):
        if step.class_ == "image_observation" or (step.class_ == "web_observation" and not (step.axtree or step.html)):
            return "an image and no text"
        if not isinstance(step, Call):
            continue
        name, arguments = code_call(step) if isinstance(step, CodeAction) else (step.function, step.kwargs)
        if not name or (isinstance(step, CodeAction) and not step.content.strip()):
            return "an empty call"
        if defined and name not in defined and name not in CODE_TOOLS:
            return "unknown tool"
        if set(defined.get(name, {}).get("required", ())) - set(arguments):
            return "a call without a required argument"
        last = i == len(content) - 1
        if step.tool_call_id is None and not last and not isinstance(content[i + 1], Observation):
            return "a call without an observation"
    end = content[-1] if content else None
    if end is None or not (end.class_ == "message_action" or (end.class_ == "api_action" and end.function in ENDS)):
        return "no proper end"
    return None


def _first_action(content: list[Any]) -> int:
    return next((i for i, step in enumerate(content) if step.class_.endswith("_action")), len(content))


def thoughts(trajectory: Trajectory) -> tuple[int, int]:
    """Calls with a thought (a description or reasoning that is mostly Latin letters), and all calls."""
    calls = [step for step in trajectory.content if isinstance(step, Call)]
    return sum(_latin(step.description) or _latin(step.reasoning_content) for step in calls), len(calls)


def _latin(text: str | None) -> bool:
    letters = [c for c in text or "" if c.isalpha()]
    return bool(letters) and sum(c.isascii() for c in letters) >= 0.9 * len(letters)
