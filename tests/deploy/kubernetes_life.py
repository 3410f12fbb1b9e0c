"""Steps of the trial in Kubernetes: from nothing to the first push, and on to the end. Each leaves the site well."""

from __future__ import annotations

import json
import shlex
import sys
from typing import Any, Final

from cryptography import x509

from tests.deploy.host import until
from tests.deploy.kubernetes_site import CONNECTOR, HOST, IMAGE, INGRESS, PROGRAM, RELAY, TUNNEL, VERSIONS, Site
from tests.deploy.node import NODE

LABELS: Final = {"app": "victoria-metrics"}
TARGET: Final = {
    "containers": [{
        "name": "target", "image": f"{IMAGE}:{VERSIONS[0]}",
        "command": ["python", "/opt/trial/in_cluster.py", "target"],
        "ports": [{"containerPort": 8428}], "readinessProbe": {"httpGet": {"path": "/health", "port": 8428}},
        "volumeMounts": [{"name": "program", "mountPath": "/opt/trial"}],
    }],
    "volumes": [{"name": "program", "configMap": {"name": "target"}}],
}  # fmt: skip
PROPAGATION: Final = 180.0
"""A ConfigMap or a Secret is in the pod when the kubelet looks again, each minute or so; then we look."""


def prepare(site: Site) -> str:
    """The Prometheus operator's kinds, and a target where the shipped config expects one."""
    cluster = site.cluster
    for kind in ("servicemonitors", "prometheusrules"):
        cluster.kubectl(f"apply --server-side --filename {cluster.programs}/{kind}.yaml")
    cluster.kubectl("wait --for=condition=Established crd --all --timeout=60s")
    cluster.kubectl("create namespace monitoring")
    cluster.kubectl(f"--namespace monitoring create configmap target --from-file={PROGRAM}")
    where = {"name": "victoria-metrics", "namespace": "monitoring"}
    cluster.apply([
        {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": where, "spec": {
            "selector": {"matchLabels": LABELS}, "template": {"metadata": {"labels": LABELS}, "spec": TARGET}}},
        {"apiVersion": "v1", "kind": "Service", "metadata": where, "spec": {
            "selector": LABELS, "ports": [{"port": 8428}]}},
    ])  # fmt: skip
    cluster.kubectl("--namespace monitoring rollout status deployment/victoria-metrics --timeout=60s")
    for namespace in ("monitoring", "default"):
        cluster.kubectl(f"--namespace {namespace} run probe --image={IMAGE}:{VERSIONS[0]} --command -- sleep infinity")
        cluster.kubectl(f"--namespace {namespace} wait --for=condition=Ready pod/probe --timeout=60s")
    versions = json.loads(cluster.kubectl("version --output json"))
    node = cluster.get("node node-1")["status"]["nodeInfo"]
    return f"Kubernetes {versions['serverVersion']['gitVersion']}, {node['containerRuntimeVersion']}"


def admit(site: Site) -> str:
    """All objects as they stand, judged by the API server; then a pod that the namespaces must refuse."""
    apply = "kubectl apply --validate=strict --server-side --dry-run=server"
    for side in ("relay", "connector"):
        built = site.work / f"{side}.built.yaml"
        site.quiet(f"kubectl kustomize deploy/kubernetes/{side} > {built}")
        site.quiet(f"kubectl apply --server-side --filename deploy/kubernetes/{side}/namespace.yaml")
        site.quiet(f"{apply} --filename {built}")
        run = f"kubectl --namespace qanat-{side} run bad --image={IMAGE}:{VERSIONS[0]} --dry-run=server"
        refused = site.cluster.fails(run)
        assert 'violates PodSecurity "restricted:latest"' in refused, refused
        site.quiet(f"kubectl delete --filename deploy/kubernetes/{side}/namespace.yaml")
    return "strictly, without a warning; other pods are refused there"


def start_relay(site: Site) -> str:
    """By the document: an overlay with an image and a config; then the balancers come."""
    cluster = site.cluster
    done = cluster.sh(f"ctr --namespace k8s.io run --rm {IMAGE}:{VERSIONS[0]} secrets cloud-relay secrets new --json")
    secret = json.loads(done)
    config = site.config("relay")
    config["tenants"]["acme"]["senders"][0]["bearer"]["token_hash"] = secret["hash"]
    site.overlay("relay", config)
    site.certificate()
    site.document("kubernetes-relay")
    site.balance()
    shown = cluster.kubectl(f"{RELAY} get service qanat-tunnel qanat-ingress")
    assert TUNNEL in shown, shown
    assert INGRESS in shown, shown
    site.place.write_text(json.dumps({
        "host": HOST, "address": INGRESS, "own_address": NODE.world, "token": secret["secret"],
        "ca": str(cluster.folder / "ingress-ca.pem"),
    }))  # fmt: skip
    (claim,) = cluster.get(f"{RELAY} pvc")["items"]
    assert claim["status"]["phase"] == "Bound", claim
    return "ready, on its volume"


