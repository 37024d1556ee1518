import pytest

from rewards.completions import text_of, until


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


def test_what_came_before_it():
    asked = [{"role": "user", "content": "How warm?"}]
    call, result = {"role": "assistant", "content": "", "tool_calls": []}, {"role": "tool", "content": "20"}
    answer = {"role": "assistant", "content": "20 degrees."}
    assert until(asked, [call, result, answer]) == [*asked, call, result]
    assert until(asked, [answer]) == asked
    assert until(asked, [call, answer, result]) == [*asked, call]  # cut off before it could answer
    assert until("How warm?", "20") == "How warm?"
    assert until(asked, answer) == asked
