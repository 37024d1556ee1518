"""The judge against real servers on loopback, whose judge is code."""

import asyncio
import functools
import gc
import json
import time
import weakref

import pytest

from rewards.criteria import Verdict
from rewards.judge import Counts, Judge, JudgeError, Question

MET, UNMET, FAILED = Verdict.MET, Verdict.UNMET, Verdict.FAILED


def asked(said, *criteria, before="Go on."):
    return [Question(before, said, c) for c in criteria]


def rule(server, questions, counts=None, **settings):
    async def run():
        judge = Judge({"model": "m", "url": server.url, **settings})
        try:
            return await judge.rule(questions, counts)
        finally:
            await judge.close()

    return asyncio.run(run())


def verdicts(rulings):
    return [r.verdict for r in rulings]


QUESTIONS = asked("alpha beta", "says alpha", "says gamma", "says beta") + asked("gamma", "says gamma")
RIGHT = [MET, UNMET, MET, MET]


@pytest.mark.parametrize(("mode", "requests"), [("criterion", 4), ("response", 2)])
def test_each_mode_agrees_with_the_code(serve, mode, requests):
    server, counts = serve(), Counts()
    found = rule(server, QUESTIONS, counts, mode=mode)
    assert verdicts(found) == RIGHT
    assert [r.explanation for r in found] == [f"looked for {w}" for w in ("alpha", "gamma", "beta", "gamma")]
    assert (counts.questions, counts.calls, counts.tokens, counts.failed) == (4, requests, 100 * requests, 0)
    assert len(server.bodies) == requests


def test_what_is_sent(serve, monkeypatch):
    monkeypatch.setenv("MY_KEY", "s3cret-word")
    server = serve()
    talk = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": [{"type": "text", "text": "Hi."}]}]
    question = [Question(talk, "hello", "says hello", -3.0)]
    extra = {"chat_template_kwargs": {"enable_thinking": False}}
    rule(server, question, api_key_env="MY_KEY", extra=extra, show_points=True, max_tokens=77, seed=5)
    rule(server, question, keep_system=False, seed=None, structured="none")
    first, second = server.bodies
    assert server.keys == ["Bearer s3cret-word", "Bearer none"]
    assert (first["max_tokens"], first["seed"], first["temperature"]) == (77, 5, 0)
    assert first["chat_template_kwargs"] == {"enable_thinking": False}
    assert first["response_format"]["json_schema"]["schema"]["properties"]["criteria_met"] == {"type": "boolean"}
    assert first["response_format"]["json_schema"]["strict"] is True
    assert "[-3] says hello" in first["messages"][0]["content"]
    assert "system: Be kind.\n\nuser: Hi." in first["messages"][0]["content"]
    assert "response_format" not in second
    assert "seed" not in second
    assert "Be kind." not in second["messages"][0]["content"]
    assert "[-3]" not in second["messages"][0]["content"]


def test_an_account_at_openai_is_told_to_no_other_endpoint(serve, monkeypatch):
    monkeypatch.setenv("OPENAI_ORG_ID", "org-mine")
    monkeypatch.setenv("OPENAI_PROJECT_ID", "project-mine")
    server = serve()
    rule(server, [Question("Hi.", "hello", "says hello")])
    assert len(server.headers) == 1
    assert not {value for value in server.headers[0].values() if value in ("org-mine", "project-mine")}


def test_concurrency_is_bounded_and_used(serve):
    def slowly(n, body):
        time.sleep(0.05)

    server = serve(slowly)
    found = rule(server, asked("w7", *(f"says w{k}" for k in range(24))), concurrency=4)
    assert verdicts(found).count(MET) == 1
    assert server.most == 4


@pytest.mark.parametrize("trouble", [429, 500, 503, 408, (429, {"Retry-After": "0"}), "close", "html"])
def test_trouble_that_passes_is_waited_out(serve, trouble):
    server, counts = serve(lambda n, body: trouble if n < 6 else None), Counts()
    assert verdicts(rule(server, QUESTIONS, counts, concurrency=2)) == RIGHT
    assert counts.calls == 10
    assert counts.failed == 0


