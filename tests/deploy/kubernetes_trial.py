"""Both sides in a real Kubernetes, by the very commands of docs/install.md: `make try-kubernetes`, as root.

A cluster of one node is started from programs that tools/kubernetes.sh has built; in it the relay and the connectors
are installed, pushes arrive from outside, policies are tried, configs and certificates change, pods are restarted,
deleted, evicted, killed and frozen while a sender goes on.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from tests.deploy import archive
from tests.deploy import kubernetes_faults as faults
from tests.deploy import kubernetes_life as life
from tests.deploy.cluster import Cluster
from tests.deploy.host import ROOT, alone
from tests.deploy.kubernetes_site import IMAGE, VERSIONS, Site
from tests.deploy.node import PAUSE

FOLDER: Final = Path("/var/tmp/qanat-kubernetes-trial")

Step = Callable[[Site], str]
STEPS: Final[list[Step]] = [
    life.prepare, life.admit, life.start_relay, life.join, life.push, life.policies, life.scrape,
    life.change_config, life.refuse_config, life.renew_ingress,
    faults.roll_connectors, faults.roll_relay, faults.drain_relay, faults.drain_connectors,
    faults.evict, faults.kill, faults.freeze, life.scale, faults.take_back, faults.upgrade, life.uninstall,
]  # fmt: skip

FIRST: Final = {"prepare", "start_relay", "join", "push"}
"""What all others stand on."""


def run(site: Site, only: Sequence[str] = ()) -> None:
    """Every step, or the first ones and `only` these."""
    for step in STEPS:
        if only and step.__name__ not in {*FIRST, *only}:
            continue
        started = time.monotonic()
        name = step.__name__.replace("_", " ")
        try:
            found = step(site)
        except Exception:
            sys.stderr.write(f"FAILED: {name}\n{explain(site)}")
            raise
        sys.stdout.write(f"{time.monotonic() - started:5.1f} s  {name}: {found}\n")
        sys.stdout.flush()


def explain(site: Site) -> str:
    """What the cluster says when something is not as it should be."""
    script = """
        kubectl get pods --all-namespaces --output wide
        kubectl get events --all-namespaces --sort-by=.lastTimestamp | grep -v Normal | tail -20
        for side in relay connector; do
            kubectl --namespace qanat-$side logs --selector app.kubernetes.io/part-of=qanat --tail=8 --all-containers
        done
    """
    done = site.cluster.try_(script)
    return done.stdout + done.stderr


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--image", type=Path, required=True, help="what `docker save qanat` wrote")
    parser.add_argument("--programs", type=Path, default=ROOT / ".kubernetes", help="of tools/kubernetes.sh")
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where the cluster lives; emptied before")
    parser.add_argument("--only", nargs="*", default=[], help="steps to be tried after a first push")
    arguments = parser.parse_args()
    if not arguments.image.is_file():
        sys.exit(f"there is no {arguments.image}: docker save qanat --output {arguments.image}")
    if not (arguments.programs / "kubelet").exists():
        sys.exit(f"there is no Kubernetes in {arguments.programs}: tools/kubernetes.sh {arguments.programs}")
    folder: Path = arguments.folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    with alone(folder, folder.with_suffix(".lock")):
        with Cluster(folder, arguments.programs.absolute()) as cluster:
            archive.save(
                folder / "pause.tar", PAUSE, archive.layer(arguments.programs / "pause"),
                Entrypoint=["/pause"], User="65535:65535",
            )  # fmt: skip
            cluster.load(folder / "pause.tar")
            cluster.load(arguments.image.absolute(), *(f"{IMAGE}:{version}" for version in VERSIONS))
            run(Site(cluster), arguments.only)
        sys.stdout.write(f"what the cluster's programs said is in {folder / 'logs'}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
