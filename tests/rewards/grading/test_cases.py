"""Cases of answers that are, or are not, the same: the hand-written ones of the data folder, and more of the same kinds here."""

import json
from collections import Counter
from pathlib import Path

import pytest

from rewards.grading import grade_many
from rewards.grading.extract import extract

HERE = Path(__file__).parent
KINDS = {
    "base", "choice", "complex", "equation", "expression", "extraction", "fraction", "inequality", "infinity", "interval", "log", "matrix",
    "mixed number", "multiple boxes", "nested box", "number", "percent", "pi", "plus-minus", "radical", "ratio", "sequence", "set", "thousands",
    "time", "trig", "tuple", "unit", "word",
}  # fmt: skip


@pytest.fixture(scope="module")
def own_cases():
    return [json.loads(line) for line in (HERE / "cases.jsonl").read_text(encoding="utf-8").splitlines()]


def judged(cases):
    """The wrongly accepted and the wrongly rejected, as text."""
    verdicts = grade_many([(c["gold"], c["prediction"]) for c in cases], timeout=30.0)
    told = [f"{c['gold']} | {c['prediction']} | {v.verdict} {v.rule}" for c, v in zip(cases, verdicts, strict=True)]
    accepted = [t for t, c, v in zip(told, cases, verdicts, strict=True) if v.right and not c["equivalent"]]
    rejected = [t for t, c, v in zip(told, cases, verdicts, strict=True) if c["equivalent"] and not v.right]
    print(f"{len(cases)} cases: {len(accepted)} false positives, {len(rejected)} false negatives")
    return accepted, rejected


def test_the_195_cases(equivalence_cases):
    assert len(equivalence_cases) == 195
    assert {c["note"].partition(":")[0] for c in equivalence_cases} == KINDS
    assert judged(equivalence_cases) == ([], [])


def test_own_cases(own_cases):
    assert judged(own_cases) == ([], [])


def test_own_cases_have_every_kind_in_both_directions(own_cases):
    either = Counter((c["kind"], c["equivalent"]) for c in own_cases)
    assert {kind for kind, _ in either} == KINDS
    assert all(either[kind, True] >= 3 and either[kind, False] >= 3 for kind in KINDS)
    pairs = [(c["gold"], c["prediction"]) for c in own_cases]
    assert len(pairs) == len(set(pairs))


def test_math_verifys_own_cases():
    """Theirs through `grade`: only where the file says why is our verdict another. Golds in prose are read as answers are."""
    head, *cases = [json.loads(line) for line in (HERE / "math_verify.jsonl").read_text(encoding="utf-8").splitlines()]
    assert "Apache-2.0" in head["licence"]
    assert len(cases) == 269

    def gold(text):
        found = extract(text)
        return text if found is None else found.answer

    verdicts = grade_many([(gold(c["gold"]), c["prediction"]) for c in cases], timeout=30.0)
    other = [c["test"] for c, v in zip(cases, verdicts, strict=True) if v.right != c["expected"]]
    assert other == [c["test"] for c in cases if "exception" in c]
    print(f"{len(cases)} cases of Math-Verify: {len(other)} exceptions")
    accepted = [c["test"] for c, v in zip(cases, verdicts, strict=True) if v.right and not c["expected"]]
    assert accepted == ["test_all.py::test_set_rel_assymetry[3]"]  # an interval and the inequality that says it
