"""A checksum of the weights that must not change.

Each tensor is read as whole numbers of 64 bits (or as few as divide it) and added up on its own device, modulo 2**64.
Whole-number sums do not depend on the order, so no kernel, thread count or device changes them, and any change of a
single element does. Elements that change places go unseen.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

WIDE = (torch.int64, torch.int32, torch.int16, torch.uint8)


def named(trainer: Any) -> Iterator[tuple[str, Any]]:
    """The parameters that this run must leave as they are: the frozen ones, and those of a reference model of its own."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            yield name, parameter
    reference = getattr(trainer, "ref_model", None)
    if reference is not None and not getattr(trainer.args, "sync_ref_model", False):
        for name, parameter in trainer.accelerator.unwrap_model(reference).named_parameters():
            yield f"reference model: {name}", parameter


def sums(parameters: dict[str, Any]) -> dict[str, int]:
    """Checksum of each, of the part that this process holds."""
    with torch.no_grad():
        each = {name: _sum(_held(p)) for name, p in parameters.items()}
        found: dict[str, int] = {}
        # One transfer a device, not one a tensor.
        for device in {s.device for s in each.values()}:
            there = {name: s for name, s in each.items() if s.device == device}
            found.update(zip(there, torch.stack(list(there.values())).tolist(), strict=True))
    return {name: found[name] for name in parameters}


def _held(parameter: Any) -> Tensor:
    """What of a parameter is in this process, however it is sharded."""
    parameter = getattr(parameter, "ds_tensor", parameter)  # DeepSpeed's third stage
    return parameter.to_local() if hasattr(parameter, "to_local") else parameter.detach()


def _sum(tensor: Tensor) -> Tensor:
    flat = tensor.detach().contiguous().view(-1).view(torch.uint8)
    wide = next(d for d in WIDE if flat.numel() % d.itemsize == 0 and flat.storage_offset() % d.itemsize == 0)
    return flat.view(wide).sum(dtype=torch.int64)


class Frozen:
    """Checksums of a trainer's frozen weights, taken once and compared later."""

    def __init__(self) -> None:
        self._parameters: dict[str, Any] = {}
        self._sums: dict[str, int] = {}
        self._before: dict[str, Any] | None = None
        self.whole_at = 0
        """The last step at which they were found unchanged."""

    def take(self, trainer: Any) -> str | None:
        """Note what is frozen now. Gives what is wrong if a checkpoint says that the run began with other weights."""
        self._parameters = dict(named(trainer))
        self._sums = sums(self._parameters)
        self.whole_at = int(trainer.state.global_step)
        # Another way of sharding has other names or parts, another dtype other bits: nothing can be compared.
        before = self._before
        if before is not None and before["dtypes"] == self._dtypes() and before["sums"].keys() == self._sums.keys():
            changed = [name for name in self._sums if self._sums[name] != before["sums"][name]]
            if changed:
                return f"{self._list(changed)} are not the weights that this run began with"
        return None

    def check(self, step: int) -> str | None:
        """What changed since `take`; None = nothing."""
        now = sums(self._parameters)
        changed = [name for name in now if now[name] != self._sums[name]]
        if not changed:
            self.whole_at = step
            return None
        return f"{self._list(changed)} changed after step {self.whole_at}, though nothing trains them"

    @staticmethod
    def _list(names: list[str]) -> str:
        more = f" and {len(names) - 3} more" if len(names) > 3 else ""
        return f"{', '.join(names[:3])}{more}"

    def state_dict(self) -> dict[str, Any]:
        return {"sums": dict(self._sums), "dtypes": self._dtypes()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._before = state

    def _dtypes(self) -> list[str]:
        return sorted({str(p.dtype) for p in self._parameters.values()})
