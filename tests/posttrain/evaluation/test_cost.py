"""The cost block, lengths and budgets, against counts by hand and against evaluations that really had a lower limit."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.evaluation import Benchmark, Problem, evaluate
from posttrain.evaluation.asking import budgets
from posttrain.evaluation.cost import Device, at_budgets, bar_width, block, device_of, lengths
from posttrain.evaluation.kinetics import PAPER, Shape
from posttrain.evaluation.results import Result
from posttrain.evaluation.tables import print_result
from rollouts.records import EngineSpec, Sampling

SHAPE = Shape(1000, 4, 2, 8, ((3, None),))


def line(tokens, verdict="WRONG", prompt=10, finish="stop", **more):
    return {"completion_tokens": tokens, "prompt_tokens": prompt, "verdict": verdict, "finish": finish,
            "score": float(verdict == "RIGHT"), "seconds": 0.5, "grading_seconds": 0.25, "cached_tokens": 4} | more  # fmt: skip


ITEMS = [[line(100, "RIGHT"), line(300)], [line(200, "NONE", prompt=20), line(400, finish="length", prompt=20)]]


def test_the_block():
    found = block(ITEMS, device=Device("NVIDIA H100 80GB HBM3", 2), shape=SHAPE, model="m")
    assert found["model"] == "m"
    assert found["chains"] == 4
    assert found["tokens"] == {"prompt": 60, "cached": 16, "cached_share": 16 / 60, "output": 1000, "total": 1060}
    assert found["output"] == {"mean": 250, "median": 250, "p95": pytest.approx(385), "max": 400}
    assert found["truncated"] == 0.25
    assert found["seconds"] == {"generating": 2.0, "grading": 1.0, "total": 3.0}
    assert (found["device"], found["devices"], found["gpu_seconds"]) == ("NVIDIA H100 80GB HBM3", 2, 4.0)
    assert found["tokens_per_second"] == 500
    flops = found["eflops"]
    d, r = 2 * 2 * 8 * 3, 2
    compute = 2 * 1000 * 1000 + sum(
        2 * r * d * (prompt * n + n * n / 2) for prompt, n in ((10, 100), (10, 300), (20, 200), (20, 400))
    )
    memory = 2 * d * (10 * 200 + 20 * 300) + d * sum(n * n for n in (100, 200, 300, 400))
    assert flops["compute"] == pytest.approx(compute)
    assert flops["memory_bytes"] == pytest.approx(memory)
    assert flops["total"] == pytest.approx(compute + 989.5 / 3.35 * memory)
    assert flops["intensity_of"] == "H100"
    assert found["per_item"] == {"tokens": 500, "seconds": 1.5, "eflops": pytest.approx(flops["total"] / 2)}
    assert found["per_correct"] == {"tokens": 1000, "seconds": 3.0, "eflops": flops["total"]}


def test_what_is_not_known_is_null():
    items = [[line(10, seconds=None, cached_tokens=None), line(10)]]
    found = block(items, device=Device("CPU"), shape=None)
    assert found["tokens"]["cached"] is None
    assert found["seconds"]["total"] is None
    assert found["gpu_seconds"] is found["devices"] is found["eflops"] is found["tokens_per_second"] is None
    assert found["per_correct"] == {"tokens": None, "seconds": None, "eflops": None}, "nothing is right"
    assert block(items, device=Device("CPU"), shape=SHAPE, intensity=7.0)["eflops"]["intensity"] == 7.0


def test_devices():
    class Engine:
        shared = False
        spec = EngineSpec("m", (), 0, 10, device="cpu")

    class Server:
        shared = True

    assert device_of(Engine()) == Device("CPU")
    assert device_of(Server()) == Device("unknown")
    assert device_of(Server(), "2 x H100") == Device("H100", 2)
    assert device_of(Server(), "NVIDIA H100 80GB HBM3") == Device("NVIDIA H100 80GB HBM3", 1)
    assert device_of(Server(), "cpu") == Device("CPU")
    assert device_of(Server(), "4xL4") == Device("L4", 4)
    for words in ("  ", "0 x H100", "-1 x H100", "1.5 x H100"):
        with pytest.raises(Mistake, match="for instance 2 x H100"):
            device_of(Server(), words)


def test_lengths():
    lines = [one for item in ITEMS for one in item]
    found = lengths(lines)
    assert found["width"] == 50
    assert found["histogram"]["RIGHT"] == [[50 * i, int(i == 2)] for i in range(9)]
    assert set(found["histogram"]) == {"RIGHT", "WRONG", "NONE"}


@given(
    st.lists(
        st.tuples(st.integers(1, 40_000), st.sampled_from(["RIGHT", "WRONG", "NONE", "TIMEOUT"])),
        min_size=1,
        max_size=60,
    )
)
def test_a_histogram_counts_every_sample_once(drawn):
    found = lengths([line(n, verdict) for n, verdict in drawn])
    tokens = np.array([n for n, _ in drawn])
    edges = [edge for edge, _ in next(iter(found["histogram"].values()))]
    assert len(edges) <= 20
    counts = np.sum([[count for _, count in bars] for bars in found["histogram"].values()], axis=0)
    assert counts.tolist() == np.histogram(tokens, bins=[*edges, edges[-1] + found["width"]])[0].tolist()
    assert counts.sum() == len(drawn)


def test_bar_widths():
    assert [bar_width(n) for n in (1, 19, 20, 39, 40, 99, 100, 32768)] == [1, 1, 2, 2, 5, 5, 10, 2000]


def test_budgets():
    assert budgets(12) == [12]
    assert budgets(100) == [16, 32, 64, 100]
    assert budgets(64) == [16, 32, 64]
    assert budgets(32768) == [128, 256, 512, 1024, 2048, 4096, 8192, 16384, 32768]
    assert at_budgets([[line(20)]], ["a"], [16, 32]) == [], "made before cuts were judged"


TASK = Benchmark(
    "toy", lambda row: Problem(row.text("question"), row.number_or_text("answer")),
    rows=lambda limit: [{"question": f"{i} + {i}?", "answer": 2 * i} for i in range(8)],
)  # fmt: skip


def changes_its_mind(prompt, seed):
    """Right after a few words, wrong later, right at the end; how late depends on the sample."""
    answer = 2 * int(prompt.split("|>")[1].split(" +")[0])
    return (
        f"\\boxed{{{answer}}}" + " no," * (seed % 9) + " \\boxed{77}" + " no," * (seed % 5) + f" \\boxed{{{answer}}}"
    )


def test_a_budget_is_what_a_lower_limit_would_have_given(scripted, tokenizer, tmp_path):
    def ask(limit):
        return evaluate(TASK, scripted(changes_its_mind), tokenizer, out_dir=tmp_path / str(limit), model_name="m", samples=4,
                        sampling=Sampling(temperature=1.0, max_tokens=limit), progress=False)  # fmt: skip

    whole = ask(80)
    assert [b["tokens"] for b in whole.budgets] == [16, 32, 64, 80]
    for budget in whole.budgets:
        cut = ask(budget["tokens"])
        assert budget["accuracy"]["value"] == cut.accuracy["value"]
        assert budget["accuracy"]["low"] == cut.accuracy["low"]
        assert budget["used"] == cut.lengths["mean"]
    values = [b["accuracy"]["value"] for b in whole.budgets]
    assert len(set(values)) >= 3
    assert values[0] > values[1], "more is not always better"
    assert values[-1] == whole.accuracy["value"]


def test_a_real_engine_agrees_with_its_lower_limit(tiny, tmp_path):
    from transformers import AutoTokenizer

    from rollouts.engines.transformers import TransformersEngine

    tokenizer = AutoTokenizer.from_pretrained(tiny)
    engine = TransformersEngine(EngineSpec(tiny, (tokenizer.eos_token_id,), tokenizer.pad_token_id, 1024))
    common = {"model_name": tiny, "samples": 2, "limit": 5, "progress": False}
    whole = evaluate(
        "arithmetic", engine, tokenizer, out_dir=tmp_path / "40", sampling=Sampling(max_tokens=40), **common
    )
    cut = evaluate(
        "arithmetic", engine, tokenizer, out_dir=tmp_path / "16", sampling=Sampling(max_tokens=16), **common
    )
    at = {(s["item_id"], s["sample"]): s["cuts"].get("16", s["verdict"]) for s in whole.samples()}
    assert at == {(s["item_id"], s["sample"]): s["verdict"] for s in cut.samples()}
    assert whole.budgets[0]["used"] == cut.lengths["mean"]
    cost = whole.cost
    assert cost["device"] == "CPU"
    assert cost["eflops"]["intensity"] == PAPER
    assert cost["parameters"] == sum(p.numel() for p in engine._load().parameters())
    assert cost["tokens"]["output"] == sum(s["completion_tokens"] for s in whole.samples())


def test_curves_and_strict(scripted, tokenizer, tmp_path):
    def say(prompt, seed):
        answer = 2 * int(prompt.split("|>")[1].split(" +")[0])
        return [f"\\boxed{{{answer}}}", f"The answer is {answer}.", "\\boxed{-1}", "Who knows?"][seed % 4]

    result = evaluate(TASK, scripted(say), tokenizer, out_dir=tmp_path, model_name="m", samples=8,
                      sampling=Sampling(temperature=1.0, max_tokens=60), progress=False)  # fmt: skip
    samples = result.samples()
    kinds = [s["seed"] % 4 for s in samples]
    assert [s["strict"] for s in samples] == [["RIGHT", "NONE", "WRONG", "NONE"][k] for k in kinds]
    assert result.strict["value"] == pytest.approx(np.mean([k == 0 for k in kinds]))
    assert result.accuracy["value"] == pytest.approx(np.mean([k < 2 for k in kinds]))
    assert [p["n"] for p in result.curves["pass"]] == [1, 2, 4, 8]
    for point in result.curves["pass"]:
        assert point["value"] == pytest.approx(result.metrics[f"pass@{point['n']}"]["value"])
        assert point["tokens"] == pytest.approx(point["n"] * result.lengths["mean"])
    assert result.curves["maj"][-1]["value"] == pytest.approx(result.metrics["maj@8"]["value"])
    for name in ("maj", "best_of"):
        assert result.curves[name][0]["value"] == pytest.approx(result.accuracy["value"])
    # this engine gives every token log-prob 0: a scorer that knows nothing
    assert [p["value"] for p in result.curves["best_of"]] == pytest.approx([result.accuracy["value"]] * 4)


def test_results_of_before_stay_readable(scripted, tokenizer, tmp_path, capsys):
    result = evaluate(TASK, scripted(changes_its_mind), tokenizer, out_dir=tmp_path, model_name="m",
                      sampling=Sampling(temperature=0.0, max_tokens=99), progress=False)  # fmt: skip
    file = tmp_path / "result.json"
    record = json.loads(file.read_text())
    for key in ("strict", "cost", "budgets", "curves", "lengths", "stopped", "adaptive"):
        del record[key]
    file.write_text(json.dumps(record))
    samples = tmp_path / "samples.jsonl"
    old = []
    for one in map(json.loads, samples.read_text().splitlines()):
        for key in ("strict", "parsed", "cached_tokens", "logprob", "cuts", "seconds", "grading_seconds"):
            del one[key]
        old.append(json.dumps(one))
    samples.write_text("\n".join(old) + "\n")
    found = Result.read(tmp_path)
    assert found.accuracy == result.accuracy
    assert (found.cost, found.strict, found.curves, found.stopped) == ({}, None, {}, None)
    print_result(found)
    assert "truncated" in capsys.readouterr().out
    more = evaluate(TASK, scripted(changes_its_mind), tokenizer, out_dir=tmp_path, model_name="m", limit=4,
                    sampling=Sampling(temperature=0.0, max_tokens=99), progress=False)  # fmt: skip
    assert (more.n, more.strict, more.budgets, more.cost["seconds"]["total"]) == (4, None, [], None)


def test_the_table_says_what_it_cost(scripted, tokenizer, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")

    def say(prompt, seed):
        return f"The answer is {2 * int(prompt.split('|>')[1].split(' +')[0])}." if seed % 2 else "\\boxed{5}"

    evaluate(TASK, scripted(say), tokenizer, out_dir=tmp_path, model_name="m", samples=4, progress=False, show=True,
             sampling=Sampling(temperature=1.0, max_tokens=60), device="2 x H100")  # fmt: skip
    said = capsys.readouterr().out
    for word in (
        "strict",
        "in a box only",
        "p95",
        "2 x H100",
        "GPU-seconds",
        "a right answer",
        "at fewer tokens",
        "truncated",
    ):
        assert word in said
