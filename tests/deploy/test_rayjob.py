"""The RayJob of deploy/: its fields are those of KubeRay's types, its plan is one, and one image serves all pods."""

from __future__ import annotations

import json
import tomllib
from importlib.metadata import version
from typing import Any

import yaml
from jsonschema import Draft202012Validator

from structbench.options import LoadOptions
from structbench.run.settings import settings_of
from tests.support.paths import ROOT

DOCUMENTS: list[dict[str, Any]] = list(yaml.safe_load_all((ROOT / "deploy" / "rayjob.yaml").read_text()))
JOB = DOCUMENTS[2]["spec"]
CLUSTER = JOB["rayClusterSpec"]
INT32 = {"type": "integer", "minimum": -(2**31), "maximum": 2**31 - 1}
INT64 = {"type": "integer", "minimum": -(2**63), "maximum": 2**63 - 1}
TEXT, YES = {"type": "string"}, {"type": "boolean"}
NAME = {"type": "string", "maxLength": 63, "pattern": "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"}
TEXTS = {"type": "object", "additionalProperties": TEXT}
QUANTITIES = {
    "type": "object", "propertyNames": {"enum": ["cpu", "memory"]},
    "additionalProperties": {"type": ["string", "integer"], "pattern": "^[0-9]+(\\.[0-9]+)?(m|[KMGT]i?)?$"},
}  # fmt: skip


def each(of: dict[str, Any]) -> dict[str, Any]:
    return {"type": "array", "items": of, "minItems": 1}


def fields(*required: str, **known: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": known, "required": list(required), "additionalProperties": False}


CONTAINER = fields(
    "name", "image", name=NAME, image=TEXT,
    env=each(fields("name", name={"type": "string", "pattern": "^[-._A-Za-z][-._A-Za-z0-9]*$"}, value=TEXT)),
    envFrom=each(fields(secretRef=fields(name=NAME, optional=YES))),
    resources=fields(requests=QUANTITIES, limits=QUANTITIES),
    securityContext=fields(
        runAsNonRoot=YES, runAsUser=INT64, allowPrivilegeEscalation=YES, readOnlyRootFilesystem=YES,
        capabilities=fields(add=each(TEXT), drop=each(TEXT)),
    ),
    ports=each(fields("containerPort", name={**NAME, "maxLength": 15},
                      containerPort={"type": "integer", "minimum": 1, "maximum": 65535})),
    volumeMounts=each(fields("name", "mountPath", name=NAME, mountPath={"type": "string", "pattern": "^[^:]+$"})),
)  # fmt: skip
LABELLED = fields("topologyKey", topologyKey=TEXT, labelSelector=fields(matchLabels=TEXTS))
POD = fields("spec", metadata=fields(labels=TEXTS, annotations=TEXTS), spec=fields(
    "containers", containers=each(CONTAINER), securityContext=fields(fsGroup=INT64),
    affinity=fields(podAntiAffinity=fields(requiredDuringSchedulingIgnoredDuringExecution=each(LABELLED))),
    volumes=each(fields("name", name=NAME, persistentVolumeClaim=fields("claimName", claimName=NAME),
                        configMap=fields(name=NAME), emptyDir=fields(medium=TEXT))),
))  # fmt: skip
WORKER_GROUP = fields(
    "groupName", "minReplicas", "maxReplicas", "rayStartParams", "template", groupName=NAME, replicas=INT32,
    minReplicas=INT32, maxReplicas=INT32, numOfHosts=INT32, rayStartParams=TEXTS, template=POD,
)  # fmt: skip
HEAD_GROUP = fields(
    "rayStartParams", "template", serviceType=TEXT, enableIngress=YES, rayStartParams=TEXTS, template=POD,
)  # fmt: skip
RAY_CLUSTER = fields(
    "headGroupSpec", headGroupSpec=HEAD_GROUP, workerGroupSpecs=each(WORKER_GROUP), rayVersion=TEXT,
    enableInTreeAutoscaling=YES, headServiceAnnotations=TEXTS, suspend=YES,
)  # fmt: skip
RAY_JOB = fields(
    activeDeadlineSeconds=INT32, backoffLimit=INT32, rayClusterSpec=RAY_CLUSTER, clusterSelector=TEXTS,
    managedBy={"enum": ["ray.io/kuberay-operator", "kueue.x-k8s.io/multikueue"]}, entrypoint=TEXT,
    runtimeEnvYAML=TEXT, jobId=TEXT, submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
    entrypointResources=TEXT, entrypointNumCpus={"type": "number"}, entrypointNumGpus={"type": "number"},
    ttlSecondsAfterFinished=INT32, shutdownAfterJobFinishes=YES, suspend=YES,
)  # fmt: skip
"""Names and types of values from ray-operator/apis/ray/v1/{rayjob,raycluster}_types.go of ray-project/kuberay, read on
2026-11-26 and 2026-11-27; of pods, those of Kubernetes' core/v1 that we use."""
PODS = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]


def test_every_field_is_one_of_kuberays_and_every_value_of_its_type() -> None:
    assert [error.message for error in Draft202012Validator(RAY_JOB).iter_errors(JOB)] == []


def test_that_check_finds_a_wrong_name_and_a_wrong_type_at_any_depth() -> None:
    def problems(**changed: Any) -> list[str]:
        return [error.json_path for error in Draft202012Validator(RAY_JOB).iter_errors(JOB | changed)]

    assert problems(ttlSeconds=60) == ["$"]
    assert problems(backoffLimit="0") == ["$.backoffLimit"]
    head = json.loads(json.dumps(CLUSTER))  # in which nothing is shared between pods
    head["headGroupSpec"]["rayStartParams"]["num-cpus"] = 0
    head["headGroupSpec"]["template"]["spec"]["containers"][0]["env"][0]["value"] = 0
    assert problems(rayClusterSpec=head) == [
        "$.rayClusterSpec.headGroupSpec.rayStartParams['num-cpus']",
        "$.rayClusterSpec.headGroupSpec.template.spec.containers[0].env[0].value",
    ]


def test_it_is_a_rayjob_with_what_kuberay_requires() -> None:
    assert [(each["apiVersion"], each["kind"]) for each in DOCUMENTS] == [
        ("v1", "ConfigMap"), ("v1", "PersistentVolumeClaim"), ("ray.io/v1", "RayJob")
    ]  # fmt: skip
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
