"""Two turns: the second is made from the model's own answer, at once, and every way out is accounted for."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import duckdb
import pytest

from loadgen import ClosedLoop, OpenLoop, Readings, Request, generate_load
from loadgen.simulator import Simulator
from loadgen.turns import UNKNOWN_TOOL, follow_up
from loadgen.types import NOT_JSON, RequestError, RequestRecord
from structbench.results.verify import problems
from structbench.scoring import Answer, score
from structbench.scoring.text import is_mentioned
from structbench.store import Reader
from structbench.suites.answer_book import answer_book
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from structbench.suites.requests import whole_conversations
from structbench.types import Case
from tests.support.loads import FAST, MODELS, ask, listening, load, small, when
from tests.support.simulators import CALL, WEATHER, user

ASKED = Request(
    index=4, model="m", messages=tuple(user("Paris?")), tools=(WEATHER,), options={"seed": 9},
    tool_results={"get_weather": "7 degrees"},
)  # fmt: skip
ANSWERS: dict[str, Any] = {"Paris?": {"calls": [CALL], "then": "It is 7 degrees."}, "hello?": {"calls": []}}


def test_the_next_turn_is_the_conversation_so_far_with_the_results() -> None:
    record = RequestRecord(
        index=4, output_text="Let me see.", thinking_text="hm", tool_calls=(CALL, {**CALL, "name": "x"})
    )
    after = follow_up(ASKED, record)
    assert after is not None
    assert (after.index, after.tools, after.options, after.tool_results) == (5, (WEATHER,), {"seed": 9}, None)
    assert after.messages == (
        *user("Paris?"),
        {"role": "assistant", "content": "Let me see.", "thinking": "hm",
         "tool_calls": [{"function": CALL}, {"function": {**CALL, "name": "x"}}]},
        {"role": "tool", "tool_name": "get_weather", "content": "7 degrees"},
        {"role": "tool", "tool_name": "x", "content": UNKNOWN_TOOL},
    )  # fmt: skip
    assert follow_up(after, record) is None, "two turns, no more"


@pytest.mark.parametrize(
    ("request_", "record"),
    [
        (replace(ASKED, tool_results=None), RequestRecord(index=4, tool_calls=(CALL,))),
        (ASKED, RequestRecord(index=4, output_text="7")),
        (ASKED, RequestRecord(index=4, tool_calls=(CALL,), error=RequestError("timeout", "late"))),
    ],
)
def test_nothing_follows_from_no_call_or_a_failure(request_: Request, record: RequestRecord) -> None:
    assert follow_up(request_, record) is None


@pytest.fixture(scope="module")
def sim() -> Iterator[Simulator]:
    models = {
        **MODELS, "half": replace(FAST, tool_shares={"no_call": 0.5}), "slow": replace(FAST, tokens_per_s=20.0),
        "silent": replace(FAST, tool_shares={"no_call": 1.0}),
    }  # fmt: skip
    with Simulator(models, answers={**answer_book(), **ANSWERS}) as server:
        yield server


def conversations(count: int, model: str = "sim:fast", text: str = "Paris?") -> list[Request]:
    return [replace(ASKED, index=2 * i, model=model, messages=tuple(user(text))) for i in range(count)]


@pytest.mark.parametrize("how", [ClosedLoop(concurrency=3), OpenLoop(rate=100.0)], ids=["closed", "open"])
def test_each_turn_is_a_request_of_its_own_sent_when_the_first_has_ended(sim: Simulator, how: Any) -> None:
    with listening(sim) as heard:
        records = {r.index: r for r in generate_load(conversations(8), how, host=sim.url, workers=2)}
    assert sorted(records) == list(range(16))
    for i in range(0, 16, 2):
        first, second = records[i], records[i + 1]
        assert (first.tool_calls, second.output_text) == ((CALL,), "It is 7 degrees.")
        assert None not in (first.end_ns, second.sent_ns, first.ttft_s, second.ttft_s)
        assert second.sent_ns > first.end_ns  # type: ignore[operator]
        assert second.due_ns == second.sent_ns, "due at the instant at which it could be sent"
        assert second.worker == first.worker
    bodies = [body for _, body in heard]
    assert sum(body["messages"][-1]["role"] == "tool" for body in bodies) == 8
    told = next(body for body in bodies if body["messages"][-1]["role"] == "tool")
    assert [message["role"] for message in told["messages"]] == ["user", "assistant", "tool"]
    assert told["messages"][1]["tool_calls"] == [{"function": CALL}]
    assert told["messages"][2]["content"] == "7 degrees"


def test_a_closed_loop_never_has_more_in_flight_for_its_second_turns(sim: Simulator) -> None:
    readings, seen = Readings(), []
    for _ in generate_load(conversations(12), ClosedLoop(concurrency=2), host=sim.url, workers=1, readings=readings):
        seen.append(readings.in_flight)
    assert len(seen) == 24
    assert 0 <= min(seen) <= max(seen) <= 2


def test_without_a_call_there_is_no_second_request(sim: Simulator) -> None:
    records = list(generate_load(conversations(3, text="hello?"), ClosedLoop(concurrency=1), host=sim.url))
    assert sorted(record.index for record in records) == [0, 2, 4]


@pytest.mark.slow
def test_a_second_turn_that_dies_with_its_worker_has_its_record(sim: Simulator) -> None:
    readings = Readings()
    with listening(sim) as heard:
        killer = when(lambda: len(heard) == 2, lambda: os.kill(readings.pids[0], signal.SIGKILL))
        load = generate_load(
            conversations(1, "slow"), ClosedLoop(concurrency=1), host=sim.url, workers=1, readings=readings
        )
        records = {record.index: record for record in load}
        killer.join()
    assert sorted(records) == [0, 1]
    assert records[0].completed
    assert records[1].error is not None
    assert records[1].error.kind == "worker_died"


# --- as a suite


def rows(db: Path) -> list[tuple[Any, ...]]:
    return ask(db, "SELECT request_index, parent_index, turn, case_id, outcome FROM requests ORDER BY request_index")


@pytest.mark.slow
def test_a_run_of_conversations_has_a_row_and_a_score_for_each_turn(sim: Simulator, tmp_path: Path) -> None:
    options = small(sim, tmp_path / "x.duckdb", suites=["turns"], requests=16, concurrency=[3])
    summary = load(options)
    found = rows(options.db)
    assert [row[:3] for row in found[:4]] == [(0, None, 1), (1, 0, 2), (2, None, 1), (3, 2, 2)]
    assert [row[3] for row in found[:2]] == ["weather-oslo", "weather-oslo/2"]
    assert {row[4] for row in found} == {"correct"}
    assert (len(found), summary.rows[0]["accuracy"], summary.rows[0]["status"]) == (16, 1.0, "complete")
    told = ask(options.db, "SELECT request_index, correct, e2e_s > ttft_s + final_ttft_s FROM conversations ORDER BY 1")
    assert told == [(i, True, True) for i in range(0, 16, 2)]


@pytest.mark.slow
def test_a_run_is_complete_without_the_turns_that_never_arose(sim: Simulator, tmp_path: Path) -> None:
    options = small(sim, tmp_path / "x.duckdb", models=["half"], suites=["turns"], requests=15, skip_cached=True)
    summary = load(options)
    found = {row[0]: row for row in rows(options.db)}
    silent = {index for index, row in found.items() if row[4] == "no_call"}
    assert silent
    assert found.keys() == set(range(15)) - {index + 1 for index in silent}
    assert 15 not in found, "an odd number of turns ends with a first one"
    assert (summary.rows[0]["status"], summary.rows[0]["planned"]) == ("complete", 15)
    with Reader(options.db) as reader:
        assert list(problems(reader)) == [], "`structbench verify` misses nothing"
    ended = ask(options.db, "SELECT request_index FROM conversations WHERE final_outcome IS NULL AND NOT correct")
    assert {index for (index,) in ended} == silent | {14}
    assert load(options).rows[0]["cache"] == "skipped"


@pytest.mark.slow
def test_a_last_turn_that_never_arose_was_planned_all_the_same(sim: Simulator, tmp_path: Path) -> None:
    summary = load(small(sim, tmp_path / "x.duckdb", models=["silent"], suites=["turns"], requests=4))
    assert [row[0] for row in rows(tmp_path / "x.duckdb")] == [0, 2]
    assert (summary.rows[0]["status"], summary.rows[0]["planned"]) == ("complete", 4)
    with Reader(tmp_path / "x.duckdb") as reader:
        assert list(problems(reader)) == []


@pytest.mark.slow
def test_a_conversation_is_continued_from_its_first_turn(sim: Simulator, tmp_path: Path) -> None:
    options = small(sim, tmp_path / "x.duckdb", suites=["turns"], requests=16, skip_cached=True)
    load(options)
    with duckdb.connect(str(options.db)) as con:
        con.execute("DELETE FROM requests WHERE request_index IN (3, 8)")
        con.execute("UPDATE runs SET status = 'interrupted'")
    with listening(sim) as heard:
        summary = load(options)
    asked = [body["messages"][-1]["role"] for _, body in heard if "messages" in body and len(body.get("tools", ()))]
    assert sorted(asked) == ["tool", "tool", "user", "user"], "both turns of both, and nothing else"
    assert (summary.rows[0]["cache"], summary.rows[0]["status"]) == ("resumed", "complete")
    assert [row[0] for row in rows(options.db)] == list(range(16))


def test_missing_turns_bring_the_other_turn_with_them() -> None:
    cases = load_suite("turns", text=TextShape(), seed=0).cases
    assert whole_conversations(cases, [1, 4, 15], 16) == [0, 1, 4, 5, 14, 15]
    assert whole_conversations(cases, [14], 15) == [14]
    numbers = load_suite("numbers", text=TextShape(), seed=0).cases
    assert whole_conversations(numbers, [1, 4], 16) == [1, 4]


# --- mentions


@pytest.mark.parametrize(
    ("text", "answer", "there"),
    [
        ("7", "It is 7 degrees.", True), ("7", "It is 7.", True), ("7", "7", True), ("7", "7°C", True),
        ("7", "17 degrees", False), ("7", "7.5 degrees", False), ("7", "0.7", False), ("7", "7,5", False),
        ("7", "-7 degrees", False), ("-7", "-7 degrees", True), ("50.6", "$50.60", False), ("50.60", "$50.60.", True),
        ("Oslo", "OSLO!", True), ("no", "snow", False), ("a+b", "is a+b here", True),
        ("7", "It is 7C in Oslo.", True), ("7", "在奥斯陆现在是7度。", True), ("°C", "7°C", True), ("%", "20%", True),
        ("7", "\u20137 degrees", False), ("7", "\u22127 degrees", False), ("7", "17C", False), ("7C", "17C", False),
        ("50.6", "150.6", False), ("$50", "US$50", True),
        ("C", "7C", True), ("C", "7Cal", False), ("m²", "9m²", True), ("m²", "9cm²", False),
        ("_Oslo_", "a_Oslo_b", True), ("Oslo", "_Oslo_", True), ("Oslo", "**__Oslo__**", True),
        ("Oslo", "to_Oslo", False), ("Oslo", "Oslo_1", False), ("Oslo", "to__Oslo", False), ("7", "It is _7_.", True),
        ("7", "___7___", True), ("7", "max_7", False), ("7", "7_000", False), ("Öl", "Erdöl", False),
        ("奥斯陆", "在奥斯陆现在是7度。", True),
        ("7", "7\u202f000 km", False), ("7", "7\u00a0000 km", False), ("7", "7\u2009000 km", False),
        ("7", "7 000", False), ("7", "7{,}000", False), ("500", "7\u202f500", False), ("500", "in 2020 500 came", True),
        ("7", "7'000", False), ("7", "7\u2019000", False), ("7", "7e3 m", False), ("7", "7×10³", False),
        ("7", "7 × 10^3", False), ("7", "7 million", False), ("7", "7k", False), ("7", "7²", False), ("7", "7½", False),
        ("7", "minus 7", False), ("7", "7 point 5", False), ("7", "a .7 share", False), ("7", "7 km", True),
        ("7", "7 of 1000", True), ("7", "7K", True), ("7", "7 500 g bags", True), ("7", "7-day", True),
        ("7", "17 or 7", True), ("7", "7 million or 7", True), ("7 000", "7 000 km", True), ("-7", "it is -7", True),
        ("seven", "twenty seven degrees", False), ("seven", "twenty-seven", False), ("seven", "seven hundred", False),
        ("seven", "a hundred and seven", False), ("seven", "minus seven", False), ("seven", "seven point five", False),
        ("seven", "zero point seven", False), ("seven", "At this point seven of them left", True),
        ("seven", "seven degrees", True), ("twenty", "twenty seven", False), ("twenty", "twenty degrees", True),
        ("eighty-three", "It is eighty-three.", True), ("eighty-three", "eighty-three thousand", False),
        ("seven", "Seven, and a half", True), ("seven", "seven and a half", False),
        ("C", "I would use C++.", False), ("C", "C# it is", False), ("C", "C, not C++", True), ("C", "C.", True),
        ("B", "a B+", False), ("H2", "water is H2O", False), ("H2", "H2 and O2", True), ("12:30", "at 12:30:15", False),
        ("12:30", "at 12:30pm", True), ("30", "at 12:30", False), ("$50", "$50 million", False), ("20", "20%", True),
    ],
)  # fmt: skip
def test_a_mention_is_a_word_or_number_of_its_own(text: str, answer: str, there: bool) -> None:
    assert is_mentioned(text, answer) is there


def test_no_shipped_question_is_answered_by_a_word_that_any_answer_may_hold() -> None:
    mentions = [
        text
        for case in load_suite("turns", text=TextShape(), seed=0).cases
        for group in case.mentions
        for text in group
    ]
    idle = "Yes, you should expect it there today, so do not forget your umbrella; no doubt."
    assert [text for text in mentions if is_mentioned(text, idle)] == []


def test_mentions_are_scored_by_group() -> None:
    case = Case(id="a", messages=(), mentions=(("7", "seven"), ("Oslo",)))
    told = {
        text: score(case, Answer(output_text=text, done_reason="stop"))
        for text in ("Seven in Oslo", "7 degrees", " ", "nothing")
    }
    assert [(s.outcome, s.accuracy_score) for s in told.values() if s] == [
        ("correct", 1.0), ("wrong_value", 0.5), ("no_output", 0.0), ("wrong_value", 0.0),
    ]  # fmt: skip
    half = told["7 degrees"]
    assert half is not None
    assert half.validation_errors == ("(root): mentions: 'Oslo' is missing",)
    cut = score(case, Answer(output_text="7 deg", done_reason="length"))
    assert cut is not None
    assert cut.outcome == "truncated"


def test_a_call_whose_arguments_are_no_json_is_not_carried_out() -> None:
    request = Request(index=0, model="m", tool_results={"f": "1"})
    calls = ({"name": "f", "arguments": {}}, {"name": "f", "arguments": {NOT_JSON: "{"}})
    assert follow_up(request, RequestRecord(index=0, tool_calls=calls)) is None
    assert follow_up(request, RequestRecord(index=0, tool_calls=calls[:1])) is not None
