"""Several arms, benchmarks and training runs: what a path holds, Holm over all, one verdict each, and the file."""

import json
from operator import itemgetter
from pathlib import Path
from runpy import run_path

import numpy as np
import pytest
from scipy import stats

from posttrain.cli import main
from posttrain.errors import Mistake
from posttrain.evaluation.compare import compare
from posttrain.evaluation.comparisons import compare_all, in_words, together, write
from posttrain.evaluation.places import evaluations, read_arm

evaluation, draw = itemgetter("evaluation", "draw")(run_path(str(Path(__file__).with_name("recorded.py"))))


@pytest.fixture
def runs(tmp_path):
    """Two training runs with evaluations before, in and after them, of two benchmarks."""
    for name, gain in (("base", 0.0), ("tuned", 0.3)):
        for benchmark, more in (("toy", gain), ("riddles", gain / 30)):
            for when, part in (
                ("before", 0.0),
                ("step-000020", more / 2),
                ("step-000100", more * 0.9),
                ("after", more),
            ):
                evaluation(
                    tmp_path / "runs" / name / "evaluation" / f"{when}-{benchmark}",
                    draw(part, seed=len(name) + len(when)), benchmark, when,
                )  # fmt: skip
    return tmp_path / "runs"


def test_a_run_is_its_last_evaluations(runs):
    found = evaluations(runs / "tuned")
    assert {b: one.when for b, one in found.items()} == {"toy": "after", "riddles": "after"}
    for benchmark in ("toy", "riddles"):
        (runs / "tuned" / "evaluation" / f"after-{benchmark}" / "result.json").unlink()
    assert {one.when for one in evaluations(runs / "tuned").values()} == {"step-000100"}


def test_two_runs_on_every_benchmark(runs, capsys):
    assert main(["compare", str(runs / "base"), str(runs / "tuned")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    record = json.loads((runs / "tuned" / "comparison.json").read_text())
    riddles, toy = record["comparisons"]
    assert (toy["benchmark"], toy["verdict"], toy["arm"]) == ("toy", "better", "tuned")
    assert riddles["verdict"] == "not distinguishable"
    assert riddles["smallest"] > 0.05
    assert record["correction"] == "Holm over 2 comparisons"
    assert toy["p_holm"] == pytest.approx(min(1, 2 * toy["p"]))
    for word in ("better", "distinguishable", "could have", "Holm"):
        assert word in said
    # each equals the comparison of its two folders
    pair = compare(*(runs / name / "evaluation" / "after-toy" for name in ("base", "tuned")))
    assert (pair.p, pair.difference) == (toy["p"], toy["difference"])


def test_two_folders_as_ever(tmp_path, capsys):
    a, b = evaluation(tmp_path / "a", draw(0)), evaluation(tmp_path / "b", draw(0.3, seed=3))
    assert main(["compare", str(a), str(b / "result.json")]) == 0
    said = capsys.readouterr().out
    assert "B is better than A" in said
    record = json.loads((b / "comparison.json").read_text())
    assert record["correction"] is None
    assert record["comparisons"][0]["p_holm"] is None
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "here.json")]) == 0
    assert json.loads((tmp_path / "here.json").read_text())["baseline"] == "a"


def test_what_is_clear_alone_may_not_be_among_many(tmp_path):
    """Six of six discordant problems for B: p = 0.031 alone, 0.094 among three."""
    base = [[0]] * 30
    a = evaluation(tmp_path / "a", base)
    others = [
        evaluation(tmp_path / name, [[1]] * hits + [[0]] * (30 - hits))
        for name, hits in (("b", 6), ("c", 2), ("d", 1))
    ]
    assert compare(a, others[0]).verdict == "better"
    found = [one for _, one in compare_all([a, *others]).found]
    assert found[0].p_holm == pytest.approx(3 * 2 / 2**6)
    assert [one.verdict for one in found] == ["not distinguishable"] * 3
    assert any("alone it would be better" in note for note in found[0].notes)
    assert found[0].smallest > compare(a, others[0]).smallest
    assert "could have told" in in_words(found[0])
    assert compare_all([a, others[0]]).found[0][1].verdict == "better"


