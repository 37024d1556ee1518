"""Templates, BOS, EOS and pads that are wrong, each in its own way; and odd ones that are right."""

from __future__ import annotations

import pytest

GENERATION = "{%- if add_generation_prompt -%}{{- '<|assistant|>' -}}{%- endif -%}"
TURNS = (
    "{%- for m in messages -%}{{- '<|' + m['role'] + '|>' -}}"
    "{%- if m['role'] == 'assistant' -%}{{- ANSWER -}}{%- else -%}{{- m['content'] + '<|end|>' -}}{%- endif -%}{%- endfor -%}"
)


def template(answer="m['content'] + '<|end|>'", generation=GENERATION, turns=TURNS):
    return turns.replace("ANSWER", answer) + generation


@pytest.fixture
def chat(look, tmp_path):
    """What the checks say under a template of one's own, given as the recipe does."""

    def do(text, *words, **more):
        file = tmp_path / "chat.jinja"
        file.write_text(text)
        return look(f"model.chat_template={file}", *words, **more)

    return do


def test_no_generation_prompt(chat):
    row = chat(template(generation=""))["chat template"]
    assert row.ok is False
    assert "writes '<|assistant|>' before an answer" in row.looked
    assert "add_generation_prompt" in row.mend


@pytest.mark.parametrize(
    ("generation", "missing"),
    [
        ("{%- if add_generation_prompt -%}{{- '<|user|>' -}}{%- endif -%}", "<|assistant|>"),
        ("{%- if add_generation_prompt -%}{{- '<|assistant|>\\n' -}}{%- endif -%}", "<|assistant|>"),
    ],
    ids=["another header", "a line end too many"],
)
def test_a_generation_prompt_that_leads_elsewhere(chat, generation, missing):
    row = chat(template(generation=generation))["chat template"]
    assert row.ok is False
    assert missing in row.looked


def test_a_template_that_leaves_answers_out(chat):
    row = chat(template(answer="''"))["chat template"]
    assert row.ok is False
    assert "does not show" in row.looked


@pytest.mark.parametrize(
    ("answer", "generation"),
    [
        ("'<think>\\n\\n</think>\\n\\n' + m['content'] + '<|end|>'", GENERATION),
        ("m['content'] + '<|end|>'", GENERATION.replace("'<|assistant|>'", "'<|assistant|><think>\\n'")),
        ("'<|user|>' + m['content'] + '<|end|>'", GENERATION),
        ("' ' + m['content'] + '<|end|>'", ""),
    ],
    ids=[
        "an empty thought before answers",
        "the prompt opens the thought",
        "a channel mark",
        "the user's turn ends it",
    ],
)
def test_odd_templates_that_are_right(chat, answer, generation):
    turns = TURNS if generation else "{%- for m in messages -%}{%- if m['role'] == 'assistant' -%}{{- ANSWER -}}{%- else -%}{{- '<|user|>' + m['content'] + '<|assistant|>' -}}{%- endif -%}{%- endfor -%}"  # fmt: skip
    assert chat(template(answer, generation, turns))["chat template"].ok


def with_bos(parts):
    parts.tokenizer.bos_token = "<|system|>"


def test_a_bos_twice(chat):
    twice = "{{- '<|system|><|system|>' -}}" + template()
    row = chat(twice, change=with_bos)["BOS"]
    assert row.ok is False
    assert "'<|system|>' twice" in row.looked


def test_a_bos_once(chat):
    row = chat("{{- '<|system|>' -}}" + template(), change=with_bos)["BOS"]
    assert row.ok
    assert row.looked.startswith("8 of 8")


def test_pad_is_eos(look):
    def change(parts):
        parts.tokenizer.pad_token = parts.tokenizer.eos_token

    row = look(change=change)["EOS and pad"]
    assert row.ok is False
    assert "pad and EOS are one token, '<|end|>'" in row.looked


def test_the_template_ends_turns_with_plain_text(chat):
    row = chat(template(answer="m['content'] + '\\n\\n'"))["EOS and pad"]
    assert row.ok is False
    assert "closes an assistant's turn with no special token" in row.looked


def test_an_end_that_the_engine_does_not_know(chat):
    """An engine of the user's that stops at the tokenizer's EOS alone."""
    import dataclasses

    def change(parts):
        parts.engine.spec = dataclasses.replace(parts.engine.spec, eos_ids=(parts.tokenizer.eos_token_id,))

    row = chat(template(answer="m['content'] + '<|system|>'"), change=change)["EOS and pad"]
    assert row.ok is False
    assert "'<|system|>', the engine stops at '<|end|>' only" in row.looked


def test_an_end_that_trl_takes_for_a_truncation(chat):
    ends = template(answer="m['content'] + '<|system|>'")
    assert chat(ends)["EOS and pad"].ok
    # Ours goes by the engine's word (tests/posttrain/trainers/test_traps_rewards.py).
    assert chat(ends, "trainer.args.mask_truncated_completions=true")["EOS and pad"].ok
