"""The in-process engine, against plain forward passes, transformers' own greedy search and the exact distribution."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import pytest
import torch
from scipy import stats

from rollouts.engines.drawing import Draw, uniforms
from rollouts.engines.transformers import TransformersEngine
from rollouts.records import Engine, EngineError, Policy, Sampling


@pytest.fixture(scope="module")
def engine(tiny):
    return TransformersEngine(tiny.spec())


LENGTHS = [5, 40, 1, 17, 90, 33]
SEEDS = [11, 12, 13, 14, 15, 16]


def test_is_an_engine(engine):
    assert isinstance(engine, Engine)


@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_logprobs_are_those_of_a_plain_forward_pass(tiny, engine, temperature):
    prompts = tiny.prompts(LENGTHS)
    for prompt, made in zip(
        prompts, engine.generate(prompts, Sampling(temperature=temperature, max_tokens=40), SEEDS), strict=True
    ):
        np.testing.assert_allclose(made.logprobs, tiny.logprobs(prompt, made.ids, temperature=temperature), atol=2e-5)


def test_finish_is_carried(tiny, engine):
    prompts = tiny.prompts([10] * 60, seed=1)
    made = engine.generate(prompts, Sampling(max_tokens=25), range(60))
    assert {c.finish for c in made} == {"stop", "length"}
    ends = set()
    for completion in made:
        assert not set(completion.ids[:-1]) & set(tiny.eos_ids)
        if completion.finish == "stop":
            ends.add(completion.ids[-1])
        else:
            assert len(completion.ids) == 25
            assert completion.ids[-1] not in tiny.eos_ids
        assert len(completion.logprobs) == len(completion.ids)
    assert ends == set(tiny.eos_ids)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(max_tokens=30),
        Sampling(max_tokens=30, temperature=0.0),
        Sampling(max_tokens=30, temperature=0.8, top_p=0.9, top_k=50, min_p=0.01, repetition_penalty=1.2),
    ],
    ids=["plain", "greedy", "everything"],
)
def test_a_row_does_not_depend_on_its_neighbours(tiny, engine, sampling):
    prompts = tiny.prompts(LENGTHS, seed=2)
    together = engine.generate(prompts, sampling, SEEDS)
    for prompt, seed, made in zip(prompts, SEEDS, together, strict=True):
        (alone,) = engine.generate([prompt], sampling, [seed])
        assert alone.ids == made.ids
        assert alone.finish == made.finish
        np.testing.assert_allclose(alone.logprobs, made.logprobs, atol=2e-5)
    in_pieces = TransformersEngine(tiny.spec(), batch_size=2).generate(prompts, sampling, SEEDS)
    assert [c.ids for c in in_pieces] == [c.ids for c in together]


def test_a_seed_repeats_and_two_seeds_differ(tiny, engine):
    (prompt,) = tiny.prompts([12], seed=3)
    sampling = Sampling(max_tokens=20)
    made = engine.generate([prompt] * 40, sampling, list(range(20)) * 2)
    assert [c.ids for c in made[:20]] == [c.ids for c in made[20:]]
    assert len({tuple(c.ids) for c in made}) == 20


def test_first_tokens_follow_the_softmax(tiny, engine):
    (prompt,) = tiny.prompts([9], seed=4)
    n = 20_000
    probabilities = torch.softmax(tiny.logits(prompt, [5]), -1)[0].double().numpy()
    made = TransformersEngine(tiny.spec(), batch_size=2000).generate([prompt] * n, Sampling(max_tokens=1), range(n))
    counts = np.bincount([c.ids[0] for c in made], minlength=tiny.vocab)
    assert (probabilities * n).min() > 5
    assert stats.chisquare(counts, probabilities / probabilities.sum() * n).pvalue > 1e-3


def test_one_request_s_stream_is_uniform_over_its_steps_and_prefixes_agree():
    long = uniforms([3, 4, 2**60 + 1], 5000)
    for row in long:
        assert stats.kstest(row, "uniform").pvalue > 1e-3
        assert abs(np.corrcoef(row[:-1], row[1:])[0, 1]) < 0.05
    np.testing.assert_array_equal(uniforms([4], 17)[0], long[1, :17])
    neighbours = uniforms(range(3000), 1)[:, 0]
    assert stats.kstest(neighbours, "uniform").pvalue > 1e-3


def test_a_token_without_mass_is_never_drawn():
    scores = torch.full((3, 6), -torch.inf)
    scores[:, [1, 3]] = 0.0
    draw = Draw(Sampling(), [0, 0, 0], 1, torch.ones(3, 1, dtype=torch.long))
    for u, token in ((0.0, 1), (0.5, 3), (1.0 - 2.0**-40, 3)):
        draw.uniforms = torch.full((3, 1), u, dtype=torch.float64)
        assert draw(torch.zeros(3, 1, dtype=torch.long), scores).argmax(-1).tolist() == [token] * 3


def test_greedy_is_transformers_own_greedy_search(tiny, engine):
    (prompt,) = tiny.prompts([20], seed=5)
    (made,) = engine.generate([prompt], Sampling(temperature=0.0, max_tokens=60), [0])
    plain = tiny.model().generate(
        torch.tensor([prompt]),
        do_sample=False,
        max_new_tokens=60,
        eos_token_id=[1, 2],
        pad_token_id=0,
        repetition_penalty=1.0,
    )
    assert made.ids == plain[0, len(prompt) :].tolist()
    np.testing.assert_allclose(made.logprobs, tiny.logprobs(prompt, made.ids), atol=2e-5)


def test_the_model_s_generation_config_is_not_used_and_comes_back(tiny):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.path)
    assert model.generation_config.repetition_penalty == 1.3
    kept = model.generation_config

    @contextmanager
    def lend():
        yield model

    engine = TransformersEngine(tiny.spec())
    engine.sync(Policy(3, borrow=lend))
    (prompt,) = tiny.prompts([20], seed=5)
    (made,) = engine.generate([prompt], Sampling(max_tokens=20), [0])
    assert model.generation_config is kept
    assert made.version == 3
    np.testing.assert_allclose(made.logprobs, tiny.logprobs(prompt, made.ids), atol=2e-5)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(top_k=5),
        Sampling(top_p=0.5, temperature=0.7),
        Sampling(min_p=0.2),
        Sampling(temperature=1.4, top_k=20, top_p=0.7, min_p=0.1),
    ],
)
def test_truncated_distributions(tiny, engine, sampling):
    """Against a straightforward computation in vLLM's order: temperature, min-p, top-k, top-p."""
    (prompt,) = tiny.prompts([14], seed=6)
    p = torch.softmax(tiny.logits(prompt, [5])[0].double() / sampling.temperature, -1).numpy()
    p = np.where(p >= sampling.min_p * p.max(), p, 0.0)
    if sampling.top_k:
        p = np.where(p >= np.sort(p)[-sampling.top_k], p, 0.0)
    p /= p.sum()
    order = np.argsort(-p)
    keep = np.cumsum(p[order]) - p[order] < sampling.top_p
    q = np.zeros_like(p)
    q[order[keep]] = p[order[keep]]
    q /= q.sum()
    one = Sampling(
        **{**{f: getattr(sampling, f) for f in ("temperature", "top_p", "top_k", "min_p")}, "max_tokens": 1}
    )
    made = engine.generate([prompt] * 4000, one, range(4000))
    drawn = {c.ids[0]: c.logprobs[0] for c in made}
    assert set(drawn) <= set(np.nonzero(q)[0])
    assert {i for i in np.nonzero(q)[0] if q[i] > 0.01} <= set(drawn)
    for token, value in drawn.items():
        assert value == pytest.approx(np.log(q[token]), abs=2e-5)


