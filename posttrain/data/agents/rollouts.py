"""A run's rollouts as trajectories: `runs/NAME/rollouts/*.jsonl` written as ATIF or ADP rows, one JSON object a line.

The prompt's turns are context, the completion is the agent's one message with its reward. Where the run kept token ids and
log-probs (`rollouts.keep_tokens: true`) ATIF has them under `metrics`; where the sampler saw another prompt than the row's (a
scaffold), its ids are `metrics.extra.seen_token_ids`: the log-probs are conditioned on them.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from posttrain import __version__
from posttrain.data.agents import adp, atif
from posttrain.data.agents.steps import Provenance, Trajectory
from posttrain.errors import Mistake
from posttrain.rundir import RunDir, read_lines, write_atomic


def export(run: str | Path, format: str = "atif", out: str | Path | None = None) -> dict[str, int]:
    """Write the training rollouts of a run.

    Args:
        run: the run's folder.
        format: `atif` or `adp`.
        out: the file to write; absent = `RUN/rollouts-FORMAT.jsonl`.

    Returns:
        `rows` written, and how many of them hold token ids (`with_tokens`; always 0 for ADP, which has no place for them).

    Raises:
        Mistake: another format, no rollouts there, or a line that is no rollout.
    """
    if format not in ("atif", "adp"):
        raise Mistake(f"format: {format!r} is neither atif nor adp")
    folder = RunDir(run)
    if not folder.rollouts.is_dir():
        raise Mistake(f"{folder.root}: has no rollouts/; only runs that sample (grpo, rloo) have them")
    write = atif.write if format == "atif" else adp.write
    lines, with_tokens = [], 0
    for trajectory in trajectories(folder):
        lines.append(json.dumps(write(trajectory), ensure_ascii=False, allow_nan=False) + "\n")
        last = trajectory.content[-1]
        with_tokens += format == "atif" and last.metrics is not None and last.metrics.completion_token_ids is not None
    if not lines:
        raise Mistake(f"{folder.rollouts}: holds no training rollouts")
    write_atomic(Path(out) if out is not None else folder.root / f"rollouts-{format}.jsonl", "".join(lines))
    return {"rows": len(lines), "with_tokens": with_tokens}


def trajectories(folder: RunDir) -> Iterator[Trajectory]:
    """The training rollouts, in the order of their steps."""
    seen: dict[str, int] = {}
    for file in sorted(folder.rollouts.glob("*.jsonl")):
        for number, record in enumerate(read_lines(file), 1):
            if record.get("phase") != "train":
                continue
            try:
                made = _trajectory(record, folder.root.name)
            except (KeyError, TypeError, ValueError) as error:
                raise Mistake(f"{file}, row {number}: is no rollout: {type(error).__name__}: {error}") from error
            seen[made.id] = seen.get(made.id, 0) + 1
            if seen[made.id] > 1:
                made.id = f"{made.id}~{seen[made.id]}"
                made.kept = {**(made.kept or {}), "trajectory_id": made.id}
            made.provenance.file, made.provenance.row = str(file), number
            yield made


def _trajectory(record: dict[str, Any], run: str) -> Trajectory:
    prompt = record["prompt"]
    turns = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    content: list[dict[str, Any]] = []
    for turn in turns:
        role, text = turn["role"], turn["content"]
        if role == "system":
            content.append({"class_": "system_message", "content": text})
        elif role == "assistant":
            content.append(
                {"class_": "message_action", "content": text, "kept": {"step": {"is_copied_context": True}}}
            )
        else:
            source = "user" if role == "user" else "environment"
            content.append({"class_": "text_observation", "content": text, "source": source})
    answer: dict[str, Any] = {"class_": "message_action", "content": record["completion"]}
    if record.get("reward") is not None:
        answer["reward"] = float(record["reward"])
    metrics: dict[str, Any] = {
        "prompt_tokens": record["prompt_tokens"],
        "completion_tokens": record["completion_tokens"],
    }
    if record.get("completion_ids") is not None:
        metrics |= {
            "prompt_token_ids": record["prompt_ids"],
            "completion_token_ids": record["completion_ids"],
            "logprobs": record["logprobs"],
        }
        extra = {"mask": record["mask"]} if 0 in record["mask"] else {}
        if record.get("seen_ids") is not None:
            extra["seen_token_ids"] = record["seen_ids"]
        if extra:
            metrics["extra"] = extra
    answer["metrics"] = metrics
    content.append(answer)
    facts = {
        k: record[k] for k in ("row_id", "sample", "step", "version", "finish", "rewards", "advantage") if k in record
    }
    name = f"{record['row_id']}/{record['step']}/{record['sample']}"
    agent = {"name": "posttrain", "version": __version__}
    kept = {"session_id": run, "trajectory_id": name, "agent": agent, "extra": {"rollout": facts}}
    origin = Provenance(source=run, format="rollouts", schema_version=__version__)
    body = {"id": name, "content": content, "details": facts, "kept": kept, "provenance": origin}
    return Trajectory.model_validate(body)
