import pytest
from hypothesis import given
from hypothesis import strategies as st

from rewards.format import boxed, think_tags


@pytest.mark.parametrize(
    ("text", "value"),
    [(r"\boxed{7}", 1.0), (r"it is $\boxed{\frac{1}{2}}$.", 1.0), (r"\fbox{7}", 1.0), (r"\boxed{", 0.0), (r"\boxed{}", 0.0), ("7", 0.0), ("", 0.0),
     (r"<think>\boxed{7}</think> 7", 0.0), (r"<think>x</think> \boxed{7}", 1.0), (r"<think>\boxed{7}", 0.0)],
)  # fmt: skip
def test_boxed(text, value):
    assert boxed([text, [{"role": "assistant", "content": text}]], answer=["7", "7"]) == [value, value]


@pytest.mark.parametrize(
    ("text", "value"),
    [("<think>a</think>b", 1.0), ("\n<think>a\nb</think>\nc\nd", 1.0), ("<think></think>b", 1.0), ("<think>a</think>", 0.0), ("<think>a</think> \n", 0.0),
     ("<think>a", 0.0), ("a</think>b", 0.0), ("x<think>a</think>b", 0.0), ("<think>a<think>b</think>c", 0.0), ("<think>a</think>b</think>c", 0.0),
     ("</think>a<think>b", 0.0), ("<think>a</think><think>b</think>c", 0.0), ("", 0.0)],
)  # fmt: skip
def test_think_tags(text, value):
    assert think_tags([text, [{"role": "assistant", "content": text}]]) == [value, value]


def test_think_tags_opened_by_the_prompt():
    assert think_tags(["a</think>b", "<think>a</think>b"], opened_by_prompt=True) == [1.0, 0.0]


@given(st.lists(st.sampled_from(["<think>", "</think>", "a", " ", "\n"]), max_size=7).map("".join))
def test_think_tags_against_trl(text):
    """Ours asks for more: each closing tag once, and an answer. TRL's allows neither blanks in front nor, in its place, less."""
    theirs = pytest.importorskip("trl.rewards").think_format_reward([[{"content": text}]])[0]
    ours = think_tags([text])[0]
    if text.startswith("<think>") and text.count("</think>") == 1 and text.partition("</think>")[2].strip():
        assert ours == theirs
    if ours and text.startswith("<think>"):
        assert theirs
