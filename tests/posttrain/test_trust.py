"""Code that came with a model runs by the command line's word alone; weights that are pickles are refused everywhere."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from posttrain import adapters, models, serve
from posttrain.errors import Mistake
from posttrain.recipe.schema import Adapter, Model, Recipe
from rollouts.records import EngineError, Policy

ROOT = Path(__file__).resolve().parents[2]
CODE = """
import pathlib
from transformers import Qwen2Config, Qwen2ForCausalLM
pathlib.Path({mark!r}).touch()
class StrangeConfig(Qwen2Config):
    model_type = "strange"
class StrangeForCausalLM(Qwen2ForCausalLM):
    config_class = StrangeConfig
"""


@pytest.fixture
def strange(tiny, tmp_path, monkeypatch) -> Path:
    """A model whose config and class are code of its own, which leaves a file where it ran."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    folder = Path(shutil.copytree(tiny, tmp_path / "strange"))
    (folder / "strange.py").write_text(CODE.format(mark=str(tmp_path / "it-ran")))
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "architectures": ["StrangeForCausalLM"],
               "auto_map": {"AutoConfig": "strange.StrangeConfig", "AutoModelForCausalLM": "strange.StrangeForCausalLM"}}  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def recipe(model: Path, tmp_path: Path) -> Path:
    (tmp_path / "rows.jsonl").write_text(
        "".join(json.dumps({"prompt": f"{i} + 1 =", "answer": str(i + 1)}) + "\n" for i in range(8))
    )
    (tmp_path / "mine.py").write_text(
        "def length(completion_ids, **_): return [float(len(i) % 5) for i in completion_ids]\n"
    )
    file = tmp_path / "recipe.yaml"
    file.write_text(json.dumps({
        "model": {"name": str(model), "max_length": 64}, "adapter": {"r": 2}, "data": {"train": {"path": str(tmp_path / "rows.jsonl")}},
        "rewards": [{"use": "mine.py:length"}], "rollouts": {"sampling": {"max_tokens": 8}},
        "trainer": {"args": {"per_device_train_batch_size": 8, "num_generations": 4, "max_steps": 1}},
        "checkpoints": {"every": 0}, "preflight": "off", "run": {"name": "r", "directory": str(tmp_path / "runs")},
    }))  # fmt: skip
    return file


def command(*words: str, module: str = "posttrain.cli") -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", module, *words], capture_output=True, text=True, check=False, cwd=ROOT,
                          stdin=subprocess.DEVNULL, env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"})  # fmt: skip


def test_refused_without_the_word_and_run_with_it(strange, tmp_path):
    """plan and train, in processes of their own; and what the run says of it."""
    file, mark = recipe(strange, tmp_path), tmp_path / "it-ran"
    for words, module in ((("plan", str(file)), "posttrain.cli"), ((str(file),), "posttrain.train")):
        ended = command(*words, module=module)
        assert ended.returncode == 2, ended.stderr
        assert "it needs code of its own; read that code, and give --trust-remote-code" in ended.stderr
        assert not mark.exists()
    ended = command("plan", str(file), "--trust-remote-code")
    assert ended.returncode == 0, ended.stderr
    assert mark.exists()
    mark.unlink()
    shutil.rmtree(tmp_path / "runs", ignore_errors=True)
    ended = command(str(file), "--trust-remote-code", module="posttrain.train")
    assert ended.returncode == 0, ended.stderr
    assert mark.exists()
    environment = json.loads((tmp_path / "runs/r/environment.json").read_text())
    assert environment["trust_remote_code"] is True
    assert "--trust-remote-code" in environment["command"]


def test_evaluate_asks_for_the_word_too(strange, tmp_path):
    words = [
        "evaluate",
        "--model",
        str(strange),
        "--benchmark",
        "arithmetic",
        "--limit",
        "2",
        "--max-tokens",
        "4",
        "--out",
        str(tmp_path / "o"),
    ]
    ended = command(*words)
    assert ended.returncode == 2
    assert "--trust-remote-code" in ended.stderr
    assert not (tmp_path / "it-ran").exists()
    ended = command(*words, "--trust-remote-code")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "it-ran").exists()


def test_the_server_s_command_has_the_word_only_then(tiny):
    made = Recipe.model_validate({
        "model": {"name": tiny, "max_length": 64}, "data": {"train": {"hub": "x/y"}}, "trainer": {}, "run": {"name": "r"},
        "rollouts": {"engine": {"use": "vllm-server", "with": {"urls": ["http://127.0.0.1:1"]}}},
    })  # fmt: skip
    assert "--trust-remote-code" not in serve.command(made)
    models.trust_remote_code(True)
    try:
        assert "--trust-remote-code" in serve.command(made)
        from posttrain import engines

        assert engines.spec(made.model, models.load_tokenizer(made.model)).trust_remote_code is True
    finally:
        models.trust_remote_code(False)
    assert engines.spec(made.model, models.load_tokenizer(made.model)).trust_remote_code is False


