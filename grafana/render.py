"""``python -m grafana.render``: draw the results of the dashboards' queries, from Prometheus, with matplotlib.

Every figure comes from a panel's own query. The images are not screenshots of Grafana, and each says so.
"""

from __future__ import annotations

import argparse
import math
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grafana import ask
from grafana.queries import CELL

COLUMNS = 24
WIDTH_IN = 15.0
SMALL, SMALLER = 8.5, 7.5
"""Sizes of type in points: legends and figures, and the ticks of axes."""
ROW_IN = 0.42
"""Height of one unit of Grafana's grid."""
MAX_NAMES = 12
HEAD_IN = 0.6
_TIME_KINDS = ("timeseries", "heatmap", "state-timeline")
_NAMES_AT_LEFT = ("bargauge", "state-timeline")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m grafana.render", description=__doc__.splitlines()[0])
    parser.add_argument("--url", default="http://127.0.0.1:9090", help="Prometheus (default: %(default)s)")
    parser.add_argument("--from", dest="start", type=float, help="Unix seconds (default: 15 minutes ago)")
    parser.add_argument("--to", dest="end", type=float, help="Unix seconds (default: now)")
    parser.add_argument("--out", type=Path, default=Path("docs/images"), help="folder (default: %(default)s)")
    parser.add_argument("--note", default="", help="line of text to print under the title, e.g. what the load was")
    given = parser.parse_args()
    end_s = time.time() if given.end is None else given.end
    span = ask.Span(end_s - 900 if given.start is None else given.start, end_s)
    given.out.mkdir(parents=True, exist_ok=True)
    for name, board in ask.boards().items():
        path = given.out / Path(name).with_suffix(".png")
        draw(board, given.url, span, path, given.note)
        print(path)


def draw(board: Mapping[str, Any], url: str, span: ask.Span, path: Path, note: str) -> None:
    """Draw one dashboard as one image, its panels where Grafana would put them."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    panels = list(ask.panels(board))
    height = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in panels) * ROW_IN + HEAD_IN
    figure = pyplot.figure(figsize=(WIDTH_IN, height))
    title = f"{board['title']}: drawn by grafana/render.py from Prometheus data; not a screenshot of Grafana"
    figure.text(0.01, 1 - 0.3 / height, title, fontsize=12, fontweight="bold")
    figure.text(0.01, 1 - 0.58 / height, note, fontsize=9)
    for panel in panels:
        axes = figure.add_axes(_place(panel, height))
        axes.set_title(panel["title"], fontsize=10, loc="left", fontweight="bold")
        axes.tick_params(labelsize=SMALLER)
        _DRAW[panel["type"]](axes, panel, _answers(panel, url, span))
        if panel["type"] in _TIME_KINDS:
            axes.set_xlim(0, span.end_s - span.start_s)
    figure.savefig(path, dpi=80)
    pyplot.close(figure)
    _shrink(path)


def _place(panel: Mapping[str, Any], height: float) -> tuple[float, float, float, float]:
    """Return left, bottom, width and height as shares of the image: the panel's place in Grafana, less its axes."""
    where = panel["gridPos"]
    left = 1.7 if panel["type"] in _NAMES_AT_LEFT else 0.6
    unit = WIDTH_IN / COLUMNS
    x, y = where["x"] * unit + left, HEAD_IN + where["y"] * ROW_IN + 0.25
    wide, high = where["w"] * unit - left - 0.15, where["h"] * ROW_IN - 0.25 - 0.42
    return x / WIDTH_IN, 1 - (y + high) / height, wide / WIDTH_IN, high / height


def _answers(
    panel: Mapping[str, Any], url: str, span: ask.Span
) -> list[tuple[Mapping[str, Any], list[dict[str, Any]]]]:
    """Return each query with its series, instants counted from the start of the range."""
    answers = []
    for query in panel["targets"]:
        found = ask.result(url, ask.PanelQuery(panel, query), span)
        for each in found:
            each["points"] = [
                (float(at) - span.start_s, float(value)) for at, value in each.get("values", [each.get("value")])
            ]
        answers.append((query, found))
    return answers


def _draw_numbers(axes: Any, panel: Mapping[str, Any], answers: Sequence[Any]) -> None:
    axes.axis("off")
    values = [value for _, found in answers for each in found for _, value in each["points"]]
    text = _text(values[-1], panel) if values else "no data"
    axes.text(0.5, 0.45, text, ha="center", va="center", fontsize=17, color=_color(values[-1:], panel))


