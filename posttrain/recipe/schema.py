"""Every key a recipe can have. The docstring under a field feeds the JSON schema, `posttrain recipes schema` and the docs.

Only shapes and ranges are checked here, without torch; whether `trainer.args` and `with` fit what they are for is the
business of `posttrain.recipe.check`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat

Rate = Annotated[FiniteFloat, Field(ge=0.0, le=1.0)]
Positive = Annotated[int, Field(ge=1)]


class Strict(BaseModel):
    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True, populate_by_name=True
    )


class Use(Strict):
    """Something named by a short name or an import path (`package.module:object`, `file.py:object`)."""

    use: str
    """Short name or import path."""
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Arguments: given to a class when it is constructed, bound to a function."""


class Model(Strict):
    name: str
    """Hub id, local directory, short name of a miniature (`miniature/arithmetic`), or import path of a function that returns a directory."""
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Arguments of that function."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type the weights are held in. Under a LoRA adapter `bfloat16` halves the memory of the frozen base; full fine-tuning wants `float32` master weights (with `trainer.args.bf16: true` for speed)."""
    attention: str | None = None
    """transformers' `attn_implementation` (`sdpa`, `flash_attention_2`, ...); absent = its default."""
    max_length: Positive | None = None
    """Longest prompt + completion in tokens; absent = what the model's config says."""
    chat_template: str | None = None
    """Path of a Jinja file that replaces the tokenizer's chat template."""
    template_args: dict[str, Any] = Field(default_factory=dict)
    """Keyword arguments of the chat template (`enable_thinking: false`, ...)."""


class Adapter(BaseModel):
    """A LoRA adapter: PEFT's `LoraConfig` fields. Absent = full fine-tuning."""

    model_config = ConfigDict(extra="allow", frozen=True, strict=True, use_attribute_docstrings=True)

    r: Positive = 16
    """Rank."""
    lora_alpha: Annotated[FiniteFloat, Field(gt=0)] = 32
    """Scale: the update is multiplied by `lora_alpha / r`."""
    lora_dropout: Rate = 0.0
    """Dropout on the adapter's input while training."""
    target_modules: str | list[str] = "all-linear"
    """Which modules get an adapter: `all-linear`, a list of names, or a regular expression. Never `lm_head` (TRL computes log-probs from its weight directly)."""
    start_from: str | None = None
    """Directory of an existing adapter to go on training."""


class Source(Strict):
    """Where rows come from (exactly one of `use`, `hub`, `path`) and how a row becomes a prompt."""

    use: str | None = None
    """Short name or import path of a function that returns a `datasets.Dataset`."""
    with_: dict[str, Any] = Field(default_factory=dict, alias="with")
    """Arguments of that function."""
    hub: str | None = None
    """Data set id on the Hugging Face hub."""
    config: str | None = None
    """Its configuration (`main` for openai/gsm8k)."""
    split: str = "train"
    """Its split; slices such as `train[:1000]` work."""
    revision: str | None = None
    """Branch, tag or commit on the hub."""
    path: str | None = None
    """Local file, by its ending: .json, .jsonl, .csv, .parquet. Relative to the working directory."""
    columns: dict[str, str] = Field(default_factory=dict)
    """New name: column of the source. Other columns keep their names."""
    prompt: str | None = None
    """Template of the user's turn with `{column}` in braces (`{{` is a brace); absent = the source's own `prompt` column."""
    system: str | None = None
    """A system turn before it."""
    chat: bool = True
    """False: the prompt is plain text and no chat template is applied."""
    completion: str | None = None
    """For `sft`: template of the answer. Absent = the source's own `completion` column."""
    limit: Positive | None = None
    """Only the first rows."""
    max_prompt_tokens: Positive | None = None
    """Longest prompt after rendering. Absent = the model's length less `rollouts.sampling.max_tokens`."""
    overlong: Literal["error", "drop", "keep_tail"] = "error"
    """What happens to longer prompts. `keep_tail` cuts the user's text at its beginning, never the template around it."""


class Data(Strict):
    train: Source
    """Rows to train on."""
    eval: Source | None = None
    """Held-out rows for TRL's own evaluation loop (`trainer.args.eval_strategy`). Benchmarks are under `evaluation`."""


