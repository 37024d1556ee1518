"""The reproduction's machinery: its runs are recipes that differ as their arms say, what is done is kept, verdicts are computed."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

from reproductions import arms, figures, lanes, one, words

from posttrain.evaluation.statistics.seeds import arms as difference_of_arms
from posttrain.recipe import read
from posttrain.recipe.check import check

ROOT = Path(__file__).parents[2]


def specs(size=arms.FULL):
    return arms.reported(size, dict.fromkeys(size.arms, 1e-3))


@pytest.mark.parametrize("arm", arms.ARMS, ids=lambda a: a.name)
@pytest.mark.parametrize("joint", [False, True])
def test_an_arm_is_a_recipe_of_the_shelf_and_differs_by_what_it_says(arm, joint, tmp_path):
    from posttrain.evaluation import BENCHMARKS

    def recipe(one_arm):
        spec = replace(next(s for s in specs() if s.arm == one_arm.name and s.setting == arms.CENTRAL), joint=joint)
        loaded = read(*one.recipe_of(spec, tmp_path, 0))
        check(loaded.recipe, loaded=loaded, benchmarks=BENCHMARKS)
        return loaded.recipe

    made, method = recipe(arm), recipe(arms.BY_NAME[arms.METHOD])
    strategy = made.rollouts.strategy
    if not arm.scaffold:
        assert strategy == "single"
    else:
        changed = {k: v for k, v in strategy.with_.items() if method.rollouts.strategy.with_.get(k) != v}
        assert changed == {
            "ruscarl": {}, "no_decay": {"inter": "constant"}, "linear_decay": {"inter": "linear"},
            "no_differentiation": {"intra": "all"}, "in_loss": {"in_loss": True}, "early": {"t0": 0.1}, "late": {"t0": 0.4},
        }[arm.name]  # fmt: skip
    left = {"rollouts": {"strategy"}}
    assert made.model_dump(exclude=left) == method.model_dump(exclude=left)


def test_the_list_of_runs_is_the_cards():
    full = specs()
    central = [s for s in full if s.setting == arms.CENTRAL]
    assert {s.arm for s in central} == set(arms.BY_NAME)
    assert {(s.setting, s.arm) for s in full if s.setting != arms.CENTRAL} == {
        (setting, arm) for setting in ("eps_0.05", "eps_0.0003", "joint") for arm in arms.DECISIVE
    }
    assert {s.eps for s in full} == {0.05, 0.003, 0.0003}
    assert len({s.name for s in [*full, *arms.tuning(arms.FULL), *arms.bases(arms.FULL)]}) == 45 + 27 + 10
    assert {s.seed for s in full} == {1, 2, 3}
    assert {s.seed for s in arms.tuning(arms.FULL)} == {0}
    assert {(s.eps, s.seed) for s in [*full, *arms.tuning(arms.FULL)]} == {
        (s.eps, s.seed) for s in arms.bases(arms.FULL)
    }


def fake(arm: str, seed: int, level: float, setting: str = arms.CENTRAL, rate: float = 1e-3, **more):
    rng = np.random.default_rng(1000 * seed + len(arm))
    score = np.clip(level + 0.05 * rng.standard_normal(120), -0.4, 1.0).tolist()
    return {
        "spec": {"arm": arm, "setting": setting, "seed": seed, "rate": rate, "eps": 0.003},
        "score": score, "best_8": score, "best_64": [1.0 if arm == arms.METHOD else 0.9 - 0.001 * seed] * 120,
        "full_marks": 0.5, "categories": 4, "length": 15.0, "unended": 0.01, "hinted": 0.9,
        "curve": [[0, 0.0, 0.0], [9600, level, 0.5]], "gap": [[1, 1.0], [2, 0.5]], "seconds": 9.0, "cpu_seconds": 8.0,
    } | more  # fmt: skip


def test_the_best_rate_is_picked_and_of_equals_the_lowest():
    tuned = [fake("grpo", 0, 0, rate=r, score=[s] * 3) for r, s in ((5e-4, 0.2), (1e-3, 0.6), (2e-3, 0.6))]
    tuned += [fake("ruscarl", 0, 0, rate=r, score=[s] * 3) for r, s in ((5e-4, 0.9), (1e-3, -0.1))]
    assert figures.picked(tuned) == {"grpo": 1e-3, "ruscarl": 5e-4}


def test_a_rate_that_an_alarm_stopped_is_none():
    stopped = {"spec": {"arm": "grpo", "rate": 2e-3}, "stopped": "a gradient was not finite"}
    assert figures.picked([fake("grpo", 0, 0.2), stopped]) == {"grpo": 1e-3}
    with pytest.raises(ValueError, match="each run of grpo was stopped"):
        figures.picked([stopped])


def test_an_alarm_is_what_a_run_came_to_and_a_signal_is_not(tmp_path, monkeypatch):
    from posttrain.errors import Alarm, Ended

    spec = arms.tuning(arms.QUICK)[0]
    (tmp_path / lanes.SPEC).write_text(json.dumps(spec.to_json()))
    monkeypatch.setattr(one.behaviours, "base", lambda **settings: "nowhere")

    def stopping(error):
        def trained(spec, folder):
            raise error

        monkeypatch.setattr(one, "trained", trained)

    stopping(Ended("told to end"))
    with pytest.raises(Ended):
        one.main(tmp_path)
    assert lanes.result(tmp_path, spec.to_json()) is None
    stopping(Alarm("a gradient was not finite"))
    one.main(tmp_path)
    assert lanes.result(tmp_path, spec.to_json())["stopped"] == "a gradient was not finite"


def record(levels: dict[str, float]):
    runs = [fake(arm, seed, level) for arm, level in levels.items() for seed in (1, 2, 3)]
    bases = [fake("base", seed, 0.0, setting="eps_0.003") for seed in (1, 2, 3)]
    return figures.collected(runs, bases) | {
        "quick": False, "size": {"seeds": 3, "steps": 150, "questions": 120, "samples": 64, "rates": [1e-3], "tuning_steps": 60},
        "command": "x", "seconds_of_runs": 3600.0, "machine": {"cpu": "c", "cores": 2}, "versions": {"torch": "2"},
    }  # fmt: skip


def test_verdicts_follow_from_the_numbers():
    made = record({"grpo": 0.5, "ruscarl": 0.8, "no_differentiation": 0.8, "linear_decay": 0.9})
    assert made["verdict"] == "better"
    found = made["comparisons"][arms.CENTRAL]
    assert {arm: one["verdict"] for arm, one in found.items()} == {
        "grpo": "better", "no_differentiation": "not distinguishable", "linear_decay": "worse",
    }  # fmt: skip
    a, b = ([fake(arm, s, level)["score"] for s in (1, 2, 3)] for arm, level in (("grpo", 0.5), ("ruscarl", 0.8)))
    exact = difference_of_arms(a, b)
    assert (found["grpo"]["low"], found["grpo"]["high"]) == (exact.low, exact.high)
    text = words.page(made)
    assert "**better**" in text
    assert "against no differentiation RuscaRL is not distinguishable; the claim was not seen to carry over" in text
    assert "against linear decay RuscaRL is worse; the claim does not carry over" in text
    assert len(re.findall(r"^\| (plain GRPO|RuscaRL \(|no diff|linear)", text, flags=re.M)) == 4
    assert record({"grpo": 0.9, "ruscarl": 0.6})["verdict"] == "worse"


def test_the_plot_is_drawn(tmp_path):
    pytest.importorskip("matplotlib")
    from reproductions import plot

    plot.draw(record({"grpo": 0.5, "ruscarl": 0.8, "no_decay": 0.4}), tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


PROGRAM = """
import json, pathlib, sys
folder = pathlib.Path(sys.argv[1])
spec = json.loads((folder / "spec.json").read_text())
with (folder.parent / "log").open("a") as log:
    log.write(spec["name"] + "\\n")
