"""Rubric-scaffolded rollouts (RuscaRL, arXiv 2508.16949v6): part of what is known about a good answer is shown to the sampler,
unequally within a group and vanishing over the training, and the update is computed as if it had never been there.

The engine sees question and scaffold (`Rollout.seen_ids`); old, new and reference log-probs see the question alone
(`Rollout.prompt_ids`; the paper's section 4.3 and D.6). No reward is read here: it works with any.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rollouts.records import Ask, Completion, Prompt, Rollout, Row, Session
from rollouts.seeds import derive
from rollouts.strategies import hints, leak, schedules
from rollouts.strategies.schedules import Inter, Intra
from rollouts.strategies.settings import among, flags, in_range, numbers, texts, whole

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Seen:
    """What is shown to one sample."""

    ratio: float
    ids: list[int]
    """Token ids of the prompt that the engine gets."""
    shown: list[int]
    """Indices of the items that are in it, in the order in which they are."""
    tokens: int
    """By how many tokens it is longer than the prompt alone."""
    dropped: int
    """Items that were drawn and left out again because of `max_tokens`."""


class Scaffold:
    """One prompt, one completion, with a scaffold in front while the schedule lasts. Evaluations never get one.

    Args:
        column: of the rows: with `show: criteria` a list of `{criterion, points}`, with `show: steps` a list of texts.
        show: `criteria` = a random part of a rubric. `steps` = the first steps of a worked solution; the parts are nested, and
            the answer is shown at ratio 1 only.
        inter: ratio over the training: `sigmoid`, `constant`, `linear`, `power`, `step`; `adaptive` = by the pass rate of the
            row's own last group (ours).
        alpha: steepness of `sigmoid` (the paper's default 125).
        t0: midpoint of `sigmoid`, end of `step`, as a share of the training (the paper's default 0.2).
        power: exponent of `power`.
        intra: ratio within a group: `linear` from everything to nothing, `binary` = the first `m` samples see all and the others
            nothing, `all` = each sees all.
        m: for `binary`.
        in_loss: put the scaffold into the prompt of the loss as well (the paper's ablation; the released flag
            `participate_training`).
        show_points: write what each criterion is worth (the released code does).
        secrecy: ask the policy not to speak of the scaffold (the released flag `include_warning`).
        max_tokens: most tokens that a scaffold may add. Whole items are left out of the shown part, from its end, until it fits.
        place: `system`, or `user` for chat templates that take no system turn.
        scaffold_negative: `drop` = scaffolded samples with a negative advantage get none (ours; `keep` is the paper's).
        answer_column: of the rows, for `show: steps`: the answer; absent = it is never shown.
        form: for `show: steps`: a sentence that says how to write the answer; it goes with every hint.
        passes: for `adaptive`: reward from which a sample has passed.
        enough: for `adaptive`: pass rate from which a row gets no scaffold.

    Raises:
        ValueError: a value outside of its range, or two that contradict each other.
    """

    shows_more: bool = True

    def __init__(
        self,
        column: str = "rubric",
        show: Literal["criteria", "steps"] = "criteria",
        inter: Inter = "sigmoid",
        alpha: float = 125.0,
        t0: float = 0.2,
        power: float = 2.0,
        intra: Intra = "linear",
        m: int | None = None,
        in_loss: bool = False,
        show_points: bool = False,
        secrecy: bool = True,
        max_tokens: int | None = None,
        place: Literal["system", "user"] = "system",
        scaffold_negative: Literal["keep", "drop"] = "keep",
        answer_column: str | None = None,
        form: str | None = None,
        passes: float = 1.0,
        enough: float = 0.5,
    ):
        texts(column=column, answer_column=answer_column, form=form)
        numbers(alpha=alpha, t0=t0, power=power, passes=passes, enough=enough)
        whole(m=m, max_tokens=max_tokens)
        flags(in_loss=in_loss, show_points=show_points, secrecy=secrecy)
        among("show", show, ("criteria", "steps"))
        among("inter", inter, schedules.INTER)
        among("intra", intra, schedules.INTRA)
        among("place", place, ("system", "user"))
        among("scaffold_negative", scaffold_negative, ("keep", "drop"))
        in_range("alpha", alpha, alpha > 0, "a positive number")
        in_range("t0", t0, 0 <= t0 <= 1, "from 0 to 1, a share of the training")
        in_range("power", power, power > 0, "a positive number")
        in_range("max_tokens", max_tokens, max_tokens is None or max_tokens >= 1, "at least 1")
        in_range("enough", enough, 0 < enough <= 1, "above 0, at most 1")
        in_range(
            "m", m, (m is not None and m >= 0) == (intra == "binary"), "given with intra: binary alone, at least 0"
        )
        if show == "criteria" and (answer_column is not None or form is not None):
            raise ValueError("scaffold: answer_column and form go with show: steps; leave them out")
        if in_loss and scaffold_negative == "drop":
            raise ValueError(
                "scaffold: scaffold_negative: drop is for samples whose scaffold is not in the loss; in_loss is true"
            )
        self.column, self.show, self.place = column, show, place
        self.inter, self.alpha, self.t0, self.power = inter, alpha, t0, power
        self.intra, self.m = intra, m or 0
        self.in_loss, self.show_points, self.secrecy, self.max_tokens = in_loss, show_points, secrecy, max_tokens
        self.answer_column, self.form = answer_column, form
        self.passes, self.enough = passes, enough
        self.drops_negative = scaffold_negative == "drop"
        # Where the loss has the scaffold too, sampler and trainer look at one prompt.
        self.shows_more = not in_loss
        self.needs = (column, *([answer_column] if answer_column else []))
        """Columns that every row must have."""
        self.steps: int | None = None
        """S, the rollout iterations of the run that the schedule was laid out for."""
        self.rates: dict[str, float] = {}
        """For `adaptive`: share of each row's last group that passed."""
        self._said = False

    def run(self, asks: Sequence[Ask], session: Session) -> list[Rollout]:
        """One rollout for each ask, in order. `info`: `scaffold_ratio`, `scaffold_shown` (indices into the column),
        `scaffold_tokens`, `scaffold_leak` (whether the answer speaks of criteria or quotes what it was shown of them, by `leak.leaks`;
        for criteria alone, since who was shown steps is to go on from them), and `scaffold_dropped` where `max_tokens` left
        something out.

        Raises:
            ValueError: a row lacks the column, or holds something else there.
        """
        plain = {ask.row.row_id: session.encode(ask.row.prompt) for ask in asks}
        seen = [self.seen(ask, session, plain[ask.row.row_id]) for ask in asks]
        completions = session.engine.generate(
            [one.ids for one in seen], session.sampling, [session.seed(ask) for ask in asks]
        )
        return [
            Rollout(
                row_id=ask.row.row_id,
                sample=ask.sample,
                version=made.version,
                prompt_ids=one.ids if self.in_loss else plain[ask.row.row_id],
                completion_ids=made.ids,
                logprobs=made.logprobs,
                mask=[1] * len(made.ids),
                finish=made.finish,
                info=self._info(ask, one, made, session) if session.progress is not None else {},
                seen_ids=one.ids if one.shown and not self.in_loss else None,
            )
            for ask, one, made in zip(asks, seen, completions, strict=True)
        ]

    def seen(self, ask: Ask, session: Session, plain: list[int]) -> Seen:
        """What sample `ask` is shown at this point of the run; `plain`: the prompt's ids without anything."""
        ratio = self.ratio(ask, session)
        if not ratio:
            return Seen(0.0, plain, [], 0, 0)
        self.takes(ask.row, session.tokenizer)
        # Keyed draws (ours): the same for any number of processes, and when a run goes on.
        seed = derive(session.run_seed, "scaffold", session.progress.step, ask.row.row_id, ask.sample)
        drawn = self.chosen(ask.row, ratio, seed)
        kept = list(drawn)
        while kept:
            ids = session.encode(self.prompt(ask.row, kept))
            added = len(ids) - len(plain)
            if self.max_tokens is None or added <= self.max_tokens:
                return Seen(ratio, ids, kept, added, len(drawn) - len(kept))
            kept.pop()
        return Seen(ratio, plain, [], 0, len(drawn))

    def ratio(self, ask: Ask, session: Session) -> float:
        """lam_i(t) = lam(t) x lam_i of one ask; 0 where nothing is trained."""
        progress = session.progress
        if progress is None or not session.training:
            return 0.0
        if self.inter == "adaptive":
            over = schedules.by_pass_rate(self.rates.get(ask.row.row_id), self.enough)
        else:
            t = schedules.elapsed(progress.step, self._steps(progress.steps))
            over = schedules.over_time(self.inter, t, alpha=self.alpha, t0=self.t0, power=self.power)
        # More samples than a group has (a probe's, say) are those of further groups.
        return over * schedules.in_group(self.intra, ask.sample % session.group, session.group, self.m)

    def chosen(self, row: Row, ratio: float, seed: int) -> list[int]:
        """Indices of what is shown of a row at `ratio`. For steps, one index past the last is the answer."""
        if self.show == "criteria":
            return schedules.subset(len(hints.criteria(row, self.column)), ratio, seed)
        steps = len(hints.steps(row, self.column))
        return schedules.prefix(steps, ratio, [steps] if self._answer(row) is not None else [])

    def prompt(self, row: Row, shown: Sequence[int]) -> Prompt:
        """The row's prompt with the items `shown` in it; its own prompt if there are none. Override `text` for other words."""
        return hints.placed(row.prompt, self.text(row, shown), self.place) if shown else row.prompt

    def text(self, row: Row, shown: Sequence[int]) -> str:
        """The words of the scaffold for the items `shown`, of which there is at least one."""
        if self.show == "criteria":
            items = hints.criteria(row, self.column)
            return hints.told([items[i] for i in shown], points=self.show_points, secrecy=self.secrecy)
        steps = hints.steps(row, self.column)
        answer = self._answer(row) if len(steps) in shown else None
        return hints.worked([steps[i] for i in shown if i < len(steps)], answer=answer, form=self.form)

    def longest(self, row: Row, encode: Callable[[Prompt], list[int]]) -> int:
        """Tokens that the whole scaffold adds to a row's prompt, or `max_tokens` where that is less; 0 where nothing is ever shown.

        Raises:
            ValueError: the row lacks the column, or the chat template leaves the scaffold out.
        """
        everything = self.chosen(row, 1.0, 0)
        if not everything:
            return 0
        plain, told = encode(row.prompt), encode(self.prompt(row, everything))
        if told == plain:
            raise ValueError(
                f"row {row.row_id}: the chat template drops {self.place} turns without a word, so nothing of the scaffold would be seen; "
                f"set rollouts.strategy.with.place: {'user' if self.place == 'system' else 'system'}"
            )
        added = len(told) - len(plain)
        if self.max_tokens is None or added <= self.max_tokens:
            return added
        firsts = everything if self.show == "criteria" else everything[:1]  # what is left when all others are left out
        fits = any(len(encode(self.prompt(row, [i]))) - len(plain) <= self.max_tokens for i in firsts)
        return self.max_tokens if fits else 0

    def takes(self, row: Row, tokenizer: Any) -> None:
        """Raises:
        ValueError: nothing can be put before the row's prompt."""
        hints.untemplated(row, getattr(tokenizer, "bos_token", None))

    def fits(self, group: int) -> None:
        """Raises:
        ValueError: `m` is more than the `group` samples of a prompt."""
        most = f"at most the {group} samples of a group (trainer.args.num_generations)"
        in_range("m", self.m, self.m <= group, most)

    def learn(self, row_ids: Iterable[str], rewards: Iterable[float | None]) -> None:
        """What the samples of a training batch got (None: not judged), those of all processes: for `adaptive`."""
        if self.inter != "adaptive":
            return
        groups: dict[str, list[bool]] = {}
        for row_id, reward in zip(row_ids, rewards, strict=True):
            if reward is not None:
                groups.setdefault(row_id, []).append(reward >= self.passes)
        self.rates |= {row_id: sum(passed) / len(passed) for row_id, passed in groups.items()}

    def state_dict(self) -> dict[str, Any]:
        """What the schedule depends on besides the settings (JSON)."""
        return {"steps": self.steps, "rates": dict(self.rates)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.steps = state["steps"]
        self.rates = {str(row_id): float(rate) for row_id, rate in state["rates"].items()}

    def _steps(self, steps: int) -> int:
        """S of the schedule: of the run as it began. A run that goes on with another length keeps the old schedule."""
        if self.steps is None:
            self.steps = steps
        if steps != self.steps and not self._said:
            self._said = True
            log.warning(
                "rollouts.strategy: scaffold: the run now has %d rollout iterations, its schedule was laid out for %d and stays "
                "so; begin anew (--restart) for another",
                steps,
                self.steps,
            )
        return self.steps

    def _info(self, ask: Ask, one: Seen, made: Completion, session: Session) -> dict[str, Any]:
        info: dict[str, Any] = {
            "scaffold_ratio": one.ratio,
            "scaffold_shown": one.shown,
            "scaffold_tokens": one.tokens,
        }
        if one.dropped:
            info["scaffold_dropped"] = one.dropped
        if self.show == "criteria":
            scaffold = self.text(ask.row, one.shown) if one.shown else ""
            answer = session.tokenizer.decode(made.ids, skip_special_tokens=True)
            info["scaffold_leak"] = leak.leaks(answer, scaffold, leak.text_of(ask.row.prompt))
        return info

    def _answer(self, row: Row) -> str | None:
        if self.answer_column is None:
            return None
        if row.columns.get(self.answer_column) is None:
            raise ValueError(
                f"row {row.row_id}: column {self.answer_column} is empty; scaffold takes the answer from it"
            )
        return str(row.columns[self.answer_column])
