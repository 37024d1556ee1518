"""The reference model of a run without an adapter is the policy as it was at the start.

TRL loads it once more, by the name in the model's config: another revision, a changed model or a merged adapter would make
the KL point at weights that the run never had. Where the reference is not sharded, it is given the policy's weights.
"""

from __future__ import annotations

from typing import Any

import torch

from posttrain.errors import Mistake
from posttrain.trainers.parts import Parts


def anchor(trainer: Any, parts: Parts) -> int:
    """Make the reference equal to the policy. Call it before any training or resuming. Gives how many tensors differed.

    Raises:
        Mistake: TRL loaded something else, and the reference is sharded.
    """
    reference = getattr(trainer, "ref_model", None)
    if reference is None:
        return 0
    policy = dict(trainer.accelerator.unwrap_model(trainer.model).named_parameters())
    held = dict(trainer.accelerator.unwrap_model(reference).named_parameters())
    plain = all(
        name in policy and type(p.data) is torch.Tensor and p.shape == policy[name].shape for name, p in held.items()
    )
    if not plain:
        if parts.recipe.model.revision is not None:
            raise Mistake(
                "model.revision: TRL would load the sharded reference model from the default branch; download the revision "
                "and give its directory as model.name, or train an adapter"
            )
        return 0
    changed = 0
    with torch.no_grad():
        for name, parameter in held.items():
            wanted = policy[name].detach()
            if not torch.equal(parameter, wanted.to(parameter.device, parameter.dtype)):
                parameter.copy_(wanted)
                changed += 1
    return changed