def _draw_lines(axes: Any, panel: Mapping[str, Any], answers: Sequence[Any]) -> None:
    custom = panel["fieldConfig"]["defaults"].get("custom", {})
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    lines = [(_legend(query, each) or "none", each["points"]) for query, found in answers for each in found]
    if stacked:
        _stack(axes, lines)
    else:
        for legend, points in lines:
            known = [(at, value) for at, value in points if not math.isnan(value)]
            axes.plot(
                [at for at, _ in known], [value for _, value in known], label=legend, linewidth=1, marker=".", ms=2
            )
    axes.set_ylim(0, (axes.get_ylim()[1] or 1) * 1.5)  # room for the legend
    _write_values(axes.yaxis, panel)
    axes.set_xlabel("s since the start of the range", fontsize=SMALLER)
    _add_legend(axes, 1 if len(lines) < 5 else 2)


def _stack(axes: Any, lines: Sequence[tuple[str, list[tuple[float, float]]]]) -> None:
    instants = sorted({at for _, points in lines for at, _ in points})
    heights = [[0.0 if math.isnan(v := dict(points).get(at, 0.0)) else v for at in instants] for _, points in lines]
    axes.stackplot(instants, heights, labels=[legend for legend, _ in lines], alpha=0.7)


def _write_values(axis: Any, panel: Mapping[str, Any]) -> None:
    """Write four or five round values on the axis, in the panel's unit."""
    axis.get_major_locator().set_params(nbins=4)
    axis.set_major_formatter(lambda value, _: _text(value, panel))


def _add_legend(axes: Any, columns: int) -> None:
    if axes.get_legend_handles_labels()[1]:
        axes.legend(fontsize=SMALL, ncols=columns, loc="upper left", framealpha=0.5)


def _draw_heatmap(axes: Any, panel: Mapping[str, Any], answers: Sequence[Any]) -> None:
    found = sorted((each for _, found in answers for each in found), key=lambda each: float(each["metric"]["le"]))
    instants = sorted({at for each in found for at, _ in each["points"]})
    if not instants:
        return
    columns = {at: i for i, at in enumerate(instants)}
    heights = [[0.0] * len(instants) for _ in found]
    for row, each in zip(heights, found, strict=True):
        for at, value in each["points"]:
            row[columns[at]] = value
    within = [[now - before for now, before in zip(row, below, strict=True)]
              for row, below in zip(heights, [[0.0] * len(instants), *heights[:-1]], strict=True)]  # fmt: skip
    used = [i for i, row in enumerate(within) if any(value > 1e-9 for value in row)]
    shown = within[used[0] : used[-1] + 1] if used else within
    bounds = [float(each["metric"]["le"]) for each in found][used[0] : used[-1] + 1] if used else []
    blank = [[value if value > 1e-9 else math.nan for value in row] for row in shown]
    axes.pcolormesh([*instants, instants[-1] + ask.STEP_S], range(len(bounds) + 1), blank, cmap="Spectral_r")
    every = 1 + len(bounds) // MAX_NAMES
    axes.set_yticks(range(1, len(bounds) + 1, every), [_text(bound, panel) for bound in bounds[::every]])
    axes.set_xlabel("s since the start of the range; upper bounds of the buckets", fontsize=SMALLER)


def _draw_states(axes: Any, panel: Mapping[str, Any], answers: Sequence[Any]) -> None:
    bands = [(_legend(query, each), each["points"]) for query, found in answers for each in found][:MAX_NAMES]
    for y, (_, points) in enumerate(bands):
        for at, value in points:
            axes.barh(y, ask.STEP_S, left=at, color=_color([value], panel), height=0.7)
    axes.set_yticks(range(len(bands)), [textwrap.fill(legend, 24, break_on_hyphens=False) for legend, _ in bands])
    axes.set_xlabel("s since the start of the range; green: valid, orange: degraded, red: invalid", fontsize=SMALLER)


def _draw_bars(axes: Any, panel: Mapping[str, Any], answers: Sequence[Any]) -> None:
    bars = [(_legend(query, each), each["points"][-1][1]) for query, found in answers for each in found]
    known = [(legend, value) for legend, value in sorted(bars, reverse=True) if not math.isnan(value)]
    colors = [_color([value], panel) for _, value in known]
    drawn = axes.barh([legend for legend, _ in known], [value for _, value in known], color=colors)
    axes.bar_label(drawn, [_text(value, panel) for _, value in known], fontsize=SMALL, padding=2)
    axes.set_xlim(0, max([value for _, value in known], default=1) * 1.35 or 1)
    _write_values(axes.xaxis, panel)


