"""Does the adapter that is trained get to the engine and into the result as what it is?"""

from __future__ import annotations

from posttrain import adapters
from posttrain.findings import Finding, bad, good, idle
from posttrain.preflight.scene import Scene, few
from rollouts.engines.adapters import changes_base, obstacle

CORRUPTING = {
    "use_vllm": "merge the adapter into the base weights at every sync, and in 16 bits they do not come back from that",
    "use_transformers_paged": "cast the trained weights to bfloat16 for good",
    "use_transformers_continuous_batching": "cast the trained weights to bfloat16 for good",
}
"""Settings of TRL 1.16 that change the live weights. No recipe can give them; a trainer of the user's could."""


def kind_is_carried(scene: Scene) -> Finding:
    """The engine can serve this kind of adapter, and what is saved fits the base model."""
    model = scene.trainer.model
    if not adapters.is_peft(model):
        return idle("no adapter: all weights are trained")
    config = model.peft_config[model.active_adapter].to_dict()
    init = config.get("init_lora_weights")
    if changes_base(config):
        return bad(
            f"init_lora_weights: {init} changes the base weights, so the saved adapter would not fit the base model",
            "use init_lora_weights: true or gaussian",
        )
    engine = scene.parts.engine
    if engine is not None and not engine.same_numerics and (why := obstacle(config)) is not None:
        return bad(
            f"{type(engine).__name__} would not serve {why} as PEFT means it",
            "leave it out, or use engine: transformers",
        )
    return good(f"LoRA of rank {config.get('r')}, served by {type(engine).__name__ if engine else 'no engine'}")


def nothing_merges(scene: Scene) -> Finding:
    """No adapter is in the base weights, and nothing will put it there: in 16 bits the base does not come back from that."""
    model = scene.trainer.model
    if not adapters.is_peft(model):
        return idle("no adapter: nothing to merge")
    merged = [name for name, module in model.named_modules() if getattr(module, "merged", False) is True]
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in model.parameters() if not p.requires_grad})
    if merged:
        return bad(
            f"the adapter is merged into the {few(dtypes)} weights of {few(merged)}",
            "take it out (model.unmerge_adapter()); adapters travel to the engine unmerged",
        )
    for name, does in CORRUPTING.items():
        if getattr(scene.trainer.args, name, False) is True or getattr(scene.trainer, name, False) is True:
            return bad(
                f"{name} is on in {type(scene.trainer).__name__}: TRL would {does}",
                "leave it out; rollouts.engine: vllm follows the adapter and leaves the base alone",
            )
    return good(f"the base stays as it is ({few(dtypes)}): only the adapter is trained, saved and served")
