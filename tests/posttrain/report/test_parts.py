"""Accuracy by writer and by scope on the page, from what the evaluation itself wrote."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from posttrain.evaluation.benchmarks.base import Problem
from posttrain.evaluation.parts import parts as measured
from posttrain.report import blocks, build, data, parts
from posttrain.report.run import Evaluation
from posttrain.rundir import RunDir, write_json

EVIL = '<img src=x onerror="window.pwned=1">'


def questions() -> tuple[list[Problem], list[float]]:
    made = []
    for i in range(12):
        writer = ("", "writer-a", EVIL)[i % 3]
        columns = {
            "generator": {"model": writer},
            "scope": "single_hop" if i % 2 else "multi_hop",
            "weight": 1 + i % 4,
        }
        made.append(Problem(f"q{i}", "a", item_id=f"q{i}", cluster=f"q{i}", columns=columns))
    return made, [float(i % 4 == 0) for i in range(12)]


def evaluation(when: str, found: object) -> Evaluation:
    return Evaluation(f"{when}-own", when, 0, "own", {"parts": found})


def test_the_tables_are_what_was_measured():
    found = measured(*questions())
    before, after = evaluation("before", {}), evaluation("after", found)
    weighted, writers, scopes = parts.tables([before, after])
    assert [table.head for table in (weighted, writers, scopes)] == ["weighted", "written by", "scope"]
    value = found["weighted"]["value"]
    assert weighted.rows[0].cells[0] == ("–", "")
    assert weighted.rows[0].cells[1][0] == f"{100 * value:.1f}"
    assert [(row.label, row.n) for row in writers.rows] == [("writer not said", "4"), (EVIL, "4"), ("writer-a", "4")]
    assert {row.label: row.cells[1][0] for row in scopes.rows} == {"multi_hop": "50.0", "single_hop": "0.0"}


def test_a_benchmark_that_knows_nothing_has_none():
    assert parts.tables([evaluation("after", {}), evaluation("after", None)]) == []


def test_odd_parts_are_left_out_and_many_are_cut():
    labels = {f"w{i}": {"n": 1, "value": 0.5} for i in range(60)}
    found = {"weighted": 3, "by_writer": labels, "by_scope": ["x"]}
    weighted, writers = parts.tables([evaluation("after", found)])
    assert weighted.rows[0].cells == [("–", "")]
    assert (len(writers.rows), writers.more) == (40, 20)
    assert writers.rows[0].cells == [("50.0", "no interval")]


def test_they_are_on_the_page_and_escaped(make_run: Callable[..., Path]):
    root = make_run("parts", steps=3)
    path = RunDir(root).evaluation("after", "arithmetic") / "result.json"
    result = data.read_object(path, [])
    write_json(path, {**result, "parts": measured(*questions())})
    [block] = [b for b in blocks.build(data.read(root)) if b.benchmark == "arithmetic"]
    assert len(block.parts) == 3
    html = build(root).read_text(encoding="utf-8")
    assert "Accuracy by question" in html
    assert "&lt;img src=x onerror=" in html
    assert EVIL not in html.split("<script type=")[0]
