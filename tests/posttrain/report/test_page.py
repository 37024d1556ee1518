"""The page as a file: complete, self-contained, and inert whatever the model wrote."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from posttrain.errors import Mistake
from posttrain.keys import HIDDEN
from posttrain.report import build, data, head, page, texts
from posttrain.report.run import Evaluation
from posttrain.rundir import RunDir, append_line, read_lines

MakeRun = Callable[..., Path]
ROOT = Path(__file__).resolve().parents[3]


class Reader(HTMLParser):
    """Elements, attributes, and the texts of scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.text = ""
        self._inside = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._inside = tag if tag in self.raw else ""
        if self._inside:
            self.raw[tag].append("")

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside:
            self.raw[self._inside][-1] += data
        else:
            self.text += data


@pytest.fixture(scope="module")
def root(make_run: MakeRun) -> Path:
    path = make_run("arithmetic")
    build(path)
    return path


@pytest.fixture(scope="module")
def html(root: Path) -> str:
    return (root / "report.html").read_bytes().decode("utf-8")


@pytest.fixture(scope="module")
def reader(html: str) -> Reader:
    return Reader(html)


def test_every_text_of_a_model_comes_back_as_it_was(root: Path, reader: Reader, attacks: list[str]) -> None:
    payload = json.loads(reader.raw["script"][0])
    shown = {(r["step"], r["row_id"], r["sample"]): r for r in payload["rows"] if r["source"] == "training"}
    assert len(shown) == 2_000
    seen = set()
    for (step, row_id, sample), row in shown.items():
        record = next(
            r for r in read_lines(RunDir(root).rollout_file(step, 0)) if (r["row_id"], r["sample"]) == (row_id, sample)
        )
        assert row["completion"] == record["completion"]
        assert payload["prompts"][row["prompt"]] == record["prompt"]
        assert row["rewards"] == record["rewards"]
        seen.add(row["completion"])
    assert set(attacks) <= seen


