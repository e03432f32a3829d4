"""The page in a real browser: it draws, filters, follows dark mode, and runs nothing that a model wrote."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from structbench.reports.html import to_html
from tests.support.reports import FAILED, document, many, request, requests, run, write

pytestmark = [
    pytest.mark.chromium,
    pytest.mark.skipif(
        not (shutil.which("chromium") and shutil.which("chromedriver")), reason="chromium and chromedriver are missing"
    ),
]

CHARTS = (
    "tradeoff",
    "load",
    "throughput",
    "shares",
    "outcomes",
    "percentiles",
    "curves",
    "positions",
    "parts",
    "timeline",
)
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--window-size=1280,900",
)  # fmt: skip
ATTACKS = (
    "<script>window.hacked = 1</script>",
    "</script><script>window.hacked = 1</script>",
    "<!--<script>window.hacked = 1</script>",
    "<img src=x onerror='window.hacked = 1'>",
    "<svg onload=window.hacked=1><a xlink:href=javascript:window.hacked=1>x</a></svg>",
    "\"><iframe srcdoc='<script>parent.hacked=1</script>'></iframe>",
    "' onmouseover='window.hacked=1' autofocus onfocus='window.hacked=1' x='",
    "javascript:window.hacked=1//",
    "{{ ''.__class__ }}{% raw %}${window.hacked=1}#{window.hacked=1}<%= window.hacked=1 %>",
    "\u2028window.hacked=1\u2029\x1b]0;hacked\x07\x1b[31m\u202e\u2066gnp.exe\u2069",
    "]]><script>window.hacked=1</script>\\u003cscript>\x00",
)
Open = Callable[[Path], Any]


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = str(shutil.which("chromium"))
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('chromium')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def opened(browser: Any) -> Open:
    """Open a page and wait until it has drawn; its console must have stayed empty."""

    def open_page(path: Path) -> Any:
        browser.get(path.as_uri())
        end = time.monotonic() + 60
        while not browser.execute_script("return document.documentElement.dataset.ready"):
            assert time.monotonic() < end, browser.get_log("browser")
            time.sleep(0.05)
        assert browser.get_log("browser") == []
        return browser

    return open_page


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two models, two suites, two loads, with wrong and failed answers."""
    folder = tmp_path_factory.mktemp("page")
    runs, rows = [], []
    for model in ("a:1b", "b:3b"):
        for suite in ("json", "tools"):
            for concurrency in (1, 4):
                name = f"{model}-{suite}-{concurrency}"
                runs.append(run(name, model, suite, concurrency))
                rows += requests(name, 80, wrong=8, failed=2)
    return written(folder, write(folder / "a.duckdb", runs, rows))


def written(folder: Path, db: Path) -> Path:
    path = folder / "report.html"
    path.write_text(to_html(document(db, details=True)))
    return path


def drawn(browser: Any, chart: str) -> int:
    """Shapes in a chart's pictures."""
    shapes = f"[data-chart={chart}] .charts svg :is(path, circle, rect, line)"
    return len(browser.find_elements("css selector", shapes))


def test_every_chart_is_drawn_and_named(page: Path, opened: Open) -> None:
    browser = opened(page)
    for chart in CHARTS:
        assert drawn(browser, chart) > 8, chart
    for picture in browser.find_elements("css selector", "[data-chart] .charts svg"):
        assert picture.get_attribute("role") == "img"
        assert "the table below has the figures" in picture.get_attribute("aria-label")


@pytest.mark.parametrize("n", [0, 1, 7])
def test_next_to_nothing_is_drawn_without_an_error(tmp_path: Path, opened: Open, n: int) -> None:
    """No scores, too few requests for any percentile, one line: what a first trial leaves."""
    bare = {"outcome": "completed", "accuracy_score": None, "json_valid": None, "schema_valid": None}
    rows = requests("r", n, **bare, chunk_offsets_us=[1000], tpot_s=None)
    browser = opened(written(tmp_path, write(tmp_path / "a.duckdb", [run("r", suite="text")], rows)))
    said = "No model has been shown to be fast enough" if n else "No model can be called correct"
    assert said in browser.find_element("css selector", ".lead").text
    assert "Nothing to draw" in browser.find_element("css selector", "[data-chart=shares]").text


