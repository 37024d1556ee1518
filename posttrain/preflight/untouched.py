"""The checks leave no trace: random streams, metrics and modes are afterwards what they were."""

from __future__ import annotations

import copy
import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def untouched(trainer: Any) -> Iterator[None]:
    """Puts back what looking at a run could change: Python's, NumPy's and torch's generators, the metrics that TRL
    collects for the first log, and the module's mode."""
    import numpy as np
    import torch

    streams = random.getstate(), np.random.get_state(), torch.get_rng_state()
    devices = torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []
    metrics = copy.deepcopy(getattr(trainer, "_metrics", None))
    training = trainer.model.training
    try:
        yield
    finally:
        trainer.model.train(training)
        if metrics is not None:
            trainer._metrics = metrics
        random.setstate(streams[0])
        np.random.set_state(streams[1])
        torch.set_rng_state(streams[2])
        if devices:
            torch.cuda.set_rng_state_all(devices)
