"""Over-long prompts, measured and cut with a real tokenizer and a template that does things to the text."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.data.filters import fit
from posttrain.errors import Mistake
from posttrain.miniature import tokenizer as miniature
from rollouts.prompts import encode

TOKENIZER = miniature.build()
TRIMMING = miniature.build()
TRIMMING.chat_template = (
    "{% for m in messages %}<|{{ m['role'] }}|>{{ m['content'] | trim }}{{ suffix or '' }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


def row(prompt) -> dict:
    return {"row_id": "r", "prompt": prompt, "answer": 1}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def test_what_fits_is_not_touched():
    rows = [row([user("abc")]), row("abc")]
    kept, counts = fit(rows, TOKENIZER, 6, "error", "w")
    assert kept == rows
    assert counts == {"dropped": 0, "cut": 0}


def test_dropped_ones_are_counted():
    rows = [row([user("x" * n)]) for n in (1, 50, 2, 60)]
    kept, counts = fit(rows, TOKENIZER, 10, "drop", "w")
    assert kept == [rows[0], rows[2]]
    assert counts == {"dropped": 2, "cut": 0}
    with pytest.raises(Mistake, match="all 2 prompts are longer than 10 tokens"):
        fit([rows[1], rows[3]], TOKENIZER, 10, "drop", "w")


def test_an_error_says_how_many_and_how_long():
    rows = [row([user("x" * n)]) for n in (1, 50, 60)]
    with pytest.raises(Mistake, match=r"w\.overlong: 2 of 3 .* 10 tokens \(row 3 has 63\)"):
        fit(rows, TOKENIZER, 10, "error", "w")


@given(st.text(max_size=40), st.text(max_size=40), st.integers(14, 60), st.booleans())
@settings(max_examples=150, deadline=None)
def test_a_cut_prompt_fits_ends_alike_and_is_no_shorter_than_need_be(first, second, most, trims):
    tokenizer = TRIMMING if trims else TOKENIZER
    turns = [{"role": "system", "content": "sys"}, user(first), {"role": "assistant", "content": "ok"}, user(second)]
    kept, counts = fit([row(turns)], tokenizer, most, "keep_tail", "w")
    made = kept[0]["prompt"]
    assert len(encode(tokenizer, made)) <= most
    assert [(t["role"], t["content"]) for t in made if t["role"] != "user"] == [("system", "sys"), ("assistant", "ok")]
    texts = [t["content"] for t in made if t["role"] == "user"]
    assert first.endswith(texts[0])
    assert second.endswith(texts[1])
    assert texts[0] == "" or texts[1] == second  # the newest turn is cut last
    if counts["cut"]:
        gone = len(first) + len(second) - len(texts[0]) - len(texts[1])
        before = (first + second)[gone - 1 :]
        longer = [turns[0], user(before[: len(before) - len(second)] if len(before) > len(second) else ""), turns[2]]
        longer.append(user(second if len(before) > len(second) else before))
        assert len(encode(tokenizer, longer)) > most
    else:
        assert made == turns


@given(st.text(min_size=1, max_size=60), st.integers(1, 20))
@settings(deadline=None)
def test_plain_text_keeps_its_end(text, most):
    kept, _ = fit([row(text)], TOKENIZER, most, "keep_tail", "w")
    assert text.endswith(kept[0]["prompt"])
    assert len(encode(TOKENIZER, kept[0]["prompt"])) <= most


def test_template_arguments_count():
    turns = [user("x" * 10)]
    _, plain = fit([row(turns)], TRIMMING, 13, "keep_tail", "w")
    kept, longer = fit([row(turns)], TRIMMING, 13, "keep_tail", "w", {"suffix": "!!!!"})
    assert (plain["cut"], longer["cut"]) == (0, 1)
    assert kept[0]["prompt"] == [user("x" * 6)]


def test_the_given_rows_are_not_changed():
    turns = [user("x" * 50)]
    given_row = row(turns)
    fit([given_row], TOKENIZER, 10, "keep_tail", "w")
    assert given_row == row([user("x" * 50)])
    assert turns == [user("x" * 50)]


def test_a_template_that_alone_is_too_long():
    turns = [{"role": "system", "content": "s" * 50}, user("x")]
    with pytest.raises(Mistake, match="row 1 is longer than 10 tokens even without"):
        fit([row(turns)], TOKENIZER, 10, "keep_tail", "w")


def test_what_is_not_text_cannot_be_cut():
    other = miniature.build()
    other.chat_template = "{% for m in messages %}{{ m['content'][0]['text'] }}{% endfor %}"
    turns = [{"role": "user", "content": [{"type": "text", "text": "x" * 50}]}]
    with pytest.raises(Mistake, match="not plain text"):
        fit([row(turns)], other, 10, "keep_tail", "w")


def test_a_tokenizer_without_template_and_a_template_that_refuses():
    bare = miniature.build()
    bare.chat_template = None
    with pytest.raises(Mistake, match=r"w\.chat: the tokenizer has no chat template"):
        fit([row([user("x")])], bare, 10, "drop", "w")
    fit([row("x")], bare, 10, "drop", "w")
    with pytest.raises(Mistake, match=r"refuses the prompt of row 2.*not tool"):
        fit([row([user("x")]), row([{"role": "tool", "content": "x"}])], TOKENIZER, 10, "drop", "w")
