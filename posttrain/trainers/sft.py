"""SFT: TRL's `SFTTrainer` in our frame. Rows: `prompt` and `completion`, or `messages`."""

from __future__ import annotations

from typing import Any

from trl import SFTConfig, SFTTrainer

from posttrain.errors import Mistake
from posttrain.trainers.offline import Offline
from posttrain.trainers.parts import Parts


class SFT(Offline, SFTTrainer):
    """Supervised fine-tuning on the completion tokens."""

    Config = SFTConfig

    @classmethod
    def build(cls, parts: Parts) -> Any:
        """A trainer of `parts`, ready to train.

        Raises:
            Mistake: rows of whole trajectories, and nothing says that the turns of others are not trained on.
        """
        if not parts.arguments.get("assistant_only_loss"):
            refuse_turns_of_others(parts.train)
        return super().build(parts)


def refuse_turns_of_others(rows: Any) -> None:
    """Rows of whole trajectories (`posttrain.data.agents:sft`, `rows: trajectory`): TRL trains on every token of a completion,
    on what tools and users say in it too, unless told otherwise."""
    columns = getattr(rows, "column_names", None) or []
    if not {"completion", "converter"} <= set(columns):
        return
    for number, row in enumerate(rows, 1):
        answer = row["completion"]
        others = [turn["role"] for turn in answer if turn["role"] != "assistant"] if isinstance(answer, list) else []
        if others:
            raise Mistake(
                f"data.train: the completion of row {number} ({row.get('row_id', number)}) holds a {others[0]} turn, which would "
                "be trained on; set trainer.args.assistant_only_loss: true, or take rows: step"
            )
