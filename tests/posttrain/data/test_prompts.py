"""Prompts: templates that mean what they say, names that last, messages that are well formed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.data.prompts import Shaper, Template, name_rows, rename
from posttrain.errors import Mistake
from posttrain.recipe.schema import Source

TEXT = st.text(max_size=30)
USER = {"role": "user", "content": "q"}
SYSTEM = {"role": "system", "content": "s"}
SAID = {"role": "assistant", "content": "a"}


def shaped(row, **source):
    return Shaper(Source(path="x.json", **source), "data.train").shape(row, "id", 7)


def complaint(row, **source) -> str:
    with pytest.raises(Mistake) as caught:
        shaped(row, **source)
    assert "\n" not in str(caught.value)
    return str(caught.value)


class TestTemplate:
    @given(TEXT, TEXT, TEXT, TEXT)
    def test_values_go_in_and_doubled_braces_come_out_single(self, before, value, between, other):
        def doubled(text: str) -> str:
            return text.replace("{", "{{").replace("}", "}}")

        template = Template(f"{doubled(before)}{{a}}{doubled(between)}{{b c}}", "w")
        assert template.fill({"a": value, "b c": other}, 1) == before + value + between + other

    def test_braces_in_a_value_are_not_columns(self):
        assert Template("{a}", "w").fill({"a": "{b} {{c}} {"}, 1) == "{b} {{c}} {"

    def test_values_that_are_not_text(self):
        assert Template("{a} {b}", "w").fill({"a": 3, "b": 2.5}, 1) == "3 2.5"

    @pytest.mark.parametrize("text", ["\\boxed{}", "{0}", "{a:>5}", "{a!r}", "{", "}", "{a", "a}", "{{a}"])
    def test_anything_else_is_refused(self, text):
        with pytest.raises(Mistake, match=r"^w: [^\n]+$"):
            Template(text, "w")

    @given(st.text(alphabet="{}ab:!.[]0 ", max_size=12))
    def test_whatever_the_text_it_is_a_template_or_one_line(self, text):
        said = ""
        try:
            Template(text, "w").fill({"a": 1, "b": 2, "ab": 3}, 1)
        except Mistake as mistake:
            said = str(mistake)
        assert "\n" not in said

    @pytest.mark.parametrize("text", ["{a.__class__}", "{a[0]}"])
    def test_nothing_is_looked_up_inside_a_value(self, text):
        with pytest.raises(Mistake, match="no column"):
            Template(text, "w").fill({"a": "x"}, 1)

    def test_a_missing_or_empty_column_names_itself_and_the_row(self):
        with pytest.raises(Mistake, match=r'no column "qestion".*did you mean "question".*row 4'):
            Template("{qestion}", "w").fill({"question": "x"}, 4)
        with pytest.raises(Mistake, match='"a" is empty in row 4'):
            Template("{a}", "w").fill({"a": None}, 4)


class TestRename:
    def test_renamed_swapped_and_the_rest_kept(self):
        rows = [{"a": 1, "b": 2, "c": 3}]
        assert rename(rows, {"x": "a"}, "w") == [{"b": 2, "c": 3, "x": 1}]
        assert rename(rows, {"a": "b", "b": "a"}, "w") == [{"c": 3, "a": 2, "b": 1}]
        assert rename(rows, {"x": "a", "y": "a"}, "w") == [{"b": 2, "c": 3, "x": 1, "y": 1}]
        assert rename(rows, {"a": "b"}, "w") == [{"c": 3, "a": 2}]
        assert rows == [{"a": 1, "b": 2, "c": 3}]

    def test_a_missing_column(self):
        with pytest.raises(Mistake, match=r'w\.columns\.x: no column "anser"; .*did you mean "answer"'):
            rename([{"answer": 1}], {"x": "anser"}, "w")


class TestNames:
    def test_they_depend_on_content_alone(self):
        first = name_rows([{"a": 1, "b": "x"}, {"a": 2, "b": "x"}], "s", "w")
        assert len(set(first)) == 2
        assert name_rows([{"b": "x", "a": 2}, {"b": "x", "a": 1}], "s", "w") == first[::-1]
        assert all(name.startswith("s:") for name in first)

    def test_equal_rows_are_told_apart(self):
        names = name_rows([{"a": 1}] * 3, "s", "w")
        assert len(set(names)) == 3
        assert names[1:] == [f"{names[0]}#2", f"{names[0]}#3"]

    def test_own_names_are_kept_and_must_differ(self):
        assert name_rows([{"row_id": 5}, {"row_id": "x"}], "s", "w") == ["5", "x"]
        with pytest.raises(Mistake, match='rows 1 and 2 have the same row_id "5"'):
            name_rows([{"row_id": 5}, {"row_id": "5"}], "s", "w")

    def test_they_are_the_same_in_every_process(self):
        """A fixed value: another hash, or one salted by the process, would break pairing across runs."""
        assert name_rows([{"question": "1+1", "answer": 2}], "s", "w") == ["s:7cf75ec43f3f3972"]

    @given(st.dictionaries(st.text(max_size=5), st.one_of(st.floats(), st.binary(), st.text(), st.none()), max_size=4))
    def test_any_content_has_a_name(self, row):
        row.pop("row_id", None)
        assert name_rows([row], "s", "w") == name_rows([dict(row)], "s", "w")


class TestShape:
    def test_a_template_becomes_a_users_turn(self):
        assert shaped({"q": "1+1", "answer": 2}, prompt="What is {q}?") == {
            "row_id": "id", "prompt": [{"role": "user", "content": "What is 1+1?"}], "q": "1+1", "answer": 2,
        }  # fmt: skip

    def test_a_system_turn_comes_first(self):
        assert shaped({"q": "q"}, prompt="{q}", system="s")["prompt"] == [SYSTEM, USER]

    def test_plain_text(self):
        assert shaped({"q": "q"}, prompt="{q}", chat=False)["prompt"] == "q"
        assert shaped({"prompt": "q"}, chat=False)["prompt"] == "q"

    def test_the_sources_own_prompt(self):
        assert shaped({"prompt": "q"})["prompt"] == [USER]
        assert shaped({"prompt": [USER]})["prompt"] == [USER]
        assert shaped({"prompt": [SYSTEM, USER, SAID, USER]})["prompt"] == [SYSTEM, USER, SAID, USER]
        assert shaped({"prompt": "old", "q": "q"}, prompt="{q}")["prompt"] == [USER]

    def test_keys_that_only_another_row_has_are_dropped(self):
        assert shaped({"prompt": [{**USER, "name": None}]})["prompt"] == [USER]

    def test_completions(self):
        assert shaped({"prompt": "q", "a": "a"}, completion="{a}")["completion"] == [SAID]
        assert shaped({"prompt": "q", "a": "a"}, completion="{a}", chat=False)["completion"] == "a"
        assert shaped({"prompt": "q", "completion": "a"})["completion"] == [SAID]
        assert shaped({"prompt": "q", "completion": [SAID]})["completion"] == [SAID]

    def test_a_whole_conversation_is_a_prompt_and_its_last_answer(self):
        made = shaped({"messages": [SYSTEM, USER, SAID, USER, SAID]})
        assert made == {"row_id": "id", "prompt": [SYSTEM, USER, SAID, USER], "completion": [SAID]}

    def test_pairs(self):
        other = {"role": "assistant", "content": "b"}
        assert shaped({"prompt": "q", "chosen": "a", "rejected": "b"}) == {
            "row_id": "id", "prompt": [USER], "chosen": [SAID], "rejected": [other],
        }  # fmt: skip
        repeated = {"prompt": "q", "chosen": [USER, SAID], "rejected": [USER, other]}
        for system in (None, "s"):
            made = shaped(repeated, system=system)
            assert (made["chosen"], made["rejected"]) == ([SAID], [other])
        assert shaped({"prompt": "q", "chosen": "a", "rejected": "b"}, chat=False)["chosen"] == "a"

    @pytest.mark.parametrize(
        ("row", "source", "says"),
        [
            ({"q": 1}, {}, "row 7 has no `prompt`"),
            ({}, {"prompt": "{q}"}, 'no column "q"'),
            ({"prompt": [USER]}, {"chat": False}, "chat is false"),
            ({"prompt": "q"}, {"chat": False, "system": "s"}, "has no system turn"),
            ({"prompt": [SYSTEM, USER]}, {"system": "s"}, "a system turn of its own"),
            ({"prompt": [USER, SAID]}, {}, "ends with an assistant turn"),
            ({"prompt": []}, {}, "must be text or a list of messages"),
            ({"prompt": 5}, {}, "must be text or a list of messages"),
            ({"prompt": ["q"]}, {}, "needs `role` and `content`"),
            ({"prompt": [{"role": "user"}]}, {}, "needs `role` and `content`"),
            ({"messages": [USER]}, {}, "do not end with an assistant"),
            ({"prompt": "q", "chosen": [{"role": "user", "content": "z"}, SAID]}, {}, "starts with a user turn"),
            ({"prompt": "q", "completion": [SAID]}, {"chat": False}, "must be text"),
            ({"prompt": "q", "completion": 5}, {}, "must be text or a list"),
            ({"prompt": "q"}, {"prompt": "\\boxed{}"}, "data.train.prompt"),
            ({"prompt": "q"}, {"completion": "{a"}, "data.train.completion"),
        ],
    )
    def test_mistakes(self, row, source, says):
        assert says in complaint(row, **source)
