"""Steps of the trial: the image on a host of its own, by the commands of docs/install.md. Each leaves the site well.

One machine is both hosts, the relay's and the connector's.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.docker_machine import RELAY_NAME
from tests.deploy.docker_site import CA, IMAGE, NEXT, TOKEN, Site, own_version
from tests.deploy.docker_stand_ins import image_of
from tests.deploy.host import until

RELAY: Final = "/etc/qanat/relay.yaml"
CONNECTOR: Final = "/etc/qanat/connector.yaml"
COMPILING: Final = 1800.0
"""Seconds for an image with a compiler's work in it, on a busy machine."""


def build(site: Site) -> str:
    """As the document says: what every push goes through is compiled, and no compiler is left in it."""
    site.run(site.docs["image-build"], COMPILING)
    assert site.inspect(IMAGE)["Config"]["User"] == "65532:65532"
    assert site.run(f"docker run --rm {IMAGE} sh -c 'command -v gcc cc || true'").strip() == ""
    return f"compiled; {_size(site) / 1e6:.0f} MB over Python's image"


def _size(site: Site) -> float:
    """Bytes of our own layers: the base was imported as one, which is the last that is told."""
    said = site.run(f"docker history --human=false --format '{{{{.Size}}}}' {IMAGE}").split()
    return sum(map(float, said[:-1]))


def variables(block: str) -> str:
    """The lines that later commands of the same host stand on."""
    return "\n".join(re.findall(r"^(?:least|volumes)=.*$", block, re.MULTILINE))


def on_relay(site: Site, *scripts: str) -> str:
    """What its operator types, in one shell."""
    return site.run("\n".join([variables(site.docs["image-init"]), *scripts]))


def on_connector(site: Site, *scripts: str) -> str:
    return site.run("\n".join([variables(site.docs["image-join"]), *scripts]))


def edit(site: Site, path: str, change: dict[str, Any]) -> None:
    """Replace settings of a config; its owner and mode stay."""
    file = site.machine.path / path.lstrip("/")
    file.write_text(yaml.safe_dump(yaml.safe_load(file.read_text()) | change, sort_keys=False))


def start_relay(site: Site) -> str:
    """A CA, a config, a relay that senders and connectors reach."""
    shown = site.run(site.docs["image-init"])
    assert "Wrote /etc/qanat/relay.yaml." in shown, shown
    site.run("openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -noenc -days 30 -subj /CN=relay "
             f"-addext subjectAltName=DNS:{RELAY_NAME} -keyout /etc/qanat/ingress.key -out /etc/qanat/ingress.pem "
             f"2> /dev/null; chown 65532:65532 /etc/qanat/ingress.*; cp /etc/qanat/ingress.pem {CA}")  # fmt: skip
    secret = json.loads(on_relay(site, f"docker run --rm $least {IMAGE} cloud-relay secrets new --json"))
    site.machine.write(TOKEN, secret["secret"], 0o600)
    tenant = {
        "locations": ["walldorf"],
        "senders": [{"name": "s4", "bearer": {"token_hash": secret["hash"]}}],
        "routes": [{
            "name": "metrics", "match": {"host": RELAY_NAME, "path": "/api/v1"}, "senders": ["s4"],
            "to": {"location": "walldorf", "target": "metrics"},
        }],
    }  # fmt: skip
    ingress = {"listen": ":9443", "tls": {"certificate": "ingress.pem", "key": "ingress.key"}}
    edit(site, RELAY, {"ingress": [ingress], "tenants": {"acme": tenant}})
    shown = on_relay(site, site.docs["image-check"])
    assert "is good: 1 tenant, 1 route" in shown, shown
    on_relay(site, site.docs["image-relay"])
    until(lambda: site.machine.try_("docker exec qanat-relay cloud-relay status").returncode == 0, "a relay")
    return "init, check, run: read-only, no capability, as 65532"


def join(site: Site) -> str:
    """A token goes over, and the connector is there."""
    site.run(site.docs["image-token"])
    assert site.run("stat -c %a c1.token").strip() == "600"
    shown = site.run(site.docs["image-join"])
    assert f"Joined {RELAY_NAME}:8443 as spiffe://" in shown, shown
    image = image_of("victoria-metrics")
    site.target = "target"
    site.run(f"docker run --detach --name {site.target} {image} -storageDataPath=/storage -search.latencyOffset=1s")
    place = site.inspect(site.target)["NetworkSettings"]["IPAddress"]
    until(lambda: site.machine.try_(f"curl -sf http://{place}:8428/health").returncode == 0, "a target")
    allow = [{"methods": ["POST"], "path": "/api/v1", "sub_paths": True}]
    probe = {"kind": "http", "path": "/health"}
    edit(
        site,
        CONNECTOR,
        {"targets": [{"name": "metrics", "url": f"http://{place}:8428", "allow": allow, "probe": probe}]},
    )
    on_connector(site, site.docs["image-connector"])
    site.url = f"https://{RELAY_NAME}:9443/api/v1/import/prometheus"
    site.whole()
    assert is_compiled(site) == [True, True]
    return "token, enroll, check, run: a push arrives"


