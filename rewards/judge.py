"""A model that says which criteria a response meets, behind any OpenAI-compatible endpoint. No answer is never a verdict."""

from __future__ import annotations

import asyncio
import dataclasses
import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rewards.completions import text_of
from rewards.criteria.item import Verdict
from rewards.judges import parse, template, votes
from rewards.judges.cache import Cache, Entry, key_of
from rewards.judges.client import Client, Counts, JudgeError, Reply, Silent
from rewards.judges.settings import JudgeSettings, read

__all__ = ["Counts", "Judge", "JudgeError", "JudgeSettings", "Question", "Ruling", "turns_of"]

EXPLANATION = 1000
"""Characters of an explanation that are kept."""


@dataclass(frozen=True, slots=True)
class Question:
    """Does `response` meet `criterion`? `conversation`: what came before it, as text or messages."""

    conversation: Any
    response: str
    criterion: str
    points: float | None = None


@dataclass(frozen=True, slots=True)
class Ruling:
    """What the judge says. `explanation` of a FAILED one: why there is no verdict."""

    verdict: Verdict
    explanation: str = ""
    agreement: float | None = None
    """Share of several votes that agree with their majority; None with one."""
    tokens: int = 0
    """Prompt and answer, over all requests for it; those of one request for several criteria count with its first."""
    cached: bool = False
    """Nothing was asked for it."""


_Together = tuple[bytes, tuple[tuple[str, float | None], ...]]
"""In mode `response`: which answer, and the criteria (with points, if shown) that one request is about."""


@dataclass(slots=True)
class _Ballot:
    """One vote on one question: asked once, however many questions of a call are the same."""

    key: bytes
    question: Question
    together: _Together | None
    vote: int
    verdict: Verdict = Verdict.FAILED
    explanation: str = ""
    tokens: int = 0
    cached: bool = False


