"""The whole relay in this process: its doors, a push that crosses, reload, drain. Real sockets, no target."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import io
import json
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from socket import AF_INET
from typing import Any

import aiohttp
import pytest
import yaml
from rich.console import Console

from cloud_relay.app import RelayApp
from cloud_relay.config import RelayConfig
from cloud_relay.health import RelayState
from cloud_relay.show import status_tables
from cloud_relay.workers.serving_out import serve_out
from cloud_relay.workers.status import merge_status
from shared.config import read_config
from shared.control import control_request
from shared.exits import CommandError, ExitCode
from shared.probe import Verdict
from shared.process import StopRequest
from shared.tasks import spawn
from tests.cloud_relay.connector_double import attached
from tests.support.development import Pki

Document = dict[str, Any]
PUSH = "http://push.example.com/sap/frun/x"
TAKEN = r"cannot listen on 127\.0\.0\.1:\d+ \(ingress\[0\]\.listen\): Address"
S4 = {"Authorization": "Basic " + base64.b64encode(b"s4:s4-password").decode()}


@dataclass
class World:
    """A relay that runs, its config, and what asks it."""

    pki: Pki
    path: Path
    document: Document
    app: RelayApp
    stop_request: StopRequest = field(default_factory=StopRequest)

    def port(self, kind: str) -> int:
        assert self.app.doors is not None
        bound = next(door["bound"][0] for door in self.app.doors.describe() if door["kind"] == kind)
        return int(bound.rpartition(":")[2])

    def write(self, document: Document) -> None:
        self.path.write_text(yaml.safe_dump(document, sort_keys=False))

    async def ask(self, method: str, url: str) -> dict[str, Any]:
        return await control_request(self.app.config.state_dir / "control.sock", method, url)

    async def push(
        self, session: aiohttp.ClientSession, url: str = PUSH, body: bytes = b"hello", headers: Any = S4
    ) -> tuple[int, bytes, Any]:
        host, slash, path = url.removeprefix("http://").partition("/")
        where = f"http://127.0.0.1:{self.port('ingress')}{slash}{path}"
        async with session.post(where, data=body, headers={**headers, "Host": host}) as answer:
            return answer.status, await answer.read(), answer.headers


@asynccontextmanager
async def running(folder: Path, document: Document) -> AsyncIterator[World]:
    pki = Pki(folder)
    pair = pki.relay()
    document["tunnel"]["tls"] = {
        "certificate": str(pair.certificate), "key": str(pair.key), "client_ca": str(pki.ca),
    }  # fmt: skip
    document["observe"] = {"listen": "127.0.0.1:0"}
    document["log"] = {"access": "off"}
    path = folder / "relay.yaml"
    path.write_text(yaml.safe_dump(document, sort_keys=False))
    app = RelayApp(path, read_config(path, RelayConfig))
    world = World(pki, path, document, app)
    try:
        await app.start(world.stop_request)
        yield world
    finally:
        await app.stop()


@pytest.fixture
async def world(tmp_path: Path, relay_document: Document) -> AsyncIterator[World]:
    async with running(tmp_path, relay_document) as world:
        yield world


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


async def test_a_push_crosses(world: World, session: aiohttp.ClientSession) -> None:
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector:
        connector.status = 202
        status, body, _ = await world.push(session)
        assert (status, body) == (202, b"hello")
        push = connector.pushes[0]
        assert (push.target, push.sender, push.route, push.method) == ("focused-run", "s4", "frun", b"POST")
        assert push.path == b"/sap/frun/x"
        assert not any(name.lower() == b"authorization" for name, _ in push.headers)
        big = bytes(range(256)) * 3000
        assert (await world.push(session, body=big))[1] == big
    metrics = world.app.metrics.routes["acme", "frun"]
    assert metrics.by_class[2] == 2
    assert world.app.limits.in_flight == 0


FAULTS = [
    ("http://push.example.com/elsewhere", S4, 404, "no-such-route"),
    ("http://elsewhere.example.com/", S4, 421, "unknown-host"),
    (PUSH, {}, 401, "unauthenticated"),
    (PUSH, {"Authorization": "Bearer ibp-3"}, 401, "unauthenticated"),
    ("http://push.example.com/write", {"Authorization": "Bearer ibp-2"}, 403, "sender-not-allowed"),
]


@pytest.mark.parametrize(("url", "headers", "status", "code"), FAULTS)
async def test_what_is_answered_without_a_connector(
    url: str, headers: dict[str, str], status: int, code: str, world: World, session: aiohttp.ClientSession
) -> None:
    answered, body, fields = await world.push(session, url, headers=headers)
    assert (answered, json.loads(body)["code"], fields["Qanat-Error"]) == (status, code, code)
    assert (fields.get("WWW-Authenticate") is not None) == (status == 401)


async def test_another_tenants_connector_gets_nothing(tmp_path: Path, relay_document: Document) -> None:
    for route in relay_document["tenants"]["acme"]["routes"]:
        route["hold"] = 0
    async with running(tmp_path, relay_document) as world, aiohttp.ClientSession() as session:
        theirs = world.pki.connector("c9", tenant="globex")
        async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}, theirs) as connector:
            status, body, _ = await world.push(session)
            assert (status, json.loads(body)["code"]) == (503, "no-connector")
            assert connector.pushes == []


async def test_a_push_waits_for_a_connector(world: World, session: aiohttp.ClientSession) -> None:
    async with asyncio.TaskGroup() as group:
        push = group.create_task(world.push(session))
        while not world.app.limits.in_flight:
            await asyncio.sleep(0.01)
        async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}):
            assert (await push)[0] == 200


async def test_the_observe_door(world: World, session: aiohttp.ClientSession) -> None:
    base = f"http://127.0.0.1:{world.port('observe')}"
    async with session.get(f"{base}/readyz") as answer:
        report = await answer.json()
    assert (answer.status, report["ready"], report["routes"]["red"]) == (200, True, 3)
    async with (
        attached(world.pki, world.port("tunnel"), {"focused-run": "http"}),
        asyncio.timeout(5),
    ):
        shown = ""
        while "qanat_relay_tunnels{" not in shown:  # the relay's HELLO may be here before the connector's is there
            async with session.get(f"{base}/metrics") as got:
                shown = await got.text()
    assert 'qanat_relay_route_up{route="frun",tenant="acme"} 1.0' in shown
    assert 'qanat_relay_route_up{route="exact",tenant="acme"} 0.0' in shown
    assert 'qanat_relay_tunnels{connector="c1",location="walldorf",tenant="acme"} 1.0' in shown


async def test_who_serves_out_beside_others_lets_nobody_in_and_answers_for_all(
    world: World, session: aiohttp.ClientSession
) -> None:
    base = f"http://127.0.0.1:{world.port('observe')}"
    _, writer = await asyncio.open_connection("127.0.0.1", world.port("ingress"))
    assert world.app.doors is not None
    while not world.app.doors.open_connections:
        await asyncio.sleep(0.01)
    leaving = spawn(serve_out(world.app), "serving out")
    while world.app.state is not RelayState.DRAINING:
        await asyncio.sleep(0.01)
    async with session.get(f"{base}/readyz", timeout=aiohttp.ClientTimeout(5)) as answer:
        assert (answer.status, (await answer.json())["state"]) == (200, "draining")
    assert not leaving.done()
    writer.close()
    await asyncio.wait_for(leaving, 10)


async def test_a_dead_target_is_red_and_the_relay_is_ready_all_the_same(
    world: World, session: aiohttp.ClientSession
) -> None:
    url = f"http://127.0.0.1:{world.port('observe')}"
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector:
        connector.verdict = Verdict("target-unreachable", 0.0, 0.002)
        async with asyncio.timeout(5):
            while True:
                async with session.get(f"{url}/readyz") as answer:
                    report = await answer.json()
                assert (answer.status, report["ready"]) == (200, True)
                if report["routes"]["unknown"] == 0:
                    break
                await asyncio.sleep(0.02)
        assert report["routes"]["green"] == 0
        told = report["routes"]["red_why"]["acme/frun"]
        assert told["why"] == "target-unreachable"
        assert told["age_s"] < 5
        async with session.get(f"{url}/metrics") as got:
            shown = await got.text()
        place = 'connector="c1",location="walldorf",target="focused-run",tenant="acme"'
        assert 'qanat_relay_route_up{route="frun",tenant="acme"} 0.0' in shown
        assert 'qanat_relay_route_unknown{route="frun",tenant="acme"} 0.0' in shown
        assert f"qanat_relay_target_up{{{place}}} 0.0" in shown
        assert f"qanat_relay_probe_duration_seconds{{{place}}} 0.002" in shown
        assert 'qanat_relay_probes_total{result="bad"}' in shown
        assert (await world.push(session))[0] == 200, "a probe may be wrong: where all are ill, pushes go all the same"


async def test_status(world: World, session: aiohttp.ClientSession) -> None:
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector:
        await world.push(session)
        async with asyncio.timeout(5):
            while (status := await world.ask("GET", "/v1/status"))["routes"][0]["state"] == "unknown":
                assert status["routes"][0]["why"] == "not-probed-yet"
                await asyncio.sleep(0.02)
    assert connector.probes == ["focused-run"]
    assert status["probes"] == {"good": 1, "bad": 0, "none": 0, "unanswered": 0}
    assert status["state"] == "serving"
    assert [door["kind"] for door in status["listeners"]] == ["tunnel", "ingress", "observe"]
    walldorf = status["tenants"][0]["locations"][0]
    assert walldorf["connectors"][0]["connector"] == "c1"
    assert walldorf["connectors"][0]["tunnels"][0]["targets"] == {"focused-run": "http"}
    states = {(route["tenant"], route["route"]): route["state"] for route in status["routes"]}
    assert states == {("acme", "frun"): "green", ("acme", "exact"): "red", ("globex", "all"): "red"}
    assert {route["why"] for route in status["routes"]} == {None, "no-connector"}
    assert walldorf["connectors"][0]["standby"] is False
    (target,) = walldorf["connectors"][0]["targets"]
    assert (target["target"], target["state"], target["why"], target["took_ms"]) == ("focused-run", "green", None, 1.0)
    assert target["age_s"] < 5
    assert status["routes"][0]["answers"] == {"2xx": 1}
    assert status["senders"][0]["last_delivered"] is not None
    assert shown(status).startswith(f"cloud-relay {status['version']}, serving, up ")
    assert "worker" not in shown(status)
    assert ", 2 workers, 0 pushes in flight," in shown(merge_status({0: status, 1: deepcopy(status)}, 2))
    assert ", 1 of 2 workers, " in shown(merge_status({0: status}, 2))


def shown(status: dict[str, Any]) -> str:
    out = io.StringIO()
    Console(file=out, width=120).print(status_tables(status))
    return out.getvalue()


# --- reload


async def test_a_reload_counts_from_the_next_push_on(world: World, session: aiohttp.ClientSession) -> None:
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector:
        connector.is_holding = True
        async with asyncio.TaskGroup() as group:
            old = group.create_task(world.push(session))
            await connector.arrived.wait()
            document = world.document
            document["tenants"]["acme"]["routes"][0]["senders"] = ["ibp"]
            world.write(document)
            answer = await world.ask("POST", "/v1/reload")
            assert answer["changes"] == ["route acme/frun changed: senders"]
            status, body, _ = await world.push(session)
            assert (status, json.loads(body)["code"]) == (403, "sender-not-allowed")
            connector.let_go()
            assert (await old)[0] == 200


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda d: d.update(colour="blue"), "colour: this key is not known"),
        (lambda d: d["tunnel"].update(listen="127.0.0.1:1"), "tunnel.listen changes only with a restart"),
        (lambda d: d.update(state_dir=d["state_dir"] + "-2"), "state_dir changes only with a restart"),
        (lambda d: d["tunnel"]["tls"].update(client_ca=d["tunnel"]["tls"]["key"]), "relay-r1.key"),
    ],
)
async def test_a_bad_file_changes_nothing(
    edit: Callable[[Document], object], message: str, world: World, session: aiohttp.ClientSession
) -> None:
    before = world.app.snapshot
    edit(world.document)
    world.write(world.document)
    with pytest.raises(CommandError, match=message) as caught:
        await world.ask("POST", "/v1/reload")
    assert caught.value.exit_code is (ExitCode.REFUSED if "restart" in message else ExitCode.CONFIG)
    assert ("cloud-relay upgrade" in caught.value.remedy) == message.startswith("tunnel.listen")
    assert world.app.snapshot is before
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}):
        assert (await world.push(session))[0] == 200
    assert (await world.ask("GET", "/v1/status"))["reload"]["taken"] is False


async def test_tunnels_of_what_was_removed_end(world: World) -> None:
    theirs = world.pki.connector("c9", tenant="globex")
    async with (
        attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as ours,
        attached(world.pki, world.port("tunnel"), {"focused-run": "http"}, theirs) as gone,
    ):
        del world.document["tenants"]["globex"]
        world.write(world.document)
        await world.ask("POST", "/v1/reload")
        async with asyncio.timeout(1):
            assert await gone.closed == "unknown-location"
        assert not ours.closed.done()


async def test_new_certificates_count_for_new_connections(world: World) -> None:
    async def shown() -> bytes:
        context = ssl.create_default_context(cafile=world.pki.ca)
        _, writer = await asyncio.open_connection("localhost", world.port("tunnel"), ssl=context, family=AF_INET)
        tls = writer.get_extra_info("ssl_object")
        writer.transport.abort()
        return bytes(tls.getpeercert(binary_form=True))

    before = await shown()
    assert await shown() == before
    assert (await world.ask("POST", "/v1/reload"))["changes"] == []
    pair = world.pki.relay()
    (line,) = (await world.ask("POST", "/v1/reload"))["changes"]
    assert line.startswith(f"tunnel certificate {pair.certificate}: a new one, valid until 2")
    assert await shown() != before


# --- the end


async def test_a_drain_lets_pushes_end(world: World, session: aiohttp.ClientSession) -> None:
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector:
        connector.is_holding = True
        async with asyncio.TaskGroup() as group:
            push = group.create_task(world.push(session))
            await connector.arrived.wait()
            await world.ask("POST", "/v1/drain")
            assert world.stop_request.is_wanted.is_set()
            drain = group.create_task(world.app.drain())
            while world.app.state is not RelayState.DRAINING:
                await asyncio.sleep(0)
            assert not world.app.health().ready
            connector.let_go()
            status, _, headers = await push
            assert (status, headers["Connection"].lower()) == (200, "close")
            await drain
        assert await connector.closed == "going-away"


async def test_a_drain_has_an_end(tmp_path: Path, relay_document: Document) -> None:
    relay_document["drain"] = {"timeout": "100ms"}
    async with running(tmp_path, relay_document) as world, aiohttp.ClientSession() as session:
        async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector:
            connector.is_holding = True
            push = asyncio.get_running_loop().create_task(world.push(session))
            await connector.arrived.wait()
            await world.app.drain()
            status, _, headers = await push
            assert (status, headers["Qanat-Error"], headers["Connection"]) == (503, "starting", "close")
        assert world.app.limits.in_flight == 0


async def test_a_taken_port_is_named(tmp_path: Path, relay_document: Document) -> None:
    async with running(tmp_path, relay_document) as world:
        relay_document["state_dir"] = "other"
        relay_document["ingress"][0]["listen"] = f"127.0.0.1:{world.port('ingress')}"
        with pytest.raises(CommandError, match=TAKEN) as caught:
            async with running(tmp_path, relay_document):
                pass
        assert caught.value.code == "cannot-listen"


async def test_two_relays_in_one_state_dir(tmp_path: Path, relay_document: Document) -> None:
    async with running(tmp_path, relay_document):
        with pytest.raises(CommandError) as caught:
            async with running(tmp_path, relay_document):
                pass
    assert caught.value.exit_code is ExitCode.REFUSED


async def test_nothing_is_left_behind(tmp_path: Path, relay_document: Document) -> None:
    before = asyncio.all_tasks()
    async with (
        running(tmp_path, relay_document) as world,
        aiohttp.ClientSession() as session,
        attached(world.pki, world.port("tunnel"), {"focused-run": "http"}),
    ):
        await world.push(session)
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(2):
            while asyncio.all_tasks() - before:
                await asyncio.sleep(0.01)
    assert asyncio.all_tasks() == before
    assert not (tmp_path / "state" / "control.sock").exists()
