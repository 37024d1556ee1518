"""Near-duplicates against all pairs compared one by one, and the pairs that look alike and are not."""

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rapidfuzz import fuzz

from posttrain.evaluation.building import duplicates
from posttrain.evaluation.building.duplicates import Asked, fold


def ask(*pairs):
    return [Asked(q, a) for q, a in pairs]


def test_the_same_question_in_other_order_is_one():
    found = fold(
        [
            Asked("In which year was the Hale observatory opened?", "2022", 80),
            Asked("The Hale observatory was opened in which year?", "in 2022", 95),
            Asked("How many motors move a segment of the mirror?", "three", 90),
        ]
    )
    assert found.kept == [1, 2]
    assert found.weights == [2, 1]
    assert found.stands_for == {0: 1}
    assert found.contradictions == []


@pytest.mark.parametrize(
    "pairs",
    [
        [("How many boats were sold in 2021 in Norway?", "12"), ("How many boats were sold in 2022 in Norway?", "12")],
        [
            ("Who founded the town of Alderby in the hills?", "Ann"),
            ("Who founded the town of Alderly in the hills?", "Bo"),
        ],
        [("Who led the survey?", "Ann"), ("Who led the survey of the northern mountain lakes?", "Ann")],
        [
            ("How many boats were sold in Norway that year?", "12"),
            ("How many boats were sold in Norway that year??", "13"),
        ],
    ],
    ids=["other year", "other name and answer", "words of one among the other's", "contradiction"],
)
def test_what_is_not_one(pairs):
    found = fold(ask(*pairs))
    assert found.stands_for == {}


def test_one_question_with_two_answers_goes_altogether():
    """Two annual reports: "what was the revenue?" has no answer without its document."""
    found = fold(ask(("What was the revenue?", "5"), ("what was the Revenue", "7"), ("Who is the chair?", "Ann Lee")))
    assert found.contradictions == [0, 1]
    assert found.kept == [2]


words = st.sampled_from(["who", "what", "led", "found", "town", "year", "boat", "sold", "in", "of", "7", "8", "ann"])
questions = st.lists(st.lists(words, min_size=1, max_size=7).map(" ".join), max_size=14)


@given(questions, st.data())
@settings(deadline=None)
def test_clusters_are_the_components_of_the_graph_of_all_pairs(texts, data):
    answers = [data.draw(st.sampled_from(["x", "x", "yy"])) for _ in texts]
    found = fold([Asked(q, a, float(len(q))) for q, a in zip(texts, answers, strict=True)])
    n = len(texts)
    lost = {i for i in range(n) for j in range(n) if texts[i] == texts[j] and answers[i] != answers[j]}
    assert set(found.contradictions) == lost
    digits = [Counter(w for w in t.split() if w.isdigit()) for t in texts]
    reach = {i: {i} for i in range(n) if i not in lost}
    for _ in range(n):
        for i in reach:
            for j in reach:
                alike = fuzz.token_sort_ratio(texts[i], texts[j]) >= duplicates.CUT
                if alike and digits[i] == digits[j] and answers[i] == answers[j]:
                    both = reach[i] | reach[j]
                    for k in both:
                        reach[k] = both
    components = {frozenset(c) for c in reach.values()}
    assert {frozenset([k, *(j for j, i in found.stands_for.items() if i == k)]) for k in found.kept} == components
    assert sum(found.weights) + len(lost) == n
    for k, weight in zip(found.kept, found.weights, strict=True):
        members = next(c for c in components if k in c)
        assert weight == len(members)
        assert len(texts[k]) == max(len(texts[i]) for i in members)


def test_blocks_change_nothing(monkeypatch):
    rows = [Asked(f"what colour is the boat number {chr(97 + i % 5)} of the harbour", "red") for i in range(23)]
    whole = fold(rows)
    monkeypatch.setattr(duplicates, "BLOCK", 4)
    assert fold(rows) == whole
    assert len(whole.kept) < 23
