"""End to end against real servers under /v1: llama.cpp over three APIs, and Ollama over OpenAI's.

STRUCTBENCH_REAL_LLAMACPP=http://127.0.0.1:8080 and STRUCTBENCH_REAL_OLLAMA=http://127.0.0.1:11434 name servers with
qwen2.5-coder:0.5b; what is not named is skipped.
"""

from __future__ import annotations

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

import structbench

if not all(map(find_spec, ("httpx2", "openai", "anthropic"))):
    pytest.skip("the extras openai and anthropic are not installed", allow_module_level=True)

MODEL = "qwen2.5-coder:0.5b"
CASES = {"json": 8, "tools": 6, "text": 5}
LENGTHS = {"mean_input_tokens": 60, "stddev_input_tokens": 5, "mean_output_tokens": 12, "stddev_output_tokens": 1}


def server(variable: str, api: str, mark: pytest.MarkDecorator) -> Any:
    host = os.environ.get(variable)
    absent = pytest.mark.skipif(not host, reason=f"{variable} names no server")
    name = variable.rpartition("_")[2].lower()
    return pytest.param((name, host, api), marks=[mark, absent], id=f"{name}-{api}")


SERVERS = [
    *(server("STRUCTBENCH_REAL_LLAMACPP", api, pytest.mark.llamacpp) for api in ("openai", "responses", "anthropic")),
    server("STRUCTBENCH_REAL_OLLAMA", "openai", pytest.mark.ollama),
]


@pytest.mark.parametrize("served", SERVERS)
def test_a_real_server_is_measured_and_scored_over_its_api(served: tuple[str, str, str], tmp_path: Path) -> None:
    name, host, api = served
    for suite, count in CASES.items():
        # The model repeats itself in some answers without end; this many tokens are enough for most others.
        options = ["temperature=0", *([] if suite == "text" else ["num_predict=128"])]
        summary = structbench.load(
            models=[MODEL], suites=[suite], requests=count, host=host, api=api, db=tmp_path / "v1.duckdb",
            concurrency=[2], option=options, **(LENGTHS if suite == "text" else {}),
        )  # fmt: skip
        assert summary.exit_code == 0
        rows = summary.records()
        assert len(rows) == count
        # None for a connection that was closed, above all; the old Ollama breaks off what repeats itself.
        assert {row["error_kind"] for row in rows} <= {None, *(["truncated"] if name == "ollama" else [])}
        for row in rows:
            if row["error_kind"] is None:
                check_row(row, name, api)
        if suite == "json" and api == "openai":  # llama.cpp ignores the schema over the other two
            finished = [row for row in rows if row["done_reason"] == "stop"]
            assert finished
            assert all(row["json_valid"] for row in finished)
        if suite == "tools" and name == "ollama":
            assert any(row["num_tool_calls"] for row in rows)


def check_row(row: dict[str, Any], name: str, api: str) -> None:
    assert row["clock"] == "kernel"
    assert row["prompt_tokens"] > 0
    assert row["output_tokens"] > 0
    assert row["ttft_s"] <= row["e2e_s"]
    assert row["done_reason"] in ("stop", "length", "tool_calls")
    if name == "llamacpp" and api != "anthropic":
        assert row["eval_s"] is not None
        assert row["eval_s"] <= row["e2e_s"]