@given(
    st.recursive(
        st.text(st.characters(codec=None)) | st.none() | st.integers(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
    )
)
def test_embedded_json_cannot_leave_its_element(value: object) -> None:
    text = page.embed(value)
    assert json.loads(text) == value
    assert not re.search("[<>&\u2028\u2029]", text)
    text.encode("utf-8")
    assert Reader(f'<script type="application/json">{text}</script>').raw["script"] == [text]


def test_nothing_is_loaded_from_anywhere(html: str, reader: Reader) -> None:
    assert not re.search(
        r"(?i)https?:|//[a-z0-9-]+\.[a-z]|url\(|@import|\bimport\s*\(|fetch\(|XMLHttpRequest|WebSocket|sendBeacon",
        html,
    )
    for tag, attributes in reader.elements:
        assert tag not in (
            "link",
            "img",
            "iframe",
            "object",
            "embed",
            "base",
            "audio",
            "video",
            "image",
            "use",
            "foreignobject",
        ), tag
        assert not {"src", "srcset", "srcdoc", "action", "formaction", "style", "xlink:href"} & set(attributes), (
            tag,
            attributes,
        )
        assert not [name for name in attributes if name.startswith("on")]
        assert attributes.get("href", "#x").startswith("#")


def test_only_the_page_s_own_style_and_script_are_allowed(reader: Reader) -> None:
    assert len(reader.raw["script"]) == 2
    assert len(reader.raw["style"]) == 1
    policy = next(
        a["content"]
        for tag, a in reader.elements
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    )
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    for kind, text in (("style-src", reader.raw["style"][0]), ("script-src", reader.raw["script"][1])):
        assert rules[kind] == f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"
    assert rules["default-src"] == "'none'"
    assert "unsafe" not in policy


def test_the_script_never_makes_markup_of_data() -> None:
    script = "".join(path.read_text() for path in page.HERE.glob("*.js"))
    assert not re.search(
        r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\b|Function\(|DOMParser|createContextualFragment",
        script,
    )
    assert not [path.name for path in page.HERE.glob("*.html") if "|safe" in path.read_text()]


def test_no_secret_is_shown(html: str) -> None:
    assert "sk-very-secret" not in html
    assert html.count(HIDDEN) >= 3
    hidden = texts.hide_in_yaml(
        "a: {api_key: x1, max_tokens: 5}\n  hf_token: 'x2'\npad_token: <pad>\nengine: {with: {password: x3}}\n"
    )
    assert not re.search("x[123]", hidden)
    assert "max_tokens: 5" in hidden
    assert "pad_token: <pad>" in hidden


def test_the_head_of_the_page(reader: Reader) -> None:
    text = " ".join(reader.text.split())
    assert "GRPO, on miniature/arithmetic, with a LoRA adapter of rank 16" in text
    assert "47.3 %" in text.replace("47.3%", "47.3 %")
    assert "44.2 to 50.4 %" in text
    assert "95.7%" in text
    assert "94.5 to 96.9 %" in text
    assert re.search(r"better by \d\d\.\d points \[\+\d+\.\d, \+\d+\.\d\], paired over 10 problems", text)
    assert "512 held-out problems, 4 samples each" in text
    assert "posttrain report" in text
    assert "125 of the 300 steps" in text
    assert "→" not in text


def test_text_of_recipe_and_errors_is_escaped(make_run: MakeRun) -> None:
    root = make_run("failed", steps=2, state="failed")
    reader = Reader(build(root).read_text(encoding="utf-8"))
    assert len(reader.raw["script"]) == 2
    assert "<script>window.pwned = 11</script>" in reader.text  # as text
    assert "<script>window.pwned = 10</script>" in reader.text
    assert "The run stopped" in reader.text


def result(value: float, low: float | None, high: float | None, when: str = "before") -> Evaluation:
    return Evaluation("x", when, 0, "b", {"metrics": {"accuracy": {"value": value, "low": low, "high": high}}})


@pytest.mark.parametrize(
    ("before", "after", "says", "tone"),
    [
        ((0.5, 0.45, 0.55), (0.9, 0.85, 0.95), "up by 40.0 points; the 95 % intervals are disjoint", "good"),
        ((0.9, 0.85, 0.95), (0.5, 0.45, 0.55), "down by 40.0 points; the 95 % intervals are disjoint", "bad"),
        ((0.5, 0.45, 0.55), (0.58, 0.53, 0.63), "intervals overlap", "plain"),
        ((0.5, 0.45, 0.55), (0.6, 0.55, 0.65), "intervals overlap", "plain"),
        ((0.5, None, None), (0.6, 0.55, 0.65), "no intervals to judge it by", "plain"),
    ],
)
def test_what_two_intervals_allow_to_say(before: tuple, after: tuple, says: str, tone: str) -> None:
    text, colour = head.compare(result(*before), result(*after))
    assert says in text
    assert colour == tone


def test_one_side_alone_claims_nothing() -> None:
    assert head.compare(result(0.5, 0.4, 0.6), None) == ("not evaluated after training yet", "plain")
    assert head.compare(None, result(0.5, 0.4, 0.6)) == ("not evaluated before training", "plain")


def test_runs_that_lack_parts_say_so(make_run: MakeRun) -> None:
    bare = Reader(build(make_run("bare", steps=30, rollouts=False, evaluations=False)).read_text()).text
    assert "No evaluation." in bare
    assert "No rollouts" in bare
    assert "Training loss: " in bare
    first = Reader(build(make_run("first", steps=1, state="running")).read_text()).text
    assert "Not evaluated after training yet" in first or "not evaluated after training yet" in first
    assert "running" in first


def test_a_folder_without_a_run_is_a_mistake(tmp_path: Path) -> None:
    with pytest.raises(Mistake, match="holds no run"):
        build(tmp_path)
    with pytest.raises(Mistake, match="no such folder"):
        build(tmp_path / "nowhere")


def test_building_again_replaces_the_page_and_leaves_nothing_behind(make_run: MakeRun) -> None:
    root = make_run("again", steps=2)
    names = {p.name for p in root.iterdir()}
    first = build(root).read_text()
    assert build(root).read_text().replace("\n", "")[:200] == first.replace("\n", "")[:200]
    assert {p.name for p in root.iterdir()} == names | {"report.html"}


def test_large_runs_make_pages_of_bounded_size(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in range(4):
        path = run.rollout_file(step, 0)
        path.parent.mkdir(exist_ok=True)
        path.write_text(
            "".join(
                json.dumps({"row_id": str(i // 8), "sample": i % 8, "completion": "long " * 2_000}) + "\n"
                for i in range(1_600)
            )
        )
    assert build(tmp_path).stat().st_size < 16_000_000


@pytest.mark.parametrize(("state", "shown"), [("stopped", "stopped"), ("failed", "failed"), ("running", "running")])
def test_the_state_that_a_run_says(make_run: MakeRun, state: str, shown: str) -> None:
    found = head.state(data.read(make_run(state, steps=2, state=state)), now=2e9)
    assert found.word == shown


def test_a_killed_run_is_cut_off_and_a_live_one_is_not(make_run: MakeRun) -> None:
    place = RunDir(make_run("killed", steps=2, state="running"))
    process = subprocess.Popen(
        [sys.executable, "-c", "import sys\nfrom pathlib import Path\nfrom posttrain.lock import Lock\n"
         "lock = Lock(Path(sys.argv[1]))\nlock.take()\nprint('ready', flush=True)\nsys.stdin.read()", str(place.lock)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    assert head.state(data.read(place.root), now=2e9).word == "running"
    process.kill()
    process.wait()
    found = head.state(data.read(place.root), now=2e9)
    assert (found.word, found.tone) == ("cut off", "bad")
    assert found.detail.endswith("the same command goes on")


def test_launches_after_the_first_are_told(make_run: MakeRun) -> None:
    place = RunDir(make_run("again", steps=2))
    assert not any("went on" in note for note in data.read(place.root).notes)
    for resumed, anyway in ((None, []), (50, ["a: 1 → 2", "<script>window.pwned = 12</script>"]), (None, [])):
        append_line(place.launches, {"resumed_from": resumed, "anyway": anyway})
    notes = [note for note in data.read(place.root).notes if "went on" in note]
    assert notes == [
        "the run was cut off and went on from step 50 with other settings than before: a: 1 → 2; <script>window.pwned = 12</script>",
        "the run was cut off and went on from the beginning",
    ]
    assert "<script>window.pwned = 12" not in build(place.root).read_text(encoding="utf-8")
