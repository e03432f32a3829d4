"""Figures as people read them; no rounding says more than was measured: 100 % means all, 0 % none."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from io import StringIO
from math import floor, isfinite, log10
from typing import TYPE_CHECKING, Any

from structbench.strict_json import stored

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

ABSENT = "–"
_MARKUP = re.compile(r"[\\`*\[\]|~<>&@#$]|(?<![^\W_])_|_(?![^\W_])|:(?=//|\w+:)|(?<=www)\.")
"""What Markdown reads as emphasis, links, addresses, emoji, formulas, mentions, HTML or the end of a column."""


def latency_text(seconds: float | None) -> str:
    """Format a latency: ``0.42 ms``, ``8.4 ms``, ``84 ms``, ``1.2 s``, ``123 s``."""
    if seconds is None or not isfinite(seconds):
        return ABSENT
    size = abs(seconds)
    if size < 0.000_995:
        return f"{seconds * 1e3:.2f} ms"
    if size < 0.009_95:
        return f"{seconds * 1e3:.1f} ms"
    if size < 0.999_5:
        return f"{seconds * 1e3:.0f} ms"
    return f"{seconds:.1f} s" if size < 99.95 else f"{seconds:,.0f} s"


def span_text(seconds: float | None) -> str:
    """Format a time that people wait: ``0.4 s``, ``44 s``, ``3 min 20 s``, ``1 h 05 min``."""
    if seconds is None or not isfinite(seconds):
        return ABSENT
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    minutes, rest_s = divmod(round(seconds), 60)
    if minutes < 1:
        return f"{rest_s} s"
    if minutes < 60:
        return f"{minutes} min {rest_s:02} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02} min"


def about_text(seconds: float, about: str = "about") -> str:
    """Format a time that is only estimated: ``less than a minute``, ``about 9 min``, ``about 2 h 10 min``."""
    if not isfinite(seconds):
        return "a time that is not known"
    minutes = round(seconds / 60)
    if minutes < 1:
        return "less than a minute"
    hours, minutes = divmod(minutes, 60)
    return f"{about} {hours} h {minutes:02} min" if hours else f"{about} {minutes} min"


def clock_text(seconds: float | None) -> str:
    """Format a time for a narrow column: ``0:44``, ``3:20``, ``1:05:00``."""
    if seconds is None or not isfinite(seconds):
        return ABSENT
    minutes, rest_s = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest_s:02}" if hours else f"{minutes}:{rest_s:02}"


def share_text(share: float | None, digits: int = 1) -> str:
    """Format a share: ``93.3 %``; 100 % and 0 % only for exactly all and none."""
    if share is None or not isfinite(share):
        return ABSENT
    percent, least = share * 100, 10.0**-digits
    if 0 < share < 1:
        percent = min(max(percent, least), 100 - least)
    return f"{percent:.{digits}f} %"


def rate_text(per_s: float | None) -> str:
    """Format a number per second: ``0.04``, ``4.1``, ``212``, ``1,234``."""
    if per_s is None or not isfinite(per_s):
        return ABSENT
    if abs(per_s) < 0.095:
        return f"{per_s:.2f}" if per_s else "0.0"
    return f"{per_s:.1f}" if abs(per_s) < 99.95 else f"{per_s:,.0f}"


def bytes_text(n: float | None) -> str:
    """Format a size in powers of 1000: ``840 B``, ``12.4 MB``, ``1.6 GB``."""
    if n is None or not isfinite(n):
        return ABSENT
    units = ["B", "kB", "MB", "GB", "TB"]
    while n >= 999.5 and len(units) > 1:
        n /= 1000
        del units[0]
    return f"{n:,.0f} {units[0]}" if units[0] == "B" or n >= 99.95 else f"{n:.1f} {units[0]}"


def plural(n: int, word: str) -> str:
    """Return the number with its noun: ``1 request``, ``2 requests``."""
    return f"{n:,} {word}" if n == 1 else f"{n:,} {word}s"


def suite_text(suite: str, structured: str | None) -> str:
    """Return the suite's name, with how its schemas are sent if not as the API's format: ``json/prompt``."""
    return suite if structured in (None, "none", "format") else f"{suite}/{structured}"


def identity_text(identity: str | None) -> str:
    """Return a model's identity: the beginning of a digest, anything else as it is, "" for a bare name."""
    found = identity or ""
    if found.startswith("name:"):
        return ""
    digest = found.removeprefix("sha256:")
    return digest[:12] if re.fullmatch("[0-9a-f]{32,}", digest) else found


def place_text(address: object) -> str:
    """Return the host and port of a server's address, with the path where that is not the usual one."""
    known = address if isinstance(address, str) else ""
    place = known.partition("://")[2] or known
    return place.rstrip("/").removesuffix("/v1") or ABSENT


def server_text(kind: str | None, address: object, api: str | None) -> str:
    """Return which server it is: ``ollama at 127.0.0.1:11434``, ``llama.cpp (openai) at 127.0.0.1:8080``."""
    told = kind_text(kind, api)
    by = f" ({api})" if api not in (None, told) else ""
    return f"{told}{by} at {place_text(address)}"


def kind_text(kind: str | None, api: str | None) -> str:
    """Return the server's software; runs of Ollama's own API from before there were others name none."""
    return kind or ("ollama" if api in (None, "ollama") else "server")


def version_text(kind: str | None, version: str | None, api: str | None) -> str:
    """Return the server's software and version: ``ollama 0.33.0``, ``llama.cpp b11549``."""
    told = kind_text(kind, api)
    return f"{told} {(version or '').removeprefix(told).strip()}".strip()


