"""Sampling until enough is known: an honest interval, no matter how it is chunked, killed or taken up again."""

from __future__ import annotations

import numpy as np
import pytest

from posttrain.errors import Mistake
from posttrain.evaluation import Benchmark, Problem, evaluate
from posttrain.evaluation.stopping import UntilInterval
from rollouts.records import Sampling

TASK = Benchmark(
    "toy", lambda row: Problem(row.text("question"), row.number_or_text("answer")),
    rows=lambda limit: [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(200)],
)  # fmt: skip


def often(prompt, seed):
    """Right nine times in ten."""
    answer = 2 * int(prompt.split("|>")[1].split(" +")[0])
    return f"\\boxed{{{answer if seed % 10 else 999}}}"


def run(engine, tokenizer, folder, **changes):
    settings = {"out_dir": folder, "model_name": "m", "samples": 2, "progress": False, "until_interval": 7.0,
                "sampling": Sampling(temperature=1.0, max_tokens=40)}  # fmt: skip
    return evaluate(TASK, engine, tokenizer, **(settings | changes))


def test_it_stops_and_says_so(scripted, tokenizer, tmp_path):
    engine = scripted(often)
    result = run(engine, tokenizer, tmp_path, chunk=20)
    stopped = result.stopped
    assert stopped["rule"] == "until-interval"
    assert stopped["reached"] is True
    assert stopped["half_width"] < 7.0 == stopped["points"]
    assert stopped["of"] == 200
    assert result.n == stopped["asked"] < 180
    assert len(engine.asked) <= 2 * result.n + 19
    assert result.accuracy["method"].startswith("anytime-valid")
    assert result.accuracy["low"] <= result.accuracy["value"] <= result.accuracy["high"]
    assert result.accuracy["high"] - result.accuracy["low"] < 0.14 + 1e-9
    assert any("stopped after" in note for note in result.notes)
    asked = [int(s["prompt"][0]["content"].split(" +")[0]) for s in result.samples()]
    assert asked != sorted(asked), "in random order"
    other = run(scripted(often), tokenizer, tmp_path / "other", seed=1, chunk=20)
    assert other.samples()[0]["item_id"] != result.samples()[0]["item_id"] or other.stopped != stopped


def test_where_it_stops_depends_on_the_samples_alone(scripted, tokenizer, tmp_path):
    whole = run(scripted(often), tokenizer, tmp_path / "a", chunk=400)
    pieces = run(scripted(often), tokenizer, tmp_path / "b", chunk=3)
    assert (whole.n, whole.metrics, whole.stopped) == (pieces.n, pieces.metrics, pieces.stopped)
    again = scripted(often)
    assert run(again, tokenizer, tmp_path / "b", chunk=3) == pieces
    assert again.asked == []


class Dies(Exception):
    pass


def test_taken_up_again(scripted, tokenizer, tmp_path):
    whole = run(scripted(often), tokenizer, tmp_path / "whole", chunk=10)
    engine = scripted(often)
    answer, calls = engine.generate, []

    def generate(*args):
        calls.append(1)
        if len(calls) == 6:
            raise Dies
        return answer(*args)

    engine.generate = generate
    with pytest.raises(Dies):
        run(engine, tokenizer, tmp_path / "cut", chunk=10)
    rest = scripted(often)
    found = run(rest, tokenizer, tmp_path / "cut", chunk=10)
    assert (found.n, found.metrics, found.stopped) == (whole.n, whole.metrics, whole.stopped)
    asked = engine.asked + rest.asked
    assert len(asked) == len(set(asked)), "nothing is asked twice"
    narrower = scripted(often)
    finer = run(narrower, tokenizer, tmp_path / "cut", until_interval=5.0, chunk=10)
    assert finer.n > found.n
    assert not set(narrower.asked) & set(asked)
    full = scripted(often)
    everything = run(full, tokenizer, tmp_path / "cut", until_interval=None)
    assert everything.n == 200
    assert everything.stopped is None
    assert not set(full.asked) & set(asked + narrower.asked)


def test_when_all_are_asked_it_knows(scripted, tokenizer, tmp_path):
    half = scripted(lambda prompt, seed: often(prompt, 5 * (seed % 2)))
    result = run(half, tokenizer, tmp_path, until_interval=0.1)
    assert result.n == 200
    assert len(half.asked) == 400
    assert result.stopped["reached"] is True
    assert result.accuracy["low"] == pytest.approx(result.accuracy["value"], abs=0.006)


def test_numbers_that_make_no_sense(scripted, tokenizer, tmp_path):
    for points in (0, -1, 50, float("nan")):
        with pytest.raises(Mistake, match="between 0 and 50"):
            run(scripted(often), tokenizer, tmp_path, until_interval=points)


def test_it_covers_what_a_whole_evaluation_would_find():
    """Over many orders: the interval where it stopped holds the accuracy on all problems at least 95 times in 100."""
    rng = np.random.default_rng(0)
    problems = [Problem(f"{i}", "1", item_id=f"t/{i}") for i in range(300)]
    missed, asked = 0, []
    for trial in range(200):
        scores = {p.item_id: float(rng.random() < 0.3) for p in problems}
        stop = UntilInterval(6.0, problems, 1, trial)
        stop.look([{"item_id": i, "sample": 0, "score": s} for i, s in scores.items()])
        truth = np.mean(list(scores.values()))
        missed += not stop.interval.low - 1e-9 <= truth <= stop.interval.high + 1e-9
        asked.append(stop.interval.n)
    assert missed <= 15  # 0.05 * 200 = 10; P(more than 15 | 0.05) = 0.04
    assert np.mean(asked) < 290
