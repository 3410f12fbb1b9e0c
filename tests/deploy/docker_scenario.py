"""Steps of the trial: docker-compose.yml, by the commands of docs/install.md. Each leaves the scenario well."""

from __future__ import annotations

import json
import re
import time
from typing import Final

from tests.deploy.docker_site import IMAGE, NEXT, Site, own_version
from tests.deploy.host import until

SERVICES: Final = ("relay", "connector", "victoria-metrics", "prometheus")


def up(site: Site) -> str:
    """From a checkout to the whole scenario."""
    began = time.monotonic()
    shown = site.run(site.docs["compose-up"], 900)
    for service in SERVICES:
        (line,) = [line for line in shown.splitlines() if re.match(rf"qanat[_-]{service}[_-]1\b", line)]
        assert re.search(r"\bUp\b", line), shown
    for service in SERVICES:
        site.until_healthy(site.service(service))
    took = time.monotonic() - began
    setup = site.inspect(site.run("docker-compose ps --all --quiet setup").strip())["State"]
    assert (setup["Status"], setup["ExitCode"]) == ("exited", 0), setup
    site.target = site.service("victoria-metrics")
    engine = site.run("docker version --format '{{.Server.Version}}'").strip()
    compose = site.run("docker-compose version --short").strip()
    return f"Docker {engine}, Compose {compose}: built and healthy after {took:.0f} s"


def samples(site: Site) -> str:
    """Prometheus' own, by the document's query."""
    command = site.docs["compose-query"].replace(" exec ", " exec -T ")  # there is no terminal here
    began = time.monotonic()
    until(lambda: '"result":[{"metric":{"__name__":"up"' in site.run(command), "Prometheus' samples", 40)
    answer = json.loads(site.run(command))
    (result,) = answer["data"]["result"]
    assert result["metric"] == {"__name__": "up", "instance": "localhost:9090", "job": "prometheus"}, answer
    assert result["value"][1] == "1", answer
    return f"Prometheus' samples are at VictoriaMetrics {time.monotonic() - began:.0f} s later"


def push_by_hand(site: Site) -> str:
    """curl, from the machine."""
    site.url = "https://localhost:9443/api/v1/import/prometheus"
    assert site.run(site.docs["compose-push"]).strip() == ""
    until(lambda: [one["value"][1] for one in site.query("answer")] == ["42"], "the sample")
    for service, program in (("relay", "cloud-relay"), ("connector", "connector-agent")):
        shown = site.run(f"docker-compose exec -T {service} {program} status")
        assert re.search(r"\bc1\b|metrics", shown), shown
    return "curl's sample, too; status of both programs"


def isolation(site: Site) -> str:
    """Nothing of the data center can be reached, and from there nothing."""
    target, connector = site.inspect(site.target), site.inspect(site.service("connector"))
    assert not any(target["NetworkSettings"]["Ports"].values())
    assert not any((connector["NetworkSettings"]["Ports"] or {}).values())
    assert set(target["NetworkSettings"]["Networks"]) == {"qanat_datacenter"}
    (network,) = json.loads(site.run("docker network inspect qanat_datacenter"))
    assert network["Internal"] is True
    listening = site.run("ss -Hltn '! sport = 53' | awk '{print $4}'").split()
    listening = [place for place in listening if not place.startswith("127.0.0.11:")]
    assert listening == ["127.0.0.1:9443"], listening
    place = target["NetworkSettings"]["Networks"]["qanat_datacenter"]["IPAddress"]
    relay = site.inspect(site.service("relay"))["NetworkSettings"]["Networks"]["qanat_wan"]["IPAddress"]
    wget = "wget -T 3 -qO- http://{} 2>&1 || true"
    outward = site.run(f"docker exec {site.target} {wget.format(f'{relay}:8443')}")
    assert re.search("timed out|unreachable", outward), outward
    named = site.run(f"docker exec {site.target} {wget.format('relay:8443')}")
    assert "bad address" in named, named
    inward = site.run(f"docker exec {site.service('prometheus')} {wget.format(f'{place}:8428/health')}")
    assert re.search("timed out|unreachable", inward), inward
    return f"one open port, {listening[0]}; no way from the senders to {place}, none out of the data center"


