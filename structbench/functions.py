"""``structbench.load``, ``report`` and ``compare``: the commands for Python programs and notebooks.

Each takes the command's options as keywords, raises BadInput where the command would end with 2, and returns an object
that shows itself in a notebook. Nothing is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from structbench.errors import BadInput
from structbench.options import MANY_NEEDED, LoadOptions, check_not_empty
from structbench.reports.frames import as_html, frame

if TYPE_CHECKING:
    import pandas

    from structbench.comparison.comparison import Result
    from structbench.gates.slo import Gate
    from structbench.reports.document import Document
    from structbench.run.progress import CellProgress
    from structbench.run.runner import Summary


# The keywords and their texts are made of the options: see tests/support/signature.py
def load(
    *,
    models: str | Sequence[str] = (),
    suites: str | Sequence[str] = ("text", "json", "tools"),
    tags: str | Sequence[str] = (),
    host: str | Sequence[str] = (),
    base_url: str | None = None,
    api: Literal["auto", "ollama", "openai", "responses", "anthropic"] = "auto",
    api_key_env: str | None = None,
    header_env: Mapping[str, Any] | str | Sequence[str] = (),
    header: Mapping[str, Any] | str | Sequence[str] = (),
    ca: str | None = None,
    cert: str | Sequence[str] = (),
    insecure: bool = False,
    requests: int | None = None,
    until: Literal["auto", "settled"] = "auto",
    max_requests: int = 1000,
    max_time: float | str = 300.0,
    concurrency: int | Sequence[int] = (),
    rate: float | Sequence[float] = (),
    arrival: Literal["constant", "poisson", "gamma"] = "constant",
    burstiness: float = 1.0,
    max_in_flight: int | None = None,
    duration: float | str | None = None,
    max_tokens_total: int | None = None,
    warmup: int | None = None,
    workers: int | None = None,
    engine: Literal["local", "ray"] = "local",
    ray_address: str | None = None,
    nodes: int | None = None,
    timeout: float | str = 300.0,
    patience: float | str = 10.0,
    grace: float | str = 10.0,
    mean_input_tokens: float = 550.0,
    stddev_input_tokens: float = 150.0,
    mean_output_tokens: float = 150.0,
    stddev_output_tokens: float = 10.0,
    structured: str | Sequence[str] = ("format",),
    think: bool | str | Sequence[bool | str] = (),
    endpoint: Literal["chat", "generate"] = "chat",
    seed: int = 0,
    option: Mapping[str, Any] | str | Sequence[str] = (),
    body: Mapping[str, Any] | str | Sequence[str] = (),
    model_revision: str | None = None,
    limit_field: Literal["auto", "max_tokens", "max_completion_tokens"] = "auto",
    keep_alive: str | None = None,
    pull: bool = False,
    embed_model: str | None = None,
    db: str | Path = "structbench.duckdb",
    fsync: bool = False,
    skip_cached: bool = False,
    explain: bool = False,
    dry_run: bool = False,
    label: str | None = None,
    metadata: Mapping[str, Any] | str | Sequence[str] = (),
    metrics_port: int = 0,
    metrics_host: str = "127.0.0.1",
    hold: float | str = 0.0,
    otlp: str | None = None,
    otlp_content: bool = False,
    max_error_rate: float | str = 1.0,
    slo: str | Sequence[str] = (),
    abort_on_slo: bool = False,
    goodput: str | None = None,
    junit: str | Path | None = None,
    simulate: bool = False,
    progress: Callable[[CellProgress], None] | bool = False,
) -> Summary:
    """Run a load and return its summary: a row per cell in ``rows``, every request from ``records()``.

    Times are seconds, or such as ``1m30s``; where several values are taken, one may stand alone. Raises
    BadInput (a StructbenchError) before anything is sent. Metrics are off unless ``metrics_port`` is given.

    progress: called with a CellProgress about twice a second and at each cell's end; True: a bar by tqdm
    models: models to measure, as the server names them (default: those of gemma3n, smollm2:360m, llama3.2:1b that it
        has, else its 3 smallest)
    suites: suites to run: text, json, tools, turns, numbers, bfcl:CATEGORY, jsonschemabench:PATH, a .jsonl file or a
        folder of schemas
    tags: run only the cases that have one of these tags; not:TAG leaves cases out
    host: address of the server: 127.0.0.1:11434, https://user:password@gpu.lan, http://127.0.0.1:8080/v1,
        unix:///run/server.sock (default: OLLAMA_HOST, then OLLAMA_BASE_URL, then http://127.0.0.1:11434; with --api
        openai OPENAI_BASE_URL, with anthropic ANTHROPIC_BASE_URL); several servers make several cells
    base_url: the server's address with its whole path, to which nothing is added
    api: protocol: Ollama's own, or chat completions, Responses or Messages; auto: openai for an address that ends with
        /v1, else what the server speaks
    api_key_env: environment variable that holds the key to send as Authorization: Bearer (default: OLLAMA_API_KEY,
        OPENAI_API_KEY or ANTHROPIC_API_KEY, by the API)
    header_env: headers to send whose values are in environment variables, e.g. X-Api-Key=MY_KEY
    header: headers to send that are no secrets, e.g. X-Team=search: others can see a command line, so for secrets use
        --api-key-env or --header-env
    ca: file or folder with the certificates to trust (default: those in SSL_CERT_FILE, SSL_CERT_DIR and
        REQUESTS_CA_BUNDLE, else the system's)
    cert: client certificate and its key, in one file or in two
    insecure: do not check the server's certificate: anybody could answer in its place
    requests: ask for exactly so many requests per cell (default: see --until)
    until: settled: go on with each cell until its rule is met or not met (--slo, else correct>=90% ttft_p95<=1s
        error_rate<=5%), and no longer; auto: that for text and suites with scores, where neither --requests nor
        --duration is given, and else one request per case
    max_requests: until settled: requests per cell after which it ends undecided
    max_time: until settled: time after which a cell ends undecided
    concurrency: closed loop: number of requests in flight (default: 1); several values make several cells
    rate: open loop: requests/s to send, however fast the server answers; several values make several cells
    arrival: open loop: spacing of the arrivals
    burstiness: gamma arrivals: shape; below 1 is burstier than Poisson, above 1 more even
    max_in_flight: open loop: drop a request that is due while this many are in flight (default: no limit)
    duration: time after which a cell stops sending, unless --requests ends it sooner
    max_tokens_total: end the load before its prompts and answers together pass this many tokens, for APIs that are paid
        by the token (default: no limit)
    warmup: warm-up requests per cell, left out of the figures (default: by the load, one for each 64 streams or 50
        requests/s, at most 32)
    workers: worker processes, with --engine ray on each node (default: chosen from cores and load)
    engine: send from this machine, or from nodes of a Ray cluster
    ray_address: HOST:PORT of the Ray cluster's head (default: RAY_ADDRESS, then the cluster on this machine)
    nodes: nodes of the Ray cluster to send from (default: all but the server's and this one)
    timeout: time a request may take
    patience: time to wait for a server that no longer answers amid a load, before the load ends (0: none)
    grace: time that requests in flight have to finish after an interruption
    mean_input_tokens: text suite: mean prompt length in tokens
    stddev_input_tokens: text suite: standard deviation of the prompt length
    mean_output_tokens: text suite: mean answer length in tokens
    stddev_output_tokens: text suite: standard deviation of the answer length
    structured: JSON suites: send the schema as the API's format, or only in the prompt; both: paired cells. Also: tools
        (as a tool's parameters), strict, structured_outputs (vLLM), json_schema (llama.cpp)
    think: thinking: on, off, or a level such as high (default: as the server decides); several values make several
        cells
    endpoint: endpoint to load: /api/chat or /api/generate
    seed: seed for prompts, arrivals and sampling (sampling uses seed + request index)
    option: options by Ollama's names, e.g. temperature=0 num_predict=64; other APIs get their own names for them;
        several values of one (num_ctx=2048 num_ctx=8192, or num_ctx=2048,8192) make several cells
    body: fields to add to every request's body, e.g. top_k=40; several values of one make several cells
    model_revision: what tells this model from another of its name, where the server does not: a commit, a date
    limit_field: chat completions: the field for the limit of an answer (default: max_completion_tokens on
        api.openai.com and where the server refuses max_tokens)
    keep_alive: how long the server keeps the model loaded: 10m, seconds, or -1 for ever (default: as the server
        decides)
    pull: pull missing models first
    embed_model: embedding model for scoring how similar answers are to their references
    db: results database
    fsync: write each row through to the disk, for a machine that may lose power
    skip_cached: skip cells that are already complete in --db, and complete the partial ones
    explain: explain why each cell is new, partial or done; send nothing
    dry_run: list the cells and their states; send nothing
    label: name to store with these runs
    metadata: facts to store with these runs, e.g. gpu=L4 batch=8
    metrics_port: port on which to serve Prometheus metrics (0: off)
    metrics_host: address on which to serve the metrics
    hold: time to keep serving metrics after the end; two scrape intervals are enough to miss nothing
    otlp: push metrics and one span per request to this collector, e.g. http://127.0.0.1:4318
    otlp_content: include prompts and answers in the spans
    max_error_rate: fail when more than this share of a cell's requests end in errors, e.g. 5% (1: never)
    slo: conditions that each cell must meet, e.g. ttft_p95<0.5 schema_valid>=95%; if one is not met, or not decided,
        the exit code is 99 (docs/ci.md lists the metrics)
    abort_on_slo: end a cell as soon as one of its --slo can no longer be met (never certain in a cell that only
        --duration limits)
    goodput: limits within which a request counts towards goodput and correct goodput, e.g. ttft<0.5,tpot<50ms; stored
        with the run (default: none)
    junit: write the result of each cell and --slo to this file as JUnit XML
    simulate: measure the built-in simulated server, not a real one
    """
    given = locals()
    from structbench.run.display import Display
    from structbench.run.runner import load as run
    from structbench.run.settings import settings_of

    for name in MANY_NEEDED:
        check_not_empty(name, given[name])
    tell = given.pop("progress")
    if not (isinstance(tell, bool) or tell is None or callable(tell)):
        raise BadInput(f"progress {tell!r}: give True, or a function that takes a CellProgress")
    settings = settings_of(LoadOptions(**given))
    with ExitStack() as stack:
        if tell is True:
            tell = stack.enter_context(_bars())
        return run(settings, display=Display(quiet=True, tell=tell or None))


@contextmanager
def _bars() -> Iterator[Callable[[CellProgress], None]]:
    """Show a bar by tqdm for each cell."""
    try:
        from tqdm.auto import tqdm
    except ImportError:
        raise BadInput("progress=True needs tqdm: pip install 'structbench[notebook]'") from None
    bar: Any = None

    def show(cell: CellProgress) -> None:
        nonlocal bar
        if cell.state == "starting" and bar is None:
            bar = tqdm(total=cell.planned, desc=cell.name, unit="req")
        bar.update(cell.done - bar.n)
        bar.set_postfix(errors=cell.errors)
        if cell.state in ("done", "stopped"):
            bar.close()
            bar = None

    try:
        yield show
    finally:
        if bar is not None:
            bar.close()


def report(
    runs: str | Sequence[str] = (),
    *,
    db: str | Path = "structbench.duckdb",
    slo: str | Sequence[str] = (),
    pool: bool = False,
) -> Report:
    """Report stored runs: all, or those of these run ids, labels, models, suites, servers or versions.

    ``slo``: limits within which a model is correct and fast enough, e.g. ``"ttft_p95<0.5"``, instead of the default
    rule; ``pool``: one row for all runs of a config. Raises BadInput if there is no such file or run.
    """
    from structbench.commands.report import Options, read

    for name, value in (("runs", runs), ("slo", slo)):
        check_not_empty(name, value)
    return Report(read(Options(runs=runs, db=db, slo=slo, pool=pool), details=True))  # type: ignore[arg-type]


@dataclass(frozen=True)
class Report:
    """A report of stored runs; ``str()`` gives its text, a notebook shows the page."""

    document: Document

    @property
    def answer(self) -> str:
        """The sentence that answers which model is correct and fast enough."""
        return self.document.headline.text

    @property
    def gates(self) -> Sequence[Gate]:
        """The rule judged on each row: met, not met or not decided."""
        return self.document.gates

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each run, or for each config with ``pool``, as ``to_json()["lines"]`` has them."""
        lines: list[dict[str, Any]] = self.to_json()["lines"]
        return lines

    def to_json(self) -> dict[str, Any]:
        """Return the report as JSON values, as docs/report.md describes them."""
        from structbench.reports.document import to_json

        return to_json(self.document)

    def save(self, path: str | Path) -> None:
        """Write the report: .html, .md, .json or .txt, by the name."""
        from structbench.output import write_output
        from structbench.reports.writing import format_of, text_of

        write_output(Path(path), text_of(self.document, format_of(Path(path))))

    def df(self) -> pandas.DataFrame:
        """Return ``rows`` as a data frame, with a column for each figure's value and interval."""
        return frame(self.rows)

    def __str__(self) -> str:
        from structbench.reports.writing import text_of

        return text_of(self.document, "terminal")

    def _repr_html_(self) -> str:
        from structbench.reports.writing import text_of

        page = escape(text_of(self.document, "html"), quote=True)
        return f'<iframe srcdoc="{page}" style="width: 100%; height: 40em; border: 0"></iframe>'


def compare(
    a: str,
    b: str,
    *,
    db: str | Path = "structbench.duckdb",
    only: str | Sequence[str] = (),
    across: str | Sequence[str] = (),
    fail_on: str | Sequence[str] = (),
    goodput: str | None = None,
) -> Comparison:
    """Compare two runs, labels, ``model=…``, ``server=…``, ``version=…`` or files; each difference has an interval.

    ``only`` restricts both sides, ``across`` names config fields that may differ, ``fail_on`` judges changes
    (``"ttft_p95>10%"``), ``goodput`` has limits for both. Raises BadInput if the two have nothing in common.
    """
    from structbench.commands.compare import Options, compared

    options = Options(a=a, b=b, db=db, only=only, across=across, fail_on=fail_on, goodput=goodput)  # type: ignore[arg-type]
    return Comparison(compared(options))


@dataclass(frozen=True)
class Comparison:
    """Differences between two sides; ``str()`` gives their text, a notebook shows the same."""

    result: Result

    @property
    def gates(self) -> Sequence[Gate]:
        """The conditions of ``fail_on``: met, not met or not decided."""
        return self.result.gates

    @property
    def rows(self) -> list[dict[str, Any]]:
        """A row for each metric of each pair: seconds, per second, shares of 1; None if absent."""
        return [{"pair": pair["name"], **row} for pair in self.to_json()["pairs"] for row in pair["metrics"]]

    def to_json(self) -> dict[str, Any]:
        """Return the comparison as JSON values, as docs/compare.md describes them."""
        from structbench.comparison.render import to_json

        return to_json(self.result)

    def df(self) -> pandas.DataFrame:
        """Return ``rows`` as a data frame."""
        return frame(self.rows)

    def __str__(self) -> str:
        from structbench.comparison.render import text_of

        return text_of(self.result)

    def _repr_html_(self) -> str:
        return as_html(str(self))
