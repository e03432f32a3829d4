"""The RayJob of deploy/: its fields are those of KubeRay's types, its plan is one, and one image serves all pods."""

from __future__ import annotations

import tomllib
from importlib.metadata import version
from typing import Any

import pytest
import yaml

from structbench.options import LoadOptions
from structbench.run.settings import settings_of
from tests.support.paths import ROOT

DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "rayjob.yaml").read_text()))
JOB = DOCUMENTS[2]["spec"]
CLUSTER = JOB["rayClusterSpec"]
FIELDS = {
    "RayJobSpec": "activeDeadlineSeconds backoffLimit rayClusterSpec submitterPodTemplate metadata clusterSelector "
                  "submitterConfig managedBy deletionStrategy entrypoint runtimeEnvYAML jobId submissionMode "
                  "entrypointResources entrypointNumCpus entrypointNumGpus ttlSecondsAfterFinished "
                  "shutdownAfterJobFinishes suspend",
    "RayClusterSpec": "headGroupSpec workerGroupSpecs rayVersion enableInTreeAutoscaling autoscalerOptions "
                      "headServiceAnnotations suspend",
    "HeadGroupSpec": "serviceType headService enableIngress rayStartParams template",
    "WorkerGroupSpec": "groupName replicas minReplicas maxReplicas numOfHosts rayStartParams template scaleStrategy",
}  # fmt: skip
"""From ray-operator/apis/ray/v1/{rayjob,raycluster}_types.go of ray-project/kuberay, read on 2026-11-26."""
PODS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]


@pytest.mark.parametrize(
    ("kind", "found"),
    [("RayJobSpec", JOB), ("RayClusterSpec", CLUSTER), ("HeadGroupSpec", PODS[0]), ("WorkerGroupSpec", PODS[1])],
)
def test_every_field_is_one_of_kuberays(kind: str, found: dict[str, Any]) -> None:
    assert found.keys() <= set(FIELDS[kind].split())


def test_it_is_a_rayjob_with_what_kuberay_requires() -> None:
    assert [(each["apiVersion"], each["kind"]) for each in DOCUMENTS] == [
        ("v1", "ConfigMap"), ("v1", "PersistentVolumeClaim"), ("ray.io/v1", "RayJob")
    ]  # fmt: skip
    for group in PODS:
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        assert group["template"]["spec"]["containers"]
    workers = PODS[1]
    assert workers["replicas"] == workers["minReplicas"] == workers["maxReplicas"]


def test_one_image_serves_all_pods_and_the_head_sends_nothing() -> None:
    (image,) = {each["template"]["spec"]["containers"][0]["image"] for each in PODS}
    assert image.startswith("structbench-ray")
    assert PODS[0]["rayStartParams"]["num-cpus"] == "0"
    assert f"ray=={CLUSTER['rayVersion']} " in (ROOT / "constraints.txt").read_text()
    assert "[openai,anthropic,ray]" in (ROOT / "deploy" / "Dockerfile").read_text()
    assert version("structbench")


def test_the_load_is_a_plan_that_structbench_takes() -> None:
    plan = tomllib.loads(DOCUMENTS[0]["data"]["plan.toml"])
    settings = settings_of(LoadOptions(**plan))
    assert settings.engine == "ray"
    assert settings.cluster is not None
    mounts = PODS[0]["template"]["spec"]["containers"][0]["volumeMounts"]
    assert {each["mountPath"] for each in mounts} == {str(settings.db.parent), "/etc/structbench"}
    assert JOB["entrypoint"] == "structbench load /etc/structbench/plan.toml"
