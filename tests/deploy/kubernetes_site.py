"""What is tried in the cluster: the two sides by the commands of docs/install.md, a target, and senders around it."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import trustme
import yaml
from cryptography import x509

from tests.deploy.cluster import Cluster
from tests.deploy.host import ROOT, TrialError, documented, until
from tests.deploy.node import balancer

IMAGE: Final = "registry.example.com/qanat"
VERSIONS: Final = ("0.1.0", "0.1.1")
"""Two names of one image."""

TUNNEL: Final = "203.0.113.10"
INGRESS: Final = "203.0.113.11"
HOST: Final = "push.example.com"
PROGRAM: Final = Path(__file__).with_name("in_cluster.py")

RELAY: Final = "--namespace qanat-relay"
CONNECTOR: Final = "--namespace qanat-connector"


class Site:
    """A cluster, the document's commands, and a sender."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.docs = documented()
        self.work = cluster.folder / "work"
        self.authority = trustme.CA()
        self.authority.cert_pem.write_to_path(str(cluster.folder / "ingress-ca.pem"))
        self.place = cluster.folder / "place.json"
        self.sent = 0
        shutil.copytree(ROOT / "deploy", self.work / "deploy")

    def document(self, name: str, timeout: float = 240.0) -> str:
        """Run a block of the document. Nobody may be warned: of Pod Security, of what is deprecated."""
        return self.quiet(self.docs[name], timeout)

    def quiet(self, script: str, timeout: float = 240.0) -> str:
        """Run a script that must succeed without a warning."""
        done = self.cluster.try_(script, timeout=timeout)
        if done.returncode or "warning" in done.stderr.lower():
            raise TrialError(f"exit code {done.returncode}:\n{script}\n{done.stdout}{done.stderr}")
        return done.stdout

    # --- files beside the document's

    def overlay(self, side: str, config: dict[str, Any], version: str = VERSIONS[0]) -> None:
        """The document's kustomization of a side, with this config beside it."""
        folder = self.work / side
        folder.mkdir(exist_ok=True)
        text = self.docs[f"kubernetes-{side}-overlay"]
        assert VERSIONS[0] in text
        (folder / "kustomization.yaml").write_text(text.replace(VERSIONS[0], version))
        (folder / f"{side}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))

    def config(self, side: str) -> dict[str, Any]:
        """The side's config: as it is shipped, until it was changed."""
        own = self.work / side / f"{side}.yaml"
        shipped = self.work / "deploy" / "kubernetes" / side / f"{side}.yaml"
        found: dict[str, Any] = yaml.safe_load((own if own.exists() else shipped).read_text())
        return found

    def certificate(self) -> int:
        """A new one for senders, as the files that the document names; its serial number."""
        leaf = self.authority.issue_cert(HOST)
        leaf.private_key_pem.write_to_path(str(self.work / "ingress.key"))
        leaf.cert_chain_pems[0].write_to_path(str(self.work / "ingress.pem"))
        return x509.load_pem_x509_certificate(leaf.cert_chain_pems[0].bytes()).serial_number

    # --- what a cloud does

    def balance(self) -> None:
        """Give the public Services their addresses, and pass on what comes there."""
        for service, address in (("qanat-tunnel", TUNNEL), ("qanat-ingress", INGRESS)):
            (port,) = self.cluster.get(f"{RELAY} service {service}")["spec"]["ports"]
            self.cluster.sh(balancer(address, port["port"], port["nodePort"]), network="world")
            status = {"status": {"loadBalancer": {"ingress": [{"ip": address, "ipMode": "Proxy"}]}}}
            self.cluster.kubectl(
                f"{RELAY} patch service {service} --subresource=status --type=merge --patch '{json.dumps(status)}'"
            )
        self.cluster.name(TUNNEL, "relay.example.com")

    # --- what can be asked

    def relay(self, arguments: str) -> Any:
        """A command of the relay's, as JSON."""
        return json.loads(self.cluster.kubectl(f"{RELAY} exec qanat-relay-0 -- cloud-relay {arguments} --json"))

    def pods(self, where: str) -> dict[str, dict[str, Any]]:
        """All of a namespace, by their names."""
        return {one["metadata"]["name"]: one for one in self.cluster.get(f"{where} pods")["items"]}

    def identities(self, where: str) -> dict[str, tuple[str, int]]:
        """Which pods there are, and how often their containers were started anew."""
        return {
            name: (
                pod["metadata"]["uid"],
                sum(one["restartCount"] for one in pod["status"].get("containerStatuses", [])),
            )
            for name, pod in self.pods(where).items()
        }

    def rolled_out(self) -> None:
        """Until all is, as kubectl sees it."""
        self.cluster.kubectl(f"{RELAY} rollout status statefulset/qanat-relay --timeout=180s", 200)
        self.cluster.kubectl(f"{CONNECTOR} rollout status statefulset/qanat-connector --timeout=180s", 200)

    def whole(self, connectors: int = 2) -> None:
        """Until all is ready, with all tunnels, and a push arrives."""
        self.rolled_out()
        until(lambda: self._attached() == [(2, "good")] * connectors, f"{connectors} connectors attached", 60)
        assert self.push("whole") == 204

    def _attached(self) -> list[tuple[int, str]]:
        found = self.relay("connectors list")["connectors"]
        return [(one["tunnels"], one["state"]) for one in found if one["tunnels"]]

    def push(self, body: str) -> int:
        """One push from the world; its status."""
        return int(self.cluster.sh(f"{sys.executable} {PROGRAM} push {self.place} {body}", network="world"))

    def got(self) -> str:
        """All that the target has got."""
        return self.cluster.kubectl("--namespace monitoring logs deployment/victoria-metrics --tail=-1")

    def reaches(self, where: str, host: str, port: int) -> bool:
        """Whether a pod can connect there; `where` is its namespace and name as kubectl takes them."""
        program = "import sys,socket; socket.create_connection((sys.argv[1],int(sys.argv[2])),3)"
        return self.cluster.try_(f"kubectl exec {where} -- python -c '{program}' {host} {port}").returncode == 0

    def while_sending(self, action: Callable[[], object]) -> dict[str, Any]:
        """Do it; what became of a sender's pushes meanwhile. What was acknowledged is at the target."""
        self.sent += 1
        stop, result = (self.cluster.folder / f"{name}-{self.sent}" for name in ("stop", "result"))
        before = len(self.got())
        argv = [sys.executable, str(PROGRAM), "send", str(self.place), str(stop), str(result)]
        self.cluster.start(f"sender-{self.sent}", *argv, network="world")
        self.cluster.sh("sleep 1")
        try:
            action()
            self.cluster.sh("sleep 2")
        finally:
            stop.touch()
        until(result.exists, "the sender has ended", 30)
        sent: dict[str, Any] = json.loads(result.read_text())
        got = set(re.findall(r"(?m)^got (n\d+\.) ", self.got()[before:]))
        lost = [number for number in range(sent["acknowledged"]) if f"n{number}." not in got]
        assert sent["acknowledged"] > 20, sent
        assert not lost, f"acknowledged, and not at the target: {lost}"
        return sent
