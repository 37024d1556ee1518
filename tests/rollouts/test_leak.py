"""Answers that speak of what they were shown."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rollouts.strategies.leak import RUN, leaks, text_of

SHOWN = "Points to cover:\n\n- Says that the dose is lowered for those who weigh less than fifty kilograms."


@pytest.mark.parametrize(
    ("answer", "found"),
    [
        ("The dose is lower below 50 kg.", False),
        ("As the criteria ask, the dose is lower below 50 kg.", True),
        ("To satisfy the RUBRIC: lower it.", True),
        ("Here are the points to cover. First, the dose.", True),
        (
            "It SAYS that: the dose is lowered, for those who weigh less.",
            True,
        ),  # eight words and more, whatever their letters
        ("For those who weigh less than fifty, lower it.", False),  # seven
        ("Criterial and rubricated words are others.", False),
        ("", False),
    ],
)
def test_what_is_found(answer, found):
    assert leaks(answer, SHOWN, "How much of it should I take?") is found


def test_what_the_prompt_says_itself_is_no_leak():
    prompt = "Which criteria apply? " + SHOWN.partition("- ")[2]
    assert not leaks("These criteria. " + SHOWN.partition("- ")[2], SHOWN, prompt)
    assert leaks("These criteria of a rubric.", SHOWN, prompt)


WORDS = st.lists(st.sampled_from("abcdefg"), max_size=24)


@given(WORDS, WORDS, WORDS)
def test_runs_are_those_of_brute_force(answer, shown, prompt):
    def has(text, run):
        return any(text[i : i + RUN] == run for i in range(len(text)))

    every = [answer[i : i + RUN] for i in range(len(answer) - RUN + 1)]
    expected = any(has(shown, run) and not has(prompt, run) for run in every)
    assert leaks(" ".join(answer), " ".join(shown), " ".join(prompt)) is expected


@given(st.integers(0, 12), st.integers(0, 12), st.data())
def test_a_quotation_is_found_wherever_it_stands(before, after, data):
    words = [f"w{i}" for i in range(20)]
    start = data.draw(st.integers(0, 20 - RUN))
    answer = ["x"] * before + words[start : start + RUN] + ["y"] * after
    assert leaks(" ".join(answer), " ".join(words), "q")
    assert not leaks(" ".join(answer), "", "q"), "nothing was shown"


def test_the_text_of_a_prompt():
    assert text_of("plain") == "plain"
    parts = [{"type": "text", "text": "b"}, {"type": "image"}]
    assert text_of([{"role": "system", "content": "a"}, {"role": "user", "content": parts}]) == "a\nb\n"
