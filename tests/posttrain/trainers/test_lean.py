"""vLLM is imported by a training process, and by `posttrain plan`, only where its engine is asked for."""

import subprocess
import sys
from pathlib import Path

import pytest

RECIPE = str(Path(__file__).resolve().parents[3] / "recipes" / "arithmetic_grpo.yaml")


def test_trl_is_imported_without_vllm():
    pytest.importorskip("vllm", reason="vLLM is not installed")
    code = "import sys; from posttrain.trainers import lean; lean.without_vllm(); from posttrain.trainers import grpo, rloo, sft, dpo; "
    told = subprocess.run(
        [sys.executable, "-c", code + "print('trl' in sys.modules, 'vllm' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == ["True", "False"]


def test_a_plan_does_not_import_vllm():
    pytest.importorskip("vllm", reason="vLLM is not installed")
    code = "import sys; from posttrain import preview; from posttrain.recipe import read; preview.show(read(sys.argv[1])); "
    told = subprocess.run(
        [sys.executable, "-c", code + "print('trl.trainer.grpo_trainer' in sys.modules, 'vllm' in sys.modules)", RECIPE],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.splitlines()[-1].split() == ["True", "False"]