class Judge:
    """See `JudgeSettings`. One object may be used from several event loops, and by several threads one after another.

    Raises:
        ValueError: a wrong setting, a key that cannot be read, a cache that cannot be opened; one line.
    """

    def __init__(self, settings: JudgeSettings | Mapping[str, Any] | str | Path):
        self.settings = read(settings)
        self.counts = Counts()
        """Of all calls so far."""
        self._cache = Cache(self.settings.cache) if self.settings.cache is not None else None
        self._clients: dict[asyncio.AbstractEventLoop, Client] = {}
        self._version = template.version()
        Client(self.settings)  # a missing key shows now

    async def rule(self, questions: Sequence[Question], counts: Counts | None = None) -> list[Ruling]:
        """One ruling a question, in order. What could not be had is FAILED, with the reason. Verdicts are in the cache as soon as
        they are there, so that a call that is cancelled has not asked for nothing. What it took is added to `counts`.

        Raises:
            JudgeError: the endpoint refuses the key or does not know the model.
        """
        began = time.monotonic()
        ballots: dict[bytes, _Ballot] = {}
        cast: list[list[_Ballot]] = []
        requests = self._requests(questions)
        for question, together in zip(questions, requests, strict=True):
            keys = [self._key(question, together, vote) for vote in range(self.settings.votes)]
            cast.append([ballots.setdefault(k, _Ballot(k, question, together, v)) for v, k in enumerate(keys)])
        if self._cache is not None:
            for key, entry in (await asyncio.to_thread(self._cache.get, list(ballots))).items():
                _fill(ballots[key], entry)
                ballots[key].cached = True
        spent = Counts()
        try:
            await self._ask([b for b in ballots.values() if not b.cached], spent)
            rulings = [self._ruling(votes_cast) for votes_cast in cast]
            spent.questions = len(rulings)
            spent.cached = sum(r.cached for r in rulings)
            spent.failed = sum(r.verdict is Verdict.FAILED for r in rulings)
            return rulings
        finally:
            spent.seconds = time.monotonic() - began
            for total in (self.counts, counts):
                if total is not None:
                    total.add(spent)

    async def trial(self) -> Ruling:
        """What it says to a question whose answer is plain, asked afresh and tried twice at most.

        Raises:
            JudgeError: as `rule`.
        """
        brief = Judge(dataclasses.replace(self.settings, cache=None, retries=min(1, self.settings.retries), votes=1))
        try:
            return (await brief.rule([Question("Say hello.", "hello", "The turn says hello")]))[0]
        finally:
            await brief.close()

    async def close(self) -> None:
        """End the connections of this event loop, and the cache's."""
        if (client := self._clients.pop(asyncio.get_running_loop(), None)) is not None:
            await client.close()
        if self._cache is not None:
            self._cache.close()

    def _requests(self, questions: Sequence[Question]) -> list[_Together | None]:
        """Of each question what it is asked together with: those beside it about the same answer, each once."""
        if self.settings.mode == "criterion":
            return [None] * len(questions)
        found: list[_Together | None] = []

        def about(q: Question) -> bytes:
            return key_of([turns_of(q.conversation, self.settings.keep_system), q.response])

        for answer, run in itertools.groupby(questions, about):
            same = list(run)
            items = dict.fromkeys((q.criterion, q.points if self.settings.show_points else None) for q in same)
            found += [(answer, tuple(items))] * len(same)
        return found

    def _key(self, question: Question, together: _Together | None, vote: int) -> bytes:
        """Of all that a verdict depends on, in mode `response` also of the criteria beside it; not of the fence, which follows from
        it all."""
        one = self.settings
        shown = question.points if one.show_points else None
        said = [turns_of(question.conversation, one.keep_system), question.response, question.criterion, shown]
        beside = [] if together is None else [list(item) for item in together[1]]
        seed = None if one.seed is None else one.seed + vote
        return key_of([said, beside, one.model, one.mode, one.sampling(), seed, vote, self._version])

    async def _ask(self, ballots: Sequence[_Ballot], spent: Counts) -> None:
        groups: dict[Any, list[_Ballot]] = {}
        for ballot in ballots:
            groups.setdefault(ballot.key if ballot.together is None else (ballot.vote, ballot.together), []).append(
                ballot
            )
        if not groups:
            return
        loop = asyncio.get_running_loop()
        if loop not in self._clients:
            # Those of loops that have ended are of no more use, and hold their loops and connections.
            self._clients = {one: client for one, client in self._clients.items() if one.is_running()}
            self._clients[loop] = Client(self.settings)
        client = self._clients[loop]
        tasks = [asyncio.ensure_future(self._settle(client, group, spent)) for group in groups.values()]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self, client: Client, group: list[_Ballot], spent: Counts) -> None:
        """Ask about the criteria of one request until each has a verdict, or enough answers could not be read."""
        one = self.settings
        open_ = group
        for attempt in range(one.attempts):
            first = open_[0].question
            items = [(b.question.criterion, b.question.points if one.show_points else None) for b in open_]
            prompt = template.message(turns_of(first.conversation, one.keep_system), first.response, items, one.mode)
            # The same seed would give the same unreadable answer again.
            seed = None if one.seed is None else one.seed + open_[0].vote + 1009 * attempt
            try:
                reply = await client.ask(prompt, template.schema(len(items), one.mode), seed, spent)
            except Silent as error:
                for ballot in open_:
                    ballot.explanation = str(error)
                return
            open_[0].tokens += reply.tokens
            await self._read(reply, open_)
            open_ = [b for b in open_ if b.verdict is Verdict.FAILED]
            if not open_:
                return
        for ballot in open_:
            often = "once" if one.attempts == 1 else f"{one.attempts} times"
            ballot.explanation = f"{ballot.explanation}; asked {often}"

    async def _read(self, reply: Reply, ballots: Sequence[_Ballot]) -> None:
        try:
            if not reply.whole:
                raise parse.Unread(f"the answer was cut at {self.settings.max_tokens} tokens")
            if reply.silent:
                raise parse.Unread(reply.silent)
            found = parse.verdicts(reply.text, len(ballots), self.settings.mode)
        except parse.Unread as error:
            found = [error] * len(ballots)
        kept: list[tuple[bytes, Entry]] = []
        for ballot, entry in zip(ballots, found, strict=True):
            if isinstance(entry, parse.Unread):
                ballot.explanation = str(entry)
            else:
                entry = (entry[0], entry[1][:EXPLANATION])
                _fill(ballot, entry)
                kept.append((ballot.key, entry))
        if kept and self._cache is not None:
            await asyncio.to_thread(self._cache.put, kept)

    @staticmethod
    def _ruling(ballots: Sequence[_Ballot]) -> Ruling:
        verdict, agreement = votes.decide([b.verdict for b in ballots])
        speaker = next((b for b in ballots if b.verdict is verdict), ballots[0])
        return Ruling(
            verdict,
            speaker.explanation if speaker.verdict is verdict else "the votes have no majority",
            agreement,
            sum(b.tokens for b in ballots),
            all(b.cached for b in ballots),
        )


def _fill(ballot: _Ballot, entry: Entry) -> None:
    ballot.verdict = Verdict.MET if entry[0] else Verdict.UNMET
    ballot.explanation = entry[1]


def turns_of(conversation: Any, keep_system: bool) -> list[tuple[str, str]]:
    """(role, text) of each turn that a judge is shown.

    Raises:
        ValueError: it is neither text nor messages.
    """
    if isinstance(conversation, str):
        return [("user", conversation)]
    if not isinstance(conversation, Sequence) or not all(isinstance(turn, Mapping) for turn in conversation):
        raise ValueError(f"what comes before a response is text or a list of messages, not {conversation!r:.60}")
    turns = [(str(turn.get("role", "user")), text_of([{**turn, "role": "assistant"}])) for turn in conversation]
    return [turn for turn in turns if keep_system or turn[0] not in ("system", "developer")]
