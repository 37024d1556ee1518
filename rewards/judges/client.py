"""One endpoint, asked patiently: retries with jitter, and one probe for all while it is lost. Bound to its event loop."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from rewards.completions import text_of
from rewards.judges import key as keys
from rewards.judges.limits import Limits
from rewards.judges.settings import JudgeSettings

FIRST, LONGEST = 0.5, 15.0
"""Seconds before the second try, and the most between two."""
ASKED_FOR = 60.0
"""The most that an endpoint's own `Retry-After` is heeded, in seconds."""
AGAIN = (408, 409, 429)
"""Status codes below 500 that are tried again."""
NEVER = (401, 403, 404)
"""Status codes that no request of this judge will ever get past."""
LOCAL = ("localhost", "127.0.0.1", "::1")


@dataclass(slots=True)
class Counts:
    """What was asked, and what came of it. `seconds` is wall time."""

    questions: int = 0
    calls: int = 0
    """Requests, with those that were tried again."""
    cached: int = 0
    failed: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add(self, other: Counts) -> None:
        for field in dataclasses.fields(self):
            setattr(self, field.name, getattr(self, field.name) + getattr(other, field.name))


class JudgeError(ValueError):
    """The judge cannot be used at all: its key is refused, there is no such model. One line."""


class Silent(Exception):
    """No answer to one request, after all tries; why."""


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, and the tokens of prompt and answer together."""

    text: str
    tokens: int
    """As the endpoint counts them; guessed where it does not."""
    whole: bool
    """False if it was cut at `max_tokens`."""
    silent: str = ""
    """Why there is no text, if that is known."""


class Client:
    """The official asynchronous client, its own retries off: ours are counted, share limits, and know when all fail.

    Raises:
        ValueError: the key cannot be read, or the client is not installed.
    """

    def __init__(self, settings: JudgeSettings):
        try:
            import openai
        except ImportError as error:
            raise ValueError(f"judge: the openai package is missing ({error}); pip install openai") from error
        self.settings = settings
        self._openai = openai
        self._key = keys.read(settings.api_key_env)
        if self._key is None and settings.url is None:
            raise ValueError(f"judge: OpenAI's endpoint needs a key; put it into {settings.api_key_env}, or set url")
        # A proxy that the environment names has no business between this machine and itself.
        local = settings.url is not None and urlsplit(settings.url).hostname in LOCAL
        self._client = openai.AsyncOpenAI(
            base_url=settings.url or "https://api.openai.com/v1",
            api_key=self._key or "none",
            timeout=settings.timeout,
            max_retries=0,
            http_client=openai.DefaultAsyncHttpxClient(trust_env=False) if local else None,
        )
        if settings.url is not None:
            # What the environment says of an account at OpenAI is no business of another endpoint.
            self._client.organization = self._client.project = None
        who = (settings.url, settings.model)
        self._limits = Limits(settings.concurrency, settings.requests_per_minute, settings.tokens_per_minute, who)
        self._lost_since: float | None = None
        self._last = ""
        """What it did instead of answering."""
        self._probe: asyncio.Event | None = None
        """While one request looks for it: set as soon as that is over, or another is answered."""
        self._looked = float("-inf")
        """When it was last looked for."""

    async def ask(self, prompt: str, schema: dict[str, Any], seed: int | None, counts: Counts) -> Reply:
        """One answer; requests and tokens are added to `counts`.

        Raises:
            Silent: none came, and trying again is of no use or was tried enough.
            JudgeError: nor will there ever be one.
        """
        # A guess, corrected by what the endpoint counts.
        guess = _guessed(prompt) + self.settings.max_tokens
        why, pause = "", 0.0
        for attempt in range(self.settings.retries + 1):
            await asyncio.sleep(pause)
            async with self._limits.request(guess, self._given_up) as took:
                with self._looking():
                    counts.calls += 1
                    found = await self._once(prompt, schema, seed)
                took.append(found.tokens if isinstance(found, Reply) else 0)
            if isinstance(found, Reply):
                counts.tokens += found.tokens
                return found
            why, asked = found
            if self._lost:  # one that looks for it does so once: its tries would hold up the whole batch
                raise Silent(self._silence())
            # Not sooner than by itself: one that asks for 0 s would have used up all tries in a moment.
            pause = max(asked or 0.0, self._backoff(attempt))
        raise Silent(f"{why}; tried {self.settings.retries + 1} times")

    async def close(self) -> None:
        await self._client.close()

    @staticmethod
    def _backoff(attempt: int) -> float:
        return min(LONGEST, FIRST * 2**attempt) * random.uniform(0.5, 1.0)

    @property
    def _lost(self) -> bool:
        return self._lost_since is not None and time.monotonic() - self._lost_since > self.settings.patience

    def _silence(self) -> str:
        return f"the judge has not answered for {self.settings.patience:g} s ({self._last})"

    async def _given_up(self) -> None:
        """While the endpoint is lost one request looks for it, and those that wait for what it finds share its fate: an endpoint that
        is back costs none of them, one that is not costs all of them one time limit."""
        if not self._lost:
            return
        if (probe := self._probe) is not None:
            await probe.wait()
        # Not right after one that found nothing, either: those that wait for their turn would each look, and each be waited for.
        if self._lost and (probe is not None or time.monotonic() - self._looked < FIRST):
            raise Silent(self._silence())

    @contextlib.contextmanager
    def _looking(self) -> Iterator[None]:
        """Around a request: if the endpoint is lost, this one looks for it."""
        if not self._lost:
            yield
            return
        self._probe = probe = asyncio.Event()
        try:
            yield
        finally:
            self._probe, self._looked = None, time.monotonic()
            probe.set()

    def _answered(self) -> None:
        self._lost_since = None
        if self._probe is not None:
            self._probe.set()

    async def _once(self, prompt: str, schema: dict[str, Any], seed: int | None) -> Reply | tuple[str, float | None]:
        """An answer, or why there is none yet and how long the endpoint wants to be left alone."""
        openai, settings = self._openai, self.settings
        fields = {
            "temperature": settings.temperature,
            "top_p": settings.top_p,
            "max_tokens": settings.max_tokens,
            **({} if seed is None else {"seed": seed}),
            **_format(settings.structured, schema),
        }
        try:
            # The client's time-out is for each read; an endpoint that sends a byte now and then would pass it.
            async with asyncio.timeout(settings.timeout):
                answer = await self._client.chat.completions.create(
                    model=settings.model,
                    # A lone surrogate cannot be sent: a response with one must not go without a verdict.
                    messages=[{"role": "user", "content": prompt.encode("utf-8", "replace").decode()}],
                    **{name: value for name, value in fields.items() if name not in settings.extra},
                    extra_body={name: value for name, value in settings.extra.items() if value is not None} or None,
                )
        except (TimeoutError, openai.APITimeoutError):
            return self._missed(f"no answer within {settings.timeout:g} s"), None
        except openai.APIConnectionError as error:
            return self._missed(f"cannot be reached: {self._line(error.__cause__ or error)}"), None
        except openai.APIStatusError as error:
            code = error.status_code
            said = f"status {code}: {self._line(error)}"
            if code in NEVER:
                key = f"; is the key in {settings.api_key_env} right?" if code != 404 else "; are url and model right?"
                raise JudgeError(f"judge {settings.model}: {said}{key}") from error
            if code < 500 and code not in AGAIN:
                self._answered()
                raise Silent(said) from error
            # 429 without end (nothing left to spend) is as good as no answer; one that passes is followed by answers.
            return self._missed(said), _retry_after(error)
        except openai.OpenAIError as error:  # an answer that is no answer of this interface
            return self._missed(self._line(error)), None
        except ValueError as error:  # not JSON
            return self._missed(f"not an answer of this interface: {self._line(error)}"), None
        try:
            choice = answer.choices[0]
            content, reason = text_of({"content": choice.message.content}), choice.finish_reason
        except (AttributeError, TypeError, IndexError):
            said = getattr(answer, "error", None)  # some gateways send their errors with status 200
            return self._missed(self._plain(f"the answer has no choices{f': {said}' if said else ''}")), None
        self._answered()
        used = getattr(getattr(answer, "usage", None), "total_tokens", None)
        tokens = used if isinstance(used, int) and used > 0 else _guessed(prompt) + _guessed(content)
        return Reply(content, tokens, reason != "length", "" if content else self._no_text(choice))

    def _no_text(self, choice: Any) -> str:
        refusal = getattr(choice.message, "refusal", None)
        if refusal or choice.finish_reason == "content_filter":
            return self._plain(f"the judge refused: {refusal or 'content filter'}")
        thought = any(getattr(choice.message, name, None) for name in ("reasoning", "reasoning_content"))
        return "the answer is empty" + (" behind its reasoning" if thought else "")

    def _missed(self, why: str) -> str:
        if self._lost_since is None:
            self._lost_since = time.monotonic()
        self._last = why
        return why

    def _line(self, error: BaseException) -> str:
        return self._plain(str(error) or type(error).__name__)

    def _plain(self, text: str) -> str:
        return keys.hide(" ".join(text.split())[:200], self._key)


def _guessed(text: str) -> int:
    """Tokens, at four characters each."""
    return len(text) // 4


def _format(structured: str, schema: dict[str, Any]) -> dict[str, Any]:
    if structured == "none":
        return {}
    if structured == "json_object":
        return {"response_format": {"type": "json_object"}}
    return {
        "response_format": {
            "type": "json_schema",
            "json_schema": {"name": "verdict", "schema": schema, "strict": True},
        }
    }


def _retry_after(error: Any) -> float | None:
    try:
        seconds = float(error.response.headers.get("retry-after", ""))
    except (TypeError, ValueError):
        return None
    return min(seconds, ASKED_FOR) + random.uniform(0, 0.5) if seconds >= 0 else None
