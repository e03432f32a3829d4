"""The validator against the official JSON Schema Test Suite: nothing differs but what docs/scoring.md names."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from structbench.scoring.answer import CannotScore
from structbench.scoring.validation import violations
from tests.support.paths import ROOT

FILE = Path(
    os.environ.get("STRUCTBENCH_JSON_SCHEMA_TEST_SUITE", ROOT.parent / "shared/data/json-schema-test-suite.jsonl.gz")
)
DRAFTS = {
    "draft7": "http://json-schema.org/draft-07/schema#",
    "draft2019-09": "https://json-schema.org/draft/2019-09/schema",
    "draft2020-12": "https://json-schema.org/draft/2020-12/schema",
}
BY_DESIGN = {
    ("draft2019-09", "vocabulary.json"): 1,
    ("draft2020-12", "vocabulary.json"): 1,
    ("draft2020-12", "format.json"): 19,
}
"""Tests that differ: a metaschema of its own turns validation off; ``format`` is not to be checked."""

pytestmark = [
    pytest.mark.data,
    pytest.mark.skipif(not FILE.is_file(), reason="needs STRUCTBENCH_JSON_SCHEMA_TEST_SUITE=suite.jsonl.gz"),
]


def groups() -> Iterator[dict[str, Any]]:
    with gzip.open(FILE, "rt", encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def judged(schema: Any, draft: str, value: Any) -> bool | None:
    """Return whether the value is valid; None if it cannot be judged without the network."""
    if isinstance(schema, bool):
        return schema
    try:
        return not violations({"$schema": DRAFTS[draft], **schema}, value)
    except CannotScore as error:
        if "Unresolvable" not in str(error):
            raise
        return None


def test_only_what_the_docs_name_differs() -> None:
    tests, differ, formats = Counter[str](), Counter[tuple[str, str]](), Counter[str]()
    for group in groups():
        draft, file = group["draft"], group["file"]
        if file.startswith("optional/") and "format/" not in file:
            continue
        for test in group["tests"]:
            found = judged(group["schema"], draft, test["data"])
            (formats if "format/" in file else tests)[draft] += 1
            if found is None:
                assert "format/" not in file
            elif found is not test["valid"]:
                differ[draft, file] += 1
    assert dict(differ) == BY_DESIGN
    assert tests == {"draft7": 927, "draft2019-09": 1259, "draft2020-12": 1299}
    assert formats == {"draft7": 676, "draft2019-09": 757, "draft2020-12": 764}
