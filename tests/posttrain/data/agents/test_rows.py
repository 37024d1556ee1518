"""From trajectories to rows: roles, gates, mixes, pairs."""

from __future__ import annotations

import json

import pytest

from posttrain.data.agents import adp, atif, chat, chat_rows, mix
from posttrain.data.agents.pairs import preferences
from posttrain.data.agents.turns import sft
from posttrain.errors import Mistake


def row(name, *, command="ls", found="f", said="done", reward=None, thought="Look."):
    steps = [
        {"class_": "text_observation", "content": "go", "source": "user"},
        {"class_": "code_action", "language": "bash", "content": command, "description": thought, "tool_call_id": "a"},
        {"class_": "text_observation", "content": found, "source": "environment", "tool_call_id": "a"},
        {"class_": "message_action", "content": said},
    ]
    if reward is not None:
        steps[-1]["reward"] = reward
    return {"schema_version": "1.2.0", "id": name, "content": steps, "details": {}}


def written(path, rows):
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return str(path)


def test_roles_and_train_flags():
    made = chat.write(adp.read(row("x"), "row 1"))
    assert [m["role"] for m in made.messages] == ["user", "assistant", "tool", "assistant"]
    assert made.train == [0, 1, 0, 1]
    assert made.messages[1]["tool_calls"][0]["function"] == {"name": "execute_bash", "arguments": {"command": "ls"}}
    assert made.messages[2]["tool_call_id"] == made.messages[1]["tool_calls"][0]["id"]
    text = chat.as_text(made)
    assert [m["role"] for m in text.messages] == ["system", "user", "assistant", "user", "assistant"]
    assert text.train == [0, 0, 1, 0, 1]


def test_calls_without_ids_are_answered_by_what_follows():
    old = {k: v for k, v in row("x").items() if k != "schema_version"}
    for step in old["content"]:
        step.pop("tool_call_id", None)
    assert [m["role"] for m in chat.write(adp.read(old, "row 1")).messages] == [
        "user",
        "assistant",
        "tool",
        "assistant",
    ]


def test_a_chat_says_what_it_loses():
    web = {
        "class_": "web_observation",
        "html": "<p>",
        "axtree": None,
        "url": None,
        "viewport_size": None,
        "image_observation": None,
    }
    whole = row("x", reward=1.0)
    whole["content"].insert(1, web)
    assert {"web_observation", "reward", "code_action"} <= set(chat.losses(adp.read(whole, "row 1")))


def test_gates_count_and_the_mix_is_stored(tmp_path, capsys):
    endless = row("b")
    endless["content"].pop()
    good = written(tmp_path / "good.jsonl", [row("a"), endless, row("c", thought=None)])
    big = written(tmp_path / "big.jsonl", [row(f"n{i}") for i in range(20)])
    rows = sft(
        sources=[{"path": good, "weight": 2, "licence": "MIT"}, {"path": big, "name": "huge"}],
        cap=0.6,
        mix_file=str(tmp_path / "mix.json"),
    )
    stored = json.loads((tmp_path / "mix.json").read_text())["sources"]
    assert stored["good"]["rejected"] == {"no proper end": 1}
    assert stored["good"]["thought_share"] == pytest.approx(2 / 3)
    assert (len(stored["good"]["drawn"]), len(stored["huge"]["drawn"])) == (4, 6)
    assert len(rows) == 20
    assert len({one["row_id"] for one in rows}) == 20
    assert {(one["source"], one["licence"], one["weight"]) for one in rows} == {
        ("good", "MIT", 2),
        ("huge", None, 1.0),
    }
    said = capsys.readouterr().err
    assert "good: 3 trajectories, 1 left out (1 no proper end); 67% of calls with a thought (below 80%)" in said
    with pytest.raises(Mistake, match="least_thoughts is 80%"):
        sft(good, least_thoughts=0.8)


def test_multipliers_of_the_paper():
    drawn = mix.draw({"orca": 1046100, "swe": 500, "one": 7}, {"orca": 0.001, "swe": 3}, None, 0)
    assert {name: len(ids) for name, ids in drawn.items()} == {"orca": 1047, "swe": 1500, "one": 7}
    assert len(set(drawn["orca"])) == 1047
    with pytest.raises(Mistake, match="with 2 sources one has at least 50%"):
        mix.capped({"a": 1, "b": 2}, 0.4)


