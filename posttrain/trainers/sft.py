"""SFT: TRL's `SFTTrainer` in our frame. Rows: `prompt` and `completion`, or `messages`."""

from __future__ import annotations

from trl import SFTConfig, SFTTrainer

from posttrain.trainers.offline import Offline


class SFT(Offline, SFTTrainer):
    """Supervised fine-tuning on the completion tokens."""

    Config = SFTConfig
