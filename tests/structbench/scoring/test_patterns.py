"""Patterns by ECMA-262, and searches that could take for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from structbench.scoring import patterns
from structbench.scoring.patterns import BadPattern, compiled, search
from structbench.scoring.time_limit import OutOfTime, limited
from tests.support.loads import until

ENDLESS = "^(a+)+$", "a" * 60 + "!"


@pytest.mark.parametrize(
    ("pattern", "text", "found"),
    [
        (r"^\d{3}$", "123", True), (r"^\d{3}$", "123\n", False), (r"^\d{3}$", "१२३", False),
        (r"^\p{L}+$", "abc", True), (r"^\p{L}+$", "ab1", False), (r"^[\w-]+\.x$", "a-b.x", True),
        (r"^\S*$", "\ufeff", False), ("b", "abc", True), (r"\cJ", "a\nb", True), ("^a.c$", "a\u2028c", False),
        ("^.$", "\U0001f600", True), ("(?<year>\\d{4})", "in 2026", True), ("^\\u{1F600}$", "\U0001f600", True),
        (r"^[\p{L}\s\'\-]+$", "Ana-Ö'é", True), (r"^[\p{L}\s\'\-]+$", "p{L}", False),
        (r"^\p{Sc}\d+\,\d{2}$", "€5,00", True), (r"^\#\p{L}+$", "#é", True), (r"^\p{Lu}\ \p{Lu}$", "É A", True),
        (r"^[^\p{L}]+\!$", "12!", True), (r"^[^\p{L}]+\!$", "a!", False), (r"^\\\-$", "\\-", True),
        (r"^[a\-c]$", "b", False), (r"^a\-\d$", "a-1", True), (r"^[a]\-\p{L}$", "a-é", True),
        (r"^\#\.\p{L}$", "#.é", True), (r"^\#\.\p{L}$", "#xé", False),
        (r"^\#.$", "#\U0001f600", True), (r"^{a}\d\n$", "{a}1\n", True), ("^[^]]$", "a]", True),
    ],
)  # fmt: skip
def test_a_pattern_means_what_it_means_in_ecma_262(pattern: str, text: str, found: bool) -> None:
    assert search(pattern, text) is found


def test_half_a_surrogate_pair_can_be_searched() -> None:
    assert search("^.$", "\ud83d")


@pytest.mark.parametrize("pattern", ["(", "[b-a]", "a{2,1}", "(?P<n>a)"])
def test_what_is_no_pattern_is_told(pattern: str) -> None:
    assert compiled(pattern) is None
    with pytest.raises(BadPattern, match="is not a regular expression of ECMA-262"):
        search(pattern, "a")


@pytest.mark.parametrize(
    "pattern",
    [r"\p{Han}", r"\p{Latin}\-", r"\A\d\z", r"^\d\Z", "[[:digit:]]", "[^_[:alpha:]]", r"\pL", r"\h", r"\Qa\E",
     r"\x{41}", r"\i\c*", "[a-z&&[^b]]"],
)  # fmt: skip
def test_what_another_dialect_would_read_in_its_own_way_is_none_of_ecma_262(pattern: str) -> None:
    assert compiled(pattern) is None


def test_the_older_mode_is_for_those_who_are_not_strict() -> None:
    assert compiled(r"\-") is not None
    assert compiled(r"\-", strict=True) is None


def test_a_search_that_could_take_long_is_done_elsewhere_and_has_an_answer() -> None:
    assert search("^(a+)+$", "aaa")
    assert not search(r"^(\w+)\1$", "abcab")


@pytest.mark.slow
def test_an_endless_search_ends_by_its_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "SEARCH_LIMIT_S", 0.1)
    with pytest.raises(BadPattern, match=r"took longer than 0\.1 s of CPU time"):
        search(*ENDLESS)
    assert search("^(a+)+$", "aaa"), "the next one has a new process"
    with pytest.raises(OutOfTime):
        limited(0.1, lambda: search(*ENDLESS))


@pytest.mark.slow
def test_a_search_ends_with_the_process_that_asked_for_it() -> None:
    script = (
        "import signal, threading\n"
        "from structbench.scoring import patterns\n"
        "patterns.SEARCH_LIMIT_S = 1000.0\n"
        "signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGPROF, signal.SIGIO})\n"
        f"threading.Thread(target=patterns.search, args={ENDLESS!r}, daemon=True).start()\n"
        "while patterns._helper._process is None: pass\n"
        "print(patterns._helper._process.pid, flush=True)\n"
        "threading.Event().wait()\n"
    )
    asker = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True)
    assert asker.stdout is not None
    helper = Path("/proc") / asker.stdout.readline().strip()
    # Its start takes less than this; what comes after is the search.
    until(lambda: int((helper / "stat").read_text().split()[13]) > 300, "a search of three seconds", 120)
    asker.kill()
    asker.wait()
    asker.stdout.close()
    until(lambda: not helper.exists(), "the end of the search")


def test_many_searches_in_a_row_are_all_answered() -> None:
    helper = patterns._Helper()
    try:
        assert all(helper.search("^(([0-9]|[a-f]){2}){0,32}$", "ab" * 8) for _ in range(500))
    finally:
        helper.close()
