"""Each format has the figures, says what too few requests cannot tell, and takes no text from outside as markup."""

from __future__ import annotations

import hashlib
import io
import json
import re
from dataclasses import asdict
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from structbench.cli import main
from structbench.formatting import markdown_text
from structbench.metrics import METRICS
from structbench.reports import html
from structbench.reports.document import to_json
from structbench.reports.estimates import estimate_text, needs_text, range_text
from structbench.reports.html import script_json, to_html
from structbench.reports.markdown import to_markdown
from structbench.reports.terminal import print_document
from structbench.reports.view import visible
from structbench.stats import Estimate
from structbench.store import Store
from structbench.types import Note
from tests.support.reports import document, requests, run, write

PAGE = Path(html.__file__).parent / "page"
HOSTILE = (
    "</script><script>alert(1)</script>{{7*7}} [x](javascript:alert(1)) <img src=x onerror=alert(1)> \u202e\x1b[31m|`*_"
)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    runs = [run("r1"), run("r2", model=HOSTILE, label=HOSTILE, verdict="degraded", verdict_reason=HOSTILE)]
    rows = [
        *requests("r1", 100, wrong=4, failed=2),
        *requests("r2", 30, wrong=30, output_text=HOSTILE, case_id=HOSTILE),
    ]
    made = write(tmp_path_factory.mktemp("formats") / "a.duckdb", runs, rows, simulated=True)
    with Store(made) as store:
        for run_id, notes in {
            "r1": [Note("slow", "it got slower", share=0.25, at_s=4.0), Note("other", "and another")],
            "r2": [Note("slow", f"slower here {HOSTILE}", share=0.5)],
        }.items():
            store.append("runs", {"run_id": run_id, "notes": [asdict(note) for note in notes]})
    return made


def test_notes_are_in_every_format(path: Path) -> None:
    console = Console(file=io.StringIO(), width=400)
    print_document(document(path), console)
    assert isinstance(console.file, io.StringIO)
    lines = console.file.getvalue().splitlines()
    assert "note: and another (m:1b json c=1 SIMULATED)" in lines
    (of_all,) = [line for line in lines if "slower" in line]  # the run it concerns most, for all of its kind
    assert of_all.startswith("note: slower here </script>")
    assert of_all.endswith("and 1 more)")
    assert "- m:1b json c=1: it got slower; and another\n" in to_markdown(document(path))
    assert "it got slower; and another</td>" in to_html(document(path, details=True))
    notes = [line["notes"] for line in to_json(document(path))["lines"] if line["model"] == "m:1b"]
    assert notes == [
        [asdict(Note("slow", "it got slower", share=0.25, at_s=4.0)), asdict(Note("other", "and another"))]
    ]


def test_how_requests_failed_is_in_every_format(path: Path) -> None:
    assert "Errors\n  2 × timeout: total: 300 s (m:1b json c=1 SIMULATED)\n" in shown(path, 400)
    assert "**Errors**\n\n- m:1b json c=1: 2 × timeout: total: 300 s\n" in to_markdown(document(path))
    page = to_html(document(path, details=True))
    assert '<td class="text">timeout</td><td>2</td><td class="text">total: 300 s</td>' in page
    failures = [line["failures"] for line in to_json(document(path))["lines"] if line["model"] == "m:1b"]
    assert failures == [[{"kind": "timeout", "status": None, "count": 2, "first": "total: 300 s"}]]


