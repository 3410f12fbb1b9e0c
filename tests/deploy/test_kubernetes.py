"""deploy/kubernetes: what the API server would take, what the restricted profile asks, what fits together."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import cloud_relay.cli
import connector_agent.cli
from shared.cli import invoke
from shared.units import parse_duration
from tests.deploy.host import documented
from tests.deploy.kubernetes import FOLDER, SIDES, build, config, containers, kustomization, objects, only, pod
from tests.deploy.test_image import instructions
from tests.deploy.test_systemd import value
from tests.support.development import Pki
from tests.system.programs import ROOT

VERSIONS = ("1.27.0", kubernetes_validate.latest_version())
"""The oldest Kubernetes that knows all of it (`unhealthyPodEvictionPolicy`), and the newest of the schemas."""

FOREIGN = {"ServiceMonitor"}
"""Kinds that the Prometheus operator brings along; Kubernetes has no schema for them."""


def validate(one: dict[str, Any]) -> None:
    """ValidationError says what Kubernetes would refuse, unknown keys included."""
    if one["kind"] not in FOREIGN:
        for version in VERSIONS:
            kubernetes_validate.validate(one, version, strict=True)


@pytest.mark.parametrize("side", [*SIDES, *(f"monitoring/{side}" for side in SIDES)])
def test_kubernetes_knows_every_key(side):
    assert {path.name for path in (FOLDER / side).glob("*.yaml")} == {
        "kustomization.yaml", *kustomization(side)["resources"], *([f"{side}.yaml"] if side in SIDES else []),
    }  # fmt: skip
    for one in objects(side):
        validate(one)


def test_the_schemas_would_find_a_mistake():
    wrong = only("relay", "StatefulSet")
    wrong["spec"]["template"]["spec"]["containers"][0]["readinessprobe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError, match="readinessprobe"):
        validate(wrong)


@pytest.mark.parametrize("side", SIDES)
def test_pods_are_within_the_restricted_profile(side):
    """Pod Security Standards, "Restricted": what the namespace enforces."""
    labels = only(side, "Namespace")["metadata"]["labels"]
    assert labels["pod-security.kubernetes.io/enforce"] == "restricted"
    context = pod(side)["securityContext"]
    assert context["runAsNonRoot"] is True
    assert [f"{context['runAsUser']}:{context['runAsGroup']}"] == instructions("USER")
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}
    assert not {"hostNetwork", "hostPID", "hostIPC"} & set(pod(side))
    assert all(set(volume) <= {"name", "configMap", "secret", "emptyDir"} for volume in pod(side)["volumes"])
    for container in containers(side):
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True, "capabilities": {"drop": ["ALL"]},
        }  # fmt: skip
        assert not any("hostPort" in port for port in container.get("ports", []))
    assert pod(side)["automountServiceAccountToken"] is False


@pytest.mark.parametrize("side", SIDES)
def test_whatever_selects_pods_selects_these(side):
    labels = only(side, "StatefulSet")["spec"]["template"]["metadata"]["labels"]
    selectors = []
    for one in [*objects(side), *objects(f"monitoring/{side}")]:
        spec = one.get("spec", {})
        selector = spec.get("podSelector") or spec.get("selector")
        if selector is not None:
            selectors.append(selector.get("matchLabels", selector))
    selectors += [one["labelSelector"]["matchLabels"] for one in pod(side).get("topologySpreadConstraints", [])]
    assert len(selectors) >= 5
    assert all(selector and selector.items() <= labels.items() for selector in selectors)


@pytest.mark.parametrize("side", SIDES)
def test_kubectl_asks_the_program_and_not_what_goes_before_it(side):
    """`kubectl exec` and `kubectl logs`, as the document has them, name no container."""
    metadata = only(side, "StatefulSet")["spec"]["template"]["metadata"]
    (running,) = pod(side)["containers"]
    assert metadata["annotations"] == {"kubectl.kubernetes.io/default-container": running["name"]}


@pytest.mark.parametrize("side", SIDES)
def test_ports_are_those_that_the_config_listens_on(side):
    """Named in the pod, and by the same names in services, probes, policies and the ServiceMonitor."""
    (container,) = pod(side)["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    listening = yaml.safe_load(config(side).read_text())
    listens = {"observe": listening["observe"]["listen"]}
    if side == "relay":
        listens |= {"tunnel": listening["tunnel"]["listen"], "ingress": listening["ingress"][0]["listen"]}
    assert listens == {name: f":{port}" for name, port in ports.items()}

    for probe, path in (("startupProbe", "/healthz"), ("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")):
        assert container[probe]["httpGet"] == {"path": path, "port": "observe"}
    services = {one["metadata"]["name"]: one["spec"] for one in objects(side) if one["kind"] == "Service"}
    assert {port["targetPort"] for spec in services.values() for port in spec["ports"]} == set(ports)
    assert services[only(side, "StatefulSet")["spec"]["serviceName"]]["clusterIP"] == "None"
    (endpoint,) = only(f"monitoring/{side}", "ServiceMonitor")["spec"]["endpoints"]
    assert endpoint["port"] in {port["name"] for spec in services.values() for port in spec["ports"]}
    policies = [only(side, "NetworkPolicy"), only(f"monitoring/{side}", "NetworkPolicy")]
    allowed = {port["port"] for one in policies for rule in one["spec"]["ingress"] for port in rule["ports"]}
    assert allowed == set(ports)


@pytest.mark.parametrize("side", SIDES)
def test_a_pods_end_leaves_time_to_drain(side):
    drain = yaml.safe_load(config(side).read_text()).get("drain", {})
    seconds = parse_duration(drain.get("delay", "0s")) + parse_duration(drain.get("timeout", "25s"))
    assert pod(side)["terminationGracePeriodSeconds"] >= seconds + 10


@pytest.mark.parametrize("side", SIDES)
def test_a_loop_that_stands_still_is_ended_as_soon_as_systemd_does_it(side):
    """Within the watchdog's time, and without the wait for a drain that never comes."""
    (container,) = pod(side)["containers"]
    probe = container["livenessProbe"]
    watchdog = parse_duration(value(f"qanat-{side}.service", "WatchdogSec"))
    assert probe["periodSeconds"] * probe["failureThreshold"] == watchdog
    assert probe["timeoutSeconds"] <= probe["periodSeconds"]
    assert probe["terminationGracePeriodSeconds"] <= 5


