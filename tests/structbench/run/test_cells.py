"""One cell for each model × suite × load, and no nonsense gets as far as a cell."""

from __future__ import annotations

import json
import math
import shlex
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadgen.api.ollama_server import LOADING_OPTIONS
from loadgen.api.server import Server
from loadgen.telemetry.instruments import own_attributes
from loadgen.types import ClosedLoop, OpenLoop
from structbench.errors import BadInput
from structbench.identity import canonical_json, config_dict
from structbench.options import LoadOptions
from structbench.run.cells import (
    Cell,
    build_cells,
    keyword_warnings,
    loading_options,
    reload_warning,
    unreached_warning,
    words_of,
)
from structbench.run.segment import labels_of
from structbench.run.settings import MOST, check_api, parse_options, settings_of

SERVER = Server("http://127.0.0.1:11434", "0.33.0", {"a:latest": "digest-a", "b:1b": "digest-b"})


def cells(**given: Any) -> list[Cell]:
    return build_cells(settings_of(LoadOptions(**{"models": ["a"], "suites": ["numbers"], **given})), [SERVER])


def test_a_cell_for_each_model_suite_and_load_with_the_model_changing_least() -> None:
    built = cells(models=["a", "b:1b"], suites=["numbers", "tools"], concurrency=[1, 4])
    assert [cell.name for cell in built] == [
        f"{model} {suite} c={n}" for model in ("a", "b:1b") for suite in ("numbers", "tools") for n in (1, 4)
    ]
    assert len({cell.config_hash for cell in built}) == 8


def test_defaults_are_one_request_at_a_time_until_the_rule_is_settled() -> None:
    built = cells(suites=["text", "json", "tools", "numbers"])
    assert [cell.load for cell in built] == [ClosedLoop(concurrency=1)] * 4
    assert [(cell.requests, cell.until_settled) for cell in built] == [(1000, True)] * 4
    assert [cell.requests for cell in cells(max_requests=50)] == [50]


@pytest.mark.parametrize("asked", [{"requests": 9}, {"duration": 5.0}])
def test_what_is_asked_for_is_asked_for_exactly(asked: dict[str, Any]) -> None:
    assert [cell.until_settled for cell in cells(**asked)] == [False]
    with pytest.raises(BadInput, match=f"--until settled and --{next(iter(asked))} cannot be combined"):
        cells(until="settled", **asked)


def test_how_much_is_asked_for_is_no_part_of_the_identity() -> None:
    hashes = {cells(**given)[0].config_hash for given in ({}, {"requests": 9}, {"max_requests": 5}, {"max_time": "9m"})}
    assert len(hashes) == 1


def test_the_words_of_a_cell_ask_for_it_alone(tmp_path: Path) -> None:
    options = LoadOptions(
        models=["a"], suites=["numbers", "json"], concurrency=[1, 4], option=["num_ctx=2048,4096"], think=["off"],
        requests=5, skip_cached=True, slo=["correct>=80%"], db=tmp_path / "x.duckdb",
    )  # fmt: skip
    settings = settings_of(options)
    built = {cell.name: cell for cell in build_cells(settings, [SERVER])}
    words = words_of(settings, built["a json c=4 num_ctx=4096"])
    assert shlex.join(words) == ("--models a --suites json --concurrency 4 --think off --option num_ctx=4096")
    same = build_cells(settings_of(LoadOptions(
        models=["a"], suites=["json"], concurrency=[4], think=["off"], option=["num_ctx=4096"])), [SERVER])  # fmt: skip
    assert [cell.config_hash for cell in same] == [built["a json c=4 num_ctx=4096"].config_hash]


def test_a_file_of_ones_own_has_as_many_requests_as_cases(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "prompt": "x"}\n{"id": "b", "prompt": "y"}\n')
    assert [cell.requests for cell in cells(suites=[str(path)])] == [2]
    assert [cell.requests for cell in cells(suites=[str(path)], until="settled")] == [1000]
    assert [cell.requests for cell in cells(suites=[str(path)], requests=7)] == [7]


def test_a_duration_lifts_the_default_number_but_not_a_given_one() -> None:
    assert [cell.requests for cell in cells(duration=5.0)] == [None]
    assert [cell.requests for cell in cells(duration=5.0, requests=9)] == [9]


