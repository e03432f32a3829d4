"""The language of --slo, --fail-on and --goodput: what it means, and where a mistake is."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from structbench.errors import BadInput
from structbench.gates.expressions import limits_text, parse_change, parse_limits, parse_slo
from structbench.metrics import ALIASES, LATENCIES, METRICS, metric_of
from tests.support.paths import ROOT

DOCS = ROOT / "docs"


@pytest.mark.parametrize(
    ("text", "name", "op", "value"),
    [
        ("ttft_p95<0.5", "ttft_p95", "<", 0.5), ("itl_p99<100ms", "itl_p99", "<", 0.1),
        (" itl_p99 <= 100 ms ", "itl_p99", "<=", 0.1), ("tpot_mean<500us", "tpot_mean", "<", 0.0005),
        ("e2e_p99.9<3s", "e2e_p99.9", "<", 3.0), ("ttft_due_p50<.5", "ttft_due_p50", "<", 0.5),
        ("first_answer_p95<2s", "first_answer_p95", "<", 2.0),
        ("e2e_due_p100<1e1", "e2e_due_p100", "<", 10.0), ("schema_valid>=95%", "schema_valid", ">=", 0.95),
        ("correct>=0.9", "correct", ">=", 0.9), ("error_rate<=0", "error_rate", "<=", 0.0),
        ("accuracy>100%", "accuracy", ">", 1.0), ("requests_per_s>=2", "requests_per_s", ">=", 2.0),
        ("correct_goodput>0.5/s", "correct_goodput", ">", 0.5),
        ("tool_calls_right>=90%", "tool_call_accuracy", ">=", 0.9),
        ("semantic_similarity>=0.7", "semantic_similarity", ">=", 0.7),
    ],
)  # fmt: skip
def test_an_slo_is_read_in_seconds_rates_and_shares(text: str, name: str, op: str, value: float) -> None:
    slo = parse_slo(text)
    assert (slo.metric.name, slo.op, slo.value, slo.text) == (name, op, value, text.strip())


@pytest.mark.parametrize(
    ("metric", "unit", "value", "change"),
    [
        ("ttft_p50", "s", 4.0, 4.0), ("ttft_p50", "ms", 0.004, 0.004), ("itl_p99", "us", 4e-6, 4e-6),
        ("e2e_mean", "µs", 4e-6, 4e-6), ("tpot_p50", "%", None, 0.04), ("ttft_p50", "", 4.0, None),
        ("ttft_p50", "/s", None, None), ("ttft_p50", "pp", None, None), ("goodput", "/s", 4.0, 4.0),
        ("goodput", "", 4.0, None), ("tokens_per_s", "%", None, 0.04), ("goodput", "s", None, None),
        ("correct", "%", 0.04, None), ("correct", "pp", None, 0.04), ("correct", "/s", None, None),
    ],
)  # fmt: skip
def test_what_each_unit_is_worth(metric: str, unit: str, value: float | None, change: float | None) -> None:
    for parse, worth in ((parse_slo, value), (parse_change, change)):
        if worth is None:
            with pytest.raises(BadInput, match="the unit"):
                parse(f"{metric}>4{unit}")
        else:
            assert parse(f"{metric}>4{unit}").value == worth
    if change is not None:
        assert parse_change(f"{metric}<-4{unit}").value == -change
        assert parse_change(f"{metric}>4{unit}").relative is (unit == "%")
        for none in (">0", ">-0", "<0", "<-0", "<=0"):
            assert parse_change(f"{metric}{none}{unit}").value == 0


@pytest.mark.parametrize("suffix", ["p50", "p90", "p95", "p99", "mean"])
def test_what_was_meant_is_guessed(suffix: str) -> None:
    for base in LATENCIES:
        with pytest.raises(BadInput, match=rf"a metric: did you mean {base}_{suffix}\?$"):
            parse_slo(f"{base}x_{suffix}<1")
    with pytest.raises(BadInput, match=r"expected a metric$"):
        parse_slo("xyzzy<1")
    for name in METRICS.keys() - LATENCIES.keys():
        with pytest.raises(BadInput, match=rf"did you mean {name}\?$"):
            parse_slo(f"{name}x<1")


@pytest.mark.parametrize(
    ("op", "held"), [("<", [True, False, False]), ("<=", [True, True, False]), (">", [False, False, True]),
                     (">=", [False, True, True])]
)  # fmt: skip
def test_what_each_sign_means_below_at_and_above_its_value(op: str, held: list[bool]) -> None:
    assert [parse_slo(f"goodput{op}4").holds(measured) for measured in (3.9, 4.0, 4.1)] == held
    sign = "" if op[0] == ">" else "-"
    change = parse_change(f"goodput{op}{sign}4/s")
    assert (change.text, change.metric.name, change.op) == (f"goodput{op}{sign}4/s", "goodput", op)
    shift = 4.0 if op[0] == ">" else -4.0
    assert [not change.keeps(shift + more, 10.0) for more in (-0.1, 0.0, 0.1)] == held


def test_nineteen_of_twenty_are_95_percent() -> None:
    """95 x 0.01 is 0.9500000000000001 in floating point."""
    assert parse_slo("schema_valid>=95%").holds(19 / 20)
    assert not parse_slo("schema_valid>95%").holds(19 / 20)
    assert parse_slo("ttft_p99.9<1").metric.p == 0.999


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "at the end: expected a metric such as ttft_p95"),
        ("tftt_p95<0.5", "at position 1, 'tftt_p95<0.5': expected a metric: did you mean ttft_p95?"),
        ("ttft<0.5", "at position 1, 'ttft<0.5': expected ttft_p50, ttft_p95, another percentile, or ttft_mean"),
        ("ttft_p101<1", "expected a metric"), ("requests<1", "did you mean requests_per_s?"),
        ("ttft_p95 0.5", "at position 10, '0.5': expected <, <=, > or >="),
        ("  ttft_p95=0.5", "at position 11, '=0.5': expected <"), ("ttft_p95", "at the end: expected <"),
        ("ttft_p95<", "at the end: expected a number"), ("ttft_p95<=>1", "at position 11, '>1': expected a number"),
        ("ttft_p95<1e99999999999999999999", "expected a finite number"),
        ("ttft_p95<nan", "at position 10, 'nan': expected a number"), ("ttft_p95<1e999", "expected a finite number"),
        ("ttft_p95<5min", "at position 11, 'min': expected the unit s, ms or us, or nothing more"),
        ("ttft_p95<5%", "at position 11, '%': expected the unit s"),
        ("semantic_similarity>70%", "at position 23, '%': expected no unit"),
        ("schema_valid>=95", "at position 15, '95': expected a share from 0 to 1, or a percentage"),
        ("ttft_p95<0.5 and_nothing_else_at_all", "at position 14, 'and_nothing_else_at_': expected the unit s"),
        ("requests_per_s>=2%", "at position 18, '%': expected the unit /s, or nothing more"),
        ("schema_valid>=-1%", "expected a share"), ("schema_valid>=1s", "at position 16, 's': expected the unit %"),
        ("ttft_p95<0.5 itl_p99<1", "at position 14, 'itl_p99<1'"),
        ("ttft_p95<0.5,itl_p99<1", "at position 13, ',itl_p99<1': expected nothing more"),
        ("ttft_p95<0.5\x1b[31m\n", "expected"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_that_says_where(text: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse_slo(text)
    assert said in str(raised.value)
    assert str(raised.value).startswith('--slo "')
    assert str(raised.value).isprintable()


@pytest.mark.parametrize(
    ("text", "before", "after", "holds"),
    [
        ("ttft_p95>10%", 1.0, 1.11, True), ("ttft_p95>10%", 1.0, 1.09, False), ("ttft_p95>10%", 1.0, 0.5, False),
        ("ttft_p95>50ms", 1.0, 1.06, True), ("ttft_p95>50ms", 1.0, 1.04, False),
        ("schema_valid<-2pp", 0.95, 0.92, True), ("schema_valid<-2pp", 0.95, 0.94, False),
        ("schema_valid<-2pp", 0.95, 1.0, False), ("requests_per_s<-5%", 10.0, 9.0, True),
        ("requests_per_s<-5/s", 10.0, 9.0, False), ("error_rate>0pp", 0.0, 0.01, True),
        ("requests_per_s<-5%", 10.0, 9.6, False), ("ttft_p95>10%", 0.5, 0.56, True), ("ttft_p95>10%", 0.5, 0.54, False),
        ("requests_per_s<-5/s", 10.0, 4.9, True), ("requests_per_s<-5/s", 10.0, 5.1, False),
        ("ttft_p95>10%", 0.0, 0.001, True), ("ttft_p95>10%", 0.0, 0.0, False),
    ],
)  # fmt: skip
def test_a_change_is_relative_absolute_or_in_points(text: str, before: float, after: float, holds: bool) -> None:
    assert parse_change(text).keeps(after - before, before) is not holds


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ttft_p95>0.1", "at the end: expected the unit %, s, ms or us"),
        ("requests_per_s<-2", "at the end: expected the unit % or /s"),
        ("schema_valid<-2%", "at position 16, '%': expected the unit pp (percentage points)"),
        ("ttft_p95>2pp", "at position 11, 'pp': expected the unit %, s, ms or us"),
        ("ttft_p95>10% itl_p99>1%",
         "at position 14, 'itl_p99>1%': expected nothing more; give each expression separately"),
        ("ttft_p95>-10%", "at position 10, '-10%': expected a number from 0 up, because > means a rise"),
        ("schema_valid<2pp", "at position 14, '2pp': expected a number from 0 down, because < means a fall"),
    ],
)  # fmt: skip
def test_a_change_without_a_unit_or_with_the_wrong_sign_is_a_mistake(text: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse_change(text)
    assert str(raised.value) == f'--fail-on "{text}", {said}'


@pytest.mark.parametrize(
    ("text", "limits"),
    [
        ("ttft<0.5,tpot<0.05", {"ttft_s": 0.5, "tpot_s": 0.05}),
        (" ttft<=500ms , e2e<3 s", {"ttft_s": 0.5, "e2e_s": 3.0}),
        ("itl<0.1", {"itl_mean_s": 0.1}), ("ttft_due<1,e2e_due<2", {"ttft_due_s": 1.0, "e2e_due_s": 2.0}),
        ("first_answer<2", {"first_answer_s": 2.0}),
    ],
)  # fmt: skip
def test_limits_name_columns(text: str, limits: dict[str, float]) -> None:
    assert parse_limits(text) == limits
    assert parse_limits(limits_text(limits)) == limits


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("ttft<0.5,", "at the end: expected one of ttft"), ("ttft_p95<0.5", "did you mean ttft?"),
        ("ttft>0.5", "at position 5, '>0.5': expected <"), ("ttft<1,ttft<2", "at position 8, 'ttft<2': expected each"),
        ("ttft<0.5s tpot<1", "at position 11, 'tpot<1': expected a comma or the end"),
        ("ttft<0", "at position 6, '0': expected more than 0"),
        ("ttft<0.5;tpot<1", "at position 9"), ("schema_valid<1", "expected one of"),
    ],
)  # fmt: skip
def test_a_mistake_in_the_limits_is_named(text: str, said: str) -> None:
    with pytest.raises(BadInput) as raised:
        parse_limits(text)
    assert said in str(raised.value)


@given(st.text(max_size=40))
def test_whatever_is_typed_is_read_or_refused(text: str) -> None:
    said: list[str] = []
    for parse in (parse_slo, parse_change, parse_limits):
        try:
            parse(text)
        except BadInput as error:
            said.append(str(error))
    assert all(each.isprintable() for each in said)


@given(
    st.sampled_from([*LATENCIES]), st.sampled_from(["mean", "p50", "p99", "p99.99", "p7.5"]),
    st.sampled_from(["<", "<=", ">", ">="]), st.floats(0, 1e6), st.booleans(),
)  # fmt: skip
def test_what_is_written_is_what_is_read(base: str, suffix: str, op: str, value: float, spaced: bool) -> None:
    space = " " if spaced else ""
    slo = parse_slo(f"{base}_{suffix}{space}{op}{space}{value!r}{space}s")
    assert (slo.metric.base, slo.op, slo.value) == (base, op, value)
    assert slo.metric.p == (None if suffix == "mean" else pytest.approx(float(suffix[1:]) / 100))


def test_less_is_better_of_times_and_errors_only() -> None:
    found = [metric_of(f"{name}_p95" if name in LATENCIES else name) for name in METRICS]
    assert [each.name for each in found if each is not None and each.lower_is_better] == [
        "ttft_p95", "ttft_due_p95", "first_answer_p95", "itl_p95", "tpot_p95", "e2e_p95", "e2e_due_p95", "error_rate"
    ]  # fmt: skip


def test_a_completed_answer_may_lack_answer_text_and_what_is_between_tokens() -> None:
    assert {name for name, metric in LATENCIES.items() if metric.may_be_absent} == {"first_answer", "tpot", "itl"}


def test_the_docs_name_every_metric() -> None:
    text = (DOCS / "metrics.md").read_text()
    section = text[text.index("## Names in expressions") :]
    named = set(re.findall(r"`(\w+)`", section))
    assert {*METRICS, *ALIASES} <= named
    assert all(metric_of(name) is not None for name in METRICS if name not in LATENCIES)


def test_a_name_that_is_like_nothing_known_is_told_without_a_guess() -> None:
    with pytest.raises(BadInput) as error:
        parse_slo("zzzzzz<1")
    assert str(error.value) == "--slo \"zzzzzz<1\", at position 1, 'zzzzzz<1': expected a metric"
