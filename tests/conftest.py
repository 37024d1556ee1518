"""How two workers share the tests: `pytest -n 2 --dist loadscope --no-loadscope-reorder`, which is what `scripts/test` gives."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


@cache
def starts_vllm(file: str) -> bool:
    """Whether a file, by its path from the root, has tests that start vLLM."""
    return "mark.vllm" in (ROOT / file).read_text(encoding="utf-8")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The long files come first, so that both workers end at about the same time."""
    if hasattr(config, "workerinput"):
        slow = {item.path for item in items if item.get_closest_marker("slow")}
        items.sort(key=lambda item: (not starts_vllm(item.nodeid.partition("::")[0]), item.path not in slow))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """By file, so that what a module makes once is made once; and all that start vLLM by one worker, one after the other: more
    engines at once would not fit the memory of a small machine. (`--dist loadgroup` would say it with marks, but xdist 3.8 writes
    the group into `_nodeid`, which pytest 9.2 does not read.)"""
    if config.getoption("dist") != "loadscope":
        return None
    from xdist.scheduler.loadscope import LoadScopeScheduling

    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            file = nodeid.partition("::")[0]
            return "vllm" if starts_vllm(file) else file

    return ByFile(config, log)