def test_a_rate_says_whether_it_is_of_these_cases_or_of_such_cases(path: Path, tmp_path: Path) -> None:
    """r1 asks 7 cases; 40 cases asked twice each, where the answers to one case are the same, are worth 40."""
    assert "needs 20 cases" in shown(path, 400)
    rows = [row for asked in range(2) for row in requests("r", 40, wrong=10)]
    rows = [{**row, "request_index": i, "case_id": f"c{i % 40}", "repeat": i // 40} for i, row in enumerate(rows)]
    (line,) = to_json(document(write(tmp_path / "s.duckdb", [run("r")], rows)))["lines"]
    these, such = line["correct"], line["such_cases"]["correct"]
    assert (these["value"], these["n"], such["value"], such["n"]) == (0.75, 80, 0.75, 40)
    assert such["low"] < these["low"] < these["high"] < such["high"]
    text = f"75.0 % ({such['low'] * 100:.1f}–{such['high'] * 100:.1f} %)"
    made = document(tmp_path / "s.duckdb")
    for told in (shown(tmp_path / "s.duckdb", 400), to_markdown(made).replace("\u00a0", " ")):
        assert text in told
        assert "correct is of these cases" in told
    brief = METRICS["correct"].range_text(such["low"], such["high"], brief=True)
    assert brief in to_html(document(tmp_path / "s.duckdb", details=True))


# Wording


@pytest.mark.parametrize(
    ("name", "value", "low", "high", "shown"),
    [
        ("ttft", 0.31, 0.28, 0.4, "310 ms (280–400 ms)"), ("ttft", 0.99, 0.95, 1.02, "990 ms (950 ms – 1.02 s)"),
        ("itl", 0.00841, 0.0084, 0.00852, "8.41 ms (8.40–8.52 ms)"),
        ("ttft", 12.34, 11.9, 120, "12.3 s (11.9–120 s)"),
        ("correct", 0.95, 0.764, 0.991, "95.0 % (76.4–99.1 %)"),
        ("correct_goodput", 3.84, 3.1, 12, "3.84/s (3.10–12.0/s)"),
        ("requests_per_s", 4.0, 4.0, 4.0, "4.00/s"), ("ttft", 0.99996, 0.9, 1.1, "1.00 s (900 ms – 1.10 s)"),
        ("e2e", 0.0, 0.0, 0.0, "0 ms"), ("itl", 0.000_999_9, 0.0009, 0.002, "1.00 ms (0.900–2.00 ms)"),
    ],
)  # fmt: skip
def test_an_estimate_is_written_with_its_interval(name: str, value: float, low: float, high: float, shown: str) -> None:
    assert estimate_text(METRICS[name], Estimate(100, value, low, high)) == shown


def test_too_few_values_are_written_as_what_they_need() -> None:
    assert estimate_text(METRICS["ttft"], Estimate(30, needs=368)) == "needs 368 requests"
    assert needs_text(Estimate(0, needs=1, unit="answers")) == "–"
    assert range_text(METRICS["ttft"], Estimate(30, needs=368)) == ""


@given(st.floats(1e-6, 1e5))
def test_a_latency_is_written_to_three_digits(seconds: float) -> None:
    number, unit = METRICS["ttft"].text(seconds).split()
    assert float(number.replace(",", "")) * {"ms": 1e-3, "s": 1}[unit] == pytest.approx(seconds, rel=0.0051)


@given(st.text())
def test_visible_text_has_no_character_that_hides_or_turns_and_loses_none_that_shows(text: str) -> None:
    shown = visible(text)
    assert all(c.isprintable() or c in "\n\t" or c.isspace() for c in shown)
    assert "⟨" in text or re.sub(r"⟨U\+[0-9A-F]{4,6}⟩", "", shown) == "".join(c for c in text if c in shown)


def test_escapes_and_writing_directions_become_visible() -> None:
    assert visible("a\x1b[31m\u202eb\n\tc\u2066\x00") == "a⟨U+001B⟩[31m⟨U+202E⟩b\n\tc⟨U+2066⟩⟨U+0000⟩"


# Terminal


def shown(path: Path, width: int) -> str:
    out = io.StringIO()
    print_document(document(path), Console(file=out, width=width, color_system=None))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_terminal_says_what_too_few_requests_cannot_tell(path: Path, width: int) -> None:
    text = shown(path, width)
    assert max(map(len, text.split("\n"))) <= width
    assert text.lstrip().startswith("SIMULATED")
    assert "needs 368 requests" in text
    assert "p99 368" in " ".join(text.split())
    assert "95.9 % (90.0–98.4 %)" in text
    assert "\x1b" not in text
    assert "\u202e" not in text


# Markdown


def test_markdown_is_one_table_with_the_figures(path: Path) -> None:
    text = to_markdown(document(path))
    table = [each for each in text.split("\n") if each.startswith("|")]
    assert {each.count("|") for each in table} == {14}
    assert "95.9\u00a0%\u00a0(90.0–98.4\u00a0%)" in table[3]
    assert "**SIMULATED**" in table[3]
    assert "SIMULATED, degraded" in table[2]
    assert "> **SIMULATED: all of these runs" in text


def test_markdown_takes_nothing_from_outside_as_markup(path: Path) -> None:
    text = to_markdown(document(path)).replace("<sub>", "").replace("</sub>", "")
    assert not re.search(r"[<>`]|\]\(", text.replace("> **SIMULATED", ""))
    assert markdown_text("@team a|b :smile: https://x www.y _z_") == (
        "&#64;team a&#124;b &#58;smile: https&#58;//x www&#46;y &#95;z&#95;"
    )
    assert markdown_text("qwen2.5-coder:0.5b json c=4") == "qwen2.5-coder:0.5b json c=4"
    assert markdown_text("ttft_p50 of a__b") == "ttft_p50 of a&#95;&#95;b", "within a word it marks nothing"


# HTML


class Elements(HTMLParser):
    """What a browser would take as elements, and the text of each script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[str] = []
        self.texts: list[str] = []
        self._open = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attrs)))
        self._open = tag
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag: str) -> None:  # noqa: ARG002
        self._open = ""

    def handle_data(self, data: str) -> None:
        if self._open == "script":
            self.scripts[-1] += data
        else:
            self.texts.append(data)


@pytest.fixture(scope="module")
def page(path: Path) -> str:
    return to_html(document(path, details=True))


@pytest.fixture(scope="module")
def elements(page: str) -> Elements:
    return Elements(page)


def test_page_has_four_scripts_and_nothing_from_outside_made_an_element(elements: Elements) -> None:
    tags = [tag for tag, _ in elements.found]
    assert tags.count("script") == 4
    assert not {"img", "iframe", "object", "embed", "link", "base"} & set(tags)
    assert not [name for _, attributes in elements.found for name in attributes if name.startswith("on")]
    hrefs = [attributes.get("href") for _, attributes in elements.found if "href" in attributes]
    assert hrefs == ["#figures"]
    assert not [attributes for _, attributes in elements.found if "src" in attributes]
    text = "".join(elements.texts)
    assert "49" not in re.findall(r"</script>(\S+)", text)
    assert "<img src=x onerror=alert(1)>" in text
    assert "⟨U+202E⟩⟨U+001B⟩[31m" in text


def test_policy_allows_the_page_s_own_scripts_and_style_and_nothing_else(page: str, elements: Elements) -> None:
    policy = next(each["content"] for _, each in elements.found if each.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; ")
    assert "unsafe" not in policy
    allowed = re.findall(r"'(sha256-[^']+)'", policy.split("script-src")[1].split(";")[0])
    data, *scripts = elements.scripts
    assert allowed == [html._csp_hash(script) for script in scripts]
    style = re.search(r"<style>(.*?)</style>", page, re.DOTALL)
    assert style is not None
    assert html._csp_hash(style[1]) in policy
    assert json.loads(data)["lines"][0]["suite"] == "json"


def test_page_reads_without_javascript_and_by_ear(page: str, elements: Elements) -> None:
    tags = [tag for tag, _ in elements.found]
    assert (tags.count("main"), tags.count("h1"), tags.count("header"), tags.count("footer")) == (1, 1, 1, 1)
    assert tags.count("caption") == tags.count("table") >= 11
    assert tags.count("figcaption") == tags.count("figure") == 10
    assert all("scope" in attributes for tag, attributes in elements.found if tag == "th")
    assert 'lang="en"' in page
    assert "prefers-color-scheme: dark" in page
    assert "@media print" in page
    assert "SIMULATED: all of these runs" in page


@given(st.recursive(st.text() | st.floats(allow_nan=False, allow_infinity=False), st.lists, max_leaves=5))
def test_embedded_data_cannot_end_its_script(value: object) -> None:
    text = script_json({"a": value, "b": "</script><!--\u2028\u2029&"})
    assert not set("<>&\u2028\u2029") & set(text)
    assert json.loads(text) == {"a": value, "b": "</script><!--\u2028\u2029&"}


def test_vendored_libraries_are_those_that_their_list_says() -> None:
    sums = dict(reversed(each.split()) for each in (PAGE / "vendor/SHA256SUMS").read_text().splitlines())
    names = {each.name for each in (PAGE / "vendor").glob("*.js")}
    assert set(sums) == names == set(html._VENDORED)
    for name, digest in sums.items():
        data = (PAGE / "vendor" / name).read_bytes()
        assert hashlib.sha256(data).hexdigest() == digest
        assert b"</script" not in data.lower()
        assert b"<!--" not in data
    listed = (PAGE / "vendor/README.md").read_text()
    assert all(f"`{name}`" in listed for name in names)
    assert all(f" {version}, " in listed for version in html._library_versions().values())


def test_package_data_has_everything_the_page_needs() -> None:
    pyproject = (PAGE.parents[2] / "pyproject.toml").read_text()
    assert '"reports/page/*", "reports/page/vendor/*"' in pyproject


def test_the_example_is_such_a_page_and_names_no_folder_of_its_machine() -> None:
    text = (PAGE.parents[2] / "docs/examples/report.html").read_text()
    assert len(text) < 1e6
    assert "correct&gt;=60%" in text, "the rule of docs/first-ten-minutes.md"
    assert not re.search(r"/(home|root|tmp|work|Users)/", text)
    (data,) = (script for script in Elements(text).scripts if script.startswith('{"lines"'))
    assert {line["model"] for line in json.loads(data)["lines"]} == {"smollm2:135m", "qwen2.5-coder:0.5b"}


# The command


@pytest.mark.parametrize(
    ("ending", "begins"), [("html", "<!DOCTYPE html>"), ("md", "**SIMULATED"), ("json", "{"), ("txt", "SIMULATED")]
)
def test_the_ending_says_the_format(path: Path, tmp_path: Path, ending: str, begins: str) -> None:
    out = tmp_path / f"r.{ending}"
    assert main(["report", "--db", str(path), "-o", str(out)]) == 0
    assert out.read_text().startswith(begins)


def test_json_goes_to_stdout_alone(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "r1", "--db", str(path), "--format", "json", "--slo", "correct>=0.5"]) == 0
    written = json.loads(capsys.readouterr().out)
    assert [line["run_ids"] for line in written["lines"]] == [["r1"]]
    assert written["headline"]["rule"].startswith("Rule: correct>=0.5,")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["r9"], "r9"), (["--slo", "ttft_p95"], "--slo"), (["--slo", "ttft_p101<1"], "expected a metric"),
        (["-o", "no/such/r.html"], "does not exist"), (["-o", "."], "is a folder"), (["-o", "r.pdf"], "add --format"),
        (["--format", "pdf"], "pdf"), (["--db", "none.duckdb"], "none.duckdb does not exist"),
        (["-o", "{db}"], "is the database itself"),
        (["-o", "{db}", "--format", "json"], "is the database itself"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_changes_nothing(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    words: list[str], said: str,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    before = path.read_bytes()
    given = [word.replace("{db}", str(path)) for word in words]
    db = [] if "--db" in words else ["--db", str(path)]
    assert main(["report", *given, *db]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert list(tmp_path.iterdir()) == []
    assert path.read_bytes() == before
