"""What people and programs read at the end says what was measured, no more, at any width."""
# ruff: noqa: E501 - the tables are shown as they are

from __future__ import annotations

import io
import json
import math
import re
from datetime import datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import duckdb
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from structbench import __version__
from structbench.formatting import (
    bytes_text,
    clock_text,
    latency_text,
    plural,
    printable,
    rate_text,
    share_text,
    span_text,
)
from structbench.metrics import METRICS
from structbench.reports import RUN_KEYS, pooled, print_overview, print_table, runs_text, to_json
from structbench.store.schema import migrate

JSON_RUN: dict[str, Any] = {
    "run_id": "r1", "model": "smollm2:360m", "suite": "json", "load": "c=4", "cache": "new", "status": "complete",
    "planned": 300, "requests": 300, "completed": 298, "errors": 2, "dropped": 0, "scored": 298,
    "ttft_p50_s": 0.0842, "ttft_p95_s": 0.31, "ttft_p99_s": 1.24, "itl_p50_s": 0.0084, "itl_p99_s": 0.0151,
    "tpot_p50_s": 0.0091, "stream_tokens_per_s": 109.9, "tokens_per_s": 212.4, "requests_per_s": 4.1,
    "e2e_p50_s": 1.24, "e2e_p95_s": 12.34, "json_valid": 0.97, "schema_valid": 0.9333, "accuracy": 0.91,
    "correct": 280, "correct_goodput": 3.84, "output_tokens": 15400, "duration_s": 72.7, "verdict": "valid",
    "started_at": datetime(2026, 9, 1, 12, 0, 0),
}  # fmt: skip
TOOLS_RUN: dict[str, Any] = {
    **JSON_RUN, "run_id": "r2", "suite": "tools", "load": "c=16", "cache": "resumed", "status": "interrupted",
    "requests": 120, "completed": 120, "errors": 0, "scored": 120, "json_valid": None, "schema_valid": None,
    "tool_call_accuracy": 0.85, "accuracy": 0.85, "correct": 102, "verdict": "degraded",
    "verdict_reason": "this client fell behind", "warnings": ["the server has one slot"],
}  # fmt: skip
TEXT_RUN: dict[str, Any] = {
    "run_id": "r3", "model": "llama3.2:1b", "suite": "text", "load": "rate=10/s poisson", "cache": "skipped",
    "status": "complete", "planned": 50, "requests": 50, "completed": 0, "errors": 50, "verdict": "invalid",
    "verdict_reason": "no request completed", "warnings": ["the server has one slot"],
}  # fmt: skip
RUNS = [JSON_RUN, TOOLS_RUN, TEXT_RUN]


def console(width: int, **options: Any) -> tuple[Console, io.StringIO]:
    out = io.StringIO()
    return Console(file=out, width=width, **{"color_system": None, **options}), out


def table(rows: list[dict[str, Any]], width: int) -> str:
    shown, out = console(width)
    print_table(rows, shown)
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n"))


def overview(rows: list[dict[str, Any]], width: int, total_s: float = 192.3) -> str:
    shown, out = console(width)
    print_overview(rows, shown)
    shown.print(runs_text(rows, total_s))
    return "\n".join(line.rstrip() for line in out.getvalue().split("\n"))


# The table

