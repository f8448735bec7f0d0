"""deploy/kubernetes: valid for Kubernetes, and true to what a node understands and answers."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from server.configuration import load_settings
from tests.support.node import NodeServer

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "deploy" / "kubernetes"
VERSIONS = ("1.27", "1.30", "1.34", "1.37")
OWN_KINDS = {"ServiceMonitor", "Kustomization"}
"""Not Kubernetes' own: it has no schema for them."""

Manifest = dict[str, Any]


def manifests() -> Iterator[tuple[str, Manifest]]:
    for path in sorted(FOLDER.glob("*.yaml")):
        for document in yaml.safe_load_all(path.read_text()):
            yield path.name, document


BY_KIND: dict[str, Manifest] = {document["kind"]: document for _, document in manifests()}
POD: Manifest = BY_KIND["Deployment"]["spec"]["template"]["spec"]
[NODE] = POD["containers"]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_manifest_is_valid_and_has_no_field_that_is_none(version: str) -> None:
    checked = []
    for name, manifest in manifests():
        if manifest["kind"] not in OWN_KINDS:
            kubernetes_validate.validate(manifest, version, strict=True)
            checked.append(name)
    assert len(checked) == 7


def test_a_field_that_is_none_is_found() -> None:
    wrong = {**BY_KIND["PodDisruptionBudget"], "spec": {"maxUnavailabel": 1}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSIONS[0], strict=True)


def test_the_kustomization_names_every_file_but_the_example_secret() -> None:
    files = {path.name for path in FOLDER.glob("*.yaml")} - {"kustomization.yaml", "secret.example.yaml"}
    assert set(BY_KIND["Kustomization"]["resources"]) == files
    assert [image["name"] for image in BY_KIND["Kustomization"]["images"]] == [NODE["image"]]


def test_all_speak_of_the_same_pods() -> None:
    labels = BY_KIND["Deployment"]["spec"]["template"]["metadata"]["labels"]
    for kind in ("Deployment", "PodDisruptionBudget", "ServiceMonitor"):
        assert BY_KIND[kind]["spec"]["selector"] == {"matchLabels": labels}, kind
    assert BY_KIND["Service"]["spec"]["selector"] == labels
    # The ServiceMonitor looks for the Service by its labels, and takes the job's name from one of them.
    assert labels.items() <= BY_KIND["Service"]["metadata"]["labels"].items()
    job = BY_KIND["Service"]["metadata"]["labels"][BY_KIND["ServiceMonitor"]["spec"]["jobLabel"]]
    scraped = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    assert job in {config["job_name"] for config in scraped}
    target = BY_KIND["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert (target["kind"], target["name"]) == ("Deployment", BY_KIND["Deployment"]["metadata"]["name"])
    assert "replicas" not in BY_KIND["Deployment"]["spec"], "an apply would undo what the autoscaler decided"


def test_a_node_understands_its_environment_and_has_time_to_leave() -> None:
    environment = dict(BY_KIND["ConfigMap"]["data"])
    secret = BY_KIND["Secret"]["stringData"]
    for variable in NODE["env"]:
        key = variable["valueFrom"].get("secretKeyRef", {}).get("key")
        environment[variable["name"]] = secret[key].replace(" ", "-") if key else "roomcast-7d4b9c-x2x1z"
    settings = load_settings({}, environment)
    assert settings.secret is not None and not settings.dev
    assert settings.rebalance_per_s > 0
    [command, pause] = NODE["lifecycle"]["preStop"]["exec"]["command"]
    assert command == "sleep"
    assert POD["terminationGracePeriodSeconds"] >= float(pause) + 2 * settings.drain_s
    [mount] = [mount for mount in NODE["volumeMounts"] if mount["name"] == "secrets"]
    [volume] = [volume for volume in POD["volumes"] if volume["name"] == "secrets"]
    files = {f"{mount['mountPath']}/{item['path']}": item["key"] for item in volume["secret"]["items"]}
    assert files[str(settings.broker_password_file)] in secret


def test_the_pod_runs_the_image_as_compose_does() -> None:
    dockerfile = (ROOT / "deploy" / "Dockerfile").read_text()
    [(user, group)] = re.findall(r"(?m)^USER (\d+):(\d+)$", dockerfile)
    assert (POD["securityContext"]["runAsUser"], POD["securityContext"]["runAsGroup"]) == (int(user), int(group))
    [port] = NODE["ports"]
    assert f"EXPOSE {port['containerPort']}\n" in dockerfile
    assert f"ROOMCAST_PORT={port['containerPort']}\n" in dockerfile
    assert NODE["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["enableServiceLinks"] is False


def test_probes_metrics_and_public_paths_are_what_a_node_answers() -> None:
    ports = {port["name"] for port in NODE["ports"]} | {port["name"] for port in BY_KIND["Service"]["spec"]["ports"]}
    assert ports == {"http"}
    probes = {name: NODE[name]["httpGet"] for name in ("readinessProbe", "livenessProbe")}
    [scrape] = BY_KIND["ServiceMonitor"]["spec"]["endpoints"]
    [rule] = BY_KIND["Ingress"]["spec"]["rules"]
    public = {each["path"] for each in rule["http"]["paths"]}
    assert {each["backend"]["service"]["port"]["name"] for each in rule["http"]["paths"]} <= ports
    assert {scrape["port"], *(probe["port"] for probe in probes.values())} == {"http"}
    with NodeServer(api_keys="k:admin:" + "k" * 32) as node:
        for path in (scrape["path"], *(probe["path"] for probe in probes.values()), *public - {"/ws"}):
            assert node.get(path)[0] == 200, path
        metric = BY_KIND["HorizontalPodAutoscaler"]["spec"]["metrics"][0]["pods"]["metric"]["name"]
        assert f"\n{metric}" in node.get("/metrics")[1].decode()
    assert public == {"/ws", "/roomcast.js"}
