"""Are the weights spread over processes?"""

from __future__ import annotations

from typing import Any


def sharded(accelerator: Any) -> bool:
    """True if the weights will be spread over processes, so that no process can use the module by itself."""
    plugin = getattr(accelerator.state, "deepspeed_plugin", None)
    return getattr(accelerator.state, "fsdp_plugin", None) is not None or bool(plugin and plugin.zero_stage == 3)


def shards(accelerator: Any) -> int:
    return accelerator.num_processes if sharded(accelerator) else 1
