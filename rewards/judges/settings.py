"""What can be set of a judge."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from pathlib import Path
from typing import Any, Literal, get_args, get_type_hints
from urllib.parse import urlsplit

from rewards import strict

OWN = {
    "model": "model",
    "messages": "",
    "stream": "",
    "n": "votes",
    "seed": "seed (null = not sent)",
    "response_format": "structured",
    "temperature": "temperature",
    "top_p": "top_p",
    "max_tokens": "max_tokens",
}
"""Fields of a request that `extra` may not set, and the setting that does. Those that share its name may be left out by null."""


@dataclass(frozen=True, slots=True)
class JudgeSettings:
    """A judge behind an OpenAI-compatible endpoint. All defaults are ours but where said.

    Raises:
        ValueError: a value that cannot be; one line that names the setting.
    """

    model: str
    """The model's name at the endpoint."""
    url: str | None = None
    """Base URL, ending in `/v1`; None = OpenAI's."""
    api_key_env: str = "POSTTRAIN_JUDGE_KEY"
    """Environment variable with the key; the variable of that name and `_FILE` may name a file instead."""
    mode: Literal["criterion", "response"] = "criterion"
    """One request a criterion (HealthBench, the paper), or all criteria of a response numbered in one (a later state of the code)."""
    votes: int = 1
    """Verdicts a criterion, an odd number; the majority of them counts."""
    show_points: bool = False
    """Write a criterion's points before it, as HealthBench does and the released code does not."""
    keep_system: bool = True
    """Show the judge the conversation's system turns, as HealthBench does and the released code does not."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = 0
    """Of the first vote and attempt; the others count on from it. None = not sent."""
    max_tokens: int = 1024
    structured: Literal["json_schema", "json_object", "none"] = "json_schema"
    """What the endpoint is asked to enforce."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Further fields of the request's body, say `chat_template_kwargs: {enable_thinking: false}`. Null leaves out what is sent otherwise:
    `{max_tokens: null, max_completion_tokens: 1024}` for models that take only the latter."""
    concurrency: int = 32
    """Requests on their way at once, of one process."""
    requests_per_minute: float | None = None
    """Of the whole run; each of WORLD_SIZE processes keeps to its share."""
    tokens_per_minute: float | None = None
    """Prompt and answer tokens, likewise."""
    timeout: float = 60.0
    """Seconds of one request."""
    retries: int = 10
    """Further tries of a request that met 429, 5xx, 408, 409, a time-out or a broken connection."""
    patience: float = 120.0
    """Seconds without any answer that is of use (nothing, 5xx, 429) after which the judge counts as lost: then one request looks for
    it, once, and the others wait for what it finds; if that is nothing, all fail."""
    attempts: int = 3
    """Answers asked for until one can be read."""
    cache: str | None = None
    """SQLite file with the verdicts so far; None = none is kept. On a disk of this machine, not on NFS."""

    def __post_init__(self) -> None:
        hints = get_type_hints(type(self))
        for one in dataclasses.fields(self):
            value, hint = getattr(self, one.name), hints[one.name]
            if choices := [c for c in get_args(hint) if isinstance(c, str)]:
                if value not in choices:
                    raise ValueError(f"{one.name} should be one of {', '.join(choices)}, not {value!r}")
            elif not _fits(value, hint):
                raise ValueError(f"{one.name} should be {_WORDS[hint]}, not {value!r:.60}")
        for name in ("votes", "max_tokens", "concurrency", "attempts"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} should be 1 or more, not {getattr(self, name)}")
        for name in ("timeout", "patience", "requests_per_minute", "tokens_per_minute"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise ValueError(f"{name} should be above 0, not {value}")
        if self.retries < 0 or self.temperature < 0 or not 0 < self.top_p <= 1:
            raise ValueError("retries and temperature should be 0 or more, top_p above 0 and at most 1")
        if self.votes % 2 == 0:
            raise ValueError(f"votes should be odd, so that there is a majority, not {self.votes}")
        if self.votes > 1 and self.temperature == 0:
            raise ValueError(f"{self.votes} votes at temperature 0 are one vote; raise temperature, or set votes: 1")
        if not self.model.strip():
            raise ValueError("model should name the judge's model")
        if not re.fullmatch(r"[A-Za-z_]\w*", self.api_key_env, re.ASCII):
            # Not shown: it may be the key itself.
            raise ValueError("api_key_env should be the name of an environment variable (what it is now is not shown)")
        _sendable(self.extra)
        if self.url is not None:
            _reachable(self.url, self.api_key_env)

    @property
    def given_up(self) -> float:
        """Seconds that one call takes at most until a judge that never answers is given up: some requests are on their way when it
        begins to count as lost, and others when `patience` ends."""
        return 2 * self.timeout + self.patience

    def sampling(self) -> dict[str, Any]:
        """What an answer is drawn with: part of the cache's key."""
        names = ("temperature", "top_p", "max_tokens", "structured")
        return {**{name: getattr(self, name) for name in names}, "extra": dict(self.extra)}


