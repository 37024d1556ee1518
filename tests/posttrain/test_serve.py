"""The printed server commands: accepted by vLLM's own parser, and no key in sight."""

from __future__ import annotations

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain import serve
from posttrain.errors import Mistake
from posttrain.recipe.schema import Recipe

ROOT = Path(__file__).resolve().parents[2]


def recipe(tiny: str, engine="vllm-server", **changes) -> Recipe:
    return Recipe.model_validate(
        {
            "model": {"name": tiny, "max_length": 128},
            "adapter": {"r": 20},
            "data": {"train": {"path": "x.jsonl"}},
            "rollouts": {"engine": engine},
            "trainer": {"algorithm": "grpo"},
            "run": {"name": "test"},
            **changes,
        }
    )


def servers(*urls: str, **options) -> dict:
    return {"use": "vllm-server", "with": {"urls": list(urls), **options}}


TWO = servers("http://127.0.0.1:8000", "http://127.0.0.1:8001")


@pytest.mark.parametrize("on_cpu", [True, False])
def test_vllm_s_own_parser_takes_the_command(tiny, on_cpu):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    words = serve.command(recipe(tiny, TWO), "http://127.0.0.1:8001", on_cpu=on_cpu)
    assert words[:3] == [sys.executable, "-m", "vllm.entrypoints.openai.api_server"]
    known = make_arg_parser(FlexibleArgumentParser()).parse_args(words[3:])
    assert known.model == tiny
    assert (known.host, known.port) == ("127.0.0.1", 8001)
    assert (known.enable_lora, known.max_lora_rank, known.max_loras) == (True, 32, 2)
    assert (known.logprobs_mode, known.dtype, known.max_model_len) == ("processed_logprobs", "float32", 128)
    assert known.enforce_eager is on_cpu
    assert known.trust_remote_code is False
    assert known.enable_chunked_prefill is (False if on_cpu else None)


@pytest.mark.parametrize(("rank", "reserved"), [(1, "1"), (2, "8"), (8, "8"), (9, "16"), (300, "320"), (512, "512")])
def test_the_smallest_rank_that_vllm_allows(tiny, rank, reserved):
    words = serve.command(recipe(tiny, TWO, adapter={"r": rank}), on_cpu=True)
    assert words[words.index("--max-lora-rank") + 1] == reserved


def test_full_fine_tuning_has_no_adapter_flags(tiny):
    full = recipe(tiny, TWO, adapter=None)
    assert "--enable-lora" not in serve.command(full, on_cpu=True)
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING" not in serve.environment(full, on_cpu=True)


def test_printed_one_a_server_without_the_key(tiny, capsys, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_MY_KEY", "secret-0123")
    made = recipe(tiny, servers("http://127.0.0.1:8000", "http://10.1.2.3:9000/v1", api_key_env="POSTTRAIN_MY_KEY"))
    assert serve.environment(made)["VLLM_API_KEY"] == "secret-0123"
    assert serve.serve(made) == 0
    out, err = capsys.readouterr()
    first, second = out.splitlines()
    assert "for 10.1.2.3 to reach it, put a tunnel" in err
    assert "secret-0123" not in first + second
    assert first.startswith('VLLM_API_KEY="${POSTTRAIN_MY_KEY:?}" ')
    assert "VLLM_ALLOW_RUNTIME_LORA_UPDATING=True" in first
    words = shlex.split(second)
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert words[words.index("--port") + 1] == "9000"
    serve.serve(made, port=9000)
    assert capsys.readouterr().out.splitlines() == [second]


def test_a_key_in_a_file(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("POSTTRAIN_VLLM_KEY", raising=False)
    file = tmp_path / "my key"
    file.write_text("secret-0123\n")
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY_FILE", str(file))
    made = recipe(tiny, TWO)
    assert serve.environment(made)["VLLM_API_KEY"] == "secret-0123"
    serve.serve(made)
    first = capsys.readouterr().out.splitlines()[0]
    assert "secret-0123" not in first
    shown = first.split(" VLLM_ALLOW")[0] + '; printf %s "$VLLM_API_KEY"'
    assert subprocess.run(["sh", "-c", shown], capture_output=True, text=True, check=True).stdout == "secret-0123"
    for content in ("", "two words", "a\nb", "\u00e9", "k" * 5000):
        file.write_text(content)
        with pytest.raises(Mistake, match="POSTTRAIN_VLLM_KEY_FILE") as refused:
            serve.serve(made)
        assert not content or content not in str(refused.value)
    file.unlink()
    with pytest.raises(Mistake, match="cannot be read: No such file"):
        serve.serve(made, run=True)


@pytest.mark.parametrize("url", ["http://127.0.0.1:1", "http://localhost:1", "http://0.0.0.0:1", "http://10.0.0.1:1",
                                 "http://[::1]:1", "https://node.example:1"])  # fmt: skip
def test_every_server_binds_to_this_machine_alone(tiny, url):
    words = serve.command(recipe(tiny, servers(url)))
    assert words[words.index("--host") + 1] in ("127.0.0.1", "::1")
    assert words.count("--host") == 1


def test_a_shell_starts_no_server_without_a_key(tiny, capsys, monkeypatch):
    monkeypatch.delenv("POSTTRAIN_VLLM_KEY", raising=False)
    monkeypatch.delenv("POSTTRAIN_VLLM_KEY_FILE", raising=False)
    serve.serve(recipe(tiny, TWO))
    command = capsys.readouterr().out.splitlines()[0]
    ended = subprocess.run(["sh", "-c", command], capture_output=True, text=True, check=False)
    assert ended.returncode != 0
    assert "POSTTRAIN_VLLM_KEY" in ended.stderr


def test_mistakes(tiny, monkeypatch):
    monkeypatch.delenv("POSTTRAIN_VLLM_KEY", raising=False)
    cases = [
        (lambda: serve.serve(recipe(tiny, "transformers")), "names no servers"),
        (lambda: serve.serve(recipe(tiny, TWO), port=9), "8000, 8001"),
        (lambda: serve.serve(recipe(tiny, servers("localhost:8000"))), "http://host:port"),
        (lambda: serve.serve(recipe(tiny, servers("http://h:port"))), "http://host:port"),
        (lambda: serve.serve(recipe(tiny, TWO, adapter={"r": 600})), "adapter.r"),
        (lambda: serve.serve(recipe(tiny, TWO), run=True), "POSTTRAIN_VLLM_KEY is not set"),
    ]
    for do, text in cases:
        with pytest.raises(Mistake, match=text) as caught:
            do()
        assert "\n" not in str(caught.value)


def test_a_recipe_without_servers_can_be_served_on_a_port(tiny, capsys):
    serve.serve(recipe(tiny, "transformers"), port=8123)
    assert "--port 8123" in capsys.readouterr().out
