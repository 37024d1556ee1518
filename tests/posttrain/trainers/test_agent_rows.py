"""Rows made of agents' trajectories are really trained on, by SFT and by DPO."""

from __future__ import annotations

import json

import pytest

from posttrain.data import load_rows
from posttrain.errors import Mistake
from posttrain.recipe.schema import Source
from posttrain.rundir import read_lines
from posttrain.trainers.dpo import DPO
from posttrain.trainers.sft import SFT


def row(name, *, command="ls", found="f", said="done", reward=None, thought="Look."):
    steps = [
        {"class_": "text_observation", "content": "go", "source": "user"},
        {"class_": "code_action", "language": "bash", "content": command, "description": thought, "tool_call_id": "a"},
        {"class_": "text_observation", "content": found, "source": "environment", "tool_call_id": "a"},
        {"class_": "message_action", "content": said},
    ]
    if reward is not None:
        steps[-1]["reward"] = reward
    return {"schema_version": "1.2.0", "id": name, "content": steps, "details": {}}


def written(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def test_sft_trains_on_them(parts, tmp_path):
    path = written(tmp_path / "std.jsonl", [row(f"r{i}", found=str(i), said=f"done {i}") for i in range(8)])
    built = parts(rewards=[], algorithm="sft", args={"max_steps": 3, "per_device_train_batch_size": 2})
    source = Source.model_validate({"use": "posttrain.data.agents:sft", "with": {"path": path}})
    built.train, counts = load_rows(source, built.tokenizer)
    assert counts["kept"] == 16
    trainer = SFT.build(built)
    one = trainer.train_dataset[1]
    trained = [i for i, label in zip(one["input_ids"], one["labels"], strict=True) if label != -100]
    assert built.tokenizer.decode(trained) == "done 0<|end|>"
    trainer.train()
    assert [m["step"] for m in read_lines(built.run.metrics) if m["phase"] == "train"] == [1, 2, 3]


def test_dpo_trains_on_them(parts, tmp_path):
    given = [row(f"r{i}", found=str(i % 4), said=f"end {i}", reward=i / 8) for i in range(16)]
    source = Source.model_validate(
        {"use": "posttrain.data.agents:preferences", "with": {"path": written(tmp_path / "std.jsonl", given)}}
    )
    built = parts(rewards=[], algorithm="dpo", args={"max_steps": 2, "per_device_train_batch_size": 2})
    built.train, counts = load_rows(source, built.tokenizer)
    assert counts["kept"] == 12
    DPO.build(built).train()
    train = [m for m in read_lines(built.run.metrics) if m["phase"] == "train"]
    assert [m["step"] for m in train] == [1, 2]


def trained_text(built, row):
    """What is trained on, by runs of tokens."""
    runs, inside = [], False
    for i, label in zip(row["input_ids"], row["labels"], strict=True):
        if label != -100:
            if not inside:
                runs.append([])
            runs[-1].append(i)
        inside = label != -100
    return [built.tokenizer.decode(run) for run in runs]


def test_a_whole_trajectory_trains_on_what_the_agent_wrote_alone(parts, tmp_path):
    path = written(tmp_path / "std.jsonl", [row(f"r{i}", found=f"f{i}", said=f"done {i}") for i in range(4)])
    arguments = {"max_steps": 1, "per_device_train_batch_size": 2, "assistant_only_loss": True}
    built = parts(rewards=[], algorithm="sft", args=arguments)
    with_ = {"path": path, "rows": "trajectory"}
    built.train, counts = load_rows(Source.model_validate({"use": "posttrain.data.agents:sft", "with": with_}))
    assert counts["kept"] == 4
    trainer = SFT.build(built)
    trainer.train()
    call, last = trained_text(built, trainer.train_dataset[1])
    assert call.startswith("Look.\n<tool_call>")
    assert "f1" not in call
    assert last == "done 1<|end|>"


def test_without_it_the_row_is_refused(parts, tmp_path):
    path = written(tmp_path / "std.jsonl", [row("r0")])
    built = parts(rewards=[], algorithm="sft", args={"max_steps": 1})
    with_ = {"path": path, "rows": "trajectory"}
    built.train, _ = load_rows(Source.model_validate({"use": "posttrain.data.agents:sft", "with": with_}))
    with pytest.raises(Mistake, match=r"row 1 \(std:r0#all\) holds a user turn, .*assistant_only_loss: true"):
        SFT.build(built)


TEMPLATE = (
    "{%- if tools -%}<|system|>{{ tools | tojson }}<|end|>{%- endif -%}{%- for m in messages -%}"
    "{%- if m.role == 'assistant' -%}<|assistant|>{%- generation -%}{{- m.content -}}"
    "{%- for c in m.tool_calls or [] -%}{{ '[' + c.function.name + (c.function.arguments | tojson) + ']' }}{%- endfor -%}"
    "{{- '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif m.role == 'tool' -%}<|user|>={{ m.content }}<|end|>"
    "{%- else -%}<|{{ m.role }}|>{{ m.content }}<|end|>{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


@pytest.mark.parametrize("whole", [False, True])
def test_calls_that_the_template_writes_are_trained_on(parts, tmp_path, whole):
    given = [row(f"r{i}", found=f"f{i}", said=f"done {i}") for i in range(4)]
    for one in given[2:]:  # another call with other arguments, which Arrow would give to all
        one["content"][1] = {
            "class_": "api_action", "function": "look", "kwargs": {"at": 3}, "description": "Look.", "tool_call_id": "a"
        }  # fmt: skip
    arguments = {"max_steps": 1, "per_device_train_batch_size": 2, "assistant_only_loss": whole}
    built = parts(rewards=[], algorithm="sft", args=arguments)
    built.tokenizer.chat_template = TEMPLATE
    with_ = {
        "path": written(tmp_path / "std.jsonl", given),
        "style": "native",
        "rows": "trajectory" if whole else "step",
    }
    source = Source.model_validate({"use": "posttrain.data.agents:sft", "with": with_})
    built.train, _ = load_rows(source, built.tokenizer)
    trainer = SFT.build(built)
    trainer.train()
    texts = [trained_text(built, one) for one in trainer.train_dataset]
    bash, look = 'Look.[execute_bash{"command": "ls"}]<|end|>', 'Look.[look{"at": 3}]<|end|>'
    expected = [[call, f"done {i}<|end|>"] for i, call in enumerate([bash, bash, look, look])]
    assert texts == (expected if whole else [[part] for both in expected for part in both])
    shown = built.tokenizer.decode(trainer.train_dataset[0]["input_ids"])
    assert "Run a command in a shell." in shown
