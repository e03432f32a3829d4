"""Pictures of the dashboards' queries, from answers made up here: every kind of panel is drawn, absent values too."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from grafana import ask

pytest.importorskip("matplotlib", reason="the extra `grafana` is not installed")
from grafana import render

SPAN = ask.Span(1000.0, 1020.0)
CELL = {
    "gen_ai_request_model": "m",
    "structbench_suite": "json",
    "structbench_load": "c=4",
    "level": "4",
    "cell": "m json",
}


def answer(_url: str, target: ask.PanelQuery, span: ask.Span) -> list[dict[str, Any]]:
    """Two series: one that grows, and one that is never a number."""
    if target.panel["type"] == "heatmap":
        return [
            {"metric": {"le": le}, "values": [[span.start_s + i, str(i * n)] for i in range(0, 20, 2)]}
            for le, n in (("0.1", 1), ("0.5", 2), ("+Inf", 2))
        ]
    found = []
    for load_name, value in (("c=4", 0.5), ("c=16", float("nan"))):
        metric = {**CELL, "structbench_load": load_name}
        if target.instant:
            found.append({"metric": metric, "value": [span.end_s, str(value)]})
        else:
            found.append({"metric": metric, "values": [[span.start_s + i, str(value * i)] for i in range(0, 20, 2)]})
    return found


@pytest.mark.slow
@pytest.mark.parametrize("empty", [False, True], ids=["data", "no data"])
@pytest.mark.parametrize("name", ask.boards())
def test_a_dashboard_is_drawn(name: str, empty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ask, "result", (lambda *_: []) if empty else answer)
    picture = tmp_path / "picture.png"
    render.draw(ask.boards()[name], "http://nowhere", SPAN, picture, "made up")
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert picture.stat().st_size < 200_000


def test_figures_are_written_with_their_units() -> None:
    written = [
        ("s", 0.25),
        ("percentunit", 0.5),
        ("bytes", 1.6e9),
        ("reqps", 3.25),
        ("suffix: tok/s", 250.0),
        ("none", 12),
    ]
    assert [render._written(value, unit) for unit, value in written] == [
        "250 ms", "50 %", "1.6 GB", "3.2/s", "250 tok/s", "12",
    ]  # fmt: skip
    assert render._written(float("nan"), "s") == "–"


def test_a_legend_has_the_labels_of_its_series() -> None:
    query = {"legendFormat": "p50 {{gen_ai_request_model}} {{structbench_label}}"}
    assert render._legend(query, {"metric": CELL}) == "p50 m"
