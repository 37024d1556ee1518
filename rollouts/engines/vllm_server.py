"""Rollouts from stock vLLM servers over HTTP (OpenAI's completions API). Several servers are one engine."""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar
from urllib.parse import urlsplit

from rollouts.engines import adapters
from rollouts.engines import key as keys
from rollouts.engines.limits import room
from rollouts.engines.loop import BackgroundLoop
from rollouts.engines.pool import Busy, Pool, Server, ServerFault
from rollouts.records import Completion, EngineError, EngineSpec, Finish, Policy, Sampling, Times

log = logging.getLogger(__name__)

ENGINE = "vllm-server engine"
KEY = "POSTTRAIN_VLLM_KEY"
CONNECT = 5.0
"""Seconds to get a connection."""
QUICK = 10.0
"""Seconds for a question that a server answers from memory."""
REVIVE = 2.0
"""Seconds that a sync gives a server which is out to show that it is back; while rollouts run, the pool goes on trying."""
LOAD = 60.0
"""Seconds for loading or unloading an adapter."""


@dataclass(frozen=True)
class Job:
    ids: Sequence[int]
    seed: int
    limit: int


class VLLMServerEngine:
    """Stock vLLM servers that follow the policy by loading each version's adapter under a name of its own.

    Args:
        urls: of the servers, `http://host:port`.
        api_key_env: environment variable that holds their key; the variable of that name and `_FILE` may name a file instead.
        concurrency: most requests under way at one server.
        timeout: seconds that one completion may take.
        retries: how often one completion may be asked again.
        health_interval: seconds between health checks while completions are under way.
        patience: seconds to wait for a server to come back when none is left; then the run ends.
        wait: seconds to wait for servers that are still starting up.
        path_map: where the servers see folders of this machine: `{"/data/runs": "/mnt/runs"}`.
        takeover: unload the adapters that another run left on a server; without it such a server is refused.
    """

    shared: ClassVar[bool] = True
    same_numerics: ClassVar[bool] = False

    def __init__(
        self,
        spec: EngineSpec,
        urls: Sequence[str],
        api_key_env: str = KEY,
        concurrency: int = 128,
        timeout: float = 600.0,
        retries: int = 4,
        health_interval: float = 5.0,
        patience: float = 20.0,
        wait: float = 10.0,
        path_map: Mapping[str, str] | None = None,
        takeover: bool = False,
    ):
        try:
            import openai
        except ImportError as error:
            raise EngineError(f"{ENGINE}: the openai package is missing ({error}); pip install openai") from error
        for name, value, least in (
            ("concurrency", concurrency, 1),
            ("timeout", timeout, 0.1),
            ("retries", retries, 0),
        ):
            if value < least:
                raise EngineError(f"{ENGINE}: {name} is {value}; it must be at least {least}")
        self.spec = spec
        self.version = 0
        self.takeover = takeover
        self.path_map = dict(path_map or {})
        self._api_key_env = api_key_env
        self._key = keys.read(api_key_env)
        self._openai = openai
        self._adapter: tuple[str, str] | None = None
        """Name and folder of the adapter that is served now; None = the base weights."""
        self._published: set[str] = set()
        self._max_len = spec.max_model_len
        self._timeout = timeout
        self._closed = False
        self._loop = BackgroundLoop("rollouts-vllm-server")
        try:
            servers = [Server(url, self._client(url)) for url in _checked(urls)]
            self.pool = Pool(
                servers,
                self._admit,
                self._ping,
                name=ENGINE,
                concurrency=concurrency,
                timeout=timeout,
                retries=retries,
                health_interval=health_interval,
                patience=patience,
            )
            self._run(self._open(wait), wait + 2 * self.pool.admit_timeout)
        except BaseException:
            self._closed = True
            self._loop.stop()
            raise

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order, whichever server makes it.

        Raises:
            EngineError: a prompt leaves no room, a request is refused, or no server is left.
        """
        if len(prompt_ids) != len(seeds):
            raise EngineError(f"{ENGINE}: {len(prompt_ids)} prompts but {len(seeds)} seeds")
        limits = room(prompt_ids, sampling, self._max_len, ENGINE)
        jobs = [Job(list(i), int(s), limit) for i, s, limit in zip(prompt_ids, seeds, limits, strict=True)]
        if not jobs:
            return []
        adapter, version = self._adapter, self.version

        async def call(server: Server, job: Job) -> Completion:
            return await self._complete(server, job, sampling, adapter[0] if adapter else None, version)

        waves = math.ceil(len(jobs) / (self.pool.concurrency * len(self.pool.servers)))
        deadline = (waves + len(self.pool.servers)) * (self.pool.retries + 1) * (self._timeout + self.pool.patience)
        return self._run(self.pool.map(jobs, call), deadline)

    def sync(self, policy: Policy, *, publish: bool = True) -> None:
        """Serve `policy` from now on. With `publish`, every server loads its adapter and drops this run's older ones;
        without, another process did that, and a server that missed it is seen to.

        Raises:
            EngineError: the adapter cannot be served, or no server is left.
        """
        if policy.state_dir is not None:
            raise EngineError(
                f"{ENGINE}: stock servers cannot take a whole model's weights; train a LoRA `adapter`, or use engine: "
                "vllm or transformers"
            )
        adapter = None
        if policy.adapter_dir is not None:
            adapters.check(policy.adapter_dir, self.spec.lora_rank, ENGINE)
            name = adapters.served_name(self.spec.run_id, policy.version, policy.adapter_dir)
            adapter = (name, self._as_seen_there(policy.adapter_dir))
        self._adapter = adapter
        if publish and adapter is not None:
            self._published.add(adapter[0])
        self._run(self._follow(publish), 3 * self.pool.admit_timeout)
        self.version = policy.version

    @property
    def max_len(self) -> int:
        """Prompt and completion together, tokens: the model's, or less where a server was started with less."""
        return self._max_len

    def foreign(self) -> list[str]:
        """Names of the adapters of other runs of ours that the servers hold now, sorted."""

        async def ask() -> list[str]:
            lists = await asyncio.gather(*(self._served(server) for server in self.pool.alive))
            return sorted({n for names in lists for n in names if n.startswith(adapters.PREFIX) and not self._ours(n)})

        return self._run(ask(), self.pool.admit_timeout)

    def close(self) -> None:
        """Take this run's adapters off the servers (those that this process put there). Twice is harmless."""
        if self._closed:
            return
        self._closed = True
        try:
            self._loop.run(self._leave(), 2 * LOAD)
        except Exception as error:  # a server that is gone holds nothing of ours
            log.warning("%s: closing: %s", ENGINE, error)
        self._loop.stop()

    # -- the pool's questions ---------------------------------------------------------------------------------------

    async def _open(self, wait: float) -> None:
        """Every server that answers is checked and must do; those that do not may be starting up."""
        loop = asyncio.get_running_loop()
        until = loop.time() + wait
        while True:
            out = [server for server in self.pool.servers if not server.alive]
            await asyncio.gather(*(self.pool.admit(server) for server in out))
            if len(self.pool.alive) == len(self.pool.servers) or loop.time() >= until:
                break
            await asyncio.sleep(0.5)
        if not self.pool.alive:
            raise self.pool.nobody()
        for server in self.pool.servers:
            if not server.alive:
                log.warning("%s: going on without %s: %s", ENGINE, server.url, server.why)

    async def _follow(self, publish: bool) -> None:
        out = [server for server in self.pool.servers if not server.alive]
        await asyncio.gather(*(self._ready(server) for server in self.pool.alive))
        # A dead one gets a moment only: this happens at every step.
        await asyncio.gather(*(self._ready(server, within=REVIVE) for server in out))
        if not self.pool.alive:
            # Perhaps they are on their way back; the same patience as for requests.
            loop = asyncio.get_running_loop()
            until = loop.time() + self.pool.patience
            while not self.pool.alive and loop.time() < until:
                await asyncio.sleep(0.5)
                await asyncio.gather(*(self._ready(server) for server in self.pool.servers))
        if not self.pool.alive:
            raise self.pool.nobody()
        if publish:
            await asyncio.gather(*(self._drop_older(server) for server in self.pool.alive))

    async def _ready(self, server: Server, within: float | None = None) -> None:
        """Admit it. One that has served this run's adapters before, and will not do now, is a fault of the world (a
        gateway's page, a restart with another model): the others go on without it.

        Raises:
            EngineError: it has not, so that the recipe and the server do not fit.
        """
        try:
            await self.pool.admit(server, within=within)
        except EngineError:
            if not server.notes.get("proven"):
                raise

    async def _leave(self) -> None:
        async def leave(server: Server) -> None:
            try:
                for name in self._published & set(await self._served(server)):
                    await self._unload(server, name)
            except (ServerFault, Busy, EngineError) as error:
                log.warning("%s: %s may still hold this run's adapter: %s", ENGINE, server.url, error)

        await asyncio.gather(*(leave(server) for server in self.pool.servers))
        await asyncio.gather(*(server.client.close() for server in self.pool.servers), return_exceptions=True)

    async def _admit(self, server: Server) -> None:
        """The right base model, no other run's adapter, log-probs of the processed distribution, our adapter loaded."""
        served = await self._served(server)
        foreign = sorted(name for name in served if name.startswith(adapters.PREFIX) and not self._ours(name))
        if foreign and not self.takeover:
            run = self._hidden(_short(adapters.run_of(foreign[0]) or foreign[0]))
            raise EngineError(
                f'{ENGINE}: {server.url} serves an adapter of another run, "{run}"; end that run, restart the server, or '
                "set takeover: true to unload what it left"
            )
        for name in foreign:
            log.warning("%s: %s: unloading %s of another run", ENGINE, server.url, name)
            await self._unload(server, name)
        if not server.alive:  # a server that comes (back) may have been started with other settings
            await self._probe(server)
        if self._adapter is not None and self._adapter[0] not in served:
            await self._load(server, *self._adapter)

    async def _ping(self, server: Server) -> None:
        await self._ask(server, server.client.get(f"{server.url}/health", cast_to=str, options={"timeout": QUICK}))

    # -- one server -------------------------------------------------------------------------------------------------

    def _client(self, url: str) -> Any:
        """The official client. No retries of its own: the pool asks again, perhaps elsewhere."""
        openai = self._openai
        local = urlsplit(url).hostname in ("127.0.0.1", "localhost", "::1")
        # A proxy from the environment has no business between two ports of one machine.
        http = openai.DefaultAsyncHttpxClient(trust_env=False) if local else None
        client = openai.AsyncOpenAI(
            base_url=f"{url}/v1",
            api_key=self._key or "none",
            max_retries=0,
            timeout=openai.Timeout(self._timeout, connect=CONNECT),
            http_client=http,
        )
        # What the environment says of an account at OpenAI is no business of these servers.
        client.organization = client.project = None
        return client

    async def _ask(self, server: Server, question: Any) -> Any:
        """Await a request of the client; its exceptions in the pool's terms."""
        openai = self._openai
        try:
            return await question
        except openai.APITimeoutError as error:
            raise ServerFault("no connection or no answer in time") from error
        except openai.APIConnectionError as error:
            cause = error.__cause__ or error
            raise ServerFault(f"no connection ({type(cause).__name__}: {self._hidden(_short(cause))})") from error
        except openai.APIStatusError as error:
            text = self._hidden(_message(error))
            if error.status_code in (401, 403):
                raise EngineError(
                    f"{ENGINE}: {server.url} refuses the key; put the server's into {self._api_key_env}"
                ) from error
            if error.status_code == 429:
                raise Busy(f"asks for fewer requests ({text})") from error
            if error.status_code >= 500 or error.status_code == 408:
                raise ServerFault(f"HTTP {error.status_code} ({text})") from error
            raise _Refused(error.status_code, text) from error
        except (openai.OpenAIError, ValueError) as error:  # not JSON, not the shape that was asked for
            told = self._hidden(_short(error))
            raise ServerFault(f"an answer that makes no sense ({type(error).__name__}: {told})") from error

    async def _served(self, server: Server) -> list[str]:
        """Names of all that the server serves. Notes the base model's name and length.

        Raises:
            EngineError: it serves another base model.
        """
        try:
            answer = await self._ask(server, server.client.get("/models", cast_to=object, options={"timeout": QUICK}))
            cards = [card for card in answer["data"] if isinstance(card["id"], str)]
        except _Refused as refused:
            raise EngineError(f"{ENGINE}: {server.url}/v1/models: {refused}; is it a vLLM server?") from refused
        except (TypeError, KeyError) as error:
            raise ServerFault("its list of models makes no sense") from error
        bases = [card for card in cards if not card.get("parent")]
        wanted = {self.spec.model, self._as_seen_there(self.spec.model)}
        base = next((card for card in bases if {card["id"], card.get("root")} & wanted), None)
        if base is None:
            found = self._hidden(_short(", ".join(card["id"] for card in bases))) or "nothing"
            raise EngineError(
                f"{ENGINE}: {server.url} serves {found}, but the policy's base model is {self.spec.model}; start the "
                "server that `posttrain serve RECIPE` prints"
            )
        server.notes["base"] = base["id"]
        if isinstance(base.get("max_model_len"), int):
            self._max_len = min(self._max_len, base["max_model_len"])
        return [card["id"] for card in cards]

    async def _probe(self, server: Server) -> None:
        """With top_k = 1 the processed log-prob of any token is 0, whatever the model; the raw one is not.

        Raises:
            EngineError: the server reports log-probs of the raw distribution, or no token ids.
        """
        ids, values, *_ = await self._raw(
            server, server.notes["base"], [0, 1, 2, 3], max_tokens=8, temperature=2.0, seed=0, extra={"top_k": 1}
        )
        if any(abs(value) > 1e-4 for value in values) or not ids:
            raise EngineError(
                f"{ENGINE}: {server.url} reports log-probs before temperature and truncation; start it with "
                "--logprobs-mode processed_logprobs (`posttrain serve RECIPE` prints the command)"
            )

    async def _complete(
        self, server: Server, job: Job, sampling: Sampling, adapter: str | None, version: int
    ) -> Completion:
        extra: dict[str, Any] = {
            "top_k": sampling.top_k,
            "min_p": sampling.min_p,
            "repetition_penalty": sampling.repetition_penalty,
            "stop_token_ids": list(self.spec.eos_ids),
            "include_stop_str_in_output": True,
        }
        ids, values, finish, cached, times = await self._raw(
            server,
            adapter or server.notes["base"],
            job.ids,
            max_tokens=job.limit,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            seed=job.seed,
            stop=list(sampling.stop),
            extra=extra,
        )
        if len(ids) > job.limit:
            raise ServerFault(f"{len(ids)} tokens where {job.limit} were allowed")
        if adapter is not None:
            server.notes["proven"] = True
        return Completion(ids, values, finish, version, cached, times)

    async def _raw(
        self, server: Server, model: str, prompt: Sequence[int], *, extra: Mapping[str, Any], **known: Any
    ) -> tuple[list[int], list[float], Finish, int | None, Times]:
        """Ask for one completion; token ids, their log-probs, why it ended, how much of the prompt came from the cache, and when
        it was worked on (servers say so that were started with --enable-prompt-tokens-details, --enable-per-request-metrics)."""
        sent = time.monotonic()
        body = {
            # Exactly the spec's set of ends, not the server's reading of the model's files.
            "ignore_eos": True,
            "return_token_ids": True,
            "return_tokens_as_token_ids": True,
            "skip_special_tokens": False,
            "spaces_between_special_tokens": False,
            **extra,
        }
        try:
            answer = await self._ask(
                server,
                server.client.completions.create(
                    model=model, prompt=list(prompt), logprobs=0, extra_body=body, **known
                ),
            )
        except _Refused as refused:
            if refused.status == 404 and model != server.notes["base"]:
                # Restarted in between: it will get the adapter when it is taken back.
                raise ServerFault(f"it no longer serves {model}") from refused
            raise EngineError(f"{ENGINE}: {server.url} refuses a request: {refused}") from refused
        try:
            (choice,) = answer.choices
            ids = [int(i) for i in (choice.model_extra or {})["token_ids"]]
            values = [float(v) for v in choice.logprobs.token_logprobs]
            named, finish = answer.model, choice.finish_reason
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ServerFault(f"an answer without token ids or log-probs ({type(error).__name__})") from error
        if named != model:
            raise ServerFault(f"it answered for {self._hidden(_short(named))}, asked was {model}")
        if finish not in ("stop", "length") or not ids or len(ids) != len(values):
            raise ServerFault(f"an answer of {len(ids)} tokens and {len(values)} log-probs, finish {finish!r}")
        if not all(math.isfinite(value) for value in values):
            raise EngineError(f"{ENGINE}: {server.url}: log-probs of {model} are not finite; the weights diverged")
        return ids, values, finish, _cached(answer), _times(answer, sent, time.monotonic())

    async def _load(self, server: Server, name: str, folder: str) -> None:
        try:
            await self._post(server, "/load_lora_adapter", {"lora_name": name, "lora_path": folder})
        except _Refused as refused:
            if "already been loaded" in refused.text:
                return  # by another process of this run
            if refused.missing_route:
                raise EngineError(
                    f"{ENGINE}: {server.url} cannot load adapters; start it with --enable-lora and "
                    "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True (`posttrain serve RECIPE` prints the command)"
                ) from refused
            if refused.status == 404:
                raise EngineError(
                    f"{ENGINE}: {server.url} sees no adapter in {folder}; share that folder with the server's machine, "
                    "or give path_map: {here: there}"
                ) from refused
            raise EngineError(f"{ENGINE}: {server.url} refuses the adapter {folder}: {refused}") from refused

    async def _unload(self, server: Server, name: str) -> None:
        try:
            await self._post(server, "/unload_lora_adapter", {"lora_name": name})
        except _Refused as refused:
            if refused.status != 404 or refused.missing_route:
                raise EngineError(f"{ENGINE}: {server.url} does not unload {name}: {refused}") from refused

    async def _post(self, server: Server, path: str, body: Mapping[str, Any]) -> None:
        await self._ask(server, server.client.post(path, cast_to=str, body=body, options={"timeout": LOAD}))

    async def _drop_older(self, server: Server) -> None:
        """Unload this run's adapters that are not served any more (also those of an earlier start of the same run)."""
        try:
            for name in await self._served(server):
                if self._ours(name) and (self._adapter is None or name != self._adapter[0]):
                    await self._unload(server, name)
        except (ServerFault, Busy) as fault:
            self.pool.take_out(server, str(fault))

    # -- small things -----------------------------------------------------------------------------------------------

    def _hidden(self, text: str) -> str:
        """What a server said, without our key in it."""
        return keys.hide(text, self._key)

    def _ours(self, name: str) -> bool:
        return adapters.run_of(name) == self.spec.run_id

    def _as_seen_there(self, path: str) -> str:
        """A path of this machine as the servers see it: by the longest prefix in `path_map`."""
        for here in sorted(self.path_map, key=len, reverse=True):
            root = here.rstrip("/")
            if path == root or path.startswith(root + "/"):
                return self.path_map[here].rstrip("/") + path[len(root) :]
        return path

    def _run(self, work: Any, deadline: float) -> Any:
        if self._closed:
            work.close()
            raise EngineError(f"{ENGINE}: it is closed")
        try:
            return self._loop.run(work, deadline)
        except TimeoutError as error:
            raise EngineError(f"{ENGINE}: the servers took more than {deadline:g} s in all; giving up") from error


