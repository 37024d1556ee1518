"""YAML text → values: YAML 1.2's scalars, and nothing that surprises."""

import json
import math

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.recipe.text import parse, plain, scalar


def value(text: str):
    return parse(text, "f")[0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1e-6", 1e-6),
        ("1.0e+3", 1000.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("010", 10),
        ("-7", -7),
        ("0x1F", 31),
        ("0o17", 15),
        ("no", "no"),
        ("off", "off"),
        ("yes", "yes"),
        ("12:30", "12:30"),
        ("1_000", "1_000"),
        ("2024-01-01", "2024-01-01"),
        ("true", True),
        ("FALSE", False),
        ("~", None),
        ("", None),
        ("null", None),
        ("'1e-6'", "1e-6"),
        ('"null"', "null"),
        ("inf", "inf"),
        ("ünïcode ☃ 𝔸", "ünïcode ☃ 𝔸"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text, expected):
    got = value(text)
    assert got == expected
    assert type(got) is type(expected)


@given(st.recursive(
    st.none() | st.booleans() | st.integers(-(10**17), 10**17) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="\u2028\u2029\ufeff\ufffe\uffff"), max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(st.characters(codec="ascii", categories=["L", "N"]), min_size=1, max_size=8), inner, max_size=4),
    max_leaves=20,
))  # fmt: skip
def test_json_is_read_as_json(document):
    """JSON is a part of YAML 1.2: an independent writer, the same values."""
    assert value(json.dumps(document, ensure_ascii=False)) == document


@given(st.text(alphabet="0123456789+-.eExobaf_:nulltruefsI~ ", max_size=12))
def test_agrees_with_an_independent_reading_of_the_core_schema(text):
    """Where Python's own float() and int() read an ASCII number without underscores, so do we, and to the same number."""
    text = text.strip()
    try:
        got = scalar(text)
    except ValueError:
        return
    if isinstance(got, float):
        assert got == float(text)
    elif isinstance(got, int) and not isinstance(got, bool):
        assert got == int(text, 0 if text[:2] in ("0x", "0o") else 10)
    elif isinstance(got, str):
        try:
            number = float(text)
        except ValueError:
            return
        assert "_" in text or "inf" in text.lower() or "nan" in text.lower(), f"{text!r} = {number} was read as text"


def test_lines_of_keys_and_items():
    _, lines = parse("a:\n  b: 1\n\n  c:\n    - x\n    -\n      d: 2\n", "f")
    assert lines == {
        ("a",): 1,
        ("a", "b"): 2,
        ("a", "c"): 4,
        ("a", "c", 0): 5,
        ("a", "c", 1): 7,
        ("a", "c", 1, "d"): 7,
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "f:3: a: given twice, first on line 1"),
        ("a: &x 1", "f:1: a: anchor &x is not allowed; use `extends`"),
        ("a: *x", "f:1: a: alias *x is not allowed; write the value out"),
        ("a: !!python/object:os.system x", "f:1: a: tag tag:yaml.org,2002:python/object:os.system is not allowed; write plain values"),
        ("a: !!str 5", "f:1: a: tag tag:yaml.org,2002:str is not allowed; write plain values"),
        ("<<: {a: 1}", "f:1: merge keys (<<) are not allowed; use `extends`"),
        ("a: .inf", "f:1: a: .inf is not allowed; numbers must be finite"),
        ("a: -.INF", "f:1: a: -.INF is not allowed; numbers must be finite"),
        ("a: .nan", "f:1: a: .nan is not allowed; numbers must be finite"),
        ("a: 1e999", "f:1: a: 1e999 is too large for a number"),
        ("a: " + "9" * 5000, "f:1: a: integer of 5000 digits; at most 18 are allowed"),
        ("a: 0x" + "f" * 5000, "f:1: a: integer of more than 18 digits"),
        ("[" * 900, "f:1: nested deeper than 20 levels"),
        ("a: {" * 30, "f:1: nested deeper than 20 levels"),
        ("a: 1\n--- \nb: 2", "f:2: a second document begins here; one is allowed"),
        ("a: b: c", "f:1: not valid YAML: a second `: ` on one line; put the text in quotes"),
        ("a:\n\tb: 1", "f:2: not valid YAML: found character '\\t' that cannot start any token; indent with spaces, and put such text in quotes"),
        ("a: \x00", "f:1: character 0x0 is not allowed in YAML"),
        ('a: "\\ud800"', "f:1: a: half of a surrogate pair; write the character itself"),
        ("? [a, b]\n: 1", "f:1: a key must be plain text (braces in text must be quoted)"),
        ("prompt: {question}: x", None),
    ],
)  # fmt: skip
def test_what_is_refused(text, message):
    with pytest.raises(Mistake) as caught:
        value(text)
    assert "\n" not in str(caught.value)
    if message is not None:
        assert str(caught.value) == message


def test_size_is_bounded():
    with pytest.raises(Mistake, match="larger than 1000000 bytes"):
        value("a: " + "x" * 1_000_001)


@given(st.text(max_size=200) | st.text(alphabet="{}[]:,-?&*!|>'\"%@`#\\ \n\tab0", max_size=60))
def test_any_text_is_read_or_refused_in_one_line(text):
    said = refusal(text)
    assert said is None or (said.startswith("f") and len(said.splitlines()) == 1)


def refusal(text):
    try:
        value(text)
    except Mistake as mistake:
        return str(mistake)
    return None


TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=30)


@given(st.dictionaries(TEXTS, TEXTS, max_size=4))
def test_agrees_with_pyyaml_on_quoted_text(document):
    """PyYAML's own writer, quoting everything: what it wrote is what we read."""
    assert value(yaml.safe_dump(document, allow_unicode=True, default_style='"')) == document


class TestPlain:
    def test_copies_and_turns_tuples_into_lists(self):
        given = {"a": (1, 2.5, None, True), "b": {"c": "x"}}
        copy = plain(given)
        assert copy == {"a": [1, 2.5, None, True], "b": {"c": "x"}}
        assert copy["b"] is not given["b"]

    @pytest.mark.parametrize(
        ("document", "message"),
        [
            ({"a": math.inf}, "recipe: a: inf is not allowed; numbers must be finite"),
            ({"a": math.nan}, "recipe: a: nan is not allowed; numbers must be finite"),
            ({"a": [10**5000]}, "recipe: a.0: integer of more than 18 digits"),
            ({1: 2}, "recipe: keys must be text, got 1"),
            ({"a": {1: 2}}, "recipe: a: keys must be text, got 1"),
            ({"a": object()}, "recipe: a: a object cannot stand in a recipe; give text, a number, true/false, a list or a mapping"),
            ({"a": {"b", "c"}}, "recipe: a: a set cannot stand in a recipe; give text, a number, true/false, a list or a mapping"),
            ({"a": "\ud800"}, "recipe: a: half of a surrogate pair in text"),
        ],
    )  # fmt: skip
    def test_refuses_what_yaml_cannot_say(self, document, message):
        with pytest.raises(Mistake) as caught:
            plain(document)
        assert str(caught.value) == message

    def test_circles_and_explosions_end(self):
        circle: dict = {}
        circle["a"] = circle
        with pytest.raises(Mistake, match="nested deeper"):
            plain(circle)
        wide: list = ["x"]
        for _ in range(15):
            wide = [wide] * 10
        with pytest.raises(Mistake, match="more than 100000 values"):
            plain({"a": wide})
