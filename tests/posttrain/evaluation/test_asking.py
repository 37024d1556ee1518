"""Streams that are never neighbours, and thoughts that are no answers, whatever a tokenizer makes of their marks."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.evaluation import Benchmark, Problem
from posttrain.evaluation.asking import Asking, at_once
from posttrain.evaluation.cost import Device, block
from posttrain.evaluation.prompts import STYLES
from posttrain.miniature.tokenizer import build
from rollouts.records import Completion, Sampling, Times
from rollouts.seeds import derive

TASK = Benchmark("toy", lambda row: Problem(row.text("q"), row.text("a")))


class Says:
    """An engine that gives back the ids it was made with, and keeps what it was asked."""

    version = 0
    shared = False

    def __init__(self, *answers, cached=None):
        self.answers = answers
        self.cached = cached
        self.seeds = []

    def generate(self, prompt_ids, sampling, seeds):
        self.seeds += seeds
        return [
            Completion(list(ids), [-0.5] * len(ids), "stop", 0, self.cached)
            for ids in itertools.islice(itertools.cycle(self.answers), len(seeds))
        ]


def asking(engine, tokenizer, **changes):
    settings = {"sampling": Sampling(max_tokens=64), "seed": 0, "style": STYLES["boxed"]}
    return Asking(TASK, engine, tokenizer, **(settings | changes))


def test_no_two_requests_are_seeded_near_each_other(tokenizer):
    """An engine that counts seeds up for a request's further samples (vLLM: child j of n gets seed + j) would give streams of
    one request to another whose seed is less than n away: so no two are, of any items, samples and base seeds."""
    ids = tokenizer("\\boxed{1}", add_special_tokens=False)["input_ids"]
    engine = Says(ids)
    problems = [Problem(f"{i}?", "1", item_id=f"toy/{i}", cluster=f"toy/{i}") for i in range(60)]
    k = 64
    for seed in (0, 1, 2, k):
        asking(engine, tokenizer, seed=seed).ask([(p, j) for p in problems for j in range(k)], {"settings": "d"})
    found = sorted(engine.seeds)
    assert len(found) == 4 * 60 * k
    assert min(b - a for a, b in itertools.pairwise(found)) >= k
    # as it would be on the largest set of all, with 64 samples: 84 416 seeds
    many = sorted(derive(0, "gsm8k", f"gsm8k/{i}", j) for i in range(1319) for j in range(64))
    assert min(b - a for a, b in itertools.pairwise(many)) >= 64


@pytest.mark.vllm
def test_vllm_is_asked_for_one_sample_a_request():
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from rollouts.engines.vllm import VLLMEngine
    from rollouts.records import EngineSpec

    engine = object.__new__(VLLMEngine)
    engine.spec = EngineSpec("m", (7,), 0, 100)
    parameters = engine._parameters(Sampling(temperature=0.7), seed=2**53 - 1, limit=5)
    assert (parameters.n, parameters.seed) == (1, 2**53 - 1)


def answer(tokenizer, text, opened=False):
    """What counts of a completion, given with its marks."""
    return asking(Says(), tokenizer).answer(tokenizer(text, add_special_tokens=False)["input_ids"], opened)


@pytest.fixture(scope="module", params=[True, False], ids=["special", "plain"])
def thinker(request):
    """Tokenizers whose thinking marks are special tokens (that decoding leaves out), or ordinary text."""
    made = build()
    if request.param:
        made.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
        assert (
            made.decode(made("<think>x</think>y", add_special_tokens=False)["input_ids"], skip_special_tokens=True)
            == "xy"
        )
    return made


@pytest.mark.parametrize(
    ("text", "opened", "counts"),
    [
        ("<think>\\boxed{1}</think> \\boxed{2}", False, " \\boxed{2}"),
        ("\\boxed{1}</think> \\boxed{2}", True, " \\boxed{2}"),
        ("\\boxed{1}</think> \\boxed{2}", False, " \\boxed{2}"),
        ("<think>\\boxed{1}", False, ""),
        ("\\boxed{1}", True, ""),
        ("\\boxed{1}", False, "\\boxed{1}"),
        ("<think>a</think>b<think>c</think> \\boxed{2}", False, " \\boxed{2}"),
        ("<think>\\boxed{1}</think>", False, ""),
    ],
)
def test_what_counts(thinker, text, opened, counts):
    assert answer(thinker, text, opened) == counts


def test_a_second_thought_that_does_not_end():
    made = build()
    made.add_special_tokens({"additional_special_tokens": ["<think>", "</think>"]})
    assert answer(made, "<think>a</think> \\boxed{2} <think> or \\boxed{3}") == " \\boxed{2} "


def test_marks_that_the_vocabulary_lacks_are_not_its_unknown_token():
    """Such a mark gets the unknown token's id, which is special: an answer with an unknown sign is still an answer."""
    made = build()
    if made.unk_token is None:
        made.add_special_tokens({"unk_token": "<unk>"})
    known = made("\\boxed{2}", add_special_tokens=False)["input_ids"]
    assert asking(Says(), made).answer([made.unk_token_id, *known], False).endswith("\\boxed{2}")


