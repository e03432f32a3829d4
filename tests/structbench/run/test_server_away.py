"""A server that is killed and started again amid a load: the load goes on, and its rows tell what happened."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from loadgen.simulator import Profile, SimulatorProcess
from structbench.cli import main
from structbench.options import LoadOptions
from structbench.run.runner import Summary
from structbench.run.runner import load as run
from structbench.run.settings import settings_of
from structbench.suites.answer_book import answer_book
from tests.support.loads import MODELS, SLOW, ask, load, until
from tests.support.scripted_server import Peer, Scripted

pytestmark = pytest.mark.slow
PROFILES: Mapping[str, Profile] = {**MODELS, "slow": SLOW}
KINDS = "SELECT coalesce(error_kind, 'completed'), count(*) FROM requests GROUP BY ALL ORDER BY ALL"


@dataclass
class Restarted:
    """A server in a process of its own, which a test kills amid a load and starts again on the same port."""

    db: Path
    port: int = 0
    server: SimulatorProcess | None = None
    summaries: list[Summary] = field(default_factory=list)

    def start(self) -> None:
        self.server = SimulatorProcess(PROFILES, answer_book(), port=self.port)
        self.port = int(self.server.url.rpartition(":")[2])

    def kill(self) -> None:
        assert self.server is not None
        os.kill(self.server.pid, signal.SIGKILL)
        self.server.close()
        self.server = None

    def answered(self, least: int) -> bool:
        assert self.server is not None
        totals = httpx.get(f"{self.server.url}/truth?summary=1", trust_env=False).json()["totals"]
        return bool(totals["completed"] >= least)

    def options(self, **more: Any) -> LoadOptions:
        given: dict[str, Any] = {
            "models": ["slow"],
            "suites": ["numbers"],
            "requests": 60,
            "concurrency": [3],
            "workers": 2,
            "host": f"127.0.0.1:{self.port}",
            "db": self.db,
            "metrics_port": 0,
        }
        return LoadOptions(**{**given, **more})  # fmt: skip

    def load(self, amid: Callable[[], None], **more: Any) -> Summary:
        """Load it, do something once a dozen requests were answered, and return how the load ended."""
        settings = settings_of(self.options(**more))
        thread = threading.Thread(target=lambda: self.summaries.append(run(settings)))
        thread.start()
        try:
            until(lambda: self.answered(12), "a dozen answers")
            amid()
        finally:
            thread.join()
        return self.summaries[-1]

    def restart(self) -> None:
        self.kill()
        time.sleep(0.7)
        self.start()


@pytest.fixture
def restarted(tmp_path: Path) -> Any:
    one = Restarted(tmp_path / "s.duckdb")
    one.start()
    yield one
    if one.server is not None:
        one.server.close()


def test_a_closed_loop_waits_and_sends_what_found_nobody(
    restarted: Restarted, capsys: pytest.CaptureFixture[str]
) -> None:
    summary = restarted.load(restarted.restart)
    assert (summary.exit_code, summary.failures) == (0, [])
    kinds = dict(ask(restarted.db, KINDS))
    assert sum(kinds.values()) == 60
    assert kinds["completed"] >= 57, "only answers that were under way are lost"
    assert set(kinds) <= {"completed", "protocol"}
    (row,) = ask(restarted.db, "SELECT status, planned FROM runs")
    assert row == ("complete", 60)
    segments = ask(restarted.db, "SELECT segment, status, away_s > 0.5 FROM segments ORDER BY segment")
    assert segments == [(0, "interrupted", None), (1, "complete", True)]
    ((kind, at_s, text),) = ask(restarted.db, "SELECT kind, at_s, text FROM notes WHERE kind = 'server_away'")
    assert (kind, at_s > 0, "the load waited" in text) == ("server_away", True, True)
    ((took_s,),) = ask(restarted.db, "SELECT duration_s FROM summary")
    ((first_to_last_s,),) = ask(restarted.db, "SELECT (max(end_ns) - min(sent_ns)) / 1e9 FROM requests")
    assert took_s < first_to_last_s - 0.5, "the pause is in no rate"
    assert main(["verify", "--db", str(restarted.db)]) == 0
    capsys.readouterr()


def test_a_server_that_comes_up_and_goes_down_again_is_waited_for_as_one_that_is_away(restarted: Restarted) -> None:
    def twice() -> None:
        restarted.kill()
        time.sleep(0.5)
        restarted.start()
        restarted.restart()

    summary = restarted.load(twice)
    assert (summary.exit_code, summary.failures) == (0, [])
    assert ask(restarted.db, "SELECT status, planned FROM runs") == [("complete", 60)]
    ((rows, failed),) = ask(restarted.db, "SELECT count(*), count(error_kind) FROM requests")
    assert (rows, failed <= 6) == (60, True), "only answers that were under way are lost"


def test_a_closed_loop_bound_by_time_goes_on_for_the_rest_of_it(restarted: Restarted) -> None:
    summary = restarted.load(restarted.restart, requests=None, duration=4.0)
    assert (summary.exit_code, summary.failures) == (0, [])
    ((status, asked_s, planned),) = ask(restarted.db, "SELECT status, asked_duration_s, planned FROM runs")
    ((rows, highest),) = ask(restarted.db, "SELECT count(*), max(request_index) FROM requests")
    assert (status, asked_s, planned) == ("complete", 4.0, rows)
    assert highest == rows - 1, "each index once"
    ((took_s,),) = ask(restarted.db, "SELECT sum(duration_s) FROM segments")
    assert took_s >= 3.5
    assert main(["verify", "--db", str(restarted.db)]) == 0


def test_an_open_loop_records_what_was_due(restarted: Restarted) -> None:
    summary = restarted.load(restarted.restart, rate=[20.0], concurrency=[], requests=160)
    assert (summary.exit_code, summary.failures) == (0, [])
    kinds = dict(ask(restarted.db, KINDS))
    assert sum(kinds.values()) == 160
    assert kinds["connect"] >= 5
    ((apart_s,),) = ask(restarted.db, "SELECT max(due_ns - earlier) / 1e9 FROM (SELECT due_ns, lag(due_ns) OVER"
                                      " (ORDER BY due_ns) AS earlier FROM requests)")  # fmt: skip
    assert apart_s == pytest.approx(0.05), "the schedule went on"
    ((share, text),) = ask(restarted.db, "SELECT share, text FROM notes WHERE kind = 'server_away'")
    assert share > 0.02
    assert "due then failed" in text


def test_a_server_that_stays_away_ends_the_load_and_skip_cached_goes_on(restarted: Restarted) -> None:
    summary = restarted.load(restarted.kill, patience=0.5)
    assert summary.exit_code == 1
    (failure,) = summary.failures
    assert "no longer answers: start it again and continue with --skip-cached" in failure
    before = dict(ask(restarted.db, "SELECT request_index, end_ns FROM requests WHERE error_kind IS NULL"))
    assert before
    restarted.start()
    again = run(settings_of(restarted.options(skip_cached=True)))
    assert again.exit_code == 0
    after = dict(ask(restarted.db, "SELECT request_index, end_ns FROM requests"))
    assert len(after) == 60
    assert before.items() <= after.items(), "what was answered is not asked again"
    assert main(["verify", "--db", str(restarted.db)]) == 0


@dataclass
class Lapse:
    """A server whose requests fail for 0.7 s after the sixth one was answered."""

    lists_models: bool
    """Whether it lists its models meanwhile, as llama.cpp does while it loads one."""
    status: int
    name: str
    answered: int = 0
    failed: int = 0
    back_s: float = 0.0

    def __call__(self, peer: Peer) -> None:
        while (asked := peer.read()) is not None:
            path, is_away = asked.head.split()[1], time.monotonic() < self.back_s
            if path == "/v1/models" and (self.lists_models or not is_away):
                self.say(peer, 200, {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "me"}]})
            elif is_away:
                self.failed += path == "/v1/chat/completions"
                self.say(peer, self.status, {"error": {"message": "Loading model", "type": "unavailable_error"}})
            elif path == "/v1/chat/completions" and asked.body.get("stream"):
                peer.head(200, {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"})
                for delta, reason in (({"content": "7"}, None), ({}, "stop")):
                    choice = {"index": 0, "delta": delta, "finish_reason": reason}
                    peer.chunk(b"data: " + json.dumps({"choices": [choice]}).encode() + b"\n\n")
                peer.chunk(b"data: [DONE]\n\n")
                peer.chunk()
                self.answered += 1
                if self.answered == 6:
                    self.back_s = time.monotonic() + 0.7
            else:
                choice = {"index": 0, "message": {"content": "7"}, "finish_reason": "length"}
                self.say(peer, 200, {"choices": [choice], "usage": {"prompt_tokens": 1, "completion_tokens": 1}})

    def say(self, peer: Peer, status: int, what: Any) -> None:
        data = json.dumps(what).encode()
        headers = {"Content-Type": "application/json", "Content-Length": str(len(data)), "Server": self.name}
        peer.head(status, headers)
        peer.sock.sendall(data)


@pytest.mark.parametrize(
    "lapse", [Lapse(True, 503, "llama.cpp"), Lapse(False, 502, "nginx"), Lapse(False, 503, "envoy")],
    ids=lambda lapse: lapse.name,
)  # fmt: skip
def test_a_server_that_loads_its_model_or_is_away_behind_a_gateway_is_waited_for(tmp_path: Path, lapse: Lapse) -> None:
    db = tmp_path / "s.duckdb"
    with Scripted(lapse) as server:
        summary = load(LoadOptions(models=["m"], suites=["numbers"], requests=40, concurrency=[2], warmup=0,
                                   host=[f"{server.url}/v1"], api="openai", db=db, metrics_port=0))  # fmt: skip
    assert (summary.exit_code, summary.failures) == (0, [])
    assert lapse.failed >= 3
    assert dict(ask(db, KINDS)) == {"completed": 40}, "what was answered in the server's place was sent again"
    segments = ask(db, "SELECT segment, status, away_s BETWEEN 0.3 AND 5 FROM segments ORDER BY segment")
    assert segments == [(0, "interrupted", None), (1, "complete", True)]
    assert ask(db, "SELECT count(*) FROM notes WHERE kind = 'server_away'") == [(1,)]


def test_a_server_that_is_full_is_not_waited_for(tmp_path: Path) -> None:
    db = tmp_path / "s.duckdb"
    with Scripted(Lapse(True, 503, "another")) as server:
        summary = load(LoadOptions(models=["m"], suites=["numbers"], requests=12, concurrency=[2], warmup=0,
                                   host=[f"{server.url}/v1"], api="openai", db=db, metrics_port=0))  # fmt: skip
    assert (summary.exit_code, summary.failures) == (0, [])
    assert dict(ask(db, KINDS)).keys() == {"completed", "http"}
    assert ask(db, "SELECT count(*), max(away_s) FROM segments") == [(1, None)]
