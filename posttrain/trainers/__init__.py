"""Trainers by short name. A recipe may give the import path of any subclass of a TRL trainer instead."""

TRAINERS = {
    "grpo": "posttrain.trainers.grpo:GRPO",
    "rloo": "posttrain.trainers.rloo:RLOO",
    "sft": "posttrain.trainers.sft:SFT",
    "dpo": "posttrain.trainers.dpo:DPO",
}

ONLINE = ("grpo", "rloo")
"""Those that sample from the policy while they train."""
