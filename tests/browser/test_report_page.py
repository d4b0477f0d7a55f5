"""The report in a real browser, from a file, with nothing but that file."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from cwai_bench import render
from cwai_bench.model import Report
from cwai_bench.text import LANGS, Lang
from tests.unit.test_render_matrices import ends_of, matrix, with_matrices

pytestmark = pytest.mark.browser

SAMPLES = Path(__file__).resolve().parents[2] / "reports" / "samples"
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


@pytest.fixture(scope="module")
def browser(chromium: Path) -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="no playwright: pip install '.[test]'")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=str(chromium), args=FLAGS)
        yield started
        started.close()


@dataclass
class Visit:
    """An open page, with all that it asked for and complained about."""

    page: Any
    url: str
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def dismiss(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()

    def shown(self, selector: str) -> list[str]:
        return [e.inner_text() for e in self.page.query_selector_all(selector) if e.is_visible()]


Open = Callable[..., contextlib.AbstractContextManager[Visit]]


@pytest.fixture
def visit(browser: Any, tmp_path: Path) -> Open:
    """Opens a report, or a sample by its name; afterwards asserts that the page asked for nothing and complained of
    nothing."""

    @contextlib.contextmanager
    def opened(sample: str | Report, lang: Lang = "en", **context: Any) -> Iterator[Visit]:
        if isinstance(sample, str):
            sample = render.report_from_json((SAMPLES / f"{sample}.json").read_bytes())
        path = tmp_path / f"{sample.run_id}.html"
        path.write_text(render.render(sample, "html", lang), encoding="utf-8")
        own = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | context)
        try:
            page = own.new_page()
            seen = Visit(page, path.as_uri())
            page.on("request", lambda request: seen.requests.append(request.url))
            page.on("console", lambda message: seen.complaints.append(message.text))
            page.on("pageerror", lambda error: seen.complaints.append(str(error)))
            page.on("dialog", seen.dismiss)
            page.goto(path.as_uri())
            yield seen
            assert seen.requests == [seen.url]
            assert seen.complaints == []
        finally:
            own.close()

    return opened


@pytest.mark.parametrize("lang", LANGS)
@pytest.mark.parametrize("sample", ["healthy", "failing", "killed"])
def test_it_opens_in_the_language_asked_for_and_asks_nobody_for_anything(visit: Open, sample: str, lang: Lang) -> None:
    with visit(sample, lang) as seen:
        words = seen.page.inner_text("body")
        own, other = ("Results", "检测结果") if lang == "en" else ("检测结果", "Results")
        assert own in words
        assert other not in words


@pytest.mark.parametrize("javascript", [True, False])
def test_a_host_name_that_is_an_attack_stays_text(visit: Open, javascript: bool) -> None:
    with visit("failing", java_script_enabled=javascript) as seen:
        assert '"><script>alert(1)</script>\\x1b[2J' in seen.page.inner_text("#verdict ~ .leave-out")
        assert seen.page.locator("script").count() == 1


def test_the_language_can_be_switched_and_back(visit: Open) -> None:
    with visit("failing", "en") as seen:
        assert seen.shown("#verdict") == ["Failed"]
        seen.page.click("text=中文")
        assert seen.page.get_attribute("html", "lang") == "zh"
        assert seen.shown("#verdict") == ["不通过"]
        assert "Results" not in seen.page.inner_text("main")
        assert seen.page.get_attribute("#filter", "placeholder").startswith("筛选")
        assert seen.page.get_attribute("[data-language=zh]", "aria-pressed") == "true"
        seen.page.click("text=English")
        assert seen.shown("#verdict") == ["Failed"]


def test_the_image_of_many_pairs_is_shown_and_asks_for_nothing(visit: Open) -> None:
    """The page's policy lets it in: the browser would complain of it otherwise."""
    with visit(with_matrices(matrix(ends_of(40), slow=2))) as seen:
        assert seen.page.locator("image.pixels").count() == 1
        assert "node3/mlx5_0: 196.0 Gb/s" in seen.page.locator("#network svg").last.text_content()
        box = seen.page.locator("image.pixels").bounding_box()
        assert min(box["width"], box["height"]) > 500


def test_items_are_filtered_by_verdict_and_by_words(visit: Open) -> None:
    with visit("failing") as seen:
        every = seen.shown(".item .title")
        assert len(every) == 12
        seen.page.click(".chip[data-status=FAIL]")
        failed = seen.shown(".item .title")
        assert failed == every[:4]
        seen.page.click(".chip[data-status=UNKNOWN]")
        assert len(seen.shown(".item .title")) == 5
        seen.page.fill("#filter", "KERNEL log")
        assert seen.shown(".item .title") == ["Faults in the kernel log"]
        assert seen.page.inner_text("#shown") == "1/12"
        seen.page.fill("#filter", "no such words")
        assert seen.shown(".item .title") == []
        seen.page.fill("#filter", "")
        for status in ("FAIL", "UNKNOWN"):
            seen.page.click(f".chip[data-status={status}]")
        assert seen.shown(".item .title") == every


