import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rewards.grading.extract import after_reasoning, extract, extract_gold


@pytest.mark.parametrize(
    ("text", "answer", "by"),
    [
        (r"so $\boxed{7}$.", "7", "box"),
        (r"$\boxed{\frac{1}{2}}$", r"\frac{1}{2}", "box"),
        (r"$\boxed{\{1, 2\}}$", r"\{1, 2\}", "box"),
        (r"\fbox{12}", "12", "box"),
        (r"\framebox{12}", "12", "box"),
        (r"\boxed 7", "7", "box"),
        (r"\\boxed{12}", "12", "box"),
        (r"\boxed{\boxed{7}}", "7", "box"),
        (r"\boxed{\text{Answer: }\boxed{7}}", "7", "box"),
        (r"First $\boxed{5}$. That was wrong, I forgot a case; it is $\boxed{7}$.", "7", "box"),
        (r"$x=\boxed{2}$ or $x=\boxed{3}$", "2, 3", "boxes"),
        (r"$\boxed{1}$, $\boxed{2}$ and $\boxed{3}$", "1, 2, 3", "boxes"),
        (r"$\boxed{12}$, $\boxed{12}$", "12", "box"),
        (r"Take \boxed{5}. \boxed{7", "5", "box"),
        ("She has <<16-3=13>>13 left\n#### 13", "13", "hashes"),
        ("She has 13 left\nA: 1,300", "1,300", "label"),
        ("**Final Answer:** $42$", "42", "label"),
        ("416 is left. Final Answer: **73**", "73", "phrase"),
        ("There are 80 of them. The answer is 80.", "80", "phrase"),
        ("The answer is 80 of the apples that she bought.", "80", "phrase"),
        ("So the answer is (B).", "(B)", "phrase"),
        (r"The final answer is $\frac{3}{4}$. I hope it is correct.", r"\frac{3}{4}", "phrase"),
        (r"\frac{3}{4}", r"\frac{3}{4}", "whole"),
        ("10 meters", "10 meters", "whole"),
        ("We add.\nTherefore she pays $18 in all.", "$18", "conclusion"),
        ("We add.\nHence $x = 5$.", "x = 5", "conclusion"),
        (r"<think>\boxed{13}</think> \boxed{12}", "12", "box"),
    ],
)  # fmt: skip
def test_finds(text, answer, by):
    found = extract(text)
    assert found is not None
    assert (found.answer, found.by) == (answer, by)


@pytest.mark.parametrize(
    "text",
    ["", "   ", r"I could not finish. $\boxed{}$", r"We are asked to simplify $\sqrt{12}$. I am not sure how.",
     r"Is it $5$? Perhaps; there are 3 ways to see it but none is clear.", r"<think> \boxed{5}", r"\boxed{12", "<think>the answer is 5",
     r"<think>\boxed{13}</think>"],
)  # fmt: skip
def test_finds_nothing(text):
    assert extract(text) is None


def test_boxed_only():
    assert extract("The answer is 5.", boxed_only=True) is None
    assert extract(r"The answer is 4. \boxed{5}", boxed_only=True).answer == "5"


def test_reasoning():
    assert after_reasoning("a</think>b</think>c") == "c"
    assert after_reasoning("a<think>b") == "a<think>b"
    assert after_reasoning(" <think>b") == ""


def test_golds():
    assert extract_gold("18") == "18"
    assert extract_gold("we add <<1+1=2>>2\n#### 2") == "2"
    assert extract_gold(r"so $\boxed{\frac12}$ m") == r"\frac12"
    assert extract_gold("  ") is None


@settings(max_examples=300, deadline=None)
@given(
    st.text(
        alphabet=st.one_of(st.sampled_from(list("\\{}$#boxed 12=:.,\n")), st.characters(exclude_categories=())),
        max_size=80,
    )
)
def test_never_raises_and_gives_a_part_of_the_text(text):
    found = extract(text)
    if found is not None and found.by not in ("boxes",):
        assert found.answer in text
        assert found.answer.strip()


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="{}\\a1 $", max_size=30))
def test_a_balanced_box_at_the_end_gives_its_content(inner):
    depth, balanced, escaped = 0, True, False
    for character in inner:
        if escaped:
            escaped = False
            continue
        escaped = character == "\\"
        depth += {"{": 1, "}": -1}.get(character, 0)
        balanced = balanced and depth >= 0
    if not balanced or depth or escaped or not inner.strip():
        return
    assert extract("text \\boxed{" + inner + "}").answer == inner.strip()


@pytest.mark.parametrize(
    "unit",
    ["\\boxed{", "\\boxed{}", "{", "####", "answer is ", "$", "<think>", "</think>", "\\", "A: 1\n", "\\boxed{1},"],
)
def test_long_texts_take_no_longer_than_their_length(unit):
    text = unit * (100_000 // len(unit))
    began = time.process_time()
    extract(text)
    assert time.process_time() - began < 5  # quadratic would be minutes
