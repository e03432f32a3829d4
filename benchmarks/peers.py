"""Beside AIPerf and GuideLLM: the same work on the same server, each tool in turn, and what each says of it.

Each is installed in an environment of its own, which is kept in the user's cache folder. What a tool reports of TTFT is
held against the server's own, requests/s are as it reports them; tokens and the first request (also of a warm-up) are
as the server saw them; processor time and memory are of all processes of the tool, from its start to its end.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine
from benchmarks.machine import NS, Usage
from benchmarks.servers import Server, ServerTiming, serve
from benchmarks.table import number
from benchmarks.timing import STREAM, Scenario, settle
from structbench.store import Reader

PROMPT_TOKENS = 50
REQUESTS_A_STREAM = 12
LOADS = (
    *(Scenario(name=f"{n} streams x 100 tokens/s", concurrency=n, requests=REQUESTS_A_STREAM * n) for n in (32, 128)),
    Scenario(name="open loop, 100 requests/s", rate=100.0, requests=1000),
)
_VOCABULARY = """
from tokenizers import Tokenizer, models, pre_tokenizers
words = {f"w{i}": i for i in range(500)} | {"[UNK]": 500}
made = Tokenizer(models.WordLevel(words, unk_token="[UNK]"))
made.pre_tokenizer = pre_tokenizers.Whitespace()
made.save("tokenizer.json")
"""
_TOKENIZER_CONFIG = {"tokenizer_class": "PreTrainedTokenizerFast", "unk_token": "[UNK]", "model_max_length": 4096}


class Reported(NamedTuple):
    """TTFT and requests/s as a tool reports them."""

    ttft_p50_s: float
    ttft_p99_s: float
    requests_per_s: float


@dataclass(frozen=True, slots=True)
class Tool:
    name: str
    requirement: str | None
    """What pip installs; None: the program of this tree."""
    command: Callable[[Scenario, Server, Path], Sequence[str]]
    """Of a load, a server and an empty folder: what to run after the environment's folder of programs."""
    read: Callable[[Path], Reported]

    def run(self, load: Scenario, server: Server) -> tuple[Usage, Reported, ServerTiming]:
        """Run one load; the server forgets what came before."""
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            program, *words = self.command(load, server, folder)
            server.forget()
            usage = machine.run([str(self.programs() / program), *words], server_pid=server.pid, cwd=folder)
            if usage.exit_code:
                raise SystemExit(f"{self.name} ended with {usage.exit_code}:\n{usage.output[-2000:]}")
            return usage, self.read(folder), server.truth()

    def programs(self) -> Path:
        """Return the folder of the environment's programs; install it first if it is not there."""
        if self.requirement is None:
            return Path(sys.executable).parent
        cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
        home = cache / "structbench-peers" / self.requirement.replace("==", "-")
        done = home / "installed"
        if not done.exists():
            print(f"installing {self.requirement} in {home}", file=sys.stderr, flush=True)
            subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
            pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
            subprocess.run([*pip, self.requirement], check=True)
            done.touch()
        return home / "bin"


def _structbench(load: Scenario, server: Server, folder: Path) -> Sequence[str]:
    return [
        "structbench", "load", "--host", f"{server.url}/v1", "--models", server.model, *load.arguments(0),
        "--mean-input-tokens", str(PROMPT_TOKENS), "--stddev-input-tokens", "1", "--metrics-port", "0",
        "--db", str(folder / "s.duckdb"),
    ]  # fmt: skip


def _read_structbench(folder: Path) -> Reported:
    with Reader(folder / "s.duckdb") as reader:
        (row,) = reader.query("""
            SELECT quantile_cont(ttft_s, 0.5) AS p50, quantile_cont(ttft_s, 0.99) AS p99,
                count(*) / ((max(end_ns) - min(sent_ns)) / 1e9) AS per_s
            FROM requests WHERE error_kind IS NULL
        """)
    return Reported(row["p50"], row["p99"], row["per_s"])


def _aiperf(load: Scenario, server: Server, folder: Path) -> Sequence[str]:
    at = ["--concurrency", str(load.concurrency)] if load.rate is None else [
        "--request-rate", f"{load.rate:g}", "--arrival-pattern", "constant"]  # fmt: skip
    return [
        "aiperf", "profile", "--model", server.model, "--url", server.url, "--endpoint-type", "chat", "--streaming",
        *at, "--request-count", str(load.requests), "--tokenizer", str(_tokenizer(folder)), "--use-server-token-count",
        "--synthetic-input-tokens-mean", str(PROMPT_TOKENS), "--output-tokens-mean", str(load.tokens), "--ui", "none",
        "--output-artifact-dir", str(folder / "a"),
    ]  # fmt: skip


