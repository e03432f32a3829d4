"""What is wrong with a collector's address or the missing extra is said in one line; the environment is asked too."""

from __future__ import annotations

import logging
import threading
from contextlib import ExitStack
from typing import Any

import pytest

from structbench.errors import BadInput
from structbench.options import LoadOptions
from structbench.run.plan import open_telemetry
from structbench.run.settings import settings_of

VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"
HERE = "http://127.0.0.1:4318"


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (VARIABLE, "OTEL_SDK_DISABLED"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("given", "what"),
    [
        ({"otlp": "localhost:4318"}, "--otlp 'localhost:4318' is not a valid collector address"),
        ({"otlp_content": True}, "--otlp-content needs a collector to push to: give --otlp ENDPOINT"),
    ],
)
def test_bad_input_in_one_line(given: dict[str, Any], what: str) -> None:
    with pytest.raises(BadInput) as error:
        settings_of(LoadOptions(**given))
    assert str(error.value).startswith(what)
    assert "\n" not in str(error.value)


def test_without_the_extra_one_line_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("structbench.run.settings.is_installed", lambda: False)
    with pytest.raises(
        BadInput, match=r"^--otlp needs the OpenTelemetry exporter: run pip install 'structbench\[otlp\]'$"
    ):
        settings_of(LoadOptions(otlp=HERE))
    monkeypatch.setenv(VARIABLE, HERE)
    settings = settings_of(LoadOptions())
    assert settings.collector is None, "a variable meant for other programs refuses no load"
    to_push = "to push, run pip install 'structbench[otlp]'"
    assert list(settings.notices) == [f"not pushing to {HERE}, which is set in the environment: {to_push}"]


def test_the_environment_names_a_collector_and_the_user_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    assert settings_of(LoadOptions()).collector is None
    monkeypatch.setenv(VARIABLE, HERE)
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "none")
    monkeypatch.setenv("OTEL_METRICS_EXPORTER", "none")
    assert settings_of(LoadOptions()).collector is None
    monkeypatch.delenv("OTEL_TRACES_EXPORTER")
    settings = settings_of(LoadOptions())
    assert settings.collector is not None
    with ExitStack() as stack:
        assert open_telemetry(None, "127.0.0.1", settings.collector, stack) is not None
    assert list(settings.notices) == [f"pushing metrics and traces to {HERE}, as set in the environment"]


@pytest.mark.parametrize(
    ("variable", "value"), [("OTEL_METRIC_EXPORT_INTERVAL", "0"), ("OTEL_BSP_MAX_QUEUE_SIZE", "-1")]
)
def test_variables_that_make_no_sense_are_bad_input(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:  # fmt: skip
    monkeypatch.setenv(variable, value)
    collector = settings_of(LoadOptions(otlp=HERE, metrics_port=0)).collector
    before = set(threading.enumerate())
    with ExitStack() as stack, pytest.raises(BadInput, match=r"^invalid OTEL_\* variable in the environment: "):
        open_telemetry(None, "127.0.0.1", collector, stack)
    for thread in set(threading.enumerate()) - before:
        thread.join(10)
    assert set(threading.enumerate()) <= before
    assert logging.getLogger("opentelemetry").handlers == []


def test_without_port_and_collector_there_is_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    with ExitStack() as stack:
        assert open_telemetry(None, "127.0.0.1", None, stack) is None
        monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
        assert settings_of(LoadOptions(otlp=HERE)).collector is None
        assert open_telemetry(23999, "127.0.0.1", None, stack) is None
