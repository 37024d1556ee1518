"""Who is shown what, when, and what comes back: the strategy on an engine that only notes what it is asked."""

from __future__ import annotations

import json
import logging
import random
from dataclasses import replace
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rollouts.records import Ask, Completion, Progress, Row, Sampling, Session
from rollouts.strategies import STRATEGIES
from rollouts.strategies.scaffold import Scaffold
from rollouts.strategies.schedules import count

RUBRIC = [{"criterion": f"criterion number {i}", "points": -4 if i % 4 == 3 else 5} for i in range(11)]
TEMPLATE = {"system": "S", "user": "U", "assistant": "A"}


class Words:
    """A tokenizer of words, whose template puts a default system turn where there is none, as Qwen2.5's does."""

    bos_token = None

    def __init__(self):
        self.vocabulary = {}

    def __call__(self, text, add_special_tokens=True):
        return {"input_ids": [self.vocabulary.setdefault(w, len(self.vocabulary)) for w in text.split()]}

    def apply_chat_template(self, prompt, **_):
        turns = prompt if prompt[0]["role"] == "system" else [{"role": "system", "content": "default"}, *prompt]
        return self(" ".join(f"<{t['role']}> {t['content']}" for t in turns) + " <assistant>")

    def decode(self, ids, **_):
        words = dict(enumerate(self.vocabulary))
        return " ".join(words.get(i, "?") for i in ids)


class Noting:
    """Answers with its seed, and keeps what it was shown."""

    shared, same_numerics, version = False, True, 0

    def __init__(self):
        self.asked = []

    def generate(self, prompt_ids, sampling, seeds):
        self.asked += [list(ids) for ids in prompt_ids]
        return [Completion([s % 1000, 1], [-1.0, -0.5], "stop", 0) for s in seeds]

    def sync(self, policy, *, publish=True): ...

    def close(self): ...


WORDS = Words()


def session(step=1, steps=350, group=8, training=True, seed=0):
    progress = Progress(step, steps) if training else None
    return Session(Noting(), WORDS, Sampling(), seed, progress=progress, group=group, training=training)


def asks(*names, group=8, rubric=RUBRIC, prompt=None, **columns):
    prompt = prompt or [{"role": "user", "content": "how much ?"}]
    return [Ask(Row(name, prompt, {"rubric": rubric, **columns}), i) for name in names for i in range(group)]


def shown(rollouts):
    return [r.info["scaffold_shown"] for r in rollouts]


def test_its_short_name():
    assert STRATEGIES["scaffold"] == "rollouts.strategies.scaffold:Scaffold"


@pytest.mark.parametrize(
    ("step", "sizes"),
    [(1, [11, 9, 8, 6, 5, 3, 2, 0]), (71, [5, 5, 4, 3, 2, 2, 1, 0]), (78, [1, 1, 1, 0, 0, 0, 0, 0]), (88, [0] * 8)],
)
def test_the_group_of_the_card(step, sizes):
    s = session(step)
    made = Scaffold().run(asks("a"), s)
    assert [len(x) for x in shown(made)] == sizes
    plain = WORDS.apply_chat_template([{"role": "user", "content": "how much ?"}])["input_ids"]
    for rollout, ids, n in zip(made, s.engine.asked, sizes, strict=True):
        assert rollout.prompt_ids == plain, "the loss sees the row's own prompt"
        assert (ids != plain) == (n > 0), "the engine sees another exactly where something is shown"
        assert rollout.seen_ids == (ids if n else None)
        assert rollout.info["scaffold_tokens"] == len(ids) - len(plain)
        text = WORDS.decode(ids)
        assert text.count("<system>") == 1
        for i, item in enumerate(RUBRIC):
            assert (f"- {item['criterion']} " in text) == (i in rollout.info["scaffold_shown"])
    assert "rubric" not in made[0].info


def test_the_scaffold_in_the_loss_is_the_other_way_round():
    s = session(1)
    strategy = Scaffold(in_loss=True)
    made = strategy.run(asks("a"), s)
    assert [r.prompt_ids for r in made] == s.engine.asked
    assert all(r.seen_ids is None for r in made)
    assert (strategy.shows_more, Scaffold().shows_more) == (False, True)


@pytest.mark.parametrize("inter", ["sigmoid", "constant", "linear", "power", "step", "adaptive"])
def test_where_nothing_is_trained_nothing_is_shown(inter):
    s = session(training=False)
    made = Scaffold(inter=inter).run(asks("a"), s)
    plain = s.encode([{"role": "user", "content": "how much ?"}])
    assert s.engine.asked == [plain] * 8
    assert all(r.seen_ids is None and r.info == {} for r in made)