def test_a_rate_makes_an_open_loop_with_its_arrivals() -> None:
    options = LoadOptions(
        rate=[2.0, 5.5], arrival="gamma", burstiness=0.5, max_in_flight=9, duration=3.0, seed=4
    )  # fmt: skip
    shared: dict[str, Any] = {
        "arrival": "gamma", "burstiness": 0.5, "max_in_flight": 9, "duration_s": 3.0, "seed": 4
    }  # fmt: skip
    assert list(settings_of(options).loads) == [OpenLoop(rate=2.0, **shared), OpenLoop(rate=5.5, **shared)]
    assert [cell.load_name for cell in cells(rate=[2.0, 5.5])] == ["rate=2/s constant", "rate=5.5/s constant"]


LISTING = Server("http://127.0.0.1:11434", "0.33.0", {"m:latest": "d", "m:1b": "e"},
                 listed={"m:latest": "m:latest", "m:1b": "M:1b"})  # fmt: skip


@pytest.mark.parametrize("given", ["m", "M", "m:latest", "library/m", "registry.ollama.ai/library/m:latest"])
def test_a_model_is_one_cell_by_each_of_its_names(given: str) -> None:
    (cell,) = build_cells(settings_of(LoadOptions(models=[given], suites=["numbers"])), [LISTING])
    (plain,) = build_cells(settings_of(LoadOptions(models=["m"], suites=["numbers"])), [LISTING])
    assert (cell.model, cell.config_hash, cell.config.model_digest) == ("m", plain.config_hash, "d")
    assert {cell.model, *cell.spellings} == {"m", "m:latest", given}
    older = cell.under("m:latest")
    assert (older.model, older.config.model) == ("m:latest", "m:latest")
    assert older.config_hash != cell.config_hash


def test_another_tag_is_another_model_and_its_name_is_the_servers() -> None:
    (cell,) = build_cells(settings_of(LoadOptions(models=["m:1B"], suites=["numbers"])), [LISTING])
    assert (cell.model, cell.spellings, cell.config.model_digest) == ("M:1b", ("m:1B",), "e")


def test_the_identity_has_the_digest_and_not_the_simulators_port() -> None:
    (real,) = cells()
    assert (real.config.model_digest, real.config.server_address) == ("digest-a", "http://127.0.0.1:11434")
    (simulated,) = cells(simulate=True)
    assert simulated.config.server_address == "simulated"


@pytest.mark.parametrize(
    "given",
    [
        {"seed": 1}, {"concurrency": [2]}, {"rate": [1.0]}, {"warmup": 3},
        {"timeout": 5.0}, {"think": "on"}, {"endpoint": "generate"}, {"keep_alive": "10m"},
        {"option": ["temperature=0"]}, {"models": ["b:1b"]}, {"suites": ["text"]}, {"simulate": True},
    ],
    ids=str,
)  # fmt: skip
def test_what_changes_the_results_makes_another_cell(given: dict[str, Any]) -> None:
    assert cells()[0].config_hash != cells(**given)[0].config_hash


@pytest.mark.parametrize(
    "given",
    [
        {"db": Path("other.duckdb")}, {"workers": 7}, {"metrics_port": 1}, {"label": "x"}, {"grace": 1.0},
        {"hold": 3.0}, {"quiet": True}, {"json": True}, {"skip_cached": True}, {"max_error_rate": 0.5},
        {"mean_input_tokens": 9.0}, {"requests": 3}, {"duration": 2.0}, {"requests": 3, "duration": 2.0},
    ],
    ids=str,
)  # fmt: skip
def test_what_does_not_change_them_makes_none(given: dict[str, Any]) -> None:
    assert cells()[0].config_hash == cells(**given)[0].config_hash


@pytest.mark.parametrize(
    ("text", "sent"),
    [
        ("10m", "10m"),
        ("1h30m", "1h30m"),
        ("1.5h", "1.5h"),
        ("-1m", "-1m"),
        ("-1", -1),
        ("0", 0),
        ("300", 300),
        ("2.5", 2.5),
    ],
)
def test_a_keep_alive_is_sent_as_ollama_reads_it(text: str, sent: str | float) -> None:
    """A text without a unit is refused by it; a number is seconds."""
    (cell,) = cells(keep_alive=text)
    assert (cell.config.keep_alive, type(cell.config.keep_alive)) == (sent, type(sent))


