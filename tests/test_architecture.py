"""The layout of docs/architecture.md, checked: the layers, where each library is used, a row for every folder."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.paths import ROOT

MODULES = sorted([*ROOT.glob("structbench/**/*.py"), *ROOT.glob("loadgen/**/*.py")])
LAYERS = (
    ("structbench.__main__",),
    ("structbench.cli", "structbench.functions"),
    ("structbench.commands",),
    ("structbench.capacity",),
    ("structbench.run", "structbench.matrix"),
    ("structbench.reports", "structbench.comparison", "structbench.watch"),
    ("structbench.gates",),
    ("structbench.results",),
    ("structbench.calibration",),
    ("structbench.store", "structbench.suites"),
    ("structbench.scoring",),
    ("structbench.notes",),
    ("structbench.metrics", "structbench.verdict", "structbench.identity", "structbench.output", "structbench.options"),
    ("structbench.steadiness",),
    ("structbench.formatting", "structbench.stats", "structbench.types"),
    ("structbench.errors", "structbench.strict_json"),
    ("loadgen.simulator", "loadgen.telemetry"),
    ("loadgen.engine",),
    ("loadgen.api",),
    ("loadgen.wire",),
    ("loadgen.arrivals", "loadgen.turns"),
    ("loadgen.types", "loadgen.startup"),
)
"""From the top: a module may import what is in its own folder or below, nothing beside it or above."""
HOMES = {
    "duckdb": ["structbench/store/"],
    "jsonschema": ["structbench/scoring/"],
    "referencing": ["structbench/scoring/"],
    "argparse_dataclass": ["structbench/cli.py"],
    "opentelemetry": ["loadgen/telemetry/"],
    "prometheus_client": ["loadgen/telemetry/", "structbench/watch/endpoint.py"],
    "ollama": ["loadgen/api/ollama.py"],
    "httpx": ["loadgen/api/", "loadgen/wire/httpx_adapter.py", "structbench/matrix/client.py"],
    "pandas": ["structbench/reports/frames.py", "structbench/functions.py", "structbench/run/runner.py"],
    "orjson": ["structbench/store/", "structbench/scoring/validation.py"],
    "httptools": ["loadgen/wire/connection.py", "loadgen/simulator/"],
    "ray": ["loadgen/engine/ray.py"],
    "psutil": ["loadgen/engine/agent.py", "structbench/run/sampler.py", "structbench/calibration/measuring.py"],
    "jinja2": ["structbench/reports/html.py"],
    "scipy": ["structbench/stats/", "structbench/comparison/significance.py", "structbench/scoring/rules.py"],
}
"""Package -> the only places that import it."""
PUBLIC = ("load", "report", "compare")
"""Functions of structbench: no package or module may have their names, which it would take once imported."""


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: a relative import"
            module = node.module or ""
            yield from (
                f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module for alias in node.names
            )


def is_module(name: str) -> bool:
    path = ROOT / name.replace(".", "/")
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def place(module: str) -> tuple[int, str] | None:
    """The layer of a module, from the top, and the part of it; None for the two roots and foreign packages."""
    for number, layer in enumerate(LAYERS):
        for part in layer:
            if module == part or module.startswith(f"{part}."):
                return number, part
    return None


def name_of(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_go_down_the_layers_only(path: Path) -> None:
    own = place(name_of(path))
    assert own is not None or name_of(path) in ("structbench", "loadgen"), "in no layer"
    if own is None:
        return
    for module in imports(path):
        other = place(module)
        assert other is None or other[1] == own[1] or other[0] > own[0], f"{name_of(path)} imports {module}"


def test_no_modules_import_each_other() -> None:
    """Within a folder too: whoever reads one of two would have to read both."""
    graph = {name_of(path): {module for module in imports(path) if is_module(module)} for path in MODULES}
    graph = {name: found - {"structbench", "loadgen", name} for name, found in graph.items()}

    def reached(name: str) -> set[str]:
        seen: set[str] = set()
        ahead = list(graph[name])
        while ahead:
            module = ahead.pop()
            if module not in seen:
                seen.add(module)
                ahead += graph.get(module, ())
        return seen

    assert [name for name in graph if name in reached(name)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_each_library_is_used_in_its_place_only(path: Path) -> None:
    name = path.relative_to(ROOT).as_posix()
    for module in imports(path):
        places = HOMES.get(module.split(".")[0])
        assert places is None or any(name.startswith(place) for place in places), f"{name} imports {module}"


def test_no_module_takes_the_name_of_a_public_function() -> None:
    assert [name for name in PUBLIC if is_module(f"structbench.{name}")] == []


def test_few_modules_stand_outside_a_folder() -> None:
    assert len(list((ROOT / "structbench").glob("*.py"))) <= 14


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_functions_stay_readable_and_modules_say_what_they_own(path: Path) -> None:
    tree = ast.parse(path.read_text())
    assert ast.get_docstring(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            is_made = (path.name, node.name) == ("functions.py", "load")  # of the options: tests/support/signature.py
            assert is_made or (node.end_lineno or 0) - node.lineno < 60, f"{node.name} is too long"


def test_a_worker_knows_no_process_and_no_caller_an_engine() -> None:
    """So that the same worker runs in a process, a thread or an actor, and another engine changes no caller."""
    ours = set(imports(ROOT / "loadgen/engine/worker.py"))
    assert not ours & {"fcntl", "mmap", "multiprocessing", "os", "selectors", "signal", "socket", "subprocess"}
    assert {each for each in ours if each.startswith("loadgen.engine.")} == set()
    engines = {"loadgen.engine.local", "loadgen.engine.local_worker", "loadgen.engine.feed", "loadgen.engine.worker"}
    outside = [path for path in MODULES if path.parent.name != "engine"]
    assert [path for path in outside if engines & set(imports(path))] == []


def test_every_folder_has_its_row_in_the_docs_and_every_path_there_exists() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    rows = set(re.findall(r"^- `([\w/]+/)`", text, re.M))
    folders = {f"{path.parent.relative_to(ROOT)}/" for path in MODULES}
    assert rows >= folders, f"without a row: {sorted(folders - rows)}"
    for path in re.findall(r"`((?:structbench|loadgen|grafana|tests|docs)/[\w./-]+)`", text):
        assert "NAME" in path or (ROOT / path).exists(), path
