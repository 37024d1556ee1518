"""Step preferences: one context, a better and a worse next step of the agent (as in SPORT, Li et al. 2025, arXiv 2504.21561).

Trajectories that begin alike and then part give the pairs. A step is worth its own reward, or what it brought was rewarded with;
where a context's steps do not all have one, it is worth the mean return of the trajectories that go through it. The observation
of a step is in neither side; earlier ones are in the prompt.
"""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Any

from posttrain.data.agents import chat
from posttrain.data.agents.files import trajectories
from posttrain.data.agents.steps import Call, Trajectory
from posttrain.errors import Mistake


def preferences(path: str, *, format: str = "auto", margin: float = 0.0) -> list[dict[str, Any]]:
    """Rows for DPO: `row_id`, `prompt`, `chosen`, `rejected` (messages), `margin`, `source`.

    Args:
        margin: the better step must be worth more than the worse one by over this.

    Raises:
        Mistake: file, row, field; no two trajectories give a pair.
    """
    rows = pairs(trajectories(path, format=format), margin)
    if not rows:
        raise Mistake(
            f"{path}: no pair: trajectories must begin alike (same question, same steps), part at a step, and differ in rewards "
            f"by more than {margin}"
        )
    return rows


def pairs(given: list[Trajectory], margin: float = 0.0) -> list[dict[str, Any]]:
    """The best step of each context with every other one that is worth less."""
    contexts: dict[str, list[tuple[str, dict[str, Any], list[Any], float | None, float | None, Trajectory]]] = (
        defaultdict(list)
    )
    for trajectory in given:
        said = chat.as_text(chat.write(trajectory))
        total = returned(trajectory)
        for i, flag in enumerate(said.train):
            if flag and i:
                key = json.dumps(said.messages[:i], sort_keys=True)
                answer = json.dumps(said.messages[i], sort_keys=True)
                own = worth(trajectory, said.owner[i])
                contexts[key].append((answer, said.messages[i], said.messages[:i], own, total, trajectory))
    rows = []
    for met in contexts.values():
        own_rewards = all(own is not None for _, _, _, own, _, _ in met)
        values: dict[str, list[float]] = defaultdict(list)
        first: dict[str, tuple[Any, ...]] = {}
        for answer, message, prompt, own, total, trajectory in met:
            value = own if own_rewards else total
            if value is not None:
                values[answer].append(value)
                first.setdefault(answer, (message, prompt, trajectory))
        means = {answer: sum(v) / len(v) for answer, v in values.items()}
        if len(means) < 2:
            continue
        best = max(means, key=lambda a: means[a])
        message, prompt, trajectory = first[best]
        for number, (other, value) in enumerate(means.items()):
            if means[best] - value > margin:
                origin = trajectory.provenance
                rows.append(
                    {
                        "row_id": f"{origin.source}:{trajectory.id}#{len(prompt)}>{number}",
                        "prompt": prompt,
                        "chosen": [message],
                        "rejected": [first[other][0]],
                        "margin": means[best] - value,
                        "source": origin.source,
                    }
                )
    return rows


def worth(trajectory: Trajectory, at: int) -> float | None:
    """The reward of step `at`, else of the observation that answers it; None if neither has one."""
    step = trajectory.content[at]
    if step.reward is not None or not isinstance(step, Call):
        return step.reward
    for i, later in enumerate(trajectory.content[at + 1 :]):
        linked = getattr(later, "tool_call_id", None)
        if (step.tool_call_id is not None and linked == step.tool_call_id) or (step.tool_call_id is None and i == 0):
            return later.reward
    return None


def returned(trajectory: Trajectory) -> float | None:
    """The sum of its steps' rewards; without any, `details.reward`; None if that is no number either."""
    rewards = [step.reward for step in trajectory.content if step.reward is not None]
    if rewards:
        return sum(rewards)
    said = trajectory.details.get("reward")
    return float(said) if isinstance(said, (int, float)) and not isinstance(said, bool) else None