def hardened(site: Site) -> str:
    """What the engine gives, and what the processes have."""
    for service in SERVICES:
        container = site.inspect(site.service(service))
        assert container["HostConfig"]["CapDrop"] == ["ALL"]
        status = site.run(f"docker exec {container['Id']} cat /proc/1/status")
        assert re.search(r"^CapEff:\t0+$", status, re.MULTILINE), status
        assert re.search(r"^NoNewPrivs:\t1$", status, re.MULTILINE), status
        if container["Config"]["Image"] == IMAGE:
            assert container["HostConfig"]["ReadonlyRootfs"] is True
            assert re.search(r"^Uid:\t65532\t65532\t65532\t65532$", status, re.MULTILINE), status
    return "no capability in any container, no new privileges; ours read-only, as 65532"


def kill(site: Site) -> str:
    """SIGKILL to each service's process."""
    found = []
    for service in SERVICES:
        container = site.service(service)
        before = site.inspect(container)

        def end(container: str = container, before: dict = before) -> None:  # type: ignore[type-arg]
            site.run(f"kill -9 {before['State']['Pid']}")
            until(lambda: site.inspect(container)["RestartCount"] > before["RestartCount"], "Docker starts it again")
            site.until_healthy(container)

        sent = site.while_sending(end, loses=service == "victoria-metrics")
        assert not {"401", "403", "404"} & set(sent["statuses"]), sent
        _samples_flow(site)
        found.append(f"{service} {sent['longest_gap']} s")
    return f"healed; the longest gap between acknowledged pushes: {', '.join(found)}"


def _samples_flow(site: Site) -> None:
    """Prometheus' samples of now."""
    now = float(site.query("time()")[0]["value"][1])
    until(lambda: [one for one in site.query("timestamp(up)") if float(one["value"][1]) > now], "newer samples", 60)


def kill_by_wish(site: Site) -> str:
    """Which Docker does not mend by itself."""
    site.said("docker-compose kill connector")
    time.sleep(3)
    assert site.inspect(site.run("docker-compose ps --all --quiet connector").strip())["State"]["Running"] is False
    site.run("docker-compose up --detach")
    site.until_healthy(site.service("connector"))
    return f"a push arrives {site.whole():.1f} s after it is healthy again"


def drain(site: Site) -> str:
    """Of the connector, and of the relay, while a push is under way."""
    took = site.outlived(lambda: site.said("docker-compose stop connector"))
    assert site.pushes() == 503
    site.run("docker-compose up --detach")
    site.until_healthy(site.service("connector"))
    site.whole()
    relay = site.outlived(lambda: site.run("docker-compose stop relay"))
    site.run("docker-compose up --detach")
    site.until_healthy(site.service("relay"))
    site.whole()
    _samples_flow(site)
    return f"a push of 4 s outlives stop: connector {took:.1f} s, relay {relay:.1f} s; a later one gets 503"


def other_port(site: Site) -> str:
    """Where 9443 is taken."""
    site.said("QANAT_PORT=19443 docker-compose up --detach")
    site.url = site.url.replace(":9443", ":19443")
    site.until_healthy(site.service("relay"))
    site.whole()
    site.run("docker-compose up --detach")
    site.url = site.url.replace(":19443", ":9443")
    site.until_healthy(site.service("relay"))
    site.whole()
    return "19443, and back"


def upgrade(site: Site) -> str:
    """To a new version, while pushes go on."""
    site.renumber(own_version(), NEXT)

    def build() -> None:
        site.run(site.docs["compose-upgrade"], 900)
        for service in SERVICES:
            site.until_healthy(site.service(service))

    sent = site.while_sending(build)
    for service, program in (("relay", "cloud-relay"), ("connector", "connector-agent")):
        assert NEXT in site.run(f"docker-compose exec -T {service} {program} --version")
    _samples_flow(site)
    site.renumber(NEXT, own_version())
    return f"on the same volumes: {sent}"


def uninstall(site: Site) -> str:
    """All of it goes."""
    site.run(site.docs["compose-uninstall"])
    left = site.run("docker ps --all --quiet; docker volume ls --quiet; docker network ls --quiet --filter name=qanat; "
                    "docker images --quiet qanat").split()  # fmt: skip
    assert left == [], left
    return "no container, volume, network or image is left"
