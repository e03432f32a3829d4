"""End to end against a real Ollama server: tools in BFCL's words go through its templates and parsers and come back.

STRUCTBENCH_REAL_OLLAMA=http://127.0.0.1:11434 names a server with qwen2.5-coder:0.5b; without it this is skipped.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

import structbench

HOST = os.environ.get("STRUCTBENCH_REAL_OLLAMA")
pytestmark = [
    pytest.mark.ollama,
    pytest.mark.skipif(not HOST, reason="STRUCTBENCH_REAL_OLLAMA names no server"),
]


def case(number: int, question: str, function: str, name: str, kind: str, value: Any) -> tuple[dict[str, Any], Any]:
    """A case in BFCL's format with one function of one argument."""
    parameters = {"type": "dict", "properties": {name: {"type": kind, "description": name}}, "required": [name]}
    described = {"name": function, "description": f"Calculates the {function}.", "parameters": parameters}
    entry = {"id": f"simple_python_{number}", "question": [[{"role": "user", "content": question}]]}
    truth = {"id": entry["id"], "ground_truth": [{function: {name: [value]}}]}
    return {**entry, "function": [described]}, truth


CASES = [
    case(0, "What is the factorial of 5?", "math.factorial", "number", "integer", 5),
    case(1, "What is the square root of 16?", "math.square_root", "number", "float", 16.0),
    case(2, "How many people live in Oslo?", "city.population", "city", "string", "Oslo"),
]


def test_three_cases_in_bfcls_format(tmp_path: Path) -> None:
    (tmp_path / "possible_answer").mkdir()
    for folder, part in ((tmp_path, 0), (tmp_path / "possible_answer", 1)):
        (folder / "BFCL_v4_simple_python.json").write_text("\n".join(json.dumps(pair[part]) for pair in CASES))
    summary = structbench.load(
        models=["qwen2.5-coder:0.5b"], suites=[f"bfcl:{tmp_path}/simple_python"], host=HOST, db=tmp_path / "db.duckdb",
        requests=len(CASES), option={"temperature": 0, "num_predict": 64},
    )  # fmt: skip
    assert summary.exit_code == 0
    rows = summary.records()
    assert [row["case_id"] for row in rows] == [entry["id"] for entry, _ in CASES]
    assert all(row["error_kind"] is None for row in rows)
    called = [row for row in rows if row["num_tool_calls"]]
    assert called, [row["output_text"] for row in rows]
    assert {call["name"] for row in called for call in json.loads(row["tool_calls"])} <= {
        "math_factorial", "math_square_root", "city_population",
    }  # fmt: skip
    assert any(row["outcome"] == "correct" for row in rows), [row["validation_errors"] for row in rows]
