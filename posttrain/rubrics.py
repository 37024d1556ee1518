"""Rubric rewards of a recipe, and the judges behind them: what can be known of them before a run."""

from __future__ import annotations

import asyncio
import time

from posttrain.errors import Mistake
from posttrain.findings import Finding, bad, good
from posttrain.imports import Use
from posttrain.recipe.schema import Reward
from rewards.criteria import Verdict
from rewards.judge import Judge, JudgeError
from rewards.rubric import Rubric


def is_rubric(use: Use) -> bool:
    """True if a reward is `rewards.rubric:Rubric` or a class derived from it."""
    target = use.load()
    return isinstance(target, type) and issubclass(target, Rubric)


def judge_of(use: Use) -> Judge | None:
    """The judge that a reward asks; None = it asks none.

    Raises:
        ValueError: a setting of the reward is wrong.
    """
    return use.build().judge if is_rubric(use) else None


def room_for(judge: Judge, setting: Reward, where: str) -> None:
    """A batch's time limit leaves the judge its own, and its limits hold.

    Raises:
        Mistake: rows would time out before a judge that does not answer is given up; or several processes would each ask as much as
            one may.
    """
    needs = judge.settings.given_up
    if setting.timeout < needs:
        raise Mistake(
            f"{where}.timeout: {setting.timeout:g} s for a batch is less than the {needs:g} s after which a judge that does not answer is "
            f"given up (2 x timeout + patience of {where}.with.judge), so rows would time out and hide why; set {where}.timeout: "
            f"{max(600.0, 2 * needs):g}, or lower those two"
        )
    if setting.processes > 1:
        raise Mistake(
            f"{where}.processes: {setting.processes} processes would each ask the judge as much as its limits allow; leave "
            f"processes out, and set concurrency of {where}.with.judge"
        )


def heard(judge: Judge) -> Finding:
    """Ask the judge one plain thing: can it be reached, does it take the key, know its model, and answer in the form that it should?"""
    settings = judge.settings
    who = f"{settings.model} at {settings.url or 'OpenAI'}"
    began = time.monotonic()
    try:
        ruling = asyncio.run(judge.trial())
    except JudgeError as error:
        return bad(str(error), "set url, model or key right")
    took = time.monotonic() - began
    if ruling.verdict is Verdict.FAILED:
        mend = "start the judge, or mend its settings (url, model, structured, max_tokens, extra); `posttrain judge check` looks closer"
        return bad(f"judge {who}: no verdict: {ruling.explanation}", mend)
    said = (
        ""
        if ruling.verdict is Verdict.MET
        else ", though it does not find the word hello in hello: try `posttrain judge check`"
    )
    return good(f"judge {who} answers, {ruling.tokens} tokens in {took:.1f} s{said}")