@pytest.mark.parametrize(
    ("trouble", "words"),
    [
        (500, "status 500"),
        (429, "status 429"),
        ("close", "cannot be reached"),
        (400, "status 400"),
        ("html", "no choices"),
    ],
)
def test_trouble_that_stays_is_a_failure_and_no_verdict(serve, trouble, words, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_JUDGE_KEY", "s3cret-word")
    server = serve(lambda n, body: trouble)
    found = rule(server, QUESTIONS, retries=2)
    assert verdicts(found) == [FAILED] * 4
    assert all(words in r.explanation for r in found)
    assert all("s3cret-word" not in r.explanation for r in found)
    assert len(server.bodies) == (4 if trouble == 400 else 12)


@pytest.mark.parametrize("status", [401, 403, 404])
def test_a_judge_that_refuses_everybody_is_an_error(serve, status, monkeypatch):
    monkeypatch.setenv("POSTTRAIN_JUDGE_KEY", "s3cret-word")
    server = serve(lambda n, body: status)
    with pytest.raises(JudgeError, match=f"^judge m: status {status}: ") as caught:
        rule(server, QUESTIONS)
    assert "s3cret-word" not in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("trouble", ["hang", "drip"])
def test_a_judge_that_never_ends_costs_its_time_limit(serve, trouble):
    server = serve(lambda n, body: trouble if n == 0 else None)
    assert verdicts(rule(server, QUESTIONS, timeout=0.5)) == RIGHT
    server = serve(lambda n, body: trouble)
    found = rule(server, QUESTIONS, timeout=0.3, retries=1)
    assert verdicts(found) == [FAILED] * 4
    assert found[0].explanation == "no answer within 0.3 s; tried 2 times"


GARBAGE = [
    "I think it meets the criterion.",
    "",
    '{"explanation": "x", "criteria_met": tr',
    '{"explanation": "x", "criteria_met": "true"}',
    '{"1": true}',
    "cut",
]


@pytest.mark.parametrize("mode", ["criterion", "response"])
@pytest.mark.parametrize("garbage", GARBAGE)
def test_garbage_is_asked_about_again_and_never_a_verdict(serve, garbage, mode):
    server = serve(lambda n, body: garbage if body["seed"] == 0 else None)
    assert verdicts(rule(server, QUESTIONS, mode=mode)) == RIGHT
    server = serve(lambda n, body: garbage)
    found = rule(server, QUESTIONS, mode=mode, attempts=2)
    assert verdicts(found) == [FAILED] * 4
    assert all(r.explanation.endswith("; asked 2 times") for r in found)
    (once, *_) = rule(serve(lambda n, body: garbage), QUESTIONS, mode=mode, attempts=1)
    assert once.explanation.endswith("; asked once")
    assert len(server.bodies) == (8 if mode == "criterion" else 4)


def test_a_number_left_out_is_asked_about_alone(serve, judge_server):
    def forgetful(n, body):
        full = judge_server.judged(body)
        return json.dumps({k: v for k, v in full.items() if k != "2"})

    server = serve(forgetful)
    found = rule(server, QUESTIONS[:3], mode="response", attempts=3)
    assert verdicts(found) == RIGHT[:3]  # alone it has number 1
    assert len(server.bodies) == 2


def test_a_lost_judge_is_looked_for_by_one_request_at_a_time(serve):
    server = serve(lambda n, body: "hang")
    found = rule(server, asked("x", *(f"says w{k}" for k in range(40))), timeout=0.2, patience=0.1, concurrency=40)
    assert verdicts(found) == [FAILED] * 40
    assert any("has not answered for 0.1 s" in r.explanation for r in found)
    assert len(server.bodies) < 40 * 3


@pytest.mark.parametrize(("trouble", "why"), [("hang", "no answer within 0.2 s"), (429, "status 429: ")])
@pytest.mark.parametrize("limits", [{"concurrency": 1}, {"concurrency": 8, "requests_per_minute": 12.0}], ids=str)
def test_whatever_many_questions_a_lost_judge_is_given_up_once(serve, trouble, why, limits, monkeypatch):
    """A time limit each, or a turn each at twelve a minute (here 2 s), would add up; tries without end would be for ever."""
    from rewards.judges import limits as module

    monkeypatch.setattr(module, "Window", functools.partial(module.Window, seconds=2.0))
    server = serve(lambda n, body: trouble)
    questions = asked("x", *(f"says w{k}" for k in range(60)))
    found = rule(server, questions, timeout=0.2, patience=0.3, retries=10_000, **limits)
    assert verdicts(found) == [FAILED] * 60
    assert all(r.explanation.startswith(f"the judge has not answered for 0.3 s ({why}") for r in found)
    assert len(server.bodies) < 60


def test_it_comes_back_after_it_was_lost(serve):
    lost = [True]
    server = serve(lambda n, body: "close" if lost[0] else None)

    async def run():
        judge = Judge({"model": "m", "url": server.url, "retries": 2, "patience": 0.01, "concurrency": 1})
        first = await judge.rule(QUESTIONS)
        lost[0] = False
        await asyncio.sleep(0.05)
        return verdicts(first), verdicts(await judge.rule(QUESTIONS))

    assert asyncio.run(run()) == ([FAILED] * 4, RIGHT)


@pytest.mark.parametrize("limits", [{}, {"requests_per_minute": 6000.0}], ids=str)
def test_a_judge_that_is_back_costs_no_verdict(serve, limits):
    """All of a batch is asked at once: those that come while one looks for the judge wait for what it finds."""
    lost = [True]
    server = serve(lambda n, body: 500 if lost[0] else time.sleep(0.1))
    questions = asked("w7", *(f"says w{k}" for k in range(200)))

    async def run():
        judge = Judge({"model": "m", "url": server.url, "retries": 1000, "patience": 0.2, **limits})
        first = await judge.rule(questions[:4])
        await asyncio.sleep(0.05)
        again = await judge.rule(questions[:40])
        tried = len(server.bodies)
        lost[0] = False
        await asyncio.sleep(0.05)
        found = await judge.rule(questions)
        await judge.close()
        return verdicts(first), verdicts(again), tried, verdicts(found)

    first, again, tried, found = asyncio.run(run())
    assert (first, again) == ([FAILED] * 4, [FAILED] * 40)
    assert len(server.bodies) == tried + 200
    assert (found.count(MET), found.count(UNMET)) == (1, 199)


TALK = [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Hi."}]
ANOTHER_VERDICT = [
    {"model": "n"},
    {"mode": "response"},
    {"temperature": 0.5},
    {"top_p": 0.9},
    {"max_tokens": 99},
    {"structured": "none"},
    {"extra": {"presence_penalty": 1.5}},
    {"seed": 1},
    {"seed": None},
    {"show_points": True},
    {"keep_system": False},
]
THE_SAME = [
    {"concurrency": 1},
    {"timeout": 9.0},
    {"retries": 0},
    {"patience": 9.0},
    {"attempts": 1},
    {"api_key_env": "K"},
]


def test_a_kept_verdict_is_of_all_that_it_depends_on(serve, tmp_path, monkeypatch):
    server, cache = serve(), str(tmp_path / "v.sqlite")
    question = Question(TALK, "alpha", "says alpha", 3.0)

    def calls(question=question, url=server, **settings):
        counts = Counts()
        assert verdicts(rule(url, [question], counts, cache=cache, **settings)) == [MET]
        return counts.calls

    assert (calls(), calls()) == (1, 0)
    for settings in ANOTHER_VERDICT:
        assert (calls(**settings), calls(**settings)) == (1, 0), settings
    assert calls(votes=3, temperature=0.5) == 2  # the first of them is known
    assert (calls(votes=3, temperature=0.5, seed=None), calls(votes=3, temperature=0.5, seed=None)) == (3, 0)
    for settings in THE_SAME:
        assert calls(**settings) == 0, settings
    assert calls(url=serve()) == 0
    for changed in (("Ho.", "alpha"), (TALK[:1], "alpha"), (TALK, "alpha "), (TALK, "\ud800alpha")):
        assert calls(Question(*changed, "says alpha", 3.0)) == 1, changed
    assert calls(Question(TALK, "alpha", "Says or says alpha", 3.0)) == 1
    assert calls(Question(TALK, "alpha", "says alpha", 5.0)) == 0  # not shown
    assert calls(Question(TALK, "alpha", "says alpha", 5.0), show_points=True) == 1
    monkeypatch.setattr("rewards.judges.template._ONE", "Answer in JSON.")
    assert calls() == 1


def test_in_one_request_a_verdict_is_also_about_what_stands_beside_it(serve, tmp_path):
    """What a judge says of a criterion may depend on the others that it is shown: kept verdicts are of one list."""
    server, cache = serve(), str(tmp_path / "v.sqlite")
    two, three = asked("alpha", "says alpha", "says beta"), asked("alpha", "says alpha", "says beta", "says gamma")
    bodies = []
    for questions in (two, three, two * 2, three, three[::-1]):
        assert verdicts(rule(server, questions, mode="response", cache=cache))[:1] == [
            MET if questions[0].criterion == "says alpha" else UNMET
        ]
        bodies.append(len(server.bodies))
    assert bodies == [1, 2, 2, 2, 3]
    bodies = []
    for questions in (two, three, three[::-1]):
        rule(server, questions, mode="criterion", cache=cache)
        bodies.append(len(server.bodies) - 3)
    assert bodies == [2, 3, 3]


def test_votes(serve, judge_server):
    def moody(n, body):
        honest = judge_server.judged(body)
        return json.dumps({**honest, "criteria_met": honest["criteria_met"] != (body["seed"] % 3 == 2)})

    server = serve(moody)
    found = rule(server, QUESTIONS, votes=3, temperature=1.0)
    assert verdicts(found) == RIGHT
    assert [r.agreement for r in found] == [pytest.approx(2 / 3)] * 4
    assert len(server.bodies) == 12
    assert found[0].tokens == 300


def test_equal_questions_are_asked_once(serve):
    server = serve()
    assert verdicts(rule(server, QUESTIONS * 5)) == RIGHT * 5
    assert len(server.bodies) == 4


def test_a_call_that_is_cancelled_leaves_nothing_behind(serve, tmp_path):
    server = serve(lambda n, body: "hang" if n >= 2 else None)
    cache = str(tmp_path / "v.sqlite")

    async def run():
        judge = Judge({"model": "m", "url": server.url, "cache": cache, "concurrency": 1})
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(judge.rule(QUESTIONS), 1.5)
        left = len(asyncio.all_tasks()) - 1
        await judge.close()
        return left

    assert asyncio.run(run()) == 0
    after, counts = serve(), Counts()
    assert verdicts(rule(after, QUESTIONS, counts, cache=cache)) == RIGHT
    assert (counts.cached, counts.calls) == (2, 2)


def chat(message, reason="stop", **more):
    """An answer as a server writes it."""
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", **message}}
    return {"id": "x", "object": "chat.completion", "created": 0, "model": "m", "choices": [choice], **more}


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (chat({"content": None, "refusal": "I cannot\nsay."}), "the judge refused: I cannot say.; asked 2 times"),
        (chat({"content": ""}, "content_filter"), "the judge refused: content filter; asked 2 times"),
        (chat({"content": None, "reasoning": "Well,"}), "the answer is empty behind its reasoning; asked 2 times"),
        (chat({"content": None}), "the answer is empty; asked 2 times"),
    ],
)
def test_why_there_is_no_text_is_told(serve, answer, why):
    (found,) = rule(serve(lambda n, body: answer), QUESTIONS[:1], attempts=2)
    assert (found.verdict, found.explanation) == (FAILED, why)


