"""The miniature tokenizer: exact text, a chat template that TRL can mask, and the same ids wherever it is loaded."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from posttrain.miniature import tokenizer as miniature
from rollouts.prompts import encode

BUILT = miniature.build()
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=60).map(lambda t: unicodedata.normalize("NFC", t))
CHAT = [
    {"role": "system", "content": " be brief\n"},
    {"role": "user", "content": "12+3=é漢🙂?"},
    {"role": "assistant", "content": " 15 "},
    {"role": "user", "content": ""},
    {"role": "assistant", "content": "\n\n{{x}}"},
]


@given(TEXT)
@settings(max_examples=200, deadline=None)
def test_text_comes_back_exactly(text):
    ids = BUILT(text, add_special_tokens=False)["input_ids"]
    assert BUILT.decode(ids, skip_special_tokens=False) == text


@given(st.text(st.sampled_from("0123456789+-= abcXYZ\\{}\n\t.,"), max_size=60))
@settings(deadline=None)
def test_a_character_is_a_token_in_ascii(text):
    assert len(BUILT(text)["input_ids"]) == len(text)


def test_pad_and_ends_are_three_tokens_and_there_is_no_bos():
    ids = BUILT.convert_tokens_to_ids([miniature.PAD, miniature.END, miniature.STOP])
    assert len(set(ids)) == 3
    assert (BUILT.pad_token_id, BUILT.eos_token_id) == (ids[0], ids[1])
    assert BUILT.bos_token is None
    assert BUILT.padding_side == "left"


def test_what_the_assistant_wrote_is_marked_with_its_end_and_nothing_else():
    out = BUILT.apply_chat_template(CHAT, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
    said = [t for t, m in zip(out["input_ids"], out["assistant_masks"], strict=True) if m]
    assert BUILT.decode(said) == " 15 <|end|>\n\n{{x}}<|end|>"


def test_chats_encoded_by_the_thousand_are_what_the_template_gives():
    for upto in range(1, len(CHAT) + 1):
        chat = CHAT[:upto]
        slow = BUILT.apply_chat_template(chat, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        assert miniature.encode_chats(BUILT, [chat]) == [(slow["input_ids"], slow["assistant_masks"])]


def test_a_prompt_is_the_beginning_of_the_chat_that_goes_on_from_it():
    whole = BUILT.apply_chat_template(CHAT, tokenize=True, return_dict=True)["input_ids"]
    for upto in (2, 4):
        prompt = encode(BUILT, CHAT[:upto])
        assert whole[: len(prompt)] == prompt


def test_an_unknown_role_is_refused():
    with pytest.raises(Exception, match="not tool"):
        BUILT.apply_chat_template([{"role": "tool", "content": "x"}], tokenize=False)


@given(st.text(max_size=40).filter(lambda t: t.isprintable()))
@settings(max_examples=50, deadline=None)
def test_the_saved_tokenizer_gives_the_same_ids(loaded, text):
    assert loaded(text)["input_ids"] == BUILT(text)["input_ids"]
    assert encode(loaded, [{"role": "user", "content": text}]) == encode(BUILT, [{"role": "user", "content": text}])


@pytest.fixture(scope="module")
def loaded(tiny):
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(tiny)


def test_the_saved_tokenizer_has_the_same_marks_template_and_side(loaded):
    for name in ("pad_token_id", "eos_token_id", "bos_token", "chat_template", "padding_side", "model_max_length"):
        assert getattr(loaded, name) == getattr(BUILT, name), name
    assert len(loaded) == len(BUILT)
