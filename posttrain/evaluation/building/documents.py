"""Documents: plain text with a stable name, a digest and a date."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from posttrain.errors import Mistake

READ = (".txt", ".md", ".markdown", ".rst")
CONVERT = {
    ".pdf": "pdftotext FILE.pdf FILE.txt",
    ".html": "pandoc FILE.html -t plain -o FILE.txt",
    ".htm": "pandoc FILE.htm -t plain -o FILE.txt",
    ".docx": "pandoc FILE.docx -t plain -o FILE.txt",
    ".epub": "pandoc FILE.epub -t plain -o FILE.txt",
}
"""Not read: what a converter makes of them decides what the offsets of citations mean, so the text comes first."""


@dataclass(frozen=True, slots=True)
class Document:
    """One text. `text` is the file as it is (line ends as `\\n`): offsets of citations count its characters."""

    id: str
    """The path as given, or relative to the folder that was given; with the digest if two would have the same."""
    text: str
    digest: str
    """First 16 hex digits of the BLAKE2b digest of the text in UTF-8."""
    date: str
    """ISO date: a `date:` in the front matter, else the day that the file was last changed."""
    date_from: str
    """`front matter` or `file`."""


@dataclass(frozen=True, slots=True)
class Found:
    """What is at the places that were given."""

    documents: list[Document]
    duplicates: list[tuple[str, str]]
    """(left out, the same text as): asked twice, they would count twice."""
    left_out: list[tuple[str, str]]
    """(file, why) of files in folders that are no text; a file that is named itself must be one."""


def read_documents(places: Sequence[str | Path]) -> Found:
    """The documents in files and folders (with their subfolders; hidden ones left out), in the order of their names.

    Raises:
        Mistake: nothing there, a named file of another kind, one that is not UTF-8, or no document with text at all.
    """
    documents: list[Document] = []
    duplicates: list[tuple[str, str]] = []
    left_out: list[tuple[str, str]] = []
    seen: dict[str, str] = {}
    names: set[str] = set()
    files: set[Path] = set()
    for file, name, named in _files(places):
        if file.resolve() in files:
            continue
        files.add(file.resolve())
        kind = file.suffix.lower()
        if kind not in READ:
            why = f"a {kind or 'file without an ending'} is not read"
            if named:
                mend = CONVERT.get(kind, f"give {', '.join(READ)}")
                raise Mistake(f"{file}: {why}; turn it into text first ({mend})")
            left_out.append((name, why))
            continue
        text = _text(file)
        if "\0" in text:
            raise Mistake(f"{file}: is no text (it holds NUL characters); leave it out, or turn it into text first")
        if not text.strip():
            left_out.append((name, "empty"))
            continue
        digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()
        if digest in seen:
            duplicates.append((name, seen[digest]))
            continue
        if name in names:
            name = f"{name}@{digest[:8]}"
        names.add(name)
        seen[digest] = name
        date, source = _date(text, file)
        documents.append(Document(name, text, digest, date, source))
    if not documents:
        told = "; ".join(f"{name}: {why}" for name, why in left_out[:3])
        raise Mistake(
            f"{', '.join(map(str, places))}: no documents with text ({told or 'nothing there'}); give {', '.join(READ)} "
            "files or folders of them"
        )
    return Found(documents, duplicates, left_out)


def _files(places: Iterable[str | Path]) -> Iterator[tuple[Path, str, bool]]:
    """(file, name, named by the user itself)."""
    for place in places:
        path = Path(place).expanduser()
        if path.is_file():
            yield path, path.as_posix(), True
        elif path.is_dir():
            for file in sorted(path.rglob("*")):
                inside = file.relative_to(path)
                if file.is_file() and not any(part.startswith(".") for part in inside.parts):
                    yield file, inside.as_posix(), False
        else:
            raise Mistake(f"{place}: no such file or folder (looked in {Path.cwd()})")


def _text(file: Path) -> str:
    try:
        # (A byte order mark is no character of the text.)
        return file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise Mistake(
            f"{file}: not UTF-8 text ({error.reason} at byte {error.start}); write it as UTF-8 (iconv -t UTF-8)"
        ) from error
    except OSError as error:
        raise Mistake(f"{file}: cannot be read ({error.strerror})") from error


_FRONT = re.compile(r"\A---\n(.*?)\n(?:---|\.\.\.)(?:\n|\Z)", re.DOTALL)
_DATE = re.compile(r"^date:\s*[\"']?(\d{4}-\d{2}-\d{2})", re.MULTILINE)


def _date(text: str, file: Path) -> tuple[str, str]:
    if (front := _FRONT.match(text)) and (found := _DATE.search(front[1])):
        return found[1], "front matter"
    return datetime.fromtimestamp(file.stat().st_mtime, UTC).date().isoformat(), "file"
