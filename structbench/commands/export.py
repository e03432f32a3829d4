"""``structbench export``: write every request as a row, for other tools."""

import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Optional, get_args
from urllib.parse import quote

from structbench.errors import BadInput
from structbench.options import RunFilters, opt

Format = Literal["csv", "parquet", "json", "jsonl", "benchstat", "llmperf"]


EXAMPLES = (
    "structbench export -o all.parquet",
    "structbench export nightly -o requests.csv",
)


@dataclass(kw_only=True)
class Options(RunFilters):
    """Export every request of the chosen runs as a row; docs/store.md lists the columns (view `exported`)."""

    format: Optional[str] = opt(
        None,
        "csv, parquet, json, jsonl, benchstat, or llmperf: LLMPerf's two JSON files for each run, into the folder "
        "-o (default: from the file extension of -o, else csv)",
    )
    per_run: bool = opt(False, "write one file per run into the folder -o")
    output: Path = opt(Path("-"), "file to write, or - for standard output", type=Path, args=["-o", "--output"])
    raw: bool = opt(False, "in CSV, write text that begins with = + - @ as it is: a spreadsheet takes it for a formula")


ENDINGS: dict[str, Format] = {
    ".csv": "csv", ".parquet": "parquet", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "benchstat",
}  # fmt: skip
_COPY: dict[str, str] = {
    "csv": "FORMAT csv, HEADER",
    "parquet": "FORMAT parquet, COMPRESSION zstd, ROW_GROUP_SIZE 30720",  # larger groups need over 1 GB of memory
    "json": "FORMAT json, ARRAY true",
    "jsonl": "FORMAT json",
}


def run(options: Options) -> int:
    from structbench.formatting import plural
    from structbench.output import say
    from structbench.results.selection import filtered_runs
    from structbench.store import Reader

    format = _format(options)
    with Reader(options.db) as reader:
        chosen = filtered_runs(reader, options)
    if not chosen:
        raise BadInput("no runs match: `structbench runs` lists them")
    if format == "llmperf":
        _write_llmperf(options, chosen)
    elif not options.per_run:
        _write(options, chosen, format, options.output)
    else:
        _make_folder(options.output)
        for run_id in chosen:
            name = quote(run_id, safe="")  # a run of somebody else's may be called anything
            _write(options, [run_id], format, options.output / f"{name}.{_ending(format)}")
    where = "standard output" if str(options.output) == "-" else options.output
    say(f"{plural(len(chosen), 'run')} to {where}", sys.stderr)
    return 0


def _write_llmperf(options: Options, run_ids: Sequence[str]) -> None:
    from structbench.output import write_output
    from structbench.results.llmperf import files_of
    from structbench.store import Reader

    _make_folder(options.output)
    with Reader(options.db) as reader, reader.together():
        for name, held in files_of(reader, run_ids):
            write_output(options.output / f"{name}.json", json.dumps(held, indent=4, ensure_ascii=False) + "\n")


def _format(options: Options) -> Format:
    known: tuple[Format, ...] = get_args(Format)
    if options.format is None:
        return ENDINGS.get(options.output.suffix, "csv")
    if options.format not in known:
        raise BadInput(f"--format {options.format!r} is not supported: use {', '.join(known)}")
    return options.format


def _ending(format: Format) -> str:
    return "txt" if format == "benchstat" else format


def _make_folder(folder: Path) -> None:
    if str(folder) == "-":
        raise BadInput("this writes several files: give a folder for them, e.g. -o results/")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BadInput(f"cannot create the folder {folder} ({error.strerror}): give another -o") from error


def _write(options: Options, run_ids: Sequence[str], format: Format, path: Path) -> None:
    from structbench.output import writable_path
    from structbench.results.benchstat import benchmark_lines
    from structbench.store import Reader

    with writable_path(path, [options.db]) as target, Reader(options.db, target=target) as reader:
        if format == "benchstat":
            with target.open("w") as file, reader.together():
                file.writelines(f"{line}\n" for line in benchmark_lines(reader, run_ids))
        else:
            reader.copy("exported", run_ids, _COPY[format], spreadsheet=format == "csv" and not options.raw)
