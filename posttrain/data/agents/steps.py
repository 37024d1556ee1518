"""The one form that trajectories of agents are held in: steps told apart by `class_`, and calls linked to what they brought.

The step kinds and their fields are those of the Agent Data Protocol (Song et al. 2025, arXiv 2510.24702), with what other
formats add: token ids and log-probs of a model call (`metrics`), which calls one model call made (`turn`), system messages.
Nothing is guessed: a step without `class_`, a field that nobody knows and a call without its one observation are refused.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, model_validator

CONVERTER = "posttrain.data.agents/1"
"""Name and version of what read a row. The number grows when the same file would give other rows."""

Who = Literal["user", "agent", "environment"]


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True, validate_default=False)


class Metrics(Strict):
    """What one model call cost and sampled (ATIF's `metrics`). Token counts, US dollars, nats."""

    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    cached_tokens: int | None = None
    cost: FiniteFloat | None = None
    cost_usd: FiniteFloat | None = None
    prompt_token_ids: list[int] | None = None
    completion_token_ids: list[int] | None = None
    logprobs: list[Any] | None = None
    """One entry a completion token: a number, or whatever the writer's engine gave."""
    extra: dict[str, Any] | None = None

    @model_validator(mode="after")
    def _as_many_logprobs_as_tokens(self) -> Metrics:
        ids, values = self.completion_token_ids, self.logprobs
        if ids is not None and values is not None and len(ids) != len(values):
            raise ValueError(f"{len(ids)} completion_token_ids and {len(values)} logprobs; there must be one each")
        return self


class Step(Strict):
    reward: FiniteFloat | None = None
    turn: int | None = None
    """Steps of one model call and of what it brought share a number; None = nobody said."""
    kept: dict[str, Any] | None = None
    """What the format that it was read from says of it besides; only that format's writer looks at it."""


class Action(Step):
    description: str | None = None
    """The thought that goes with it."""
    reasoning_content: str | None = None
    """The model's reasoning span, without its marks."""
    metrics: Metrics | None = None


class ApiAction(Action):
    class_: Literal["api_action"]
    function: str
    kwargs: dict[str, Any]
    tool_call_id: str | None = None


class CodeAction(Action):
    class_: Literal["code_action"]
    language: str
    """A name of the protocol's list (`bash`, `python`, ...); the list itself is not enforced."""
    content: str
    tool_call_id: str | None = None


class MessageAction(Action):
    class_: Literal["message_action"]
    content: str


class Box(Strict):
    """Pixels."""

    x: FiniteFloat
    y: FiniteFloat
    width: FiniteFloat
    height: FiniteFloat


class Annotation(Strict):
    element_type: str
    bounding_box: Box
    text: str | None
    content_description: str | None = None
    clickable: bool | None = None
    editable: bool | None = None


class Observation(Step):
    tool_call_id: str | None = None
    """The call that it answers."""


class TextObservation(Observation):
    class_: Literal["text_observation"]
    content: str
    name: str | None = None
    source: Who


class ImageObservation(Observation):
    class_: Literal["image_observation"]
    content: str
    """A path or URL; pixels are never held."""
    annotations: list[Annotation] | None = None
    source: Who


class WebObservation(Observation):
    class_: Literal["web_observation"]
    html: str | None
    axtree: str | None
    url: str | None
    viewport_size: Annotated[list[int], Field(min_length=2, max_length=2)] | None
    """Width and height, pixels."""
    image_observation: ImageObservation | None


class SystemMessage(Step):
    """Instructions before the conversation. The protocol has no step for them, ATIF and chats have."""

    class_: Literal["system_message"]
    content: str


Call = ApiAction | CodeAction
AnyStep = Annotated[
    ApiAction | CodeAction | MessageAction | TextObservation | ImageObservation | WebObservation | SystemMessage,
    Field(discriminator="class_"),
]


class Provenance(Strict):
    """Where a row comes from."""

    source: str
    """Name of the data set; counts, caps and multipliers go by it."""
    licence: str | None = None
    format: Literal["adp", "atif", "chat", "rollouts"]
    schema_version: str
    """As the row says; `1` for ADP rows that say nothing."""
    converter: str = CONVERTER
    file: str | None = None
    row: int | None = None
    """Counted from 1."""


class Trajectory(Strict):
    """One run of an agent.

    Raises:
        ValidationError: a step that is none, a field that is none, an observation without its call, a call with none or two.
    """

    id: str
    content: list[AnyStep]
    details: dict[str, Any] = Field(default_factory=dict)
    tools: list[dict[str, Any]] | None = None
    """Definitions as in OpenAI's `tools`: `{"type": "function", "function": {"name", "description", "parameters"}}`."""
    available_apis: list[str] | None = None
    available_custom_tools: list[str] | None = None
    available_code_languages: list[str] | None = None
    kept: dict[str, Any] | None = None
    """Top-level fields of the format that it was read from, for that format's writer."""
    provenance: Provenance

    @model_validator(mode="after")
    def _linked(self) -> Trajectory:
        if fault := unlinked(self.content):
            raise ValueError(fault)
        return self


def unlinked(content: list[Any]) -> str | None:
    """What is wrong with the links between calls and observations, with the place (`content.3`, from 0); None = nothing.

    Each observation's `tool_call_id` is that of one call before it, each call's that of one observation after it. A call with
    which the trajectory ends (it finishes, or was cut off there) may lack its observation.
    """
    called: dict[str, int] = {}
    answered: dict[str, int] = {}
    last = max((i for i, step in enumerate(content) if not isinstance(step, Call)), default=-1)
    for i, step in enumerate(content):
        name = getattr(step, "tool_call_id", None)
        if name is None:
            continue
        if isinstance(step, Call):
            if name in called:
                return f'content.{i}.tool_call_id: "{name}" is that of content.{called[name]} too'
            called[name] = i
        elif name not in called:
            return f'content.{i}.tool_call_id: no call before it has the id "{name}"'
        elif name in answered:
            return f'content.{i}.tool_call_id: content.{answered[name]} answers the call "{name}" already'
        else:
            answered[name] = i
    for name, i in called.items():
        if name not in answered and i < last:
            return f'content.{i}.tool_call_id: the call "{name}" has no observation'
    return None


def first_fault(error: ValidationError) -> str:
    """The first thing that is wrong, in one line: field, fault, and how many more there are."""
    faults = error.errors(include_url=False)
    one = faults[0]
    kinds = {"api_action", "code_action", "message_action", "text_observation", "image_observation", "web_observation"}
    place = ".".join(str(part) for part in one["loc"] if part not in {*kinds, "system_message"})
    given = one.get("input")
    what = {
        "extra_forbidden": "no such field",
        "missing": "is missing",
        "union_tag_not_found": "the step has no `class_`; it is not guessed from the other fields",
        "union_tag_invalid": f"class_ {given.get('class_') if isinstance(given, dict) else given!r} is none of "
        f"{', '.join(sorted(kinds))}",
    }.get(one["type"], one["msg"].removeprefix("Value error, "))
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{f'{place}: ' if place else ''}{what}{more}"
