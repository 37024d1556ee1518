"""What a model or a user wrote is data: on a terminal and in a log it is shown, and commands nothing.

Control sequences can recolour, retitle and rewrite a terminal, marks of direction show a line in another order than it has,
and invisible characters hide text. All of them are shown by their code: `\\x1b[2J`, `\\u202e`.
"""

from __future__ import annotations

import logging
import re
import sys
from types import TracebackType
from typing import Any

_FORMAT = (
    "\u00ad\u0600-\u0605\u061c\u06dd\u070f\u0890-\u0891\u08e2\u180e\u200b\u200e-\u200f\u202a-\u202e\u2060-\u2064"
    "\u2066-\u206f\ufeff\ufff9-\ufffb\U000110bd\U000110cd\U00013430-\U0001343f\U0001bca0-\U0001bca3"
    "\U0001d173-\U0001d17a\U000e0001\U000e0020-\U000e007f"
)
"""Unicode's format characters (category Cf), but for the two joiners that scripts and emoji are written with."""
_REST = "\x7f-\x9f\u2028\u2029\ud800-\udfff" + _FORMAT
_IN_LINES = re.compile(f"[\x00-\x08\x0b-\x1f{_REST}]")
_ON_A_LINE = re.compile(f"[\x00-\x1f{_REST}]")
_IN_JSON = re.compile(f"[{_REST}]")


def clean(text: object) -> str:
    """`text` with everything that would command a terminal shown by its code; tabs and line ends stay."""
    return _IN_LINES.sub(_code, str(text).replace("\r\n", "\n"))


def line(text: object, limit: int | None = None) -> str:
    """`clean`, on one line: line ends and tabs are shown by their codes too. The middle is left out beyond `limit`
    characters (at least 20)."""
    shown = str(text)
    if limit is not None and len(shown) > limit:
        shown = f"{shown[: limit - 12]}...{shown[-9:]}"
    return _ON_A_LINE.sub(_code, shown)


def in_json(text: str) -> str:
    """JSON that parses to the same, with such characters written as JSON's own escapes: a file that can be shown with
    `cat`, and encoded whatever halves of surrogate pairs are in it."""
    return _IN_JSON.sub(_json_code, text)


def _code(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode()


def _json_code(match: re.Match[str]) -> str:
    units = match[0].encode("utf-16-be", "surrogatepass")
    return "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2))


class Record(logging.LogRecord):
    """A line of a log whose message and traceback are `clean`."""

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        if isinstance(self.exc_info, tuple) and self.exc_info[0] is not None:
            # A formatter prints this text if it is there, and makes its own from exc_info if it is not.
            self.exc_text = clean(logging.Formatter().formatException(self.exc_info))

    def getMessage(self) -> str:  # noqa: N802  (logging's name)
        return clean(super().getMessage())


def guard() -> None:
    """Make what this process prints safe and unfailing, in whichever library it is printed.

    Log records of all libraries are `Record`s, exceptions that nobody caught are shown `clean`, and a stream that cannot
    encode a character shows its code instead of failing.
    """
    logging.setLogRecordFactory(Record)
    sys.excepthook = _uncaught
    for stream in (sys.stdout, sys.stderr):
        reconfigure = getattr(stream, "reconfigure", None)
        if reconfigure is not None:
            reconfigure(errors="backslashreplace")


def traceback_of(error: BaseException) -> str:
    """The traceback of an exception as Python prints it, `clean`."""
    import traceback

    return clean("".join(traceback.format_exception(error)))


def _uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    import traceback

    sys.stderr.write(clean("".join(traceback.format_exception(kind, error, trace))))
