"""ATIF 1.7 written: a trajectory's steps as model calls with what they brought, ids, log-probs, metrics and rewards kept."""

from __future__ import annotations

from typing import Any

from posttrain.data.agents.atif_rows import VERSION
from posttrain.data.agents.steps import (
    Action,
    Call,
    CodeAction,
    Observation,
    SystemMessage,
    TextObservation,
    Trajectory,
)

TOOLS = {"bash": ("execute_bash", "command"), "python": ("execute_ipython_cell", "code")}
"""Language of a code action: the tool that runs it and the argument that holds the code. Other languages: `execute_code`."""
_SAME = {"sh": "bash", "shell": "bash", "py": "python", "python3": "python"}
MADE = "made_id"
"""In `extra` of a call that had no id: ATIF demands one."""


def code_call(step: CodeAction) -> tuple[str, dict[str, Any]]:
    """The tool that runs a code action, and its arguments."""
    name, argument = TOOLS.get(_SAME.get(step.language, step.language), ("execute_code", "content"))
    return name, {argument: step.content, **({"language": step.language} if name == "execute_code" else {})}


def write(trajectory: Trajectory) -> dict[str, Any]:
    """An ATIF row. What was read as ATIF comes back field by field.

    Calls without an id get one, marked in their `extra`; an observation that is linked to no call follows the call right before
    it, or is a step of the environment's own (`llm_call_count` 0).
    """
    steps: list[dict[str, Any]] = []
    turns: list[int | None] = []
    holds: dict[str, dict[str, Any]] = {}
    taken = {name for step in trajectory.content if (name := getattr(step, "tool_call_id", None)) is not None}
    unnamed: str | None = None
    before: Any = None
    for step in trajectory.content:
        kept = step.kept or {}
        rest = dict(kept.get("step") or {})
        joined = bool(steps) and step.turn is not None and step.turn == turns[-1]
        plain = isinstance(step, Call) and not (
            step.description or step.reasoning_content or step.metrics or step.reward is not None
        )
        if isinstance(step, Observation) and not _asked(step):
            call_id, home = step.tool_call_id, holds.get(step.tool_call_id or "")
            if home is None and unnamed is not None and isinstance(before, Call):
                call_id, home = unnamed, holds[unnamed]
            if home is None and joined:
                home = steps[-1]
            if home is None:
                home = {"step_id": len(steps) + 1, "source": "agent", "message": "", "llm_call_count": 0, **rest}
                steps.append(home)
                turns.append(step.turn)
            box = home.get("observation") or {}
            home["observation"] = {**box, "results": [*box.get("results", ()), _brought(step, call_id)]}
        elif isinstance(before, Call) and plain and (joined or _parallel(before, step)):
            unnamed = _add_call(steps[-1], step, holds, taken)
        else:
            unnamed = None
            made = {"step_id": len(steps) + 1, **_outer(step, rest)}
            steps.append(made)
            turns.append(step.turn)
            if isinstance(step, Call):
                unnamed = _add_call(made, step, holds, taken)
        before = step
    for step in steps:
        if isinstance(box := step.get("observation"), dict):
            box.setdefault("results", [])
    return {"schema_version": VERSION, **_top(trajectory), "steps": steps}


def _parallel(one: Any, other: Any) -> bool:
    """Two calls with nothing between them, of a format that does not number model calls, are one model call's."""
    return one.turn is None and other.turn is None and None not in (one.tool_call_id, other.tool_call_id)


def _asked(step: Observation) -> bool:
    return isinstance(step, TextObservation) and step.source == "user" and step.tool_call_id is None


def _outer(step: Any, rest: dict[str, Any]) -> dict[str, Any]:
    """An ATIF step without its calls, but for the number."""
    extra = dict(rest.pop("extra", None) or {})
    out: dict[str, Any]
    if isinstance(step, SystemMessage):
        out = {"source": "system", "message": step.content}
    elif isinstance(step, TextObservation):
        out = {"source": "user", "message": step.content}
        extra |= {"name": step.name} if step.name is not None else {}
    else:
        assert isinstance(step, Action)
        said = step.description or "" if isinstance(step, Call) else step.content
        out = {"source": "agent", "message": said}
        if not isinstance(step, Call) and step.description is not None:
            extra["description"] = step.description
        if "reasoning_content" in step.model_fields_set:
            out["reasoning_content"] = step.reasoning_content
        if step.metrics is not None:
            out["metrics"] = step.metrics.model_dump(mode="json", exclude_unset=True)
    if step.reward is not None:
        extra["reward"] = step.reward
    return {**out, **rest, **({"extra": extra} if extra else {})}


def _add_call(home: dict[str, Any], step: Any, holds: dict[str, dict[str, Any]], taken: set[str]) -> str | None:
    """Put a call into its step. Returns the id that was made for it, None if it had one."""
    extra = dict((step.kept or {}).get("call") or {})
    given = step.tool_call_id
    if given is None:
        number = next(n for n in range(1, len(taken) + 2) if f"call_{n}" not in taken)
        name = f"call_{number}"
        taken.add(name)
        extra[MADE] = True
    else:
        name = given
    if isinstance(step, CodeAction):
        function, arguments = code_call(step)
        extra |= {"adp_class": "code_action", "language": step.language}
    else:
        function, arguments = step.function, step.kwargs
    call = {"tool_call_id": name, "function_name": function, "arguments": arguments}
    if extra or "call" in (step.kept or {}):
        call["extra"] = extra
    home["tool_calls"] = [*(home.get("tool_calls") or ()), call]
    holds[name] = home
    return name if given is None else None


def _brought(step: Any, call_id: str | None) -> dict[str, Any]:
    """An observation as a result."""
    kept = dict((step.kept or {}).get("result") or {})
    extra = dict(kept.pop("extra", None) or {})
    if step.reward is not None:
        extra["reward"] = step.reward
    content: Any
    if step.class_ == "web_observation":
        content = step.axtree or step.html or ""
        names = ("html", "axtree", "url", "viewport_size", "image_observation")
        extra |= {
            "adp_class": step.class_,
            "web": step.model_dump(mode="json", exclude_unset=True, include=set(names)),
        }
    elif step.class_ == "image_observation":
        content = [{"type": "image", "source": {"path": step.content}}]
        if step.annotations is not None:
            extra["annotations"] = [one.model_dump(mode="json", exclude_unset=True) for one in step.annotations]
    else:
        content = step.content
        extra |= {"name": step.name} if step.name is not None else {}
    if getattr(step, "source", "environment") != "environment":
        extra["adp_source"] = step.source
    link = {"source_call_id": call_id} if call_id is not None else {}
    return {**link, "content": content, **kept, **({"extra": extra} if extra else {})}


def _top(trajectory: Trajectory) -> dict[str, Any]:
    """All but version and steps."""
    top = dict(trajectory.kept or {}) if trajectory.provenance.format in ("atif", "rollouts") else {}
    if not top:
        top = {"session_id": trajectory.id, "trajectory_id": trajectory.id}
        top["agent"] = {"name": trajectory.provenance.source, "version": trajectory.provenance.schema_version}
        extra = {
            f"adp_{key}": value
            for key in ("details", "available_apis", "available_custom_tools", "available_code_languages")
            if (value := getattr(trajectory, key))
        }
        extra["provenance"] = trajectory.provenance.model_dump(mode="json", exclude_none=True)
        top["extra"] = extra
    if trajectory.tools is not None:
        top["agent"] = {**top["agent"], "tool_definitions": trajectory.tools}
    return top
