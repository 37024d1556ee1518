import json
from pathlib import Path

import pytest

SERVERS = Path(__file__).resolve().parents[2] / "rewards" / "judges"


@pytest.fixture
def judge_server(monkeypatch):
    """The module with the endpoint whose judge is code."""
    monkeypatch.syspath_prepend(str(SERVERS))
    import judge_server

    return judge_server


@pytest.fixture
def serve(judge_server, monkeypatch):
    """`serve(judge)`: an endpoint; `judge(criterion, said, place, seed)` is True, False, or a text that is answered as it is."""
    from rewards.judges import client

    monkeypatch.setattr(client, "FIRST", 0.01)
    monkeypatch.setattr(client, "LONGEST", 0.02)
    started = []

    def start(judge):
        def script(n, body):
            prompt = body["messages"][0]["content"]
            said = judge_server.fenced(prompt, "last turn")
            alone = "and one criterion." in prompt.partition("\n")[0]
            listed = judge_server.fenced(prompt, "criterion" if alone else "criteria")
            criteria = [listed] if alone else [line.partition(". ")[2] for line in listed.split("\n")]
            if criteria == ["The turn says hello"]:  # asked first of all, to see whether it is there
                return json.dumps({"explanation": "x", "criteria_met": True})
            found = [judge(c, said, k / max(1, len(criteria) - 1), body.get("seed")) for k, c in enumerate(criteria)]
            if any(isinstance(one, str) for one in found):
                return next(one for one in found if isinstance(one, str))
            answers = [{"explanation": "x", "criteria_met": one} for one in found]
            return json.dumps(answers[0] if alone else {str(k): one for k, one in enumerate(answers, 1)})

        started.append(judge_server.Server(script))
        return started[-1]

    yield start
    for server in started:
        server.stop()


@pytest.fixture
def oracle():
    """`judge(criterion, said, ...)` of the examples that come with the package: their checks, by code."""
    from posttrain.judging.examples import load
    from rewards.criteria import checks
    from rewards.grading import Judgement, grade

    known = {one.criterion: one.check for one in load(None)}

    def judge(criterion, said, place=0.0, seed=None):
        check = known[criterion]
        if check.kind == "math_equal":
            return grade(json.loads(check.value), said).verdict is Judgement.RIGHT
        return checks.built(check)(said)[0]

    return judge
