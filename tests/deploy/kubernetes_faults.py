"""Steps of the trial in Kubernetes: what happens to pods while pushes go on. Each leaves the site well."""

from __future__ import annotations

import subprocess
import sys
import time

from tests.deploy.host import until
from tests.deploy.kubernetes_site import CONNECTOR, IMAGE, PROGRAM, RELAY, VERSIONS, Site


def roll_connectors(site: Site) -> str:
    """kubectl rollout restart: one after the other, so no sender notices."""

    def roll() -> None:
        site.cluster.kubectl(f"{CONNECTOR} rollout restart statefulset/qanat-connector")
        site.rolled_out()

    before = site.identities(CONNECTOR)
    sent = site.while_sending(roll)
    assert not set(before.values()) & set(site.identities(CONNECTOR).values())
    assert set(sent["statuses"]) == {"204"}, sent
    site.whole()
    return str(sent)


def roll_relay(site: Site) -> str:
    """kubectl rollout restart: there is one, so senders are without it for a while, and lose nothing."""

    def roll() -> None:
        site.cluster.kubectl(f"{RELAY} rollout restart statefulset/qanat-relay")
        site.rolled_out()
        site.whole()

    sent = site.while_sending(roll)
    assert set(sent["statuses"]) <= {"204", "503", "0"}, sent
    return str(sent)


def _outlived(site: Site, command: str) -> None:
    """A push of 4 s begins, then the command: the push gets its answer."""
    argv = site.cluster.within(sys.executable, str(PROGRAM), "push", str(site.place), "slow", network="world")
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as push:
        time.sleep(1)
        site.cluster.kubectl(command)
        answered = push.communicate(timeout=30)[0].strip()
    assert answered == "204", answered


def drain_relay(site: Site) -> str:
    """Deleted, with a push under way."""
    before = site.identities(RELAY)["qanat-relay-0"]
    _outlived(site, f"{RELAY} delete pod qanat-relay-0 --wait=false")
    until(lambda: site.identities(RELAY).get("qanat-relay-0", before)[0] != before[0], "a new pod", 60)
    site.whole()
    return "a push of 4 s outlives the deletion of the relay's pod"


def drain_connectors(site: Site) -> str:
    """Both deleted at once, with a push under way."""
    before = site.identities(CONNECTOR)
    _outlived(site, f"{CONNECTOR} delete pod --all --wait=false")
    until(lambda: not set(before.values()) & set(_live(site).values()) and len(_live(site)) == 2, "new pods", 60)
    site.whole()
    return "a push of 4 s outlives the deletion of both connectors' pods"


def _live(site: Site) -> dict[str, tuple[str, int]]:
    pods = site.pods(CONNECTOR)
    return {
        name: (one["metadata"]["uid"], 0)
        for name, one in pods.items()
        if "deletionTimestamp" not in one["metadata"] and one["status"]["phase"] == "Running"
    }


def evict(site: Site) -> str:
    """The node is drained: the budget lets one connector go, and keeps the other while the first has no place."""
    those = "--pod-selector=app.kubernetes.io/name=qanat-connector"
    drain = f"kubectl drain node-1 {those} --delete-emptydir-data --timeout=20s"

    def drained() -> None:
        refused = site.cluster.fails(drain)
        assert "disruption budget" in refused, refused
        (left,) = _live(site)
        pending = [one for one in site.pods(CONNECTOR).values() if one["status"]["phase"] == "Pending"]
        assert len(pending) == 1, (left, pending)

    try:
        sent = site.while_sending(drained)
    finally:
        site.cluster.kubectl("uncordon node-1")
    assert set(sent["statuses"]) == {"204"}, sent
    site.whole()
    return f"one of two, whatever is tried: {sent}"


def _signal(site: Site, side: str, name: str) -> None:
    """Send it to the program in the side's first pod, as the kernel or a bug would."""
    pod = site.pods(f"--namespace qanat-{side}")[f"qanat-{side}-0"]
    (container,) = pod["status"]["containerStatuses"]
    found = container["containerID"].removeprefix("containerd://")
    site.cluster.sh(f"ctr --namespace k8s.io tasks kill --signal {name} {found}")


def _restarted(site: Site, side: str, timeout: float) -> None:
    pod = f"qanat-{side}-0"
    before = site.identities(f"--namespace qanat-{side}")[pod]
    until(lambda: site.identities(f"--namespace qanat-{side}")[pod] == (before[0], before[1] + 1), "a restart", timeout)


def kill(site: Site) -> str:
    """SIGKILL, as when memory is short: the kubelet starts it again, in the same pod."""
    told = []
    for side in ("connector", "relay"):

        def struck(side: str = side) -> None:
            _signal(site, side, "SIGKILL")
            _restarted(site, side, 60)
            site.whole()

        told.append(f"{side}: {site.while_sending(struck)}")
    return "; ".join(told)


def freeze(site: Site) -> str:
    """SIGSTOP, as an event loop that never comes back: the liveness probe finds out."""

    def frozen() -> None:
        _signal(site, "relay", "SIGSTOP")
        _restarted(site, "relay", 180)
        site.whole()

    return str(site.while_sending(frozen))


def upgrade(site: Site) -> str:
    """The new tag on both sides, one after the other, while pushes go on."""

    def to_new(side: str) -> None:
        site.overlay(side, site.config(side), VERSIONS[1])
        site.quiet(f"kubectl apply --kustomize {side}")
        site.rolled_out()
        for pod in site.pods(f"--namespace qanat-{side}").values():
            assert {one["image"] for one in pod["spec"]["containers"]} == {f"{IMAGE}:{VERSIONS[1]}"}

    connectors = site.while_sending(lambda: to_new("connector"))
    assert set(connectors["statuses"]) == {"204"}, connectors
    relay = site.while_sending(lambda: to_new("relay"))
    return f"connectors: {connectors}; relay: {relay}"


def take_back(site: Site) -> str:
    """An upgrade to what cannot be had, and back by the old tag alone: nobody has to delete a pod by hand."""
    for side in ("connector", "relay"):
        where, running = f"--namespace qanat-{side}", f"{IMAGE}:{VERSIONS[0]}"
        for version in ("nowhere", VERSIONS[0]):
            site.overlay(side, site.config(side), version)
            site.quiet(f"kubectl apply --kustomize {side}")
            if version == "nowhere":
                look = f"kubectl {where} get pods | grep -E 'ErrImagePull|ImagePullBackOff'"
                until(lambda look=look: site.cluster.try_(look).returncode == 0, "an image that is missed", 60)  # type: ignore[misc]
        site.whole()
        assert {pod["spec"]["containers"][0]["image"] for pod in site.pods(where).values()} == {running}
    return "the old tag is enough"
