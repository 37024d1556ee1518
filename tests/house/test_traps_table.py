"""The tables of traps and of closed threads name tests that exist, where they say."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "posttrain" / "trainers" / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> list[list[str]]:
    """The cells of the first table under a heading, without its head."""
    part = TEXT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    lines = [line for line in part.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split(" | ")] for line in lines[2:]]


def named(cell: str) -> list[tuple[str, str]]:
    """`file::test` references, and nothing else, in the last cell of a row."""
    found = re.findall(r"`([\w/]+\.py)::(test_\w+)`", cell)
    assert re.sub(r"`[^`]*`|[, ]", "", cell) == "", cell
    assert len(found) == cell.count("`") // 2 > 0, cell
    return found


def test_each_row_names_tests_that_exist():
    tests = {f.relative_to(ROOT / "tests").as_posix(): f for f in (ROOT / "tests").rglob("test_*.py")}
    for heading in ("TRL's traps", "Threads that are closed"):
        for row in rows(heading):
            assert len(row) == 4, row
            for path, name in named(row[-1]):
                there = [f for known, f in tests.items() if known == path or known.endswith(f"/{path}")]
                assert len(there) == 1, f"{path}: {len(there)} such files"
                text = there[0].read_text(encoding="utf-8")
                assert re.search(rf"^(async )?def {name}\(", text, re.M), f"{path}::{name}"


def test_all_traps_are_there_once_and_in_order():
    numbers = [row[0] for row in rows("TRL's traps")]
    assert numbers[:22] == [str(i) for i in range(1, 23)]
    assert set(numbers[22:]) == {"–"}


def test_threads_are_linked_and_claimed_once():
    links = [link for row in rows("Threads that are closed") for link in re.findall(r"\]\((https://[^)]+)\)", row[0])]
    assert len(links) > 20
    assert len(links) == len(set(links))
    assert all(re.search(r"\]\(https://", row[0]) for row in rows("Threads that are closed"))
