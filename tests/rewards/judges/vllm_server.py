"""A real vLLM server whose model is tiny and untrained: its verdicts are arbitrary, their form is what the server enforces."""

import contextlib
import http.client
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

KEY = "only-for-tests"
LENGTH = 4096
FORM = {
    '"': 2.5,
    "}": 1.5,
    "explanation": 0.6,
    "criteria": 0.6,
    "_": 0.6,
    "met": 0.6,
    ":": 0.6,
    ",": 0.6,
    "true": 0.75,
    "false": 0.6,
}
"""What a verdict is made of, and how much it is favoured."""


def build(folder: Path) -> None:
    """Two layers, 4096 tokens long. One direction of its space is the same for all tokens, and what the head reads from it favours
    the tokens of a verdict: without that an untrained model would write its explanation until it is cut off."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

    from posttrain.miniature.tokenizer import CHAT_TEMPLATE
    from rewards.judges import template

    specials = ["<pad>", "<end>", "<|system|>", "<|user|>", "<|assistant|>", "<|end|>"]
    raw = Tokenizer(models.BPE(unk_token=None))
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    said = template.message([("user", "Go on.")], "alpha beta", [("says alpha", None)], "criterion")
    raw.train_from_iterator(
        [said] * 4,
        trainers.BpeTrainer(
            vocab_size=700,
            special_tokens=specials,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=raw, pad_token="<pad>", eos_token="<|end|>", chat_template=CHAT_TEMPLATE
    )
    config = Qwen2Config(
        vocab_size=len(tokenizer),
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
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = Qwen2ForCausalLM(config)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.normal_(std=0.1)
            for name, parameter in model.named_parameters():
                if name.endswith(
                    ("q_proj.weight", "k_proj.weight", "v_proj.weight", "gate_proj.weight", "up_proj.weight")
                ):
                    parameter[:, 0] = 0.0
                elif name.endswith(("o_proj.weight", "down_proj.weight")):
                    parameter *= 0.15
                    parameter[0] = 0.0
            model.model.embed_tokens.weight[:, 0] = 1.0
            model.lm_head.weight[:, 0] = 0.0
            for text, favour in FORM.items():
                model.lm_head.weight[tokenizer(text, add_special_tokens=False)["input_ids"], 0] = favour
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def free_port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


class VLLM:
    """One server in a process group of its own; started again on the same port after it was killed."""

    def __init__(self, model: Path, log: Path):
        self.port = free_port()
        self.log = log
        self.process = None
        self.command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(model)]
        self.command += ["--served-model-name", "judge", "--host", "127.0.0.1", "--port", str(self.port)]
        self.command += ["--dtype", "float32", "--max-model-len", str(LENGTH), "--enforce-eager"]
        self.command += ["--generation-config", "vllm", "--no-enable-chunked-prefill"]
        # Else the schema allows blanks between all its parts, and a model that knows nothing writes them until it is cut off.
        blanks = '{"backend": "xgrammar", "disable_any_whitespace": true}'
        self.command += ["--structured-outputs-config", blanks]
        self.command += ["--max-num-batched-tokens", str(LENGTH), "--max-num-seqs", "32"]

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{self.root}/v1"

    def start(self) -> "VLLM":
        settings = {
            "VLLM_API_KEY": KEY,
            "VLLM_CPU_KVCACHE_SPACE": "1",
            "VLLM_CPU_OMP_THREADS_BIND": "nobind",
            "VLLM_NO_USAGE_STATS": "1",
            "OMP_NUM_THREADS": "1",
            "HF_HUB_OFFLINE": "1",
        }
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self.command,
                env={**os.environ, **settings},
                cwd=self.log.parent,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        return self

    def wait(self, seconds: float = 300.0) -> "VLLM":
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{self.root}/health", timeout=2) as answer:
                if answer.status == 200:
                    return self
            if self.process.poll() is not None:
                break
            time.sleep(0.3)
        raise AssertionError(f"the vLLM server did not start: {self.log.read_text()[-3000:]}")

    def kill(self) -> None:
        """Server and engine processes, without a word."""
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()

    @property
    def running(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def counted(self) -> dict[str, float]:
        """The server's own counters: `prompt_tokens`, `generation_tokens`, `success` (answered requests)."""
        with urllib.request.urlopen(f"{self.root}/metrics", timeout=10) as answer:
            lines = answer.read().decode().splitlines()
        names = {"prompt_tokens": "prompt_tokens_total", "generation_tokens": "generation_tokens_total"}
        names["success"] = "request_success_total"
        return {
            short: sum(float(line.split()[-1]) for line in lines if line.startswith(f"vllm:{name}{{"))
            for short, name in names.items()
        }


class Counting:
    """Between a judge and a server: passes requests on as they are, and counts how many, and how many at once."""

    def __init__(self, port: int):
        self.requests = self.at_once = self.most = 0
        lock = threading.Lock()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                with lock:
                    outer.requests += 1
                    outer.at_once += 1
                    outer.most = max(outer.most, outer.at_once)
                try:
                    server = http.client.HTTPConnection("127.0.0.1", port, timeout=120)
                    keep = {k: v for k, v in self.headers.items() if k.lower() in ("authorization", "content-type")}
                    server.request("POST", self.path, body, keep)
                    answer = server.getresponse()
                    data = answer.read()
                finally:
                    # Before the answer goes out: the judge's next request may be here at once.
                    with lock:
                        outer.at_once -= 1
                self.send_response(answer.status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args):
                pass

        class Listener(ThreadingHTTPServer):
            daemon_threads = True
            request_queue_size = 256

        self.http = Listener(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.http.server_address[1]}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()

    def stop(self) -> None:
        self.http.shutdown()
        self.http.server_close()