@pytest.mark.parametrize("side", SIDES)
def test_an_upgrade_that_failed_can_be_taken_back(side):
    """In the default, OrderedReady, a StatefulSet waits for the broken pod before it heeds what would mend it."""
    assert only(side, "StatefulSet")["spec"]["podManagementPolicy"] == "Parallel"


def test_a_relay_that_drains_is_still_found():
    """Not ready any more, it stays an endpoint for longer than `drain.delay`; one that has begun is one at once."""
    (container,) = pod("relay")["containers"]
    probe = container["readinessProbe"]
    delay = parse_duration(yaml.safe_load(config("relay").read_text())["drain"]["delay"])
    assert probe["periodSeconds"] == container["startupProbe"]["periodSeconds"] == 1
    assert probe["periodSeconds"] * probe["failureThreshold"] > 2 * delay


@pytest.mark.parametrize("side", SIDES)
def test_every_mount_has_its_volume(side):
    claims = {one["metadata"]["name"] for one in only(side, "StatefulSet")["spec"]["volumeClaimTemplates"]}
    volumes = {volume["name"]: volume for volume in pod(side)["volumes"]}
    mounted = {mount["name"]: mount["mountPath"] for one in containers(side) for mount in one["volumeMounts"]}
    assert set(mounted) == claims | set(volumes)
    (generated,) = kustomization(side)["configMapGenerator"]
    assert volumes["config"]["configMap"]["name"] == generated["name"]
    # The state is in a folder of the volume, which itself belongs to root.
    assert str(Path(yaml.safe_load(config(side).read_text())["state_dir"]).parent) == mounted["state"]


def test_each_connector_finds_its_own_token():
    linking, running = containers("connector")
    *_, source, link = linking["command"]
    mounts = {mount["name"]: mount["mountPath"] for mount in running["volumeMounts"]}
    assert source == f"{mounts['join']}/$(POD_NAME)"
    assert link == yaml.safe_load(config("connector").read_text())["join"]["token_file"]
    assert Path(link).parent == Path(mounts["run"])
    assert only("connector", "StatefulSet")["spec"]["replicas"] == 2
    assert only("connector", "PodDisruptionBudget")["spec"]["maxUnavailable"] == 1


def test_the_relay_takes_its_config(tmp_path, capsys):
    text = config("relay").read_text().replace("/var/lib/qanat-relay", str(tmp_path))
    pair = Pki(tmp_path).relay("push.example.com")
    pair.certificate.rename(tmp_path / "tls.crt")
    pair.key.rename(tmp_path / "tls.key")
    (tmp_path / "relay.yaml").write_text(text.replace("/etc/qanat-ingress", str(tmp_path)))
    app = cloud_relay.cli.app
    first, serving = containers("relay")
    assert (first["command"][0], serving["command"]) == ("cloud-relay", ["cloud-relay", "serve"])
    place = ["--config", str(tmp_path / "relay.yaml"), "--json"]
    assert invoke(app, [*first["command"][1:], *place]) == 0
    assert invoke(app, ["check", *place]) == 0
    made, judged = map(json.loads, capsys.readouterr().out.splitlines())
    assert made["ca_made"] is True
    assert judged["routes"] == 1
    assert judged["warnings"] == []