@pytest.mark.parametrize("text", ["soon", "10 m", "inf", "nan", "5x"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="is not a valid duration: give 10m or 1h30m, seconds, or -1 for ever"):
        settings_of(LoadOptions(keep_alive=text))


def test_the_shape_of_prompts_belongs_to_the_text_suite_alone() -> None:
    assert cells(suites=["text"])[0].config_hash != cells(suites=["text"], mean_input_tokens=9.0)[0].config_hash


def test_only_suites_with_a_schema_know_the_structured_mode() -> None:
    formatted = cells(suites=["json", "tools", "text"])
    asked = cells(suites=["json", "tools", "text"], structured="prompt")
    assert [cell.config.structured for cell in formatted] == ["format", "none", "none"]
    assert [cell.config.structured for cell in asked] == ["prompt", "none", "none"]
    assert [a.config_hash == b.config_hash for a, b in zip(formatted, asked, strict=True)] == [False, True, True]


@pytest.mark.parametrize("value", [0, -1, math.nan, math.inf], ids=str)
@pytest.mark.parametrize(
    "name",
    ["requests", "concurrency", "rate", "burstiness", "max_in_flight", "duration", "workers", "timeout",
     "mean_input_tokens", "mean_output_tokens"],
)  # fmt: skip
def test_numbers_that_must_be_above_zero(name: str, value: float) -> None:
    whole = name in ("requests", "concurrency", "max_in_flight", "workers")
    told = "give at most " if value == math.inf else "give more than 0"
    told = "give a whole number" if whole and not math.isfinite(value) else told
    with pytest.raises(BadInput, match=f"--{name.replace('_', '-')} {value:g}: {told}"):
        settings_of(LoadOptions(**{name: [value] if name in ("concurrency", "rate") else value}))


@pytest.mark.parametrize("name", [*MOST])
def test_numbers_that_nobody_means_are_refused_before_anything_counts_to_them(name: str) -> None:
    """Some were tracebacks, some were taken, and one made Python count for ever."""
    many = name in ("concurrency", "rate")
    with pytest.raises(BadInput, match=f"--{name.replace('_', '-')} .*: give at most "):
        settings_of(LoadOptions(**{name: [10**30] if many else 10**30}))


@pytest.mark.parametrize(("given", "said"), [
    ({"concurrency": [1, 1]}, "--concurrency names 1 twice"), ({"rate": [2.0, 2.0]}, "--rate names 2 twice"),
    ({"arrival": "poisson"}, "--arrival is for an open loop"),
    ({"rate": [1.0], "burstiness": 2.0}, "--burstiness is the shape of gamma arrivals"),
    ({"simulate": True, "host": ["banana:xyz"]}, "--simulate measures a server of its own"),
    ({"think": ["maybe"]}, "--think maybe: give on, off, or a level: none, minimal, low"),
    ({"metadata": ["gpu=L4", "gpu=L5"]}, "--metadata gives gpu twice, L4 and L5"),
    ({"slo": ["ttft_p95<=-1s"]}, "expected 0 or more"), ({"slo": ["semantic_similarity>=2"]}, "from -1 to 1"),
])  # fmt: skip
def test_what_contradicts_itself_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        settings_of(LoadOptions(models=["a"], suites=["numbers"], **given))


@pytest.mark.parametrize(("given", "said"), [
    ({"models": ""}, "--models '': give what is not empty"), ({"suites": ","}, "--suites ','"),
    ({"label": ""}, "--label '': give a text that is not empty"), ({"requests": True}, "--requests True"),
    ({"timeout": True}, "--timeout True"), ({"rate": [True]}, "--rate True"),
    ({"option": {"num_ctx": []}}, "--option: num_ctx has no value"),
])  # fmt: skip
def test_what_is_no_value_is_refused(given: dict[str, Any], said: str) -> None:
    with pytest.raises(BadInput, match=said):
        LoadOptions(**given)


@pytest.mark.parametrize(("pair", "said"), [
    ("num_ctx=abc", "give a whole number"), ("num_ctx=2048.5", "a whole number"), ("seed=true", "a whole number"),
    ('num_ctx={"a": 1}', "give a whole number"), ("temperature=warm", "give a number"), ("use_mmap=1", "true or false"),
    ("stop=5", "give a text"), ('stop=["a", 5]', "give a text"),
    ("num_ctx=2048", ""), ("temperature=1", ""), ("use_mmap=false", ""), ("stop=a,b", ""), ('stop=["a"]', ""),
    ("num_ctx=2048,4096", ""),
])  # fmt: skip
def test_options_are_of_their_type(pair: str, said: str) -> None:
    """A server refused each request for it."""
    settings = settings_of(LoadOptions(models=["a"], suites=["numbers"], option=[pair]))
    if not said:
        return check_api(settings, SERVER)
    with pytest.raises(BadInput, match=said):
        check_api(settings, SERVER)


def test_a_seed_is_a_number_of_json() -> None:
    with pytest.raises(BadInput, match="--seed 1000"):
        settings_of(LoadOptions(seed=10**30))
    assert settings_of(LoadOptions(seed=-3)).seed == -3


@pytest.mark.parametrize("name", ["warmup", "grace", "stddev_input_tokens", "stddev_output_tokens", "hold"])
def test_numbers_that_may_be_zero(name: str) -> None:
    settings_of(LoadOptions(**{name: 0}))
    with pytest.raises(BadInput, match=f"--{name.replace('_', '-')} -1: give 0 or more"):
        settings_of(LoadOptions(**{name: -1}))


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"requests": 6, "max_requests": 3}, ["--max-requests bounds a load until settled, and has no effect beside "
                                              "--requests: leave one out"]),
        ({"duration": 6.0, "max_time": "1s"}, ["--max-time bounds a load until settled, and has no effect beside "
                                               "--duration: leave one out"]),
        ({"requests": 6}, []), ({"max_requests": 3, "max_time": 1.0}, []),
        ({"until": "settled", "max_requests": 3}, []),
    ],
)  # fmt: skip
def test_a_bound_that_bounds_nothing_is_told(given: dict[str, Any], told: list[str]) -> None:
    assert [*settings_of(LoadOptions(**given)).notices] == told


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ({"rate": [1.0], "concurrency": [1]}, "cannot be combined"),
        ({"metrics_port": 65536}, "give a port"),
        ({"metrics_port": -1}, "give a port"),
        ({"max_in_flight": 3}, "open loop: give --rate"),
        ({"option": ["temperature"]}, "no '='"),
        ({"models": ["a", "b", "a"]}, "names 'a' twice"),
        ({"suites": ["json", "json"]}, "names 'json' twice"),
    ],
)
def test_options_that_do_not_go_together(given: dict[str, Any], text: str) -> None:
    with pytest.raises(BadInput, match=text):
        settings_of(LoadOptions(**given))