def test_the_papers_mix_adds_up_to_what_it_trained_on():
    """Appendix C's multipliers on the sizes of its sets: 28.0 k rows without the web, 20.7 k of it; Orca is 83 % of all there is."""
    coding = {"agentinstruct": 1900, "codefeedback": 66400, "codeact": 7100, "nebius": 13400, "openhands": 200, "orca": 1046100,
              "swegym": 500, "swesmith": 5000}  # fmt: skip
    web = {"gobrowse": 9500, "mind2web": 1000, "nnetnav_live": 5000, "nnetnav_wa": 4200, "synatra": 99900}
    weights = {"agentinstruct": 2, "codefeedback": 0.1, "nebius": 0.2, "orca": 0.001, "swegym": 3, "synatra": 0.01}
    for sizes, rows in ((coding, 28.0), (web, 20.7)):
        drawn = mix.draw(sizes, weights, None, 0)
        assert sum(map(len, drawn.values())) / 1000 == pytest.approx(rows, abs=0.05)
    every = coding | web
    assert every["orca"] / sum(every.values()) == pytest.approx(0.83, abs=0.005)
    capped = mix.draw(every, {}, 0.25, 0)
    assert max(map(len, capped.values())) <= 0.25 * sum(map(len, capped.values()))


def test_faults_name_file_row_and_field(tmp_path):
    bad = row("b")
    bad["content"][3]["thoughts"] = "x"
    path = written(tmp_path / "std.jsonl", [row("a"), bad])
    with pytest.raises(Mistake, match=r"std\.jsonl, row 2: content\.3\.thoughts: no such field"):
        sft(path)


def test_pairs_are_of_one_context_and_the_worse_step_is_rejected(tmp_path):
    path = written(
        tmp_path / "std.jsonl",
        [row("a", reward=1.0), row("b", command="rm", found="e", reward=0.0), row("c", said="no", reward=0.25)],
    )
    rows = preferences(path)
    assert [(one["margin"], one["rejected"][0]["content"]) for one in rows][1] == (0.75, "no")
    assert '"rm"' in rows[0]["rejected"][0]["content"]
    assert rows[0]["margin"] == pytest.approx((1.0 + 0.25) / 2)  # two trajectories go through the better first step
    assert rows[0]["prompt"][-1] == {"role": "user", "content": "go"}
    assert "tool_response" in rows[1]["prompt"][-1]["content"]
    with pytest.raises(Mistake, match="no pair"):
        preferences(path, margin=2.0)


def test_chats_are_read_and_their_flags_kept():
    tools = [{"type": "function", "function": {"name": "look", "parameters": {"type": "object"}}}]
    call = {"id": "a", "type": "function", "function": {"name": "look", "arguments": '{"x": 1}'}}
    messages = [
        {"role": "system", "content": "be good"},
        {"role": "user", "content": "go"},
        {"role": "assistant", "content": None, "tool_calls": [call, {**call, "id": "b"}], "weight": 0},
        {"role": "tool", "tool_call_id": "a", "content": "1"},
        {"role": "tool", "tool_call_id": "b", "content": "2"},
        {"role": "assistant", "content": "done", "train": True},
    ]
    made = chat.write(chat_rows.read({"messages": messages, "tools": tools}, "row 1"))
    assert [m["role"] for m in made.messages] == [m["role"] for m in messages]
    assert made.train == [0, 0, 0, 0, 0, 1]
    assert made.tools == tools
    assert [c["function"]["arguments"] for c in made.messages[2]["tool_calls"]] == [{"x": 1}, {"x": 1}]
    messages.pop(4)
    with pytest.raises(Mistake, match=r'row 1: content\.3.tool_call_id: the call "b" has no observation'):
        chat_rows.read({"messages": messages}, "row 1")
    messages[2]["tool_calls"][0]["function"]["arguments"] = "{"
    with pytest.raises(Mistake, match=r"row 1: messages\.2\.tool_calls\.0\.function\.arguments: not JSON"):
        chat_rows.read({"messages": messages}, "row 1")


def test_context_that_was_copied_is_not_trained_on():
    said = [
        {"source": "user", "message": "go"},
        {"source": "agent", "message": "1"},
        {"source": "agent", "message": "2"},
    ]
    steps = [{"step_id": i, **step} for i, step in enumerate(said, 1)]
    given = {"schema_version": "ATIF-v1.7", "session_id": "s", "agent": {"name": "n", "version": "1"}, "steps": steps}
    assert chat.write(atif.read(given, "row 1")).train == [0, 1, 1]
    steps[1]["is_copied_context"] = True
    assert chat.write(atif.read(given, "row 1")).train == [0, 0, 1]