def test_the_connector_takes_its_config(tmp_path, capsys):
    text = config("connector").read_text().replace("/var/lib/qanat-connector", str(tmp_path))
    (tmp_path / "connector.yaml").write_text(text)
    arguments = ["check", "--offline", "--config", str(tmp_path / "connector.yaml"), "--json"]
    assert invoke(connector_agent.cli.app, arguments) == 0
    judged = json.loads(capsys.readouterr().out)
    assert judged["targets"] == ["metrics"]
    assert judged["warnings"] == []


def test_the_connectors_may_reach_what_they_expose():
    """The policy's last rule follows the config's target."""
    (target,) = yaml.safe_load(config("connector").read_text())["targets"]
    host, port = target["url"].removeprefix("http://").split(":")
    *_, rule = only("connector", "NetworkPolicy")["spec"]["egress"]
    assert rule["ports"] == [{"port": int(port)}]
    (peer,) = rule["to"]
    assert peer["namespaceSelector"]["matchLabels"]["kubernetes.io/metadata.name"] == host.split(".")[1]


@pytest.mark.parametrize("side", SIDES)
def test_kubectl_builds_it(side, tmp_path, peer):
    """As an overlay would use it, with monitoring."""
    kubectl = peer("kubectl")
    shutil.copytree(FOLDER, tmp_path / "base")
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": f"qanat-{side}",
        "resources": [f"../base/{side}"], "components": [f"../base/monitoring/{side}"],
        "images": [{"name": "qanat", "newName": "registry.example.com/qanat", "newTag": "1"}],
    }  # fmt: skip
    (tmp_path / "overlay").mkdir()
    (tmp_path / "overlay" / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    built = build(kubectl, tmp_path / "overlay")
    wanted = [one["kind"] for one in [*objects(side), *objects(f"monitoring/{side}")]]
    assert sorted(one["kind"] for one in built) == sorted([*wanted, "ConfigMap"])
    for one in built:
        validate(one)
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == f"qanat-{side}"
    (made,) = [one for one in built if one["kind"] == "ConfigMap"]
    assert made["data"] == {f"{side}.yaml": config(side).read_text()}
    (stateful,) = [one for one in built if one["kind"] == "StatefulSet"]
    template = stateful["spec"]["template"]["spec"]
    images = {one["image"] for one in [*template["initContainers"], *template["containers"]]}
    assert images == {"registry.example.com/qanat:1"}


@pytest.mark.parametrize("side", SIDES)
def test_kubectl_builds_the_overlay_of_the_document(side, tmp_path, peer):
    """With its patch, whose place is a number, and the config beside it."""
    shutil.copytree(FOLDER, tmp_path / "deploy" / "kubernetes")
    overlay = tmp_path / side
    overlay.mkdir()
    (overlay / "kustomization.yaml").write_text(documented()[f"kubernetes-{side}-overlay"])
    (overlay / f"{side}.yaml").write_text("own: {}\n")
    built = build(peer("kubectl"), overlay)
    for one in built:
        validate(one)
    (made,) = [one for one in built if one["kind"] == "ConfigMap"]
    assert made["data"] == {f"{side}.yaml": "own: {}\n"}
    (policy,) = [one for one in built if (one["kind"], one["metadata"]["name"]) == ("NetworkPolicy", f"qanat-{side}")]
    *kept, last = policy["spec"]["egress"] or [None]
    if side == "connector":
        assert last == {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [{"port": 8428}]}
        assert kept == only(side, "NetworkPolicy")["spec"]["egress"][:-1]


def test_a_source_of_the_trial_that_cannot_be_fetched_is_named(tmp_path: Path) -> None:
    go = tmp_path / "bin" / "go"
    go.parent.mkdir()
    go.write_text('#!/bin/sh\necho \'{"Error": "the proxy is away"}\'\nexit 1\n')
    go.chmod(0o755)
    environ = os.environ | {"PATH": f"{go.parent}:{os.environ['PATH']}", "KUBERNETES": "1.34.4"}
    done = subprocess.run([ROOT / "tools/kubernetes.sh", tmp_path], env=environ, capture_output=True, text=True)
    assert done.returncode == 1
    assert "the proxy is away" in done.stderr
    assert "go cannot fetch k8s.io/kubernetes@v1.34.4" in done.stderr