def test_holm_keeps_the_error_of_all_together(tmp_path):
    """Twelve arms that are all like the baseline: some "better" or "worse" in about 5 % of rounds, not in half of them."""
    generator = np.random.default_rng(5)
    base = evaluation(tmp_path / "base", generator.integers(0, 2, (40, 1)).tolist())
    one = compare(base, evaluation(tmp_path / "other", generator.integers(0, 2, (40, 1)).tolist()))
    from dataclasses import replace

    from posttrain.evaluation.statistics.paired import verdict

    wrong = alone = 0
    for _ in range(400):
        z = generator.normal(size=12)
        p = 2 * stats.norm.sf(abs(z))
        made = [
            replace(one, p=float(q), low=float(0.01 * (x - 1.96)), high=float(0.01 * (x + 1.96)),
                    verdict=verdict(float(q), float(x - 1.96), float(x + 1.96)))
            for q, x in zip(p, z, strict=True)
        ]  # fmt: skip
        wrong += any(c.verdict != "not distinguishable" for c in together(made))
        alone += any(c.verdict != "not distinguishable" for c in made)
    assert wrong / 400 <= 0.05 + 0.035
    assert alone / 400 > 0.3


def test_arms_of_several_training_runs(tmp_path, capsys):
    arms = {"plain": 0.0, "tuned": 0.25}
    for name, gain in arms.items():
        for seed in range(3):
            shift = np.random.default_rng([seed, len(name)]).normal(0, 0.03)
            evaluation(tmp_path / f"{name}{seed}", draw(gain, n=100, seed=seed + 10 * len(name), shift=shift))
    words = [f"{name}=" + ",".join(str(tmp_path / f"{name}{s}") for s in range(3)) for name in arms]
    assert main(["compare", *words, "--out", str(tmp_path / "out")]) == 0
    assert "training runs" in " ".join(capsys.readouterr().out.split())
    record = json.loads((tmp_path / "out" / "comparison.json").read_text())
    (one,) = record["comparisons"]
    assert [arm["name"] for arm in record["arms"]] == ["plain", "tuned"]
    assert (one["runs_a"], one["runs_b"], one["verdict"]) == (3, 3, "better")
    # wider than the pooled means paired by problem would have it
    tables = [
        np.array([[np.mean(row) for row in draw(gain, n=100, seed=s + 10 * len(name),
                                                shift=np.random.default_rng([s, len(name)]).normal(0, 0.03))]
                  for s in range(3)])
        for name, gain in arms.items()
    ]  # fmt: skip
    d = tables[1].mean(0) - tables[0].mean(0)
    assert one["difference"] == pytest.approx(d.mean())
    assert one["se"] >= stats.sem(d) - 1e-12
    assert one["df"] >= 2


def test_one_seed_that_is_lucky_is_not_an_arm(tmp_path):
    """Runs of one recipe differ by more than their problems tell: one against one is "better", three against three is not."""
    shifts = {"a": (-0.12, 0.1, 0.0), "b": (0.13, -0.1, 0.02)}
    for name, each in shifts.items():
        for seed, shift in enumerate(each):
            evaluation(tmp_path / f"{name}{seed}", draw(0.0, n=150, k=4, seed=seed + ord(name), shift=shift))
    assert compare(tmp_path / "a0", tmp_path / "b0").verdict == "better"
    both = [[tmp_path / f"{name}{seed}" for seed in range(3)] for name in shifts]
    found = compare(*both)
    assert found.verdict == "not distinguishable"
    assert found.smallest > 0.1


def test_what_a_word_may_name(tmp_path):
    folder = evaluation(tmp_path / "x=1,2", draw(0))
    arm = read_arm(str(folder))
    assert (arm.name, arm.places) == ("x=1,2", (folder,))
    named = read_arm(f"it={folder}")
    assert (named.name, named.places) == ("it", (folder,))
    other = evaluation(tmp_path / "y", draw(0))
    evaluation(tmp_path / "z" / "toy", draw(0))
    evaluation(tmp_path / "z" / "riddles", draw(0), "riddles")
    both = read_arm(f"{other},{tmp_path / 'z'}")
    assert (both.name, list(both.benchmarks), both.partial) == ("y, z", ["toy"], ("riddles",))


