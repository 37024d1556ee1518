"""What a rollout's record holds beside its texts, as the page reads it: rubric, scaffold, the rest; and that it is bounded."""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.report import build, curves, data, told
from posttrain.rundir import RunDir, append_line
from rewards.criteria.item import Criterion, Verdict
from rewards.criteria.scoring import score

MakeRun = Callable[..., Path]


def criterion(points: float, verdict: str, text: str = "c", why: str = "") -> dict[str, object]:
    return {
        "text": text,
        "points": points,
        "tags": [],
        "by": "judge",
        "verdict": verdict,
        "why": why,
        "agreement": None,
    }


def rubric(*criteria: dict[str, object], score: float | None = None, name: str = "rubric") -> data.Record:
    return told.of_record({"extras": {name: {"criteria": list(criteria), "score": score}}}, True)["rubrics"][0]


points = st.floats(-20, 20).filter(bool)
verdicts = st.sampled_from(list(Verdict))


@given(st.lists(st.tuples(points, verdicts), max_size=12), st.sampled_from(["mask_row", "drop_criterion"]))
def test_earned_over_possible_is_the_score_that_the_reward_gave(pairs, on_error):
    given_score = score([Criterion("c", p) for p, _ in pairs], [v for _, v in pairs], on_error)
    read = rubric(*(criterion(p, v) for p, v in pairs), score=given_score)
    if given_score is not None:
        assert read["earned"] / read["possible"] == pytest.approx(given_score)
    assert read["failed"] == sum(v is Verdict.FAILED for _, v in pairs)


def test_a_failed_verdict_is_neither_met_nor_unmet():
    one = criterion(5, "met"), criterion(3, "failed", why="no answer"), criterion(-4, "failed"), criterion(-2, "met")
    dropped = rubric(*one, score=0.6)
    assert (dropped["earned"], dropped["possible"], dropped["failed"]) == (3, 5, 2)
    assert (dropped["met"], dropped["wanted"], dropped["present"]) == (1, 2, 1)
    masked = rubric(*one)
    assert (masked["earned"], masked["possible"], masked["score"]) == (3, 8, None)
    assert rubric(criterion(1, "perhaps"))["criteria"][0]["verdict"] == "failed"


def test_a_key_in_the_judges_failure_is_not_shown():
    secret = "sk-" + "a1B2" * 12
    read = rubric(criterion(1, "failed", why=f"401 for {secret}"))
    assert secret not in read["criteria"][0]["why"]
    assert told.also({"api_key": secret, "note": f"is {secret}"}) == [
        ["api_key", "(not shown)"],
        ["note", "is (not shown)"],
    ]


def test_two_rubrics_of_two_rewards_are_told_apart():
    value = {"criteria": [criterion(1, "met")], "score": 1.0}
    read = told.of_record(
        {"extras": {"rubric": value, "tone/rubric": value, "rubric_notes": value, "odd/rubric": [1]}}, True
    )
    assert [one["name"] for one in read["rubrics"]] == ["rubric", "tone/rubric"]
    assert {name.partition(".")[0] for name, _ in read["also"]} == {"rubric_notes", "odd/rubric"}


def test_what_was_shown_of_the_scaffold():
    info = {"scaffold_ratio": 0.5, "scaffold_shown": [2, 0], "scaffold_tokens": 31, "scaffold_dropped": 1, "turns": 3}
    read = told.of_record({"info": info}, True)
    assert read["scaffold"] == {"shown": [2, 0], "ratio": 0.5, "tokens": 31, "dropped": 1, "same": True}
    assert read["also"] == [["turns", "3"]]
    assert told.of_record({"info": {"turns": 3}}, True)["scaffold"] is None
    assert told.of_record({}, True) == {"rubrics": [], "scaffold": None, "also": []}


@pytest.mark.parametrize(("strategy", "reward", "same"), [
    ("scaffold", {}, True),
    ({"use": "scaffold", "with": {"alpha": 3}}, {"column": "rubric"}, True),
    ({"use": "scaffold", "with": {"show": "steps", "column": "steps"}}, {}, False),
    ({"use": "scaffold", "with": {"column": "hints"}}, {"at_most": 0.1}, False),
    ({"use": "scaffold", "with": {"column": "hints"}}, {}, False),
    ("scaffold", {"criteria": "all.yaml"}, False),
])  # fmt: skip
def test_the_scaffold_shows_the_criteria_that_score_or_others(strategy, reward, same):
    resolved = {"rollouts": {"strategy": strategy}, "rewards": [{"use": "rewards.rubric:Rubric", "with": reward}]}
    assert told.shows_the_rubric(resolved) is same


def test_the_alarm_is_the_recipes():
    def of(**given: object) -> data.Record:
        return {"use": "rewards.rubric:Rubric", "with": given}

    assert told.alarm({"rewards": [of(), of(at_most=0.02)]}) == 0.02
    assert told.alarm({"rewards": [of()]}) == told.AT_MOST
    assert told.alarm({"rewards": [{"use": "rewards.math:correct"}]}) is None
    assert told.alarm({}) is None


