"""The connector as a whole, with tunnels that are fakes: start, reload, control, drain, stop."""

from __future__ import annotations

import asyncio
import gc
import socket
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from connector_agent.app import ConnectorApp
from connector_agent.config import ConnectorConfig
from connector_agent.plan import Plan
from connector_agent.targets import Target
from shared.config import read_config
from shared.control import ControlUnreachable, control_request
from shared.exits import CommandError, ExitCode
from shared.http.push_head import PushHead, encode_push
from shared.process import StopRequest
from tests.connector_agent.kit import FakeStream
from tests.support.development import Pki


class FakeTunnels:
    """Records what it is told."""

    def __init__(self) -> None:
        self.open_count = 0
        self.identity = None
        self.log: list[str] = []

    def start(self) -> None:
        self.log.append("start")

    def update_targets(self, targets: Mapping[str, str]) -> None:
        self.log.append(f"targets {' '.join(targets)}")

    def describe(self) -> list[dict[str, Any]]:
        return [{"relay": "r:1", "state": "open", "age_s": 1.0, "rtt_ms": 1.0, "in_flight": 0, "error": None}]

    async def drain(self, seconds: float) -> None:
        self.log.append(f"drain {seconds:g}")

    async def close(self) -> None:
        self.log.append("close")


class Site:
    """A folder with a config, and the targets that it names."""

    def __init__(self, folder: Path) -> None:
        pki = Pki(folder)
        pair = pki.connector()
        self.folder = folder
        self.path = folder / "connector.yaml"
        self.head = (
            "relays: [wss://localhost:1]\nstate_dir: s\nobserve: {listen: '127.0.0.1:0'}\nlog: {access: 'off'}\n"
            f"tls: {{certificate: {pair.certificate}, key: {pair.key}, ca: {pki.ca}}}\n"
        )
        self.secret = folder / "secret"
        self.write_secret("Basic one")

    def write_secret(self, text: str) -> None:
        self.secret.write_text(text + "\n")
        self.secret.chmod(0o600)

    def write(self, *targets: str) -> None:
        self.path.write_text(self.head + "targets:\n" + "".join(f"  - {{{target}}}\n" for target in targets))

    @staticmethod
    def target(name: str, port: int, more: str = "") -> str:
        rules = "allow: [{methods: [POST], path: /x}], headers: {set_from_files: {Authorization: secret}}"
        return f"name: {name}, url: http://127.0.0.1:{port}, {rules}{more}"

    def make(self) -> tuple[ConnectorApp, FakeTunnels]:
        tunnels = FakeTunnels()
        return ConnectorApp(self.path, read_config(self.path, ConnectorConfig), lambda _app: tunnels), tunnels

    @property
    def control(self) -> Path:
        return self.folder / "s" / "control.sock"


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


@asynccontextmanager
async def running(site: Site) -> AsyncIterator[tuple[ConnectorApp, FakeTunnels]]:
    app, tunnels = site.make()
    await app.start(StopRequest())
    try:
        yield app, tunnels
    finally:
        await app.stop()