def test_arms_of_one_name_are_told_apart(tmp_path):
    a, b = evaluation(tmp_path / "a" / "eval", draw(0)), evaluation(tmp_path / "b" / "eval", draw(0))
    assert [arm.name for arm in compare_all([a, b]).arms] == [str(a), str(b)]


def test_benchmarks_that_only_one_has_are_said(runs, tmp_path):
    a = evaluation(tmp_path / "only", draw(0))
    found = compare_all([a, runs / "base"])
    assert [one.benchmark for _, one in found.found] == ["toy"]
    assert found.notes == ["riddles: left out, only has none"]


def test_mistakes_are_one_line_each(tmp_path, runs, capsys):
    a = evaluation(tmp_path / "a", draw(0))
    odd = evaluation(tmp_path / "odd", draw(0), "odd")
    evaluation(tmp_path / "two" / "x", draw(0))
    evaluation(tmp_path / "two" / "y", draw(0))
    (tmp_path / "empty").mkdir()
    broken, cut, half = (evaluation(tmp_path / name, draw(0)) for name in ("broken", "cut", "half"))
    (broken / "result.json").write_text('{"benchmark": "toy", ')
    (cut / "samples.jsonl").write_text((cut / "samples.jsonl").read_text() + '{"item_id": "toy/0"\n')
    (half / "result.json").write_text((half / "result.json").read_text().replace('"n": 60', '"n": 0'))
    for words, said in (
        ([a], "two evaluations at least"),
        ([a, odd], "two benchmarks (toy; odd) cannot be compared"),
        ([a, tmp_path / "two"], "two evaluations of toy"),
        ([a, tmp_path / "empty"], "no result.json here"),
        ([a, tmp_path / "nowhere"], "no result.json here"),
        ([a, f"{a},{a}"], "one folder twice"),
        ([a, ","], "names no folder"),
        ([a, f"{a},{odd}"], "no benchmark in common"),
        ([a, f"x={a},{tmp_path / 'nowhere'}"], "no result.json here"),
        ([a, broken], "not a result of an evaluation"),
        ([a, cut], "a line is not JSON"),
        ([a, half], "n and k should be at least 1"),
    ):
        with pytest.raises(Mistake) as caught:
            compare_all(words)
        assert said in str(caught.value)
        assert "\n" not in str(caught.value)
        if len(words) > 1:  # what argparse does not refuse already
            assert main(["compare", *map(str, words)]) == 2
            told = capsys.readouterr()
            assert (told.out, told.err.count("\n")) == ("", 1)
    with pytest.raises(Mistake, match="--metric chooses a score of"):
        compare_all([a, a], metrics=["acc"])
    (tmp_path / "file").write_text("x")
    with pytest.raises(Mistake, match="--out"):
        write(compare_all([a, a]), tmp_path / "file" / "below")


def test_what_cannot_be_written_is_printed_all_the_same(tmp_path, capsys):
    a, b = evaluation(tmp_path / "a", draw(0)), evaluation(tmp_path / "b", draw(0.3, seed=3))
    (tmp_path / "file").write_text("x")
    assert main(["compare", str(a), str(b), "--out", str(tmp_path / "file" / "below")]) == 2
    told = capsys.readouterr()
    assert "B is better than A" in told.out
    assert "--out" in told.err


def test_a_recorded_name_commands_no_terminal(tmp_path, capsys):
    a, b = evaluation(tmp_path / "a", draw(0)), evaluation(tmp_path / "b", draw(0), model="\x1b[2Jmodel\u202e")
    c = evaluation(tmp_path / "c", draw(0), model="[red]x[/red]")
    assert main(["compare", str(a), str(b), str(c)]) == 0
    assert "\x1b[2J" not in capsys.readouterr().out
    assert main(["compare", str(a), str(b)]) == 0
    assert "\x1b[2J" not in capsys.readouterr().out
