"""Pairs and demonstrations that teach something else than was meant."""

from __future__ import annotations

import json

import pytest

ENDS = (
    "{%- for m in messages -%}{{- '<|' + m['role'] + '|>' + m['content'] -}}{%- if m['role'] != 'assistant' or CLOSED -%}"
    "{{- '<|end|>' -}}{%- endif -%}{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


@pytest.fixture
def given(look, tmp_path):
    """`given("dpo" or "sft", rows, template=..., chat=True)`: what the check of the rows says."""

    def do(kind, rows, *words, template=None, chat=True, **more):
        file = tmp_path / "rows.jsonl"
        file.write_text("".join(json.dumps(row) + "\n" for row in rows))
        words = [*words, f"data.train={{path: '{file}', chat: {str(chat).lower()}}}"]
        if template is not None:
            (tmp_path / "chat.jinja").write_text(template)
            words.append(f"model.chat_template={tmp_path / 'chat.jinja'}")
        return look(*words, recipe=f"arithmetic_{kind}", **more)["pairs" if kind == "dpo" else "answers"]

    return do


def pairs(chosen="yes", rejected="no", n=16):
    return [{"prompt": f"say {i}", "chosen": f"{chosen}{i}", "rejected": f"{rejected}{i}"} for i in range(n)]


def told(completion="yes", n=16):
    return [{"prompt": f"say {i}", "completion": f"{completion}{i}"} for i in range(n)]


@pytest.mark.parametrize("chat", [True, False], ids=["chat", "plain"])
def test_sound_ones(given, chat):
    assert given("dpo", pairs(), chat=chat).ok
    assert given("sft", told(), chat=chat).ok


def test_the_prompt_changes_when_an_answer_follows(given):
    """A template that marks the turn it ends with."""
    bare = ENDS.replace("CLOSED", "true").replace("'<|' + m['role']", "('<|pad|>' if loop.last and m['role'] == 'user' else '') + '<|' + m['role']")  # fmt: skip
    for kind, rows in (("dpo", pairs()), ("sft", told())):
        row = given(kind, rows, template=bare)
        assert row.ok is False
        assert "the prompt's ids change when an answer follows" in row.looked


def test_no_eos(given):
    for kind, rows in (("dpo", pairs()), ("sft", told())):
        row = given(kind, rows, template=ENDS.replace("CLOSED", "false"))
        assert row.ok is False
        assert "has no EOS ('<|end|>')" in row.looked


def test_two_eos(given):
    """The text brings its own, the template another."""
    row = given("dpo", [{**p, "chosen": p["chosen"] + "<|end|>"} for p in pairs()])
    assert row.ok is False
    assert "its chosen answer has 2 EOS" in row.looked
    row = given("sft", [{**p, "completion": p["completion"] + "<|end|>"} for p in told()])
    assert row.ok is False
    assert "its answer has 2 EOS" in row.looked


def test_a_bos_in_the_answer(given):
    def change(parts):
        parts.tokenizer.bos_token = "<|system|>"

    row = given("dpo", pairs(rejected="<|system|>no"), change=change)
    assert row.ok is False
    assert "its rejected answer holds the BOS '<|system|>'" in row.looked
    assert given("dpo", pairs(), change=change).ok


def test_two_answers_that_are_one(given):
    row = given("dpo", pairs(chosen="no", rejected="no"))
    assert row.ok is False
    assert "the same text" in row.looked


def test_several_turns_have_several_ends(given):
    turns = [
        {"role": "assistant", "content": "which?"},
        {"role": "user", "content": "that one"},
        {"role": "assistant", "content": "yes"},
    ]
    assert given("sft", [{"prompt": f"say {i}", "completion": turns} for i in range(16)]).ok


MOOD = (
    "{%- for m in messages -%}{{- '<|' + m['role'] + '|>' + (mood if m['role'] == 'user' else '') + m['content'] + '<|end|>' -}}"
    "{%- endfor -%}{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
)


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_arguments_of_the_template_hold_for_what_is_learned_too(given, kind):
    """What `model.template_args` says shapes the prompts that the policy will see; those it learns from must be the same."""
    row = given(kind, told() if kind == "sft" else pairs(), "model.template_args={mood: kindly}", template=MOOD)
    assert row.ok, row
