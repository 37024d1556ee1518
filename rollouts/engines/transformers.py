"""Rollouts in the trainer's own process, with the trainer's own module: transformers' `generate`."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, ClassVar

from rollouts.engines import adapters
from rollouts.engines.limits import room
from rollouts.records import Completion, EngineError, EngineSpec, Policy, Sampling, Times


class TransformersEngine:
    """Samples with the module that `policy.borrow` lends, or, where none is lent, with weights it loads itself.

    Args:
        batch_size: most rows in one `generate` call; absent = all of them. Rows are sorted by prompt length first.
    """

    shared: ClassVar[bool] = False
    same_numerics: ClassVar[bool] = True

    def __init__(self, spec: EngineSpec, batch_size: int | None = None):
        if batch_size is not None and batch_size < 1:
            raise EngineError(f"transformers engine: batch_size is {batch_size}; it must be 1 or more")
        self.spec = spec
        self.batch_size = batch_size
        self.version = 0
        self._policy = Policy(0)
        self._own: Any = None
        self._own_is: tuple[str | None, str | None] | None = None
        self._tokenizer: Any = None

    def generate(
        self, prompt_ids: Sequence[Sequence[int]], sampling: Sampling, seeds: Sequence[int]
    ) -> list[Completion]:
        """One completion a prompt, in order.

        Raises:
            EngineError: a prompt leaves no room, or the model's logits are not numbers.
        """
        if len(prompt_ids) != len(seeds):
            raise EngineError(f"transformers engine: {len(prompt_ids)} prompts but {len(seeds)} seeds")
        limits = room(prompt_ids, sampling, self.spec.max_model_len, "transformers engine")
        if not limits:
            return []
        order = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]))
        size = self.batch_size or len(order)
        made: dict[int, Completion] = {}
        with self._module() as model:
            for start in range(0, len(order), size):
                rows = order[start : start + size]
                completions = self._batch(
                    model, [prompt_ids[i] for i in rows], sampling, [seeds[i] for i in rows], [limits[i] for i in rows]
                )
                made.update(zip(rows, completions, strict=True))
        return [made[i] for i in range(len(order))]

    def sync(self, policy: Policy, *, publish: bool = True) -> None:
        """Use `policy` from now on. A lent module needs nothing else: it is the trainer's and always current."""
        self._policy = policy
        if policy.borrow is None:
            self._load()
        self.version = policy.version

    def close(self) -> None:
        self._own = None
        self._own_is = None
        self._policy = Policy(self.version)

    @contextmanager
    def _module(self) -> Iterator[Any]:
        import torch

        lend = self._policy.borrow() if self._policy.borrow is not None else nullcontext(self._load())
        with lend as model, torch.no_grad(), _own_generation_config(model):
            yield model

    def _batch(
        self,
        model: Any,
        prompts: Sequence[Sequence[int]],
        sampling: Sampling,
        seeds: Sequence[int],
        limits: Sequence[int],
    ) -> list[Completion]:
        import torch
        from transformers import GenerationConfig, LogitsProcessorList, StoppingCriteriaList

        from rollouts.engines.drawing import Draw, RowLimit, StopStrings

        device = next(model.parameters()).device
        width = max(len(ids) for ids in prompts)
        steps = max(limits)
        padded = torch.full((len(prompts), width), self.spec.pad_id, dtype=torch.long)
        mask = torch.zeros_like(padded)
        for row, ids in enumerate(prompts):
            padded[row, width - len(ids) :] = torch.tensor(ids, dtype=torch.long)
            mask[row, width - len(ids) :] = 1
        padded, mask = padded.to(device), mask.to(device)
        draw = Draw(sampling, seeds, steps, mask)
        criteria = StoppingCriteriaList()
        if min(limits) < steps:
            criteria.append(RowLimit(torch.tensor(limits, device=device), width))
        stops = StopStrings(self._decoder(), sampling.stop, len(prompts), width) if any(sampling.stop) else None
        if stops is not None:
            criteria.append(stops)
        started = time.monotonic()
        output = model.generate(
            input_ids=padded,
            attention_mask=mask,
            # The draw is ours: `generate` then takes the one token that is left.
            generation_config=GenerationConfig(
                do_sample=False,
                max_new_tokens=steps,
                eos_token_id=list(self.spec.eos_ids) or None,
                pad_token_id=self.spec.pad_id,
                use_cache=True,
            ),
            logits_processor=LogitsProcessorList([draw]),
            stopping_criteria=criteria,
        )
        tokens = output[:, width:].tolist()
        times = Times(started, time.monotonic())
        logprobs = torch.stack(draw.drawn, dim=1).tolist()
        ends = stops.ends if stops is not None else [None] * len(prompts)
        return [
            self._completion(ids, values, limit, end, times)
            for ids, values, limit, end in zip(tokens, logprobs, limits, ends, strict=True)
        ]

    def _completion(
        self, ids: list[int], logprobs: list[float], limit: int, stop_at: int | None, times: Times
    ) -> Completion:
        """Cut a row of the batch where it ended: at its first EOS, its stop string or its limit."""
        end, finish = min(limit, len(ids)), "length"
        if stop_at is not None and stop_at <= end:
            end, finish = stop_at, "stop"
        first_eos = next((i + 1 for i, token in enumerate(ids[:end]) if token in self.spec.eos_ids), None)
        if first_eos is not None:
            end, finish = first_eos, "stop"
        values = logprobs[:end]
        if not all(value > float("-inf") for value in values):  # False for NaN too
            raise EngineError(
                f"transformers engine: the logits of version {self.version} are not finite; the weights have "
                "diverged or the dtype overflows: lower the learning rate, or use bfloat16 or float32"
            )
        return Completion(ids[:end], values, finish, self.version, times=times)

    def _decoder(self) -> Any:
        if self._tokenizer is None:
            from transformers import AutoTokenizer

            self._tokenizer = AutoTokenizer.from_pretrained(
                self.spec.model, revision=self.spec.revision, trust_remote_code=self.spec.trust_remote_code
            )
        return self._tokenizer

    def _load(self) -> Any:
        """The engine's own copy of the policy, in evaluation mode."""
        want = (self._policy.state_dir, self._policy.adapter_dir)
        if self._own is not None and self._own_is == want:
            return self._own
        import torch
        from transformers import AutoModelForCausalLM

        state_dir, adapter_dir = want
        base = None
        if self._own is not None and self._own_is is not None and self._own_is[0] == state_dir:
            # Only the adapter changes: the old one is taken out (never merged), the base stays.
            base = self._own.unload() if self._own_is[1] is not None else self._own
        self._own = self._own_is = None
        if base is None:
            base = AutoModelForCausalLM.from_pretrained(
                state_dir or self.spec.model,
                revision=None if state_dir else self.spec.revision,
                dtype=getattr(torch, self.spec.dtype),
                attn_implementation=self.spec.attention,
                use_safetensors=True,
                trust_remote_code=self.spec.trust_remote_code,
            ).to(self.spec.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        model = base
        if adapter_dir is not None:
            from peft import PeftModel

            adapters.check_weights(adapter_dir, "transformers engine")
            try:
                model = PeftModel.from_pretrained(base, adapter_dir)
            except (RuntimeError, ValueError) as error:  # other shapes, or modules that this model does not have
                said = " ".join(str(error).split())
                raise EngineError(
                    f"transformers engine: adapter {adapter_dir} does not fit {self.spec.model}: {said[:300]}"
                ) from error
        self._own, self._own_is = model.eval(), want
        return self._own


@contextmanager
def _own_generation_config(model: Any) -> Iterator[None]:
    """The model's own generation config out of the way: `generate` would fill ours up from it (a repetition penalty,
    suppressed tokens, ...), and the recipe alone says how to sample. A PeftModel carries a second one."""
    from transformers import GenerationConfig

    holders = [model]
    if hasattr(model, "get_base_model"):
        holders.append(model.get_base_model())
    kept = [(holder, holder.generation_config) for holder in holders if hasattr(holder, "generation_config")]
    try:
        for holder, _ in kept:
            holder.generation_config = GenerationConfig()
        yield
    finally:
        for holder, config in kept:
            holder.generation_config = config
