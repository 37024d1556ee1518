"""Text that would command a terminal is shown by its code, wherever it is printed from."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain import terminal

ROOT = Path(__file__).resolve().parents[2]
ANY = st.text(st.characters(codec=None))
JOINERS = "\u200c\u200d"


def test_exactly_what_unicode_calls_control_or_format_is_shown_by_its_code():
    changed = {chr(i) for i in range(sys.maxunicode + 1) if terminal.line(chr(i)) != chr(i)}
    hidden = {
        c
        for c in map(chr, range(sys.maxunicode + 1))
        if unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp") and c not in JOINERS
    }
    assert hidden <= changed
    assert {unicodedata.category(c) for c in changed - hidden} <= {"Cn", "Mn"}  # given out by a later Unicode


@given(ANY)
def test_what_is_cleaned_commands_nothing_and_can_be_encoded(text):
    shown = terminal.clean(text)
    shown.encode("utf-8")
    assert all(c in "\n\t" + JOINERS or unicodedata.category(c) not in ("Cc", "Cf", "Cs") for c in shown)
    assert terminal.clean(shown) == shown
    assert len(terminal.line(text).splitlines()) <= 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[2J\x1b]0;owned\x07", "\\x1b[2J\\x1b]0;owned\\x07"),
        ("\x9b31mred", "\\x9b31mred"),
        ("rm -rf /\rls      ", "rm -rf /\\rls      "),
        ("windows\r\nline\tend\n", "windows\nline\tend\n"),
        ("\u202ecod.exe", "\\u202ecod.exe"),
        ("\U000e0041 unseen", "\\U000e0041 unseen"),
        ("half \ud83d pair", "half \\ud83d pair"),
        ("日本語 👩‍👧 \\boxed{𝟟}", "日本語 👩‍👧 \\boxed{𝟟}"),
    ],
)
def test_examples(text, shown):
    assert terminal.clean(text) == shown


@given(st.recursive(ANY, lambda x: st.lists(x, max_size=3) | st.dictionaries(ANY, x, max_size=3), max_leaves=8))
def test_json_means_the_same_and_shows_nothing_raw(value):
    text = terminal.in_json(json.dumps(value, ensure_ascii=False))
    assert json.loads(text.encode()) == json.loads(json.dumps(value))
    assert not any(unicodedata.category(c) in ("Cc", "Cs") or c in "\u202e\u2028" for c in text)


def test_a_megabyte_is_cleaned_in_one_go():
    assert terminal.clean("a\x1b" * 500_000) == "a\\x1b" * 500_000
    assert len(terminal.line("x" * 1_000_000, 100)) == 100


def python(code: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-c", code], env={"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin", **env},
                          capture_output=True, check=False)  # fmt: skip


def test_logs_of_any_library_and_uncaught_exceptions_are_clean():
    ended = python(
        "import logging, threading\n"
        "from posttrain import terminal\n"
        "terminal.guard()\n"
        "logging.getLogger('any.library').warning('server said %s', '\\x1b[31mred\\u202e')\n"
        "try:\n    raise ValueError('inner \\x1b[2J')\n"
        "except ValueError:\n    logging.getLogger('other').exception('it failed \\x9b')\n"
        "raise RuntimeError('outer \\x1b]0;t\\x07 \\ud800')\n"
    )
    assert ended.returncode == 1
    told = ended.stderr.decode()
    assert "server said \\x1b[31mred\\u202e" in told
    assert "it failed \\x9b" in told
    assert "ValueError: inner \\x1b[2J" in told
    assert "RuntimeError: outer \\x1b]0;t\\x07 \\ud800" in told
    assert not any(c in told for c in "\x1b\x9b\u202e\x07")


def test_a_stream_that_cannot_show_a_character_shows_its_code():
    ended = python("from posttrain import terminal; terminal.guard(); print('日本 \\ud800')", PYTHONIOENCODING="ascii")
    assert ended.returncode == 0
    assert ended.stdout == b"\\u65e5\\u672c \\ud800\n"


def test_records_keep_what_formatters_need(caplog):
    before = logging.getLogRecordFactory()
    try:
        terminal.guard()
        logging.getLogger("x").warning("%d of %s", 3, "four\x1b")
    finally:
        logging.setLogRecordFactory(before)
    assert caplog.messages == ["3 of four\\x1b"]