class OnError(Strict):
    do: Literal["fail", "skip_row"] = "fail"
    """`fail` stops the run at the first fault. `skip_row`: the row gets no gradient and leaves its group's baseline; it is never a silent 0."""
    at_most: Rate = 0.02
    """Largest share of rows (over the last 1000 or so) that may be skipped before the run stops."""


class Reward(Use):
    """A reward function, and what its number is worth."""

    weight: FiniteFloat = 1.0
    """Factor in the sum of rewards. 0 = only shown."""
    name: str | None = None
    """Name in metrics; absent = the function's own, made unique."""
    timeout: Annotated[FiniteFloat, Field(gt=0)] = 60.0
    """Seconds that one call for a batch may take. Without `processes` an overrun is noticed, not interrupted."""
    processes: Annotated[int, Field(ge=0, le=256)] = 0
    """Worker processes. With one or more, a call that hangs is killed at its deadline and a crash does not take the run down."""
    memory: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """GiB that these processes may hold together; absent = half of the machine's memory over its training processes. One that leaks is replaced, one that takes more at once is killed."""
    on_error: OnError = Field(default_factory=OnError)
    """What to do when it raises, hangs, or returns something that is not a finite number."""


class Sampling(Strict):
    temperature: Annotated[FiniteFloat, Field(gt=0, le=10)] = 1.0
    """Softmax temperature of training rollouts."""
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling; 1 = off. Refused together with importance-sampling correction, which it would bias."""
    top_k: Annotated[int, Field(ge=0)] = 0
    """Keep the k likeliest tokens; 0 = off. Refused together with the correction."""
    min_p: Rate = 0.0
    """Drop tokens below this share of the likeliest; 0 = off. Refused together with the correction."""
    repetition_penalty: Annotated[FiniteFloat, Field(gt=0)] = 1.0
    """Penalty of tokens already seen; 1 = off."""
    max_tokens: Positive = 256
    """Longest completion in tokens."""
    stop: list[str] = Field(default_factory=list)
    """Strings that end a completion."""


class Correction(Strict):
    """Importance-sampling correction for the difference between sampler and trainer."""

    mode: Literal[
        "auto", "off", "token_truncate", "token_mask", "sequence_truncate", "sequence_mask", "geometric_mask"
    ] = "auto"
    """`auto` = `token_truncate` on the vLLM engines, `off` where sampler and trainer are one module, and with `scaffold`, whose samples are drawn under another prompt than the loss has (a mode named here is then worked out under that prompt, by one more forward pass). `geometric_mask` drops sequences whose per-token geometric mean ratio leaves [clip_min, clip_max], whatever their length; TRL's default, `sequence_mask`, drops long ones."""
    clip_max: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """Upper bound of the ratio; absent = 2.0 (token), 1.05 (geometric), 3.0 (sequence)."""
    clip_min: Annotated[FiniteFloat, Field(ge=0)] | None = None
    """Lower bound; absent = none, for `geometric_mask` 1 / clip_max."""


class Rollouts(Strict):
    engine: str | Use = "transformers"
    """`transformers` (in process), `vllm` (in process), `vllm-server` (stock servers: `with: {urls: [...]}`), or an import path."""
    strategy: str | Use = "single"
    """How a sample comes about: `single`, `scaffold` (part of a rubric shown to the sampler), or an import path."""
    sampling: Sampling = Field(default_factory=Sampling)
    """How tokens are drawn."""
    correction: Correction = Field(default_factory=Correction)
    """Trainer-sampler mismatch."""
    keep_tokens: bool = False
    """Write token ids and the sampler's log-probs of each rollout into `rollouts/` too (some 30 bytes a token), for export as ATIF."""


class Trainer(Strict):
    algorithm: str = "grpo"
    """`grpo`, `rloo`, `dpo`, `sft`, or the import path of a subclass of a TRL trainer."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Fields of the TRL configuration class of that trainer, checked against it one by one."""


class Adaptive(Strict):
    """Items chosen for the model that is judged, from a bank (`posttrain irt fit`); the result is an ability with its error."""

    bank: str
    """Item bank of the benchmark, a file. Relative to the working directory."""
    items: Positive = 50
    """At most so many items."""
    batch: Positive = 10
    """Items asked at once, chosen by what they would say about the ability as it is estimated before them."""
    se: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """Stop once the ability's standard error is below this (1 = the spread of the models that the bank was made from). Curves should not mix budgets: leave it out to ask `items` at every step."""


