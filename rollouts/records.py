"""The records that engines, strategies and trainers exchange, and the protocols between them.

Plain data, no torch: everything here can be written to a file and read by another process. Engines see token ids;
text and chat templates stop at `rollouts.prompts`; rewards are never seen here at all.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

Finish = Literal["stop", "length", "abort"]
"""Why a completion ended: an EOS or stop string, the token limit, or the engine gave up on it."""

Prompt = str | list[dict[str, Any]]
"""Plain text, or chat messages of `{"role", "content"}`."""


class EngineError(RuntimeError):
    """An engine cannot go on. The message is one line: which engine, what happened, what to do."""


class StaleRollout(RuntimeError):
    """A completion was made by another version of the policy than the one asked for."""


@dataclass(frozen=True, slots=True)
class Sampling:
    """How tokens are drawn. `temperature == 0` is greedy. Lengths are in tokens."""

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    """0 switches it off."""
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    max_tokens: int = 256
    stop: tuple[str, ...] = ()
    """Stop strings. The text that matched is part of the completion."""

    @property
    def truncates(self) -> bool:
        """True if some tokens cannot be drawn at all, so that sampler log-probs are renormalised over the rest."""
        return self.top_p < 1.0 or self.top_k > 0 or self.min_p > 0.0


@dataclass(frozen=True, slots=True)
class EngineSpec:
    """What every engine needs to know about the model it serves."""

    model: str
    """Local directory or hub id of the *base* model."""
    eos_ids: tuple[int, ...]
    """Every token id that ends a completion (generation config and tokenizer)."""
    pad_id: int
    max_model_len: int
    """Prompt and completion together, tokens."""
    dtype: str = "float32"
    revision: str | None = None
    lora_rank: int | None = None
    """Largest adapter rank to be loaded; None: no adapter will ever be loaded."""
    run_id: str = "run"
    """Names this run's adapters on shared servers; a server that holds another run's is never trusted."""
    attention: str | None = None
    trust_remote_code: bool = False
    """Let code that came with the model run. Only a user says so, never a recipe."""
    device: str | None = None
    """Where an in-process engine that loads its own weights puts them; None = CUDA if there is one, else CPU."""


@dataclass(frozen=True, slots=True)
class Policy:
    """One version of the policy, in every form an engine may need."""

    version: int
    """Optimiser steps taken when these weights were made (0 = the start of the run)."""
    adapter_dir: str | None = None
    """PEFT adapter directory of exactly this version; None = the base weights as they are."""
    borrow: Callable[[], AbstractContextManager[Any]] | None = None
    """In-process engines: a context that lends the live torch module, unwrapped and in evaluation mode."""
    state_dir: str | None = None
    """Full fine-tuning: directory of the whole model saved for this version."""


@dataclass(frozen=True, slots=True)
class Times:
    """When a request was worked on, as far as its engine says; seconds."""

    started: float
    """On a clock that all requests of one call share: taken up, or (servers that do not say) sent ..."""
    ended: float
    """... and done."""
    queue: float | None = None
    """How long it waited before it was taken up."""
    first: float | None = None
    """From there to its first token (the prompt's own pass)."""


@dataclass(frozen=True, slots=True)
class Completion:
    """What an engine returns for one request. `ids` is never empty and holds the EOS that ended it."""

    ids: list[int]
    logprobs: list[float]
    """The sampler's own log-prob of each token in `ids`, after temperature and truncation (nats)."""
    finish: Finish
    version: int
    cached: int | None = None
    """Tokens of the prompt that the engine took from its cache; None = it does not say."""
    times: Times | None = None
    """None = the engine does not say."""


@runtime_checkable
class Engine(Protocol):
    """Makes completions of token-id prompts, and follows the policy."""

    shared: ClassVar[bool]
    """True if all processes talk to one engine (servers): then only one of them publishes a new version."""
    same_numerics: ClassVar[bool]
    """True if sampling uses the trainer's own module, so that no importance-sampling correction is due."""
    version: int

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order. `seeds[i]` alone decides the random stream of request i."""
        ...

    def sync(self, policy: Policy, *, publish: bool = True) -> None:
        """Serve `policy` from now on. With `publish=False` a shared engine only adopts what another process put there."""
        ...

    def close(self) -> None: ...


@dataclass(slots=True)
class Row:
    """One line of a data set."""

    row_id: str
    """Stable name: source and content hash."""
    prompt: Prompt
    columns: dict[str, Any] = field(default_factory=dict)
    """Everything else: what rewards and strategies read (answer, rubric, ...)."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Sample number `sample` of a row is wanted."""

    row: Row
    sample: int


@dataclass(slots=True)
class Rollout:
    """One finished sample, as the trainer conditions on it."""

    row_id: str
    sample: int
    version: int
    prompt_ids: list[int]
    completion_ids: list[int]
    logprobs: list[float]
    mask: list[int]
    """1 where the policy wrote the token, 0 where something else did; same length as `completion_ids`."""
    finish: Finish
    turns: list[dict[str, Any]] = field(default_factory=list)
    info: dict[str, Any] = field(default_factory=dict)
    """Per-rollout extras; each key becomes a reward keyword argument, and goes into the run's records (JSON)."""
    seen_ids: list[int] | None = None
    """The prompt that the engine saw, where it was another than `prompt_ids`: what `logprobs` are conditioned on."""

    @property
    def asked_ids(self) -> list[int]:
        """The prompt that the engine saw."""
        return self.prompt_ids if self.seen_ids is None else self.seen_ids


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a training run is."""

    step: int
    """Rollout iteration, counted from 1: generation batches begun so far, this one included."""
    steps: int
    """How many there will be; at least `step`."""


@dataclass(frozen=True)
class Session:
    """What a strategy works with: an engine, a tokenizer, how to sample, and where randomness comes from."""

    engine: Engine
    tokenizer: Any
    sampling: Sampling
    run_seed: int
    template_kwargs: Mapping[str, Any] = field(default_factory=dict)
    score: Callable[[list[Rollout]], list[float | None]] | None = None
    """For strategies that branch on quality; given by the trainer, so that no reward is imported here."""
    progress: Progress | None = None
    """None where nothing is trained (evaluation, say)."""
    group: int = 1
    """Samples of one row that are compared with each other; `Ask.sample` counts them from 0."""
    training: bool = False
    """Whether the rollouts are to be trained on."""

    def encode(self, prompt: Prompt) -> list[int]:
        """Token ids of a prompt, ready for the policy to go on from."""
        from rollouts.prompts import encode

        return encode(self.tokenizer, prompt, **self.template_kwargs)

    def seed(self, ask: Ask, turn: int = 0) -> int:
        """The seed of one request: a hash of run seed, row, sample, policy version and turn."""
        from rollouts.seeds import derive

        return derive(self.run_seed, ask.row.row_id, ask.sample, self.engine.version, turn)


class Strategy(Protocol):
    """How samples of a row come about: one turn, a dialogue, a tree, ...

    A class whose samples are drawn under prompts that the loss does not have (`Rollout.seen_ids`) says so with
    `shows_more = True`.
    """

    def run(self, asks: Sequence[Ask], session: Session) -> list[Rollout]:
        """One rollout for each ask, in order."""
        ...