if spec.get("fails") and not (folder.parent / "mended").exists():
    sys.exit(3)
(folder / "measured.json").write_text(json.dumps({"spec": spec, "value": spec["name"] * 2}))
"""


class Named:
    def __init__(self, name, **more):
        self.name, self.more = name, more

    def to_json(self):
        return {"name": self.name, **self.more}


def test_what_is_done_is_kept_and_a_failure_is_gone_on_from(tmp_path):
    (tmp_path / "program.py").write_text(PROGRAM)
    run = lanes.Lanes(tmp_path, tmp_path / "program.py", 2, say=lambda line: None).run
    todo = [Named("a"), Named("b"), Named("c", fails=True)]
    with pytest.raises(lanes.Failed, match="c: ended with 3; see"):
        run(todo, lambda s: 1.0)
    (tmp_path / "mended").touch()
    assert [r["value"] for r in run(todo, lambda s: 1.0)] == ["aa", "bb", "cc"]
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "b", "c", "c"]
    run([Named("a", other=True)], lambda s: 1.0)  # the same name, another specification: done anew
    assert sorted((tmp_path / "log").read_text().split()) == ["a", "a", "b", "c", "c"]


def test_whoever_ends_the_command_ends_its_runs(tmp_path):
    code = f"""
import sys; sys.path[:0] = [{str(ROOT)!r}, {str(ROOT / "scripts")!r}]
import reproduce
from reproductions import arms
reproduce.ROOT = __import__("pathlib").Path({str(tmp_path)!r})
reproduce.reproduce("ruscarl", arms.QUICK, reproduce.ROOT / "work", reproduce.ROOT, "x", True)
"""
    program = tmp_path / "scripts" / "reproductions" / "one.py"
    program.parent.mkdir(parents=True)
    program.write_text(
        "import os, pathlib, sys, time\n(pathlib.Path(sys.argv[1]) / 'pid').write_text(str(os.getpid()))\ntime.sleep(600)\n"
    )
    command = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE)
    until = time.monotonic() + 120
    while len(pids := [p.read_text() for p in tmp_path.glob("work/*/pid")]) < 2 or not all(pids):
        assert time.monotonic() < until
        assert command.poll() is None, command.stderr.read()
        time.sleep(0.1)
    command.terminate()
    command.wait(60)
    for pid in map(int, pids):
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)


def test_a_category_is_met_where_each_behaviour_is_in_most_answers():
    from reproductions.measure import categories

    from posttrain.miniature.behaviours import TASK, Question, rubric, segment

    question = Question("P", "abc")
    whole = TASK.solve(question)[-1]["content"]
    lacking = whole.replace(segment(rubric("P")[0].codes, "abc"), "")
    assert categories([question], [[(whole, 9, True)] * 2 + [(lacking, 9, True)]], False) == 1
    assert categories([question], [[(whole, 9, True), (lacking, 9, True)]], False) == 0
    assert categories([question], [[(whole[:-1], 9, False)] * 3], False) == 0


@pytest.mark.slow
def test_the_quick_form_from_end_to_end(tmp_path):
    """Trains bases (in the user's cache), tunes, runs two arms with two seeds, and writes what the full form writes."""
    command = [sys.executable, "scripts/reproduce.py", "ruscarl", "--quick", "--work", str(tmp_path / "work")]
    first = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, timeout=3000)
    assert first.returncode == 0, first.stdout + first.stderr
    lines = first.stdout.splitlines()
    assert "runs of 4 steps (4 at eps 0.003), seeds 1 to 2" in lines[0]
    assert "minutes on 2 idle cores" in lines[1]
    made = json.loads((tmp_path / "work" / "ruscarl.json").read_text())
    assert made["verdict"] in ("better", "worse", "not distinguishable")
    for arm in arms.DECISIVE:
        for run in made["arms"][arms.CENTRAL][arm].values():
            assert [point[0] for point in run["curve"]] == [0, 128, 256]
            assert run["score_when_shown"] > 0.8
    assert all(run["gap"] for run in made["arms"][arms.CENTRAL]["ruscarl"].values())
    assert "Its figures say nothing about the method" in (tmp_path / "work" / "ruscarl.md").read_text()
    again = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=os.environ, timeout=300)
    assert again.returncode == 0
    assert "/" not in again.stdout.splitlines()[2].partition(" ")[0]  # no run was needed again
