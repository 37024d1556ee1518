"""One self-contained page a run, made from the run's files alone."""

from posttrain.report.page import build

__all__ = ["build"]
