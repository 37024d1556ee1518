"""Supervised training from scratch on written demonstrations: how a miniature comes to its first, imperfect skill."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

Chat = Sequence[dict[str, str]]


@dataclass(frozen=True)
class Schedule:
    """How long and how fast. Everything here is part of what a cached model is named after."""

    steps: int = 350
    batch: int = 64
    """Chats a step."""
    learning_rate: float = 3e-3
    """Peak: linear warm-up over a tenth of the steps, then a cosine down to a twentieth."""
    weight_decay: float = 0.01
    clip: float = 1.0
    """Largest gradient norm."""
    shape: dict[str, int] = field(default_factory=dict)
    """What differs from `models.SHAPE`."""

    def rate(self, step: int) -> float:
        warm = max(1, self.steps // 10)
        if step < warm:
            return self.learning_rate * (step + 1) / warm
        done = (step - warm) / max(1, self.steps - warm)
        return self.learning_rate * (0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * done)))


def threads() -> int:
    """How many threads training uses, whatever the process is set to: with another number sums round differently, and
    the same seed would give a slightly different model."""
    with contextlib.suppress(AttributeError):
        return max(1, min(4, len(os.sched_getaffinity(0))))
    return max(1, min(4, os.cpu_count() or 1))


@contextlib.contextmanager
def isolated(seed: int) -> Iterator[None]:
    """Torch with its own seed and thread count inside; the caller's generators and threads as they were afterwards."""
    import torch

    before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        torch.set_num_threads(threads())
        try:
            yield
        finally:
            torch.set_num_threads(before)


def train(
    tokenizer: Any,
    chats: Sequence[Chat],
    schedule: Schedule,
    *,
    seed: int = 0,
    title: str = "miniature",
    show: bool = True,
) -> Any:
    """A model trained from scratch on `chats`: cross-entropy of what the assistant wrote, on the CPU.

    Batches are drawn without replacement, epoch after epoch, in an order that `seed` alone decides; so does the
    initial draw of the weights. The same arguments give the same tensors on one machine.

    Args:
        chats: messages with at least one assistant turn each.
        show: a progress bar on standard error, where that is a terminal.

    Returns:
        `Qwen2ForCausalLM` in float32, in evaluation mode.
    """
    import torch

    from posttrain.miniature import models
    from posttrain.miniature.tokenizer import encode_chats

    rows = encode_chats(tokenizer, chats)
    with isolated(seed):
        model = models.new(tokenizer, **schedule.shape).train()
        decayed = [p for p in model.parameters() if p.ndim > 1]
        others = [p for p in model.parameters() if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{"params": decayed, "weight_decay": schedule.weight_decay}, {"params": others, "weight_decay": 0.0}],
            lr=schedule.learning_rate,
            betas=(0.9, 0.98),
        )
        order = _order(len(rows), torch.Generator().manual_seed(seed))
        half = torch.backends.cpu.get_cpu_capability() in HALF_IS_QUICK
        with _progress(title, schedule.steps, show) as tick:
            for step in range(schedule.steps):
                ids, targets = _batch([rows[next(order)] for _ in range(schedule.batch)], tokenizer.pad_token_id)
                for group in optimizer.param_groups:
                    group["lr"] = schedule.rate(step)
                with torch.autocast("cpu", dtype=torch.bfloat16, enabled=half):
                    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
                    kept = targets[:, 1:] >= 0
                    logits = model.lm_head(hidden[kept])
                loss = torch.nn.functional.cross_entropy(logits.float(), targets[:, 1:][kept])
                optimizer.zero_grad(set_to_none=True)
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), schedule.clip)
                optimizer.step()
                tick(float(loss.detach()))
    return model.eval()


HALF_IS_QUICK = ("AVX512", "AMX")
"""CPU capabilities, by torch's names, on which bfloat16 is no slower than float32."""


def _order(n: int, generator: Any) -> Iterator[int]:
    import torch

    while True:
        yield from torch.randperm(n, generator=generator).tolist()


def _batch(rows: list[tuple[list[int], list[int]]], pad: int) -> tuple[Any, Any]:
    """Right-padded ids, and targets that are -100 wherever the assistant wrote nothing. No attention mask is needed:
    padding comes after everything that counts, and attention is causal."""
    import torch

    width = max(len(ids) for ids, _ in rows)
    ids = torch.full((len(rows), width), pad, dtype=torch.long)
    targets = torch.full((len(rows), width), -100, dtype=torch.long)
    for i, (tokens, mask) in enumerate(rows):
        ids[i, : len(tokens)] = torch.tensor(tokens)
        targets[i, : len(tokens)] = torch.where(torch.tensor(mask) == 1, ids[i, : len(tokens)], -100)
    return ids, targets


@contextlib.contextmanager
def _progress(title: str, steps: int, show: bool) -> Iterator[Any]:
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    if not (show and console.is_terminal):
        yield lambda loss: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, TextColumn("loss {task.fields[loss]:.3f}"), console=console) as bar:
        task = bar.add_task(title, total=steps, loss=float("nan"))
        yield lambda loss: bar.update(task, advance=1, loss=loss)
