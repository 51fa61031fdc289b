"""The page in a browser: no errors, nothing fetched; filter, sort, pages and pictures work, also by the keyboard."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import radioloader as rl
from tests.overview.conftest import HOSTILE, Made, voxels

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_ARGUMENTS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    found = next((path for name in _NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(
            f"needs a Chromium, and none of {', '.join(_NAMES)} is on the PATH; install one with the system's packages (Debian: apt-get "
            "install chromium)"
        )
    sync_api = pytest.importorskip(
        "playwright.sync_api", reason="needs playwright; install it with: pip install 'radioloader[dev]'"
    )
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=_ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture
def visit(browser: Any) -> Iterator[Callable[..., Any]]:
    """``visit(path)`` opens a page; at the end there must have been no message, error or request."""
    said: list[str] = []
    contexts = []

    def open_page(path: Path, **options: Any) -> Any:
        context = browser.new_context(viewport={"width": 1400, "height": 900}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"error: {error}"))
        page.on(
            "request",
            lambda request: None if request.url.startswith(("data:", path.as_uri())) else said.append(request.url),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("#status:not(:empty)")
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert said == []


@pytest.fixture(scope="module")
def of_planted(planted: Made, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return rl.report(planted.uri, tmp_path_factory.mktemp("browser")).path


@pytest.fixture(scope="module")
def of_many(make_store: Callable[..., Made], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 small subjects, whose age falls as their number grows."""
    part = (slice(2, 14), slice(4, 16), slice(2, 12))
    volumes = {}
    for number in range(30):
        image, label = voxels(number)
        volumes[f"s{number}"] = (image[part] + number, label[part], np.eye(4))
    meta = "subject_id\tage\n" + "".join(f"s{n}\t{99 - n if n != 7 else ''}\n" for n in range(30))
    return rl.report(make_store(volumes, meta).uri, tmp_path_factory.mktemp("many")).path


def column(page: Any, label: str) -> list[str]:
    """The texts of a column as they are shown."""
    texts: list[str] = page.evaluate(
        """(label) => {
            const table = document.getElementById("table");
            const at = [...table.tHead.rows[0].cells].findIndex((cell) => cell.firstChild.textContent === label);
            return [...table.tBodies[0].rows].map((row) => row.cells[at].textContent);
        }""",
        label,
    )
    return texts


def sort_by(page: Any, label: str) -> None:
    page.locator("#table thead button").filter(has_text=re.compile(f"^{label}$")).click()


def widths(page: Any) -> list[int]:
    """Natural widths of the shown pictures, once they are decoded."""
    found: list[int] = page.evaluate(
        """async () => {
            const images = [...document.querySelectorAll("#table img")];
            await Promise.all(images.map((image) => image.decode()));
            return images.map((image) => image.naturalWidth);
        }"""
    )
    return found


def test_pictures_load(visit: Callable[..., Any], of_planted: Path) -> None:
    page = visit(of_planted)
    found = widths(page)
    assert len(found) == 24
    assert min(found) > 100
    assert page.locator("#table img").first.get_attribute("alt").startswith("Axial, coronal and sagittal plane of ")


def test_hostile_texts_run_nothing(visit: Callable[..., Any], of_planted: Path) -> None:
    page = visit(of_planted)
    assert page.title() == "Cohort store"
    assert HOSTILE in column(page, "Subject")
    assert page.evaluate("document.querySelectorAll('#table b').length") == 0


def test_filter(visit: Callable[..., Any], of_planted: Path) -> None:
    page = visit(of_planted)
    assert page.locator("#status").inner_text() == "Rows 1 to 24 of 24"
    page.locator("#odd").check()
    odd = column(page, "Subject")
    assert "twin" in odd
    assert "s05" not in odd
    assert page.locator("#status").inner_text() == f"Rows 1 to {len(odd)} of {len(odd)}, filtered from 24"
    page.get_by_label("Find").fill("ORIENTATION las")
    assert column(page, "Subject") == ["turned"]
    page.get_by_label("Find").fill("no such thing")
    assert page.locator("#status").inner_text() == "No row, filtered from 24"
    page.get_by_label("Find").fill("")
    sort_by(page, "What is odd")
    assert column(page, "Subject")[0] == "spaced"  # with four reasons
    page.locator("#odd").uncheck()
    assert len(column(page, "Subject")) == 24


