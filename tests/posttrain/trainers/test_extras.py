"""What goes into the record besides the numbers: whatever a reward tells, as JSON of bounded size."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.trainers.extras import ITEMS, MOST, TEXT, bounded
from posttrain.trainers.grpo import GRPO
from rollouts.records import Rollout
from rollouts.strategies.single import SingleTurn

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(max_size=4),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.integers(), inner) | st.tuples(inner),
    max_leaves=20,
)


@given(ANYTHING)
@settings(max_examples=200, deadline=None)
def test_anything_becomes_a_line_of_json(value):
    text = json.dumps(bounded(value), ensure_ascii=False, allow_nan=False)
    assert json.loads(text.encode()) == json.loads(text)


def test_small_values_are_as_they_were():
    value = {"criteria": [{"text": "a", "points": -4.5, "verdict": "met", "agreement": None}], "score": 0.25}
    assert bounded(value) == value


def test_what_is_too_long_is_cut_and_says_so():
    assert bounded("x" * (TEXT + 1)) == "x" * TEXT + f"… ({TEXT + 1} characters)"
    assert len(bounded(list(range(ITEMS + 1)))) == ITEMS
    assert bounded([["x" * TEXT] * ITEMS]).startswith("(left out: ")
    assert len(json.dumps(bounded([["x" * 900] * ITEMS]))) <= MOST


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (math.nan, None),
        (-math.inf, None),
        (np.float32(0.5), 0.5),
        ({3}, [3]),
        ({(1, 2): 1}, {"(1, 2)": 1}),
        ("\ud800", "?"),
    ],
)
def test_what_json_lacks(given, kept):
    assert bounded(given) == kept


def two_things(completions, log_extra, **_):
    log_extra("rubric", [{"score": float(i)} if i else None for i in range(len(completions))])
    return [float(i) for i in range(len(completions))]


def again(completions, log_extra, **_):
    log_extra("rubric", ["other"] * len(completions))
    return [0.0] * len(completions)


class Telling(SingleTurn):
    def run(self, asks, session) -> list[Rollout]:
        made = super().run(asks, session)
        for rollout in made:
            rollout.info["shown"] = [rollout.sample]
        return made


def test_a_run_records_what_its_strategy_and_its_rewards_tell(parts):
    built = parts(rewards=[two_things, again], args={"max_steps": 1})
    built.strategy = Telling()
    GRPO.build(built).train()
    built.stack.close()
    lines = [json.loads(x) for f in built.run.rollouts.iterdir() for x in f.read_text().splitlines()]
    assert [r["info"] for r in lines] == [{"shown": [i % 4]} for i in range(8)]
    assert "rubric" not in lines[0]["extras"]
    assert [r["extras"]["rubric"]["score"] for r in lines[1:]] == [float(i) for i in range(1, 8)]
    assert all(r["extras"]["again/rubric"] == "other" for r in lines), "two rewards under one name"


def test_without_anything_to_tell_a_line_has_neither(parts):
    built = parts(args={"max_steps": 1})
    GRPO.build(built).train()
    built.stack.close()
    lines = [json.loads(x) for f in built.run.rollouts.iterdir() for x in f.read_text().splitlines()]
    assert all("info" not in r and "extras" not in r for r in lines)
