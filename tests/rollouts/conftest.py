"""A tiny untrained Qwen2 with a real tokenizer, LoRA adapters whose effect is large, and the log-probs that
transformers + PEFT give to any completion: the reference for all engines."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

os.environ.setdefault("HF_HUB_OFFLINE", "1")

LENGTH = 512


@dataclass
class Tiny:
    """One base model on disk and what belongs to it."""

    path: str
    tokenizer: Any
    eos_ids: tuple[int, ...]
    pad_id: int
    vocab: int
    _models: dict[str | None, Any] = field(default_factory=dict)

    def spec(self, **changes: Any) -> Any:
        from rollouts.records import EngineSpec

        known = {"model": self.path, "eos_ids": self.eos_ids, "pad_id": self.pad_id, "max_model_len": LENGTH}
        return EngineSpec(**{**known, **changes})

    def prompts(self, lengths: Sequence[int], seed: int = 0) -> list[list[int]]:
        """Random token ids, no special ones."""
        import numpy as np

        rng = np.random.default_rng(seed)
        return [rng.integers(8, self.vocab, n).tolist() for n in lengths]

    def model(self, adapter: str | None = None) -> Any:
        """transformers (+ PEFT), float32, evaluation mode."""
        if adapter not in self._models:
            from peft import PeftModel
            from transformers import AutoModelForCausalLM

            made = AutoModelForCausalLM.from_pretrained(self.path, dtype="float32")
            if adapter is not None:
                made = PeftModel.from_pretrained(made, adapter)
            self._models[adapter] = made.eval()
        return self._models[adapter]

    def logits(self, prompt: Sequence[int], completion: Sequence[int], adapter: str | None = None) -> Any:
        """Logits before each token of `completion`, by one plain forward pass: (tokens, vocabulary), float32."""
        import torch

        ids = torch.tensor([[*prompt, *completion]])
        with torch.no_grad():
            return self.model(adapter)(input_ids=ids).logits[0, len(prompt) - 1 : -1].float()

    def logprobs(
        self, prompt: Sequence[int], completion: Sequence[int], adapter: str | None = None, temperature: float = 1.0
    ) -> list[float]:
        import torch

        logits = self.logits(prompt, completion, adapter) / temperature
        chosen = torch.tensor(list(completion))[:, None]
        return torch.log_softmax(logits, -1).gather(-1, chosen)[:, 0].tolist()


@pytest.fixture(scope="session")
def tiny(tmp_path_factory) -> Tiny:
    """Two layers, head dimension 64 (vLLM's CPU kernels want that), weights wide enough for a peaked distribution."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    specials = ["<pad>", "<end>", "<turn>"]
    raw = Tokenizer(models.BPE(unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    raw.train_from_iterator(
        ["the sum of two numbers is a number, so add 12 and 34 and the answer is 46."] * 4,
        trainers.BpeTrainer(
            vocab_size=300,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=raw, pad_token="<pad>", eos_token="<end>")
    vocab = len(tokenizer)
    config = Qwen2Config(
        vocab_size=vocab,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=LENGTH,
        tie_word_embeddings=False,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    folder = tmp_path_factory.mktemp("tiny")
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.06)
            # An end now and then (about one token in sixty), by either of two ids.
            model.lm_head.weight[1:3] *= 1.5
    model.generation_config.repetition_penalty = 1.3  # engines must not pick this up
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return Tiny(str(folder), tokenizer, (1, 2), 0, vocab)


@pytest.fixture(scope="session")
def adapters(tiny, tmp_path_factory) -> Callable[[int], str]:
    """`adapters(seed)`: directory of a rank-8 LoRA adapter on all linear layers with random weights on both sides."""
    made: dict[int, str] = {}

    def build(seed: int) -> str:
        if seed not in made:
            import torch
            from peft import LoraConfig, get_peft_model
            from transformers import AutoModelForCausalLM

            with torch.random.fork_rng():
                torch.manual_seed(seed)
                base = AutoModelForCausalLM.from_pretrained(tiny.path, dtype="float32")
                model = get_peft_model(
                    base, LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
                )
                with torch.no_grad():
                    for name, parameter in model.named_parameters():
                        if "lora_B" in name:
                            parameter.normal_(std=0.05)
            folder: Path = tmp_path_factory.mktemp(f"adapter{seed}")
            model.save_pretrained(str(folder))
            made[seed] = str(folder)
        return made[seed]

    return build


KEY = "only-for-tests"


@dataclass
class VLLM:
    """A real vLLM server in a process group of its own."""

    port: int
    command: list[str]
    log: Path
    process: Any = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        environment = {
            **os.environ,
            "VLLM_API_KEY": KEY,
            "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True",
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env=environment,
                cwd=self.log.parent,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait(self, seconds: float = 240.0) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            try:
                with urllib.request.urlopen(f"{self.url}/health", timeout=2) as answer:
                    if answer.status == 200:
                        return
            except OSError:
                pass
            if self.process.poll() is not None:
                break
            time.sleep(0.5)
        pytest.fail(f"the vLLM server did not start: {self.log.read_text()[-3000:]}")

    def signal(self, number: int) -> None:
        """To the server and its engine processes."""
        os.killpg(self.process.pid, number)

    def kill(self) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.signal(signal.SIGKILL)
            self.process.wait()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None


def _free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


@pytest.fixture(scope="session")
def _servers(tiny, tmp_path_factory):
    pytest.importorskip("vllm", reason="vLLM is not installed")
    made = []
    for i in range(2):
        port = _free_port()
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", tiny.path]
        command += ["--host", "127.0.0.1", "--port", str(port), "--dtype", "float32", "--max-model-len", str(LENGTH)]
        command += ["--enable-lora", "--max-lora-rank", "8", "--max-loras", "2", "--enforce-eager"]
        command += ["--logprobs-mode", "processed_logprobs", "--generation-config", "vllm"]
        command += [
            "--enable-prompt-tokens-details",
            "--no-enable-chunked-prefill",
            "--max-num-batched-tokens",
            "4096",
        ]
        made.append(VLLM(port, command, tmp_path_factory.mktemp(f"server{i}") / "log"))
    yield made
    for server in made:
        server.kill()


@pytest.fixture
def servers(_servers, monkeypatch) -> list[VLLM]:
    """Two real servers, both running; those that a test has killed are started again."""
    monkeypatch.setenv("POSTTRAIN_VLLM_KEY", KEY)
    started = [server for server in _servers if not server.running]
    for server in started:
        server.start()
    for server in started:
        server.wait()
    return _servers
