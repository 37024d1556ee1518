"""ADP and ATIF rows come back field by field; what breaks their schemas is refused, by name."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from posttrain.data.agents import adp, atif, chat, chat_rows
from posttrain.data.agents.steps import Trajectory
from posttrain.errors import Mistake

TEXT = st.text(max_size=8)
MAYBE = st.none() | TEXT
SOURCE = st.sampled_from(["user", "agent", "environment"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | TEXT,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(TEXT, inner, max_size=2),
    max_leaves=4,
)
NUMBER = st.floats(-1e3, 1e3)
BOX = st.fixed_dictionaries(dict.fromkeys(("x", "y", "width", "height"), NUMBER))
MARK = st.fixed_dictionaries(
    {"element_type": TEXT, "bounding_box": BOX, "text": MAYBE},
    optional={
        "content_description": MAYBE,
        "clickable": st.none() | st.booleans(),
        "editable": st.none() | st.booleans(),
    },
)


def step(kind, needed, optional):
    return st.fixed_dictionaries({"class_": st.just(kind), **needed}, optional=optional)


IMAGE = ({"content": TEXT, "source": SOURCE}, {"annotations": st.none() | st.lists(MARK, max_size=2)})
ACTIONS = {
    "api_action": (
        {"function": st.sampled_from(["look", "send"]), "kwargs": st.dictionaries(TEXT, JSON, max_size=2)},
        {"description": MAYBE},
    ),
    "code_action": (
        {"language": st.sampled_from(["bash", "python", "sql"]), "content": TEXT, "description": MAYBE},
        {},
    ),
    "message_action": ({"content": TEXT}, {"description": MAYBE}),
}
SEEN = {
    "text_observation": ({"content": TEXT, "source": SOURCE}, {"name": MAYBE}),
    "image_observation": IMAGE,
    "web_observation": (
        {
            "html": MAYBE,
            "axtree": MAYBE,
            "url": MAYBE,
            "viewport_size": st.none() | st.lists(st.integers(1, 2000), min_size=2, max_size=2),
            "image_observation": st.none() | step("image_observation", *IMAGE),
        },
        {},
    ),
}
REWARD = {"reward": st.none() | NUMBER}
THOUGHT = {"reasoning_content": MAYBE}


@st.composite
def rows(draw, newest: bool):
    content = []
    for number in range(draw(st.integers(1, 6))):
        extra = REWARD if newest else {}
        thought = THOUGHT if newest else {}
        kind = draw(st.sampled_from([*ACTIONS, *SEEN]))
        if kind in SEEN:
            needed, optional = SEEN[kind]
            # (A call that is not linked may not be followed by an observation in 1.2; linked ones always bring theirs.)
            content.append(draw(step(kind, needed, {**optional, **extra})))
            continue
        needed, optional = ACTIONS[kind]
        made = draw(step(kind, needed, {**optional, **extra, **thought}))
        content.append(made)
        if kind != "message_action":
            seen = draw(st.sampled_from(sorted(SEEN)))
            result = draw(step(seen, SEEN[seen][0], {**SEEN[seen][1], **extra}))
            if newest:
                made["tool_call_id"] = result["tool_call_id"] = f"c{number}"
            content.append(result)
    row = {
        "id": draw(TEXT),
        "content": content,
        "details": draw(st.dictionaries(TEXT, JSON if newest else TEXT, max_size=2)),
    }
    if newest:
        row["schema_version"] = draw(st.sampled_from(adp.VERSIONS))
    return row


@settings(max_examples=80, deadline=None)
@given(rows(newest=False) | rows(newest=True))
def test_adp_comes_back_field_by_field(row):
    assert adp.write(adp.read(row, "row 1")) == row


def bare(value):
    """Without nulls: ATIF does not tell null from absent."""
    if isinstance(value, dict):
        return {k: bare(v) for k, v in value.items() if v is not None}
    return [bare(v) for v in value] if isinstance(value, list) else value


CORPUS = {
    "schema_version": "1.2.0",
    "id": "all kinds",
    "content": [
        {"class_": "text_observation", "content": "go", "source": "user", "name": "ann"},
        {"class_": "web_observation", "html": "<p>", "axtree": "p", "url": "u", "viewport_size": [8, 6], "image_observation": None},
        {"class_": "api_action", "function": "look", "kwargs": {"x": 1}, "description": "why", "tool_call_id": "a", "reward": 0.5},
        {"class_": "image_observation", "content": "a.png", "source": "environment", "tool_call_id": "a"},
        {"class_": "code_action", "language": "bash", "content": "ls", "description": None, "tool_call_id": "b",
         "reasoning_content": "hm"},
        {"class_": "text_observation", "content": "f", "source": "environment", "tool_call_id": "b", "reward": 1.0},
        {"class_": "message_action", "content": "done", "description": "because"},
    ],
    "available_code_languages": ["bash"],
    "details": {"n": 1},
}  # fmt: skip


def test_every_kind_goes_through_atif_too():
    back = adp.write(atif.read(atif.write(adp.read(CORPUS, "row 1")), "row 1"))
    assert bare(back) == bare(CORPUS)


def test_atif_comes_back_with_ids_logprobs_metrics_and_rewards():
    row = {
        "schema_version": "ATIF-v1.7", "session_id": "s", "trajectory_id": "t", "notes": None,
        "agent": {"name": "n", "version": "2", "model_name": "m", "tool_definitions": [{"type": "function", "function": {"name": "f"}}]},
        "steps": [
            {"step_id": 1, "source": "system", "message": "be good"},
            {"step_id": 2, "timestamp": "2026", "source": "user",
             "message": [{"type": "text", "text": "hi"}, {"type": "image", "source": {"path": "a.png"}}]},
            {"step_id": 3, "source": "agent", "message": "", "reasoning_content": "hm", "model_name": "m",
             "tool_calls": [{"tool_call_id": "a", "function_name": "f", "arguments": {"x": 1}},
                            {"tool_call_id": "b", "function_name": "f", "arguments": {}, "extra": {"q": 1}}],
             "observation": {"results": [{"source_call_id": "a", "content": "1"},
                                         {"source_call_id": "b", "content": "2", "extra": {"reward": 1.0}}]},
             "metrics": {"prompt_tokens": 3, "completion_token_ids": [1, 2], "logprobs": [-0.5, -0.1], "cost": 0.1}},
            {"step_id": 4, "source": "agent", "message": "", "llm_call_count": 0, "observation": {"results": [{"content": "late"}]}},
            {"step_id": 5, "source": "agent", "message": "done", "extra": {"reward": 0.5}},
        ],
        "final_metrics": {"total_steps": 5},
    }  # fmt: skip
    read = atif.read(row, "row 1")
    assert atif.write(read) == row
    assert {"metrics.logprobs", "metrics.completion_token_ids", "tools"} <= set(adp.losses(read))
    row["steps"][2]["metrics"]["logprobs"] = [-0.5]
    with pytest.raises(Mistake, match=r"f, row 1: steps\.2\.metrics: 2 completion_token_ids and 1 logprobs"):
        atif.read(row, "f, row 1")


def asked(*steps):
    user = {"class_": "text_observation", "content": "go", "source": "user"}
    return {"schema_version": "1.2.0", "id": "x", "content": [user, *steps], "details": {}}


CALL = {"class_": "code_action", "language": "bash", "content": "ls", "description": None, "tool_call_id": "a"}
BROUGHT = {"class_": "text_observation", "content": "f", "source": "environment", "tool_call_id": "a"}
SAID = {"class_": "message_action", "content": "done"}
MALFORMED = {
    "untagged": (asked({"content": "hello"}), r"content\.1: the step has no `class_`"),
    "wrong tag": (asked({"class_": "MessageAction", "content": "x"}), r"content\.1.*MessageAction.* is none of"),
    "missing observation": (asked(CALL, SAID), r"content\.1\.tool_call_id: the call \"a\" has no observation"),
    "doubled observation": (asked(CALL, BROUGHT, BROUGHT, SAID), r"content\.3\.tool_call_id: content\.2 answers"),
    "user_msg": (asked({**BROUGHT, "tool_call_id": None, "source": "user_msg"}), r"content\.1\.source: "),
    "unknown field": (asked({**SAID, "thoughts": "hm"}), r"content\.1\.thoughts: no such field"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_the_six_malformed_rows_are_refused(case):
    row, said = MALFORMED[case]
    with pytest.raises(Mistake, match=rf"^std\.jsonl, row 7: {said}"):
        adp.read(row, "std.jsonl, row 7")
    body = {k: v for k, v in row.items() if k != "schema_version"}
    origin = {"source": "s", "format": "adp", "schema_version": "1.2.0"}
    with pytest.raises(ValidationError):
        Trajectory.model_validate({**body, "provenance": origin})
    assert Trajectory.model_validate({**body, "content": asked(CALL, BROUGHT, SAID)["content"], "provenance": origin})


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({"schema_version": "ATIF-v1.7", "steps": []}, "this is ATIF-v1.7 .*format: atif"),
        ({**asked(SAID), "schema_version": "2.0.0"}, "'2.0.0' is none of 1.0.0, 1.1.0, 1.2.0"),
        ({"id": "x", "content": [CALL, BROUGHT], "details": {}}, "content.0.tool_call_id: .* in ADP 1; it came with 1.2"),
        ({"id": "x", "conversations": []}, "take the `std` split"),
        ({"id": "x", "content": [{"class_": "code_action", "language": "bash", "content": "ls"}]}, "content.0.description: is missing"),
    ],
)  # fmt: skip
def test_generations_are_told_apart(row, said):
    with pytest.raises(Mistake, match=said):
        adp.read(row, "row 1")
    with pytest.raises(Mistake, match="this is ADP"):
        atif.read(asked(SAID), "row 1")


@settings(max_examples=150, deadline=None)
@given(rows(newest=True))
def test_what_a_chat_loses_is_declared(row):
    """Through a chat and back everything is there, or `losses` says that something is not."""
    there = adp.read(row, "row 1")
    made = chat.write(there)
    back = adp.write(chat_rows.read({"messages": made.messages, "tools": made.tools}, "row 1"))
    if not chat.losses(there):
        assert [said(step) for step in back["content"]] == [said(step) for step in row["content"]]


def said(step):
    """A step without nulls and empty thoughts."""
    return {
        k: v for k, v in step.items() if v is not None and not (k in ("description", "reasoning_content") and not v)
    }


def test_pages_and_rewards_are_declared_lost():
    assert {"web_observation", "reward", "code_action", "details"} <= set(chat.losses(adp.read(CORPUS, "row 1")))
