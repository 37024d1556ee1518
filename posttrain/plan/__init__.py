"""What a run will do, by arithmetic alone: batches, steps, rollouts, and memory per device. No torch."""

from posttrain.plan.batches import DEFAULTS, GROUP, Geometry, OnlineGeometry, generation_batch, geometry
from posttrain.plan.devices import BYTES, Memory, Shape, activations, adapter_parameters, memory, memory_of, size

__all__ = [
    "BYTES",
    "DEFAULTS",
    "GROUP",
    "Geometry",
    "Memory",
    "OnlineGeometry",
    "Shape",
    "activations",
    "adapter_parameters",
    "generation_batch",
    "geometry",
    "memory",
    "memory_of",
    "size",
]