def test_within_a_group():
    assert [len(x) for x in shown(Scaffold(inter="constant", intra="all").run(asks("a"), session()))] == [11] * 8
    four = shown(Scaffold(inter="constant", intra="binary", m=4).run(asks("a"), session()))
    assert four == [list(range(11))] * 4 + [[]] * 4, "at ratio 1 all criteria, in their order"
    alone = Scaffold(inter="constant").run(asks("a", group=1), session(group=1))
    assert shown(alone) == [list(range(11))]
    assert shown(Scaffold(inter="constant").run(asks("a", rubric=[]), session())) == [[]] * 8
    twice = shown(Scaffold(inter="constant").run(asks("a", group=16), session()))
    assert [len(x) for x in twice] == [11, 9, 8, 6, 5, 3, 2, 0] * 2


def test_a_step_is_everything_and_then_nothing():
    strategy = Scaffold(inter="step", t0=0.5, intra="all")
    sizes = [len(shown(strategy.run(asks("a", group=1), session(s, 5)))[0]) for s in range(1, 6)]
    assert sizes == [11, 11, 0, 0, 0]


@given(st.permutations(range(24)), st.integers(1, 24), st.integers(1, 90), st.integers(0, 2**31))
@settings(max_examples=40, deadline=None)
def test_the_key_alone_decides_what_is_drawn(order, cut, step, seed):
    """Any split of a batch over calls (processes), any order: the same subsets; and none of the global streams is touched."""
    every = asks("a", "b", "c")
    whole = {(r.row_id, r.sample): r.info["scaffold_shown"] for r in Scaffold().run(every, session(step, seed=seed))}
    random.seed(seed)
    state = random.getstate()
    parts = [[every[i] for i in order[:cut]], [every[i] for i in order[cut:]]]
    made = [r for part in parts if part for r in Scaffold().run(part, session(step, seed=seed))]
    assert random.getstate() == state
    assert {(r.row_id, r.sample): r.info["scaffold_shown"] for r in made} == whole


def test_draws_differ_by_iteration_row_sample_and_run():
    def drawn(step=1, name="a", seed=0):
        return [
            tuple(x) for x in shown(Scaffold(inter="constant", intra="all").run(asks(name), session(step, seed=seed)))
        ]

    def half(step=1, name="a", seed=0):
        """alpha so small that the ratio is about one half all the time: 5 or 6 of 11."""
        made = Scaffold(alpha=1e-9, intra="all").run(asks(name), session(step, seed=seed))
        return [tuple(x) for x in shown(made)]

    assert drawn() == [tuple(range(11))] * 8
    every = [*half(), *half(step=2), *half(name="b"), *half(seed=1)]
    assert len(set(every)) == 32


def test_going_on_gives_what_an_unbroken_run_gives():
    straight = [shown(Scaffold().run(asks("a", "b"), session(s))) for s in range(60, 82)]
    first = Scaffold()
    before = [shown(first.run(asks("a", "b"), session(s))) for s in range(60, 70)]
    second = Scaffold()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert before + [shown(second.run(asks("a", "b"), session(s))) for s in range(70, 82)] == straight


def test_another_length_of_the_run_is_said_and_the_schedule_stays(caplog):
    first = Scaffold()
    first.run(asks("a"), session(10, 350))
    second = Scaffold()
    second.load_state_dict(first.state_dict())
    with caplog.at_level(logging.WARNING):
        longer = [shown(second.run(asks("a"), session(s, 700))) for s in (71, 72)]
    (line,) = caplog.messages
    assert "now has 700 rollout iterations, its schedule was laid out for 350" in line
    assert longer == [shown(Scaffold().run(asks("a"), session(s, 350))) for s in (71, 72)]
    assert longer[0] != shown(Scaffold().run(asks("a"), session(71, 700)))
    assert second.state_dict()["steps"] == 350


