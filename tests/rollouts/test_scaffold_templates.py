"""Scaffolds under the chat templates of real models (those that TRL ships): all of one is rendered, once, in one system turn at
most, or it is refused; nothing of the row's own turns is lost."""

from __future__ import annotations

import importlib.util
from itertools import product
from pathlib import Path

import pytest

from rollouts.records import Row
from rollouts.strategies import hints
from rollouts.strategies.scaffold import Scaffold

FOLDER = Path(importlib.util.find_spec("trl").origin).parent / "chat_templates"
# Of models with pictures, which take no turns of plain text.
TEMPLATES = sorted({p.stem for p in FOLDER.glob("*.jinja") if "training" not in p.stem} - {"idefics3", "smolvlm"})
RUBRIC = [{"criterion": "names the dose", "points": 5}, {"criterion": "is rude", "points": -2}]
U, A, S = ({"role": r, "content": t} for r, t in (("user", "Q1?"), ("assistant", "A1."), ("system", "S1.")))
PROMPTS = {
    "a question": [U],
    "an own system turn": [S, U],
    "a dialogue": [U, A, {"role": "user", "content": "Q2?"}],
    "a developer turn": [{"role": "developer", "content": "S1."}, U],
    "two system turns": [S, {"role": "system", "content": "S2."}, U],
    "a system turn later on": [U, S, {"role": "user", "content": "Q2?"}],
}
SYSTEM = ("<|im_start|>system", "<|start_header_id|>system", "<|system|>", "<|SYSTEM_TOKEN|>")


@pytest.mark.parametrize("template", TEMPLATES)
def test_all_of_it_is_rendered_once_or_it_is_refused(tiny, template):
    source = (FOLDER / f"{template}.jinja").read_text()
    shown = []
    for (name, prompt), place in product(PROMPTS.items(), ("system", "user")):
        scaffold, row = Scaffold(place=place), Row("a", prompt, {"rubric": RUBRIC})

        def render(turns):
            return tiny.tokenizer.apply_chat_template(
                turns, chat_template=source, add_generation_prompt=True, tokenize=False
            )

        try:
            plain = render(prompt)
            added = scaffold.longest(row, lambda turns: list(render(turns)))
        except Exception:  # templates raise what they like
            continue
        told = render(scaffold.prompt(row, [0, 1]))
        assert added == len(told) - len(plain)
        assert [told.count(x) for x in (hints.OPENING, "names the dose", "is rude", hints.SECRECY)] == [1] * 4, name
        assert all(told.count(turn["content"]) == plain.count(turn["content"]) for turn in prompt), name
        assert all(told.count(marker) <= max(1, plain.count(marker)) for marker in SYSTEM), "a second system turn"
        shown.append((name, place))
    # gemma's has no system turns; one wants a BOS, which this tokenizer lacks, one turns that are made of parts.
    places = {"gemma": ["user"], "llama3": [], "llava_next": []}.get(template, ["system", "user"])
    assert [place for name, place in shown if name == "a question"] == places


def test_templates_that_matter_are_among_them():
    assert {"qwen2_5", "qwen3", "gemma", "gemma3", "llama3_1", "llama3_2", "gptoss"} <= set(TEMPLATES)
