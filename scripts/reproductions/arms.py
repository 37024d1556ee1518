"""What a reproduction of RuscaRL runs: arms, settings, and the list of runs that they come to.

The arms are those of the paper's ablations and one control. All have the recipes of the shelf as they are; an arm is what it changes
in `recipes/rubric_ruscarl.yaml` (or nothing in `rubric_grpo.yaml`), so that what is measured is what users launch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

BATCH = 64
"""Rollouts a step."""
FIFTH = 0.2
"""Share of the budget that the control spends on scaffolded rollouts: t0, as RuscaRL does."""


@dataclass(frozen=True)
class Arm:
    name: str
    title: str
    words: tuple[str, ...] = ()
    """Changes of rubric_ruscarl.yaml; without any and with `scaffold` False it is rubric_grpo.yaml."""
    scaffold: bool = True
    control: bool = False
    """Begin with supervised training on scaffolded rollouts of the base, then plain GRPO on what is left of the budget."""


def _with(**settings: Any) -> tuple[str, ...]:
    return tuple(f"rollouts.strategy.with.{key}={str(value).lower()}" for key, value in settings.items())


PLAIN, METHOD = "grpo", "ruscarl"
ARMS = (
    Arm(PLAIN, "plain GRPO", scaffold=False),
    Arm(METHOD, "RuscaRL (125, 0.2)"),
    Arm("no_decay", "no decay", _with(inter="constant")),
    Arm("linear_decay", "linear decay", _with(inter="linear")),
    Arm("no_differentiation", "no differentiation", _with(intra="all")),
    Arm("in_loss", "scaffold in the loss", _with(in_loss=True)),
    Arm("early", "t0 = 0.1", _with(t0=0.1)),
    Arm("late", "t0 = 0.4", _with(t0=0.4)),
    Arm("sft_first", "SFT on scaffolded rollouts, then GRPO", scaffold=False, control=True),
)
BY_NAME = {arm.name: arm for arm in ARMS}
DECISIVE = (PLAIN, METHOD)


@dataclass(frozen=True)
class Setting:
    """A task and a difficulty."""

    name: str
    title: str
    eps: float
    joint: bool = False
    arms: tuple[str, ...] = DECISIVE


CENTRAL = "eps_0.003"
SETTINGS = (
    Setting("eps_0.05", "eps 0.05", 0.05),
    Setting(CENTRAL, "eps 0.003", 0.003, arms=tuple(BY_NAME)),
    Setting("eps_0.0003", "eps 0.0003", 0.0003),
    Setting("joint", "three behaviours together, eps 0.003", 0.003, joint=True),
)


@dataclass(frozen=True)
class Size:
    """How much of everything."""

    seeds: int = 3
    steps: int = 150
    tuning_steps: int = 60
    rates: tuple[float, ...] = (5e-4, 1e-3, 2e-3)
    every: int = 25
    """Steps between evaluations on the way, ..."""
    on_the_way: int = 2
    """... with so many samples a question."""
    samples: int = 64
    """Samples a question at the end."""
    questions: int = 120
    settings: tuple[str, ...] = tuple(s.name for s in SETTINGS)
    arms: tuple[str, ...] = tuple(BY_NAME)


FULL = Size()
QUICK = Size(
    seeds=2, steps=4, tuning_steps=2, rates=(1e-3,), every=2, on_the_way=1, samples=8, questions=16,
    settings=(CENTRAL,), arms=DECISIVE,
)  # fmt: skip
TUNING_SEED = 0
"""Reported seeds count from 1."""


@dataclass(frozen=True)
class Spec:
    """One run, or one base (`arm` = base): everything that decides its result."""

    arm: str
    setting: str
    eps: float
    joint: bool
    seed: int
    rate: float
    steps: int
    every: int
    on_the_way: int
    samples: int
    questions: int

    @property
    def name(self) -> str:
        """Its folder: letters, digits, dots, dashes."""
        kind = "" if self.arm == "base" else f"-lr{self.rate:g}-{self.steps}"
        return f"{self.setting}-{self.arm}-seed{self.seed}{kind}".replace("_", "-")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def bases(size: Size) -> list[Spec]:
    """The base models that the runs begin from: one a difficulty and seed, so that intervals are over bases too."""
    chosen = [s for s in SETTINGS if s.name in size.settings]
    wanted = {(s.eps, seed) for s in chosen for seed in range(1, size.seeds + 1)}
    wanted.add((next(s.eps for s in SETTINGS if s.name == CENTRAL), TUNING_SEED))
    return [_spec("base", f"eps_{eps:g}", eps, False, seed, 0.0, 0, size) for eps, seed in sorted(wanted)]


def tuning(size: Size) -> list[Spec]:
    """Every arm with every rate, at the central setting, on the tuning seed."""
    (central,) = (s for s in SETTINGS if s.name == CENTRAL)
    return [
        _spec(arm, central.name, central.eps, False, TUNING_SEED, rate, size.tuning_steps, size)
        for arm in size.arms
        for rate in size.rates
    ]


def reported(size: Size, rates: Mapping[str, float]) -> list[Spec]:
    """The runs that are reported, with each arm's own rate; seed by seed, so that a run that is cut has whole seeds."""
    chosen: Sequence[Setting] = [s for s in SETTINGS if s.name in size.settings]
    return [
        _spec(arm, s.name, s.eps, s.joint, seed, rates[arm], size.steps, size)
        for seed in range(1, size.seeds + 1)
        for s in sorted(chosen, key=lambda s: s.name != CENTRAL)
        for arm in s.arms
        if arm in size.arms
    ]


def _spec(arm: str, setting: str, eps: float, joint: bool, seed: int, rate: float, steps: int, size: Size) -> Spec:
    return Spec(arm, setting, eps, joint, seed, rate, steps, size.every, size.on_the_way, size.samples, size.questions)
