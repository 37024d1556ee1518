"""The same matrix through the estimators of inspect-ai and lighteval, where they are installed (neither is needed here)."""

import numpy as np
import pytest

from posttrain.evaluation.statistics.bootstrap import bootstrap
from posttrain.evaluation.statistics.estimates import estimate, metrics, pass_at, standard_error

N, K = 60, 8


@pytest.fixture(scope="module")
def matrix():
    generator = np.random.default_rng(1)
    p = np.clip(np.repeat(generator.beta(2, 2, 20), 3) + generator.normal(0, 0.05, N), 0, 1)
    return (generator.random((N, K)) < p[:, None]).astype(float)


@pytest.fixture(scope="module")
def inspect():
    return pytest.importorskip("inspect_ai.scorer", reason="inspect-ai is not installed")


@pytest.fixture(scope="module")
def lighteval():
    return pytest.importorskip("lighteval.metrics.metrics_sample", reason="lighteval is not installed")


CLUSTERS = [f"c{i // 3}" for i in range(N)]


def scores(inspect, values):
    return [
        inspect.SampleScore(score=inspect.Score(value=float(v)), sample_metadata={"cluster": c})
        for v, c in zip(values, CLUSTERS, strict=True)
    ]


def test_standard_errors_of_inspect(inspect, matrix):
    means = matrix.mean(axis=1)
    theirs = scores(inspect, means)
    assert inspect.mean()(theirs) == pytest.approx(estimate(means).value)
    assert inspect.stderr()(theirs) == pytest.approx(standard_error(means)[0])
    assert inspect.stderr(cluster="cluster")(theirs) == pytest.approx(standard_error(means, CLUSTERS)[0])
    assert inspect.bootstrap_stderr(num_samples=4000)(theirs) == pytest.approx(bootstrap(means).se, rel=0.08)


@pytest.mark.parametrize("cluster", [None, "cluster"])
def test_intervals_of_inspect(inspect, matrix, cluster):
    if not hasattr(inspect, "ci"):
        pytest.skip("this inspect-ai has no intervals")
    means = matrix.mean(axis=1)
    theirs = inspect.ci(cluster=cluster)(scores(inspect, means))
    ours = estimate(means, CLUSTERS if cluster else None)
    assert (theirs["lower"], theirs["upper"]) == (pytest.approx(ours.low), pytest.approx(ours.high))


def test_coverage_of_inspect(inspect, matrix):
    for k in (1, 2, 5, 8):
        reduce = inspect.pass_at(k)
        theirs = [reduce([inspect.Score(value=float(v)) for v in row]).value for row in matrix]
        assert theirs == pytest.approx(list(pass_at(matrix.sum(axis=1).astype(int), K, k)))


def test_coverage_of_lighteval(lighteval, matrix):
    for k in (1, 2, 5, 8):
        one = lighteval.PassAtK(k=k, n=K)
        theirs = [one.pass_at_k([int(v) for v in row]) for row in matrix]
        assert theirs == pytest.approx(list(pass_at(matrix.sum(axis=1).astype(int), K, k)))


def test_the_table_of_metrics(inspect, matrix):
    found = metrics(matrix.tolist(), [[f"a{int(v)}" for v in row] for row in matrix], CLUSTERS)
    theirs = scores(inspect, matrix.mean(axis=1))
    assert found["accuracy"]["se"] == pytest.approx(inspect.stderr(cluster="cluster")(theirs))
    assert found["pass@8"]["value"] == pytest.approx(np.mean(matrix.any(axis=1)))