def least(site: Site) -> str:
    """What the engine gives, and what the processes have."""
    for name in ("qanat-relay", "qanat-connector"):
        container = site.inspect(name)
        assert container["HostConfig"]["ReadonlyRootfs"] is True
        assert [mount["RW"] for mount in container["Mounts"]] == [True, True]
        status = site.run(f"docker exec {name} cat /proc/1/status")
        for line in (r"CapEff:\t0+", r"CapBnd:\t0+", r"NoNewPrivs:\t1", r"Uid:\t65532\t65532\t65532\t65532"):
            assert re.search(f"^{line}$", status, re.MULTILINE), status
        site.machine.fails(f"docker exec {name} touch /opt/qanat/written")
    site.said("docker exec qanat-relay cloud-relay diag --output - > relay.tar.gz")
    assert len(site.run("tar -tzf relay.tar.gz").split()) > 5
    return "no capability, no way to one, nothing to write but the state; diag comes out"


def kill(site: Site) -> str:
    """SIGKILL to each process."""
    gaps = []
    for name in ("qanat-relay", "qanat-connector"):
        before = site.inspect(name)

        def end(name: str = name, before: dict[str, Any] = before) -> None:
            site.run(f"kill -9 {before['State']['Pid']}")
            until(lambda: site.inspect(name)["RestartCount"] > before["RestartCount"], "Docker starts it again")

        gaps.append(f"{name} back after {site.while_sending(end)['longest_gap']} s")
    return ", ".join(gaps)


def drain(site: Site) -> str:
    """docker stop while a push is under way."""
    took = {}
    for name in ("qanat-connector", "qanat-relay"):
        took[name] = site.outlived(lambda name=name: site.run(f"docker stop {name}"))  # type: ignore[misc]
        assert site.inspect(name)["State"]["ExitCode"] == 0
        site.run(f"docker start {name}")
        site.whole()
    return f"a push of 4 s outlives docker stop: {', '.join(f'{name} {one:.1f} s' for name, one in took.items())}"


def restart_engine(site: Site) -> str:
    """As when the host reboots."""
    site.machine.restart_engine()
    site.run(f"docker start {site.target}")  # whose operator has not asked for more
    place = site.inspect(site.target)["NetworkSettings"]["IPAddress"]
    config = Path(site.machine.path / CONNECTOR.lstrip("/"))
    config.write_text(re.sub(r"http://[\d.]+:8428", f"http://{place}:8428", config.read_text()))
    took = site.whole()
    return f"both come back with it, a push arrives {took:.1f} s after it is up"


def upgrade(site: Site) -> str:
    """To a new version, while pushes go on: a new container on the same folders."""
    site.renumber(own_version(), NEXT)
    sent = site.while_sending(lambda: replace(site))
    for name, program in (("qanat-relay", "cloud-relay"), ("qanat-connector", "connector-agent")):
        assert NEXT in site.run(f"docker exec {name} {program} --version")
    site.renumber(NEXT, own_version())
    return f"by new containers: {sent}"


def pure(site: Site) -> str:
    """Without a compiler: built twice, and nothing of the second is taken from the first."""
    build = site.docs["image-build"].replace("docker build", "docker build --no-cache --build-arg QANAT_COMPILE=0")
    site.run(build, 900)
    first = site.files_of_image()
    site.run(build, 900)
    second = site.files_of_image()
    assert first == second, "\n".join(sorted(set(first.splitlines()) ^ set(second.splitlines())))
    sent = site.while_sending(lambda: replace(site, build=False))
    assert is_compiled(site) == [False, False]
    return f"two builds hold the same {len(first.splitlines())} files, and carry pushes: {sent}"


def is_compiled(site: Site) -> list[bool]:
    """Of each program that runs: whether it has the link of its tunnels in C."""
    look = "grep -c /shared/tunnel/link.*[.]so /proc/1/maps || true"
    return [int(site.run(f"docker exec {name} {look}")) > 0 for name in ("qanat-relay", "qanat-connector")]


def replace(site: Site, build: bool = True) -> None:
    """The document's upgrade, of the relay and then likewise of the connector."""
    script = site.docs["image-upgrade"]
    if not build:
        script = "\n".join(line for line in script.splitlines() if not line.startswith("docker build"))
    site.run(script, COMPILING)
    on_relay(site, site.docs["image-relay"])
    site.whole()
    site.run("\n".join(line for line in script.splitlines() if "build" not in line).replace("-relay", "-connector"))
    (again,) = [line for line in site.docs["image-connector"].splitlines() if "--detach" in line]
    on_connector(site, again)


def uninstall(site: Site) -> str:
    """All of it goes."""
    site.run("docker rm --force qanat-relay target; rm -r /var/lib/qanat-relay")
    site.run(site.docs["image-uninstall"])
    left = site.run(
        "docker ps --all --quiet; docker images --quiet qanat; ls -d /etc/qanat /var/lib/qanat-* || true"
    ).split()
    assert left == [], left
    return "no container, image or folder is left"
