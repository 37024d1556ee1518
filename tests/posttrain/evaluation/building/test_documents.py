"""Documents have names, digests and dates; what is no text is told in one line."""

import hashlib
import os

import pytest

from posttrain.errors import Mistake
from posttrain.evaluation.building.documents import read_documents


def test_files_and_folders(tmp_path):
    folder = tmp_path / "docs"
    (folder / "deep").mkdir(parents=True)
    (folder / "b.md").write_text("---\ntitle: B\ndate: 2025-04-01\n---\nText of b.\n")
    (folder / "a.txt").write_bytes("\ufeffZeile eins\r\nZeile zwei ü\n".encode())
    (folder / "deep" / "c.txt").write_text("Text of c.")
    (folder / "copy.txt").write_text("Text of c.")
    (folder / "blank.txt").write_text(" \n")
    (folder / "photo.png").write_bytes(b"\x89PNG")
    (folder / ".hidden.txt").write_text("hidden")
    os.utime(folder / "a.txt", (1_700_000_000, 1_700_000_000))
    found = read_documents([folder, folder / "deep" / "c.txt"])
    assert [d.id for d in found.documents] == ["a.txt", "b.md", "copy.txt"]
    a, b, _ = found.documents
    assert a.text == "Zeile eins\nZeile zwei ü\n"
    assert a.digest == hashlib.blake2b(a.text.encode(), digest_size=8).hexdigest()
    assert (a.date, a.date_from) == ("2023-11-14", "file")
    assert (b.date, b.date_from) == ("2025-04-01", "front matter")
    assert found.duplicates == [("deep/c.txt", "copy.txt")]
    assert found.left_out == [("blank.txt", "empty"), ("photo.png", "a .png is not read")]


def test_two_folders_may_hold_the_same_name(tmp_path):
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "x.txt").write_text(f"text {name}")
    names = [d.id for d in read_documents([tmp_path / "one", tmp_path / "two"]).documents]
    assert names[0] == "x.txt"
    assert names[1].startswith("x.txt@")


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        ("paper.pdf", b"%PDF", "turn it into text first (pdftotext"),
        ("page.html", b"<p>", "turn it into text first (pandoc"),
        ("odd.xyz", b"x", "turn it into text first (give .txt"),
        ("latin.txt", b"caf\xe9", "not UTF-8"),
        ("image.txt", b"a\0b", "is no text (it holds NUL"),
        ("blank.txt", b"  ", "no documents with text"),
        (None, b"", "no such file or folder"),
    ],
)
def test_one_line_for_what_cannot_be_read(tmp_path, name, content, told):
    place = tmp_path / (name or "missing.txt")
    if name:
        place.write_bytes(content)
    with pytest.raises(Mistake) as caught:
        read_documents([place])
    assert told in str(caught.value)
    assert place.name in str(caught.value)
    assert "\n" not in str(caught.value)
