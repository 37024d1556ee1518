import pytest

from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks.base import Benchmark, Problem
from posttrain.evaluation.prompts import BOXED, STYLES, Style, find_style


def test_styles_have_their_names_and_different_hashes():
    assert all(name == style.name for name, style in STYLES.items())
    assert len({style.hash() for style in STYLES.values()}) == len(STYLES)
    assert Style("boxed", "{question} ").hash() != Style("boxed", "{question}").hash()


def test_the_hash_is_the_same_everywhere():
    assert STYLES["boxed"].hash() == Style("boxed", "{question}\n\n" + BOXED).hash() == "b45c52b1bbe6"


def test_rendering():
    question = "What is {x} in \\frac{1}{2}?"
    assert STYLES["boxed"].render(question) == [{"role": "user", "content": f"{question}\n\n{BOXED}"}]
    assert [m["role"] for m in STYLES["boxed-system"].render(question)] == ["system", "user"]
    assert STYLES["text"].render(question).startswith("Question: What is {x} in \\frac{1}{2}?\n")


def test_without_a_chat_template_turns_are_text():
    class Bare:
        chat_template = None

    style = find_style("boxed-system", Bare())
    assert style.name == "boxed-system/text"
    assert style.render("1+1?") == f"{BOXED}\n\n1+1?\n"
    assert style.hash() != STYLES["boxed-system"].hash()


def test_unknown_style_and_missing_prompt():
    with pytest.raises(Mistake, match='did you mean "boxed"'):
        find_style("boxd")
    task = Benchmark("toy", lambda row: Problem("q", "a"))
    with pytest.raises(Mistake, match="brings no prompt"):
        task.prompt(Problem("q", "a", item_id="toy/1"), STYLES["own"])


def test_prompts_that_come_out_otherwise_are_told():
    from posttrain.evaluation.prompts import doubts
    from posttrain.miniature.tokenizer import build

    made = build()
    assert doubts(find_style("boxed", made), made, {}) == []
    assert doubts(find_style("raw", made), made, {}) == []
    made.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    assert "no generation prompt" in doubts(find_style("boxed", made), made, {})[0]
    made.chat_template = None
    look = find_style("boxed", made).with_shots([("1?", "2")])
    assert look.name == "boxed/text+1"
    assert "no chat template" in doubts(look, made, {})[0]
