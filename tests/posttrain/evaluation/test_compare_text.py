"""What is printed of a comparison, at 80 columns and in a pipe."""

import itertools
import os
import pty
import subprocess
import sys
from operator import itemgetter
from pathlib import Path
from runpy import run_path

import pytest

from posttrain.cli import main
from posttrain.evaluation.compare_text import comparisons
from posttrain.evaluation.comparisons import compare_all

evaluation, draw = itemgetter("evaluation", "draw")(run_path(str(Path(__file__).with_name("recorded.py"))))
LONG = "/" + "/".join(["checkpoints"] * 12)


@pytest.fixture
def several(tmp_path):
    places = []
    for name, gain in (("base", 0.0), ("a", 0.3), ("b", 0.02)):
        for number, benchmark in enumerate(("toy", "minerva_math", "a_task_of_another_harness (flexible-extract)")):
            evaluation(tmp_path / name / str(number), draw(gain, seed=len(places) + number), benchmark,
                       sampling={"temperature": 1.0 if name != "b" else 0.6, "max_tokens": 10 * (name == "b")})  # fmt: skip
        places.append(tmp_path / name)
    return places


def test_one_in_full(tmp_path):
    a = evaluation(tmp_path / "a", draw(0), model="base")
    b = evaluation(tmp_path / "b", draw(0.3, seed=3), model=LONG, sampling={"temperature": 0.6, "stop": ["x"] * 30})
    text = comparisons(compare_all([a, b]), 80)
    lines = text.splitlines()
    assert all(len(line) <= 80 for line in lines if LONG not in line)
    assert lines[0] == "toy: 60 problems, paired"
    assert "B is better than A" in lines
    assert any(line.strip() == LONG for line in lines), "a path is never broken, so that it can be copied"
    # a note is wrapped under itself
    first = next(i for i, line in enumerate(lines) if line.startswith("note: sampling.stop"))
    assert lines[first + 1].startswith("      'x'")
    whole = comparisons(compare_all([a, b]), None).splitlines()
    assert sum(line.startswith("note: ") for line in whole) == len(whole) - whole.index("B is better than A") - 2


@pytest.mark.parametrize("width", [80, None])
def test_several_as_tables(several, width):
    found = compare_all(several)
    lines = comparisons(found, width).splitlines()
    assert width is None or all(len(line) <= width for line in lines)
    for arm, one in found.found:
        start = next(i for i, line in enumerate(lines) if line == f"B: {arm.name}")
        row = next(i for i in range(start, len(lines)) if lines[i].startswith(f"  {one.benchmark[:12]}"))
        assert one.verdict in lines[row]
        numbers = lines[row] if width is None else lines[row + 1]
        assert f"{one.difference * 100:+.1f}" in numbers
        assert f"{one.p_holm:.2g}" in numbers
    notes = [line for line in lines if line.startswith("note: ")]
    assert sum("sampling.temperature: 1.0 against 0.6" in line for line in " ".join(lines).split("note:")) == 1
    assert notes
    assert any("corrected for 6 comparisons (Holm)" in line for line in lines)


def test_in_a_pipe_a_verdict_is_on_the_line_of_its_benchmark(several, capsys):
    assert main(["compare", *map(str, several)]) == 0
    rows = [line for line in capsys.readouterr().out.splitlines() if line.startswith("  toy ")]
    assert [row.split("  ")[-1].split(":")[0] for row in rows] == ["better", "not distinguishable"]


def test_on_a_terminal_of_80_columns(several):
    ours, theirs = pty.openpty()
    env = os.environ | {"COLUMNS": "80", "LINES": "50"}
    subprocess.run([sys.executable, "-m", "posttrain.cli", "compare", *map(str, several)], stdout=theirs, env=env, check=True)  # fmt: skip
    os.close(theirs)
    said = b""
    try:
        while part := os.read(ours, 65536):
            said += part
    except OSError:  # the other end is closed
        pass
    os.close(ours)
    lines = said.decode().replace("\r\n", "\n").splitlines()
    assert "  toy: better" in lines
    assert all(len(line) <= 80 for line in lines if "comparison.json" not in line)


def test_a_place_named_twice_has_its_own_table_each_time(several):
    lines = comparisons(compare_all([several[0], several[1], several[1]]), None).splitlines()
    assert sum(line.startswith("  toy ") for line in lines) == 2
    assert not any(one == two == "" for one, two in itertools.pairwise(lines))


def test_one_problem(tmp_path):
    a, b = (evaluation(tmp_path / name, [[score]]) for name, score in (("a", 0), ("b", 1)))
    text = comparisons(compare_all([a, b]), 80)
    assert "B is not distinguishable" in text.splitlines()
    assert "[unknown]" in text
    assert "nothing: too few problems" in text
