"""A real run's rollouts go out as ATIF with the very ids and log-probs that were sampled, and as ADP."""

from __future__ import annotations

import json

import pytest

from posttrain.cli import main
from posttrain.data.agents import adp, atif
from posttrain.data.agents.pairs import preferences
from posttrain.rundir import read_lines
from posttrain.trainers.grpo import GRPO
from rollouts.strategies.scaffold import Scaffold


@pytest.mark.parametrize("keep", [True, False])
def test_rollouts_go_out(parts, tmp_path, capsys, keep):
    built = parts(args={"max_steps": 1}, rollouts={"sampling": {"max_tokens": 12}, "keep_tokens": keep})
    trainer = GRPO.build(built)
    trainer.train()
    built.stack.close()
    records = [one for file in sorted(built.run.rollouts.glob("*.jsonl")) for one in read_lines(file)]
    assert len(records) == 8
    out = tmp_path / "out.jsonl"
    assert main(["data", "export", str(built.run.root), "--out", str(out)]) == 0
    rows = list(read_lines(out))
    assert len(rows) == 8
    assert ("without token ids" in capsys.readouterr().out) is not keep
    for row, record in zip(rows, records, strict=True):
        read = atif.read(row, "row")
        assert atif.write(read) == row
        last = row["steps"][-1]
        assert (last["message"], last["extra"]["reward"]) == (record["completion"], record["reward"])
        assert ("completion_token_ids" in last["metrics"]) is keep
        if keep:
            assert len(last["metrics"]["logprobs"]) == len(record["completion_ids"]) > 0
            assert last["metrics"]["completion_token_ids"] == record["completion_ids"]
            assert last["metrics"]["logprobs"] == record["logprobs"]
            text = built.tokenizer.decode(last["metrics"]["completion_token_ids"], skip_special_tokens=True)
            assert text == record["completion"]
    pairs = preferences(str(out))
    assert all(one["margin"] > 0 and one["chosen"] != one["rejected"] for one in pairs)
    assert {one["prompt"][0]["content"] for one in pairs} <= {one["prompt"][0]["content"] for one in records}
    assert main(["data", "export", str(built.run.root), "--format", "adp", "--out", str(out)]) == 0
    for number, line in enumerate(out.read_text().splitlines(), 1):
        row = json.loads(line)
        assert adp.read(row, f"row {number}").content[-1].reward == row["content"][-1]["reward"]
        assert row["schema_version"] == "1.2.0"


class Terse(Scaffold):
    """The tiny model's tokens are characters."""

    def text(self, row, shown):
        return "hint"


def test_log_probs_of_another_prompt_go_out_with_that_prompt(parts, tmp_path):
    """A scaffolded sample's log-probs are not those under the row's own prompt."""
    built = parts(args={"max_steps": 1}, rollouts={"sampling": {"max_tokens": 12}, "keep_tokens": True})
    built.strategy = Terse(inter="constant", place="user")
    rubric = [{"criterion": "a", "points": 1}]
    built.train = built.train.select(range(4)).add_column("rubric", [rubric] * 4)
    trainer = GRPO.build(built)
    trainer.train()
    built.stack.close()
    out = tmp_path / "out.jsonl"
    assert main(["data", "export", str(built.run.root), "--out", str(out)]) == 0
    rows = list(read_lines(out))
    made = trainer.bridge.made
    assert [row["steps"][-1]["metrics"].get("extra") for row in rows] == [
        None if r.seen_ids is None else {"seen_token_ids": r.seen_ids} for r in made
    ]
    assert [r.seen_ids is None for r in made] == [False, False, True, True] * 2
    assert [row["steps"][-1]["metrics"]["prompt_token_ids"] for row in rows] == [r.prompt_ids for r in made]
    assert all(atif.write(atif.read(row, "row")) == row for row in rows)


def test_a_folder_without_rollouts_is_one_line(tmp_path, capsys):
    assert main(["data", "export", str(tmp_path)]) == 2
    assert "has no rollouts/" in capsys.readouterr().err
