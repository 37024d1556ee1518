"""What rollouts/README.md says: its options are the constructors', its examples run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import Any

import pytest

import rollouts.records
from rollouts.engines.transformers import TransformersEngine
from rollouts.engines.vllm import VLLMEngine
from rollouts.engines.vllm_server import VLLMServerEngine
from rollouts.records import Ask, Engine, Row, Sampling, Session
from rollouts.strategies.scaffold import Scaffold

TEXT = (Path(rollouts.records.__file__).parent / "README.md").read_text()


@pytest.mark.parametrize(
    ("name", "engine"), [("transformers", TransformersEngine), ("vllm", VLLMEngine), ("vllm-server", VLLMServerEngine)]
)
def test_options_and_defaults_are_those_of_the_constructor(name, engine):
    section = TEXT.split(f"\n**`{name}`**")[1].split("\n**`")[0].split("\n### ")[0]
    rows = dict(re.findall(r"^\| `(\w+)` \|([^|]*)\|", section, re.M))
    parameters: dict[str, Any] = dict(inspect.signature(engine).parameters)
    del parameters["spec"]
    parameters.pop("more", None)
    assert list(rows) == list(parameters)
    for option, parameter in parameters.items():
        if isinstance(parameter.default, (int, float)) and not isinstance(parameter.default, bool):
            assert float(rows[option]) == parameter.default


def example(word: str) -> Any:
    (code,) = (c for c in re.findall(r"```python\n(.*?)```", TEXT, re.S) if f"class {word}" in c)
    scope: dict[str, Any] = dict(vars(rollouts.records))
    exec(code, scope)
    return scope[word]


def test_the_engine_of_the_example(tiny):
    engine = example("Fixed")(tiny.spec(), ids=[5, 1])
    assert isinstance(engine, Engine)
    assert [c.ids for c in engine.generate([[7], [8]], Sampling(), [0, 0])] == [[5, 1], [5, 1]]


def test_the_strategy_of_the_example(tiny):
    engine = TransformersEngine(tiny.spec())
    session = Session(engine, tiny.tokenizer, Sampling(max_tokens=8), run_seed=0)
    asks = [Ask(Row("a", "add 1 and 2"), sample) for sample in range(3)]
    for rollout in example("SecondThought")().run(asks, session):
        assert len(rollout.mask) == len(rollout.logprobs) == len(rollout.completion_ids)
        # the log-probs of the policy's own tokens are those of one forward pass over everything
        expected = tiny.logprobs(rollout.prompt_ids, rollout.completion_ids)
        for own, value, true in zip(rollout.mask, rollout.logprobs, expected, strict=True):
            assert value == pytest.approx(true, abs=2e-5) if own else value == 0.0


def test_options_of_the_scaffold_are_those_of_the_constructor():
    section = TEXT.split("\n### `scaffold`")[1].split("\n### ")[0]
    named = [
        x
        for line in section.splitlines()
        if line.startswith("| `")
        for x in re.findall(r"`(\w+)`", line.split("|")[1])
    ]
    assert sorted(named) == sorted(inspect.signature(Scaffold).parameters)
    for line in section.splitlines():
        if line.startswith("| `"):
            options = re.findall(r"`(\w+)`", line.split("|")[1])
            for option, told in zip(options, line.split("|")[2].replace("`", "").split(","), strict=False):
                default = inspect.signature(Scaffold).parameters[option].default
                assert told.strip() == ("" if default is None else f"{default:g}" if isinstance(default, float) else str(default).lower())  # fmt: skip
