"""Everything the page shows, as finished texts; the template only places them."""

from __future__ import annotations

import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

from structbench.formatting import (
    ABSENT,
    identity_text,
    machine_text,
    placement_text,
    printable,
    rate_text,
    span_text,
    version_text,
)
from structbench.metrics import LATENCIES, METRICS, of_kind
from structbench.reports.candidates import Candidate, Check
from structbench.reports.charts import FIRST, chart_values, charts_of
from structbench.reports.document import Document
from structbench.reports.estimates import (
    ABOUT_CASES,
    SUCH_CASES,
    cell,
    judged_text,
    line_of,
    of_such_cases,
    plain,
    row,
)
from structbench.reports.headline import Headline, settling
from structbench.results.figures import Figures
from structbench.results.groups import SIMULATED, RunGroup
from structbench.results.nodes import node_table

_SIGNS = {"met": "✓", "not decided": "?", "not met": "✗"}
_STATES = {"met": ("met", "good"), "not decided": ("not decided", "unsure"), "not met": ("not met", "")}


def view_of(document: Document) -> dict[str, Any]:
    """Return everything the template names."""
    details = document.details or {}
    groups, figures, headline = document.groups, document.figures, document.headline
    charts = charts_of(document, details)
    return {
        "title": headline.sentences[0],
        "made_at": _instant_text(document.made_at), "database": document.database,
        **_answer(headline),
        "facts": _facts(document),
        "pooled": "One row per config: its runs are pooled." if document.pooled else "One row per run.",
        "lines": [_run_row(group, figures[group.id]) for group in groups],
        "filters": [
            (name, list(dict.fromkeys(getattr(group, name) for group in groups)))
            for name in ("model", "suite", "load", "server")
        ],
        "answers": _answers_table(groups, figures),
        "about_cases": ABOUT_CASES,
        "errors": [
            {"line": line_of(group), "kind": printable(f"{each.kind} {each.status or ''}".strip()),
             "count": f"{each.count:,}", "first": visible(each.first or ABSENT)}
            for group in groups
            for each in figures[group.id].failures
        ],
        "nodes": node_table(document.nodes, groups) if document.nodes else [],
        "speed": _speed_table(groups, figures),
        "first_charts": charts[:FIRST], "charts": charts[FIRST:],
        "wrong": _wrong_answers(details["wrong"], groups),
        "drawn": chart_values(document, details),
    }  # fmt: skip


def _answer(headline: Headline) -> dict[str, Any]:
    simulated = [note for note in headline.notes if note.startswith(SIMULATED)]
    every = all(group.simulated for each in headline.candidates for group in each.groups) and bool(simulated)
    lead, *parts = (text.removeprefix(f"{SIMULATED}: ") if every else text for text in headline.sentences)
    return {
        "answer": {"state": headline.state.replace(" ", "-"), "lead": lead, "parts": parts, "rule": headline.rule,
                   "notes": [note for note in headline.notes if note not in simulated]},
        "all_simulated": every,
        "simulated": simulated[0].removeprefix(f"{SIMULATED}: ") if simulated else "",
        "settles": settling((each for one in headline.candidates for each in one.settles), headline.settled_by),
        "conditions": [condition.text for condition in headline.conditions],
        "candidates": [_candidate(each, headline, every) for each in headline.candidates],
    }  # fmt: skip


def _candidate(candidate: Candidate, headline: Headline, said: bool) -> dict[str, Any]:
    """Return a row of the rule's table; ``said``: that all is simulated stands above it."""
    state, style = _STATES[candidate.state] if candidate.judged else ("not judged", "unsure")
    marks = [mark for group in candidate.groups for mark in group.marks if mark != SIMULATED or not said]
    name = " ".join([candidate.name, *dict.fromkeys(f"[{mark}]" for mark in marks)])
    checks = [
        [_check(check) for check in candidate.checks if check.condition == condition]
        for condition in headline.conditions
    ]
    return {"name": name, "state": state, "style": style, "checks": checks}


def _check(check: Check) -> dict[str, str]:
    text = judged_text(check.metric, check.estimate, brief=True)
    told = text if check.metric == check.condition.metric else f"{check.metric.label} {text}"
    return {"sign": _SIGNS[check.state], "text": f"{check.group.suite}: {told}"}


