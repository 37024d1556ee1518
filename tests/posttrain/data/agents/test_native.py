"""Rows whose calls the chat template writes, and rows of whole trajectories: what is trained on, token by token."""

from __future__ import annotations

import json

import pytest

from posttrain.data import load_rows
from posttrain.data.agents import adp
from posttrain.data.agents.native import is_native, shows_tools
from posttrain.data.agents.turns import sft, turns
from posttrain.errors import Mistake
from posttrain.recipe.schema import Source

TEMPLATE = (
    "{%- if tools -%}<|system|>{%- for t in tools -%}{{ t | tojson }}{%- endfor -%}<|end|>{%- endif -%}"
    "{%- for m in messages -%}"
    "{%- if m.role == 'assistant' -%}<|assistant|>{%- generation -%}{{- m.content -}}"
    "{%- for c in m.tool_calls or [] -%}{{ '[' + c.function.name + ' ' + (c.function.arguments | tojson) + ']' }}{%- endfor -%}"
    "{{- '<|end|>' -}}{%- endgeneration -%}"
    "{%- elif m.role == 'tool' -%}<|user|>={{ m.content }}<|end|>"
    "{%- else -%}<|{{ m.role }}|>{{ m.content }}<|end|>{%- endif -%}{%- endfor -%}"
    "{%- if add_generation_prompt -%}<|assistant|>{%- endif -%}"
)


@pytest.fixture
def speaks_tools():
    from posttrain.miniature import tokenizer

    made = tokenizer.build()
    made.chat_template = TEMPLATE
    return made


def step(name, kwargs, call_id, thought):
    return {
        "class_": "api_action",
        "function": name,
        "kwargs": kwargs,
        "description": thought,
        "tool_call_id": call_id,
    }


def seen(text, call_id):
    return {"class_": "text_observation", "content": text, "source": "environment", "tool_call_id": call_id}


def row(name="x"):
    steps = [
        {"class_": "text_observation", "content": "go", "source": "user"},
        step("look", {"x": 1}, "a", "Look."),
        seen("found", "a"),
        step("move", {"to": "b"}, "b", "Move."),
        seen("moved", "b"),
        {"class_": "message_action", "content": "done"},
    ]
    return {"schema_version": "1.2.0", "id": name, "content": steps, "details": {}}


def definition(name, argument, kind, required=True):
    parameters = {
        "type": "object",
        "properties": {argument: {"type": kind}},
        "required": [argument] if required else [],
    }
    return {"type": "function", "function": {"name": name, "description": f"does {name}", "parameters": parameters}}


TOOLS = [definition("look", "x", "integer"), definition("move", "to", "string")]


@pytest.fixture
def files(tmp_path):
    (tmp_path / "std.jsonl").write_text("".join(json.dumps(row(n)) + "\n" for n in ("x", "y")))
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    return {"path": str(tmp_path / "std.jsonl"), "tools": str(tmp_path / "tools.json")}


def test_whether_a_template_shows_tools(speaks_tools, tmp_path):
    from posttrain.miniature.tokenizer import build

    tokenizer = build()
    assert shows_tools(speaks_tools)
    assert not shows_tools(tokenizer), "the miniature's own refuses the role"
    speaks_tools.chat_template = TEMPLATE.replace("{%- if tools -%}", "{%- if false -%}")
    assert not shows_tools(speaks_tools), "without definitions"
    speaks_tools.chat_template = TEMPLATE.replace("m.tool_calls or []", "[]")
    assert not shows_tools(speaks_tools), "without calls"
    speaks_tools.chat_template = TEMPLATE.replace("={{ m.content }}", "=")
    assert not shows_tools(speaks_tools), "without results"
    speaks_tools.chat_template = TEMPLATE
    speaks_tools.save_pretrained(tmp_path / "speaks")
    tokenizer.save_pretrained(tmp_path / "mute")
    for folder in ("speaks", "mute"):
        (tmp_path / folder / "config.json").write_text('{"model_type": "qwen2"}')
    assert is_native("auto", str(tmp_path / "speaks"))
    assert is_native("native", str(tmp_path / "speaks"))
    assert not is_native("auto", str(tmp_path / "mute"))
    assert not is_native("text", None)
    with pytest.raises(Mistake, match="does not show tools; take style: text"):
        is_native("native", str(tmp_path / "mute"))
    with pytest.raises(Mistake, match="say whose"):
        is_native("auto", None)
    with pytest.raises(Mistake, match="none of text, native, auto"):
        is_native("xml", None)


