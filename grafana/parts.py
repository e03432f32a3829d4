"""The kinds of panels that the dashboards use, on top of grafana-foundation-sdk.

Every panel has a title, description, unit and thresholds, and the data source of the variable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, NamedTuple, TypedDict, Unpack

from grafana_foundation_sdk.builders import (
    barchart,
    bargauge,
    common,
    dashboard,
    heatmap,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.models import common as words
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.heatmap import HeatmapColorMode
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from grafana.queries import LABEL, LOAD, MODEL, REQUESTS, SHOWN, VARIABLES

SOURCE = models.DataSourceRef(type_val="prometheus", uid="${datasource}")
SECONDS, SHARE, PER_SECOND, TOKENS_PER_S, BYTES, COUNT = "s", "percentunit", "reqps", "suffix: tok/s", "bytes", "short"
STEP = "2s"
"""Minimum step of a query, hence rates over at least 8 s: shorter ones jump with every single request."""

Limits = Sequence[tuple[float, str]]
"""Pairs of a lower bound and its color; below the first bound everything is green."""
GOOD_FROM: Limits = ((0.5, "orange"), (0.8, "green"))
"""For shares that should be high: red below one half, green from four fifths."""
FEW_ERRORS: Limits = ((0.0001, "orange"), (0.05, "red"))
NO_LIMIT: Limits = ()
WAIT: Limits = ((1, "orange"), (10, "red"))
"""Seconds after which a reader's thought is interrupted, and after which attention is lost."""
LAG: Limits = ((0.05, "orange"), (1.0, "red"))
"""The verdict's limits of what TTFT may be off by, as a share of it: degraded, invalid."""
VERDICT: Limits = ((1, "orange"), (2, "red"))
States = Mapping[int, tuple[str, str]]
"""Value -> word and color."""
VERDICTS: States = {0: ("valid", "green"), 1: ("degraded", "orange"), 2: ("invalid", "red")}


class Query(NamedTuple):
    """One query of a panel."""

    expr: str
    legend: str = ""
    exemplar: bool = False


class Look(TypedDict, total=False):
    """Optional appearance of a panel."""

    limits: Limits
    below: str
    """Color below the first limit; green by default."""
    width: int
    """Width in columns, of 24."""
    height: int
    min: float | None
    max: float | None


def graph(
    title: str,
    text: str,
    unit: str,
    *asked: Query,
    stacked: bool = False,
    bars: bool = False,
    **look: Unpack[Look],
) -> Any:
    """Return a panel with lines over time."""
    made = (
        timeseries.Panel()
        .legend(_legend())
        .tooltip(common.VizTooltipOptions().mode(words.TooltipDisplayMode.MULTI).sort(words.SortOrder.DESCENDING))
        .line_width(1.5)
        .fill_opacity(10)
        .span_nulls(10_000)  # ms: lines continue over the gaps of a slow load
        .thresholds_style(common.GraphThresholdsStyleConfig().mode(words.GraphThresholdsStyleMode.DASHED))
    )
    if bars:
        made = made.draw_style(words.GraphDrawStyle.BARS).fill_opacity(60)
    if stacked:
        made = made.stacking(common.StackingConfig().mode(words.StackingMode.NORMAL).group("A"))
    return _with_queries(_with_look(made, title, text, unit, look), asked)


def number(title: str, text: str, unit: str, *asked: Query, states: States | None = None, **look: Unpack[Look]) -> Any:
    """Return a panel with one current figure."""
    made = stat.Panel().graph_mode(words.BigValueGraphMode.NONE).color_mode(words.BigValueColorMode.VALUE)
    if states is not None:
        made = made.mappings([_mapping(states)])
    return _with_queries(_with_look(made, title, text, unit, {"width": 3, "height": 4, **look}), asked, instant=True)


def bands(title: str, text: str, *asked: Query, states: States, **look: Unpack[Look]) -> Any:
    """Return a panel with states over time, a band for each cell."""
    made = statetimeline.Panel().mappings([_mapping(states)]).merge_values(True).legend(_legend(listed=True))
    return _with_queries(_with_look(made, title, text, "none", look), asked)


