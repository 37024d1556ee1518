"""The page in a real browser: it is opened, clicked through, and what a model wrote does nothing.

Needs Chromium and chromedriver (Debian: `apt-get install chromium chromium-driver`) and the `selenium` package; skips where they are not.
Screenshots go to the folder named by POSTTRAIN_SCREENSHOTS, if it is set, else to the test's own folder.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from posttrain.report import build

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not (CHROMIUM and DRIVER), reason="no Chromium with chromedriver on this machine"),
]
selenium = pytest.importorskip("selenium", reason="the selenium package is not installed")

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--window-size=1280,900",
)  # fmt: skip


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(str(DRIVER)))
    yield driver
    driver.quit()


@pytest.fixture(scope="module")
def root(make_run: Callable[..., Path]) -> Path:
    path = make_run("arithmetic")
    build(path)
    return path


class Page:
    """The page of a run in the browser, and what one does with it."""

    def __init__(self, driver: Any, root: Path, width: int = 1280, scheme: str = "light"):
        self.driver = driver
        driver.execute_cdp_cmd(
            "Emulation.setDeviceMetricsOverride",
            {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600},
        )
        driver.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": scheme}]}
        )
        driver.get((root / "report.html").as_uri())
        driver.execute_script("localStorage.clear()")
        driver.get((root / "report.html").as_uri())

    def all(self, css: str) -> list[Any]:
        return self.driver.find_elements("css selector", css)

    def one(self, css: str) -> Any:
        return self.driver.find_element("css selector", css)

    def click(self, css: str) -> None:
        element = self.one(css)
        self.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", element)
        element.click()

    def column(self, number: int) -> list[str]:
        """Texts of a column of the rows on this page of the table."""
        return self.driver.execute_script(
            "return [...document.querySelectorAll('#rows > tr.row')].map(r => r.cells[arguments[0]].textContent)",
            number,
        )

    def wait(self, condition: Callable[[], Any]) -> None:
        end = time.monotonic() + 10
        while not condition():
            assert time.monotonic() < end, "the page did not follow"
            time.sleep(0.02)

    @property
    def count(self) -> str:
        return self.one("#count").text

    def type(self, css: str, text: str) -> None:
        before = self.count
        self.one(css).send_keys(text)
        self.wait(lambda: self.count != before)

    def clear(self) -> None:
        self.click("#f-clear")
        self.wait(lambda: self.count == "2,080 rows")

    def assert_inert(self) -> None:
        """Nothing that a model, a recipe or an error wrote has run or loaded anything."""
        from selenium.common.exceptions import NoAlertPresentException

        with pytest.raises(NoAlertPresentException):
            self.driver.switch_to.alert.accept()
        assert self.driver.execute_script("return typeof window.pwned") == "undefined"
        assert (
            self.driver.execute_script(
                "return document.querySelectorAll('img, iframe, main script, main style').length"
            )
            == 0
        )
        assert self.driver.execute_script("return performance.getEntriesByType('resource').map(e => e.name)") == []
        assert self.driver.get_log("browser") == []

    def background(self) -> str:
        return self.driver.execute_script("return getComputedStyle(document.body).backgroundColor")

    def picture(self, path: Path) -> None:
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        shot = self.driver.execute_cdp_cmd(
            "Page.captureScreenshot", {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        )
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture
def page(browser: Any, root: Path) -> Page:
    return Page(browser, root)


def test_it_opens_without_a_word_on_the_console(page: Page) -> None:
    assert page.one("h1").text == "arithmetic"
    assert page.count == "2,080 rows"
    assert len(page.all("#rows > tr.row")) == 25
    assert len(page.all("figure.chart")) > 15
    page.assert_inert()


def test_every_row_can_be_opened_and_nothing_in_it_runs(page: Page, attacks: list[str]) -> None:
    for toggle in page.all("#rows .toggle"):
        page.driver.execute_script("arguments[0].click()", toggle)
    assert len(page.all("#rows > tr.detail")) == 25
    script = "return JSON.stringify([...document.querySelectorAll('pre.answer')].map(e => e.textContent))"
    texts = json.loads(page.driver.execute_script(script))
    plain = [a for a in attacks if a.isascii() and a.replace("\n", "").isprintable()]
    assert len(plain) >= 8
    assert set(plain) <= set(texts)
    shown = "".join(texts)
    assert "nul ␀ bell ␇ escape ␛[31m" in shown
    assert "⟦U+202E⟧" in shown
    assert "\u202e" not in shown
    assert "half a pair ⟦U+D83D⟧ and the other ⟦U+DE00⟧" in shown
    assert "𝟛 + 𝟜 = 𝟟 👩‍👩‍👧‍👦" in shown
    page.assert_inert()
    page.click("#rows .toggle")
    assert len(page.all("#rows > tr.detail")) == 24


def test_a_row_shows_everything_about_a_rollout(page: Page) -> None:
    page.click("#f-faults")
    page.wait(lambda: page.count == "1 of 2,080 rows")
    page.click("#rows .snip.said")  # anywhere on the row
    sheet = page.one("#rows .sheet").text
    for piece in ("You add numbers.", "What is 0 + 0?", "system", "user", "correct", "not judged", "advantage", "policy version", "rollouts/000000-r0.jsonl", "<b>no answer</b>"):  # fmt: skip
        assert piece in sheet
    page.click("#rows .sheet button")
    page.wait(lambda: page.count == "8 of 2,080 rows")  # its group
    assert "step 0" in page.one("#group-chip").text
    page.click("#group-chip")
    page.wait(lambda: page.count == "2,080 rows")
    page.assert_inert()


def test_sorting(page: Page) -> None:
    for number, key in ((2, "reward"), (1, "step"), (6, "tokens")):
        for _ in range(2):
            page.click(f'[data-sort="{key}"]')
            way = page.driver.execute_script(
                "return document.querySelector(arguments[0]).closest('th').getAttribute('aria-sort')",
                f'[data-sort="{key}"]',
            )
            values = [float(t.replace(",", "")) for t in page.column(number) if t != "–"]
            assert values == sorted(values, reverse=way == "descending")
    page.click('[data-sort="reward"]')
    page.click("#last")
    assert page.column(2)[-1] == "–"  # what has no reward is last, either way
    page.click('[data-sort="reward"]')
    page.click("#last")
    assert page.column(2)[-1] == "–"


def test_filters(page: Page) -> None:
    from selenium.webdriver.support.ui import Select

    page.type("#f-text", "ALERT(2)")
    assert all("alert(2)" in text for text in page.column(7))
    page.clear()

    Select(page.one("#f-right")).select_by_value("wrong")
    page.wait(lambda: page.count != "2,080 rows")
    assert set(page.column(4)) == {"✕ wrong"}
    Select(page.one("#f-finish")).select_by_value("length")
    page.wait(lambda: set(page.column(5)) == {"length"})
    page.clear()

    page.type("#f-step-min", "290")
    assert all(int(step) >= 290 for step in page.column(1))
    page.clear()
    page.type("#f-reward-min", "0.5")
    page.type("#f-reward-max", "1.05")
    assert all(0.5 <= float(reward) <= 1.055 for reward in page.column(2))  # shown in three digits
    page.clear()

    Select(page.one("#f-source")).select_by_visible_text("evaluation after: arithmetic")
    page.wait(lambda: page.count == "40 of 2,080 rows")
    page.clear()
    page.type("#f-text", "nothing says this anywhere")
    assert page.one("#no-rows").is_displayed()
    page.assert_inert()


def test_paging(page: Page) -> None:
    from selenium.webdriver.support.ui import Select

    assert page.one("#page").text == "page 1 of 84"
    assert not page.one("#previous").is_enabled()
    page.click("#next")
    assert page.one("#page").text == "page 2 of 84"
    page.click("#last")
    assert page.one("#page").text == "page 84 of 84"
    assert not page.one("#next").is_enabled()
    assert len(page.all("#rows > tr.row")) == 2_080 - 83 * 25
    Select(page.one("#per-page")).select_by_visible_text("100")
    page.wait(lambda: page.one("#page").text == "page 1 of 21")
    assert len(page.all("#rows > tr.row")) == 100
    page.click("#last")
    page.click("#previous")
    assert page.one("#page").text == "page 20 of 21"
    page.click("#first")
    assert page.one("#page").text == "page 1 of 21"


def test_charts_tell_their_values_to_pointer_and_keys(page: Page) -> None:
    from selenium.webdriver import ActionChains
    from selenium.webdriver.common.keys import Keys

    frame = page.one('[data-chart="evaluation"]')
    page.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", frame)
    ActionChains(page.driver).move_to_element(frame.find_element("css selector", ".plot")).perform()
    tip = frame.find_element("css selector", ".tip")
    assert tip.is_displayed()
    assert "step" in tip.text
    frame.send_keys(Keys.END)
    assert "step 300" in tip.text
    assert "95.7 % [94.5 %, 96.9 %]" in tip.text
    frame.send_keys(Keys.ARROW_LEFT)
    assert "step 200" in tip.text
    frame.send_keys(Keys.HOME)
    assert "47.3 % [44.2 %, 50.4 %]" in frame.get_attribute("aria-label")
    frame.send_keys(Keys.ESCAPE)
    assert not tip.is_displayed()
    page.assert_inert()


def test_the_table_works_by_keyboard_alone(page: Page) -> None:
    from selenium.webdriver.common.keys import Keys

    toggle = page.one("#rows .toggle")
    toggle.send_keys(Keys.ENTER)
    assert toggle.get_attribute("aria-expanded") == "true"
    toggle.send_keys(Keys.SPACE)
    assert toggle.get_attribute("aria-expanded") == "false"
    page.one('[data-sort="tokens"]').send_keys(Keys.ENTER)
    assert page.one('[data-sort="tokens"]').find_element("xpath", "..").get_attribute("aria-sort") == "descending"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_light_and_dark(browser: Any, root: Path, scheme: str, tmp_path: Path) -> None:
    page = Page(browser, root, scheme=scheme)
    grounds = {"light": "rgb(246, 246, 243)", "dark": "rgb(18, 20, 23)"}
    assert page.background() == grounds[scheme]
    page.picture(Path(os.environ.get("POSTTRAIN_SCREENSHOTS", tmp_path)) / f"report-{scheme}.png")
    page.click("#theme")
    other = "dark" if scheme == "light" else "light"
    assert page.background() == grounds[other]
    assert page.one("#theme").get_attribute("aria-pressed") == str(other == "dark").lower()
    page.driver.refresh()
    assert page.background() == grounds[other]  # remembered
    page.driver.execute_script("localStorage.clear()")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: Any, root: Path, scheme: str) -> None:
    """WCAG contrast of the colours of text, by its own formula: 4.5 for text, 3 for faint labels and curves."""
    page = Page(browser, root, scheme=scheme)
    names = ["ground", "card", "ink", "soft", "faint", "accent", "good", "bad", *(f"s{i}" for i in range(1, 9))]
    colour = dict(zip(names, page.driver.execute_script(
        "const s = getComputedStyle(document.documentElement); return arguments[0].map(n => s.getPropertyValue('--' + n).trim())", names
    ), strict=True))  # fmt: skip

    def light(value: str) -> float:
        channels = [int(value[i : i + 2], 16) / 255 for i in (1, 3, 5)]
        r, g, b = (c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels)
        return 0.2126 * r + 0.7152 * g + 0.0722 * b

    def contrast(one: str, two: str) -> float:
        low, high = sorted((light(colour[one]), light(colour[two])))
        return (high + 0.05) / (low + 0.05)

    for ground in ("ground", "card"):
        weak = {
            n: round(contrast(n, ground), 2)
            for n in ("ink", "soft", "faint", "accent", "good", "bad")
            if contrast(n, ground) < 4.5
        }
        assert weak == {}, ground
    assert {n: round(contrast(n, "card"), 2) for n in names[8:] if contrast(n, "card") < 3} == {}


@pytest.mark.parametrize(("width", "scheme"), [(390, "light"), (390, "dark"), (768, "light")])
def test_on_a_narrow_screen_nothing_sticks_out(
    browser: Any, root: Path, width: int, scheme: str, tmp_path: Path
) -> None:
    page = Page(browser, root, width=width, scheme=scheme)
    page.driver.execute_script(
        "document.querySelector('#rows .toggle').click(); document.querySelectorAll('details').forEach(d => d.open = true)"
    )
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
    page.picture(Path(os.environ.get("POSTTRAIN_SCREENSHOTS", tmp_path)) / f"report-{width}-{scheme}.png")
    page.assert_inert()


@pytest.fixture(scope="module")
def rubrics(make_run: Callable[..., Path]) -> Path:
    path = make_run("rubrics", steps=3, evaluations=False, rubrics=True)
    build(path)
    return path


def test_a_rollouts_rubric_is_read_criterion_by_criterion(browser: Any, rubrics: Path) -> None:
    """Samples come in order: in row 0 the unwanted thing is there, in row 3 the judge has failed."""
    page = Page(browser, rubrics)
    assert page.all("#rows .points")[0].text == "-2 of 11 points".replace("-", "−")
    assert page.all("#rows .points")[3].text == "10 of 11 points ⚠ 1 without a verdict"
    for i in (0, 3):
        page.driver.execute_script("arguments[0].click()", page.all("#rows .toggle")[i])
    first, fourth = page.all("#rows .sheet")
    lines = [[c.text for c in row.find_elements("css selector", "td")] for row in first.find_elements("css selector", ".criteria tbody tr")]  # fmt: skip
    assert [(verdict, worth) for verdict, worth, _ in lines] == [
        ("✕ unmet", "0 of 8"),
        ("✓ met", "2 of 2"),
        ("✕ present", "−5 of −5"),
        ("✓ met", "1 of 1"),
    ]
    assert "by code: equal" in lines[0][2]
    assert "axis:accuracy" in lines[0][2]
    assert "agreement 100 %" in lines[1][2]
    assert "shown in the scaffold" in lines[3][2]
    told = first.text
    for piece in ("−2 of 11 points = −0.1818", "2 of 3 wanted criteria met, 1 undesirable present", "4 criteria shown to the sampler (ratio 1, 48 tokens)", "own.characters", "turns"):  # fmt: skip
        assert piece in told
    told = fourth.text
    for piece in ("✓ absent", "⚠ no verdict", "– of 1", "10 of 11 points: no score, for want of verdicts", "not decided by judge: HTTP 503 </td><script>", "1 criterion shown to the sampler (ratio 0.25, 12 tokens)"):  # fmt: skip
        assert piece in told
    seen = [row.text for row in fourth.find_elements("css selector", ".criteria tbody tr") if "shown in the scaffold" in row.text]  # fmt: skip
    assert len(seen) == 1
    assert "The sum is right." in seen[0]
    page.assert_inert()


def test_rollouts_without_a_verdict_can_be_picked_and_criteria_reached_by_keys(browser: Any, rubrics: Path) -> None:
    from selenium.webdriver.common.keys import Keys

    page = Page(browser, rubrics)
    page.click("#f-undecided")
    page.wait(lambda: page.count == "6 of 48 rows")
    page.one("#rows .toggle").send_keys(Keys.ENTER)
    box = page.one("#rows .criteria-box")
    page.driver.execute_script("arguments[0].previousElementSibling.scrollIntoView()", box)
    answer = page.one("#rows pre.answer")
    page.driver.execute_script("arguments[0].focus()", answer)
    answer.send_keys(Keys.TAB)
    assert page.driver.switch_to.active_element == box
    assert box.get_attribute("aria-label") == "criteria of rubric"
    page.assert_inert()


@pytest.mark.parametrize(("width", "scheme"), [(1280, "dark"), (390, "light"), (390, "dark")])
def test_a_rubric_fits_its_screen(browser: Any, rubrics: Path, width: int, scheme: str, tmp_path: Path) -> None:
    page = Page(browser, rubrics, width=width, scheme=scheme)
    for i in (0, 3, 9):
        page.driver.execute_script("arguments[0].click()", page.all("#rows .toggle")[i])
    page.driver.execute_script("document.querySelectorAll('details').forEach(d => d.open = true)")
    assert page.driver.execute_script("return document.documentElement.scrollWidth") <= width
    wide = "return [...document.querySelectorAll('.criteria-box')].filter(b => b.scrollWidth > b.clientWidth).length"
    assert page.driver.execute_script(wide) == 0
    page.picture(Path(os.environ.get("POSTTRAIN_SCREENSHOTS", tmp_path)) / f"rubric-{width}-{scheme}.png")
    page.assert_inert()


@pytest.mark.parametrize(
    "options",
    [
        {"steps": 1, "state": "running"},
        {"steps": 30, "evaluations": False, "state": "failed"},
        {"steps": 30, "rollouts": False},
        {"steps": 30, "rollouts": False, "evaluations": False},
    ],
    ids=["first step", "no evaluation", "sft", "sft without evaluation"],
)
def test_runs_that_lack_parts_open_as_quietly(
    browser: Any, make_run: Callable[..., Path], options: dict[str, Any]
) -> None:
    root = make_run("part", **options)
    build(root)
    page = Page(browser, root)
    assert page.one("h1").text == "part"
    page.assert_inert()


def test_the_policy_stops_a_script_that_got_in(page: Page) -> None:
    """The second wall: even markup that reaches the document cannot run."""
    page.driver.execute_script(
        "const s = document.createElement('script'); s.textContent = 'window.pwned = 99'; document.body.append(s);"
        "const d = document.createElement('div'); d.innerHTML = '<img src=x onerror=\"window.pwned = 98\">'; document.body.append(d);"
    )
    time.sleep(0.3)
    assert page.driver.execute_script("return typeof window.pwned") == "undefined"
    said = [entry["message"] for entry in page.driver.get_log("browser")]
    assert any("Content Security Policy" in message for message in said)
