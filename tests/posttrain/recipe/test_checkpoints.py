"""The keep rule of checkpoints must be one that can be followed."""

import pytest

from posttrain.errors import Mistake
from posttrain.recipe import load

EVALUATION = "evaluation=[{benchmark: arithmetic, every: 10}]"


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["checkpoints.metric=reward"], "checkpoints.metric: never used: keep_best is 0"),
        (["checkpoints.keep_best=1"], "checkpoints.metric: missing; keep_best needs to know by what"),
        (["checkpoints.keep_best=1", "checkpoints.metric=reward", "checkpoints.every=0"], "no checkpoints are saved on schedule"),
        (["checkpoints.keep_best=1", "checkpoints.metric=rewrad"],
         'text "rewrad" is neither a benchmark nor a known metric; did you mean "reward"?'),
        (["checkpoints.keep_best=1", "checkpoints.metric=reward", "trainer.args.logging_steps=3"],
         "checkpoints.every: 50 is no multiple of trainer.args.logging_steps = 3"),
        (["checkpoints.keep_best=1", "checkpoints.metric=arithmetic", "evaluation=[{benchmark: arithmetic}]"],
         'evaluation.0.every: missing; checkpoints.metric looks at text "arithmetic" at every checkpoint'),
        (["checkpoints.keep_best=1", "checkpoints.metric=own", "evaluation=[{benchmark: my/own.jsonl}]"],
         'evaluation.0.every: missing; checkpoints.metric looks at text "own" at every checkpoint'),
        (["checkpoints.keep_best=1", "checkpoints.metric=arithmetic", EVALUATION, "checkpoints.every=25"],
         "checkpoints.every: 25 is no multiple of evaluation.0.every = 10"),
        (["checkpoints.keep=0"], "checkpoints.keep: should be at least 1, got 0"),
        (["checkpoints.best=most"], "checkpoints.best: should be one of highest, lowest"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_be_followed_is_refused(valid, overrides, message):
    with pytest.raises(Mistake) as refused:
        load(valid, overrides)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "overrides",
    [
        ["checkpoints.keep_best=1", "checkpoints.metric=reward"],
        ["checkpoints.keep_best=1", "checkpoints.metric=rewards/mine/mean"],
        ["checkpoints.keep_best=1", "checkpoints.metric=my_own_number_from_log_metric"],
        ["checkpoints.keep_best=2", "checkpoints.metric=arithmetic", EVALUATION],
        ["checkpoints.keep_best=2", "checkpoints.metric=mine", "evaluation=[{benchmark: 'mine:b', every: 10}]"],
        ["checkpoints.keep_best=1", "checkpoints.metric=reward", "trainer.args.logging_steps=10", "checkpoints.best=lowest"],
        ["checkpoints.every=0"],
    ],
)  # fmt: skip
def test_one_that_can_be_is_not(valid, overrides):
    load(valid, overrides)
