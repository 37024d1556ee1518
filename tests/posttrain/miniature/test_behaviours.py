"""The behaviours: rubrics that nothing was taught, an end that cannot be gone without, hints in the words that the base knows."""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.miniature import behaviours, task
from posttrain.miniature.base import _chats
from posttrain.miniature.behaviours import CATEGORIES, CODES, JOINT, TASK, Demonstrated, Question, rubric, segment
from posttrain.miniature.hints import Hints
from rewards.criteria import running
from rewards.rubric import Rubric
from rollouts.records import Row

QUESTIONS = st.builds(
    Question, st.sampled_from(CATEGORIES), st.text("abcdefghijklmnopqrstuvwxyz", min_size=3, max_size=3)
)
PIECES = st.lists(st.sampled_from([*CODES, ".", "z", "0", "+"]), max_size=14)


@pytest.fixture(scope="module", autouse=True)
def workers():
    yield
    running.close()


def text_of(pieces: list[str], topic: str) -> str:
    return "".join(segment(one, topic) if one in CODES else one for one in pieces)


def said(text: str) -> list[dict[str, str]]:
    return [{"role": "assistant", "content": text}]


@pytest.mark.parametrize("joint", [False, True])
@settings(max_examples=12, deadline=None)
@given(st.lists(st.tuples(QUESTIONS, PIECES, st.booleans()), min_size=8, max_size=16))
def test_the_reward_by_patterns_is_the_tasks_own_score(joint, cases):
    one = JOINT if joint else TASK
    texts = [text_of(pieces, q.topic) + "." * end for q, pieces, end in cases]
    columns = [one.columns(q)["rubric"] for q, _, _ in cases]
    rewards = asyncio.run(Rubric()([said(text) for text in texts], rubric=columns))
    assert rewards == pytest.approx([one.score(q, said(t)) for (q, _, _), t in zip(cases, texts, strict=True)])


@given(QUESTIONS, PIECES)
def test_without_an_end_nothing_is_better_than_with_one(question, pieces):
    text = text_of([p for p in pieces if p != "."], question.topic)
    for one in (TASK, JOINT):
        open_, closed = one.score(question, said(text)), one.score(question, said(text + "."))
        assert open_ <= 0.0
        assert open_ <= closed
        assert one.score(question, said(text + ".z")) == open_


@given(QUESTIONS, st.integers(0, 2**32))
def test_the_reference_has_full_marks_and_the_wrong_one_has_not(question, seed):
    for one in (TASK, JOINT):
        assert one.score(question, one.solve(question)) == 1.0
        assert one.score(question, one.wrong(question, random.Random(seed))) < 1.0


@given(QUESTIONS)
def test_three_together_or_nothing(question):
    codes = rubric(question.category, joint=True)[0].codes
    assert len(codes) == 3
    for left_out in codes:
        text = text_of([c for c in codes if c != left_out], question.topic) + "."
        assert JOINT.score(question, said(text)) == 0.0


def test_rubrics_are_as_the_card_says():
    for category in CATEGORIES:
        points = [one.points for one in rubric(category)]
        assert sum(p > 0 for p in points) == 5
        assert set(points[:5]) <= {3, 5, 8}
        assert points[5:] == [-4, -4]
        assert len({one.codes for one in rubric(category)}) == 7
    assert len({rubric(category) for category in CATEGORIES}) == 8


def test_topics_are_held_out_of_everything():
    topics = behaviours.held_out_topics()
    assert len(topics) == 120
    assert {q[1:] for q in behaviours.held_out(960)["question"]} == topics
    assert not {q[1:] for q in behaviours.train(3000)["question"]} & topics
    shown = [chat[-2]["content"][1:] for chat in islice(_chats(Demonstrated(), 0, 0.05), 5000)]
    assert not set(shown) & topics