class Bomb:
    """Unpickling it leaves a file."""

    def __init__(self, mark: Path):
        self.mark = mark

    def __reduce__(self):
        return Path.touch, (self.mark,)


@pytest.fixture
def pickled(tiny, tmp_path) -> tuple[Path, Path]:
    """A model whose only weights are a pickle that does something, and the file that would tell of it."""
    import pickle

    folder, mark = Path(shutil.copytree(tiny, tmp_path / "pickled")), tmp_path / "unpickled"
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    return folder, mark


def test_pickled_weights_of_a_model(pickled):
    folder, mark = pickled
    for load in (models.locate, models.load_config, models.load_tokenizer, models.load_model):
        with pytest.raises(Mistake, match=r"pickled \(pytorch_model.bin\), and a pickle can run code"):
            load(Model(name=str(folder)))
    from rollouts.engines.transformers import TransformersEngine
    from rollouts.records import EngineSpec, Sampling

    engine = TransformersEngine(EngineSpec(str(folder), (1,), 0, 32, device="cpu"))
    with pytest.raises(OSError, match="safetensors"):
        engine.generate([[5, 6]], Sampling(max_tokens=2), [0])
    assert not mark.exists()


@pytest.fixture
def adapter(tiny, tmp_path) -> Path:
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    made = get_peft_model(
        AutoModelForCausalLM.from_pretrained(tiny), LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM")
    )
    made.save_pretrained(str(tmp_path / "adapter"))
    return tmp_path / "adapter"


def test_pickled_weights_of_an_adapter(tiny, adapter, tmp_path):
    import pickle

    from rollouts.engines import adapters as served
    from rollouts.engines.transformers import TransformersEngine
    from rollouts.records import EngineSpec

    mark = tmp_path / "unpickled"
    setting = Adapter(r=2, start_from=str(adapter))
    adapters.attach_existing(models.load_model(Model(name=tiny)), setting)
    (adapter / "adapter_model.safetensors").unlink()
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Bomb(mark)))
    with pytest.raises(Mistake, match=r"adapter\.start_from: .*: its weights are pickled"):
        adapters.attach_existing(models.load_model(Model(name=tiny)), setting)
    with pytest.raises(EngineError, match="its weights are pickled"):
        served.check(str(adapter), 8, "vllm engine")
    engine = TransformersEngine(EngineSpec(tiny, (1,), 0, 32, device="cpu", lora_rank=2))
    with pytest.raises(EngineError, match="its weights are pickled"):
        engine.sync(Policy(1, adapter_dir=str(adapter)))
    ended = command(
        "evaluate", "--model", tiny, "--adapter", str(adapter), "--benchmark", "arithmetic", "--limit", "2"
    )
    assert ended.returncode == 2
    assert "its weights are pickled" in ended.stderr
    assert not mark.exists()


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b"null", b'{"r": "x"}', b'{"r": 1e99}', b"\xff", b"[" * 100_000, b'{"r": -1}']
)
def test_a_broken_configuration_of_an_adapter_is_one_line(tiny, adapter, content):
    from rollouts.engines import adapters as served

    (adapter / "adapter_config.json").write_bytes(content)
    with pytest.raises(Mistake) as told:
        adapters.attach_existing(models.load_model(Model(name=tiny)), Adapter(r=2, start_from=str(adapter)))
    assert "\n" not in str(told.value)
    with pytest.raises(EngineError):
        served.check(str(adapter), 8, "vllm engine")
    with pytest.raises(Mistake):
        adapters.rank_of(adapter, "--adapter")


@pytest.mark.parametrize("content", [b"", b"\xff" * 64, b"\x08" + b"\0" * 7 + b"{}      "])
def test_broken_weights_of_an_adapter_are_one_line(tiny, adapter, content):
    (adapter / "adapter_model.safetensors").write_bytes(content)
    with pytest.raises(Mistake) as told:
        adapters.attach_existing(models.load_model(Model(name=tiny)), Adapter(r=2, start_from=str(adapter)))
    assert "\n" not in str(told.value)


def test_vllm_is_told_to_read_safetensors_only(tiny):
    from rollouts.engines.vllm import HOMES

    assert "load_format" in HOMES
    words = serve.command(Recipe.model_validate({
        "model": {"name": tiny}, "data": {"train": {"hub": "x/y"}}, "trainer": {}, "run": {"name": "r"},
        "rollouts": {"engine": {"use": "vllm-server", "with": {"urls": ["http://127.0.0.1:1"]}}},
    }))  # fmt: skip
    assert words[words.index("--load-format") + 1] == "safetensors"
