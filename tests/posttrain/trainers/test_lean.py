"""vLLM is imported by a training process only where its engine is asked for."""

import subprocess
import sys

import pytest


def test_trl_is_imported_without_vllm():
    pytest.importorskip("vllm", reason="vLLM is not installed")
    code = "import sys; from posttrain.trainers import lean; lean.without_vllm(); from posttrain.trainers import grpo, rloo, sft, dpo; "
    told = subprocess.run(
        [sys.executable, "-c", code + "print('trl' in sys.modules, 'vllm' in sys.modules)"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert told.stdout.split() == ["True", "False"]