NOTES = """
* interrupted: run the same command with --skip-cached to continue
(1) this client fell behind
(2) no request completed
warning: the server has one slot (smollm2:360m tools c=16 and 1 more)
"""
TABLE_100 = """\
Speed
                            TTFT    TTFT   TTFT     ITL    ITL    TPOT   tok/s  tok/s    e2e     e2e
cell                         p50     p95    p99     p50    p99     p50  stream    all    p50     p95
────────────────────────────────────────────────────────────────────────────────────────────────────
smollm2:360m json c=4      84 ms  310 ms  1.2 s  8.4 ms  15 ms  9.1 ms     110    212  1.2 s  12.3 s
smollm2:360m tools c=16    84 ms  310 ms  1.2 s  8.4 ms  15 ms  9.1 ms     110    212  1.2 s  12.3 s
llama3.2:1b text               –       –      –       –      –       –       –      –      –       –
rate=10/s poisson

Answers
                                            JSON schema  tools          correct
cell                      requests errors  valid  valid  right accuracy   per s cache   verdict
────────────────────────────────────────────────────────────────────────────────────────────────────
smollm2:360m json c=4          300      2 97.0 % 93.3 %      –   91.0 %     3.8 new     valid
smollm2:360m tools c=16   120/300*      0      –      – 85.0 %   85.0 %     3.8 resumed degraded (1)
llama3.2:1b text                50     50      –      –      –        –       – skipped invalid (2)
rate=10/s poisson
"""
TABLE_200 = """\
                                                           TTFT    TTFT   TTFT     ITL    ITL    TPOT   tok/s  tok/s    e2e     e2e    JSON  schema   tools            correct
model         suite  load               requests  errors    p50     p95    p99     p50    p99     p50  stream    all    p50     p95   valid   valid   right  accuracy    per s  cache    verdict
─────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────────
smollm2:360m  json   c=4                     300       2  84 ms  310 ms  1.2 s  8.4 ms  15 ms  9.1 ms     110    212  1.2 s  12.3 s  97.0 %  93.3 %       –    91.0 %      3.8  new      valid
smollm2:360m  tools  c=16               120/300*       0  84 ms  310 ms  1.2 s  8.4 ms  15 ms  9.1 ms     110    212  1.2 s  12.3 s       –       –  85.0 %    85.0 %      3.8  resumed  degraded (1)
llama3.2:1b   text   rate=10/s poisson        50      50      –       –      –       –      –       –       –      –      –       –       –       –       –         –        –  skipped  invalid (2)
"""
TABLE_80 = """\
Speed
                 TTFT   TTFT  TTFT    ITL   ITL   TPOT  tok/s tok/s   e2e    e2e
cell              p50    p95   p99    p50   p99    p50 stream   all   p50    p95
────────────────────────────────────────────────────────────────────────────────
smollm2:360m    84 ms 310 ms 1.2 s 8.4 ms 15 ms 9.1 ms    110   212 1.2 s 12.3 s
json c=4
smollm2:360m    84 ms 310 ms 1.2 s 8.4 ms 15 ms 9.1 ms    110   212 1.2 s 12.3 s
tools c=16
llama3.2:1b         –      –     –      –     –      –      –     –     –      –
text rate=10/s
poisson

Answers
                                                  JSON  schema   tools
cell                          requests  errors   valid   valid   right  accuracy
────────────────────────────────────────────────────────────────────────────────
smollm2:360m json c=4              300       2  97.0 %  93.3 %       –    91.0 %
smollm2:360m tools c=16       120/300*       0       –       –  85.0 %    85.0 %
llama3.2:1b text rate=10/s          50      50       –       –       –         –
poisson

Answers
                                    correct
cell                                  per s  cache    verdict
──────────────────────────────────────────────────────────────────
smollm2:360m json c=4                   3.8  new      valid
smollm2:360m tools c=16                 3.8  resumed  degraded (1)
llama3.2:1b text rate=10/s poisson        –  skipped  invalid (2)
"""
OVERVIEW_80 = """\
Success rates
                                                JSON  schema   tools
                requests  completed  correct   valid   valid   right  accuracy
──────────────────────────────────────────────────────────────────────────────
by model
  smollm2:360m       420     99.5 %   91.4 %  97.0 %  93.3 %  85.0 %    89.3 %
  llama3.2:1b         50      0.0 %        –       –       –       –         –
by suite
  json               300     99.3 %   94.0 %  97.0 %  93.3 %       –    91.0 %
  tools              120    100.0 %   85.0 %       –       –  85.0 %    85.0 %
  text                50      0.0 %        –       –       –       –         –
all                  470     88.9 %   91.4 %  97.0 %  93.3 %  85.0 %    89.3 %

3 runs (1 new, 1 resumed, 1 skipped) in 3 min 12 s
"""