def test_tools_cannot_be_asked_for_where_the_endpoint_takes_none() -> None:
    with pytest.raises(BadInput, match=r"suite tools has tools.*use --endpoint chat"):
        cells(suites=["json", "tools"], endpoint="generate")


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("images", ["iVBORw0KGgo="]),
        ("tool_calls", [{"function": {"name": "f", "arguments": {}}}]),
        ("thinking", "hm"),
    ],
)
def test_what_one_prompt_cannot_hold_is_refused_where_it_would_be_left_out(
    tmp_path: Path, key: str, value: Any
) -> None:
    path = tmp_path / "mine.jsonl"
    plain = {"id": "a", "prompt": "x"}
    talk = {
        "id": "b",
        "messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": "y", key: value}],
    }
    path.write_text(f"{json.dumps(plain)}\n{json.dumps(talk)}\n")
    assert len(cells(suites=[str(path)])) == 1
    with pytest.raises(BadInput, match=rf"suite mine\.jsonl, case b: has {key} in its messages.*use --endpoint chat"):
        cells(suites=[str(path)], endpoint="generate")


@pytest.mark.parametrize(
    ("pair", "key", "value"),
    [
        ("temperature=0", "temperature", 0), ("temperature=0.5", "temperature", 0.5), ("num_ctx=8192", "num_ctx", 8192),
        ("flag=true", "flag", True), ("flag=false", "flag", False), ('stop=["a","b"]', "stop", ["a", "b"]),
        ("stop=end", "stop", "end"), ("stop=a=b", "stop", "a=b"), ("stop=", "stop", ""), ("x=null", "x", "null"),
        ('x={"a": 1}', "x", '{"a": 1}'), ('x="5"', "x", "5"), ("x=1e3", "x", 1000.0), ("x=-1", "x", -1),
        ("x=True", "x", "True"), ("x=0x10", "x", "0x10"),
    ],
)  # fmt: skip
def test_options_of_ollama_have_their_type(pair: str, key: str, value: Any) -> None:
    parsed = parse_options([pair])
    assert parsed == {key: [value]}
    assert type(parsed[key][0]) is type(value)