def test_stop_strings_end_a_row_and_stay_in_it(tiny, engine):
    prompts = tiny.prompts([10] * 50, seed=7)
    free = engine.generate(prompts, Sampling(max_tokens=40), range(50))
    texts = [tiny.tokenizer.decode(c.ids) for c in free]
    # two characters that occur in some completions, across a token border in at least one of them
    stop = next(
        a + b
        for c in free
        for a, b in [[tiny.tokenizer.decode([i]) for i in c.ids[4:6]]]
        if len(a) == len(b) == 1 and a.isascii() and b.isascii()
    )
    made = engine.generate(prompts, Sampling(max_tokens=40, stop=(stop,)), range(50))
    hit = 0
    for text, whole, cut in zip(texts, free, made, strict=True):
        assert whole.ids[: len(cut.ids)] == cut.ids
        if stop in text:
            hit += 1
            assert cut.finish == "stop"
            assert stop in tiny.tokenizer.decode(cut.ids)
            assert stop not in tiny.tokenizer.decode(cut.ids[:-1])
        else:
            assert (cut.ids, cut.finish) == (whole.ids, whole.finish)
    assert hit >= 1


def test_a_stop_string_in_the_prompt_does_not_count(tiny, engine):
    prompt = tiny.tokenizer("the answer is")["input_ids"]
    (made,) = engine.generate([prompt], Sampling(max_tokens=10, stop=("answer",)), [1])
    (free,) = engine.generate([prompt], Sampling(max_tokens=10), [1])
    assert made.ids == free.ids