def test_table_at_100_columns() -> None:
    assert table(RUNS, 100) == TABLE_100 + NOTES + "\n"


def test_table_at_200_columns_is_one() -> None:
    assert table(RUNS, 200) == TABLE_200 + NOTES + "\n"


def test_table_at_80_columns() -> None:
    assert table(RUNS, 80) == TABLE_80 + NOTES + "\n"


@pytest.mark.parametrize("width", [80, 100, 120, 160, 200, 250])
def test_no_number_is_wrapped_or_cut(width: int) -> None:
    long = {**TOOLS_RUN, "model": "hf.co/bartowski/Llama-3.2-3B-Instruct-GGUF:Q4_K_M", "load": "rate=10/s poisson"}
    shown = table([JSON_RUN, long], width)
    assert max(map(len, shown.split("\n"))) <= width
    assert "…" not in shown
    for figure in ("84 ms", "310 ms", "1.2 s", "8.4 ms", "15 ms", "9.1 ms", "110", "212", "12.3 s"):
        assert len(re.findall(rf"(?<!\S){figure}(?!\S)", shown)) >= 2, figure
    for figure in ("97.0 %", "93.3 %", "85.0 %", "91.0 %", "120/300*", "degraded (1)"):
        assert figure in shown


def test_absent_is_a_dash_and_never_zero() -> None:
    row = {"model": "m", "suite": "text", "load": "c=1", "ttft_p50_s": math.nan, "accuracy": math.inf}
    body = table([row], 250).split("\n")[3]
    assert set(body.split()) == {"m", "text", "c=1", "–"}


def test_empty_input_is_said() -> None:
    assert table([], 100) == "No runs.\n"


def test_run_bound_by_time_is_marked_when_interrupted() -> None:
    assert " 120* " in table([{**TOOLS_RUN, "planned": None}], 220)


def test_the_first_answer_has_columns_only_where_some_answer_had_thinking() -> None:
    known = {**JSON_RUN, "first_answer_p50_s": 0.5, "first_answer_p95_s": 2.5, "thinking": 0}
    assert "answer" not in table([known], 220)
    shown = table([{**known, "thinking": 3}, TOOLS_RUN], 220)
    assert re.search(r"first +first", shown)
    assert "500 ms   2.5 s" in shown
    assert all(len(line) <= 80 for line in table([{**known, "thinking": 3}], 80).splitlines())


def test_the_same_reason_is_given_once() -> None:
    shown = table([TOOLS_RUN, {**TOOLS_RUN, "load": "c=32"}], 220)
    assert shown.count("this client fell behind") == 1
    assert shown.count("degraded (1)") == 2


@pytest.mark.parametrize("width", [90, 250])
def test_names_from_outside_drive_neither_markup_nor_terminal(width: int) -> None:
    hostile = {"model": "[red]m[/] :smile:", "suite": "s\x1b[31m", "load": "c=1"}
    row = {**TOOLS_RUN, **hostile, "verdict_reason": "said [/x]\nand \x1b]0;t\x07", "warnings": ["w [/y]"]}
    shown, out = console(width, force_terminal=True, color_system="truecolor", _environ={"TERM": "xterm"})
    print_table([row, row], shown)
    print_overview([row, row], shown)
    text = re.sub(r"\x1b\[[0-9;]*m", "", out.getvalue())
    assert "\x1b" not in text
    assert "[red]m[/] :smile:" in text
    assert "s�[31m" in text
    assert "(1) said [/x] and �]0;t�" in text
    assert "warning: w [/y]" in text


def test_verdict_and_errors_stand_out_in_colour() -> None:
    shown, out = console(250, force_terminal=True, color_system="standard", _environ={"TERM": "xterm"})
    print_table(RUNS, shown)
    text = out.getvalue()
    for colour, word in ((32, "valid"), (33, "degraded"), (31, "invalid")):
        assert f"\x1b[{colour}m{word}" in text
    assert re.search(r"\x1b\[31m *2\x1b", text)
    assert not re.search(r"\x1b\[31m *0\x1b", text)


