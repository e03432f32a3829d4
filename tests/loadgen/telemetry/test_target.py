"""Nothing is pushed unless somebody says so, and whatever is wrong with an address is said in one line."""

from __future__ import annotations

import pytest

from loadgen.telemetry.target import Target, target_of

BASE = "OTEL_EXPORTER_OTLP_ENDPOINT"
HOST = "http://c:4318"


@pytest.mark.parametrize(
    ("option", "environ", "traces", "metrics"),
    [
        (None, {}, None, None),
        (None, {"OTEL_EXPORTER_OTLP_HEADERS": "a=b", "OTEL_SERVICE_NAME": "x"}, None, None),
        (HOST, {}, f"{HOST}/v1/traces", f"{HOST}/v1/metrics"),
        (HOST + "/", {}, f"{HOST}/v1/traces", f"{HOST}/v1/metrics"),
        ("https://c/otlp", {}, "https://c/otlp/v1/traces", "https://c/otlp/v1/metrics"),
        (None, {BASE: HOST}, f"{HOST}/v1/traces", f"{HOST}/v1/metrics"),
        (HOST, {BASE: "http://other:1"}, f"{HOST}/v1/traces", f"{HOST}/v1/metrics"),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/here"}, "http://t:1/here", None),
        (None, {BASE: HOST, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": "http://m:1/x"}, f"{HOST}/v1/traces", "http://m:1/x"),
        (HOST, {"OTEL_TRACES_EXPORTER": "none"}, None, f"{HOST}/v1/metrics"),
        (HOST, {"OTEL_METRICS_EXPORTER": "none"}, f"{HOST}/v1/traces", None),
        (HOST, {"OTEL_METRICS_EXPORTER": "none", "OTEL_TRACES_EXPORTER": "none"}, None, None),
        (HOST, {"OTEL_SDK_DISABLED": "True"}, None, None),
        (HOST, {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, f"{HOST}/v1/traces", f"{HOST}/v1/metrics"),
        (HOST, {"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf",
                "OTEL_METRICS_EXPORTER": "none"}, f"{HOST}/v1/traces", None),
        (None, {BASE: ""}, None, None),
    ],
)  # fmt: skip
def test_where_each_signal_goes(
    option: str | None, environ: dict[str, str], traces: str | None, metrics: str | None
) -> None:
    found = target_of(option, False, environ)
    if traces is metrics is None:
        assert found is None
    else:
        assert found is not None
        assert (found.traces, found.metrics) == (traces, metrics)


@pytest.mark.parametrize(
    "bad",
    ["localhost:4318", "c", "", "http://", "ftp://c:1", "http://c:99999", "http://c:x", "http://c d:1", "http://:1"],
)
def test_what_is_no_address_is_named_with_an_example(bad: str) -> None:
    with pytest.raises(
        ValueError, match=r"--otlp '.*' is not a valid collector address: give one such as http://"
    ) as error:
        target_of(bad, False, {})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("variable", [BASE, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_a_bad_variable_is_named_too(variable: str) -> None:
    with pytest.raises(ValueError, match=rf"{variable}=nowhere is not a valid collector address"):
        target_of(None, False, {variable: "nowhere"})


@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_PROTOCOL", "OTEL_EXPORTER_OTLP_METRICS_PROTOCOL"])
def test_another_protocol_is_refused_with_what_to_do(variable: str) -> None:
    with pytest.raises(ValueError, match=rf"{variable}=grpc: structbench pushes only http/protobuf.*4318"):
        target_of(HOST, False, {variable: "grpc"})


def test_the_name_is_the_users_own() -> None:
    environ = {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://t:1/here"}
    assert target_of(None, True, environ) == Target(
        name="http://t:1/here", traces="http://t:1/here", metrics=None, content=True
    )
    named = target_of(HOST, False, {BASE: "http://other:1"})
    assert named is not None
    assert named.name == HOST


def test_credentials_of_a_collector_are_in_no_name_or_message() -> None:
    target = target_of("http://ada:s3cret@collector:4318", False, {})
    assert target is not None
    assert target.name == "http://***@collector:4318"
    assert target.traces == "http://ada:s3cret@collector:4318/v1/traces"
    assert "s3cret" not in repr(target)
    for option, environ in (
        ("ftp://ada:s3cret@collector", {}),
        (None, {"OTEL_EXPORTER_OTLP_ENDPOINT": "ftp://ada:s3cret@collector"}),
        (None, {"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "ftp://ada:s3cret@collector"}),
    ):
        with pytest.raises(ValueError, match="is not a valid collector address") as caught:
            target_of(option, False, environ)
        assert "s3cret" not in str(caught.value)


def test_what_lets_us_in_at_a_collector_is_known_to_be_secret() -> None:
    target = target_of("http://ada:s3cret@c:4318", False, {"OTEL_EXPORTER_OTLP_TRACES_HEADERS": "a=Bearer%20tok, b="})
    assert target is not None
    assert {"s3cret", "Bearer tok", "tok"} <= set(target.secrets)
    assert "" not in target.secrets
