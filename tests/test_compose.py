"""docker-compose.yml and the Dockerfile: valid, pinned, on this machine only. No Docker engine is needed."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Mapping
from fnmatch import fnmatch
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.loads import ROOT

FILE = ROOT / "docker-compose.yml"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load(FILE.read_text())["services"]
STAYING = ["ollama", "ollama-gpu", "prometheus", "grafana"]
ENDING = ["pull", "load"]
LOOPBACK = "127.0.0.1"


def compose() -> list[str] | None:
    """The real Compose, version 2 or later, where it is installed."""
    for command in (["docker", "compose"], ["docker-compose"], [str(Path(sys.executable).with_name("docker-compose"))]):
        if shutil.which(command[0]) is None:
            continue
        told = subprocess.run([*command, "version", "--short"], capture_output=True, text=True)
        if told.returncode == 0 and int(told.stdout.strip().lstrip("v").partition(".")[0]) >= 2:
            return command
    return None


@pytest.mark.slow
@pytest.mark.skipif(find_spec("check_jsonschema") is None, reason="needs `pip install check-jsonschema`")
def test_it_satisfies_the_compose_specification() -> None:
    check = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", str(FILE)]
    done = subprocess.run(check, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_real_compose_reads_it() -> None:
    command = compose()
    if command is None:
        pytest.skip("no Docker Compose of version 2 or later is installed")

    def config(*words: str, **environment: str) -> Mapping[str, Any]:
        everything = {"PATH": os.environ["PATH"], "HOME": "/", **environment}
        told = subprocess.run(
            [*command, "-f", str(FILE), *words, "config"], capture_output=True, text=True, env=everything
        )
        assert told.returncode == 0, told.stderr
        assert "variable is not set" not in told.stderr
        return yaml.safe_load(told.stdout)["services"]  # type: ignore[no-any-return]

    assert set(config()) == {"ollama", "pull", "prometheus", "grafana"}
    assert set(config("--profile", "gpu", "--profile", "load")) == set(SERVICES)
    given = config("--profile", "load", STRUCTBENCH_ARGS="--models 'a b' --rate 2", MODELS="x y")
    assert given["load"]["command"] == ["load", "--models", "a b", "--rate", "2"]
    assert given["pull"]["environment"]["MODELS"] == "x y"


def test_a_service_is_known() -> None:
    assert set(SERVICES) == {*STAYING, *ENDING}


@pytest.mark.parametrize("name", SERVICES)
def test_nothing_listens_but_on_this_machine(name: str) -> None:
    service = SERVICES[name]
    assert service["network_mode"] == "host"
    assert "ports" not in service, "the host's network publishes none: each service binds the loopback address itself"


def test_each_service_binds_the_loopback_address() -> None:
    for name in ("ollama", "ollama-gpu"):
        assert SERVICES[name]["environment"]["OLLAMA_HOST"].startswith(f"{LOOPBACK}:")
    assert f"--web.listen-address={LOOPBACK}:9090" in SERVICES["prometheus"]["command"]
    assert SERVICES["grafana"]["environment"]["GF_SERVER_HTTP_ADDR"] == LOOPBACK
    assert "--metrics-host" not in SERVICES["load"]["command"]


@pytest.mark.parametrize("name", SERVICES)
def test_images_are_pinned(name: str) -> None:
    image = re.sub(r"\$\{[A-Z_]+:-([^}]*)\}", r"\1", SERVICES[name]["image"])
    assert re.fullmatch(r"structbench:local|[a-z/]+:v?\d+\.\d+\.\d+@sha256:[0-9a-f]{64}", image)


def test_what_is_ours_can_do_nothing_but_write_its_results() -> None:
    load = SERVICES["load"]
    assert (load["read_only"], load["cap_drop"], load["user"]) == (True, ["ALL"], "10001:10001")
    assert {mount.partition(":")[0] for mount in load["tmpfs"]} == {"/tmp", "/home/structbench"}
    assert "useradd --create-home --uid 10001 structbench" in (ROOT / "Dockerfile").read_text()


@pytest.mark.parametrize("name", ["prometheus", "grafana", "load"])
def test_nothing_gains_privileges(name: str) -> None:
    assert SERVICES[name]["cap_drop"] == ["ALL"]
    assert SERVICES[name]["security_opt"] == ["no-new-privileges:true"]


@pytest.mark.parametrize("name", STAYING)
def test_what_stays_up_tells_whether_it_is_well(name: str) -> None:
    check = SERVICES[name]["healthcheck"]
    # Only what the image has: the one of Ollama has neither curl nor wget.
    assert check["test"][:2] == ["CMD", "ollama" if name.startswith("ollama") else "wget"]
    assert check["retries"] >= 3
    address = re.search(r"http://([0-9.]+):(\d+)", " ".join(check["test"]))
    if address:
        assert address[1] == LOOPBACK


def test_what_is_waited_for() -> None:
    assert SERVICES["grafana"]["depends_on"] == {"prometheus": {"condition": "service_healthy"}}
    for name in ENDING:
        needed = SERVICES[name]["depends_on"]
        assert needed["ollama"]["condition"] == needed["ollama-gpu"]["condition"] == "service_healthy"
        assert needed["ollama-gpu"]["required"] is False
    assert SERVICES["load"]["depends_on"]["pull"]["condition"] == "service_completed_successfully"


def test_what_is_mounted_is_in_the_repository_and_cannot_be_written() -> None:
    volumes = yaml.safe_load(FILE.read_text())["volumes"]
    mounted = [volume.split(":") for service in SERVICES.values() for volume in service.get("volumes", [])]
    for source, _target, *mode in mounted:
        if source.startswith("."):
            assert (ROOT / source).exists(), source
            assert mode == ["ro"]
        else:
            assert source in volumes
    assert {source for source, *_ in mounted if not source.startswith(".")} == set(volumes)


def test_mounts_are_where_the_configuration_looks() -> None:
    grafana, prometheus = SERVICES["grafana"], SERVICES["prometheus"]
    assert "./grafana/dashboards:/etc/grafana/dashboards:ro" in grafana["volumes"]
    home = grafana["environment"]["GF_DASHBOARDS_DEFAULT_HOME_DASHBOARD_PATH"]
    assert (ROOT / home.removeprefix("/etc/")).exists()
    assert "./grafana/rules:/etc/prometheus/rules:ro" in prometheus["volumes"]
    assert yaml.safe_load((ROOT / "grafana/prometheus.yml").read_text())["rule_files"] == ["rules/*.yml"]


def test_the_administrator_of_grafana_has_no_weak_password() -> None:
    environment = SERVICES["grafana"]["environment"]
    assert environment["GRAFANA_ADMIN_PASSWORD"] == "${GRAFANA_ADMIN_PASSWORD:-}"
    assert environment["GF_AUTH_ANONYMOUS_ORG_ROLE"] == "Viewer"
    script = (
        SERVICES["grafana"]["entrypoint"][-1]
        .replace("$$", "$")
        .replace("exec /run.sh", "echo $GF_SECURITY_ADMIN_PASSWORD")
    )
    seen = {
        given: [
            subprocess.run(["sh", "-ec", script], env={"GRAFANA_ADMIN_PASSWORD": given, "PATH": "/usr/bin:/bin"},
                           capture_output=True, text=True, check=True).stdout.strip()
            for _ in range(2)
        ]
        for given in ("", "chosen")
    }  # fmt: skip
    assert seen["chosen"] == ["chosen", "chosen"]
    assert seen[""][0] != seen[""][1]
    assert all(len(password) == 32 for password in seen[""])


def test_models_are_pulled_one_by_one_and_a_failure_is_told() -> None:
    script = SERVICES["pull"]["entrypoint"][-1].replace("$$", "$")
    stub = 'ollama() { echo "$@"; test "$2" != bad; }\n'
    for models, said, code in (("a b:1b", "pull a\npull b:1b\n", 0), ("bad c", "pull bad\n", 1)):
        done = subprocess.run(["sh", "-ec", stub + script], env={"MODELS": models}, capture_output=True, text=True)
        assert (done.stdout, done.returncode) == (said, code)


def test_the_image_holds_what_it_needs_and_no_root() -> None:
    lines = (ROOT / "Dockerfile").read_text().splitlines()
    steps = [line.split() for line in lines if line and not line.startswith("#")]
    copied = [name for step in steps if step[0] == "COPY" for name in step[1:-1]]
    assert set(copied) == {"pyproject.toml", "README.md", "LICENSE", "constraints.txt", "loadgen", "structbench"}
    allowed = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    assert allowed == set(copied)
    assert all((ROOT / name).exists() for name in copied)
    assert steps[0][0] == "FROM"
    assert fnmatch(steps[0][1], "python:3.1[0-9]-slim-*")
    users = [step[1] for step in steps if step[0] == "USER"]
    assert users == ["structbench"]
    assert ["ENTRYPOINT", '["structbench"]'] in steps