def _read_aiperf(folder: Path) -> Reported:
    (path,) = (folder / "a").rglob("profile_export_aiperf.json")
    found = json.loads(path.read_text())
    ttft = found["time_to_first_token"]
    return Reported(ttft["p50"] / 1e3, ttft["p99"] / 1e3, found["request_throughput"]["avg"])


def _guidellm(load: Scenario, server: Server, folder: Path) -> Sequence[str]:
    prompts = folder / "prompts.jsonl"
    words = " ".join(["word"] * PROMPT_TOKENS)
    prompts.write_text("".join(f'{{"prompt": "{place} {words}"}}\n' for place in range(load.requests or 0)))
    at = f"kind=concurrent,streams={load.concurrency}" if load.rate is None else f"kind=constant,rate={load.rate:g}"
    return [
        "guidellm", "run", "--backend", f"kind=openai_http,target={server.url},model={server.model}",
        "--profile", at, "--constraint", f"kind=max_requests,count={load.requests}",
        "--data", f"kind=json_file,path={prompts}", "--output", f"kind=json,path={folder / 'g.json'}",
    ]  # fmt: skip


def _read_guidellm(folder: Path) -> Reported:
    (found,) = json.loads((folder / "g.json").read_text())["benchmarks"]
    ttft = found["metrics"]["time_to_first_token_ms"]["successful"]["percentiles"]
    per_s = found["metrics"]["requests_per_second"]["successful"]["mean"]
    return Reported(ttft["p50"] / 1e3, ttft["p99"] / 1e3, per_s)


def _tokenizer(folder: Path) -> Path:
    """Make a tokenizer of 500 words, without which AIPerf asks the network for one."""
    home = folder / "tokenizer"
    home.mkdir()
    subprocess.run([AIPERF.programs() / "python", "-c", _VOCABULARY], check=True, cwd=home)
    (home / "tokenizer_config.json").write_text(json.dumps(_TOKENIZER_CONFIG))
    return home


STRUCTBENCH = Tool("structbench", None, _structbench, _read_structbench)
AIPERF = Tool("AIPerf 0.13.0", "aiperf==0.13.0", _aiperf, _read_aiperf)
GUIDELLM = Tool("GuideLLM 0.8.1", "guidellm==0.8.1", _guidellm, _read_guidellm)
TOOLS = (STRUCTBENCH, AIPERF, GUIDELLM)
HEAD = ("load", "tool", "TTFT p50 off", "p99 off", "requests/s", "a token", "memory", "first request after")


def figures(load: Scenario, usage: Usage, reported: Reported, truth: ServerTiming) -> dict[str, float]:
    """Return the figures of one run by the column they stand in: ms, 1/s, µs, MB, s."""
    return {
        "TTFT p50 off": (reported.ttft_p50_s - truth.ttft_p50_s) * 1e3,
        "p99 off": (reported.ttft_p99_s - truth.ttft_p99_s) * 1e3,
        "requests/s": reported.requests_per_s,
        "a token": usage.cpu_s / (truth.requests * load.tokens) * 1e6,
        "memory": usage.rss_max_bytes / 1e6,
        "first request after": (truth.first_ns - usage.started_ns) / NS,
    }


UNITS = {"TTFT p50 off": "ms", "p99 off": "ms", "a token": "µs", "memory": "MB", "first request after": "s"}


def row(load: Scenario, tool: Tool, found: dict[str, float], ours: dict[str, float]) -> str:
    """Return a line of the table: each figure, and how many times ours it is."""
    cells = []
    for name, value in found.items():
        times = "" if found is ours or ours[name] <= 0 else f" ({number(value / ours[name])} times)"
        cells.append(f"{number(value)} {UNITS.get(name, '')}".rstrip() + times)
    return f"| {' | '.join((load.name, tool.name, *cells))} |"


def compare(truthserver: Path | None) -> None:
    """Print the table, row by row as the tools end."""
    print(f"{machine.describe()}\n\n| {' | '.join(HEAD)} |\n|{'---|' * len(HEAD)}")
    for load in LOADS:
        ours: dict[str, float] = {}
        for tool in TOOLS:
            tool.programs()
            settle()
            with serve(STREAM, truthserver) as server:
                found = figures(load, *tool.run(load, server))
            ours = ours or found
            print(row(load, tool, found, ours), flush=True)