def test_an_item_opens_to_its_method_criterion_suggestion_and_evidence(visit: Open) -> None:
    with visit("failing") as seen:
        first = seen.page.locator(".item").first
        assert not first.locator(".body").is_visible()
        first.locator("summary").first.click()
        words = first.inner_text()
        for told in (
            "Method",
            "Criterion",
            "Suggestion",
            "cpupower frequency-set",
            "Observed",
            "Expected",
            "cpu0: powersave",
        ):
            assert told in words
        seen.page.click("#open-all")
        assert seen.page.locator(".item[open]").count() == 12
        seen.page.click("#open-all")
        assert seen.page.locator(".item[open]").count() == 0


def test_without_javascript_all_is_there_and_no_dead_control(visit: Open) -> None:
    with visit("failing", "zh", java_script_enabled=False) as seen:
        assert seen.shown("#verdict") == ["不通过"]
        assert seen.shown(".needs-js") == []
        seen.page.locator(".item > summary").first.click()
        assert "处理建议" in seen.page.locator(".item").first.inner_text()


def test_paper_gets_every_item_unfolded(visit: Open) -> None:
    with visit("killed") as seen:
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert seen.page.locator(".item:not([open])").count() == 0
        seen.page.evaluate("dispatchEvent(new Event('afterprint'))")
        assert seen.page.locator(".item[open]").count() == 0


@pytest.mark.parametrize("sample", ["healthy", "failing", "killed"])
@pytest.mark.parametrize("width", [390, 768, 1280])
@pytest.mark.parametrize("lang", LANGS)
def test_nothing_sticks_out_of_the_page(visit: Open, sample: str, width: int, lang: Lang) -> None:
    with visit(sample, lang, viewport={"width": width, "height": 800}) as seen:
        seen.page.click("#open-all")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= width


CONTRAST = """() => {
  const channel = (c) => (c /= 255) <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
  const parse = (text) => text.match(/[\\d.]+/g).map(Number);
  const ground = (e) => {
    for (; e; e = e.parentElement) {
      const c = parse(getComputedStyle(e).backgroundColor);
      if (c.length < 4 || c[3] > 0) return c;
    }
    return [255, 255, 255];
  };
  const low = [];
  for (const e of document.querySelectorAll('body *')) {
    const own = [...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim());
    if (!own || e.closest('svg, script, style') || !e.getClientRects().length) continue;
    const [a, b] = [light(parse(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
    const ratio = (a + 0.05) / (b + 0.05);
    if (ratio < 4.5) low.push(`${ratio.toFixed(2)} ${e.className} ${e.textContent.trim().slice(0, 30)}`);
  }
  return low;
}"""
"""Text whose contrast with its ground is below 4.5:1 (WCAG 2.1, 1.4.3)."""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("sample", ["healthy", "failing", "killed"])
def test_all_text_can_be_read(visit: Open, sample: str, scheme: str) -> None:
    with visit(sample, color_scheme=scheme) as seen:
        seen.page.click("#open-all")
        assert seen.page.evaluate(CONTRAST) == []
        seen.page.evaluate("document.querySelector('h1').style.color = '#777'")
        assert len(seen.page.evaluate(CONTRAST)) == 1  # it would have been seen


def test_headings_do_not_skip_a_level_and_ids_are_unique(visit: Open) -> None:
    with visit("failing") as seen:
        levels = seen.page.evaluate("[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])")
        assert levels[0] == 1
        assert levels.count(1) == 1
        assert all(after - before <= 1 for before, after in itertools.pairwise(levels))
        ids = seen.page.evaluate("[...document.querySelectorAll('[id]')].map((e) => e.id)")
        assert len(ids) == len(set(ids))
        assert seen.page.evaluate(
            "[...document.querySelectorAll('nav a')].every((a) => document.querySelector(a.hash))"
        )


@pytest.mark.parametrize("sample", ["healthy", "failing", "killed"])
def test_paper_is_wide_enough(visit: Open, sample: str) -> None:
    a4 = 718  # 210 mm at 96 per inch, less two margins of 10 mm
    with visit(sample, viewport={"width": a4, "height": 1000}) as seen:
        seen.page.emulate_media(media="print")
        seen.page.evaluate("dispatchEvent(new Event('beforeprint'))")
        assert seen.page.evaluate("document.documentElement.scrollWidth") <= a4
