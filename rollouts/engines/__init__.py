"""Engines by short name. A recipe may give any import path instead."""

ENGINES = {
    "transformers": "rollouts.engines.transformers:TransformersEngine",
    "vllm": "rollouts.engines.vllm:VLLMEngine",
    "vllm-server": "rollouts.engines.vllm_server:VLLMServerEngine",
}