@pytest.mark.parametrize("pair", ["temperature", "=5", "", "x=NaN", "x=-Infinity", "x=1e999", "x=[1e999]", "x=[NaN]"])
def test_options_that_cannot_be_meant(pair: str) -> None:
    with pytest.raises(BadInput, match="--option"):
        parse_options([pair])


def test_an_option_has_all_the_values_that_it_is_given_and_only_numbers_take_commas() -> None:
    assert parse_options(["a=1", "b=2", "a=3"]) == {"a": [1, 3], "b": [2]}
    assert parse_options(["n=1,2.5", "stop=a,b", "s=1,b", "l=[1,2]"]) == {
        "n": [1, 2.5], "stop": ["a,b"], "s": ["1,b"], "l": [[1, 2]],
    }  # fmt: skip


def test_several_values_of_one_setting_make_cells_and_different_settings_one() -> None:
    one = cells(option=["num_ctx=2048", "temperature=0"], think=["on"], body=["x=1"])
    assert [cell.name for cell in one] == ["a numbers c=1"]
    assert (one[0].config.options, one[0].config.think, one[0].config.body) == (
        {"num_ctx": 2048, "temperature": 0}, True, {"x": 1},
    )  # fmt: skip
    built = cells(
        models=["a", "b:1b"], option=["num_ctx=2048,8192", "temperature=0"], think="on,off", concurrency=[1, 4]
    )
    assert len({cell.config_hash for cell in built}) == len(built) == 16
    assert [cell.name for cell in built[:5]] == [
        "a numbers c=1 think=on num_ctx=2048", "a numbers c=4 think=on num_ctx=2048",
        "a numbers c=1 think=on num_ctx=8192", "a numbers c=4 think=on num_ctx=8192",
        "a numbers c=1 think=off num_ctx=2048",
    ]  # fmt: skip
    assert built[2].config.options == {"num_ctx": 8192, "temperature": 0}
    assert [cell.name for cell in cells(body=["k=1", "k=null"])] == ["a numbers c=1 k=1", "a numbers c=1 k=null"]


def test_a_variant_is_the_same_cell_as_when_it_is_measured_alone() -> None:
    swept = {cell.config_hash for cell in cells(option=["num_ctx=2048", "num_ctx=8192"], think=["on"])}
    assert swept == {cells(option=[f"num_ctx={n}"], think=["on"])[0].config_hash for n in (2048, 8192)}


@pytest.mark.parametrize("field", ['model="x"', "messages=[]", 'input="x"', 'prompt="x"', "stream=false", "tools=[]"])
def test_a_field_that_says_what_is_measured_is_refused(field: str) -> None:
    name = field.partition("=")[0]
    with pytest.raises(BadInput, match=f"^--body {name}: it would replace what the run says that it measured: "):
        cells(body=[field])


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "1e999", '{"a": [1, {"b": NaN}]}'])
def test_a_number_that_json_lacks_is_refused_at_any_depth(text: str) -> None:
    with pytest.raises(BadInput, match=r"^--body k: .* has a number that JSON does not have: give finite ones$"):
        cells(body=[f"k={text}"])


@pytest.mark.parametrize("text", ["name=foo,bar=1", "a=,b=2,c=x"])
def test_pairs_in_llmperfs_form_are_told_to_stand_apart(text: str) -> None:
    with pytest.raises(BadInput, match=f"--metadata {text.replace(',', ' ')}$"):
        settings_of(LoadOptions(models=["m"], metadata=[text]))
    assert settings_of(LoadOptions(models=["m"], metadata=["note=a, b"])).metadata == {"note": "a, b"}


@pytest.mark.parametrize("given", [{"option": ["a=1", "a=1"]}, {"think": ["on", "true"]}, {"body": ["a=1", "a=1"]}])
def test_a_value_that_is_given_twice_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=f"--{next(iter(given))} gives .*=.* twice: leave one out"):
        cells(**given)


