"""The layout of docs/architecture.md, checked: who may import what, and how large things may grow."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MODULES = sorted([*ROOT.glob("structbench/**/*.py"), *ROOT.glob("loadgen/**/*.py")])

HOMES = {
    "duckdb": ["structbench/store/"],
    "jsonschema": ["structbench/scoring/"],
    "referencing": ["structbench/scoring/", "structbench/suites/fields.py"],
    "argparse_dataclass": ["structbench/cli.py"],
    "opentelemetry": ["loadgen/telemetry/"],
    "prometheus_client": ["loadgen/telemetry/", "structbench/watch/endpoint.py"],
    "ollama": ["loadgen/api/ollama.py", "loadgen/api/ollama_server.py"],
    "httpx": [
        "loadgen/wire/httpx_adapter.py",
        "loadgen/api/ollama.py",
        "loadgen/api/ollama_server.py",
        "structbench/matrix/client.py",
    ],
    "httptools": ["loadgen/wire/connection.py", "loadgen/simulator/"],
    "psutil": ["structbench/run/sampler.py"],
    "jinja2": ["structbench/reports/html.py"],
    "scipy": ["structbench/stats.py", "structbench/comparison/significance.py"],
}
"""Package -> the only places that import it."""


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_is_used_in_its_place_only(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    for module in imports(path):
        package = module.split(".")[0]
        places = HOMES.get(package)
        assert places is None or any(name.startswith(place) for place in places), f"{name} imports {module}"


def test_loadgen_knows_nothing_of_structbench() -> None:
    guilty = [
        (path.name, module)
        for path in ROOT.glob("loadgen/**/*.py")
        for module in imports(path)
        if module.split(".")[0] == "structbench"
    ]
    assert guilty == []


def test_the_pure_modules_import_neither_store_nor_load() -> None:
    """Types, identity, prompts, scores and statistics can be read and tested without the rest."""
    heavy = ("structbench.store", "structbench.run.runner", "loadgen.engine.local", "loadgen.api.ollama")
    pure = ["types", "identity", "prompts", "verdict", "stats", "options", "errors", "generated"]
    paths = [ROOT / f"structbench/{name}.py" for name in pure] + list(ROOT.glob("structbench/scoring/*.py"))
    assert [(path.name, module) for path in paths for module in imports(path) if module.startswith(heavy)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_and_functions_stay_readable(path: Path) -> None:
    text = path.read_text()
    assert text.count("\n") <= 400
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_module_says_what_it_owns(path: Path) -> None:
    assert ast.get_docstring(ast.parse(path.read_text()))


def test_a_worker_knows_no_process_and_no_caller_an_engine() -> None:
    """So that the same worker runs in a process, a thread or an actor, and another engine changes no caller."""
    ours = set(imports(ROOT / "loadgen/engine/worker.py")) | set(imports(ROOT / "loadgen/engine/clocks.py"))
    assert not ours & {"fcntl", "mmap", "multiprocessing", "os", "selectors", "signal", "socket", "subprocess"}
    assert {each for each in ours if each.startswith("loadgen.engine.")} == {"loadgen.engine.clocks"}
    engines = {"loadgen.engine.local", "loadgen.engine.local_worker", "loadgen.engine.feed", "loadgen.engine.worker"}
    outside = [path for path in MODULES if path.parent.name != "engine"]
    assert [path for path in outside if engines & set(imports(path))] == []