def test_the_rewards_own_default_and_window_are_those_that_the_page_names():
    import inspect

    from rewards.rubric import WINDOW, Rubric

    assert inspect.signature(Rubric).parameters["at_most"].default == told.AT_MOST
    assert told.WINDOW == WINDOW


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 40), st.integers(1, 30), st.integers(0, 3_000), st.integers(500, 200_000))
def test_all_of_it_is_bounded(rollouts, criteria, length, most):
    rows = [
        told.of_record({"extras": {
            "rubric": {"criteria": [criterion(1, "met", f"{i // 8} {k}" + "x" * length, "y" * length) for k in range(criteria)]},
            "own": {"a": "z" * length},
        }}, True)
        for i in range(rollouts)
    ]  # fmt: skip
    before = copy.deepcopy(rows)
    said = told.fit(rows, most)
    table: list[object] = []
    known: dict[str, int] = {}
    sent = [told.packed(row["rubrics"], known, table) for row in rows]
    texts = sum(len(why) for one in sent for r in one for *_, why, _ in r["criteria"]) + sum(
        len(text) for text, *_ in table
    )
    assert texts + sum(len(n) + len(t) for row in rows for n, t in row["also"]) <= most
    assert bool(said) == (rows != before)


def test_what_does_not_fit_is_left_out_by_whole_groups_from_all_over_the_run():
    rows = [
        told.of_record({"extras": {"rubric": {"criteria": [criterion(1, "met", f"{i // 8}", "y" * 250) for _ in range(20)]}}}, True)
        | {"step": i // 40, "row_id": f"r{i // 8}"}
        for i in range(400)
    ]  # fmt: skip
    assert "rollouts are left out" in told.fit(rows, 1_000_000)
    kept = [i // 8 for i, row in enumerate(rows) if row["rubrics"]]
    assert all(kept.count(group) == 8 for group in set(kept))
    gaps = {b - a for a, b in pairwise(sorted(set(kept)))}
    assert gaps <= {2, 3}
    assert {i // 40 for i, row in enumerate(rows) if row["rubrics"]} == set(range(10))
    assert all(row.get("left_out", False) is not bool(row["rubrics"]) for row in rows)


def test_a_long_rubric_is_cut_and_its_points_are_of_all():
    read = rubric(*(criterion(1, "met") for _ in range(250)), score=1.0)
    assert (len(read["criteria"]), read["more"], read["earned"], read["possible"]) == (100, 150, 250, 250)


def test_criteria_that_samples_have_in_common_are_sent_once(make_run: MakeRun):
    root = make_run("rubrics", steps=3, evaluations=False, rubrics=True)
    payload = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', build(root).read_text(), re.S)
    sent = json.loads(payload[1])
    assert len(sent["criteria"]) == 4
    assert sum(len(r["criteria"]) for row in sent["rows"] for r in row["rubrics"]) == 4 * 48
    failed = [row for row in sent["rows"] if row["rubrics"][0]["failed"]]
    assert {row["sample"] for row in failed} == {3}
    assert "alarm over the last 1,000" in (root / "report.html").read_text()


def test_the_judges_cost_and_the_scaffold_have_charts_of_their_own(make_run: MakeRun):
    run = data.read(make_run("curves", steps=12, evaluations=False, rubrics=True))
    groups = {group.title: {chart.key: chart for chart in group.charts} for group in curves.build(run)[0]}
    judge = groups["Rubric and judge"]
    assert set(judge) == {
        "rubric_failed",
        "rubric_mean",
        "judge_calls",
        "judge_tokens",
        "judge_seconds",
        "judge_agreement",
    }
    assert [e["label"] for e in judge["rubric_mean"].legend] == ["mean", "clipped to [0, 1]"]
    assert [e["last"] for e in judge["rubric_mean"].legend] == ["-0.1", "0"]
    assert [e["label"] for e in judge["rubric_failed"].legend] == [
        "all criteria",
        "the judge's",
        "alarm over the last 1,000",
    ]
    assert [e["last"] for e in judge["rubric_failed"].legend] == ["3.0 %", "6.0 %", "10.0 %"]
    assert judge["judge_tokens"].legend[0]["last"] == "9,000 tokens"
    assert [e["last"] for e in judge["judge_calls"].legend] == ["32", "8", "25"]
    assert [e["label"] for e in groups["Scaffold"]["scaffold_advantage"].legend] == ["sample 1", "sample 2"]
    left = {name for chart in curves.build(run)[1] for name in chart.names}
    assert not [name for name in left if name.startswith(("judge/", "rubric/", "scaffold/"))]


def test_a_record_from_before_there_were_extras(tmp_path: Path):
    append_line(RunDir(tmp_path).rollout_file(0, 0), {"step": 0, "row_id": "r", "sample": 0, "completion": "x"})
    row = data.read(tmp_path).rollouts.rows[0]
    assert (row["rubrics"], row["scaffold"], row["also"]) == ([], None, [])
