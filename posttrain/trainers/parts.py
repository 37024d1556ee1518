"""What a trainer is built from. `posttrain.train` puts the parts together; each trainer takes what it needs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from posttrain.recipe.schema import Recipe
from posttrain.rundir import RunDir
from posttrain.trainers.timing import Timer
from rollouts.records import Engine, Sampling, Strategy

if TYPE_CHECKING:
    from posttrain.trainers.follow import Follower
    from posttrain.trainers.scorer import Judged


@dataclass
class Parts:
    recipe: Recipe
    run: RunDir
    model: Any
    """The base model (`PreTrainedModel`), or a PeftModel that goes on from an existing adapter."""
    tokenizer: Any
    arguments: dict[str, Any]
    """Keyword arguments of the TRL configuration class."""
    train: Any
    """`datasets.Dataset` of rows."""
    eval: Any = None
    peft_config: Any = None
    engine: Engine | None = None
    strategy: Strategy | None = None
    seen_tokens: int = 0
    """Longest prompt with a scaffold that the engine may get; 0 = there are no scaffolds."""
    sampling: Sampling = field(default_factory=Sampling)
    judged: list[Judged] = field(default_factory=list)
    timer: Timer = field(default_factory=Timer)
    callbacks: list[Any] = field(default_factory=list)
    after_step: list[Callable[[Any], None]] = field(default_factory=list)
    """Called with transformers' `TrainerState` after an optimiser step is logged, and before it is saved."""
    invariants: bool = True
    """False: nothing is checked while the run goes on. For measuring what the checks cost; no recipe can say so."""
    failed_saves: int = 0
    """Checkpoints that the disk did not take."""
    failed_in_a_row: int = 0
    """Those since the last that was saved."""
    follower: Follower | None = None
    """Set by the trainer: keeps the engine at the trainer's version."""
    stack: ExitStack = field(default_factory=ExitStack)
    """What must be ended when the run is over, last in first out."""
