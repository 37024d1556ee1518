"""What the page knows of a run, part by part."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from posttrain.report.samples import Samples
from posttrain.report.values import Record, number, step_number


@dataclass
class Series:
    """One metric over the steps. `value` holds None where it was logged without a number."""

    steps: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)


@dataclass
class Evaluation:
    """One `result.json`."""

    folder: str
    when: str
    step: int | None
    benchmark: str
    result: Record

    @property
    def moment(self) -> str:
        """`when` for reading: `before`, `step 50`, `after`."""
        return f"step {self.step}" if self.step is not None and self.when.startswith("step-") else self.when

    @property
    def metrics(self) -> Record:
        metrics = self.result.get("metrics")
        return metrics if isinstance(metrics, dict) else {}

    @property
    def adaptive(self) -> Record | None:
        """What an adaptive evaluation found; None for all others."""
        found = self.result.get("adaptive")
        return found if isinstance(found, dict) else None

    def ability(self) -> tuple[float, float | None] | None:
        """Ability and its standard error, where the evaluation was adaptive."""
        found = self.adaptive or {}
        given = found.get("ability")
        entry = given if isinstance(given, dict) else {"value": given, "se": found.get("se")}
        value, se = number(entry.get("value")), number(entry.get("se"))
        return None if value is None else (value, se)

    def estimate(self, name: str = "accuracy") -> tuple[float, float | None, float | None] | None:
        """(value, low, high) of a metric (or of `strict`), shares of 1; the bounds are None where the result has none."""
        entry = self.result.get("strict") if name == "strict" else self.metrics.get(name)
        entry = entry if isinstance(entry, dict) else {"value": entry}
        value, low, high = number(entry.get("value")), number(entry.get("low")), number(entry.get("high"))
        if value is None:
            return None
        return (value, low, high) if low is not None and high is not None else (value, None, None)


@dataclass
class Picked:
    """Rows to read: what was kept, and by which rule."""

    rows: list[Record] = field(default_factory=list)
    rule: str = ""
    steps: int = 0
    """Steps for which there are rollouts on disk."""
    judge: str = ""
    """What `right` and `wrong` mean for the training rollouts; empty if nothing says."""


@dataclass
class Faults:
    total: int = 0
    kinds: list[tuple[str, str, int, Record]] = field(default_factory=list)
    """(reward, kind, how often, the first of them), most frequent first."""
    listed: list[Record] = field(default_factory=list)


@dataclass
class Run:
    root: Path
    name: str
    status: Record = field(default_factory=dict)
    recipe: str = ""
    resolved: Record = field(default_factory=dict)
    environment: Record = field(default_factory=dict)
    plan: Record = field(default_factory=dict)
    train: dict[str, Series] = field(default_factory=dict)
    held_out: dict[str, Series] = field(default_factory=dict)
    """What TRL's own evaluation loop logged."""
    summary: Record = field(default_factory=dict)
    stride: int = 1
    cut_off: bool = False
    """It did not end, and no process is at work on it."""
    last_time: float | None = None
    """When the last line of metrics was written (unix seconds)."""
    evaluations: list[Evaluation] = field(default_factory=list)
    evaluation_root: Path = Path(".")
    """Where the folders of the evaluations are."""
    alone: bool = False
    """There is no run: the folder is that of one evaluation."""
    told: dict[str, Samples] = field(default_factory=dict)
    """By folder, what all samples of an evaluation say; of each benchmark the first and the last."""
    rollouts: Picked = field(default_factory=Picked)
    samples: list[Record] = field(default_factory=list)
    faults: Faults = field(default_factory=Faults)
    notes: list[str] = field(default_factory=list)

    @property
    def last_step(self) -> int:
        """The last step that any file speaks of; 0 before the first."""
        logged = [series.steps[-1] for series in self.train.values() if series.steps]
        return max([*logged, step_number(self.status.get("steps")) or 0], default=0)