def test_each_latency_can_be_chosen(page: Path, opened: Open) -> None:
    browser = opened(page)
    for metric in ("itl_s", "tpot_s", "e2e_s", "ttft_s"):
        browser.execute_script(
            "const select = document.querySelector('select.metric'); select.value = arguments[0];"
            "select.dispatchEvent(new Event('change'))",
            metric,
        )
        assert drawn(browser, "percentiles") > 8, metric
        assert drawn(browser, "curves") > 8, metric
        values = browser.execute_script(
            "return [...document.querySelectorAll('select.metric')].map(each => each.value)"
        )
        assert set(values) == {metric}
    assert browser.get_log("browser") == []


def test_the_filter_works_on_tables_charts_and_wrong_answers(page: Path, opened: Open) -> None:
    browser = opened(page)

    def state() -> tuple[int, int, str]:
        return tuple(browser.execute_script(
            "return [[...document.querySelectorAll('tr[data-line]')].filter(each => !each.hidden).length,"
            " [...document.querySelectorAll('section[data-line]')].filter(each => !each.hidden).length,"
            " document.getElementById('shown').textContent]"
        ))  # fmt: skip

    before, shapes = state(), {chart: drawn(browser, chart) for chart in CHARTS}
    assert before[1:] == (40, "8 of 8 run groups shown")
    box = browser.find_element("css selector", "input[name=model][value='a:1b']")
    box.send_keys(" ")  # by keyboard
    after = state()
    assert (after[0] * 2, *after[1:]) == (before[0], 20, "4 of 8 run groups shown")
    assert all(drawn(browser, chart) < shapes[chart] for chart in CHARTS)
    browser.find_element("css selector", "input[name=model][value='b:3b']").click()
    assert state() == (0, 0, "0 of 8 run groups shown")
    browser.find_element("css selector", "button[type=reset]").click()
    end = time.monotonic() + 20
    while state() != before:
        assert time.monotonic() < end
        time.sleep(0.05)
    assert browser.get_log("browser") == []


def test_dark_mode_and_print_have_colours_of_their_own(page: Path, opened: Open) -> None:
    def colours() -> tuple[str, str, str]:
        return tuple(browser.execute_script(
            "return [getComputedStyle(document.documentElement).backgroundColor, getComputedStyle(document.body).color,"
            " getComputedStyle(document.querySelector('[data-chart=outcomes] .charts rect')).fill]"
        ))  # fmt: skip

    browser = opened(page)
    found = {}
    for name, media, scheme in (("light", "", "light"), ("dark", "", "dark"), ("print", "print", "dark")):
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": media, "features": features})
        found[name] = colours()
    browser.execute_cdp_cmd("Emulation.setEmulatedMedia", {"media": "", "features": []})
    assert found["light"][0] == found["print"][0] == "rgb(255, 255, 255)"
    assert all(light != dark for light, dark in zip(found["light"], found["dark"], strict=True))
    assert found["print"][2] == found["light"][2]


