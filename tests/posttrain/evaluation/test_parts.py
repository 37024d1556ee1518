"""Accuracy by writer and scope, and weighted by near-duplicates: statsmodels' weighted least squares as oracle."""

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from posttrain.evaluation.benchmarks.base import Problem
from posttrain.evaluation.parts import parts, weighted
from posttrain.evaluation.statistics.estimates import estimate

ROWS = st.lists(
    st.tuples(st.sampled_from([0, 0.25, 1]), st.integers(1, 5), st.integers(0, 4)), min_size=4, max_size=20
)


@given(ROWS)
@settings(deadline=None, max_examples=60)
def test_weighted_is_a_weighted_regression_on_a_constant(rows):
    import statsmodels.api as sm

    values, weights, clusters = map(list, zip(*rows, strict=True))
    found = weighted(values, weights, clusters)
    repeated = np.repeat(values, weights)
    assert found.value == pytest.approx(repeated.mean())
    assume(len(set(clusters)) > 1 and found.se > 1e-9)
    fit = sm.WLS(values, np.ones(len(values)), weights=weights).fit(
        cov_type="cluster", cov_kwds={"groups": np.array(clusters)}
    )
    assert found.se == pytest.approx(fit.bse[0])
    assert 0 <= found.low <= found.value <= found.high <= 1


@given(ROWS)
@settings(deadline=None, max_examples=40)
def test_equal_weights_change_nothing(rows):
    values, _, clusters = map(list, zip(*rows, strict=True))
    found, plain = weighted(values, [3] * len(values), clusters), estimate(values, clusters)
    assert found.value == pytest.approx(plain.value)
    assert found.se == pytest.approx(plain.se, abs=1e-12)


def problem(number, writer, weight=1, scope="single_hop"):
    columns = {"generator": {"model": writer}, "weight": weight, "scope": scope}
    return Problem("q", "g", item_id=str(number), cluster=str(number), columns=columns)


def test_by_writer_and_scope():
    problems = [problem(0, "a", 3), problem(1, "a"), problem(2, "b"), problem(3, "b", scope="multi_hop")]
    found = parts(problems, [1.0, 0.0, 0.0, 0.0])
    assert {name: (one["n"], one["value"]) for name, one in found["by_writer"].items()} == {"a": (2, 0.5), "b": (2, 0)}
    assert {name: one["n"] for name, one in found["by_scope"].items()} == {"multi_hop": 1, "single_hop": 3}
    assert found["by_scope"]["multi_hop"]["low"] is None
    assert found["weighted"]["value"] == pytest.approx(3 / 6)


def test_a_benchmark_that_knows_none_of_it_has_no_parts():
    assert parts([Problem("q", "g", item_id=str(i), cluster=str(i)) for i in range(3)], [0, 1, 1]) == {}
    assert parts([problem(0, "a"), problem(1, "a")], [0, 1]) == {}
    odd = [Problem("q", "g", columns={"weight": w, "generator": 3}) for w in (True, "x", float("nan"), -1)]
    assert parts(odd, [0, 1, 1, 0]) == {}