@pytest.mark.parametrize("before", [None, 3, [["user", "Hi."]]])
def test_a_conversation_that_is_none_is_named(serve, before):
    with pytest.raises(ValueError, match=r"^what comes before a response is text or a list of messages, not "):
        rule(serve(), [Question(before, "alpha", "says alpha")])


def test_an_answer_in_parts_is_read(serve):
    parts = [{"type": "text", "text": '{"explanation": "x", '}, {"type": "text", "text": '"criteria_met": true}'}]
    assert verdicts(rule(serve(lambda n, body: chat({"content": parts})), QUESTIONS[:1])) == [MET]


@pytest.mark.parametrize("answer", [chat({}) | {"choices": []}, {"error": {"message": "over quota"}}, {}])
def test_answers_without_an_answer_are_given_up_like_none(serve, answer):
    """They come at once, so that all tries of all questions, each after a pause, would outlast any batch's time."""
    server = serve(lambda n, body: answer)
    found = rule(server, asked("x", *(f"says w{k}" for k in range(60))), retries=10_000, patience=0.3, concurrency=4)
    assert verdicts(found) == [FAILED] * 60
    assert "the judge has not answered for 0.3 s (the answer has no choices" in found[0].explanation
    assert ("over quota" in found[0].explanation) is ("error" in answer)