class _Refused(Exception):
    """The server is well and says no: HTTP 4xx."""

    def __init__(self, status: int, text: str):
        super().__init__(f"HTTP {status}: {text}")
        self.status = status
        self.text = text

    @property
    def missing_route(self) -> bool:
        return self.status == 405 or (self.status == 404 and self.text == "Not Found")


def _cached(answer: Any) -> int | None:
    """Prompt tokens from the server's cache, if it counts them."""
    details = getattr(getattr(answer, "usage", None), "prompt_tokens_details", None)
    count = getattr(details, "cached_tokens", None)
    return count if type(count) is int and count >= 0 else None


def _times(answer: Any, sent: float, ended: float) -> Times:
    """When the server worked on it, by what it says of it; or else the time that it took, all told."""
    said = (getattr(answer, "model_extra", None) or {}).get("metrics")
    names = ("queue_time_ms", "time_to_first_token_ms", "generation_time_ms")
    found = [said.get(name) for name in names] if isinstance(said, dict) else [None]
    if not all(type(value) in (int, float) and 0 <= value < math.inf for value in found):
        return Times(sent, ended)
    queue, first, rest = (value / 1000 for value in found)
    return Times(max(sent, ended - first - rest), ended, queue, first)


def _checked(urls: Sequence[str]) -> list[str]:
    if isinstance(urls, str):
        urls = [urls]
    bare = [str(url).rstrip("/").removesuffix("/v1") for url in urls]
    if not bare:
        raise EngineError(f"{ENGINE}: urls is empty; give one or more, for instance http://127.0.0.1:8000")
    for url in bare:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise EngineError(f'{ENGINE}: "{url}" is no URL of a server; write http://host:port')
        if bare.count(url) > 1:
            raise EngineError(f"{ENGINE}: {url} is given twice")
    return bare


def _message(error: Any) -> str:
    """What the server said, in one line."""
    body = error.body
    if isinstance(body, dict):
        for key in ("message", "detail", "error"):
            if isinstance(body.get(key), str):
                return _short(body[key])
    try:
        parsed = json.loads(error.response.text)
        return _short(parsed.get("detail") or parsed["error"]["message"])
    except Exception:
        return _short(error)


def _short(text: Any) -> str:
    """One line of at most 300 characters in which nothing commands a terminal: a server's words are data."""
    words = " ".join(str(text)[:10_000].split())[:300]
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in words)