def test_the_model_s_length_bounds_prompt_and_completion(tiny):
    engine = TransformersEngine(tiny.spec(max_model_len=50, eos_ids=()))
    prompts = tiny.prompts([45, 10, 49], seed=8)
    made = engine.generate(prompts, Sampling(max_tokens=20), [1, 2, 3])
    assert [len(c.ids) for c in made] == [5, 20, 1]
    assert [c.finish for c in made] == ["length"] * 3


@pytest.mark.parametrize(("length", "text"), [(50, "no room"), (0, "empty")])
def test_a_prompt_without_room_is_one_line(tiny, length, text):
    engine = TransformersEngine(tiny.spec(max_model_len=50))
    with pytest.raises(EngineError, match=text) as caught:
        engine.generate([[5], [5] * length], Sampling(max_tokens=20), [1, 2])
    assert "\n" not in str(caught.value)
    assert "prompt 2 of 2" in str(caught.value)


def test_weights_that_are_not_numbers_are_one_line(tiny):
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_pretrained(tiny.path)
    with torch.no_grad():
        model.lm_head.weight[7] = torch.nan

    @contextmanager
    def lend():
        yield model

    engine = TransformersEngine(tiny.spec())
    engine.sync(Policy(1, borrow=lend))
    for sampling in (Sampling(max_tokens=4), Sampling(max_tokens=4, temperature=0.0)):
        with pytest.raises(EngineError, match="not finite"):
            engine.generate([[5, 6]], sampling, [1])


def test_own_weights_follow_the_adapter(tiny, adapters):
    engine = TransformersEngine(tiny.spec())
    (prompt,) = tiny.prompts([30], seed=9)
    seen = set()
    for version, adapter in enumerate([None, adapters(1), adapters(2), None, adapters(1)]):
        engine.sync(Policy(version, adapter_dir=adapter))
        (made,) = engine.generate([prompt], Sampling(max_tokens=30), [5])
        assert made.version == version
        np.testing.assert_allclose(made.logprobs, tiny.logprobs(prompt, made.ids, adapter), atol=2e-5)
        seen.add(tuple(made.ids))
    assert len(seen) == 3


def test_own_weights_follow_a_whole_saved_model(tiny, tmp_path):
    from transformers import AutoModelForCausalLM

    other = AutoModelForCausalLM.from_pretrained(tiny.path)
    with torch.no_grad():
        other.lm_head.weight[50] += 0.5
    other.save_pretrained(tmp_path)
    engine = TransformersEngine(tiny.spec())
    engine.sync(Policy(1, state_dir=str(tmp_path)))
    (prompt,) = tiny.prompts([30], seed=9)
    (made,) = engine.generate([prompt], Sampling(max_tokens=20), [5])
    with torch.no_grad():
        logits = other(torch.tensor([prompt + made.ids])).logits[0, 29:-1]
    expected = torch.log_softmax(logits, -1).gather(-1, torch.tensor(made.ids)[:, None])[:, 0]
    np.testing.assert_allclose(made.logprobs, expected, atol=2e-5)


def test_a_lent_peft_model_samples_with_its_adapter(tiny, adapters):
    model = tiny.model(adapters(1))

    @contextmanager
    def lend():
        yield model

    engine = TransformersEngine(tiny.spec())
    engine.sync(Policy(1, borrow=lend))
    prompts = tiny.prompts(LENGTHS)
    for prompt, made in zip(prompts, engine.generate(prompts, Sampling(max_tokens=20), SEEDS), strict=True):
        np.testing.assert_allclose(made.logprobs, tiny.logprobs(prompt, made.ids, adapters(1)), atol=2e-5)
