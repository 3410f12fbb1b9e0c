"""`serve --workers N`: several processes that nobody can tell from one, and that lose nothing with one of them."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import ssl
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from shared.exits import CommandError
from shared.tunnel.websocket import worker_protocol
from tests.system.kit import LOCATION, TENANT, Site
from tests.system.load import Load
from tests.system.managed import ManagedSite, connector_name
from tests.system.programs import command, environment, until
from tests.system.targets import Target

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


def children(pid: int) -> list[int]:
    """Those of a process, in the order in which they were started."""
    return sorted(int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split())


async def tunnels(site: Site) -> list[dict[str, Any]]:
    """All tunnels of c1, as `status` shows them."""
    status = await site.status()
    return [
        tunnel
        for tenant in status["tenants"]
        for location in tenant["locations"]
        for connector in location["connectors"]
        for tunnel in connector["tunnels"]
    ]


async def metric(site: Site, name: str) -> float:
    """The sum of a metric's samples, over all workers and labels."""
    async with site.http.get(f"http://127.0.0.1:{site.ports['observe']}/metrics") as answer:
        lines = (await answer.text()).splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.split("{")[0].split(" ")[0] == name)


async def all_covered(site: Site) -> bool:
    try:
        return {tunnel["worker"] for tunnel in await tunnels(site)} == set(range(site.workers))
    except CommandError:  # the worker that is asked has just been killed
        return False


async def is_green(site: Site) -> bool:
    return {route["state"] for route in (await site.status())["routes"]} == {"green"}


async def test_the_connector_has_a_tunnel_to_each_worker_and_pushes_are_served_by_all(
    site: Site, target: Target
) -> None:
    site.workers = 3
    site.expose(target)
    await site.start()
    await until(lambda: all_covered(site), "a tunnel to each worker")
    pushes = 0

    async def all_have_served() -> bool:
        nonlocal pushes
        answers = await asyncio.gather(*(site.push(headers={"Connection": "close"}) for _ in range(20)))
        pushes += len(answers)
        assert {answer.status for answer in answers} == {200}
        return len({line["request_id"].split("-")[0] for line in site.relay.access_lines}) == site.workers

    await until(all_have_served, "a push at each worker")
    await until(lambda: is_green(site), "a probe's good result")
    status = await site.status()
    healthy: dict[str, Any] = {"upgrade": None, "state_unread_s": 0.0, "blind_workers": []}
    assert status["workers"] == {"count": 3, "answering": 3, **healthy}
    (route,) = status["routes"]
    assert route["pushes"] == pushes
    assert await metric(site, "qanat_relay_pushes_total") == pushes
    assert await site.relay.stop() == 0


