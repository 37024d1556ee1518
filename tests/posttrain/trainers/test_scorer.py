"""Two rewards, faults, and what TRL gets to see."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from accelerate import PartialState

from posttrain.errors import Alarm
from posttrain.recipe.schema import Reward
from posttrain.rundir import RunDir, read_lines
from posttrain.trainers.scorer import WINDOW, Judged, Scorer
from posttrain.trainers.timing import Timer
from rewards.runtime import Guard

PartialState(cpu=True)


def judged(name, function, index=0, **settings):
    guard = Guard(function, name=name, where=f"rewards.{index}")
    return Judged(name, f"rewards.{index}", Reward.model_validate({"use": f"my.py:{name}", **settings}), guard)


@pytest.fixture
def scorer(tmp_path):
    return lambda *judged: Scorer(judged, RunDir(tmp_path), Timer())


def ask(scorer, n, **columns):
    completions = [str(i) for i in range(n)]
    logged = {}
    given = {"trainer_state": SimpleNamespace(global_step=5), "log_metric": logged.__setitem__, "log_extra": print,
             "row_id": [f"r{i}" for i in range(n)], **columns}  # fmt: skip
    return [c(["p"] * n, completions, [[i] for i in range(n)], **given) for c in scorer.columns()], logged


def test_columns_share_one_pass_and_keep_their_names(scorer):
    calls = []

    def count(completions, **_):
        calls.append(len(completions))
        return [1.0] * len(completions)

    made = scorer(judged("a", count), judged("b", lambda completions, **_: [2.0] * len(completions), 1))
    assert [c.__name__ for c in made.columns()] == ["a", "b"]
    assert ask(made, 3)[0] == [[1.0] * 3, [2.0] * 3]
    assert calls == [3]
    ask(made, 3)
    assert calls == [3, 3], "a new batch must be scored anew"


def test_a_row_not_judged_by_one_is_not_judged_in_any_column(scorer):
    made = scorer(
        judged("a", lambda completions, **_: [None if c == "1" else 1.0 for c in completions]),
        judged("b", lambda completions, **_: [2.0] * len(completions), 1),
    )
    (a, b), logged = ask(made, 3)
    assert a == [1.0, None, 1.0]
    assert b == [2.0, None, 2.0]
    assert made.scores[1] == {"a": None, "b": 2.0}
    assert logged["rewards/a/faults"] == 0, "not judged is not a fault"


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), "1.0", [1.0], object()])
def test_what_is_no_finite_number_never_becomes_one(scorer, bad):
    made = scorer(judged("a", lambda completions, **_: [bad if c == "1" else 1.0 for c in completions],
                         on_error={"do": "skip_row", "at_most": 0.5}))  # fmt: skip
    (a,), logged = ask(made, 4)
    assert a == [1.0, None, 1.0, 1.0]
    assert logged["rewards/a/faults"] == 0.25
    fault = next(read_lines(made.run.faults))
    assert (fault["row_id"], fault["step"], fault["reward"], fault["row"]) == ("r1", 5, "a", 1)


def test_the_share_of_skipped_rows_is_counted_over_a_window(scorer):
    """2 % of a window are 20 rows. Ten batches of 100 rows with two bad ones each are allowed; one more is not."""
    bad = {"n": 2}
    made = scorer(judged("a", lambda completions, **_: [float("nan") if int(c) < bad["n"] else 1.0 for c in completions],
                         on_error={"do": "skip_row", "at_most": 0.02}))  # fmt: skip
    for _ in range(3 * WINDOW // 100):
        ask(made, 100)
    bad["n"] = 3
    with pytest.raises(Alarm, match=r"21 of the last 1000 rows could not be judged, at_most 0\.02 allows 20"):
        ask(made, 100)


def test_a_batch_without_a_judged_row_stops_whatever_is_allowed(scorer):
    made = scorer(judged("a", lambda completions, **_: [float("nan")] * len(completions),
                         on_error={"do": "skip_row", "at_most": 1.0}))  # fmt: skip
    with pytest.raises(Alarm, match="no row of the batch could be judged"):
        ask(made, 4)