def setting_text(name: str, value: Any) -> str:
    """Return a setting with its value: ``num_ctx=2048``, ``think=on``, ``stop=["a","b"]``."""
    shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    if name == "think":
        shown = {"true": "on", "false": "off"}.get(shown, shown)
    return f"{name}={clipped(printable(shown), 24)}"


def printable(text: str) -> str:
    """Return text from outside as one line that cannot drive the terminal."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else " " if c.isspace() else "�" for c in text)


def printable_lines(text: str) -> str:
    """Return text from outside that cannot drive the terminal, with its tabs and line ends."""
    return "\n".join("\t".join(map(printable, line.split("\t"))) for line in text.split("\n"))


def clipped(text: str, length: int) -> str:
    """Cut the text to this length, with "…" at the end if it was longer."""
    return text if len(text) <= length else text[: length - 1] + "…"


def one_line(text: str, length: int = 160) -> str:
    """Return the text with single blanks for white space, cut to this length."""
    return clipped(" ".join(text.split()), length)


def without_middle(text: str, length: int, tail: int | None = None) -> str:
    """Cut the middle out of a longer text, keeping ``tail`` characters (by default half) of its end."""
    tail = (length - 1) // 2 if tail is None else tail
    return text if len(text) <= length else f"{text[: length - 1 - tail]}…{text[len(text) - tail :]}"


def did_you_mean(
    word: str,
    known: Iterable[str],
    *,
    otherwise: str | None = None,
    most: int = 1,
    quote: str = "",
    cutoff: float = 0.5,
) -> str:
    """Return ``did you mean json?`` if a known name is similar, else ``otherwise`` or the list of known names."""
    from difflib import get_close_matches

    names = list(known)
    near = get_close_matches(word, names, n=most, cutoff=cutoff)
    if near:
        return f"did you mean {' or '.join(f'{quote}{name}{quote}' for name in near)}?"
    return f"use {', '.join(names)}" if otherwise is None else otherwise


def markdown_text(text: str) -> str:
    """Return one line that Markdown shows as it is; a name such as @team or a link stays text."""
    return _MARKUP.sub(lambda found: f"&#{ord(found[0])};", printable(text))


def load_text(load: Mapping[str, Any]) -> str:
    """Return the load as text, ``c=4`` or ``rate=5/s poisson``; the view ``summary`` writes the same."""
    if load.get("rate") is not None:
        return f"rate={load['rate']:g}/s {load.get('arrival') or ''}".rstrip()
    return f"c={load['concurrency']}"


def simple_table(gap: int = 1) -> Table:
    """Return an empty rich table with a line below its headings and ``gap`` + 1 blanks between columns."""
    from rich import box
    from rich.table import Table

    return Table(box=box.SIMPLE_HEAD, show_edge=False, padding=(0, gap, 0, 0), pad_edge=False, header_style="bold")


def printed(draw: Callable[[Console], None], width: int) -> str:
    """Return what is drawn on a console that is so wide and no terminal."""
    from rich.console import Console

    made = StringIO()
    draw(Console(file=made, width=width))
    return made.getvalue()


def live_view(console: Console) -> Live | None:
    """Return a rich view that is drawn again in place, or None if the console cannot do that."""
    from rich.live import Live

    if not console.is_terminal or console.is_dumb_terminal:
        return None
    # A stream that goes to a file must stay there; rich would print it above the view.
    out, err = sys.stdout.isatty(), sys.stderr.isatty()
    return Live(console=console, auto_refresh=False, redirect_stdout=out, redirect_stderr=err)


def seconds_text(seconds: float | None, digits: int = 3) -> str:
    """Format a duration with this many significant digits: ``8.41 ms``, ``310 ms``, ``1.24 s``."""
    if seconds is None:
        return ABSENT
    milliseconds = abs(seconds) < 0.9995
    return f"{significant(seconds * 1e3 if milliseconds else seconds, digits)} {'ms' if milliseconds else 's'}"


def significant(value: float, digits: int = 3) -> str:
    """Format a number with this many significant digits; three, since two hide the width of an interval."""
    if not value:
        return "0"
    decimals = max(0, digits - 1 - floor(log10(abs(float(f"{value:.{digits}g}")))))
    return f"{value:,.{decimals}f}"


def machine_text(environment: Mapping[str, Any]) -> str:
    """Return a machine as a run's ``environment`` has it: processor, cores, memory, GPUs with their drivers."""
    cores, memory = environment.get("cores"), environment.get("memory_bytes")
    gpus = environment.get("gpus")
    told = [environment.get("processor"), f"{cores} cores" if cores else None]
    told += [f"{bytes_text(memory)} memory"] if isinstance(memory, (int, float)) else []
    for gpu in gpus if isinstance(gpus, list) else []:
        if isinstance(gpu, dict):
            size, driver = gpu.get("memory_bytes"), gpu.get("driver")
            told.append(", ".join([
                str(gpu.get("name")), *([bytes_text(size)] if size and isinstance(size, int | float) else []),
                *([f"driver {driver}"] if driver else []),
            ]))  # fmt: skip
    return printable("; ".join(str(each) for each in told if each)) or ABSENT


def placement_text(environment: Mapping[str, Any]) -> str:
    """Return where the model was: how much of it on a GPU, as the server tells it."""
    share = environment.get("model_on_gpu")
    return (
        ABSENT
        if not isinstance(share, (int, float))
        else "GPU"
        if share >= 1
        else "processor"
        if share <= 0
        else f"{share:.0%} on GPU"
    )


def json_object(text: str | None) -> dict[str, Any]:
    """Return a stored JSON object; an empty one for anything else."""
    value = stored(text)
    return value if isinstance(value, dict) else {}
