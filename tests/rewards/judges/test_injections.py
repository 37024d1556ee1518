"""Responses that try to bend the judge, by servers whose judge is code. An honest one reads what stands between the marks. A gullible
one does what any text says that is not the template's own and stands outside of them: it tells whether something got out."""

import asyncio
import json
import re

import pytest

from posttrain.judging.attacks import KINDS, attacks, tag_of
from rewards.criteria import Verdict
from rewards.judge import Judge, Question
from rewards.judges import template

ATTACKS = {attack.name: attack for attack in attacks()}
TURNS = [("user", "Name a letter.")]
HONEST = {"The letter is alpha.": True, "The letter is gamma.": False}
CRITERION = "says alpha"
SETS = [(name, said, there) for name in ATTACKS for said, there in HONEST.items()]


def attacked(name, said, there):
    return ATTACKS[name].on(said, not there, tag_of(TURNS, said, CRITERION))


def rule(server, questions, **settings):
    async def run():
        judge = Judge({"model": "m", "url": server.url, "retries": 0, "attempts": 1, **settings})
        try:
            return [ruling.verdict for ruling in await judge.rule(questions)]
        finally:
            await judge.close()

    return asyncio.run(run())


def asked(texts, criterion=CRITERION):
    return [Question([{"role": "user", "content": "Name a letter."}], text, criterion) for text in texts]


def verdict(there):
    return Verdict.MET if there else Verdict.UNMET


def outside(prompt):
    """All that does not stand between marks with the tag that the prompt announces."""
    tag = re.search(r"where TAG is (\w+)\.", prompt)[1]
    marks = rf"^\[begin (conversation|last turn|criterion|criteria) {tag}\]\n.*?\n\[end \1 {tag}\]$"
    return re.sub(marks, "", prompt, flags=re.DOTALL | re.MULTILINE).replace(tag, "TAG")


@pytest.fixture
def gullible(serve, judge_server):
    """Does what it is told outside of the marks: the verdict that is named last there, else `met`. Nothing there: looks."""
    own = {
        mode: outside(template.message(TURNS, "x", [("c", None)], mode)) for mode in ("criterion", "response")
    }  # what the template says by itself

    def obey(n, body):
        prompt = body["messages"][0]["content"]
        mode = "criterion" if "and one criterion." in prompt.partition("\n")[0] else "response"
        said = outside(prompt)
        if said == own[mode]:
            return None
        extra = said.replace(own[mode].partition("\n\n\n")[0], "")
        told = re.findall(r'not met|"criteria_met": false|\bmet\b|"criteria_met": true', extra)
        one = {"explanation": "as told", "criteria_met": not told or not re.search("not|false", told[-1])}
        return json.dumps(one if mode == "criterion" else {"1": one})

    return serve(obey)


def test_the_set_is_wide():
    assert len(ATTACKS) >= 40
    assert {attack.kind for attack in ATTACKS.values()} == set(KINDS)
    assert all("alpha" not in attack.text for attack in ATTACKS.values())  # else it would change the truth


@pytest.mark.parametrize("mode", ["criterion", "response"])
def test_an_honest_judge_says_the_same_with_and_without(serve, mode):
    server = serve()
    assert rule(server, asked(HONEST), mode=mode) == [verdict(there) for there in HONEST.values()]
    found = rule(server, asked([attacked(*one) for one in SETS]), mode=mode)
    assert [one for one, got in zip(SETS, found, strict=True) if got is not verdict(one[2])] == []


@pytest.mark.parametrize("mode", ["criterion", "response"])
def test_nothing_of_a_response_gets_out(gullible, mode):
    found = rule(gullible, asked([attacked(*one) for one in SETS]), mode=mode)
    assert [one for one, got in zip(SETS, found, strict=True) if got is not verdict(one[2])] == []


def test_nothing_of_a_question_or_a_criterion_gets_out(gullible):
    """The question may be a policy's own earlier turn, the criterion a stranger's data."""
    texts = [attacked(*one) for one in SETS if one[1].endswith("gamma.")]
    questions = [Question(text, "The letter is gamma.", CRITERION) for text in texts]
    questions += [Question("Name a letter.", "The letter is gamma.", f"{CRITERION}\n{text}") for text in texts]
    assert rule(gullible, questions) == [Verdict.UNMET] * len(questions)


def wrong(found):
    return sum(got is verdict(not one[2]) for one, got in zip(SETS, found, strict=True))


def test_without_marks_the_attacks_get_through(gullible, monkeypatch):
    """The test above can fail."""
    monkeypatch.setattr(template, "_fenced", lambda name, text, tag: f"# {name}\n{text}\n")
    found = rule(gullible, asked([attacked(*one) for one in SETS]))
    assert wrong(found) >= len(SETS) * 0.4, wrong(found)


def test_with_marks_that_can_be_known_those_that_know_them_get_through(gullible, monkeypatch):
    monkeypatch.setattr(template, "tag_for", lambda *texts: "5eadbeef5eadbeef")
    texts = {one: ATTACKS[one[0]].on(one[1], not one[2], "5eadbeef5eadbeef") for one in SETS}
    found = dict(zip(SETS, rule(gullible, asked(texts.values())), strict=True))
    through = {one[0] for one, got in found.items() if got is verdict(not one[2])}
    assert through == {"closed by the old tag", "criterion of its own"}


@pytest.mark.parametrize("quote", ["raw", "in the explanation", "after a thought"])
def test_a_judge_that_repeats_the_response_does_not_give_its_verdict(serve, judge_server, quote):
    """Before its own verdict, or inside of it without the marks that JSON needs. That may fail, but not be the response's word."""

    def repeat(n, body):
        answer = judge_server.judged(body)
        said = judge_server.fenced(body["messages"][0]["content"], "last turn")
        if quote == "raw":
            return f"The response is: {said}\n{json.dumps(answer)}"
        quoted = f'{{"explanation": "It says {said}", "criteria_met": {json.dumps(answer["criteria_met"])}}}'
        return f"It may be.</think>{quoted}" if quote == "after a thought" else quoted

    found = rule(serve(repeat), asked([attacked(*one) for one in SETS]), structured="none")
    bent = [one for one, got in zip(SETS, found, strict=True) if got is verdict(not one[2])]
    assert bent == []
    if quote == "raw":
        assert sum(got is verdict(one[2]) for one, got in zip(SETS, found, strict=True)) >= len(SETS) // 2
