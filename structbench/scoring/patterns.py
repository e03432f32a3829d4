"""Regular expressions of schemas, by ECMA-262 as JSON Schema wants them, with a limit on the time of one search.

The engine (``regress``) cannot be interrupted. A search that could take long is therefore done in a process of its
own, which is killed when the time is up; nearly all searches cannot, and are done here.
"""

from __future__ import annotations

import atexit
import fcntl
import os
import re
import signal
import socket
from collections.abc import Iterator
from contextlib import suppress
from functools import lru_cache
from select import select
from typing import TYPE_CHECKING, Any

from loadgen.engine.child import frame, receive, spawn
from structbench.scoring.time_limit import OutOfTime, limit_s

if TYPE_CHECKING:
    import subprocess

    from regress import Regex

SEARCH_LIMIT_S = 1.0
"""How much CPU time one search may take where no other limit is in force."""
_GRACE_S = 30.0
_MAX_STEPS = 1_000_000
"""A search of at most this many steps (some milliseconds) is done here."""
_PIECES = re.compile(r"\\.|\[(?:\\.|[^\]\\])*\]|\)\?|[)?*+]|\{\d+(?:,\d*)?\}|.", re.DOTALL)


_ESCAPE_OR_CLASS = re.compile(r"\\.|[\[\]]", re.DOTALL)
_ESCAPABLE = "\\/^$.*+?()[]{}|"
_NOT_ECMA = re.compile(
    r"(?<!\\)(?:\\\\)*(?:\\[aeg-jlmoqyzACE-OQRTUVX-Z]|\\[pP]|\\x(?![\da-fA-F]{2})|\\u(?![\da-fA-F]{4})|\[:\^?\w+:\]|&&\[)"
)
"""What other dialects give a meaning (``\\A``, ``\\p{Han}``, ``[:digit:]``), and ECMA-262's older mode none."""


class BadPattern(Exception):
    """The pattern is not a regular expression, or a search for it took too long."""


@lru_cache(maxsize=4096)
def compiled(pattern: str, *, strict: bool = False) -> Regex | None:
    """Compile by ECMA-262 in Unicode mode; None: it is not of ECMA-262.

    Unless ``strict``, needless escapes (``\\-``) do no harm, and what only the older mode knows is read in that.
    """
    text = _encodable(pattern)
    regex = _compiled(text, "u")
    if regex is None and not strict:
        regex = _compiled(_ESCAPE_OR_CLASS.sub(_Unescaping(), text), "u")
        if regex is None and not _NOT_ECMA.search(text):
            regex = _compiled(text, "")
    return regex


def _compiled(pattern: str, flags: str) -> Regex | None:
    from regress import Regex, RegressError

    with suppress(RegressError):
        return Regex(pattern, flags)
    return None


class _Unescaping:
    """Replaces each needless escape by its character: of what is no letter, and has no meaning of its own there."""

    def __init__(self) -> None:
        self.in_class = False

    def __call__(self, found: re.Match[str]) -> str:
        token = found[0]
        if len(token) == 1:
            self.in_class = token == "[" or (self.in_class and token != "]")
            return token
        character = token[1]
        needed = (character.isascii() and character.isalnum()) or character in _ESCAPABLE
        return token if needed or (character == "-" and self.in_class) else character


def search(pattern: str, text: str) -> bool:
    """Return whether the pattern is found anywhere in the text; BadPattern if that cannot be said."""
    regex = compiled(pattern)
    if regex is None:
        raise BadPattern(f"{pattern!r} is not a regular expression of ECMA-262")
    text = _encodable(text)
    if _steps(pattern, len(text)) <= _MAX_STEPS:
        return regex.find(text) is not None
    return _helper.search(pattern, text)


def _encodable(text: str) -> str:
    """Replace half surrogate pairs, which the engine cannot take."""
    return text if text.isascii() else text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _steps(pattern: str, length: int) -> float:
    """Return a bound of the steps of a search, roughly: infinite where a group is repeated or referred to."""
    loops, choices = _shape(pattern)
    return float("inf") if loops is None else float(max(length, 2)) ** min(loops + 1, 9) * 2.0 ** min(choices, 60)


@lru_cache(maxsize=4096)
def _shape(pattern: str) -> tuple[int | None, int]:
    """Return the number of repeated characters (None if a group is repeated or referred to), and of optional ones."""
    loops, choices, before = 0, 0, ""
    for piece in _PIECES.findall(pattern):
        repeats = piece in "*+" or (piece[0] == "{" and len(piece) > 1)
        if re.fullmatch(r"\\[1-9k]", piece) or (repeats and before in (")", ")?")):
            return None, 0
        if repeats and not re.fullmatch(r"\{\d\}", piece):
            loops += 1
        choices += piece in ("?", ")?", "|")
        before = piece
    return loops, choices


class _Helper:
    """The process for searches that could take long; started with the first one, and again after it was killed."""

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._sock: socket.socket | None = None
        self._replies: Iterator[Any] = iter(())
        self._life = -1
        """The end of a pipe that is never written to: the system closes it when this process is gone."""

    def search(self, pattern: str, text: str) -> bool:
        seconds = limit_s()
        limit = SEARCH_LIMIT_S if seconds is None else seconds
        if self._sock is None:
            self._start()
        assert self._sock is not None
        try:
            self._sock.sendall(frame((pattern, text, limit)))
            for found in self._replies:
                return bool(found)
        except (OSError, EOFError):
            pass
        except BaseException:  # the caller's time is up: the answer would come to the next question
            self.close()
            raise
        self.close()
        if seconds is not None:
            raise OutOfTime
        raise BadPattern(f"a search for {pattern!r} took longer than {limit:g} s of CPU time")

    def _start(self) -> None:
        theirs, self._life = os.pipe()
        try:
            self._process, self._sock = spawn("structbench.scoring.patterns:serve", fds=[theirs])
        finally:
            os.close(theirs)
        self._sock.settimeout(_GRACE_S)
        self._sock.sendall(frame(theirs))
        self._replies = receive(self._sock)

    def close(self) -> None:
        if self._sock is not None and self._process is not None:
            self._sock.close()
            os.close(self._life)
            self._process.kill()
            self._process.wait()
        self._process = self._sock = None


_helper = _Helper()
atexit.register(_helper.close)


def serve(sock: socket.socket) -> None:
    """Run in the process: answer questions until the other end is closed.

    The system ends it amid a search that takes too long (SIGPROF), or whose asker is gone (SIGIO of the pipe that only
    the asker holds): Python sees no signal until the search is over. What the asker had blocked is unblocked.
    """
    ends = {signal.SIGPROF, signal.SIGIO}
    for number in ends:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ends)
    with sock, suppress(OSError):
        messages = receive(sock)
        life = next(messages)
        fcntl.fcntl(life, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(life, fcntl.F_SETFL, fcntl.fcntl(life, fcntl.F_GETFL) | os.O_ASYNC)
        for pattern, text, limit in messages:
            if select([life], [], [], 0)[0]:  # it was closed before its signal was asked for
                return
            signal.setitimer(signal.ITIMER_PROF, limit)
            regex = compiled(pattern)
            found = regex is not None and regex.find(text) is not None
            signal.setitimer(signal.ITIMER_PROF, 0)
            sock.sendall(frame(found))