@pytest.mark.parametrize(
    ("option", "meant"),
    [("temprature", "temperature"), ("Top_K", "top_k"), ("max_tokens", "num_predict"), ("num-ctx", "num_ctx")],
)
def test_an_option_of_ollama_with_a_mistake_is_named(option: str, meant: str, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=f"--option: Ollama has no option {option}: did you mean {meant}?"):
        check_api(settings_of(LoadOptions(suites=["numbers"], option=[f"{option}=1"])), SERVER)
    path = tmp_path / "mine.jsonl"
    path.write_text(json.dumps({"id": "one", "prompt": "Hi", "options": {option: 1}}))
    with pytest.raises(BadInput, match=f"case one: Ollama has no option {option}: did you mean {meant}?"):
        check_api(settings_of(LoadOptions(suites=[str(path)])), SERVER)


def test_an_option_that_is_like_none_is_only_told(capsys: pytest.CaptureFixture[str]) -> None:
    check_api(settings_of(LoadOptions(suites=["numbers"], option=["xtc_probability=1", "num_gqa=8"])), SERVER)
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert "warning: --option: xtc_probability is no option of Ollama" in said


@given(st.lists(st.text(max_size=20).map(lambda text: f"k={text}"), max_size=4))
def test_any_text_is_an_option_that_can_be_kept_or_bad_input(pairs: list[str]) -> None:
    try:
        parsed = parse_options(pairs)
    except BadInput:
        return
    canonical_json(parsed)


def cell_of(path: Path, *options: dict[str, Any], **given: Any) -> Cell:
    lines = [json.dumps({"id": f"c{i}", "prompt": "Hi", "options": each}) for i, each in enumerate(options)]
    path.write_text("\n".join(lines))
    return cells(models=["a"], suites=[str(path)], **given)[0]


def test_a_load_that_its_requests_never_fill_is_told_before() -> None:
    (cell,) = cells(suites=["json"], requests=8, concurrency=[64])
    assert unreached_warning(cell) == (
        "c=64 is never reached with 8 requests of json: at most 8 are in flight; give --requests 256 or more"
    )
    assert unreached_warning(cells(suites=["json"], requests=64, concurrency=[64])[0]) is None
    assert unreached_warning(cells(suites=["json"], rate=[64.0], requests=8)[0]) is None
    assert unreached_warning(cells(suites=["json"], duration=9.0, concurrency=[64])[0]) is None
    turns = unreached_warning(cells(suites=["turns"], requests=16, concurrency=[12])[0])
    assert turns is not None
    assert "at most 8 are in flight" in turns, "a second turn waits for the first"