@asynccontextmanager
async def recorder(answers: bool = True) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A target that remembers the heads of its requests; one that does not answer keeps them open."""
    heads: list[bytes] = []
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        try:
            while head := await reader.readuntil(b"\r\n\r\n"):
                heads.append(head)
                if answers:
                    writer.write(b"HTTP/1.1 204 No Content\r\n\r\n")
        except (OSError, asyncio.IncompleteReadError):
            pass
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    yield server.sockets[0].getsockname()[1], heads
    server.close()
    for writer in writers:
        writer.transport.abort()
    await asyncio.sleep(0.02)


def push(app: ConnectorApp, target: str = "t") -> FakeStream:
    stream = FakeStream()
    head = encode_push(PushHead(target, "r", 1, "s", "r", b"POST", b"/x", 0, []))
    app.dispatcher.on_stream(stream, head, b"", True)  # type: ignore[arg-type]  # a fake
    return stream


async def until_over(stream: FakeStream) -> None:
    async with asyncio.timeout(5):
        while not stream.is_over:
            await asyncio.sleep(0.002)


async def test_start_push_status_stop(site: Site) -> None:
    async with recorder() as (port, heads):
        site.write(site.target("t", port))
        async with running(site) as (app, tunnels):
            stream = push(app)
            await until_over(stream)
            assert stream.log == ["answer 204 [0] end"]
            assert b"\r\nAuthorization: Basic one\r\n" in heads[0]
            status = await control_request(site.control, "GET", "/v1/status")
            assert status["state"] == "serving"
            assert status["targets"][0]["state"] == "ok"
            assert status["targets"][0]["answers"] == {"2xx": 1}
            assert status["tunnels"][0]["state"] == "open"
        assert tunnels.log == ["start", "close"]
        with pytest.raises(ControlUnreachable):
            await control_request(site.control, "GET", "/v1/status")


async def test_ready_with_a_tunnel(site: Site) -> None:
    site.write(site.target("t", 1))
    async with running(site) as (app, tunnels), aiohttp.ClientSession(trust_env=False) as http:
        url = f"http://127.0.0.1:{app.observe_port}"
        async with http.get(f"{url}/readyz") as answer:
            assert answer.status == 503
        tunnels.open_count = 1
        async with http.get(f"{url}/readyz") as answer:
            assert answer.status == 200
            assert (await answer.json())["targets"] == {"t": "unknown"}
        stream = push(app)
        await until_over(stream)
        assert stream.log == ["reset target-unreachable refused"]
        async with http.get(f"{url}/metrics") as answer:
            text = await answer.text()
        assert 'qanat_connector_push_faults_total{code="target-unreachable",origin="connector",target="t"} 1.0' in text
        assert 'qanat_connector_target_up{target="t"} 0.0' in text
        assert "qanat_connector_tunnels 1.0" in text


async def test_reload_of_a_secret_keeps_the_connection(site: Site) -> None:
    async with recorder() as (port, heads):
        site.write(site.target("t", port))
        async with running(site) as (app, tunnels):
            await until_over(push(app))
            site.write_secret("Basic two")
            outcome = await app.reload()
            assert outcome.lines == ("target t changed: the header values of its files",)
            await until_over(push(app))
            assert b"\r\nAuthorization: Basic two\r\n" in heads[1]
            assert app.metrics.target("t").connects == 1
            assert tunnels.log == ["start"]


async def test_reload_of_targets(site: Site) -> None:
    async with recorder() as (port, _heads):
        site.write(site.target("t", port), site.target("old", port))
        async with running(site) as (app, tunnels):
            site.write(site.target("t", port, ", limits: {body: 1KiB}"), site.target("new", port))
            answer = await control_request(site.control, "POST", "/v1/reload")
            assert sorted(answer["changes"]) == ["target new added", "target old removed", "target t changed: limits"]
            assert tunnels.log == ["start", "targets t new"]
            gone = push(app, "old")
            assert gone.log == ["reset unknown-target refused"]
            await until_over(push(app, "new"))


async def test_what_is_under_way_to_a_removed_target_ends_within_a_second(site: Site) -> None:
    async with recorder(answers=False) as (port, heads):
        site.write(site.target("t", port), site.target("stays", port))
        async with running(site) as (app, _tunnels):
            removed, stays = push(app), push(app, "stays")
            while len(heads) < 2:
                await asyncio.sleep(0.005)
            site.write(site.target("stays", port, ", host: keep"))
            began = asyncio.get_running_loop().time()
            await app.reload()
            await until_over(removed)
            assert asyncio.get_running_loop().time() - began < 1.0
            assert removed.log == ["reset target-lost"]
            assert not stays.is_over


async def test_a_reload_forgets_targets_and_what_passed_to_them(site: Site) -> None:
    def left() -> list[object]:
        gc.collect()
        found = [one for one in gc.get_objects() if isinstance(one, Target | Plan)]
        return [one for one in found if "gone" in repr(one)]

    async with recorder() as (port, _heads):
        site.write(site.target("t", port), site.target("gone", port))
        async with running(site) as (app, _tunnels):
            await until_over(push(app, "gone"))
            assert len(left()) == 2
            site.write(site.target("t", port))
            await app.reload()
            assert left() == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (("state_dir: s", "state_dir: other"), "state_dir changes only with a restart"),
        (("wss://localhost:1", "wss://localhost:2"), "relays changes only with a restart"),
        (("methods: [POST]", "methods: [post]"), "not a method"),
        (("Authorization: secret", "Authorization: missing"), "missing cannot be read"),
    ],
)
async def test_a_reload_that_is_refused_changes_nothing(site: Site, change: tuple[str, str], line: str) -> None:
    site.write(site.target("t", 1))
    async with running(site) as (app, _tunnels):
        before = app.targets.by_name["t"]
        site.path.write_text(site.path.read_text().replace(*change))
        outcome = await app.reload()
        assert not outcome.is_taken
        assert line in outcome.lines[0]
        assert app.targets.by_name["t"] is before
        with pytest.raises(CommandError) as caught:
            await control_request(site.control, "POST", "/v1/reload")
        assert caught.value.code == "config-not-taken"
        is_good = "restart" in line
        assert ("Restart it" in caught.value.remedy) == is_good
        assert caught.value.exit_code == (ExitCode.REFUSED if is_good else ExitCode.CONFIG)


async def test_a_second_one_on_the_same_state_says_why_it_does_not_start_and_nothing_else(site: Site) -> None:
    site.write(site.target("t", 1))
    async with running(site):
        second, _ = site.make()
        with capture_logs() as lines:
            with pytest.raises(CommandError, match="another daemon"):
                await second.start(StopRequest())
            await second.stop()
    assert "connector stopped" not in [line["event"] for line in lines]


async def test_a_secret_that_others_may_read_is_refused(site: Site) -> None:
    site.write(site.target("t", 1))
    async with running(site) as (app, _tunnels):
        site.secret.chmod(0o644)
        outcome = await app.reload()
        assert not outcome.is_taken
        assert str(site.secret) in outcome.lines[0]
        assert "Basic" not in outcome.lines[0]


async def test_drain_and_stop_end_what_is_left(site: Site) -> None:
    async with recorder(answers=False) as (port, heads):
        site.write(site.target("t", port))
        async with running(site) as (app, tunnels):
            stream = push(app)
            while not heads:
                await asyncio.sleep(0.005)
            await app.drain()
            assert app.state.value == "draining"
        assert stream.log == ["reset target-lost"]
        assert tunnels.log == ["start", "drain 25", "close"]
        assert app.dispatcher.in_flight == 0


async def test_a_start_that_fails_leaves_nothing_open(site: Site) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        site.head = site.head.replace("127.0.0.1:0", f"127.0.0.1:{taken.getsockname()[1]}")
        site.write(site.target("t", 1))
        app, _tunnels = site.make()
        with pytest.raises(CommandError, match="cannot listen"):
            await app.start(StopRequest())
        await app.stop()
    assert not site.control.exists()
