"""The rows of ATIF 1.7, Harbor's Agent Trajectory Interchange Format, as pydantic models: every field, no other."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, FiniteFloat, model_validator

from posttrain.data.agents.steps import Metrics, Strict

VERSION = "ATIF-v1.7"
"""The only version that is read and written; earlier ones lack fields, later ones are not known here."""


class Image(Strict):
    media_type: str | None = None
    path: str


class Part(Strict):
    type: Literal["text", "image"]
    text: str | None = None
    source: Image | None = None
    extra: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _has_what_it_says(self) -> Part:
        if (self.text if self.type == "text" else self.source) is None:
            raise ValueError(f"a part of type {self.type} needs {'text' if self.type == 'text' else 'source'}")
        return self


Content = str | list[Part]


class ToolCall(Strict):
    tool_call_id: str
    function_name: str
    arguments: dict[str, Any] = Field(default_factory=dict)
    extra: dict[str, Any] | None = None


class Result(Strict):
    source_call_id: str | None = None
    content: Content | None = None
    subagent_trajectory_ref: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None


class Brought(Strict):
    """A step's `observation`."""

    results: list[Result] = Field(default_factory=list)
    extra: dict[str, Any] | None = None


class AtifStep(Strict):
    step_id: int
    timestamp: str | None = None
    source: Literal["system", "user", "agent"]
    message: Content = ""
    model_name: str | None = None
    reasoning_effort: str | FiniteFloat | None = None
    reasoning_content: str | None = None
    tool_calls: list[ToolCall] | None = None
    observation: Brought | None = None
    metrics: Metrics | None = None
    llm_call_count: int | None = None
    is_copied_context: bool | None = None
    extra: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _only_agents_call_and_reason(self) -> AtifStep:
        if self.source != "agent":
            for name in ("tool_calls", "reasoning_content", "reasoning_effort"):
                if getattr(self, name):
                    raise ValueError(f"{name} is for steps of the agent, and this one is the {self.source}'s")
        return self


class Agent(Strict):
    name: str
    version: str
    model_name: str | None = None
    tool_definitions: list[dict[str, Any]] | None = None
    extra: dict[str, Any] | None = None


class AtifRow(Strict):
    schema_version: Literal["ATIF-v1.7"]
    session_id: str | None = None
    trajectory_id: str | None = None
    agent: Agent
    steps: list[AtifStep] = Field(min_length=1)
    notes: str | None = None
    final_metrics: dict[str, Any] | None = None
    continued_trajectory_ref: str | None = None
    extra: dict[str, Any] | None = None
    subagent_trajectories: list[dict[str, Any]] | None = None

    @model_validator(mode="after")
    def _counted(self) -> AtifRow:
        for i, step in enumerate(self.steps, 1):
            if step.step_id != i:
                raise ValueError(
                    f"steps.{i - 1}.step_id: is {step.step_id}; steps are numbered 1, 2, ... and this is {i}"
                )
        return self


def text_of(content: Content | None) -> str:
    """What a message or result says, images by their paths."""
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text or "" if part.type == "text" else f"[image: {part.source.path}]" for part in content)
