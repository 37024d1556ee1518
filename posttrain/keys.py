"""API keys and passwords: where they come from, how settings and texts that hold one are told, and how they are not shown.

A key comes from an environment variable, or from the file that the variable of the same name and `_FILE` names. A recipe
is copied into the run and onto its page, so it holds none.
"""

from __future__ import annotations

import re

HIDDEN = "(not shown)"

SECRET = re.compile(
    r"(?i)(?:^|[_.-])(?:api_?key|passw(?:or)?d|secret|credentials?|secret_key|private_key|authorization"
    r"|(?:auth|access|hf|hub|api|bearer)_?token)$|^token$"
)
"""Names of settings whose values are not shown. (`pad_token`, `max_tokens` and `api_key_env` are none.)"""

_SHAPES: tuple[tuple[str, re.Pattern[str]], ...] = (
    ("a Hugging Face token", re.compile(r"\bhf_[A-Za-z0-9]{20,}")),
    ("an API key", re.compile(r"\bsk-[A-Za-z0-9_-]{20,}")),
    ("a GitHub token", re.compile(r"\b(?:gh[opsu]_[A-Za-z0-9]{30,}|github_pat_[A-Za-z0-9_]{30,})")),
    ("an AWS key", re.compile(r"\bA[KS]IA[0-9A-Z]{16}\b")),
    ("a Google key", re.compile(r"\bAIza[0-9A-Za-z_-]{35}")),
    ("a Slack token", re.compile(r"\bxox[abprs]-[0-9A-Za-z-]{10,}")),
    ("a bearer token", re.compile(r"(?i)\bbearer\s+[A-Za-z0-9._~+/-]{16,}")),
    ("a private key", re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----")),
    ("a password in a URL", re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://[^/\s@:]*:[^/\s@]+@")),
    ("a key in a URL", re.compile(r"(?i)\b[a-z][a-z0-9+.-]*://\S*[?&](?:api_?key|key|(?:access_?)?token|password)=[^\s&]+")),
)  # fmt: skip


def is_secret(name: str) -> bool:
    """True if a setting of that name holds a key or a password."""
    return SECRET.search(name) is not None


def kind_of(text: str) -> str | None:
    """`a Hugging Face token`, `a password in a URL`, ... if `text` has the look of one; else None."""
    return next((kind for kind, shape in _SHAPES if shape.search(text)), None)


def hide(text: str) -> str:
    """`text` with everything that looks like a key replaced."""
    for _, shape in _SHAPES:
        text = shape.sub(HIDDEN, text)
    return text


def hide_assignment(word: str) -> str:
    """A `name=value` of a command line; of a secret setting, or one that looks like a key, without its value."""
    name, equals, value = word.partition("=")
    last = re.split(r"[.\s]", name.strip())[-1]
    if equals and (is_secret(last) or kind_of(value) is not None):
        return f"{name}={HIDDEN}"
    return hide(word)
