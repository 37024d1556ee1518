"""Examples in a prompt: from elsewhere, always the same, part of the hash."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from posttrain.errors import Mistake
from posttrain.evaluation import Benchmark, Problem, evaluate, find_benchmark
from posttrain.evaluation.prompts import STYLES, Style
from posttrain.evaluation.shots import draw
from rewards.grading import grade
from rollouts.records import Sampling

RIDDLES = Benchmark(
    "riddles", lambda row: Problem(row.text("question"), row.number_or_text("answer")),
    rows=lambda limit: [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(6)],
)  # fmt: skip


@pytest.fixture
def more(tmp_path):
    """Twenty sums, six of them those that are asked, in other white space."""
    file = tmp_path / "more.jsonl"
    file.write_text(
        "".join(json.dumps({"question": f"{i}  + {i}?", "answer": 2 * i}) + "\n" for i in reversed(range(20)))
    )
    return str(file)


def test_never_from_what_is_asked_and_always_the_same(more):
    asked = RIDDLES.load()
    found = draw(RIDDLES, 14, asked, more)
    assert {int(q.split()[0]) for q, _ in found} == set(range(6, 20))
    assert found == draw(RIDDLES, 14, list(reversed(asked)), more)
    assert draw(RIDDLES, 3, asked, more) == found[:3], "more examples are the same ones and others"
    with pytest.raises(Mistake, match=r"15 wanted, but of 20 problems .* only 14 are not asked"):
        draw(RIDDLES, 15, asked, more)


def test_without_a_source():
    with pytest.raises(Mistake, match=r"no training part.*--shots-from"):
        draw(RIDDLES, 2, [])
    with pytest.raises(Mistake, match="at least 1"):
        draw(RIDDLES, 0, [], "x")


def test_worked_solutions(data):
    task = find_benchmark("gsm8k")
    asked = task.load(str(data / "gsm8k.jsonl"), 100)
    found = draw(task, 8, asked, str(data / "gsm8k.jsonl"))
    golds = {p.question: p.gold for p in task.load(str(data / "gsm8k.jsonl"))}
    assert not {q for q, _ in found} & {p.question for p in asked}
    for question, text in found:
        assert "<<" not in text
        assert "####" not in text
        assert len(text) > len("The final answer is $\\boxed{}$.") + 20, "it has a worked solution"
        assert grade(golds[question], text).right
    solved = draw(find_benchmark("math500"), 5, [], str(data / "math500.jsonl"))
    assert all(text.count("\\boxed") >= 1 for _, text in solved)


def test_rendering_and_hash():
    shots = (("1+1?", "\\boxed{2}"), ("2+2?", "\\boxed{4}"))
    style = STYLES["boxed"].with_shots(shots)
    roles = [m["role"] for m in style.render("3+3?")]
    assert roles == ["user", "assistant", "user", "assistant", "user"]
    assert style.render("3+3?")[-1] == STYLES["boxed"].render("3+3?")[0]
    assert style.render("3+3?")[0]["content"].startswith("1+1?\n\nPlease reason")
    assert style.name == "boxed+2"
    hashes = {style.hash(), STYLES["boxed"].hash(), STYLES["boxed"].with_shots(shots[::-1]).hash(),
              STYLES["boxed"].with_shots(shots[:1]).hash()}  # fmt: skip
    assert len(hashes) == 4
    text = Style("t", "Q: {question}\nA:", chat=False).with_shots(shots).render("3+3?")
    assert text == "Q: 1+1?\nA: \\boxed{2}\n\nQ: 2+2?\nA: \\boxed{4}\n\nQ: 3+3?\nA:"
    with pytest.raises(Mistake, match="bring their prompts"):
        STYLES["own"].with_shots(shots)


def test_an_evaluation_with_examples(scripted, tokenizer, tmp_path, more):
    engine = scripted(lambda prompt, seed: "\\boxed{0}")
    common = {"model_name": "m", "progress": False, "sampling": Sampling(temperature=0.0, max_tokens=50)}
    result = evaluate(RIDDLES, engine, tokenizer, out_dir=tmp_path / "2", shots=2, shots_from=more, **common)
    assert (result.prompt_style, result.n) == ("boxed+2", 6)
    assert [m["role"] for m in result.samples()[0]["prompt"]] == ["user", "assistant"] * 2 + ["user"]
    plain = evaluate(RIDDLES, engine, tokenizer, out_dir=tmp_path / "0", **common)
    assert plain.prompt_hash != result.prompt_hash
    task = replace(RIDDLES, style="own")
    with pytest.raises(Mistake, match="bring their prompts"):
        evaluate(task, engine, tokenizer, out_dir=tmp_path / "own", shots=2, shots_from=more, **common)