# The overview


def test_overview_at_80_columns() -> None:
    assert overview(RUNS, 80) == OVERVIEW_80


def test_one_run_needs_no_overview_but_its_time() -> None:
    assert overview([JSON_RUN], 80, 4.26) == "1 run (1 new) in 4.3 s\n"


def test_shares_are_weighted_by_the_answers_they_are_of() -> None:
    few = {"requests": 100, "completed": 100, "scored": 10, "accuracy": 0.0, "correct": 0}
    many = {"requests": 100, "completed": 90, "scored": 90, "accuracy": 1.0, "correct": 90}
    figures = pooled([few, many, TEXT_RUN])
    assert figures["accuracy"] == pytest.approx(0.9)
    assert figures["correct_share"] == pytest.approx(0.9)
    assert figures["completed_share"] == pytest.approx(190 / 250)
    assert figures["json_valid"] is None


def test_without_their_count_completed_requests_stand_in_as_weight() -> None:
    figures = pooled([
        {"requests": 50, "completed": 10, "json_valid": 0.0},
        {"requests": 30, "completed": 30, "json_valid": 1.0},
    ])  # fmt: skip
    assert figures["json_valid"] == pytest.approx(0.75)


def test_rejected_answers_of_a_run_without_completed_ones_still_weigh() -> None:
    assert pooled([{"requests": 5, "completed": 0, "scored": 5, "accuracy": 0.0, "correct": 0}])["accuracy"] == 0.0


@given(st.lists(st.lists(st.booleans(), min_size=1, max_size=30), min_size=1, max_size=6))
def test_pooled_share_is_that_of_all_answers_together(runs: list[list[bool]]) -> None:
    rows = [
        {"requests": len(run), "completed": len(run), "accuracy": sum(run) / len(run), "correct": sum(run)}
        for run in runs
    ]
    answers = [answer for run in runs for answer in run]
    figures = pooled(rows)
    assert figures["accuracy"] == pytest.approx(sum(answers) / len(answers))
    assert figures["correct_share"] == pytest.approx(sum(answers) / len(answers))


def test_pooling_nothing_claims_nothing() -> None:
    assert {key: value for key, value in pooled([]).items() if value is not None} == {
        "runs": 0, "requests": 0, "completed": 0, "errors": 0,
    }  # fmt: skip


# JSON


def test_json_has_every_key_and_survives_a_strict_round_trip() -> None:
    found = to_json([*RUNS, {}], 192.3)
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    assert list(found) == ["structbench_version", "total_s", "runs", "by_model", "by_suite", "by_server", "all"]
    assert (found["structbench_version"], found["total_s"]) == (__version__, 192.3)
    assert all(set(RUN_KEYS) <= set(run) for run in found["runs"])
    assert found["runs"][0]["ttft_p50_s"] == 0.0842
    assert found["runs"][0]["warnings"] == []
    assert found["runs"][2]["ttft_p50_s"] is None
    assert [entry["model"] for entry in found["by_model"]][:2] == ["smollm2:360m", "llama3.2:1b"]
    assert [entry["suite"] for entry in found["by_suite"]][:3] == ["json", "tools", "text"]
    assert found["all"]["requests"] == 470


def test_json_of_odd_values() -> None:
    east = timezone(timedelta(hours=2))
    run = to_json(
        [{
            "ttft_p50_s": math.nan, "e2e_p50_s": math.inf, "accuracy": Decimal("0.5"), "warnings": ("a",),
            "started_at": datetime(2026, 9, 1, 12), "finished_at": datetime(2026, 9, 1, 14, tzinfo=east), "new": {1: 2},
        }],
        1.0,
    )["runs"][0]  # fmt: skip
    assert (run["ttft_p50_s"], run["e2e_p50_s"], run["accuracy"]) == (None, None, 0.5)
    assert (run["started_at"], run["finished_at"]) == ("2026-09-01T12:00:00+00:00", "2026-09-01T14:00:00+02:00")
    assert (run["warnings"], run["new"]) == (["a"], {"1": 2})


