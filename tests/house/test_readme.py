"""The README shows the tree and the shelf as they are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def between(start: str, end: str) -> str:
    return README.split(start, 1)[1].split(end, 1)[0]


def test_the_tree_is_the_tree():
    told, above = {}, ""
    for line in between("<!-- tree -->", "<!-- /tree -->").splitlines():
        match = re.match(r"( *)(\S+)/ {2,}(\S.*)", line)
        if not match:
            continue
        indent, name, phrase = match.groups()
        above = name if not indent else above
        told[f"{above}/{name}" if indent else name] = phrase

    def folders(parent: Path) -> set[str]:
        return {p.name for p in parent.iterdir() if p.is_dir() and any(p.rglob("*.py")) and p.name[0] not in "._"}

    shown = {n for n in told if "/" not in n}
    top = {
        p.name for p in ROOT.iterdir() if p.is_dir() and p.name[0] != "." and p.name not in ("runs", "build", "dist")
    }
    assert shown == {n for n in top if not n.endswith(".egg-info")} - {"__pycache__", "evaluations"}
    assert {n.split("/")[1] for n in told if n.startswith("posttrain/")} == folders(ROOT / "posttrain")


def test_every_recipe_is_in_the_table_and_no_other():
    told = set(re.findall(r"\]\(recipes/([\w./-]+\.yaml)\)", between("<!-- recipes", "<!-- /recipes -->")))
    found = {str(p.relative_to(ROOT / "recipes")) for p in (ROOT / "recipes").glob("*.yaml")}
    assert told == found


def test_links_lead_somewhere():
    for target in re.findall(r"\]\(((?!https?://)[^)#]+)\)", README):
        assert (ROOT / target).exists(), target
