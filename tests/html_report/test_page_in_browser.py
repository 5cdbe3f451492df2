"""The page in a headless Chromium: no error, no request, no overflow, and everything works with the keyboard."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Measured

from backends.null_.null import Costs as Programmed
from suites.records.record import Measurement, Record, write_record
from suites.report import main

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = os.environ.get("SUITES_CHROMIUM") or next(filter(None, map(shutil.which, NAMES)), "")
LIMIT = 5_000_000
"""Largest size of a page in bytes."""

FLAGS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync", "--no-first-run")
MakeRecord = Callable[..., Record]

pytestmark = pytest.mark.skipif(
    not CHROMIUM, reason="needs Chromium: apt-get install chromium, or SUITES_CHROMIUM=/path/to/it"
)
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright of the extra dev")


@dataclass
class Tab:
    """A tab of the browser with all that it reported."""

    page: Any
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def widths(self) -> tuple[int, int]:
        """Return the width of the content and of the window in pixels."""
        content, window = self.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
        return content, window

    def choose(self, label: str, option: str) -> None:
        self.page.evaluate("document.getElementById('filter-box').open = true")
        self.page.get_by_label(label, exact=True).first.select_option(label=option)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as started:
        chromium = started.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        yield chromium
        chromium.close()


@pytest.fixture
def tab(browser: Any) -> Iterator[Callable[..., Tab]]:
    """Open a page in a new tab."""
    contexts = []

    def show(path: Path, width: int = 1440, theme: str = "light") -> Tab:
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=theme)
        context.set_default_timeout(120_000)
        contexts.append(context)
        opened = Tab(context.new_page())
        opened.page.on("console", lambda message: opened.console.append(message.text))
        opened.page.on("pageerror", lambda error: opened.console.append(str(error)))
        opened.page.on("dialog", lambda dialog: opened.console.append(dialog.message))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri())
        opened.page.wait_for_selector("html[data-ready]", state="attached")
        return opened

    yield show
    for context in contexts:
        context.close()


def load(rate: float, milliseconds: float) -> dict[str, Any]:
    """Return the JSON of a load of suite=serving that a server answers for 10 s."""
    count, times = round(10 * rate), dict.fromkeys(("mean", "p50", "p90", "p99", "p999", "max"), milliseconds * 1e6)
    whole = ("clients", "rejected", "too_long", "errors", "session_ns", "dispatch_ns", "assembly_ns")
    return {
        "purpose": "offered", "offered": rate, "achieved": rate, "sent": count, "answered": count, "seconds": 10.0,
        "schedule_s": 10.0, "latency": times, "queue": times, "late": times, "batches": {"1": 50, "8": 100},
        "tokens": 900, "padded_tokens": 1000, **dict.fromkeys(whole, 0),
    }  # fmt: skip


LOADS = [load(100, 2), load(200, 3), load(400, 9), load(5, 2)]

BACKENDS = ("ort", "torch_compile", "torch_eager", "torch_packed", "trt")


@pytest.fixture
def synthetic(make_record: MakeRecord, measured: Measured, tmp_path: Path) -> Path:
    """Write the page of ten paths at three batch sizes, and of records of the other suites."""
    results, shapes = tmp_path / "results", ((1, 16), (8, 16), (32, 16))
    sizes = {f"{batch}x{length}": {"tokens": batch * length, "cut": 0} for batch, length in shapes}
    phases = ("gpu", "latency", "end_to_end", "enqueue", "sustained")
    for place, (backend, precision) in enumerate((b, p) for b in BACKENDS for p in ("fp32", "int8")):
        check = {"cuda_graph": False, "nonfinite": 0, "cosine": 0.9999 + place / 1e6, "problem": ""}
        record = make_record(
            backend=backend,
            precision=precision,
            shapes=shapes,
            command=("python", "-m", "suites.run", f"backend={backend}"),
            measurements=tuple(
                Measurement(phase, *shape, False, (100_000 * (place + shape[0]),) * 20, ((0, 10**9, 20),), True)
                for shape in shapes
                for phase in phases
            ),
            checks=tuple({"batch": batch, "sequence": length, **check} for batch, length in shapes),
            artifacts={"inputs": {"notes": {"tokens": "random", "shapes": sizes}}},
        )
        write_record(results, record)
    hostile = make_record(machine="gpu-b", release="null <img src=x onerror=alert(1)>", model="<b>tiny</b>")
    write_record(results, hostile)
    layers = [{"point": name, "nonfinite": 0, "max_difference": 1.0, "relative_error": error, "cosine_min": 0.5}
              for name, error in (("0/gelu", 0.01), ("0/down", 0.2))]  # fmt: skip
    write_record(results, make_record(suite="layers", scores={"layers": layers, "threshold": 0.05, "first": "0/down"}))
    write_record(results, measured(Programmed(step_ms=5, shape_ms=2), switches=(0.0, 1.0)))
    for workers in (1, 2):
        write_record(results, make_record(suite="serving", measurements=(), checks=(), scores={"points": LOADS},
                                          options={"most_requests": 8, "workers": workers}))  # fmt: skip
    failed = make_record(backend="trt_plugin", outcome="failed", reason="no driver", measurements=(), checks=())
    write_record(results, failed)
    path = tmp_path / "report.html"
    assert main(["--html", str(results), "--output", str(path)]) == 0
    return path


def nothing_reported(tab: Tab) -> None:
    """Assert that the tab has loaded its file only, without a message or an overflow."""
    assert tab.console == []
    assert [url for url in tab.requests if not url.startswith(("file:", "data:", "blob:"))] == []
    content, window = tab.widths()
    assert content <= window


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [390, 1440])
def test_the_page_has_no_error_and_no_overflow(
    synthetic: Path, tab: Callable[..., Tab], width: int, theme: str
) -> None:
    shown = tab(synthetic, width, theme)
    page = shown.page
    assert page.locator("html").get_attribute("data-theme") == theme
    assert page.locator("section").count() == 13
    assert page.locator(".plot .main-svg").count() >= 10
    page.evaluate("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    nothing_reported(shown)
    page.locator("#theme").click()
    assert page.locator("html").get_attribute("data-theme") != theme
    shown.choose("Lines", "every configuration")
    shown.choose("Machine", "GPU-B, driver 1.2")
    page.wait_for_selector("#latency .plot .main-svg", state="attached")
    assert page.locator("img, main b").count() == 0, "text of a record is not HTML"
    nothing_reported(shown)


def test_at_most_eight_series_are_drawn(synthetic: Path, tab: Callable[..., Tab]) -> None:
    shown = tab(synthetic)
    buttons = shown.page.locator("#latency .series button")
    pressed = shown.page.locator("#latency .series button[aria-pressed=true]")
    assert (buttons.count(), pressed.count()) == (10, 8)
    assert {name.split()[0] for name in pressed.all_inner_texts()} == set(BACKENDS)
    shown.page.locator("#latency .series button[aria-pressed=false]").first.click()
    assert shown.page.locator("#latency .message").inner_text() == "8 series are drawn. Remove one first."
    pressed.first.click()
    assert pressed.count() == 7
    labels = shown.page.locator("#latency .plot").first.locator(".annotation")
    assert labels.count() == 7
    shown.page.get_by_role("button", name="int8", exact=True).click()
    assert buttons.count() == 5
    nothing_reported(shown)


def test_a_point_shows_the_command_of_its_record(synthetic: Path, tab: Callable[..., Tab]) -> None:
    shown = tab(synthetic)
    page = shown.page
    page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    assert page.locator("#record").is_hidden()
    page.locator("#latency .plot").first.scroll_into_view_if_needed()
    point = page.locator("#latency .plot .scatterlayer .points path").first.bounding_box()
    page.mouse.move(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector("#latency .hoverlayer .hovertext")
    page.mouse.click(point["x"] + point["width"] / 2, point["y"] + point["height"] / 2)
    page.wait_for_selector("#record:not([hidden])")
    command = page.locator("#record-command").inner_text()
    assert command.startswith("python -m suites.run backend=")
    page.locator("#record-copy").click()
    page.get_by_role("button", name="Copied").wait_for()
    assert page.evaluate("navigator.clipboard.readText()") == command
    page.keyboard.press("Escape")
    assert page.locator("#record").is_hidden()
    nothing_reported(shown)


@pytest.mark.parametrize("section", ["latency", "pareto", "request", "switching", "serving", "layers"])
def test_arrow_keys_move_between_points(synthetic: Path, tab: Callable[..., Tab], section: str) -> None:
    page = tab(synthetic).page
    page.locator(f"#{section} .plot").first.focus()
    page.keyboard.press("ArrowRight")
    first = page.locator("#record-facts").inner_text()
    page.keyboard.press("ArrowRight")
    assert page.locator("#record").is_visible()
    assert page.locator("#record-facts").inner_text() != first
    outline = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
    assert outline == "solid", "the focus is visible"


def test_controls_keep_the_focus_and_tables_have_the_figures(synthetic: Path, tab: Callable[..., Tab]) -> None:
    shown = tab(synthetic)
    page = shown.page
    button = page.get_by_role("button", name="torch_eager", exact=True)
    button.focus()
    page.keyboard.press("Enter")
    page.locator("button[aria-pressed=false]:focus", has_text="torch_eager").wait_for()
    page.locator("#latency summary").last.click()
    rows = page.locator("#latency table tbody tr")
    rows.nth(8 * 3 - 1).wait_for()
    assert rows.count() == 8 * 3
    assert rows.first.inner_text().split("\t")[:4] == ["ort fp32", "1", "0.1", "0.1 to 0.1"]
    rows.first.get_by_role("button").click()
    page.locator("#record-command", has_text="python -m suites.run backend=ort").wait_for()
    nothing_reported(shown)


def test_the_section_of_serving_has_a_line_for_each_strategy(synthetic: Path, tab: Callable[..., Tab]) -> None:
    shown = tab(synthetic)
    section = shown.page.locator("#serving")
    assert section.locator("h3").all_inner_texts() == [
        "p99 of the latency against the load", "Batch size against the load",
    ]  # fmt: skip
    # The lightest load has too few answers for its p99.
    assert [plot.locator(".points path").count() for plot in section.locator(".plot").all()] == [6, 8]
    assert section.locator(".series button").all_inner_texts() == [
        "[1] null fp32: batches of up to 8 requests, wait 0 ms",
        "[2] null fp32: batches of up to 8 requests, wait 0 ms, 2 threads",
    ]
    section.locator("summary").last.click()
    first = section.locator("table tbody tr").first.inner_text().split("\t")
    assert first[1:5] == ["5", "2", "", "5.67"]
    nothing_reported(shown)


@pytest.mark.slow
def test_the_page_of_the_committed_records(tmp_path: Path, tab: Callable[..., Tab]) -> None:
    path = tmp_path / "report.html"
    assert main(["--html", str(ROOT / "results" / "reference"), "--output", str(path)]) == 0
    assert path.stat().st_size <= LIMIT
    for width in (390, 1440):
        shown = tab(path, width)
        for machine in shown.page.get_by_label("Machine", exact=True).locator("option").all_text_contents():
            shown.choose("Machine", machine)
            nothing_reported(shown)
