"""`posttrain evaluate`: what is said before and where it is cut off."""

from __future__ import annotations

import json

import pytest

from posttrain import assess, cli
from posttrain.errors import Mistake
from posttrain.evaluation.benchmarks import BENCHMARKS
from posttrain.evaluation.prompts import STYLES


def test_where_it_is_cut_off_it_says_how_to_go_on(tmp_path, capsys):
    (tmp_path / "samples.jsonl").write_bytes(b'{"a": 1}\n{"a": 2}\n{"a"')
    with pytest.raises(KeyboardInterrupt), assess._going_on(tmp_path):
        raise KeyboardInterrupt
    assert f"2 samples are in {tmp_path}; the same command with --out {tmp_path}" in capsys.readouterr().err
    (tmp_path / "result.json").write_text("{}")
    with pytest.raises(OSError, match="page"), assess._going_on(tmp_path):
        raise OSError("page")
    assert capsys.readouterr().err == "", "what is finished needs nothing more"


@pytest.mark.parametrize(
    ("base", "other"),
    [("org/a", "org/a"), ("/old/place/m", None), ("org/m", None), (None, None), (7, None), ("", None)],
)
def test_an_adapter_of_another_base_is_told(tmp_path, base, other):
    (tmp_path / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": base}))
    assert assess._other_base(tmp_path, ("org/m", "/cache/m-1")) == other


@pytest.mark.parametrize("text", ["[]", "{", "[" * 100_000])
def test_a_config_that_is_none_says_nothing(tmp_path, text):
    (tmp_path / "adapter_config.json").write_text(text)
    assert assess._other_base(tmp_path, ("org/m",)) is None


FEW = ["--model", "/no/such", "--benchmark", "arithmetic"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--benchmark", "gsm8k"], "--model is missing"),
        (["--model", "m"], "--benchmark is missing"),
        (["--regrade", "x", "--out", "y"], "--out does not go with --regrade"),
        (["--regrade", "x", "--samples", "4"], "--samples does not go with --regrade"),
        (["--regrade", "x", "--temperature", "0.6"], "--temperature does not go with --regrade"),
        (["--regrade", "x", "--engine", "vllm"], "--engine does not go with --regrade"),
        (["--regrade", "x", "--engine-with", "a=1"], "--engine-with does not go with --regrade"),
        (["--regrade", "x", "--until-interval", "2"], "--until-interval does not go with --regrade"),
        (["--regrade", "x", "--adaptive"], "--adaptive does not go with --regrade"),
        (["--regrade", "x", "--limit", "3"], "--limit does not go with --regrade"),
        (["--regrade", "no/such"], "no result.json here"),
        (["--regrade", "no/such", "--benchmark", "gsm8k", "--data", "x"], "no result.json here"),
        ([*FEW, "--limit", "0"], "limit: at least 1, not 0"),
        ([*FEW, "--chunk", "0"], "chunk: at least 1, not 0"),
        ([*FEW, "--max-tokens", "0"], "max_tokens: at least 1, not 0"),
        ([*FEW, "--samples", "2"], "2 greedy samples"),
        ([*FEW, "--temperature", "-1"], "temperature: 0 (greedy) or above, not -1"),
        ([*FEW, "--temperature", "nan"], "temperature: 0 (greedy) or above, not nan"),
        ([*FEW, "--top-p", "1.5"], "top_p: above 0, and 1 (off) at most, not 1.5"),
        ([*FEW, "--top-k", "-1"], "top_k: 0 (off) or above, not -1"),
        ([*FEW, "--min-p", "2"], "min_p: from 0 (off) to 1, not 2"),
        ([*FEW, "--flops-per-byte", "0"], "flops_per_byte: above 0, not 0"),
        ([*FEW, "--device", "0 x H100"], "for instance 2 x H100"),
        ([*FEW, "--until-interval", "0"], "until-interval: a half-width between 0 and 50 points, not 0"),
        ([*FEW, "--shots-from", "x.jsonl"], "say how many too (--shots N)"),
        (["--model", "/no/such", "--benchmark", "arithmetic", "--limit", "2"], "--model: no directory /no/such"),
    ],
)
def test_a_mistake_is_one_line(words, said, capsys):
    assert cli.main(["evaluate", *words]) == 2
    err = capsys.readouterr().err
    assert said in err
    assert len(err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--engine", "nope"], '--engine: "nope" is not known'),
        (["--engine-with", "foo=1"], "--engine-with foo: unknown"),
    ],
)
def test_mistakes_about_the_engine_name_its_options(words, said, tmp_path, capsys):
    few = ["--model", "miniature/arithmetic", "--benchmark", "arithmetic", "--limit", "2", "--out", str(tmp_path)]
    assert cli.main(["evaluate", *few, *words]) == 2
    assert said in capsys.readouterr().err


def test_the_help_names_what_can_be_chosen(capsys):
    with pytest.raises(SystemExit):
        cli.main(["evaluate", "--help"])
    words = set(capsys.readouterr().out.replace(",", " ").split())
    assert set(BENCHMARKS) - words == set()
    assert set(STYLES) - words == set()


def test_what_a_page_cannot_be_made_of_is_a_mistake(tmp_path):
    with pytest.raises(Mistake, match="no result"):
        assess.regrade_folder(str(tmp_path))


def test_an_adapter_of_another_shape_is_one_line(tmp_path, capsys):
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM, Qwen2Config

    config = Qwen2Config(
        hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, vocab_size=300
    )  # fmt: skip
    other = get_peft_model(AutoModelForCausalLM.from_config(config), LoraConfig(r=4, target_modules=["q_proj"]))
    other.save_pretrained(tmp_path / "adapter", save_embedding_layers=False)
    words = ["evaluate", "--model", "miniature/arithmetic", "--benchmark", "arithmetic", "--limit", "2"]
    assert cli.main([*words, "--adapter", str(tmp_path / "adapter"), "--out", str(tmp_path / "out")]) in (2, 3)
    said = capsys.readouterr().err
    assert "does not fit" in said
    assert "Traceback" not in said
