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
from posttrain.data.agents.atif_rows import VERSION, AtifRow, AtifStep, Result, ToolCall, text_of
from posttrain.data.agents.steps import (
    Action,
    Call,
    CodeAction,
    Metrics,
    Observation,
    Provenance,
    SystemMessage,
    TextObservation,
    Trajectory,
    first_fault,
)
from posttrain.errors import Mistake

TOOLS = {"bash": ("execute_bash", "command"), "python": ("execute_ipython_cell", "code")}
"""Language of a code action: the tool that runs it and the argument that holds the code. Other languages: `execute_code`."""
_SAME = {"sh": "bash", "shell": "bash", "py": "python", "python3": "python"}
_MADE = "made_id"
"""In `extra` of a call that had no id: ATIF demands one."""


def code_call(step: CodeAction) -> tuple[str, dict[str, Any]]:
    """The tool that runs a code action, and its arguments."""
    name, argument = TOOLS.get(_SAME.get(step.language, step.language), ("execute_code", "content"))
    return name, {argument: step.content, **({"language": step.language} if name == "execute_code" else {})}


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
            if (call.extra or {}).get(_MADE):
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
    link = {} if extra.get(_MADE) else {"tool_call_id": call.tool_call_id}
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
        extra[_MADE] = True
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


def metrics(prompt_ids: list[int], completion_ids: list[int], logprobs: list[float]) -> Metrics:
    """Of one model call whose tokens are known."""
    return Metrics(
        prompt_tokens=len(prompt_ids),
        completion_tokens=len(completion_ids),
        prompt_token_ids=prompt_ids,
        completion_token_ids=completion_ids,
        logprobs=logprobs,
    )
