"""Matrices in LaTeX, and as programs print them."""

from __future__ import annotations

import re

from rewards.grading.brackets import members
from rewards.grading.normalise import closed
from rewards.grading.shapes import Matrix

_MATRIX = re.compile(
    r"(?P<factor>.{0,80}?)(?P<open>[\[(|]?)\s*\\begin\{(?P<env>[pbBvV]?(?:small)?matrix|array)\}(?:\{[lcr| ]+\})?(?P<body>.*?)\\end\{(?P=env)\}\s*[\])|]?(?P<turned>\s*\^\s*\{?\s*(?:T|\\top|\\intercal)\s*\}?)?",
    re.DOTALL,
)


def matrix_in(text: str) -> Matrix | None:
    """A matrix in LaTeX with its factor, turned if a T is above it; None for anything else."""
    found = _MATRIX.fullmatch(text)
    if not found or found["env"].startswith(("v", "V")) or found["open"] == "|" or r"\det" in found["factor"]:
        return None
    rows = [row for row in re.split(r"\\\\(?:\[[^\]]*\])?", found["body"].replace(r"\hline", "")) if row.strip()]
    factor = closed(re.sub(r"\\(?:cdot|times)\s*$", "", found["factor"].strip()))
    if "=" in factor or not rows:
        return None
    entries = [[closed(entry) for entry in row.split("&")] for row in rows]
    if found["turned"]:
        if len({len(row) for row in entries}) != 1:
            return None
        entries = [list(column) for column in zip(*entries, strict=True)]
    return Matrix(tuple(tuple(row) for row in entries), "-1" if factor == "-" else factor)


_ROWS = re.compile(r"\[\s*\[[^\[\]]+\](?:\s*,\s*\[[^\[\]]+\])*\s*\]")


def nested_rows(text: str) -> Matrix | None:
    """`[[1,0],[0,1]]` as programs print a matrix."""
    if not _ROWS.fullmatch(text):
        return None
    rows = [tuple(members(row)) for row in members(text)]
    return Matrix(tuple(rows)) if all(row[0] and len(row) == len(rows[0]) for row in rows) else None