def join(site: Site) -> str:
    """By the document: each pod by a token of its own."""
    site.document("kubernetes-tokens")
    site.overlay("connector", site.config("connector"))
    site.document("kubernetes-connector")
    shown = site.document("kubernetes-list")
    assert [line.split()[:3] for line in shown.splitlines()[1:]] == [
        [f"acme/walldorf/qanat-connector-{number}", "good", "2"] for number in range(2)
    ], shown
    assert all(restarts == 0 for _, restarts in site.identities(CONNECTOR).values())
    return "two pods, each with two tunnels through the balancer"


def push(site: Site) -> str:
    """From outside, through the balancer; the relay sees who it is."""
    until(lambda: site.push("first") == 204, "a push arrives")
    site.whole()
    (line,) = [line for line in site.got().splitlines() if line.startswith("got first")]
    assert line == f"got first from {NODE.world}", line
    return "from outside, whose address the target is told"


def policies(site: Site) -> str:
    """Who reaches whom, where the network keeps to the policies."""
    relay = site.pods(RELAY)["qanat-relay-0"]["status"]["podIP"]
    connector = site.pods(CONNECTOR)["qanat-connector-0"]["status"]["podIP"]
    api = "kubernetes.default.svc"
    target = "victoria-metrics.monitoring.svc"
    in_relay, in_connector = f"{RELAY} qanat-relay-0", f"{CONNECTOR} qanat-connector-0"
    expected = {
        ("probe", relay, 9443): True, ("probe", relay, 8443): True, ("probe", relay, 9000): False,
        ("--namespace monitoring probe", relay, 9000): True, ("--namespace monitoring probe", connector, 9001): True,
        ("probe", connector, 9001): False, (in_relay, connector, 9001): False, (in_relay, target, 8428): False,
        (in_relay, api, 443): False, (in_connector, target, 8428): True, (in_connector, relay, 9000): False,
        (in_connector, relay, 8443): False, (in_connector, "relay.example.com", 443): True,
    }  # fmt: skip
    found = {way: site.reaches(*way) for way in expected}
    wrong = {way: reached for way, reached in found.items() if reached != expected[way]}
    assert not wrong, wrong
    # Another way to the targets, as the document's patch has it: the route turns red, and comes back.
    folder = site.work / "connector" / "kustomization.yaml"
    before = folder.read_text()
    folder.write_text(before.replace("10.20.0.0/16", "10.21.0.0/16"))
    site.quiet("kubectl apply --kustomize connector")
    until(lambda: not site.reaches(in_connector, target, 8428), "the target is out of reach", 60)
    until(lambda: site.push("unreachable") in {502, 503, 504}, "senders are told to come again", 60)
    folder.write_text(before)
    site.quiet("kubectl apply --kustomize connector")
    until(lambda: site.push("reachable") == 204, "pushes arrive again", 60)
    return f"{len(expected)} ways are open or closed as they should be"


def scrape(site: Site) -> str:
    """As the ServiceMonitors would have it: each endpoint of the Service that they select, by its port's name."""
    program = (
        "import sys, urllib.request as u; "
        "print(sum(u.urlopen(one, timeout=5).read().count(b'# TYPE') for one in sys.argv[1:]))"
    )
    scraped = 0
    for side in ("relay", "connector"):
        where = f"--namespace qanat-{side}"
        (monitor,) = site.cluster.get(f"{where} servicemonitors")["items"]
        (endpoint,) = monitor["spec"]["endpoints"]
        (label,) = monitor["spec"]["selector"]["matchLabels"].items()
        found = site.cluster.get(f"{where} endpointslices --selector {label[0]}={label[1]}")["items"]
        urls = sorted({
            f"http://{address}:{port['port']}{endpoint['path']}"
            for one in found for port in one["ports"] if port["name"] == endpoint["port"]
            for other in one["endpoints"] for address in other["addresses"]
        })  # fmt: skip
        assert len(urls) == len(site.pods(where)), urls
        ask = f"--namespace monitoring exec probe -- python -c {shlex.quote(program)} {' '.join(urls)}"
        counted = int(site.cluster.kubectl(ask))
        assert counted > 20, counted
        scraped += len(urls)
    return f"{scraped} pods, from the namespace of whoever scrapes"