@contextlib.asynccontextmanager
async def one_way(port: int) -> AsyncIterator[int]:
    """A way to this port for a single connection; whoever else comes is turned away."""
    taken: list[asyncio.StreamWriter] = []

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        writer.close()

    async def arrive(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if taken:
            writer.transport.abort()
            return
        taken.append(writer)
        inner_reader, inner = await asyncio.open_connection("127.0.0.1", port)
        taken.append(inner)
        await asyncio.gather(carry(reader, inner), carry(inner_reader, writer))

    async with await asyncio.start_server(arrive, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]
        for writer in taken:
            writer.transport.abort()


async def test_pushes_cross_to_the_worker_that_has_the_only_tunnel(site: Site, target: Target) -> None:
    site.workers = 3
    site.expose(target)
    async with one_way(site.ports["tunnel"]) as port:
        site.connector_config()["relays"] = [f"wss://localhost:{port}"]
        await site.start_relay()
        site.launch_connector()
        await until(lambda: tunnels(site), "a tunnel")
        sent: list[bytes] = []

        async def has_crossed() -> bool:
            bodies = [os.urandom(1000 + 40_000 * number) for number in range(12)]
            sent.extend(bodies)
            answers = await asyncio.gather(*(site.push(body=body, headers={"Connection": "close"}) for body in bodies))
            assert {answer.status for answer in answers} == {200}
            return await metric(site, "qanat_relay_pushes_crossed_total") >= 5

        await until(has_crossed, "pushes that cross")
        assert sorted(one.body for one in target.received) == sorted(sent)
        lines = [line for line in site.relay.access_lines if line.get("status") == 200]
        assert {line["connector"] for line in lines} == {"c1"}
        assert len(await tunnels(site)) == 1


async def test_killing_workers_one_after_the_other_loses_nothing_that_may_be_tried_again(
    site: Site, target: Target
) -> None:
    site.workers = 3
    site.route["idempotent"] = True
    site.expose(target)
    await site.start()
    await until(lambda: all_covered(site), "a tunnel to each worker")
    load = Load(site, rate=60.0, senders=6)
    async with load.running():
        for place in range(3):
            await kill_one(site, children(site.relay.pid)[place])
    assert not load.given_up
    assert {one.status for one in load.failures} <= {0}, load.failures_by_cause  # its own connections are cut
    assert site.relay.is_running


async def kill_one(site: Site, victim: int, of: int = 3) -> None:
    """Kill a worker, and wait until another one has taken its place."""
    os.kill(victim, signal.SIGKILL)
    killed = time.monotonic()

    def is_replaced() -> bool:
        now = children(site.relay.pid)
        return victim not in now and len(now) == of

    await until(is_replaced, "a new worker")
    await until(lambda: all_covered(site), "a tunnel to each worker")
    assert time.monotonic() - killed < 10
    await asyncio.sleep(0.5)


async def test_when_the_supervisor_dies_the_relay_can_be_started_anew_at_once(site: Site, target: Target) -> None:
    site.workers = 2
    site.expose(target)
    await site.start()
    await until(lambda: all_covered(site), "a tunnel to each worker")
    orphans = children(site.relay.pid)
    os.kill(site.relay.pid, signal.SIGKILL)
    await site.relay.ended()
    await until(lambda: not site_listens(site), "free ports", timeout=5)
    await site.start_relay()
    await until(lambda: all_covered(site), "a tunnel to each worker")
    assert (await site.push()).status == 200
    await until(lambda: not any(Path(f"/proc/{orphan}").exists() for orphan in orphans), "the end of the old workers")
    assert {path.name for path in (site.folder / "relay-state" / "workers").iterdir()} >= {"0.link", "1.link"}
    victim = children(site.relay.pid)[1]
    await kill_one(site, victim, of=2)
    assert (await site.push()).status == 200


def site_listens(site: Site) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", site.ports["plain"])) == 0


async def test_joining_and_revoking_at_whichever_worker(
    pki: Path, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as site:
        site.workers = 2
        site.expose(target)
        await site.init()
        await site.start_relay()
        for name in ("c1", "c2"):
            await site.invite(name)
            site.launch_connector(name)
        for name in ("c1", "c2"):
            await site.connector_is_ready(name)
        assert (await site.push()).status == 200
        asked = time.monotonic()
        await site.ask("certs-revoke", scope="connector", name=connector_name("c1"))
        await until(lambda: _attached(site, "c1", 0), "the end of c1's tunnels", timeout=3)
        assert time.monotonic() - asked < 2.0
        assert (await site.push()).status == 200


async def test_all_workers_serve_the_certificate_that_the_first_has_renewed(
    pki: Path, target: Target, tmp_path_factory: pytest.TempPathFactory
) -> None:
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as site:
        site.workers = 3
        await site.init()
        await site.start_relay()
        (before,) = {await served(site, worker) for worker in range(3)}
        await site.ask("certs-rotate")

        async def is_new_at_all() -> bool:
            return len(shown := {await served(site, worker) for worker in range(3)}) == 1 and before not in shown

        await until(is_new_at_all, "the new certificate at each worker", timeout=5)


async def served(site: Site, worker: int) -> bytes:
    """The relay's certificate, as this worker shows it at the tunnel's port."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols([worker_protocol(worker)])
    _, writer = await asyncio.open_connection("127.0.0.1", site.ports["tunnel"], ssl=context)
    shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    writer.transport.abort()
    return shown


async def _attached(site: Site, name: str, count: int) -> bool:
    status = await site.status()
    rows = [
        connector
        for tenant in status["tenants"]
        for location in tenant["locations"]
        for connector in location["connectors"]
        if (tenant["tenant"], location["location"], connector["connector"]) == (TENANT, LOCATION, name)
    ]
    return sum(len(row["tunnels"]) for row in rows) == count


async def test_reload_switch_off_and_quota_hold_at_all_of_them(site: Site, target: Target) -> None:
    site.workers = 2
    site.expose(target)
    site.route["limits"] = {"rate": "20/s", "burst": 10}
    site.relay_config["limits"] = {"queue": 0}
    await site.start()
    began = time.monotonic()
    served = 0
    while time.monotonic() - began < 3.0:
        answers = await asyncio.gather(*(site.push(headers={"Connection": "close"}) for _ in range(8)))
        served += sum(answer.status == 200 for answer in answers)
        assert {answer.status for answer in answers} <= {200, 429}
    passed = time.monotonic() - began
    assert 0.6 * passed * 20 <= served <= 1.1 * (passed * 20 + 10) + 2

    site.route["limits"] = {}
    site.write("relay")
    await site.command("POST", "/v1/reload")
    answers = await asyncio.gather(*(site.push(headers={"Connection": "close"}) for _ in range(40)))
    assert {answer.status for answer in answers} == {200}

    await site.command("POST", f"/v1/senders/{TENANT}/s4/disable")
    await asyncio.sleep(0.6)
    answers = await asyncio.gather(*(site.push(headers={"Connection": "close"}) for _ in range(20)))
    assert {answer.status for answer in answers} == {401}


async def test_an_address_that_is_new_needs_an_upgrade_or_a_restart(site: Site, target: Target) -> None:
    site.workers = 2
    site.expose(target)
    await site.start()
    await until(lambda: all_covered(site), "a tunnel to each worker")
    route = site.expose_tcp("later", 9)
    path = site.write("relay")
    with pytest.raises(CommandError, match="restart") as refused:
        await site.command("POST", "/v1/reload")
    assert "cloud-relay upgrade" in refused.value.remedy
    assert (await site.push(headers={"Connection": "close"})).status == 200
    good = path.read_text()
    path.write_text(good + "nonsense: true\n")
    with pytest.raises(CommandError, match="nothing is replaced"):
        await site.command("POST", "/v1/upgrade")
    path.write_text(good)
    before = set(children(site.relay.pid))
    await upgraded(site)
    assert not before & set(children(site.relay.pid))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", route)) == 0
    await until(lambda: all_covered(site), "a tunnel to each worker")
    assert (await site.push(headers={"Connection": "close"})).status == 200


async def test_an_upgrade_replaces_one_worker_after_the_other_and_no_push_fails(site: Site, target: Target) -> None:
    site.workers = 2
    site.expose(target)
    await site.start()
    await until(lambda: all_covered(site), "a tunnel to each worker")
    before = set(children(site.relay.pid))
    kept, new = Load(site, rate=60.0, senders=6), Load(site, rate=60.0, senders=6, keeps=False)
    async with kept.running(), new.running():
        upgrade, steps = await upgraded(site)
        assert (upgrade["stage"], upgrade["replaced"]) == ("done", 2)
        assert "worker 1 of 2 (number 1)" in steps  # a step that is shorter than the command's look is not told
        assert not before & set(children(site.relay.pid))
        assert (await site.status())["workers"]["upgrade"] == upgrade
        await until(lambda: all_covered(site), "a tunnel to each worker")
        await asyncio.sleep(0.5)
    assert not kept.failures, kept.failures_by_cause
    assert not new.failures, new.failures_by_cause


async def upgraded(site: Site) -> tuple[dict[str, Any], str]:
    """What `cloud-relay upgrade` has come to, and what it said meanwhile."""
    process = await asyncio.create_subprocess_exec(
        command("cloud-relay"), "upgrade", "--config", str(site.folder / "relay.yaml"), "--json",
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, env=environment(),
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(), 90)
    assert process.returncode == 0, err.decode()
    upgrade: dict[str, Any] = json.loads(out)["upgrade"]
    return upgrade, err.decode()


async def start_two(site: Site, target: Target) -> None:
    """Two workers, and a tunnel to each."""
    site.workers = 2
    site.expose(target)
    await site.start()
    await until(lambda: all_covered(site), "a tunnel to each worker")


async def test_a_service_manager_that_signals_every_process_ends_them_in_good_order(site: Site, target: Target) -> None:
    """systemd's KillMode=control-group: each worker gets its own SIGTERM and the supervisor's."""
    await start_two(site, target)
    slow = [asyncio.Task(site.push("/slow/1.5", headers={"Connection": "close"})) for _ in range(20)]
    await until(lambda: len(target.received) == 20, "pushes in flight")
    for pid in [*children(site.relay.pid), site.relay.pid]:
        os.kill(pid, signal.SIGTERM)
    assert [answer.status for answer in await asyncio.gather(*slow)] == [200] * 20
    assert await site.relay.ended(10) == 0
    told = [line["event"] for line in site.connector.log_lines if line["logger"] == "connector.tunnels"]
    assert "tunnel lost" not in told, told
    assert told.count("the relay drains a tunnel") == 2, told


async def test_a_second_request_to_end_is_passed_on_to_all_workers(site: Site, target: Target) -> None:
    await start_two(site, target)
    stuck = [asyncio.Task(site.push("/hang", headers={"Connection": "close"})) for _ in range(8)]
    await until(lambda: target.begun == 8, "pushes in flight")
    site.relay.signal(signal.SIGTERM)
    await until(lambda: site.relay.err.count("draining") == 2, "the drain")
    began = time.monotonic()
    site.relay.signal(signal.SIGTERM)
    assert await site.relay.ended(5) == 0
    assert time.monotonic() - began < 3
    for answer in await asyncio.gather(*stuck, return_exceptions=True):
        assert isinstance(answer, aiohttp.ClientError), answer
