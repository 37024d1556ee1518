import json

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from rewards import strict

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(st.characters(codec="ascii"), max_size=5),
    lambda v: st.lists(v, max_size=3) | st.dictionaries(st.text("ab<", max_size=2), v, max_size=3),
    max_leaves=8,
)


@given(VALUES)
def test_what_stands_once_is_read_as_ever(value):
    assert strict.from_json(json.dumps(value)) == value
    assert strict.from_yaml(yaml.safe_dump(value)) == value


@pytest.mark.parametrize("text", ['{"a": 1, "a": 1}', '[{"b": {"a": 1, "c": 2, "a": null}}]'])
def test_what_stands_twice_is_refused(text):
    with pytest.raises(ValueError, match=r"^'a' stands twice$"):
        strict.from_json(text)
    with pytest.raises(yaml.YAMLError, match="'a' stands twice"):
        strict.from_yaml(text)


def test_a_merged_key_may_be_replaced():
    text = "- &one {a: 1, b: 2}\n- {<<: *one, a: 3}\n"
    assert strict.from_yaml(text) == yaml.safe_load(text) == [{"a": 1, "b": 2}, {"a": 3, "b": 2}]
