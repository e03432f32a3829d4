"""``python -m benchmarks.first_ten_minutes``: make docs/first-ten-minutes.md, and the examples and pictures with it.

It types the page's commands, in a fresh clone of this repository and an environment of its own, and writes down what
they print and how long they take. Wants git, pip, an Ollama on 127.0.0.1:11434 (or $OLLAMA_HOST) with both models,
and, for the pictures, Chromium. The machine should have nothing else to do.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import textwrap
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from io import StringIO
from pathlib import Path

from benchmarks import machine
from structbench.formatting import span_text

ROOT = Path(__file__).parents[1]
MODELS = ("smollm2:135m", "qwen2.5-coder:0.5b")
RULE = '--slo "correct>=60%" "ttft_p50<=3s"'
COLUMNS, LINES = 80, 40


@dataclass(frozen=True, slots=True)
class Typed:
    """A command of the page."""

    text: str
    """As the reader types it; a clone of this repository stands for the address."""
    codes: tuple[int, ...] = (0,)


PAGE: tuple[str | Typed, ...] = (
    """Which of two models extracts data as JSON, correctly and soon enough? From a fresh clone to the
answer, and what to ask next. All of this was typed by `python -m benchmarks.first_ten_minutes`, on {machine} (load
average when it began: {load}), on {date}, with {server} on the same machine. Nothing is left out but the lines that
say how far a load is.

## Set up

You need Python 3.11 or newer, and an [Ollama](https://ollama.com) with the models that you think of
(`ollama pull qwen3:4b`). Any other server will do too: [servers.md](servers.md).""",
    Typed("git clone ADDRESS structbench && cd structbench"),
    Typed("python3 -m venv .venv && . .venv/bin/activate && pip install --quiet ."),
    """## Which model?

The question is a rule: what share of the answers must be right, and how soon must they begin? The machine is slow, so
60 % right and half of them within 3 seconds are enough here (without `--slo` the rule is `correct>=90% ttft_p95<=1s
error_rate<=5%`). What is asked is the suite `json`, of which only the cases in which the data of a person are to be
extracted from a text. `--explain` says what that would take, and sends nothing:""",
    Typed(f"structbench load --models {' '.join(MODELS)} \\\n    --suites json --tags person {RULE} --explain"),
    """Then without it. Each model is asked until the rule is met or not met, and no longer:""",
    Typed(f"structbench load --models {' '.join(MODELS)} \\\n    --suites json --tags person {RULE}", (0, 99)),
    """The last lines are the answer in a sentence, with the figures that it rests on; where something is not decided,
as may be on a machine that has other work to do, the command that settles it stands below. The exit code is 0 if every
model keeps the rule that you gave, and 99 if one does not, so a script can ask the same.

## How much better is one than the other?""",
    Typed(f"structbench compare {' '.join(f'model={model}' for model in MODELS)} \\\n    {RULE}"),
    """*Better* and *worse* are said only of what the requests show; [compare.md](compare.md) has the words.

## Up to which load?

So far one request was in flight at a time. How many may there be before the rule no longer holds?""",
    Typed(f"structbench capacity --models {MODELS[1]} \\\n    --suites json --tags person {RULE}"),
    """## All of it on a page

The page has the answer, latency against what was right and against the load, and every wrong answer beside what was
expected ([this one](examples/report.html)):""",
    Typed(f"structbench report {RULE} -o report.html", (0, 99)),
    """## And now

- Your own questions: `structbench suites new json > mine.jsonl` writes a suite to start from, and `--suites mine.jsonl`
  asks it ([suites.md](suites.md)).
- Another quantization, context or setting beside this one: `--models a b`, `--option num_ctx=2048,8192`, `--think on
  off`.
- The same rule in CI: [ci.md](ci.md). All rows, by SQL: [sql.md](sql.md). A load while it runs: [live.md](live.md).""",
)


def typed(command: str, folder: Path, env: Mapping[str, str], codes: tuple[int, ...] = (0,)) -> str:
    """Run the command in bash in the folder; return what it prints, or end with it if it fails."""
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, check=False
    )
    printed = done.stdout.decode(errors="replace")
    if done.returncode not in codes:
        sys.exit(f"{command}\n{printed}\nended with {done.returncode}")
    return printed


