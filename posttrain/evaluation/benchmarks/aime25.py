"""AIME 2025, I and II: 30 problems; newer than most models' training data, so to be read beside AIME 2024."""

from __future__ import annotations

from posttrain.evaluation.benchmarks.aime24 import read
from posttrain.evaluation.benchmarks.base import Benchmark
from posttrain.evaluation.rows import Hub

benchmark = Benchmark("aime25", read, Hub("math-ai/aime25", "test"), size=30)