def _routes(site: Site) -> set[str]:
    return {one["route"] for one in site.relay("status")["routes"]}


def change_config(site: Site) -> str:
    """By kubectl apply: no restart, and no push is lost."""
    before = site.identities(RELAY), site.identities(CONNECTOR)
    config = site.config("relay")
    acme = config["tenants"]["acme"]
    other: dict[str, Any] = {**acme["routes"][0], "name": "other", "match": {"host": "other.example.com"}}
    acme["routes"].append(other)

    def change() -> None:
        site.overlay("relay", config)
        site.quiet("kubectl apply --kustomize relay")
        until(lambda: any(name.endswith("other") for name in _routes(site)), "the new route", PROPAGATION)

    sent = site.while_sending(change)
    assert set(sent["statuses"]) == {"204"}, sent
    assert (site.identities(RELAY), site.identities(CONNECTOR)) == before
    return f"a route more: {sent}"


def refuse_config(site: Site) -> str:
    """One that is no good: the old one stays in force, and it is told."""
    before = site.identities(RELAY)
    config = site.config("relay")
    bad = {**config, "nonsense": 1}
    site.overlay("relay", bad)
    site.quiet("kubectl apply --kustomize relay")
    told = f"kubectl {RELAY} logs qanat-relay-0 | grep -c nonsense"
    until(lambda: site.cluster.try_(told).returncode == 0, "the refusal is told", PROPAGATION)
    shown = site.cluster.kubectl(f"{RELAY} exec qanat-relay-0 -- cloud-relay status")
    assert "nonsense" in shown, shown
    site.whole()
    site.overlay("relay", config)
    site.quiet("kubectl apply --kustomize relay")
    until(
        lambda: "nonsense" not in site.cluster.kubectl(f"{RELAY} exec qanat-relay-0 -- cloud-relay status"),
        "the good one is in force", PROPAGATION,
    )  # fmt: skip
    assert site.identities(RELAY) == before
    return "the old one stays in force, and status says why"


def renew_ingress(site: Site) -> str:
    """As cert-manager does: the Secret changes, and nothing else."""
    before = site.identities(RELAY)
    serial = site.certificate()
    look = f"import ssl; print(ssl.get_server_certificate(('{INGRESS}', 443), timeout=5))"

    def served() -> int:
        pem = site.cluster.sh(f'{sys.executable} -c "{look}"', network="world")
        return x509.load_pem_x509_certificate(pem.encode()).serial_number

    assert served() != serial

    def renew() -> None:
        secret = "kubectl create secret tls qanat-ingress --cert ingress.pem --key ingress.key --dry-run=client -o yaml"
        site.cluster.sh(f"{secret} | kubectl {RELAY} replace --filename -")
        until(lambda: served() == serial, "the new certificate is served", PROPAGATION)

    sent = site.while_sending(renew)
    assert set(sent["statuses"]) == {"204"}, sent
    assert site.identities(RELAY) == before
    return f"without a restart: {sent}"


def scale(site: Site) -> str:
    """A third connector, by what the document says."""
    cluster = site.cluster
    cluster.kubectl(f"{CONNECTOR} scale statefulset/qanat-connector --replicas=3")
    until(lambda: len(site.pods(CONNECTOR)) == 3, "a third pod")
    cluster.sh(
        f"kubectl {RELAY} exec qanat-relay-0 -- cloud-relay tokens create acme/walldorf/qanat-connector-2 > third; "
        f"kubectl {CONNECTOR} create secret generic qanat-join --from-file=qanat-connector-2=third"
    )
    site.whole(3)
    cluster.kubectl(f"{CONNECTOR} delete secret qanat-join")
    cluster.kubectl(f"{CONNECTOR} scale statefulset/qanat-connector --replicas=2")
    until(lambda: len(site.pods(CONNECTOR)) == 2, "two pods again", 60)
    return "the third joins by a token that comes after it"


def uninstall(site: Site) -> str:
    """All that was installed goes, volumes' claims included; a CA's certificates are revoked."""
    cluster = site.cluster
    site.quiet("kubectl delete --kustomize connector", 200)
    cluster.kubectl(f"{RELAY} exec qanat-relay-0 -- cloud-relay certs revoke acme/walldorf --reason moved")
    site.quiet("kubectl delete --kustomize relay", 200)
    for side in ("relay", "connector"):
        cluster.kubectl(f"wait --for=delete namespace/qanat-{side} --timeout=120s", 150)
    assert not cluster.get("pvc --all-namespaces")["items"]
    return "namespaces and all in them"
