"""The question writer: any OpenAI-compatible chat endpoint, through the official client.

Every request ends as a `Reply` or as a `Failed` with its reason. A refused key or an unknown model ends the build at once
(nothing else could come), and so does an endpoint that does not answer any more; what was answered is in the journal.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from posttrain import keys, terminal
from posttrain.errors import Alarm, Mistake
from posttrain.evaluation.building.journal import Reply, Request
from rollouts.engines import key as key_of
from rollouts.records import EngineError

KEY = "POSTTRAIN_WRITER_KEY"
CONNECT = 5.0
GONE = 3
"""Requests in a row, all their retries included, that may find nobody before the build stops."""
LONGEST = 1_000_000
"""Characters of a reply; what is longer is no list of questions."""
LONGEST_WAIT = 60.0


@dataclass(frozen=True, slots=True)
class Failed:
    """A request that got no answer."""

    reason: str
    """Short, for counting: `no connection`, `timeout`, `HTTP 500`, `refused`, ..."""
    detail: str = ""
    """What the endpoint said, one line, without the key."""


Done = Callable[[Request, "Reply | Failed"], None]


@dataclass
class Endpoint:
    """Where questions are asked for.

    Args:
        url: `http://host:port` or `.../v1`, without a key in it.
        model: as the endpoint names it; empty = the only one that it serves.
        api_key_env: environment variable that holds the key; that name and `_FILE` may name a file instead.
        concurrency: most requests under way at once.
        timeout: seconds for one request.
        retries: how often a request is asked again after a time-out, a lost connection, HTTP 408, 429 or 5xx.
        temperature: absent = the endpoint's own.
        max_tokens: of one answer.
        pause: seconds; the n-th wait before a retry is drawn from 0 to pause · 2^n (at most a minute).
    """

    url: str
    model: str = ""
    api_key_env: str = KEY
    concurrency: int = 16
    timeout: float = 300.0
    retries: int = 4
    temperature: float | None = None
    max_tokens: int = 4096
    pause: float = 1.0
    _limit_name: str = field(default="max_tokens", init=False)

    def __post_init__(self) -> None:
        for name, least in (("concurrency", 1), ("timeout", 0.001), ("retries", 0), ("max_tokens", 1)):
            if getattr(self, name) < least:
                raise Mistake(f"{name}: at least {least:g}, not {getattr(self, name)}")
        parts = urlsplit(self.url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Mistake(f'"{keys.hide(self.url)}" is no URL of an endpoint; write http://host:port/v1')
        if parts.username or parts.password or parts.query:
            raise Mistake(
                f"{parts.hostname}: a key does not belong into the URL, where every user of the machine can read it; put it "
                f"into the variable {self.api_key_env}, or its file's name into {self.api_key_env}_FILE"
            )
        self.url = self.url.rstrip("/")
        if not parts.path.strip("/"):
            self.url += "/v1"
        try:
            self._key = key_of.read(self.api_key_env)
        except EngineError as error:
            raise Mistake(str(error)) from error
        self.model = self.model or asyncio.run(self._only_model())

    @property
    def settings(self) -> dict[str, Any]:
        """What shapes an answer, beside the words."""
        return {"model": self.model, "temperature": self.temperature, "max_tokens": self.max_tokens}

    def ask(self, requests: Sequence[Request], done: Done) -> None:
        """Ask them all; `done` is told each one's outcome as it comes, in any order.

        Raises:
            Mistake: the key is refused, or there is no such model.
            Alarm: nobody answers.
        """
        asyncio.run(self._ask_all(requests, done))

    async def _ask_all(self, requests: Sequence[Request], done: Done) -> None:
        waiting = iter(requests)
        silent = 0  # requests in a row that found nobody

        async def work(client: Any) -> None:
            nonlocal silent
            for request in waiting:
                outcome = await self._one(client, request)
                done(request, outcome)
                gone = isinstance(outcome, Failed) and outcome.reason in ("no connection", "timeout")
                silent = silent + 1 if gone else 0
                if silent >= GONE:
                    raise Alarm(
                        f"{self.url}: {silent} requests in a row found nobody ({outcome.reason}); what was answered is "  # type: ignore[union-attr]
                        "kept, and the same command goes on"
                    )

        async with self._client() as client:
            workers = [asyncio.ensure_future(work(client)) for _ in range(min(self.concurrency, len(requests)))]
            try:
                await asyncio.gather(*workers)
            finally:
                for worker in workers:
                    worker.cancel()
                await asyncio.gather(*workers, return_exceptions=True)

    async def _one(self, client: Any, request: Request) -> Reply | Failed:
        outcome: Reply | Failed = Failed("not asked")
        attempt = 0
        while True:
            outcome, again = await self._try(client, request)
            if again is None or attempt >= self.retries:
                return outcome
            # Full jitter: requests that failed together do not come back together.
            wait = random.uniform(0, min(LONGEST_WAIT, self.pause * 2**attempt))
            await asyncio.sleep(max(wait, min(again, LONGEST_WAIT)))
            attempt += 1

    async def _try(self, client: Any, request: Request) -> tuple[Reply | Failed, float | None]:
        """The outcome, and the least seconds to wait before it may be asked again (None: not again)."""
        import openai

        try:
            answer = await client.chat.completions.create(
                model=self.model,
                messages=[dict(m) for m in request.messages],
                **{self._limit_name: self.max_tokens},
                **({} if self.temperature is None else {"temperature": self.temperature}),
            )
            return self._reply(answer), None
        except openai.APITimeoutError:
            return Failed("timeout", f"nothing within {self.timeout:g} s"), 0.0
        except openai.APIConnectionError as error:
            return Failed("no connection", self._short(error.__cause__ or error)), 0.0
        except openai.APIStatusError as error:
            return self._refused(error)
        except (openai.OpenAIError, ValueError, TypeError, AttributeError, IndexError) as error:
            return Failed("no sense", f"{type(error).__name__}: {self._short(error)}"), 0.0

    def _reply(self, answer: Any) -> Reply:
        choice = answer.choices[0]
        text = choice.message.content
        text = "" if text is None else text
        if not isinstance(text, str) or len(text) > LONGEST:
            raise ValueError(f"a reply of {len(text)} {type(text).__name__} items")
        usage = answer.usage
        return Reply(
            key_of.hide(text, self._key),
            choice.finish_reason if isinstance(choice.finish_reason, str) else None,
            answer.model if isinstance(answer.model, str) else self.model,
            getattr(usage, "prompt_tokens", None),
            getattr(usage, "completion_tokens", None),
        )

    def _refused(self, error: Any) -> tuple[Failed, float | None]:
        said, status = self._short(_message(error)), error.status_code
        if status in (401, 403):
            has = "is refused" if self._key else "is missing"
            raise Mistake(
                f"{self.url}: the key {has} (HTTP {status}); put it into the variable {self.api_key_env}, or its file's name "
                f"into {self.api_key_env}_FILE"
            ) from None
        if status == 404:
            raise Mistake(f'{self.url}: no model "{self.model}" there (HTTP 404: {said}); see --model-name') from None
        if status == 400 and "max_completion_tokens" in said and self._limit_name == "max_tokens":
            self._limit_name = "max_completion_tokens"
            return Failed("refused", said), 0.0
        if status in (408, 429) or status >= 500:
            return Failed(f"HTTP {status}", said), _seconds(error.response.headers.get("retry-after"))
        return Failed(f"refused (HTTP {status})", said), None

    async def _only_model(self) -> str:
        import openai

        try:
            async with self._client() as client:
                found = await client.models.list()
                names = [card.id for card in found.data if isinstance(card.id, str)]
        except openai.APIStatusError as error:
            if error.status_code in (401, 403):
                self._refused(error)
            raise Mistake(
                f"{self.url}: does not list its models (HTTP {error.status_code}); give --model-name"
            ) from None
        except openai.APIConnectionError as error:
            told = self._short(error.__cause__ or error)
            raise Mistake(f"{self.url}: no connection ({told}); is the endpoint running?") from None
        except (openai.OpenAIError, ValueError, TypeError, AttributeError) as error:
            told = self._short(error)
            raise Mistake(f"{self.url}: its list of models makes no sense ({told}); give --model-name") from None
        if len(names) != 1:
            told = terminal.line(", ".join(names[:8]) or "none", 300)
            raise Mistake(f"{self.url}: serves {len(names)} models ({told}); choose one with --model-name")
        return names[0]

    def _client(self) -> Any:
        import openai

        local = urlsplit(self.url).hostname in ("127.0.0.1", "localhost", "::1")
        # A proxy from the environment has no business between two ports of one machine.
        http = openai.DefaultAsyncHttpxClient(trust_env=False) if local else None
        client = openai.AsyncOpenAI(
            base_url=self.url,
            api_key=self._key or "none",
            max_retries=0,  # counted here
            timeout=openai.Timeout(self.timeout, connect=min(CONNECT, self.timeout)),
            http_client=http,
        )
        if urlsplit(self.url).hostname != "api.openai.com":
            # What the environment says of an account at OpenAI is no business of another endpoint.
            client.organization = client.project = None
        return client

    def _short(self, text: Any) -> str:
        """What an endpoint said: one line, without the key."""
        return terminal.line(" ".join(key_of.hide(str(text)[:10_000], self._key).split()), 300)


def _message(error: Any) -> str:
    try:
        body = json.loads(error.response.text)
        found = body.get("error", body)
        told = found.get("message", found) if isinstance(found, dict) else found
        return str(told)
    except Exception:
        return str(error)


def _seconds(header: str | None) -> float:
    try:
        return max(0.0, float(header or 0))
    except ValueError:
        return 0.0
