"""TRL's own client of vLLM servers, asking in rounds as its trainer does. One argument: JSON options `url`, `rounds`.

The trainer itself cannot be used here: it sends weights to the server over NCCL, which needs a GPU.
"""

from __future__ import annotations

import json
import sys

from trl.generation.vllm_client import VLLMClient

options = json.loads(sys.argv[1])
client = VLLMClient(base_url=options["url"])
for i in range(options["rounds"]):
    made = client.generate([[5 + i, 6, 7 + k] for k in range(16)], max_tokens=12)
    assert len(made["completion_ids"]) == 16
    print(f"done {i + 1}", flush=True)