def read(value: Mapping[str, Any] | str | Path | JudgeSettings) -> JudgeSettings:
    """Settings from a mapping, or from a YAML file with one.

    Raises:
        ValueError: one line that begins with `judge`.
    """
    if isinstance(value, JudgeSettings):
        return value
    value = mapping(value)
    names = [one.name for one in dataclasses.fields(JudgeSettings)]
    if unknown := [str(key) for key in value if key not in names]:
        raise ValueError(f"judge: unknown {', '.join(unknown)}; known are {', '.join(names)}")
    if "model" not in value:
        raise ValueError("judge: model is missing; name the judge's model")
    try:
        return JudgeSettings(**value)
    except ValueError as error:
        raise ValueError(f"judge: {error}") from error


def mapping(value: Mapping[str, Any] | str | Path) -> Mapping[str, Any]:
    """The mapping that a YAML file holds; one that is no file is given back.

    Raises:
        ValueError: one line that begins with `judge`.
    """
    if isinstance(value, (str, Path)):
        import yaml

        file = Path(value).expanduser()
        try:
            value = strict.from_yaml(file.read_text(encoding="utf-8"))
        except OSError as error:
            raise ValueError(f"judge: {file} cannot be read: {error.strerror}") from error
        except (UnicodeDecodeError, yaml.YAMLError, RecursionError) as error:
            raise ValueError(f"judge: {file} is not YAML: {' '.join(str(error).split())[:200]}") from error
        variable = value.get("api_key_env", "POSTTRAIN_") if isinstance(value, Mapping) else "POSTTRAIN_"
        if not str(variable).startswith("POSTTRAIN_"):
            # As in a recipe: what it holds is sent to whom the file names, so a file does not choose among all variables.
            raise ValueError(f"judge: {file}: api_key_env should begin with POSTTRAIN_, not {variable!r:.60}")
    if not isinstance(value, Mapping):
        raise ValueError(f"judge: should be a mapping with model and url, not {type(value).__name__}")
    return value


def _reachable(url: str, variable: str) -> None:
    if "@" in url.rpartition("://")[2].partition("/")[0]:
        # It would be in the recipe, the run's folder and on the page; here, too, it is not shown.
        raise ValueError(f"url should hold no user or password; put the key into {variable}")
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"url should begin with http:// or https://, not {url!r:.80}")
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"url {url!r:.80} cannot be read: {error}") from error
    if not host or any(c.isspace() for c in url):
        raise ValueError(f"url {url!r:.80} names no host; write it as http://HOST:PORT/v1")


def _sendable(extra: Mapping[str, Any]) -> None:
    for name, value in extra.items():
        own = OWN.get(name)
        if own is not None and not (value is None and own == name):
            raise ValueError(f"extra.{name} is not for extra" + (f"; set {own}" if own else ""))
    try:
        json.dumps(dict(extra), allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise ValueError(f"extra cannot be sent as JSON: {error}") from error


_WORDS: dict[Any, str] = {
    str: "text",
    str | None: "text",
    bool: "true or false",
    int: "a whole number",
    int | None: "a whole number",
    float: "a number",
    float | None: "a number",
    Mapping[str, Any]: "a mapping",
}


def _fits(value: Any, hint: Any) -> bool:
    kinds = get_args(hint) if hint not in (Mapping[str, Any],) and get_args(hint) else (hint,)
    if value is None:
        return type(None) in kinds
    if isinstance(value, bool):
        return bool in kinds
    if float in kinds:
        return isinstance(value, (int, float)) and isfinite(value)
    if Mapping[str, Any] in kinds:
        return isinstance(value, Mapping)
    return isinstance(value, tuple(kinds))
