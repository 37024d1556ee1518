"""The table of metrics against what the installed TRL really logs, read from its source."""

from __future__ import annotations

import ast
import importlib.util
import re
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.metrics import METRICS, Metric, describe, markdown_table

TRAINERS = ("grpo", "rloo", "dpo", "sft")
OURS = [f"time/{p}" for p in ("generation", "rewards", "logprobs", "training", "sync", "other")] + [
    "rewards/math:correct/faults",
    "rewards/my/brevity/mean",
    "completions/truncated",
    "policy_version",
    "sampling/ess",
    "sampling/dropped",
]


def logged_by(trainer: str) -> set[str]:
    """Names X of every `self._metrics[...][X]` in TRL's source; the braces of an f-string become a sample name."""
    root = Path(importlib.util.find_spec("trl").origin).parent
    names = set()
    for node in ast.walk(ast.parse((root / "trainer" / f"{trainer}_trainer.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.Subscript) and isinstance(node.value, ast.Subscript):
            holder = node.value.value
            if isinstance(holder, ast.Attribute) and holder.attr == "_metrics":
                if isinstance(node.slice, ast.Constant):
                    names.add(node.slice.value)
                elif isinstance(node.slice, ast.JoinedStr):
                    parts = [p.value if isinstance(p, ast.Constant) else "correct" for p in node.slice.values]
                    names.add("".join(parts))
    return names


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_name_that_trl_logs_is_described(trainer: str) -> None:
    names = logged_by(trainer)
    assert len(names) >= 3, "TRL's source is read no more: it logs its metrics in another way"
    assert {n for n in names if describe(n) is None} == set()
    assert {n for n in names if describe(f"eval_{n}") is None} == set()


def test_what_the_table_says_of_trl_is_still_logged() -> None:
    """An entry whose TRL metric went away is a lie in the docs."""
    known = set().union(*map(logged_by, TRAINERS)) | {"rewards/<name>/mean", "rewards/<name>/std"}
    of_trl = [k for k in METRICS if re.match(r"completions/m|clip_ratio|rewards/[cram]|logps|logits|tools|reward", k)]
    assert len(of_trl) > 20
    assert [k for k in of_trl if k not in known and not k.endswith("/faults")] == []


@pytest.mark.parametrize("name", OURS)
def test_our_own_names_are_described(name: str) -> None:
    assert isinstance(describe(name), Metric)


def test_patterns_do_not_swallow_what_has_its_own_entry() -> None:
    assert describe("rewards/chosen") is METRICS["rewards/chosen"]
    assert describe("rewards/a/b/faults") is METRICS["rewards/<name>/faults"]
    assert describe("rewards/x\ny/mean") is METRICS["rewards/<name>/mean"]
    assert describe("rewards//mean") is None
    assert describe("something/of/mine") is None


def test_every_entry_is_one_line_and_says_something() -> None:
    for name, metric in METRICS.items():
        for text in (metric.meaning, metric.formula):
            assert text.strip() == text, name
            assert len(text) >= 8 or text == "wall seconds", name
            assert "\n" not in text, name
        assert metric.better in ("up", "down", "none"), name


def test_markdown_has_one_row_an_entry() -> None:
    lines = markdown_table().splitlines()
    assert len(lines) == len(METRICS) + 2
    for line in lines:
        assert len(re.findall(r"(?<!\\)\|", line)) == 6, line


def test_reading_the_table_needs_no_torch() -> None:
    code = "import sys, posttrain.metrics; sys.exit('torch' in sys.modules or 'trl' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