def test_an_endpoint_that_does_not_count_does_not_pass_the_limit(serve, monkeypatch):
    from rewards.judges import limits

    counted, correct = [], limits.Window.correct
    monkeypatch.setattr(limits.Window, "correct", lambda self, e, n: (correct(self, e, n), counted.append(self._sum)))
    said = json.dumps({"explanation": "x" * 370, "criteria_met": True})
    counts = Counts()
    server = serve(lambda n, body: chat({"content": said}, usage=None))
    rule(server, QUESTIONS[:1], counts, tokens_per_minute=1e6)
    assert counts.tokens == counted[0] > len(said) // 4 + 300  # and the prompt's


def test_a_minute_is_one_for_all_that_ask_the_same_judge(serve, monkeypatch):
    """`posttrain judge check` makes a judge for each of its parts, two rewards of a run one each, and each loop has its own client."""
    from rewards.judges import limits

    monkeypatch.setattr(limits, "Window", functools.partial(limits.Window, seconds=1.0))
    arrived = []
    server = serve(lambda n, body: arrived.append(time.monotonic()))
    for seed in range(3):
        assert verdicts(rule(server, QUESTIONS, seed=seed, requests_per_minute=4.0)) == RIGHT
    assert arrived[4] - arrived[0] > 0.5
    assert arrived[8] - arrived[4] > 0.5
    began = time.monotonic()
    assert verdicts(rule(serve(), QUESTIONS, requests_per_minute=4.0)) == RIGHT
    assert time.monotonic() - began < 0.9


