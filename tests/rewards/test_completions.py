import pytest

from rewards.completions import text_of


@pytest.mark.parametrize(
    ("completion", "text"),
    [
        ("plain", "plain"),
        ([{"role": "assistant", "content": "said"}], "said"),
        ([{"role": "assistant", "content": "call"}, {"role": "tool", "content": "12"}, {"role": "assistant", "content": "last"}], "last"),
        ([{"content": "no role"}], "no role"),
        ({"role": "assistant", "content": "bare"}, "bare"),
        ([{"role": "assistant", "content": [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]}], "ab"),
        ([{"role": "assistant", "content": None}], ""),
        ([{"role": "tool", "content": "12"}], ""),
        ([], ""),
    ],
)  # fmt: skip
def test_text(completion, text):
    assert text_of(completion) == text


@pytest.mark.parametrize("completion", [None, 12, ["text"]])
def test_what_is_no_completion(completion):
    with pytest.raises(TypeError, match="text or a list of messages"):
        text_of(completion)