def environment(venv: Path) -> dict[str, str]:
    """Return that of somebody at a terminal of 80 columns whose shell has the venv activated."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "VIRTUAL_ENV"))}
    path = f"{venv / 'bin'}:{os.environ['PATH']}"
    return {
        **own,
        "PATH": path,
        "COLUMNS": str(COLUMNS),
        "LINES": str(LINES),
        "XDG_STATE_HOME": str(venv),
        "PIP_QUIET": "3",
    }


def page(folder: Path) -> Iterator[str]:
    """Type all commands of the page in the folder, and yield its paragraphs."""
    clone = folder / "structbench"
    env = environment(clone / ".venv")
    began = time.monotonic()
    for each in PAGE:
        if isinstance(each, str):
            yield each
            continue
        print(f"$ {each.text}", file=sys.stderr, flush=True)
        started = time.monotonic()
        text = each.text.replace("ADDRESS", str(ROOT))
        printed = typed(text, clone if clone.exists() else folder, env, each.codes).replace(str(folder), "…")
        lines = [line for line in printed.rstrip().splitlines() if " in flight, " not in line]
        folded = [part for line in lines for part in textwrap.wrap(line, COLUMNS, break_on_hyphens=False) or [""]]
        took = span_text(time.monotonic() - started)
        yield "\n".join(("```console", f"$ {each.text}", *folded, "```", "", f"({took})"))
    yield f"All of it took {span_text(time.monotonic() - began)}."


def server(env: Mapping[str, str], folder: Path) -> str:
    """Return which server answers, as the runs have it."""
    query = "SELECT DISTINCT server_kind || ' ' || server_version FROM runs"
    return typed(f'structbench sql --format csv "{query}"', folder, env).splitlines()[-1].strip().capitalize()


def pictures(folder: Path, env: Mapping[str, str], into: Path) -> None:
    """Draw the end of the load as a terminal shows it, and the page, by Chromium; say so where there is none."""
    from rich.console import Console
    from rich.terminal_theme import MONOKAI
    from rich.text import Text

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        print("no pictures: there is no Chromium here", file=sys.stderr)
        return
    shown = typed(
        f"structbench report {RULE} 2>/dev/null", folder, {**env, "FORCE_COLOR": "1", "TERM": "xterm-256color"}, (0, 99)
    )
    console = Console(record=True, width=COLUMNS, file=StringIO(), force_terminal=True, legacy_windows=False)
    console.print(Text.from_ansi(shown.rstrip()))
    lines = console.export_text(clear=False).rstrip().count("\n") + 1
    html = folder / "terminal.html"
    html.write_text(console.export_html(theme=MONOKAI, code_format=_TERMINAL))
    for name, source, size in (
        ("terminal.png", html, (COLUMNS * 9 + 40, lines * 20 + 40)),
        ("report.png", folder / "report.html", (1100, 900)),
    ):
        window = f"--window-size={size[0]},{size[1]}"
        flags = ("--headless=new", "--no-sandbox", "--hide-scrollbars", window, f"--screenshot={into / name}")
        subprocess.run(
            [chromium, *flags, "--virtual-time-budget=5000", source.as_uri()], check=True, capture_output=True
        )


_TERMINAL = """<!DOCTYPE html><meta charset="utf-8"><style>
{stylesheet}
body {{ color: {foreground}; background: {background}; margin: 20px; }}
pre {{ font: 15px/20px "DejaVu Sans Mono", Menlo, monospace; margin: 0; }}
</style><pre><code style="font-family: inherit">{code}</code></pre>"""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.first_ten_minutes", description=__doc__)
    parser.add_argument("--docs", type=Path, default=ROOT / "docs", help="folder to write to (default: docs)")
    docs = parser.parse_args().docs.resolve()
    load = f"{os.getloadavg()[0]:.1f}"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        clone, env = folder / "structbench", environment(folder / "structbench" / ".venv")
        paragraphs = ["# Choose a model in ten minutes", *page(folder)]
        told = {
            "{load}": load,
            "{machine}": machine.describe(),
            "{server}": server(env, clone),
            "{date}": str(date.today()),
        }
        text = "\n\n".join(paragraphs)
        for mark, fact in told.items():
            text = text.replace(mark, fact)
        text = "\n".join(textwrap.fill(line, 118) if "benchmarks.first" in line else line for line in text.split("\n"))
        (docs / "first-ten-minutes.md").write_text(text + "\n")
        shutil.copy(clone / "report.html", docs / "examples" / "report.html")
        comparison = f"structbench compare {' '.join(f'model={model}' for model in MODELS)} \\\n    {RULE}"
        typed(f"{comparison} --format markdown -o {docs / 'examples' / 'comparison.md'}", clone, env)
        pictures(clone, env, docs / "images")


if __name__ == "__main__":
    main()
