"""What models and users wrote, printed by every command that prints it: nothing of it reaches the terminal as a command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain.cli import main

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "\x1b[2J\x1b]0;owned\x07\x9b31m\u202ecod.exe\u2066\x00\x08\r[bold]x[/] \\[/red] \ud83d"
RAW = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def shown(capsys) -> str:
    out, err = capsys.readouterr()
    assert not RAW.search(out), RAW.search(out)
    assert not RAW.search(err), RAW.search(err)
    return out + err


def data(tmp_path: Path, *rows: dict) -> Path:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_rewards_check_shows_completions_and_faults(tmp_path, capsys):
    reward = tmp_path / "mine.py"
    reward.write_text("def f(completions, **_):\n    raise ValueError('saw ' + str(completions[0]))\n")
    file = data(tmp_path, {"prompt": "p", "completion": HOSTILE[:-1], "answer": HOSTILE[:-1]})
    assert main(["rewards", "check", f"{reward}:f", "--data", str(file)]) == 2
    told = shown(capsys)
    assert "\\x1b[2J" in told
    assert "could not be judged" in told


def test_plan_shows_prompts_and_answers(tiny, tmp_path, capsys):
    # The first row's text is plain, so that the rewards judge it; the others attack.
    rows = [
        {"question": f"1 + 1 {HOSTILE[:-1]}", "answer": f"2 {HOSTILE[:-1]}", "row_id": f"r{i}\x1b[2J"}
        for i in range(16)
    ]
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({
        "model": {"name": tiny, "max_length": 256}, "adapter": {"r": 4},
        "data": {"train": {"path": str(data(tmp_path, *rows)), "prompt": "{question}"}},
        "rewards": [{"use": "rewards.math:correct"}],
        "rollouts": {"sampling": {"max_tokens": 16}},
        "trainer": {"args": {"per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 1}},
        "run": {"name": "r"},
    }))  # fmt: skip
    code = main(["plan", str(recipe)])
    told = shown(capsys)
    assert code == 0, told
    assert "\\x9b31m" in told or "\\x1b[2J" in told


def test_a_recipe_shows_its_values(tmp_path, capsys):
    recipe = tmp_path / "r.yaml"
    recipe.write_text(json.dumps({
        "model": {"name": "a/b"}, "data": {"train": {"hub": "x/y", "system": HOSTILE[:-1]}},
        "rewards": [{"use": "rewards.math:correct"}], "trainer": {}, "run": {"name": "r"},
    }))  # fmt: skip
    for option in ("--shape-only", "--no-code"):
        assert main(["plan", option, str(recipe)]) == 0
        assert "\\e[2J" in shown(capsys)  # YAML's own escape


def evaluation(folder: Path, **changes) -> Path:
    from posttrain.evaluation.results import Result

    known = {"benchmark": "b", "when": None, "n": 6, "k": 1, "model": "m", "adapter": None, "engine": "e", "sampling": {}, "seed": 0,
             "prompt_style": "s", "prompt_hash": "h", "grader": {}, "metrics": {}, "truncated": 0.0, "no_answer": 0.0, "timeouts": 0.0,
             "aborted": 0.0, "tokens": 6, "prompt_tokens": 6, "seconds": 1.0, "created": "", "versions": {}, "settings": "", "notes": []}  # fmt: skip
    folder.mkdir()
    (folder / "samples.jsonl").write_text("".join(
        json.dumps({"item_id": f"i{i}", "sample": 0, "score": float(i % 2), "gold": "g"}) + "\n" for i in range(6)
    ))  # fmt: skip
    Result(**{**known, **changes}).write(folder)
    return folder


def test_compare_shows_names_and_notes(tmp_path, capsys):
    a = evaluation(tmp_path / "a", model=HOSTILE, benchmark="b\x1b[2J")
    b = evaluation(tmp_path / "b", benchmark="b\x1b[2J", sampling={"x\x9b": HOSTILE})
    assert main(["compare", str(a), str(b)]) == 0
    assert "\\x1b]0;owned" in shown(capsys)
    c = evaluation(tmp_path / "c", benchmark=HOSTILE)
    assert main(["compare", str(a), str(c)]) == 2
    assert "\\x1b]0;owned" in shown(capsys)


@pytest.mark.parametrize("error", ["ValueError", "Mistake", "Alarm", "EngineError"])
def test_however_a_command_ends(error, tmp_path):
    """An exception that quotes a model's words, of the user's making and of ours, in a process of its own."""
    code = (
        "import sys\nfrom posttrain import exits\nfrom posttrain.errors import Mistake, Alarm\n"
        "from rollouts.records import EngineError\n"
        f"def do():\n    raise {error}('it said ' + {HOSTILE!r})\n"
        "sys.exit(exits.guarded(do))"
    )
    ended = subprocess.run(
        [sys.executable, "-c", code], env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, check=False
    )
    told = ended.stderr.decode()
    assert ended.returncode == {"ValueError": 1, "Mistake": 2}.get(error, 3)
    assert "it said \\x1b[2J" in told
    assert not RAW.search(told)


def test_files_of_a_run_can_be_shown_with_cat(tmp_path):
    from posttrain.rundir import append_line, read_lines, write_json

    record = {"completion": HOSTILE, "long": "x\x9b" * 500_000}
    append_line(tmp_path / "rollouts.jsonl", record)
    write_json(tmp_path / "status.json", record)
    assert next(iter(read_lines(tmp_path / "rollouts.jsonl"))) == record
    assert json.loads((tmp_path / "status.json").read_text()) == record
    for name in ("rollouts.jsonl", "status.json"):
        assert not RAW.search((tmp_path / name).read_text())
