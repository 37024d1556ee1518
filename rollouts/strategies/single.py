"""One prompt, one completion."""

from __future__ import annotations

from collections.abc import Sequence

from rollouts.records import Ask, Rollout, Session


class SingleTurn:
    """Each ask is one request: the prompt is rendered, the policy answers, done."""

    def run(self, asks: Sequence[Ask], session: Session) -> list[Rollout]:
        prompt_ids = [session.encode(ask.row.prompt) for ask in asks]
        completions = session.engine.generate(prompt_ids, session.sampling, [session.seed(ask) for ask in asks])
        return [
            Rollout(
                row_id=ask.row.row_id,
                sample=ask.sample,
                version=made.version,
                prompt_ids=ids,
                completion_ids=made.ids,
                logprobs=made.logprobs,
                mask=[1] * len(made.ids),
                finish=made.finish,
            )
            for ask, ids, made in zip(asks, prompt_ids, completions, strict=True)
        ]