def test_the_prompt_opens_the_thought(tokenizer):
    opened = "{% for m in messages %}<|user|>{{ m['content'] }}{% endfor %}<think>\n"
    made = build()
    made.chat_template = opened
    ids = made("\\boxed{5}", add_special_tokens=False)["input_ids"]
    problem = Problem("2+3?", "5", item_id="toy/1", cluster="toy/1")
    (line,) = asking(Says(ids), made).ask([(problem, 0)], {"settings": "d"})
    assert (line["verdict"], line["extracted"]) == ("NONE", None)
    ids = made("so</think>\\boxed{5}", add_special_tokens=False)["input_ids"]
    (line,) = asking(Says(ids, cached=3), made, sampling=Sampling(max_tokens=64)).ask(
        [(problem, 0)], {"settings": "d"}
    )
    assert (line["verdict"], line["cached_tokens"], line["logprob"]) == ("RIGHT", 3, -0.5 * len(ids))
    assert line["cuts"] == {"16": "NONE"}, "cut at 16 of its bytes the box is not closed"


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 9)), min_size=1, max_size=12))
def test_most_at_once_is_that_of_every_moment(spans):
    times = [Times(float(start), float(start + length)) for start, length in spans]
    moments = [m / 2 for m in range(80)]
    most = max(sum(t.started <= m < t.ended for t in times) for m in moments)
    assert at_once(times) == max(1, most)
    assert at_once([*times, None]) is None
    assert at_once([]) is None


def test_what_an_engine_says_of_its_requests_is_in_their_lines(tokenizer):
    class Says2(Says):
        def generate(self, prompt_ids, sampling, seeds):
            made = super().generate(prompt_ids, sampling, seeds)
            spans = [Times(10.0, 12.0, 0.5, 0.25), Times(11.0, 14.0, 1.5, 1.0), Times(12.0, 15.0, 2.5, 1.0)]
            return [replace(one, times=span) for one, span in zip(made, spans, strict=True)]

    ids = tokenizer("\\boxed{1}", add_special_tokens=False)["input_ids"]
    problems = [Problem(f"{i}?", "1", item_id=f"toy/{i}", cluster=f"toy/{i}") for i in range(3)]
    lines = asking(Says2(ids), tokenizer).ask([(p, 0) for p in problems], {"settings": "d"})
    assert [(x["queue_seconds"], x["prefill_seconds"], x["decode_seconds"]) for x in lines] == [
        (0.5, 0.25, 1.75), (1.5, 1.0, 2.0), (2.5, 1.0, 2.0)]  # fmt: skip
    assert [x["at_once"] for x in lines] == [2, 2, 2]
    found = block([[x] for x in lines], device=Device("CPU"), shape=None)
    assert found["at_once"] == 2
    assert found["queue"]["mean"] == pytest.approx(1.5)
    assert found["to_first_token"]["mean"] == pytest.approx((0.75 + 2.5 + 3.5) / 3, abs=1e-6)
    assert found["to_first_token"]["p95"] == pytest.approx(np.percentile([0.75, 2.5, 3.5], 95))
    silent = block([[x | {"queue_seconds": None, "at_once": None}] for x in lines], device=Device("CPU"), shape=None)
    assert (silent["at_once"], silent["queue"], silent["to_first_token"]) == (None, None, None)