def test_native_rows_reach_the_template_unchanged(files, speaks_tools):
    """Arrow would give `look` a `to: null` and `move` an `x: null`; with the tools of the source, not of the row."""
    source = Source.model_validate(
        {"use": "posttrain.data.agents:sft", "with": {"sources": [files], "style": "native"}}
    )
    rows, counts = load_rows(source, speaks_tools, max_prompt_tokens=1000)
    assert counts["kept"] == 6
    assert rows[0]["tools"] == TOOLS
    second = rows[1]
    text = speaks_tools.apply_chat_template(
        second["prompt"] + second["completion"], tools=second["tools"], tokenize=False
    )
    assert '[look {"x": 1}]' in text
    assert text.endswith('<|assistant|>Move.[move {"to": "b"}]<|end|>')
    # The definitions count for the length of a prompt.
    bare = len(speaks_tools.apply_chat_template(rows[0]["prompt"], add_generation_prompt=True)["input_ids"])
    with pytest.raises(Mistake, match="longer than"):
        load_rows(source, speaks_tools, max_prompt_tokens=bare)


def test_the_sources_tools_are_a_gate_and_a_definition(files, tmp_path, capsys):
    (tmp_path / "tools.json").write_text(json.dumps([TOOLS[0], definition("jump", "x", "string")]))
    with pytest.raises(Mistake, match="2 unknown tool"):
        sft(sources=[files])
    (tmp_path / "tools.json").write_text(json.dumps([TOOLS[0], definition("move", "speed", "string")]))
    with pytest.raises(Mistake, match="2 a call without a required argument"):
        sft(sources=[files])
    (tmp_path / "tools.json").write_text(json.dumps(TOOLS))
    said = sft(sources=[files])[0]["prompt"][0]
    assert said["role"] == "system"
    assert "does look" in said["content"]
    assert "does move" in said["content"]


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "not JSON"),
        ("{}", "must be a list"),
        ("[3]", "entry 0: no definition"),
        (json.dumps([TOOLS[0], TOOLS[0]]), 'entry 1: "look" is defined twice'),
        (None, "No such file"),
    ],
)
def test_a_wrong_file_of_tools_is_one_line(files, tmp_path, content, told):
    (tmp_path / "tools.json").unlink()
    if content is not None:
        (tmp_path / "tools.json").write_text(content)
    with pytest.raises(Mistake, match=rf"sources\.0\.tools: .*{told}"):
        sft(sources=[files])


@pytest.mark.parametrize("native", [False, True])
def test_one_row_a_trajectory_is_its_steps_joined(native):
    made = adp.read(row(), "row 1")
    steps = turns(made, native=native)
    (one,) = turns(made, native=native, whole=True)
    assert one["prompt"] == steps[0]["prompt"]
    assert one["prompt"] + one["completion"] == steps[-1]["prompt"] + steps[-1]["completion"]
    assert [m for m in one["completion"] if m["role"] == "assistant"] == [s["completion"][0] for s in steps]


def test_a_trajectory_with_copied_context_in_its_middle_is_left_out(tmp_path, capsys):
    said = [
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": "1"},
        {"role": "user", "content": "on"},
    ]
    last = {"role": "assistant", "content": "3"}
    chats = [
        {"id": "good", "messages": [*said, last]},
        {"id": "bad", "messages": [*said, {"role": "assistant", "content": "2", "train": False}, said[2], last]},
    ]
    path = tmp_path / "chats.jsonl"
    path.write_text("".join(json.dumps(one) + "\n" for one in chats))
    assert [one["row_id"] for one in sft(str(path), rows="trajectory")] == ["chats:good#all"]
    assert "1 left out (1 copied context" in capsys.readouterr().err
    assert len(sft(str(path))) == 4
    with pytest.raises(Mistake, match="neither step nor trajectory"):
        sft(str(path), rows="all")