@pytest.mark.parametrize("width", [360, 800, 1600])
def test_no_width_makes_the_page_scroll_sideways(page: Path, opened: Open, width: int) -> None:
    browser = opened(page)
    metrics = {"width": width, "height": 800, "deviceScaleFactor": 1, "mobile": False}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        time.sleep(0.3)
        over = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert browser.execute_script(over) <= 0
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_no_label_of_a_chart_is_cut_on_a_phone_with_36_runs(tmp_path: Path, opened: Open) -> None:
    runs, rows = [], []
    for model in ("hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "qwen2.5-coder:0.5b", "m"):
        for suite in ("json", "tools", "jsonschemabench:data/medium"):
            for concurrency in (1, 4, 16, 64):
                name = f"{model}-{suite}-{concurrency}"
                runs.append(run(name, model, suite, concurrency))
                rows += requests(name, 40, wrong=4)
    page = written(tmp_path, write(tmp_path / "a.duckdb", runs, rows))
    browser = opened(page)
    metrics = {"width": 390, "height": 800, "deviceScaleFactor": 1, "mobile": True}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    try:
        time.sleep(1.5)
        cut = browser.execute_script(
            "return [...document.querySelectorAll('[data-chart] svg text')].filter(each => {"
            " const box = each.getBoundingClientRect(), room = document.documentElement.clientWidth;"
            " return box.width && (box.left < -0.5 || box.right > room + 0.5 || each.textContent.includes('…')) })"
            ".map(each => each.textContent)"
        )
        assert cut == []
    finally:
        browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_a_table_sorts_by_its_headings_with_what_is_absent_last(page: Path, opened: Open) -> None:
    browser = opened(page)

    def column(number: int) -> list[str]:
        return browser.execute_script(
            "return [...document.querySelector('#figures').parentNode.querySelector('tbody').rows]"
            ".map(row => row.cells[arguments[0]].firstChild.textContent.trim())", number,
        )  # fmt: skip

    button = "document.querySelector('#figures').parentNode.querySelectorAll('thead button')[arguments[0]].click()"
    names = column(0)
    browser.execute_script(button, 0)
    assert column(0) == sorted(names)
    browser.execute_script(button, 0)
    assert column(0) == sorted(names, reverse=True)
    head = "return getComputedStyle(document.querySelector('#figures').parentNode.querySelector('thead th')).position"
    assert browser.execute_script(head) == "sticky"


def test_what_a_model_wrote_never_runs(tmp_path: Path, opened: Open) -> None:
    runs, rows = [], []
    for number, attack in enumerate(ATTACKS):
        name = f"r{number}{attack}"
        runs.append(run(name, model=attack, suite=attack, label=attack, verdict="degraded", verdict_reason=attack))
        wrong = {"outcome": attack, "accuracy_score": 0.0, "output_text": attack, "thinking_text": attack}
        more = {"case_id": attack, "validation_errors": [attack], "json_parse_error": attack, "tool_calls": [attack]}
        rows += [*requests(name, 40), request(name, 40, **wrong, **more)]
        rows.append(request(name, 41, **{**FAILED, "error_message": attack, "case_id": attack}))
    browser = opened(written(tmp_path, write(tmp_path / "a.duckdb", runs, rows)))
    browser.execute_script("document.querySelectorAll('details').forEach(each => { each.open = true })")
    shown = browser.execute_script("return document.body.innerText")
    assert "<img src=x onerror='window.hacked = 1'>" in shown  # it is there to read
    assert "⟨U+202E⟩" in shown
    for chart in ("shares", "timeline"):
        assert drawn(browser, chart) > 8
    # Where a hand or a mouse could be lured: over every chart, with every element focused.
    browser.execute_script(
        "document.querySelectorAll('svg, svg *, summary, td, pre, label, a').forEach(each => {"
        " for (const type of ['pointerenter', 'pointermove', 'mouseover', 'click', 'focus'])"
        "  each.dispatchEvent(new PointerEvent(type, {bubbles: true, clientX: 5, clientY: 5})) })"
    )
    time.sleep(0.3)
    assert browser.execute_script("return window.hacked") is None
    assert browser.execute_script("return document.scripts.length") == 4
    bad = "iframe, img, object, embed, link, base, [onload], [onerror], [onmouseover], [onfocus], a[href^=javascript]"
    assert browser.find_elements("css selector", bad) == []
    assert browser.get_log("browser") == []


def test_the_policy_stops_a_script_that_came_in_all_the_same(page: Path, tmp_path: Path, browser: Any) -> None:
    """The second line of defence, and the proof that the first test could fail."""
    evil = tmp_path / "evil.html"
    text = page.read_text().replace(
        "<main>", "<main><script>window.hacked = 1</script><img src=x onerror=window.hacked=1>"
    )
    evil.write_text(text)
    browser.get(evil.as_uri())
    assert sum("Content Security Policy" in each["message"] for each in browser.get_log("browser")) >= 2
    assert browser.execute_script("return window.hacked") is None
    evil.write_text(text.replace('http-equiv="Content-Security-Policy"', 'name="none"'))
    browser.get(evil.as_uri())
    assert browser.execute_script("return window.hacked") == 1
    browser.get_log("browser")


def test_200_000_requests_stay_under_10_MB_and_3_s(tmp_path: Path, opened: Open, browser: Any) -> None:
    path = written(tmp_path, many(tmp_path / "many.duckdb", 16, 12_500))
    assert path.stat().st_size < 10e6
    opened(path)  # once for the browser's own start
    before = cpu_s(browser)
    opened(path)
    assert cpu_s(browser) - before < 3
    text = browser.execute_script("return document.body.innerText")
    assert "of 200,000 requests by the time sent" in text


def cpu_s(browser: Any) -> float:
    """Processor time of the browser with all its processes."""
    driver = psutil.Process(browser.service.process.pid)
    times = [each.cpu_times() for each in driver.children(recursive=True)]
    return sum(each.user + each.system for each in times)
