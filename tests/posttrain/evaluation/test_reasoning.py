from posttrain.evaluation.reasoning import answer_part, opens_thinking


def test_a_thought_is_no_answer():
    assert answer_part("<think>maybe \\boxed{1}</think>\n\\boxed{2}") == "\n\\boxed{2}"
    assert answer_part("maybe \\boxed{1}</think>\\boxed{2}") == "\\boxed{2}"
    assert answer_part("<think>a</think>b<think>c</think>d") == "d"
    assert answer_part("  <think>never ends \\boxed{1}") == ""
    assert answer_part("[THINK]x[/THINK]y") == "y"


def test_a_thought_that_the_prompt_began():
    assert answer_part("still thinking \\boxed{1}", opened=True) == ""
    assert answer_part("thinking</think>2", opened=True) == "2"
    assert opens_thinking("<|assistant|><think>\n")
    assert not opens_thinking("<|assistant|>")
    assert not opens_thinking("<think>\n\n</think>\n\n")


def test_plain_text_stays():
    for text in ("", "\\boxed{1}", "I say <think> in mid-sentence"):
        assert answer_part(text) == text