def test_keywords_of_a_file_that_bind_nothing_are_warned_of_and_only_there(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    path.write_text('{"id": "a", "prompt": "?", "schema": {"requried": ["a"]}}\n')
    (own, shipped) = cells(suites=[str(path), "json"], requests=1)
    assert keyword_warnings(own.suite) == [
        'mine.jsonl: case "a": "requried" binds nothing: did you mean "required"?'
    ]  # fmt: skip
    assert keyword_warnings(shipped.suite) == []


def test_cases_that_load_the_model_alike_need_no_warning(tmp_path: Path) -> None:
    cell = cell_of(tmp_path / "s.jsonl", {"num_ctx": 8192, "seed": 1}, {"num_ctx": 8192.0, "num_predict": 9})
    assert loading_options(cell, LOADING_OPTIONS) == [{"num_ctx": 8192}]
    assert reload_warning(cell, LOADING_OPTIONS) is None
    assert loading_options(cells(models=["a"], suites=["text"])[0], LOADING_OPTIONS) == [{}]


def test_cases_that_fight_over_the_model_are_told_with_what_differs(tmp_path: Path) -> None:
    cell = cell_of(tmp_path / "s.jsonl", {"num_ctx": 2048}, {"num_ctx": 8192, "num_gpu": 1}, {"num_ctx": 2048})
    assert loading_options(cell, LOADING_OPTIONS) == [{"num_ctx": 2048}, {"num_ctx": 8192, "num_gpu": 1}]
    told = reload_warning(cell, LOADING_OPTIONS)
    assert told is not None
    assert "(num_ctx 2048/8192, num_gpu unset/1)" in told


def test_options_of_the_command_line_and_cases_that_are_not_asked_end_the_fight(tmp_path: Path) -> None:
    fighting = ({"num_ctx": 2048}, {"num_ctx": 8192})
    assert reload_warning(cell_of(tmp_path / "s.jsonl", *fighting), LOADING_OPTIONS) is not None
    one = cell_of(tmp_path / "s.jsonl", *fighting, option=["num_ctx=4096"])
    assert loading_options(one, LOADING_OPTIONS) == [{"num_ctx": 4096}]
    assert reload_warning(cell_of(tmp_path / "s.jsonl", *fighting, requests=1), LOADING_OPTIONS) is None


def test_names_of_headers_are_part_of_a_cell_and_keys_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    (plain,) = cells()
    monkeypatch.setenv("KEY", "sk-5ecret")
    (keyed,) = cells(api_key_env="KEY")
    assert keyed.config_hash == plain.config_hash, "a key opens the door and changes no figure"
    assert "headers" not in config_dict(plain.config)
    (one,), (same,) = cells(header=["X-Team=a", "X-Org=b"]), cells(header=["x-org=c"], header_env=["x-TEAM=KEY"])
    assert one.config.headers == ("x-org", "x-team")
    assert one.config_hash == same.config_hash != plain.config_hash, "of a header its name counts, not its value"


V1 = Server("http://127.0.0.1:8080/v1", "", {"a": "name:a"}, "openai")
OTHER_LIMIT = "max_completion_tokens"


def of_v1(server: Server = V1, **given: Any) -> Cell:
    options = LoadOptions(**{"models": ["a"], "suites": ["numbers"], **given})
    settings = settings_of(options)
    check_api(settings, server)
    (cell,) = build_cells(settings, [server])
    return cell


def test_the_usual_field_for_the_limit_of_an_answer_is_absent_from_the_identity() -> None:
    assert "limit_field" not in config_dict(of_v1().config)
    assert of_v1(limit_field="max_tokens").config_hash == of_v1().config_hash


def test_another_field_for_the_limit_is_part_of_the_identity_whoever_chose_it() -> None:
    hosted = replace(V1, limit_field=OTHER_LIMIT)
    refused = of_v1().limited_by(V1.api.refused_limit("HTTP 400: Use 'max_completion_tokens' instead."))
    found = [of_v1(hosted), of_v1(limit_field=OTHER_LIMIT), refused]
    assert {config_dict(cell.config)["limit_field"] for cell in found} == {OTHER_LIMIT}
    assert len({cell.config_hash for cell in found}) == 1
    assert of_v1(hosted, limit_field="max_tokens").config.limit_field is None


def test_a_run_with_either_field_is_one_of_the_cell_unless_the_field_was_given() -> None:
    assert [way.config.limit_field for way in of_v1().ways] == [None, OTHER_LIMIT]
    assert [way.config.limit_field for way in of_v1(limit_field="max_tokens").ways] == [None]
    assert [way.config.limit_field for way in of_v1(endpoint="generate").ways] == [None]
    assert len(of_v1(replace(V1, api_name="responses")).ways) == 1


@pytest.mark.parametrize(("api", "endpoint"), [("anthropic", "chat"), ("ollama", "chat"), ("openai", "generate")])
def test_a_field_that_an_api_does_not_have_is_refused(api: str, endpoint: str) -> None:
    with pytest.raises(BadInput, match=r"--limit-field max_completion_tokens: the limit of an answer is \w+ here"):
        of_v1(replace(V1, api_name=api), limit_field=OTHER_LIMIT, endpoint=endpoint)


def test_no_two_cells_have_the_same_labels_or_name() -> None:
    settings = settings_of(LoadOptions(models=["a"], suites=["numbers"], option=["num_ctx=1", "num_ctx=2"]))
    built = build_cells(settings, [SERVER, replace(SERVER, address="http://127.0.0.1:8080")])
    assert len(built) == 4
    assert len({cell.name for cell in built}) == 4
    assert [own_attributes(labels_of(cell, None))["structbench.load"] for cell in built] == [
        f"c=1 num_ctx={n} at 127.0.0.1:{port}" for port in (11434, 8080) for n in (1, 2)
    ]


def test_several_answers_to_one_request_are_refused() -> None:
    assert of_v1(body=["n=1"]).config.body == {"n": 1}
    with pytest.raises(BadInput, match="--body n=2: a request is measured by its one answer"):
        of_v1(body=["n=2"])