def _draw_groups(axes: Any, panel: Mapping[str, Any], answers: Sequence[Any]) -> None:
    found = [each for _, found in answers for each in found if not math.isnan(each["points"][-1][1])]
    loads = sorted({(float(each["metric"].get("level", "0")), each["metric"]["structbench_load"]) for each in found})
    cells = sorted({each["metric"]["cell"] for each in found})
    width = 0.8 / max(1, len(cells))
    for i, cell in enumerate(cells):
        values = {
            each["metric"]["structbench_load"]: each["points"][-1][1]
            for each in found
            if each["metric"]["cell"] == cell
        }
        places = [x + (i - (len(cells) - 1) / 2) * width for x, (_, load) in enumerate(loads) if load in values]
        drawn = axes.bar(places, [values[load] for _, load in loads if load in values], width * 0.92, label=cell)
        axes.bar_label(drawn, [_text(values[load], panel) for _, load in loads if load in values], fontsize=SMALLER)
    axes.set_xticks(range(len(loads)), [load for _, load in loads])
    highest = max((each["points"][-1][1] for each in found), default=0) or 1
    axes.set_ylim(0, highest * 1.4)
    _write_values(axes.yaxis, panel)
    _add_legend(axes, 1 + panel["gridPos"]["w"] // 12)


def _draw_table(axes: Any, panel: Mapping[str, Any], answers: Sequence[Any]) -> None:
    axes.axis("off")
    rows: dict[tuple[str, ...], dict[str, str]] = {}
    columns = {each["matcher"]["options"]: _defaults_of(each) for each in panel["fieldConfig"]["overrides"]}
    for query, found in answers:
        name = query["legendFormat"]
        for each in found:
            key = tuple(each["metric"].get(label, "") for label in CELL)
            rows.setdefault(key, {})[name] = _text(each["points"][-1][1], columns[name])
    names = [query["legendFormat"] for query, _ in answers]
    texts = [
        [" ".join(filter(None, key)), *(row.get(name, "–") for name in names)] for key, row in sorted(rows.items())
    ]
    if texts:
        widths = [0.2, *[0.8 / len(names)] * len(names)]
        table = axes.table(
            texts, colLabels=["", *names], colWidths=widths, loc="upper center", cellLoc="right", edges="B"
        )
        table.auto_set_font_size(False)
        table.set_fontsize(SMALL)
        table.scale(1, 1.2)


def _defaults_of(override: Mapping[str, Any]) -> dict[str, Any]:
    """Return a table's column as a panel whose defaults are the column's own."""
    return {"fieldConfig": {"defaults": {each["id"]: each["value"] for each in override["properties"]}}}


_DRAW = {
    "stat": _draw_numbers,
    "timeseries": _draw_lines,
    "heatmap": _draw_heatmap,
    "state-timeline": _draw_states,
    "bargauge": _draw_bars,
    "barchart": _draw_groups,
    "table": _draw_table,
}


def _legend(query: Mapping[str, Any], series: Mapping[str, Any]) -> str:
    """Return the query's legend with the labels of the series filled in."""
    text = query["legendFormat"]
    for part in text.split("{{")[1:]:
        label = part.split("}}")[0]
        text = text.replace(f"{{{{{label}}}}}", series["metric"].get(label, ""))
    return " ".join(text.split())


def _color(values: Sequence[float], panel: Mapping[str, Any]) -> str:
    color = "black"
    for step in panel["fieldConfig"]["defaults"]["thresholds"]["steps"]:
        if values and (step["value"] is None or values[0] >= step["value"]):
            color = step["color"]
    return color


def _text(value: float, panel: Mapping[str, Any]) -> str:
    mapped = [each["options"].get(f"{value:g}") for each in panel["fieldConfig"]["defaults"].get("mappings", [])]
    return mapped[0]["text"] if mapped and mapped[0] else _written(value, panel["fieldConfig"]["defaults"]["unit"])


def _written(value: float, unit: str) -> str:
    """Format a value with its unit, in the project's formatting."""
    from structbench.formatting import bytes_text, latency_text, rate_text, share_text

    if math.isnan(value):
        return "–"
    match unit:
        case "s":
            return "0" if value == 0 else latency_text(value)
        case "percentunit":
            return share_text(value, 0)
        case "bytes":
            return bytes_text(value)
        case "reqps":
            return f"{rate_text(value)}/s"
        case _ if unit.startswith("suffix:"):
            return f"{rate_text(value)}{unit.removeprefix('suffix:')}"
    return f"{value:.2g}" if 0 < value < 10 else f"{value:,.0f}"


def _shrink(path: Path) -> None:
    """Reduce the image to 64 colors: a quarter of the size, and no visible difference."""
    from PIL import Image

    with Image.open(path) as image:
        image.convert("RGB").quantize(64).save(path, optimize=True)


if __name__ == "__main__":
    main()
