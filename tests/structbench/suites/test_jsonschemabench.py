"""JSONSchemaBench's layouts as suites: schemas and maskbench files made up here, and the real sample where it is."""

from __future__ import annotations

import gzip
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from loadgen.simulator import Simulator
from structbench.errors import BadInput
from structbench.scoring import Answer, score
from structbench.suites.catalog import load_suite
from structbench.suites.generated import TextShape
from structbench.suites.requests import request_of, with_schema
from structbench.types import Case, Config, Suite
from tests.support.loads import ROOT, ask, small
from tests.support.loads import load as run_load

SAMPLE = Path(os.environ.get("STRUCTBENCH_MASKBENCH", ROOT.parent / "shared/data/maskbench-sample.jsonl.gz"))
needs_sample = pytest.mark.skipif(
    not SAMPLE.is_file(), reason="needs a maskbench file (STRUCTBENCH_MASKBENCH=maskbench.jsonl.gz)"
)
PERSON = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}
OLD = {
    "$schema": "http://json-schema.org/draft-04/schema#",
    "type": "object",
    "properties": {"n": {"type": "number", "minimum": 0, "exclusiveMinimum": True}, "on": {"format": "date"}},
    "dependencies": {"n": ["on"]},
}
MASKBENCH = {
    "description": "made up", "meta": {}, "schema": PERSON,
    "tests": [{"description": "a", "valid": True, "data": {"name": "Ada"}}],
}  # fmt: skip


def load(name: object) -> Suite:
    return load_suite(f"jsonschemabench:{name}", text=TextShape(), seed=0)