def test_sort(visit: Callable[..., Any], of_many: Path) -> None:
    page = visit(of_many)
    page.get_by_label("Rows a page").select_option("100")
    sort_by(page, "Subject")
    assert column(page, "Subject") == [f"s{number}" for number in range(30)]  # s2 before s10
    sort_by(page, "age")
    ages = column(page, "age")
    assert ages[-1] == ""  # what is missing is last
    assert [int(age) for age in ages[:-1]] == sorted(99 - n for n in range(30) if n != 7)
    assert page.locator("#table th[aria-sort]").get_attribute("aria-sort") == "ascending"
    sort_by(page, "age")
    assert [int(age) for age in column(page, "age")[:-1]] == sorted((99 - n for n in range(30) if n != 7), reverse=True)
    assert page.locator("#table th[aria-sort]").get_attribute("aria-sort") == "descending"
    sort_by(page, "What is odd")
    assert page.locator("#table th[aria-sort]").get_attribute("aria-sort") == "descending"
    sort_by(page, "Mean")
    means = [float(text) for text in column(page, "Mean")]
    assert means == sorted(means)


def test_pages(visit: Callable[..., Any], of_many: Path) -> None:
    page = visit(of_many)
    first = column(page, "Subject")
    assert len(first) == 25
    assert page.locator("#back").get_attribute("aria-disabled") == "true"
    page.locator("#back").dispatch_event("click")
    assert column(page, "Subject") == first
    page.locator("#next").focus()
    page.keyboard.press("Enter")
    second = column(page, "Subject")
    assert page.locator("#status").inner_text() == "Rows 26 to 30 of 30"
    assert len(widths(page)) == 5
    assert len(set(first + second)) == 30
    assert page.locator("#next").get_attribute("aria-disabled") == "true"
    assert page.evaluate("document.activeElement.id") == "next"  # the keyboard keeps its place
    assert page.locator("#page").inner_text() == "Page 2 of 2"
    page.locator("#back").click()
    assert column(page, "Subject") == first


def test_columns_can_be_chosen(visit: Callable[..., Any], of_many: Path) -> None:
    page = visit(of_many)
    headings = page.locator("#table thead th")
    assert "Volume" not in headings.all_inner_texts()
    page.get_by_text("Columns", exact=True).click()
    page.get_by_label("Volume", exact=True).check()
    assert column(page, "Volume")[0] == "s0_T1w"
    page.keyboard.press("Escape")
    assert page.evaluate("document.getElementById('choose').open") is False


def test_the_keyboard_is_enough(visit: Callable[..., Any], of_many: Path) -> None:
    page = visit(of_many)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.textContent") == "Skip to the table of volumes"
    page.keyboard.press("Enter")
    for _ in range(30):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "age":
            break
    page.keyboard.press("Enter")
    assert column(page, "age")[0] == "70"
    assert page.evaluate("document.activeElement.textContent") == "age"  # the focus stays
    page.keyboard.press("Enter")
    assert column(page, "age")[0] == "99"
    for _ in range(10):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.className") == "picture":
            break
    page.keyboard.press("Enter")
    dialog = page.locator("#dialog")
    assert dialog.is_visible()
    assert page.locator("#dialog-h").inner_text() == "s0, T1w"
    assert "Window" in dialog.inner_text()
    page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert page.evaluate("document.activeElement.className") == "picture"


def test_the_dialog_has_a_legend(visit: Callable[..., Any], of_planted: Path) -> None:
    page = visit(of_planted)
    row = page.locator("#table tbody tr").filter(has_text="s05")
    row.locator(".picture").click()
    assert page.locator("#legend li").all_inner_texts() == ["seg 1", "seg 2"]
    colours = page.locator("#legend .swatch").evaluate_all(
        "squares => squares.map((square) => getComputedStyle(square).backgroundColor)"
    )
    assert colours == ["rgb(230, 159, 0)", "rgb(86, 180, 233)"]
    page.keyboard.press("Escape")
    page.locator("#table tbody tr").filter(has_text="unlabelled").locator(".picture").click()
    assert not page.locator("#legend").is_visible()


def test_only_tables_scroll_sideways(visit: Callable[..., Any], of_planted: Path, of_many: Path) -> None:
    assert visit(of_planted).locator("#hint").is_visible()  # with many columns
    page = visit(of_many)
    shades = "() => ['before', 'after'].filter((name) => document.getElementById('scroller').classList.contains(name))"
    assert not page.locator("#hint").is_visible()
    assert page.evaluate(shades) == []
    page.set_viewport_size({"width": 420, "height": 900})
    page.wait_for_selector("#hint:not([hidden])")
    assert page.evaluate("document.documentElement.scrollWidth") == 420
    assert page.evaluate(shades) == ["after"]
    page.locator("#scroller").focus()
    page.keyboard.press("ArrowRight")
    page.wait_for_selector("#scroller.before")
    page.evaluate("document.getElementById('scroller').scrollLeft = 9999")
    page.wait_for_selector("#scroller:not(.after)")
    scroller = page.locator("#scroller")
    assert [scroller.get_attribute(name) for name in ("tabindex", "role")] == ["0", "region"]
    assert scroller.get_attribute("aria-label") == "Table of volumes"


