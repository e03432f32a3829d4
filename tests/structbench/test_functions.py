"""The functions for Python: keywords as the options have them, objects that show themselves."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

import structbench
from structbench.errors import BadInput
from structbench.functions import load
from structbench.options import LoadOptions
from tests.support.paths import ROOT
from tests.support.signature import BLOCK, FILE, block, keywords


def test_load_has_the_options_as_keywords_with_their_texts() -> None:
    (written,) = BLOCK.findall(FILE.read_text())
    assert written == block(), "write it anew: python -m tests.support.signature"
    default = LoadOptions()
    for name, each in inspect.signature(load).parameters.items():
        given = tuple(each.default) if isinstance(each.default, list) else each.default
        if name not in ("metrics_port", "progress"):
            kept = getattr(default, name)
            assert given == (tuple(kept) if isinstance(kept, list) else str(kept) if isinstance(kept, Path) else kept)
    assert {each.name for each in keywords()} == {*inspect.signature(load).parameters} - {"progress"}


@pytest.mark.parametrize(
    ("given", "read"),
    [
        ({"models": "x"}, {"models": ["x"]}),
        ({"models": ("x", "y")}, {"models": ["x", "y"]}),
        ({"models": {"x": 1}.keys()}, {"models": ["x"]}),
        ({"concurrency": 4}, {"concurrency": [4]}),
        ({"rate": 2}, {"rate": [2.0]}),
        ({"option": {"temperature": 0, "stop": "a"}}, {"option": ["temperature=0", 'stop="a"']}),
        ({"option": {"num_ctx": [1, 2]}}, {"option": ["num_ctx=1", "num_ctx=2"]}),
        ({"body": {"x": {"y": None}}}, {"body": ['x={"y": null}']}),
        ({"metadata": {"gpu": "L4"}}, {"metadata": ["gpu=L4"]}),
        ({"think": True}, {"think": ["on"]}),
        ({"think": [True, False]}, {"think": ["on", "off"]}),
        ({"duration": "1m"}, {"duration": 60.0}),
        ({"keep_alive": 600}, {"keep_alive": "600"}),
        ({"db": "x.duckdb"}, {"db": Path("x.duckdb")}),
        ({"tags": None}, {"tags": []}),
    ],
)
def test_values_are_read_as_one_would_write_them(given: dict[str, Any], read: dict[str, Any]) -> None:
    options = LoadOptions(**given)
    assert {name: getattr(options, name) for name in read} == read


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"requests": "many"}, "--requests 'many': give a whole number"),
        ({"requests": 1.5}, "--requests 1.5: give a whole number"),
        ({"concurrency": [1, "x"]}, "--concurrency 'x': give a whole number"),
        ({"timeout": None}, "--timeout None: give seconds"),
        ({"simulate": 1}, "--simulate 1: give True or False"),
        ({"arrival": "even"}, "--arrival 'even': give constant, poisson or gamma"),
        ({"models": [b"x"]}, "--models b'x': give a text"),
        ({"db": 5}, "--db 5: give the name of a file"),
        ({"host": [b"http://me:secret@here"]}, "--host: give a text"),
        ({"option": {"a": {1}}}, "--option: a value that JSON does not have"),
    ],
)
def test_a_bad_value_is_bad_input(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput) as caught:
        LoadOptions(**given)
    assert str(caught.value).startswith(said)


def test_what_is_public_can_be_completed() -> None:
    assert {"load", "report", "compare"} <= {*dir(structbench)}
    assert structbench.load is load


@pytest.mark.slow
def test_progress_is_told_and_results_show_themselves(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    told: list[structbench.CellProgress] = []
    shared: dict[str, Any] = {"suites": "numbers", "requests": 6, "simulate": True, "progress": told.append}
    summary = structbench.load(models=["gemma3n", "llama3.2:1b"], **shared)
    assert [each.state for each in told].count("done") == 2
    assert [each.done for each in told if each.state == "done"] == [6, 6]
    assert {each.planned for each in told} == {6}
    assert "gemma3n" in str(summary)
    assert summary._repr_html_().startswith("<pre")
    report = structbench.report()
    assert " ".join(report.answer.split()) in " ".join(str(report).split())
    assert report._repr_html_().startswith('<iframe srcdoc="&lt;!DOCTYPE html&gt;')
    assert [row["model"] for row in report.rows] == ["gemma3n", "llama3.2:1b"]
    for name in ("r.html", "r.md", "r.json", "r.txt"):
        report.save(tmp_path / name)
    assert json.loads((tmp_path / "r.json").read_text())["headline"]["text"] == report.answer
    with pytest.raises(BadInput, match="unknown file extension"):
        report.save("r.docx")
    comparison = structbench.compare("model=gemma3n", "model=llama3.2:1b", fail_on="error_rate>1pp")
    assert [gate.slo for gate in comparison.gates] == ["error_rate>1pp"]
    assert {row["metric"] for row in comparison.rows} > {"ttft_p50"}
    assert "B is" in str(comparison)
    with pytest.raises(BadInput, match="no run has model 'nothing'"):
        structbench.compare("model=nothing", "model=gemma3n")
    assert capfd.readouterr() == ("", ""), "a library does not talk"


@pytest.mark.slow
def test_the_notebook_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("pandas", reason="needs pandas: pip install 'structbench[notebook]'")
    pytest.importorskip("tqdm", reason="needs tqdm: pip install 'structbench[notebook]'")
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    shown = []
    for cell in json.loads((ROOT / "examples/notebook.ipynb").read_text())["cells"]:
        if cell["cell_type"] == "code":
            parsed = ast.parse("".join(cell["source"]))
            last = parsed.body.pop()
            exec(compile(parsed, "cell", "exec"), names)
            assert isinstance(last, ast.Expr)
            shown.append(eval(compile(ast.Expression(last.value), "cell", "eval"), names))
    assert all(each._repr_html_() for each in shown)
    assert len(shown[1]) == 4


@pytest.mark.parametrize("given", [{"models": []}, {"concurrency": []}, {"slo": []}, {"progress": "yes"}])
def test_a_list_without_values_is_not_the_default(given: dict[str, Any]) -> None:
    """A filter that found no model measured the default ones."""
    with pytest.raises(BadInput, match="give "):
        structbench.load(**{"models": "m", "dry_run": True, **given})
    with pytest.raises(BadInput, match="runs has no value"):
        structbench.report([])
