"""Whatever lies in the folder of a run, the page is written, and is a page: no bytes in it give a traceback."""

from __future__ import annotations

import copy
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from posttrain.cli import main
from posttrain.errors import Mistake
from posttrain.report import build

FILES = (
    "recipe.yaml", "resolved.json", "environment.json", "plan.json", "status.json", "metrics.jsonl", "faults.jsonl",
    "rollouts/000000-r0.jsonl", "evaluation/before-arithmetic/result.json", "evaluation/before-arithmetic/samples.jsonl",
)  # fmt: skip
NASTY = [None, True, False, 0, -1, 1.5, 10**30, 10**400, -(10**400), 1e308, -1e308, 5e-324, float("nan"), float("inf"), "", "x", "</script><b>",
         "\0\x1b[2J\u202e", "\ud800", "a" * 50_000, [], [[]], [None], {}, {"a": None}, {"</script>": "\ud800"}, ["x"] * 3]  # fmt: skip
NESTED = b'{"a":' * 900 + b"1" + b"}" * 900
leaves = st.sampled_from(NASTY) | st.integers() | st.floats() | st.text(st.characters(codec=None), max_size=8)
values = st.recursive(
    leaves, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=4), x, max_size=3), max_leaves=5
)
quick = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


@pytest.fixture(scope="module")
def clean(make_run: Callable[..., Path]) -> Path:
    root = make_run("fuzzed", steps=3, rubrics=True)
    for path in (root / "rollouts").glob("*.jsonl"):  # short texts: there is much to write again and again
        lines = [json.loads(line) for line in path.read_text().splitlines()[:4]]
        path.write_text("".join(json.dumps({**line, "completion": "x"}) + "\n" for line in lines))
    return root


@pytest.fixture(scope="module")
def folder(clean: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return Path(shutil.copytree(clean, tmp_path_factory.mktemp("fuzz") / "run"))


def is_a_page(root: Path) -> None:
    html = build(root).read_bytes().decode("utf-8")
    assert html.startswith("<!doctype html>")
    assert html.rstrip().endswith("</html>")
    assert html.count("</script>") == html.count("<script") == 2
    payload = re.search(r'<script type="application/json"[^>]*>(.*?)</script>', html, re.S)
    assert payload is not None
    json.loads(payload[1])
    assert not re.search(
        "[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]", html.replace(payload[1], "")
    )


def restored(clean: Path, folder: Path, name: str) -> None:
    shutil.copyfile(clean / name, folder / name)


@pytest.mark.parametrize("name", FILES)
@quick
@example(b"")
@example(b"[" * 100_000)
@example(NESTED)
@example(NESTED + b"\n")
@example(b'{"step": 1e308, "phase": "train", "loss": 1' + b"0" * 4000 + b"}\n")
@example(b"\xff\xfe\x00\n\xff")
@given(st.binary(max_size=200))
def test_any_bytes_for_any_file(clean, folder, name, content):
    try:
        for written in (content, (clean / name).read_bytes() + content):
            (folder / name).write_bytes(written)
            is_a_page(folder)
    finally:
        restored(clean, folder, name)


@pytest.mark.parametrize("name", [name for name in FILES if name != "recipe.yaml"])
@quick
@given(st.data())
def test_any_value_for_any_key(clean, folder, name, data):
    lines = (clean / name).read_text().splitlines() if name.endswith("l") else [(clean / name).read_text()]
    records = [json.loads(line) for line in lines]
    for _ in range(data.draw(st.integers(1, 3))):
        holder = records[data.draw(st.integers(0, len(records) - 1))]
        while True:
            key = data.draw(st.sampled_from(sorted(holder)) | st.text(max_size=3) if holder else st.text(max_size=3))
            inner = holder.get(key)
            if not isinstance(inner, dict) or data.draw(st.booleans()):
                break
            holder = inner
        holder[key] = copy.deepcopy(data.draw(values))
    (folder / name).write_text("".join(json.dumps(record) + "\n" for record in records))
    try:
        is_a_page(folder)
    finally:
        restored(clean, folder, name)


@quick
@given(st.data())
def test_flipped_and_missing_bytes(clean, folder, data):
    for name in data.draw(st.sets(st.sampled_from(FILES), min_size=1)):
        content = bytearray((clean / name).read_bytes())
        for _ in range(data.draw(st.integers(0, 5))):
            content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
        (folder / name).write_bytes(content[: data.draw(st.integers(0, len(content)))])
    try:
        is_a_page(folder)
    finally:
        for name in FILES:
            restored(clean, folder, name)


@pytest.mark.parametrize("name", FILES)
def test_a_folder_where_a_file_should_be_or_nothing(clean, tmp_path, name):
    root = Path(shutil.copytree(clean, tmp_path / "run"))
    (root / name).unlink()
    is_a_page(root)
    (root / name).mkdir()
    is_a_page(root)
    (root / name).rmdir()
    os.mkfifo(root / name)
    is_a_page(root)
    (root / name).unlink()
    (root / name).symlink_to("/dev/zero")
    is_a_page(root)


def test_names_of_files_that_no_run_gave(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path / "run"))
    for odd in ("rollouts/9" * 30, "rollouts/٣-r1.jsonl", "rollouts/99999999999999999999-r0.jsonl", "rollouts/x\udcff-r0.jsonl",
                "rollouts/<b>-r0.jsonl"):  # fmt: skip
        try:
            (root / odd).parent.mkdir(parents=True, exist_ok=True)
            (root / odd).write_text('{"row_id": "r", "completion": "c"}\n')
        except (OSError, NotADirectoryError):
            continue
    for odd in ("<script>-b", "x\udcff-b", "step-99999999999-b"):
        (root / "evaluation" / odd).mkdir()
        shutil.copyfile(root / "evaluation/before-arithmetic/result.json", root / "evaluation" / odd / "result.json")
    is_a_page(root)


def test_a_line_of_a_megabyte_and_a_million_short_ones(clean, tmp_path):
    root = Path(shutil.copytree(clean, tmp_path / "run"))
    record = json.loads((root / "rollouts/000000-r0.jsonl").read_text().splitlines()[0])
    with (root / "rollouts/000000-r0.jsonl").open("a") as file:
        for text in ("<script>" * 125_000, "\u202e" * 300_000, "\0" * 200_000, "\ud800" * 200_000, "\n" * 1_000_000):
            file.write(json.dumps({**record, "completion": text, "sample": len(text)}) + "\n")
    is_a_page(root)
    assert (root / "report.html").stat().st_size < 2_000_000


def test_the_command_says_one_line(tmp_path, capsys):
    (tmp_path / "status.json").mkdir()
    assert main(["report", str(tmp_path)]) in (0, 2)
    for odd in ("a\0b", "x" * 5000, "nowhere\x1b[2J"):
        assert main(["report", odd]) == 2
        told = capsys.readouterr().err
        assert len(told.splitlines()) == 1
        assert "\x1b" not in told
    with pytest.raises(Mistake):
        build(tmp_path / "nothing")