class Evaluation(Strict):
    benchmark: str
    """Short name (`gsm8k`, `math500`, `arithmetic`, ...), import path of a benchmark, or a file that is one (`.jsonl`, `.json` or `.parquet`: what `posttrain benchmark build` writes, or YourBench's table; relative to the working directory)."""
    path: str | None = None
    """Local file with its rows instead of the hub."""
    limit: Positive | None = None
    """Only the first problems."""
    samples: Positive = 1
    """Samples a problem."""
    temperature: Annotated[FiniteFloat, Field(ge=0, le=10)] = 0.0
    """0 = greedy (then `samples` must be 1)."""
    top_p: Annotated[FiniteFloat, Field(gt=0, le=1)] = 1.0
    """Nucleus sampling; 1 = off."""
    max_tokens: Positive | None = None
    """Longest completion; absent = `rollouts.sampling.max_tokens`."""
    before: bool = True
    """Evaluate the policy as it is before the first step."""
    after: bool = True
    """Evaluate the trained policy."""
    every: Positive | None = None
    """Also every so many optimiser steps."""
    adaptive: Adaptive | None = None
    """Ask the items of a bank that say most about the policy instead of all problems. Absent = all."""

    @property
    def is_file(self) -> bool:
        """True if the benchmark is a file."""
        return self.benchmark.endswith((".jsonl", ".json", ".parquet"))

    @property
    def name(self) -> str:
        """What its results are called: the short name, or the file's name without its ending. Of an import path only its
        code knows."""
        return Path(self.benchmark).stem if self.is_file else self.benchmark


class Checkpoints(Strict):
    every: Annotated[int, Field(ge=0)] = 50
    """Optimiser steps between checkpoints; 0 = only when the run is stopped (SIGTERM, an alarm)."""
    keep: Positive = 2
    """The last so many whole checkpoints stay on disk."""
    keep_best: Annotated[int, Field(ge=0)] = 0
    """The best so many of all by `metric` stay too."""
    metric: str | None = None
    """What `keep_best` looks at, at the step of the checkpoint: a benchmark under `evaluation` that has `every` (its accuracy), or a metric of `metrics.jsonl` such as `reward` or `eval_loss`."""
    best: Literal["highest", "lowest"] = "highest"
    """Which values of `metric` are good."""


class Watch(Strict):
    stall: Annotated[FiniteFloat, Field(gt=0)] = 600.0
    """Seconds without any progress on any process after which all stacks are written to the run's folder."""
    deadline: Annotated[FiniteFloat, Field(gt=0)] = 3600.0
    """Seconds without progress after which the run names who is missing, saves what it has and ends."""
    parity: Annotated[FiniteFloat, Field(gt=0)] | None = None
    """Largest difference, in nats a token, between engine and trainer log-probs of a fixed prompt after a sync; absent = by `model.dtype`."""


class Run(Strict):
    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$")]
    """Name of the run and of its folder: letters, digits, `.`, `_`, `-`."""
    directory: str = "runs"
    """Folder that holds the runs' folders."""
    seed: Annotated[int, Field(ge=0, lt=2**31)] = 0
    """All randomness of the run is derived from it."""
    report_to: list[str] = Field(default_factory=list)
    """TRL's trackers besides `metrics.jsonl`: `tensorboard`, `wandb`, `trackio`, ..."""


class Recipe(Strict):
    """One training run, from data to page."""

    model: Model
    """The policy's base model."""
    adapter: Adapter | None = None
    """LoRA adapter; absent = full fine-tuning."""
    data: Data
    """What to train on."""
    rewards: list[Reward] = Field(default_factory=list)
    """Reward functions, summed with their weights. For `grpo` and `rloo` at least one."""
    rollouts: Rollouts = Field(default_factory=Rollouts)
    """How completions are made."""
    trainer: Trainer
    """What is done with them."""
    evaluation: list[Evaluation] = Field(default_factory=list)
    """Benchmarks, before, during and after."""
    checkpoints: Checkpoints = Field(default_factory=Checkpoints)
    """When the state of the run is saved, and which checkpoints stay."""
    preflight: Literal["stop", "warn", "off"] = "stop"
    """Checks before the first step: `stop` at a failed one, `warn` and go on, or `off`."""
    watch: Watch = Field(default_factory=Watch)
    """Limits of the invariants and deadlines that are kept while the run goes on."""
    run: Run
    """Name, folder, seed, trackers."""