def test_the_adaptive_schedule_follows_each_rows_own_pass_rate():
    strategy = Scaffold(inter="adaptive", intra="all", passes=0.8, enough=0.5)
    assert [len(x) for x in shown(strategy.run(asks("a", group=2), session(group=2)))] == [11, 11]
    strategy.learn(["a"] * 4 + ["b"] * 4 + ["c"], [0.8, 0.7, 0.0, -2.0, 1.0, 1.0, 0.0, None, None])
    assert strategy.rates == {"a": 0.25, "b": pytest.approx(2 / 3)}
    again = Scaffold(inter="adaptive", intra="all", passes=0.8, enough=0.5)
    again.load_state_dict(json.loads(json.dumps(strategy.state_dict())))
    made = again.run([*asks("a", group=1), *asks("b", group=1), *asks("c", group=1)], session(group=1))
    assert [len(x) for x in shown(made)] == [count(0.5, 11), 0, 11]


def test_a_schedule_over_time_learns_nothing():
    strategy = Scaffold()
    strategy.learn(["a"], [1.0])
    assert strategy.rates == {}


@given(st.integers(1, 60), st.integers(1, 200))
@settings(max_examples=60, deadline=None)
def test_a_scaffold_that_is_too_long_loses_whole_criteria(step, most):
    s = session(step)
    made = Scaffold(max_tokens=most).run(asks("a"), s)
    free = Scaffold().run(asks("a"), session(step))
    for rollout, ids, full in zip(made, s.engine.asked, free, strict=True):
        kept, drawn = rollout.info["scaffold_shown"], full.info["scaffold_shown"]
        assert kept == drawn[: len(kept)]
        assert rollout.info.get("scaffold_dropped", 0) == len(drawn) - len(kept)
        assert rollout.info["scaffold_tokens"] == len(ids) - len(rollout.prompt_ids) <= most
        text = WORDS.decode(ids)
        assert all(f"- {RUBRIC[i]['criterion']} " in text for i in kept), "never cut"
        assert text.count("criterion number") == len(kept)
    longest = Scaffold(max_tokens=most).longest(asks("a")[0].row, s.encode)
    assert max(r.info["scaffold_tokens"] for r in made) <= longest <= most
    one = min(Scaffold().longest(asks("a", rubric=[item])[0].row, s.encode) for item in RUBRIC)
    assert (longest == 0) == (most < one), "where no single one fits, nothing is ever shown"


def test_the_longest_scaffold_of_a_row():
    row = asks("a")[0].row
    s = session()
    everything = Scaffold(inter="constant", intra="all").run(asks("a", group=1), s)
    assert Scaffold().longest(row, s.encode) == everything[0].info["scaffold_tokens"] > 11
    assert Scaffold().longest(asks("a", rubric=[])[0].row, s.encode) == 0


def test_worked_solutions_are_nested_prefixes():
    strategy = Scaffold("steps", show="steps", inter="constant", answer_column="answer", form="Box it.")
    given = asks("a", group=5, steps=["first", "second", "third", "fourth"], answer=7)
    s = session(group=5)
    made = strategy.run(given, s)
    assert shown(made) == [[0, 1, 2, 3, 4], [0, 1, 2], [0, 1], [0], []]
    texts = [WORDS.decode(ids) for ids in s.engine.asked]
    assert ["answer: 7" in t for t in texts] == [True, False, False, False, False]
    assert ["Box it." in t for t in texts] == [True, True, True, True, False]
    assert ["second" in t for t in texts] == [True, True, True, False, False]


def test_plain_text_rows_and_a_place_for_templates_without_system_turns():
    s = session()
    Scaffold().run(asks("a", group=1, prompt="how much ?"), s)
    assert WORDS.decode(s.engine.asked[0]).endswith("how much ?")
    s = session()
    Scaffold(place="user").run(asks("a", group=1), s)
    text = WORDS.decode(s.engine.asked[0])
    assert text.startswith("<system> default <user> The points below")
    assert text.endswith("how much ? <assistant>")


def test_text_on_which_a_template_was_run_already_takes_no_prefix():
    s = session()
    tokenizer = Words()
    tokenizer.bos_token = "<s>"
    s = Session(s.engine, tokenizer, Sampling(), 0, progress=Progress(1, 350), group=1, training=True)
    with pytest.raises(ValueError, match=r"row a: a template was run on its text already \(it begins with <s>\)"):
        Scaffold().run(asks("a", group=1, prompt="<s> how much ?"), s)


def test_words_of_ones_own():
    class Terse(Scaffold):
        def text(self, row, shown):
            return "[" + "".join(str(i) for i in shown) + "]"

    s = session()
    Terse(inter="constant", intra="all").run(asks("a", group=1, prompt="q"), s)
    assert WORDS.decode(s.engine.asked[0]) == "[012345678910] q"


