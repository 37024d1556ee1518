"""Evaluations as they lie on disk, made up."""

import json

import numpy as np

from posttrain.evaluation.results import Result


def evaluation(folder, scores, benchmark="toy", when=None, **changes):
    """An evaluation on disk: one row of scores a problem, in order or by item."""
    rows = scores if isinstance(scores, dict) else {f"{benchmark}/{i}": row for i, row in enumerate(scores)}
    folder.mkdir(parents=True)
    lines = [
        {"item_id": item, "sample": j, "score": float(s), "gold": "1", "cluster": item}
        for item, row in rows.items()
        for j, s in enumerate(row)
    ]
    (folder / "samples.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    record = {
        "benchmark": benchmark, "when": when, "n": len(rows), "k": len(next(iter(rows.values()))), "model": folder.name, "adapter": None,
        "engine": "e", "sampling": {"temperature": 1.0}, "seed": 0, "prompt_style": "boxed", "prompt_hash": "p",
        "grader": {"name": "g", "version": "1"}, "metrics": {}, "truncated": 0.0, "no_answer": 0.0, "timeouts": 0.0,
        "aborted": 0.0, "tokens": 1, "prompt_tokens": 1, "seconds": 1.0, "created": "", "versions": {}, "settings": "s",
        "notes": [],
    }  # fmt: skip
    Result(**(record | changes)).write(folder)
    return folder


def draw(gain, n=60, k=2, seed=0, shift=0.0):
    """Scores of n problems of Beta(2, 2), each solved more often by `gain` and by a run's own `shift`."""
    p = np.random.default_rng(1).beta(2, 2, n)
    generator = np.random.default_rng(seed)
    return (generator.random((n, k)) < np.clip(p + gain + shift, 0, 1)[:, None]).astype(int).tolist()
