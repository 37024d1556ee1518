"""Prompts become ids in one place, without a second BOS; seeds are told apart."""

from __future__ import annotations

import pytest

from rollouts.prompts import encode
from rollouts.records import Ask, Row, Sampling, Session
from rollouts.seeds import derive
from rollouts.strategies.single import SingleTurn


@pytest.fixture
def with_bos(tiny):
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoTokenizer

    made = AutoTokenizer.from_pretrained(tiny.path)
    made.bos_token = "<turn>"
    made.backend_tokenizer.post_processor = TemplateProcessing(
        single="<turn> $A", special_tokens=[("<turn>", made.convert_tokens_to_ids("<turn>"))]
    )
    made.chat_template = "<turn>{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}{% if add_generation_prompt %}a:{% endif %}{% if shout %}!{% endif %}"  # fmt: skip
    return made


def test_exactly_one_bos(with_bos):
    bos = with_bos.bos_token_id
    plain = encode(with_bos, "add 1")
    assert plain[0] == bos
    assert plain.count(bos) == 1
    assert encode(with_bos, "<turn>add 1") == plain
    chat = encode(with_bos, [{"role": "user", "content": "add 1"}])
    assert chat.count(bos) == 1
    assert with_bos.decode(chat) == "<turn>user: add 1\na:"
    assert with_bos.decode(encode(with_bos, [{"role": "user", "content": "add 1"}], shout=True)).endswith("a:!")


def test_seeds_differ_by_every_part_of_their_name():
    names = [(0, "a", 1), (0, "a", 2), (0, "a1"), (0, "a", "1"), (1, "a", 1), (0, "b", 1), (0, "a", 1, 0), (0, 1, "a")]
    seeds = [derive(*name) for name in names]
    assert len(set(seeds)) == len(seeds)
    assert all(0 <= seed < 2**53 for seed in seeds)
    assert derive(0, "a", 1) == seeds[0]


def test_samples_of_a_group_are_their_own_and_repeat(tiny):
    from rollouts.engines.transformers import TransformersEngine
    from rollouts.records import Policy

    engine = TransformersEngine(tiny.spec())
    asks = [Ask(Row(row, "add 1 and 2"), sample) for row in ("a", "b") for sample in range(4)]

    def made(seed: int) -> list[list[int]]:
        session = Session(engine, tiny.tokenizer, Sampling(max_tokens=12), run_seed=seed)
        return [r.completion_ids for r in SingleTurn().run(asks, session)]

    first = made(0)
    assert len(set(map(tuple, first))) == 8
    assert made(0) == first
    assert not set(map(tuple, made(1))) & set(map(tuple, first))
    engine.sync(Policy(1))
    assert not set(map(tuple, made(0))) & set(map(tuple, first))