def test_long_and_turning_names(visit: Callable[..., Any], make_store: Callable[..., Made], tmp_path: Path) -> None:
    image, label = voxels(1)
    turning = "ab\u202edc"
    made = make_store({"x" * 200: (image, None, np.eye(4)), turning: (image, label, np.eye(4))})
    page = visit(rl.report(made.uri, tmp_path).path)
    for width in (1280, 700, 420):
        page.set_viewport_size({"width": width, "height": 900})
        assert page.evaluate("document.documentElement.scrollWidth") == width
        assert max(page.locator("td, th").evaluate_all("cells => cells.map((cell) => cell.offsetWidth)")) < 700
    page.set_viewport_size({"width": 700, "height": 900})
    assert page.locator("body > nav").evaluate("nav => getComputedStyle(nav).position") == "static"
    row = page.locator("#table tbody tr").filter(has=page.locator("th", has_text=turning))
    row.locator(".picture").click()
    assert page.locator("#dialog-h").inner_text() == f"\u2068{turning}\u2069, T1w"
    assert f"T1w: \u2068{turning}_T1w\u2069" in page.locator("#duplicates").inner_text()


def test_cards_fill_their_rows(visit: Callable[..., Any], of_planted: Path) -> None:
    page = visit(of_planted)
    for width, rows in ((1280, 1), (1079, 3), (420, 3)):
        page.set_viewport_size({"width": width, "height": 900})
        tops = page.locator(".cards > div").evaluate_all("cards => cards.map((card) => card.offsetTop)")
        assert sorted(tops.count(top) for top in set(tops)) == [9 // rows] * rows


def test_names_for_screen_readers(visit: Callable[..., Any], of_planted: Path) -> None:
    page = visit(of_planted)
    problems = page.evaluate(
        """() => {
            const named = (e) => e.textContent.trim() || e.getAttribute("aria-label") || e.querySelector("img[alt]:not([alt=''])");
            const bad = [...document.querySelectorAll("button, a, th")].filter((e) => !named(e)).map((e) => e.outerHTML);
            for (const e of document.querySelectorAll("input, select")) if (!e.labels.length) bad.push(e.outerHTML);
            for (const e of document.querySelectorAll("svg")) {
                if (e.getAttribute("aria-hidden") !== "true" && !e.getAttribute("aria-label")) bad.push(e.outerHTML);
            }
            const ids = [...document.querySelectorAll("[id]")].map((e) => e.id);
            return bad.concat(ids.filter((id, i) => ids.indexOf(id) !== i));
        }"""
    )
    assert problems == []
    assert page.locator("html").get_attribute("lang") == "en"
    assert page.locator("#status").get_attribute("role") == "status"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(visit: Callable[..., Any], of_planted: Path, scheme: str) -> None:
    """Every text has at least 4.5 to 1 (WCAG 2.2, 1.4.3) before the nearest background that is not transparent."""
    page = visit(of_planted, color_scheme=scheme)
    low = page.evaluate(
        """() => {
            const parse = (text) => text.match(/[\\d.]+/g).map(Number);
            const light = (rgb) => {
                const [r, g, b] = rgb.map((v) => ((v /= 255) <= 0.03928 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4));
                return 0.2126 * r + 0.7152 * g + 0.0722 * b;
            };
            const found = new Set();
            const walk = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
            while (walk.nextNode()) {
                const element = walk.currentNode.parentElement;
                if (!walk.currentNode.textContent.trim() || !element.checkVisibility() || element.closest("[aria-disabled=true]")) continue;
                let behind = element, paper;
                do {
                    paper = parse(getComputedStyle(behind).backgroundColor);
                    behind = behind.parentElement;
                } while (paper[3] === 0 && behind);
                const style = getComputedStyle(element);
                const ink = parse(element.closest("svg") ? style.fill : style.color);
                const [a, b] = [light(ink.slice(0, 3)), light(paper.slice(0, 3))].sort((x, y) => y - x);
                const ratio = (a + 0.05) / (b + 0.05);
                if (ratio < 4.5) found.add(element.tagName + "." + element.className + " " + ratio.toFixed(2));
            }
            return [...found];
        }"""
    )
    assert low == []


def test_print(visit: Callable[..., Any], of_planted: Path) -> None:
    page = visit(of_planted)
    page.emulate_media(media="print")
    assert not page.locator("#controls").is_visible()
    assert page.locator("#table").is_visible()
    assert page.locator("#table thead button:visible").count() == 0  # which Chromium would not repeat on each page
    headings = page.locator("#table thead span:visible").all_inner_texts()
    assert headings[:3] == ["Picture", "Subject", "What is odd"]
    assert len(headings) == page.locator("#table thead th").count()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert page.pdf().startswith(b"%PDF")