def _facts(document: Document) -> list[tuple[str, str]]:
    """Return what was run, where and when."""
    groups = document.groups
    models = dict.fromkeys(_model_text(group) for group in groups)
    starts = [group.started_at for group in groups if group.started_at is not None]
    ends = [group.finished_at for group in groups if group.finished_at is not None]
    requests = sum(document.figures[group.id].counts["requests"] for group in groups)
    facts = {
        "models": models,
        "suites": dict.fromkeys(group.suite for group in groups),
        "loads": dict.fromkeys(group.load for group in groups),
        "requests": [f"{requests:,} in {sum(len(group.run_ids) for group in groups):,} runs"],
        "when (UTC)": [f"{_instant_text(min(starts, default=None))} to {_instant_text(max(ends, default=None))}"],
        "server": dict.fromkeys(
            printable(version_text(group.server_kind, group.server_version, group.api)) for group in groups
        ),
        "API": dict.fromkeys(str(group.api or ABSENT) for group in groups),
        "server address": dict.fromkeys(str(group.config.get("server_address", ABSENT)) for group in groups),
        **_machines(groups),
        "limits of correct goodput": dict.fromkeys(limit for group in groups for limit in group.goodput_limits),
    }
    return [(name, ", ".join(values)) for name, values in facts.items() if values]


def _model_text(group: RunGroup) -> str:
    """Return the model with its identity and what its server tells of it."""
    answered = ", ".join(name for name in group.answered if name != group.model)
    told = [identity_text(group.model_digest), answered and f"answered by {answered}", group.quantization or ""]
    told += [f"{count:,} {what}" for what, count in (
        ("parameters", group.parameters), ("tokens of context", group.context_tokens), ("slots", group.server_slots)
    ) if count is not None]  # fmt: skip
    known = printable("; ".join(filter(None, told)))
    return f"{group.model} ({known})" if known else group.model


def _machines(groups: Sequence[RunGroup]) -> dict[str, Iterable[str]]:
    """Return the machines by whose they were; of a server elsewhere nothing is known but what --metadata says."""
    found: dict[str, dict[str, None]] = {}
    for group in groups:
        here = group.environment.get("server_is_here")
        whose = "machine of client and server" if here else "client machine"
        found.setdefault(whose, {})[_machine_text(group.environment)] = None
        if (placement := placement_text(group.environment)) != ABSENT:
            found.setdefault("model loaded on", {})[placement] = None
    return {**found}


def _machine_text(environment: Mapping[str, Any]) -> str:
    known = [machine_text(environment), environment.get("system")]
    known += [f"Python {environment['python']}"] if environment.get("python") else []
    return "; ".join(str(each) for each in known if each and each != ABSENT) or ABSENT


def _run_row(group: RunGroup, figures: Figures) -> dict[str, Any]:
    done, planned = figures.counts["requests"], group.planned
    short = planned is not None and done < planned
    steady = figures.counts.get("steady") or 0
    figured = f", {steady:,} steady" if 0 < steady < done else ""
    return {
        "id": group.id, "name": group.name, "marks": group.marks,
        "requests": (f"{done:,} of {planned:,}" if short else f"{done:,}") + figured,
        "took": span_text(group.duration_s), "started": _instant_text(group.started_at),
        "verdict": ": ".join([str(group.verdict or "none"), "; ".join(group.reasons)]).removesuffix(": "),
        "notes": "; ".join(note.text for note in group.notes) or ABSENT,
        "label": ", ".join(group.labels) or ABSENT, "runs": ", ".join(group.run_ids),
    }  # fmt: skip


def _instant_text(instant: datetime | None) -> str:
    return ABSENT if instant is None else f"{instant:%Y-%m-%d %H:%M}"