def density(title: str, text: str, unit: str, *asked: Query, **look: Unpack[Look]) -> Any:
    """Return a panel with a histogram over time."""
    color = heatmap.HeatmapColorOptions().mode(HeatmapColorMode.SCHEME).scheme("Spectral").exponent(0.5).steps(64)
    made = (
        heatmap.Panel()
        .calculate(False)
        .y_axis(heatmap.YAxisConfig().unit(unit))
        .color(color)
        .filter_values(heatmap.FilterValueRange().le(1e-9))
        .show_legend()
    )
    return _with_queries(_with_look(made, title, text, unit, look, scaled=False), asked, form=PromQueryFormat.HEATMAP)


def levels(title: str, text: str, unit: str, *asked: Query, **look: Unpack[Look]) -> Any:
    """Return a panel with a bar for each series, over whole runs."""
    made = (
        bargauge.Panel()
        .orientation(words.VizOrientation.HORIZONTAL)
        .display_mode(words.BarGaugeDisplayMode.BASIC)
        .show_unfilled(True)
        .legend(_legend(listed=True))
    )
    return _with_queries(_with_look(made, title, text, unit, look), asked, instant=True)


def bars_by_load(title: str, text: str, unit: str, asked: Query, **look: Unpack[Look]) -> Any:
    """Return a panel with a group of bars for each load, ordered by level, and a color for each model and suite."""
    numbers = {"conversions": [{"targetField": "level", "destinationType": "number"}], "fields": {}}
    matrix = {"columnField": "cell", "rowField": LOAD, "valueField": "Value"}
    made = (
        barchart.Panel()
        .legend(_legend(listed=True))
        .show_value(words.VisibilityMode.AUTO)
        .fill_opacity(80)
        .with_transformation(_transformation("convertFieldType", numbers))
        .with_transformation(_transformation("sortBy", {"sort": [{"field": "level"}]}))
        .with_transformation(_transformation("groupingToMatrix", matrix))
    )
    return _with_queries(_with_look(made, title, text, unit, look), [asked], instant=True, form=PromQueryFormat.TABLE)


class Column(NamedTuple):
    """A column of a table."""

    name: str
    expr: str
    unit: str
    limits: Limits = NO_LIMIT
    below: str = "green"
    states: States | None = None


def figures(title: str, text: str, keys: Mapping[str, str], columns: Sequence[Column]) -> Any:
    """Return a table with a row for each combination of labels (``keys``: label -> heading)."""
    renamed = {**keys, **{f"Value #{ref(i)}": column.name for i, column in enumerate(columns)}}
    order = {name: i for i, name in enumerate(renamed)}
    tidy = {"excludeByName": {"Time": True}, "indexByName": order, "renameByName": renamed}
    made = table.Panel().with_transformation(_transformation("merge", {}))
    made = made.with_transformation(_transformation("organize", tidy))
    for column in columns:
        properties = [models.DynamicConfigValue(id_val="unit", value=column.unit)]
        if column.states is not None:
            properties.append(models.DynamicConfigValue(id_val="mappings", value=[_mapping(column.states)]))
        if column.limits:
            limits = _thresholds(column.limits, column.below).build()
            properties.append(models.DynamicConfigValue(id_val="thresholds", value=limits))
            properties.append(models.DynamicConfigValue(id_val="custom.cellOptions", value={"type": "color-text"}))
        made = made.override_by_name(column.name, properties)
    made = _with_look(made, title, text, COUNT, {"width": 24, "height": 8}, scaled=False)
    asked = [Query(column.expr, column.name) for column in columns]
    return _with_queries(made, asked, instant=True, form=PromQueryFormat.TABLE)