def test_every_key_is_a_column_of_the_store_s_view() -> None:
    with duckdb.connect() as con:
        migrate(con, 0)
        columns = {column[0] for column in con.execute("SELECT * FROM summary").description}
    assert set(RUN_KEYS) - columns == {"cache", "notes", "warnings"}
    assert {metric.scored for metric in METRICS.values() if metric.scored} <= columns


# Wording


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0, "0.00 ms"), (0.000_42, "0.42 ms"), (0.000_996, "1.0 ms"), (0.0084, "8.4 ms"), (0.009_96, "10 ms"),
        (0.084, "84 ms"), (0.9994, "999 ms"), (0.9996, "1.0 s"), (1.24, "1.2 s"), (12.34, "12.3 s"), (99.96, "100 s"),
        (1234.5, "1,234 s"), (None, "–"), (math.nan, "–"), (math.inf, "–"),
    ],
)  # fmt: skip
def test_latency(seconds: float | None, shown: str) -> None:
    assert latency_text(seconds) == shown


@given(st.floats(1e-4, 1e5))
def test_latency_is_never_more_than_six_percent_off(seconds: float) -> None:
    value, unit = latency_text(seconds).split()
    assert float(value.replace(",", "")) * {"ms": 1e-3, "s": 1}[unit] == pytest.approx(seconds, rel=0.06)


@pytest.mark.parametrize(
    ("n", "shown"),
    [
        (0, "0 B"), (840, "840 B"), (999.6, "1.0 kB"), (12_400_000, "12.4 MB"), (210e6, "210 MB"), (1.6e9, "1.6 GB"),
        (2.5e15, "2,500 TB"), (None, "–"), (math.nan, "–"),
    ],
)  # fmt: skip
def test_memory(n: float | None, shown: str) -> None:
    assert bytes_text(n) == shown


@pytest.mark.parametrize(
    ("share", "shown"),
    [(0.9333, "93.3 %"), (1, "100.0 %"), (0.99999, "99.9 %"), (0, "0.0 %"), (0.00001, "0.1 %"), (None, "–")],
)
def test_share_says_all_and_none_only_when_it_is_so(share: float | None, shown: str) -> None:
    assert share_text(share) == shown


@pytest.mark.parametrize(("share", "shown"), [(0.999, "99 %"), (1.0, "100 %"), (0.001, "1 %"), (0.934, "93 %")])
def test_share_without_digits(share: float, shown: str) -> None:
    assert share_text(share, 0) == shown


@pytest.mark.parametrize(
    ("per_s", "shown"),
    [(0, "0.0"), (0.04, "0.04"), (4.12, "4.1"), (99.96, "100"), (212.4, "212"), (1234.5, "1,234"), (None, "–")],
)
def test_rate(per_s: float | None, shown: str) -> None:
    assert rate_text(per_s) == shown


@pytest.mark.parametrize(
    ("seconds", "span", "clock"),
    [
        (0, "0.0 s", "0:00"), (9.96, "10 s", "0:10"), (44.4, "44 s", "0:44"), (59.6, "1 min 00 s", "1:00"),
        (200, "3 min 20 s", "3:20"), (3599.6, "1 h 00 min", "1:00:00"), (3900, "1 h 05 min", "1:05:00"),
        (None, "–", "–"),
    ],
)  # fmt: skip
def test_spans(seconds: float | None, span: str, clock: str) -> None:
    assert (span_text(seconds), clock_text(seconds)) == (span, clock)


@pytest.mark.parametrize(("n", "shown"), [(0, "0 errors"), (1, "1 error"), (1234, "1,234 errors")])
def test_plural(n: int, shown: str) -> None:
    assert plural(n, "error") == shown


@given(st.text())
def test_printable_is_one_line_and_changes_nothing_that_is_harmless(text: str) -> None:
    shown = printable(text)
    assert len(shown) == len(text)
    assert shown.isprintable()
    assert all(a == b for a, b in zip(text, shown, strict=True) if a.isprintable())
