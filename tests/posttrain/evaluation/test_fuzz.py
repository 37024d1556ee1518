"""Whatever lies where an evaluation should be, `compare` compares or says one line: never a traceback."""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.evaluation.compare import compare
from posttrain.evaluation.compare_text import comparison
from posttrain.evaluation.results import RESULT, SAMPLES, Result

NASTY = [None, True, False, 0, -1, 2, 1.5, 10**30, 10**400, 1e308, float("nan"), float("inf"), "", "x", "\0\x1b[2J\u202e", "\ud800", [], [[]],
         {}, {"a": None}, ["x"] * 3]  # fmt: skip
DEEP = b"[" * 100_000
NESTED = b'{"a":' * 900 + b"1" + b"}" * 900

leaves = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8)
values = st.recursive(
    leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3), max_leaves=5
)
quick = settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))


def sample(i: int) -> dict:
    return {"item_id": f"i{i // 2}", "sample": i % 2, "score": float(i % 3 == 0), "gold": "g", "extracted": "e", "finish": "stop",
            "verdict": "RIGHT", "prompt_tokens": 3, "completion_tokens": 4, "cluster": f"i{i // 2}"}  # fmt: skip


GOOD = {"benchmark": "b", "when": None, "n": 6, "k": 2, "model": "m", "adapter": None, "engine": "e", "sampling": {"temperature": 1.0}, "seed": 0,
        "prompt_style": "s", "prompt_hash": "h", "grader": {"name": "g", "version": "1"}, "metrics": {}, "truncated": 0.0, "no_answer": 0.0,
        "timeouts": 0.0, "aborted": 0.0, "tokens": 6, "prompt_tokens": 6, "seconds": 1.0, "created": "", "versions": {}, "settings": "",
        "notes": []}  # fmt: skip


@pytest.fixture(scope="module")
def pair(tmp_path_factory) -> tuple[Path, Path]:
    """A good evaluation, and a folder for what is done to another one."""
    folder = tmp_path_factory.mktemp("pair")
    for name in ("good", "bad"):
        (folder / name).mkdir()
        write(folder / name)
    compare(folder / "good", folder / "bad")
    return folder / "good", folder / "bad"


def write(folder: Path, result: bytes | None = None, samples: bytes | None = None) -> None:
    lines = b"".join(json.dumps(sample(i)).encode() + b"\n" for i in range(12))
    (folder / RESULT).write_bytes(json.dumps(GOOD).encode() if result is None else result)
    (folder / SAMPLES).write_bytes(lines if samples is None else samples)


def tried(pair: tuple[Path, Path]) -> None:
    for one in (pair, pair[::-1]):
        for anyway in (False, True):
            try:
                found = compare(*one, anyway=anyway)
                assert all(comparison(found, width) for width in (80, None))
            except Mistake as mistake:
                assert len(str(mistake)) < 2000  # noqa: PT017


def dumped(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=True).encode()


@quick
@example(b"")
@example(DEEP)
@example(NESTED)
@example(b"\xff\xfe\x00")
@example(b"1" * 5000)
@given(st.binary(max_size=200))
def test_any_bytes_for_a_result_or_its_samples(pair, content):
    for made in ({"result": content}, {"samples": content}, {"samples": content + b"\n"}):
        write(pair[1], **made)
        tried(pair)


@quick
@given(st.sampled_from(sorted(GOOD)), values)
def test_any_value_for_any_key_of_a_result(pair, key, value):
    write(pair[1], result=dumped({**GOOD, key: value}))
    tried(pair)


@quick
@example("sampling", NESTED)
@example("grader", NESTED)
@example("notes", DEEP)
@given(st.sampled_from(sorted(GOOD)), st.binary(max_size=30))
def test_any_bytes_within_a_result(pair, key, content):
    text = dumped({**GOOD, key: "HERE"}).replace(b'"HERE"', content)
    write(pair[1], result=text)
    tried(pair)


@quick
@given(st.sampled_from(sorted(sample(0))), values, st.integers(0, 11), st.booleans())
def test_any_value_for_any_key_of_a_sample(pair, key, value, at, drop):
    lines = [copy.deepcopy(sample(i)) for i in range(12)]
    lines[at][key] = value
    if drop:
        del lines[at][key]
    write(pair[1], samples=b"".join(dumped(line) + b"\n" for line in lines))
    tried(pair)


@quick
@given(st.data())
def test_flipped_and_missing_bytes(pair, data):
    write(pair[1])
    for name in (RESULT, SAMPLES):
        content = bytearray((pair[1] / name).read_bytes())
        for _ in range(data.draw(st.integers(0, 3))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (pair[1] / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    tried(pair)


@pytest.mark.parametrize("made", [RESULT, SAMPLES])
def test_a_folder_or_nothing_where_a_file_should_be(pair, made, tmp_path):
    bad = tmp_path / "bad"
    bad.mkdir()
    write(bad)
    (bad / made).unlink()
    with pytest.raises(Mistake):
        compare(pair[0], bad)
    (bad / made).mkdir()
    with pytest.raises(Mistake):
        compare(pair[0], bad)


def test_what_is_written_is_read_again(pair, tmp_path):
    write(tmp_path)
    found = Result.read(tmp_path)
    assert {key: getattr(found, key) for key in GOOD} == GOOD


@pytest.mark.parametrize("odd", ["a\0b", "x" * 5000, "nowhere\x1b[2J\udcff"])
def test_odd_names_of_folders(pair, odd):
    with pytest.raises(Mistake):
        compare(pair[0], odd)