def test_a_row_without_the_column_is_one_line():
    with pytest.raises(ValueError, match=r"row a: there is no column marks to take criteria from \(columns: rubric\)"):
        Scaffold("marks").run(asks("a"), session())
    assert Scaffold("marks").needs == ("marks",)
    assert Scaffold("s", show="steps", answer_column="answer").needs == ("s", "answer")


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"inter": "cosine"}, "inter is 'cosine'; it should be one of sigmoid, constant"),
        ({"intra": "binary"}, "m is None; it should be given with intra: binary alone"),
        ({"m": 3}, "m is 3; it should be given with intra: binary alone"),
        ({"t0": 1.5}, "t0 is 1.5; it should be from 0 to 1"),
        ({"alpha": 0}, "alpha is 0; it should be a positive number"),
        ({"power": -1}, "power is -1"),
        ({"max_tokens": 0}, "max_tokens is 0; it should be at least 1"),
        ({"enough": 0}, "enough is 0; it should be above 0"),
        ({"form": "x"}, "answer_column and form go with show: steps"),
        ({"in_loss": True, "scaffold_negative": "drop"}, "in_loss is true"),
        ({"scaffold_negative": "maybe"}, "it should be one of keep, drop"),
        ({"place": "tool"}, "it should be one of system, user"),
        ({"alpha": "1e2"}, "alpha is '1e2'; it should be a number"),
        ({"alpha": float("inf")}, "alpha is inf; it should be a number"),
        ({"passes": float("nan")}, "passes is nan; it should be a number"),
        ({"intra": "binary", "m": 2.5}, "m is 2.5; it should be a whole number"),
        ({"intra": "binary", "m": True}, "m is True; it should be a whole number"),
        ({"max_tokens": "9"}, "max_tokens is '9'; it should be a whole number"),
        ({"in_loss": "false"}, "in_loss is 'false'; it should be true or false"),
        ({"secrecy": 0}, "secrecy is 0; it should be true or false"),
        ({"column": 3}, "column is 3; it should be a text"),
    ],
)
def test_settings_that_make_no_sense(options, line):
    with pytest.raises(ValueError, match=line) as caught:
        Scaffold(**options)
    assert str(caught.value).startswith("scaffold: ")
    assert "\n" not in str(caught.value)


def test_an_engine_is_asked_once_for_a_whole_batch():
    engine = Noting()
    calls = []
    inner = engine.generate
    engine.generate = lambda *a: calls.append(len(a[0])) or inner(*a)
    s = SimpleNamespace(**{**vars(session()), "engine": engine, "encode": session().encode, "seed": session().seed})
    Scaffold().run(asks("a", "b"), s)
    assert calls == [16]


class Repeating(Noting):
    """Answers with what it was shown first, or with what it is told to."""

    def __init__(self, said=None):
        super().__init__()
        self.said = said

    def generate(self, prompt_ids, sampling, seeds):
        given = prompt_ids if self.said is None else [WORDS(self.said)["input_ids"]] * len(prompt_ids)
        return [Completion(list(ids), [-1.0] * len(ids), "stop", 0) for ids in given]


@pytest.mark.parametrize(
    ("said", "leaks"),
    [
        (None, [True] * 7 + [False]),  # the whole prompt: who was shown nothing has nothing to give away
        ("take it twice a day with water", [False] * 8),
        ("as the rubric asks , take it", [True] * 8),
    ],
)
def test_answers_that_give_the_scaffold_away_are_told(said, leaks):
    s = replace(session(), engine=Repeating(said))
    long = [
        {"criterion": f"it says plainly how often a day it is to be taken, point {i}", "points": 1} for i in range(11)
    ]
    made = Scaffold().run(asks("a", rubric=long), s)
    assert [r.info["scaffold_leak"] for r in made] == leaks


def test_whoever_is_shown_steps_is_not_asked_whether_it_repeats_them():
    s = session()
    made = Scaffold("steps", show="steps").run(asks("a", steps=["first", "then"]), s)
    assert all("scaffold_leak" not in r.info for r in made)


def test_criteria_may_be_json_text():
    s, text = session(), session()
    made = Scaffold().run(asks("a"), s)
    assert Scaffold().run(asks("a", rubric=json.dumps(RUBRIC)), text) == made
    assert s.engine.asked == text.engine.asked
    with pytest.raises(ValueError, match="row a: column rubric should be a list of criteria, not str"):
        Scaffold().run(asks("a", rubric="no list"), session())