def write(path: Path, content: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A repository as it is published: a folder for each set, and other files around."""
    write(tmp_path / "data/Easy/b.json", PERSON)
    write(tmp_path / "data/Easy/a.json", OLD)
    write(tmp_path / "data/Hard/c.json", {"$ref": "https://example.org/elsewhere.json"})
    write(tmp_path / "package.json", {"not": "a schema of the data set"})
    return tmp_path


def ids(suite: Suite) -> list[str]:
    return [suite.cases[i].id for i in range(len(suite.cases))]


def test_a_repository_is_all_sets_and_a_set_is_its_schemas(data: Path) -> None:
    assert ids(load(data)) == ["Easy/a", "Easy/b", "Hard/c"]
    for name in (f"{data}/Easy", f"{data}/data/Easy"):
        suite = load(name)
        assert ids(suite) == ["Easy/a", "Easy/b"]
        assert (suite.name, suite.default_requests) == ("jsonschemabench:Easy", 2)
        assert suite.cases[1].schema == PERSON
        assert suite.cases[1].tags == ("Easy",)


def test_a_flat_folder_and_maskbench_files(tmp_path: Path) -> None:
    write(tmp_path / "maskbench/data/Easy---o1.json", MASKBENCH)
    write(tmp_path / "maskbench/data/Handmade_2.json", MASKBENCH)
    assert ids(load(tmp_path / "maskbench")) == ["Easy/o1", "Handmade_2"]
    assert ids(load(tmp_path / "maskbench/Easy")) == ["Easy/o1"]
    assert load(tmp_path / "maskbench").cases[0].schema == PERSON
    write(tmp_path / "mine/x.json", PERSON)
    assert ids(load(tmp_path / "mine")) == ["mine/x"]


@pytest.mark.parametrize("pack", [lambda data: data, gzip.compress])
def test_json_lines_hold_maskbench_files(tmp_path: Path, pack: Any) -> None:
    lines = [json.dumps({"file": f"{name}.json", **MASKBENCH}) for name in ("Easy---o1", "Hard---o2", "BFCL_1")]
    path = tmp_path / "sample"
    path.write_bytes(pack("\n".join(lines).encode()))
    assert ids(load(path)) == ["Easy/o1", "Hard/o2", "BFCL_1"]
    assert ids(load(path / "Hard")) == ["Hard/o2"]


def test_the_hash_is_that_of_the_schemas(data: Path) -> None:
    before = load(data).content_hash
    assert load(data).content_hash == before
    write(data / "data/Easy/b.json", {**PERSON, "required": []})
    assert load(data).content_hash != before


CONFIG: dict[str, Any] = {
    "suite": "s", "suite_hash": "h", "model": "m", "model_digest": "", "server_version": "", "server_address": "",
    "endpoint": "chat", "think": None, "options": {}, "keep_alive": None, "load": {}, "seed": 0,
    "warmup": 0, "timeout_s": 1.0, "scorer_version": 1,
}  # fmt: skip


def test_the_prompt_shows_the_schema_once_whether_it_is_enforced_or_not(data: Path) -> None:
    case = load(f"{data}/Easy").cases[1]
    constrained, free = (request_of(case, Config(structured=mode, **CONFIG), 0) for mode in ("format", "prompt"))
    assert constrained.messages == free.messages
    assert (constrained.format, free.format) == (PERSON, None)
    assert free.messages[0]["content"].count(json.dumps(PERSON)) == 1
    assert with_schema(with_schema([{"role": "user", "content": "x"}], OLD), PERSON) != case.messages


def scored(schema: Any, text: str) -> Any:
    return score(Case(id="x", messages=(), schema=schema), Answer(text, (), "stop"))


def test_the_draft_that_a_schema_names_decides(data: Path) -> None:
    old = load(f"{data}/Easy").cases[0].schema
    assert scored(old, '{"n": 1, "on": "2024-02-29"}').outcome == "correct"
    broken = scored(old, '{"n": 0, "on": "2023-02-29"}')
    assert broken.violated_keywords == ("format", "minimum")
    assert scored(old, '{"n": 1}').violated_keywords == ("dependencies",)
    newer = {name: value for name, value in OLD.items() if name != "$schema"}
    assert scored(newer, '{"n": 1}').outcome == "unscored"  # 2020-12 has no true in exclusiveMinimum


@pytest.mark.parametrize(
    ("schema", "reason"),
    [
        ({"$ref": "https://example.org/elsewhere.json"}, "elsewhere.json"),
        ({"$ref": "#/nowhere"}, "nowhere"),
        ({"type": "objekt"}, "in the schema"),
        ({"type": "string", "pattern": "(?P<a>x)"}, "is not a 'regex'"),
        ({"$ref": "#"}, "RecursionError"),
        ({"$dynamicRef": "#nowhere"}, "nowhere"),
    ],
)
def test_what_cannot_be_judged_is_unscored_with_the_reason_and_nothing_is_fetched(schema: Any, reason: str) -> None:
    result = scored(schema, '"x"')
    assert (result.outcome, result.schema_valid, result.accuracy_score) == ("unscored", None, None)
    assert reason in result.validation_errors[0]


@pytest.mark.slow
def test_a_run_says_what_was_valid_and_what_was_not_and_goes_on(data: Path, tmp_path: Path) -> None:
    write(data / "data/Hard/d.json", {"type": "number", "exclusiveMinimum": True})
    db = tmp_path / "runs.duckdb"
    with Simulator() as sim:
        summary = run_load(small(sim, db, suites=[f"jsonschemabench:{data}"]))
    assert summary.exit_code == 0
    rows = dict(ask(db, "SELECT case_id, outcome FROM requests"))
    assert rows == {"Easy/a": "correct", "Easy/b": "correct", "Hard/c": "rejected", "Hard/d": "unscored"}
    counts = ask(db, "SELECT judged, rejected, valid, unscored, declared, empirical, compliance FROM compliance")
    assert counts == [(6, 2, 4, 2, 4 / 6, 4 / 6, 1.0)]


@pytest.mark.parametrize(
    ("files", "name", "said"),
    [
        ({}, "", "jsonschemabench:: no such file, folder or set"),
        ({"empty/readme.md": "x"}, "empty", "contains no schemas"),
        ({"data/Easy/a.json": "{"}, ".", "Easy/a.json: not JSON at column 2: "),
        ({"data/Easy/a.json": "[]"}, ".", "Easy/a.json: must be a JSON object, not list"),
        ({"data/Easy/a.json": "true"}, ".", "Easy/a.json: must be a JSON object, not bool"),
        (
            {"data/Easy/a.json": {"schema": 1, "tests": []}},
            ".",
            "Easy/a.json: schema: missing or not of type dict",
        ),
        ({"data/Easy/a.json": PERSON}, "Eazy", 'no set "Eazy": did you mean "Easy"? Choose from Easy'),
        ({"data/Easy/a.json": PERSON}, "Quite-else", "no such file, folder or set"),
        ({"x.jsonl": '{"file": "a"}\n{'}, "x.jsonl", "x.jsonl, line 2: not JSON"),
        ({"x.jsonl": '{"schema": {}}'}, "x.jsonl", "x.jsonl, line 1: file: missing or not of type str"),
        ({"x.jsonl": "\x1f\x8bnope"}, "x.jsonl", "not a complete gzip file"),
        ({}, "no/where", "no such file, folder or set"),
        ({}, "x" * 300, "cannot be read: File name too long: check the path"),
        ({"data/Easy/a.json": {"const": float("nan")}}, ".", "Easy/a.json: not JSON: NaN is not JSON"),
        ({"data/Easy/a.json": '{"const": 1, "const": 2}'}, ".", 'Easy/a.json: not JSON: duplicate member name "const"'),
        ({"data/Easy/a.json": '{"const": 1e999}'}, ".", "Easy/a.json: not JSON: Out of range float values"),
        ({"data/Easy/a.json": {"const": "\ud800"}}, ".", "Easy/a.json: not JSON: unpaired surrogate"),
    ],
)
def test_what_cannot_be_read_is_said_in_a_line(tmp_path: Path, files: dict[str, Any], name: str, said: str) -> None:
    for file, content in files.items():
        write(tmp_path / file, content)
        if isinstance(content, str) and content.startswith("\x1f"):
            (tmp_path / file).write_bytes(b"\x1f\x8bnope")
    with pytest.raises(BadInput) as caught:
        load(f"{tmp_path}/{name}" if name else "")
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_damaged_gzip_file_is_called_that(tmp_path: Path) -> None:
    whole = gzip.compress(b'{"file": "a"}' * 100)
    (tmp_path / "x.jsonl.gz").write_bytes(whole[:10] + b"\xff" * (len(whole) - 10))
    with pytest.raises(BadInput, match=r"x\.jsonl\.gz: not a complete gzip file: .*: download it again"):
        load(tmp_path / "x.jsonl.gz")


def test_cases_are_made_when_they_are_asked_for(data: Path) -> None:
    suite = load(data)
    (data / "data/Easy/b.json").unlink()
    assert suite.cases[0].schema == OLD
    with pytest.raises(BadInput, match=r"b\.json cannot be read"):
        suite.cases[1]


@pytest.mark.data
@needs_sample
def test_our_validator_agrees_with_the_labels_of_maskbench() -> None:
    """Against 3,915 of 3,924 with jsonschema's validators as they come."""
    verdicts: Counter[bool] = Counter()
    differing: list[tuple[str, bool, Sequence[str]]] = []
    with gzip.open(SAMPLE, "rt", encoding="utf-8") as lines:
        for line in lines:
            entry = json.loads(line)
            for test in entry["tests"]:
                result = scored(entry["schema"], json.dumps(test["data"]))
                verdicts[result.schema_valid is test["valid"]] += 1
                if result.schema_valid is not test["valid"]:
                    differing.append((entry["file"], test["valid"], result.validation_errors))
    assert verdicts.total() == 3924 or SAMPLE.name != "maskbench-sample.jsonl.gz"
    assert differing == []


@pytest.mark.data
@needs_sample
def test_the_sample_loads_as_a_suite_of_cases_with_ids_of_their_own() -> None:
    found = ids(load(SAMPLE))
    assert len(found) == len(set(found)) > 1000
