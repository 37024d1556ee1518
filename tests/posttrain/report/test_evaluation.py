"""What the page says about evaluations: estimates, comparison in words, lengths, cost, samples to read, ability."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.evaluation.compare import compare
from posttrain.report import blocks, build, data, plots, verdicts
from posttrain.report.samples import KINDS, PICKED, gather, kind_of
from posttrain.rundir import append_line, write_json

EVIL = '<img src=x onerror="window.pwned=1">'


def evaluation(folder: Path, module: Any, verdicts_of: dict[str, list[str]], **other: Any) -> Path:
    """A whole evaluation on disk: verdicts by item."""
    n, k = len(verdicts_of), len(next(iter(verdicts_of.values())))
    right = sum(v == "RIGHT" for found in verdicts_of.values() for v in found) / (n * k)
    write_json(folder / "result.json", module.result_of("before", right, 0.1, **{"n": n, "k": k, **other}))
    for item, found in verdicts_of.items():
        for j, verdict in enumerate(found):
            append_line(folder / "samples.jsonl", module.sample_of(item, j, verdict, f"{EVIL} {item} {j}"))
    return folder


@pytest.fixture
def module(request: pytest.FixtureRequest) -> Any:
    """The makers of results and samples in conftest.py."""
    plugin = next(
        p
        for p in request.config.pluginmanager.get_plugins()
        if str(getattr(p, "__file__", "")).endswith("report/conftest.py")
    )
    return SimpleNamespace(result_of=plugin.result_of, sample_of=plugin.sample_of)


def block_of(folder: Path) -> Any:
    [block] = blocks.build(data.read_evaluation(folder))
    return block


def test_every_sample_is_of_one_kind_and_some_of_each_are_shown(module, tmp_path):
    lines = []
    for i in range(40):
        verdict = ("RIGHT", "WRONG", "NONE", "TIMEOUT")[i % 4]
        lines.append(module.sample_of(f"i{i // 2}", i % 2, verdict, "x", finish="length" if i % 10 == 3 else "stop"))
    found = gather(iter(lines), {"k": 2, "settings": "d1"})
    assert sum(found.count.values()) == 40
    assert found.count["truncated"] == 4  # 3, 13, 23, 33: none of them right
    assert found.count["right"] == 10
    assert all(len(found.picked[kind]) == min(PICKED, found.count[kind]) for kind in KINDS)
    assert all(kind_of(line) == kind for kind in KINDS for line in found.picked[kind])
    again = gather(iter(lines[::-1]), {"k": 2, "settings": "d1"})
    assert [s["item_id"] for s in again.picked["right"]] == [s["item_id"] for s in found.picked["right"]]


def test_samples_of_other_settings_or_beyond_k_are_left_out(module):
    lines = [module.sample_of("a", j, "RIGHT", "x") for j in range(3)]
    lines.append({**module.sample_of("b", 0, "RIGHT", "x"), "settings": "another"})
    lines.append({"no": "sample"})
    found = gather(iter(lines), {"k": 2, "settings": "d1"})
    assert (len(found.kept), found.odd) == (2, 1)


def test_the_comparison_in_words_is_the_paired_test(module, tmp_path):
    before = {f"i{i}": ["RIGHT" if i < 10 else "WRONG"] for i in range(60)}
    after = {f"i{i}": ["RIGHT" if i < 40 else "WRONG"] for i in range(60)}
    a, b = evaluation(tmp_path / "a", module, before), evaluation(tmp_path / "b", module, after)
    found = compare(a, b)
    said = verdicts.words(found)
    assert found.verdict == "better"
    assert said.tone == "good"
    assert said.short.startswith("better by 50.0 points [")
    assert "30 problems better, 0 worse, 30 equal" in " ".join(said.long)
    assert f"{100 * found.smallest:.1f} points" in " ".join(said.long)
    same = verdicts.words(compare(a, evaluation(tmp_path / "c", module, before | {"i0": ["WRONG"]})))
    assert same.short.startswith("not distinguishable: down by 1.7 points")
    assert "it could have seen" in same.short
    assert same.tone == "plain"


def test_strict_accuracy_is_shown_where_it_differs_only(module, tmp_path):
    items = {f"i{i}": ["RIGHT", "WRONG"] for i in range(8)}
    one = evaluation(tmp_path / "one", module, items)
    assert "strict" in [name for name, _ in block_of(one).columns]
    result = module.result_of("before", 0.5, 0.1, n=8, k=2)
    other = evaluation(tmp_path / "two", module, items, strict=result["metrics"]["accuracy"])
    assert "strict" not in [name for name, _ in block_of(other).columns]


def test_the_cost_table_says_what_it_took_and_an_old_result_what_it_knows(module, tmp_path):
    items = {f"i{i}": ["RIGHT"] for i in range(4)}
    rows = dict(block_of(evaluation(tmp_path / "new", module, items)).costs)
    assert rows["on"] == ["1 x H100"]
    assert rows["generating"] == ["3.9 s"]
    assert rows["of them attention"] == ["95.0 %"]
    assert "of them from the engine's cache" not in rows  # not known is not 0
    old = evaluation(tmp_path / "old", module, items, cost={}, curves={}, budgets=[], lengths={}, strict=None)
    block = block_of(old)
    assert dict(block.costs)["completion tokens, all samples"] == ["24,576"]
    assert [c.key for c in block.charts] == ["b0-lengths-1"]  # from the samples themselves


@given(
    st.dictionaries(
        st.sampled_from(["RIGHT", "WRONG", "NONE", "TIMEOUT"]),
        st.lists(st.integers(0, 40_000), min_size=1),
        min_size=1,
    )
)
def test_every_length_is_in_one_column(lengths):
    everything = [n for found in lengths.values() for n in found]
    edges = plots.edges_for(everything)
    assert edges == sorted(set(edges))
    assert edges[0] <= min(everything)
    assert max(everything) < edges[-1]
    assert plots.tallest(lengths, edges) <= 1
    chart = plots.histogram("k", "t", lengths, edges, plots.tallest(lengths, edges), None, "")
    counted = [sum(int(text.split(" (")[0].replace(",", "")) for text in c["texts"]) for c in chart.data["curves"]]
    names = ("RIGHT", "WRONG", "NONE", "TIMEOUT")
    assert counted == [len(lengths[v]) for v in names if v in lengths]


def test_an_evaluation_alone_has_a_page_and_nothing_of_it_runs(module, tmp_path):
    items = {EVIL + str(i): ["RIGHT", "WRONG", "NONE"] for i in range(6)}
    folder = evaluation(
        tmp_path / EVIL.replace("/", "").replace('"', "")[:20], module, items, model=EVIL, notes=[EVIL]
    )
    html = build(folder).read_text(encoding="utf-8")
    assert EVIL not in html
    assert "&lt;img src=x" in html
    assert html.count("<script") == html.count("</script>") == 2
    assert "Samples to read" in html


def test_an_evaluation_that_is_not_finished_is_told(module, tmp_path):
    append_line(tmp_path / "samples.jsonl", module.sample_of("a", 0, "RIGHT", "x"))
    with pytest.raises(Mistake, match="an evaluation that is not finished"):
        build(tmp_path)


def test_ability_over_training_has_its_band(module, make_run):
    root = make_run("adaptive", steps=30)
    for step, ability in ((10, -0.5), (20, 0.1), (30, 0.9)):
        folder = root / "evaluation" / f"step-{step:06d}-gsm8k"
        adaptive = {"ability": ability, "se": 0.25, "items": 50, "trace": [], "stop": "items"}
        write_json(folder / "result.json", module.result_of(f"step-{step:06d}", 0.4, 0.1, "gsm8k", adaptive=adaptive))
    run = data.read(root)
    block = next(b for b in blocks.build(run) if b.benchmark == "gsm8k, adaptive")
    chart = next(c for c in block.charts if c.key.endswith("-ability"))
    assert block.words is None  # two models answered different items
    assert "± one standard error" in chart.formula
    assert str(chart.svg).count('class="area band ') == 1
    html = build(root).read_text(encoding="utf-8")
    assert "Ability over training" in html
    assert "gsm8k, adaptive" in html
    assert [(row.ability.value, row.ability.interval) for row in block.rows] == [
        ("-0.50", "± 0.25"),
        ("+0.10", "± 0.25"),
        ("+0.90", "± 0.25"),
    ]
    assert "predicted accuracy" in html


def test_a_note_of_every_moment_is_said_once():
    rows = [blocks.Row(when, [], [], "", "", None, notes) for when, notes in (
        ("before", ["a", "b"]), ("step 1", ["a", "c"]), ("step 2", ["a", "c"]), ("step 3", ["a", "c"]), ("after", ["a", "c"]))]  # fmt: skip
    assert blocks.said_of(rows) == [("", "a"), ("before", "b"), ("step 1 and 3 others", "c")]
    assert blocks.said_of(rows[:1]) == [("before", "a"), ("before", "b")]