def board(
    uid: str, title: str, description: str, rows: Mapping[str, Sequence[Any]], *, live: bool, newest: bool = False
) -> models.Dashboard:
    """Return a dashboard with the variables that all of ours have; ``newest``: and how many cells to show."""
    made = (
        dashboard.Dashboard(title)
        .uid(uid)
        .description(description)
        .tags(["structbench"])
        .timezone("browser")
        .time("now-15m" if live else "now-1h", "now")
        .refresh("2s" if live else "10s")
        .timepicker(dashboard.TimePicker().refresh_intervals(["1s", "2s", "5s", "10s", "30s", "1m"]))
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .editable()
        .version(1)
        .link(
            dashboard.DashboardLink("structbench")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags(["structbench"])
            .include_vars(True)
            .keep_time(True)
        )
        .with_variable(dashboard.DatasourceVariable("datasource").label("data source").type("prometheus"))
    )
    for name, label in VARIABLES.items():
        made = made.with_variable(_variable(name, label))
    if newest:
        made = made.with_variable(_how_many_cells())
    identifiers = count(1)  # of their own, so that a link to one panel stays good
    for heading, panels in rows.items():
        made = made.with_row(dashboard.Row(heading).id(next(identifiers)))
        for each in panels:
            made = made.with_panel(each.id(next(identifiers)))
    return made.build()


def ref(i: int) -> str:
    """Return the name of a panel's query as in Grafana: A, B, … Z, AA, …"""
    return chr(ord("A") + i) if i < 26 else ref(i // 26 - 1) + ref(i % 26)


def _variable(name: str, label: str) -> dashboard.QueryVariable:
    """Return a dashboard variable; All is ``.*``, which also matches series without the label."""
    where = f'{{{LABEL}!=""}}' if label == LABEL else f'{{{MODEL}=~"$model"}}' if label == LOAD else ""
    return (
        dashboard.QueryVariable(name)
        .label(name)
        .datasource(SOURCE)
        .query(f"label_values({REQUESTS}{where}, {label})")
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(models.VariableOption(selected=True, text="All", value="$__all"))
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.NATURAL_ASC)
    )


def _how_many_cells() -> dashboard.CustomVariable:
    """Return the variable of how many cells panels are of: the running one, unless another number is chosen."""
    named = {"1": "the running one", "3": "the last three", "1000": "all"}
    options = [models.VariableOption(selected=value == "1", text=text, value=value) for value, text in named.items()]
    values = ",".join(f"{text} : {value}" for value, text in named.items())
    return dashboard.CustomVariable(SHOWN).label(SHOWN).values(values).options(options).current(options[0])


def _with_look(made: Any, title: str, text: str, unit: str, look: Look, *, scaled: bool = True) -> Any:
    """Return the builder with what every panel has; ``scaled``: its axis begins at 0 by default."""
    made = made.title(title).description(text).unit(unit).datasource(SOURCE)
    made = made.span(look.get("width", 8)).height(look.get("height", 8))
    made = made.thresholds(_thresholds(look.get("limits", NO_LIMIT), look.get("below", "green")))
    lowest, highest = look.get("min", 0), look.get("max")
    if scaled and lowest is not None:
        made = made.min(lowest)
    if scaled and highest is not None:
        made = made.max(highest)
    return made


def _with_queries(
    made: Any, asked: Sequence[Query], *, instant: bool = False, form: PromQueryFormat | None = None
) -> Any:
    """Return the builder with its queries."""
    for i, query in enumerate(asked):
        target = prometheus.Dataquery().expr(query.expr).legend_format(query.legend).ref_id(ref(i)).datasource(SOURCE)
        target = (target.instant() if instant else target.range()).interval(STEP)
        if form is not None:
            target = target.format(form)
        made = made.with_target(target.exemplar(query.exemplar))
    return made


def _thresholds(limits: Limits, below: str) -> dashboard.ThresholdsConfig:
    steps = [models.Threshold(value=None, color=below), *(models.Threshold(value=v, color=c) for v, c in limits)]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def _legend(*, listed: bool = False) -> common.VizLegendOptions:
    mode = words.LegendDisplayMode.LIST if listed else words.LegendDisplayMode.TABLE
    made = common.VizLegendOptions().display_mode(mode).placement(words.LegendPlacement.BOTTOM).show_legend(True)
    return made.calcs([] if listed else ["lastNotNull", "max"])


def _mapping(states: States) -> models.ValueMap:
    return models.ValueMap(
        options={
            str(value): models.ValueMappingResult(text=text, color=color, index=value)
            for value, (text, color) in states.items()
        }
    )


def _transformation(name: str, options: object) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(id_val=name, options=options)
