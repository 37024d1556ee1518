"""Engines that note every request before they work on it, for tests that count what was asked."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from rollouts.engines.transformers import TransformersEngine
from rollouts.engines.vllm import VLLMEngine


def note(seeds: Sequence[int]) -> None:
    """One line a request; then long enough a pause that a kill comes between two calls or in one."""
    with open(os.environ["ASKED"], "a") as file:
        file.writelines(f"{seed}\n" for seed in seeds)
    time.sleep(float(os.environ.get("PAUSE", "0")))


class CountingTransformers(TransformersEngine):
    def generate(self, prompt_ids: Any, sampling: Any, seeds: Sequence[int]) -> Any:
        note(seeds)
        return super().generate(prompt_ids, sampling, seeds)


class CountingVLLM(VLLMEngine):
    def generate(self, prompt_ids: Any, sampling: Any, seeds: Sequence[int]) -> Any:
        note(seeds)
        return super().generate(prompt_ids, sampling, seeds)