def _answers_table(groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> dict[str, Any]:
    shares = [metric for metric in of_kind("share") if any(each.of(metric).n for each in figures.values())]
    rows = []
    for group in groups:
        own = figures[group.id]
        cells = [plain(f"{own.counts['requests']:,}"), plain(f"{own.counts['errors']:,}")]
        cells += [cell(metric, own.of(metric)) for metric in shares]
        cells += [
            cell(METRICS["correct"], of_such_cases(own)),
            cell(METRICS["correct_goodput"], own.rates["correct_goodput"]),
        ]
        rows.append(row(group, cells))
    header = ["requests", "failed", *(metric.label for metric in shares), SUCH_CASES, "correct/s"]
    return {"caption": "Shares of right answers", "header": header, "rows": rows}


def _speed_table(groups: Sequence[RunGroup], figures: Mapping[int, Figures]) -> dict[str, Any]:
    latencies = [metric for metric in LATENCIES.values() if any(each.has(metric) for each in figures.values())]
    shown = [metric.at(p) for metric in latencies for p in metric.shown]
    rows = []
    for group in groups:
        own = figures[group.id]
        cells = [cell(figure, own.told(figure)) for figure in shown]
        cells += [plain(rate_text(own.stream_tokens_per_s))]
        cells += [cell(METRICS[name], own.rates[name]) for name in ("tokens_per_s", "requests_per_s")]
        rows.append(row(group, cells))
    header = [figure.label for figure in shown]
    header += ["tokens/s, one stream", "tokens/s, all", "requests/s"]
    return {"caption": "Speed of answers", "header": header, "rows": rows}


def _wrong_answers(wrong: Mapping[str, Any], groups: Sequence[RunGroup]) -> dict[str, Any]:
    """Return ``text``, and ``cases``: each with what was asked and every listed answer to it, most answers first."""
    by_id = {group.id: group for group in groups}
    cases: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for each in wrong["listed"]:
        case = str(each["case_id"] or f"request {each['request_index']}")
        cases.setdefault((by_id[each["line"]].suite, case), []).append(each)
    shown, total = len(wrong["listed"]), wrong["total"]
    if not total:
        text = "None: every scored answer was correct and no request failed."
    elif shown == total:
        text = f"All {total:,} are listed, by case."
    else:
        text = f"{shown:,} of {total:,}, by case: a few of each run group and outcome."
    found = [
        _case(suite, case, answers, by_id)
        for (suite, case), answers in sorted(cases.items(), key=lambda item: -len(item[1]))
    ]
    return {"text": text, "cases": found}


def _case(suite: str, case: str, answers: Sequence[Mapping[str, Any]], by_id: Mapping[int, RunGroup]) -> dict[str, Any]:
    """Return a case: what it asks, with schema and tools apart, and what each answer to it has and should have."""
    asked = next((each["asked"] for each in answers if each["asked"] is not None), None)
    prompts = [("Prompt", _NOT_KEPT)]
    if asked is not None:
        prompts = [(f"Prompt ({printable(each['role'])})", visible(each["content"])) for each in asked["messages"]]
    kept = asked or {"schema": None, "tools": None, "expected": None}
    folded = [(title, visible(kept[key])) for title, key in (("Schema", "schema"), ("Tools", "tools")) if kept[key]]
    outcomes = Counter(printable(str(each["outcome"])).replace("_", " ") for each in answers)
    return {
        "suite": printable(suite), "case": printable(case), "outcomes": list(outcomes.items()), "prompts": prompts,
        "folded": folded, "expected": visible(kept["expected"] or ""),
        "answers": [
            {"line": line_of(by_id[each["line"]]), "outcome": printable(str(each["outcome"])).replace("_", " "),
             "wrong": visible(_what_was_wrong(each)),
             "texts": [(title, visible(text)) for title, text in _answer_texts(each)]}
            for each in answers
        ],
    }  # fmt: skip


_NOT_KEPT = "(not kept: a run of an earlier version whose suite has changed, or of text, whose prompts are made up)"


def _what_was_wrong(answer: Mapping[str, Any]) -> str:
    if answer["error_kind"] is not None:
        status = "" if answer["error_status"] is None else f" {answer['error_status']}"
        return f"{answer['error_kind']}{status}: {answer['error_message'] or ABSENT}"
    found = [each for each in (*(answer["validation_errors"] or ()), answer["json_parse_error"]) if each]
    return "\n".join(found)


def _answer_texts(answer: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the answer in its parts: thinking, text, calls."""
    none = answer["tool_calls"] in (None, "null", "[]")
    if answer["output_text"]:
        yield "Answer", _cut(answer["output_text"], answer["output_letters"])
    if not none:
        yield "Tool calls", _cut(answer["tool_calls"], answer["tool_calls_letters"])
    if answer["error_kind"] is None and not answer["output_text"] and none:
        yield "Answer", "(empty)"
    if answer["thinking_text"]:
        yield "Thinking", _cut(answer["thinking_text"], answer["thinking_letters"])


def _cut(text: str, letters: int) -> str:
    return text if len(text) >= letters else f"{text}\n… and {letters - len(text):,} more characters"


def visible(text: str) -> str:
    """Return the text with control and formatting characters (escapes, bidirectional marks) written as ⟨U+202E⟩."""

    def is_shown(c: str) -> bool:
        return c.isprintable() or c in "\n\t" or unicodedata.category(c) == "Zs"

    return "".join(c if is_shown(c) else f"⟨U+{ord(c):04X}⟩" for c in text)
