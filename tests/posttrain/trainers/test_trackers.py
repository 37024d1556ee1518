"""A tracker that is not installed is one line."""

from __future__ import annotations

from importlib.util import find_spec

import pytest

from posttrain import assemble
from posttrain.errors import Mistake
from posttrain.trainers.grpo import GRPO


def test_a_tracker_that_is_not_installed(parts, tmp_path):
    absent = next(name for name in ("wandb", "clearml", "neptune", "swanlab", "comet_ml") if find_spec(name) is None)
    made = parts(run={"name": "tracked", "directory": str(tmp_path), "report_to": [absent]})
    with pytest.raises(Mistake, match=r"^run\.report_to: .*install"):
        assemble.trainer(GRPO, made)
