"""Trainers, a strategy and a reward that kill their own process (SIGKILL, as a power cut does) at a place and count that
the environment names: FRAGILE="place:count[:rank]". Without it they are as good as the real ones, whose classes they are.

Places: generation, reward, backward, optimizer (weights changed, nothing noted yet), sync (adapter half handed over), parts (checkpoint
files written, this process's part is not), seal (all written, not sealed), log.
"""

from __future__ import annotations

import atexit
import json
import os
import signal
from collections import Counter
from pathlib import Path
from typing import Any

from posttrain.trainers import lean

lean.without_vllm()

from posttrain.trainers import dpo, grpo, rloo, sft  # noqa: E402
from rollouts.strategies.single import SingleTurn  # noqa: E402

_seen: Counter[str] = Counter()


@atexit.register
def _tell() -> None:
    """How often each place was passed, to the file that FRAGILE_COUNTS names."""
    if (path := os.environ.get("FRAGILE_COUNTS")) and os.environ.get("RANK", "0") == "0":
        Path(path).write_text(json.dumps(_seen))


def at(place: str) -> None:
    """Die here if it is time."""
    wanted = os.environ.get("FRAGILE", "")
    _seen[place] += 1
    for one in wanted.split(","):
        name, count, rank = (*one.split(":"), "", "")[:3]
        if name == place and _seen[place] == int(count) and rank in ("", os.environ.get("RANK", "0")):
            number = os.environ.get("FRAGILE_SIGNAL", "KILL")
            os.kill(os.getpid(), getattr(signal, f"SIG{number}"))


class Strategy(SingleTurn):
    def run(self, asks: Any, session: Any) -> Any:
        half = len(asks) // 2
        first = super().run(asks[:half], session)
        at("generation")
        return [*first, *super().run(asks[half:], session)]


def letters(completions: Any, **_: Any) -> list[float]:
    """Share of digits: differs between completions."""
    at("reward")
    texts = [c if isinstance(c, str) else c[0]["content"] for c in completions]
    return [sum("0" <= x <= "4" for x in t) / max(len(t), 1) for t in texts]


class Fragile:
    @classmethod
    def build(cls, parts: Any) -> Any:
        trainer = super().build(parts)
        if parts.follower is not None:
            whole = parts.follower.engine.sync
            parts.follower.engine.sync = lambda *a, **k: (at("sync"), whole(*a, **k))[1]
        return trainer

    def create_optimizer(self, *args: Any, **kwargs: Any) -> Any:
        made = super().create_optimizer(*args, **kwargs)
        self.optimizer.register_step_post_hook(lambda *_: at("optimizer"))
        return made

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        loss = super().training_step(*args, **kwargs)
        at("backward")
        return loss

    def write_parts(self, folder: Any) -> None:
        at("parts")
        super().write_parts(folder)

    def checkpoint_facts(self, folder: Any) -> Any:
        at("seal")
        return super().checkpoint_facts(folder)

    def log(self, *args: Any, **kwargs: Any) -> None:
        at("log")
        super().log(*args, **kwargs)


class GRPO(Fragile, grpo.GRPO):
    pass


class RLOO(Fragile, rloo.RLOO):
    pass


class SFT(Fragile, sft.SFT):
    pass


class DPO(Fragile, dpo.DPO):
    pass