def test_demonstrations_know_no_category_and_do_what_they_are_told():
    rng = random.Random(0)
    asked: dict[str, Counter[str]] = {category: Counter() for category in CATEGORIES}
    hinted = unasked = chances = 0
    for _ in range(16_000):
        question = Demonstrated().draw(rng)
        told, _, bad = question.hint.strip("[]").partition("-")
        told = told.strip()
        asked[question.category].update(told)
        text = TASK.demonstrate(question, rng, flawed=0.05)[-1]["content"]
        there = [code for code in CODES if segment(code, question.topic) in text]
        assert behaviours.ended(text)
        assert set(told) <= set(there)
        assert not set(bad) & set(there)
        assert sorted(told, key=lambda c: text.index(segment(c, question.topic))) == list(told)
        hinted += bool(question.hint)
        unasked += len(set(there) - set(told))
        chances += 10 - len(told) - len(bad)
    assert hinted / 16_000 == pytest.approx(0.7, abs=0.015)
    assert unasked / chances == pytest.approx(0.05, abs=0.003)
    for counts in asked.values():  # each behaviour in each category as often as in any other: 5 standard errors
        mean = sum(counts.values()) / 10
        assert all(abs(counts[code] - mean) < 5 * mean**0.5 for code in CODES)


def row_of(question: Question, joint: bool = False) -> Row:
    made = task.row(JOINT if joint else TASK, question)
    return Row(made["row_id"], made["prompt"], {"rubric": made["rubric"]})


@given(QUESTIONS, st.data())
def test_the_scaffold_speaks_as_the_demonstrations_do(question, data):
    shown = data.draw(st.lists(st.integers(0, 6), unique=True, min_size=1, max_size=7))
    criteria = rubric(question.category)
    row = row_of(question)
    prompt = Hints().prompt(row, shown)
    good = [criteria[i].codes for i in shown if criteria[i].points > 0]
    bad = [criteria[i].codes for i in shown if criteria[i].points < 0]
    assert prompt == Demonstrated().prompt(Question(question.category, question.topic, behaviours.hint(good, bad)))
    assert Hints().prompt(row, []) == TASK.prompt(question)


def test_a_joint_criterion_is_told_by_all_its_codes():
    question = Question("P", "abc")
    codes = rubric("P", joint=True)[0].codes
    assert Hints().text(row_of(question, joint=True), [0]) == f"[{codes}]"


@pytest.mark.slow
@pytest.mark.parametrize("joint", [False, True])
def test_the_base_does_what_it_is_told_and_next_to_nothing_untold(joint):
    """The card's requirements, on topics it never saw. (Trained once a machine, in the user's own cache.)"""
    from transformers import AutoTokenizer

    from posttrain.miniature.tokenizer import END, STOP
    from rollouts.engines.transformers import TransformersEngine
    from rollouts.records import Ask, EngineSpec, Sampling, Session
    from rollouts.strategies.single import SingleTurn

    folder = behaviours.base()
    assert (Path(folder) / "made.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    eos = tuple(tokenizer.convert_tokens_to_ids([END, STOP]))
    engine = TransformersEngine(EngineSpec(folder, eos, tokenizer.pad_token_id, 256))
    session = Session(engine, tokenizer, Sampling(max_tokens=32), run_seed=0)
    one = JOINT if joint else TASK
    questions = task.problems(one, 120, seed=0, held_out=True)
    means = []
    for hinted in (True, False):
        rows = [row_of(q, joint) for q in questions]
        if hinted:
            rows = [Row(r.row_id, Hints().prompt(r, range(len(r.columns["rubric"])))) for r in rows]
        made = SingleTurn().run([Ask(r, k) for r in rows for k in range(4)], session)
        texts = [tokenizer.decode(r.completion_ids, skip_special_tokens=True) for r in made]
        means.append(sum(one.score(questions[i // 4], said(t)) for i, t in enumerate(texts)) / len(texts))
    assert means[0] >= 0.9
    assert abs(means[1]) <= 0.01