def test_an_endpoint_that_asks_for_no_pause_gets_one(serve, monkeypatch):
    from rewards.judges import client

    monkeypatch.setattr(client, "FIRST", 0.2)
    monkeypatch.setattr(client, "LONGEST", 5.0)
    monkeypatch.setattr(client.random, "uniform", lambda a, b: a)
    began = time.monotonic()
    rule(serve(lambda n, body: (429, {"Retry-After": "0"})), QUESTIONS[:1], retries=3)
    assert time.monotonic() - began >= 0.5 * (0.2 + 0.4 + 0.8)


def test_what_is_null_in_extra_is_not_sent(serve):
    server = serve()
    rule(server, QUESTIONS[:1], extra={"max_tokens": None, "max_completion_tokens": 9, "top_p": None})
    (body,) = server.bodies
    assert not {"max_tokens", "top_p"} & set(body)
    assert (body["max_completion_tokens"], body["temperature"]) == (9, 0)


def test_event_loops_that_ended_are_not_held(serve):
    server, loops = serve(), []
    judge = Judge({"model": "m", "url": server.url})

    async def once(k):
        loops.append(weakref.ref(asyncio.get_running_loop()))
        return verdicts(await judge.rule(asked(f"alpha {k}", "says alpha")))

    for k in range(4):
        assert asyncio.run(once(k)) == [MET]
    gc.collect()
    assert sum(loop() is not None for loop in loops) <= 1


def test_what_the_endpoint_counts_stands_in_for_the_guess(serve, monkeypatch):
    """Guessed at some 1500 tokens each, three of these would fill the minute; they take 100 each."""
    from rewards.judges import limits

    counted, correct = [], limits.Window.correct
    monkeypatch.setattr(limits.Window, "correct", lambda self, e, n: (correct(self, e, n), counted.append(self._sum)))
    rule(serve(), QUESTIONS, tokens_per_minute=1e6, concurrency=1)
    assert counted == [100, 200, 300, 400]
