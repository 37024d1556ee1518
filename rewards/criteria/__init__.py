"""Rubrics: criteria with points, where they are read from, what code can check, and what they come to."""

from rewards.criteria.item import Criterion, Verdict
from rewards.criteria.scoring import aggregate, score

__all__ = ["Criterion", "Verdict", "aggregate", "score"]
