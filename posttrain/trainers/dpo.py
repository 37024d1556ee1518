"""DPO: TRL's `DPOTrainer` in our frame. Rows: `prompt`, `chosen`, `rejected`."""

from __future__ import annotations

from trl import DPOConfig, DPOTrainer

from posttrain.trainers.offline import Offline


class DPO(Offline, DPOTrainer):
    """Direct preference optimization (Rafailov et al. 2023, arXiv 2305.18290) and TRL's other pair losses."""

    Config = DPOConfig
