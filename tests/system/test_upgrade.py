"""The relay hands over to a new process: no push is lost, whatever becomes of either."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shared.crash_points import ARRIVING_POINTS, LEAVING_POINTS
from shared.exits import CommandError, ExitCode
from tests.support import crashing
from tests.support.manager import Manager
from tests.support.ports import free_port
from tests.system.conftest import SITES
from tests.system.kit import Site
from tests.system.load import Load
from tests.system.managed import ManagedSite
from tests.system.programs import Program, command, environment, listens, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


@contextlib.asynccontextmanager
async def echo() -> AsyncIterator[int]:
    """A TCP target that says again what it hears; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(1000):
                writer.write(data)
        writer.close()

    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1]


class Line:
    """One TCP connection through the relay, on which something is said now and then."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    @classmethod
    async def open(cls, port: int) -> Line:
        return cls(*await asyncio.open_connection("127.0.0.1", port))

    async def is_alive(self) -> bool:
        """Whether what is said comes back."""
        try:
            self.writer.write(b"hello\n")
            return await asyncio.wait_for(self.reader.readline(), 5) == b"hello\n"
        except OSError:
            return False


async def watch_readiness(site: Site, seen: list[bool]) -> None:
    while True:
        seen.append(await site.observe(site.relay, "observe") is not None)
        await asyncio.sleep(0.02)


async def is_gone(pid: int) -> bool:
    """Whether a process has ended; perhaps its parent has not looked yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


async def test_hand_overs_and_a_rolling_restart_of_the_connectors_lose_nothing(site, target, record_property):
    site.expose(target)
    for name in ("c1", "c2"):
        site.connector_config(name)["drain"] = {"timeout": "1s"}  # which cuts its TCP connections
    site.relay_config["drain"] = {"timeout": "1s"}
    async with echo() as port:
        listen = site.expose_tcp("echo", port)
        await site.start()
        await site.start_connector("c2")
        kept, new = Load(site, 80.0, 20), Load(site, 20.0, 5, keeps=False)
        ready: list[bool] = []
        watcher = asyncio.Task(watch_readiness(site, ready))
        async with kept.running(), new.running():
            await until(lambda: kept.has_acknowledged(30) and new.has_acknowledged(8), "pushes")
            old_line = await Line.open(listen)
            assert await old_line.is_alive()
            good = site.write("relay").read_text()
            (site.folder / "relay.yaml").write_text(good.replace("listen:", "lisen:"))
            problem = await cli_upgrade(site, ExitCode.CONFIG)
            assert "the new process cannot take over" in problem["title"]
            assert "lisen" in problem["detail"]
            site.write("relay")
            answer = await cli_upgrade(site, ExitCode.OK)
            first = answer["new"]["pid"]
            assert answer["old"]["pid"] == site.relay.pid
            assert await old_line.is_alive(), "the old process serves it on"
            new_line = await Line.open(listen)
            second = await site.upgrade()
            assert len({site.relay.pid, first, second}) == 3
            assert await old_line.is_alive()
            assert await new_line.is_alive()
            draining = await until(lambda: drained_by(site, 2), "reports of both old processes")
            assert [one["pid"] for one in draining] == [first, site.relay.pid]
            assert all(one["connections"] >= 1 for one in draining)
            for name in ("c1", "c2"):
                assert await site.connectors[name].stop() == 0
                await site.start_connector(name)
        watcher.cancel()
        assert kept.failures == new.failures == []
        assert kept.acknowledged | new.acknowledged <= target.ids
        assert len(target.received) == len(kept.attempts) + len(new.attempts)
        assert all(ready), "a load balancer has noticed nothing"
        record_property("two hand-overs, two connectors restarted: pushes on kept, new connections; failed", [
            len(kept.acknowledged), len(new.acknowledged), len(kept.failures) + len(new.failures)
        ])  # fmt: skip
        for line in (old_line, new_line):
            line.writer.close()
        await site.http.close()
        await until(lambda: drained_by(site, 0), "the end of both old processes, once nothing is left to them")
        await until(lambda: is_gone(first), "the end of the process in between")
        assert await site.relay.stop() == 0, "the first one has stayed, and passes signals on"
        assert await is_gone(second)


async def drained_by(site: Site, count: int) -> list[dict[str, Any]] | bool:
    """The reports of so many old processes, True of none; False of another number."""
    found: list[dict[str, Any]] = (await site.status())["draining"]
    return len(found) == count and (found or True)


async def cli_upgrade(site: Site, exit_code: int) -> dict[str, Any]:
    process = await asyncio.create_subprocess_exec(
        command("cloud-relay"), "upgrade", "--config", str(site.folder / "relay.yaml"), "--json",
        cwd=site.folder, env=environment(), stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, err = await process.communicate()
    assert process.returncode == exit_code, (out, err)
    answer: dict[str, Any] = json.loads(err if exit_code else out)
    return answer


# --- kill -9


class Chain:
    """A relay of which each process dies at a point that a file names; what the file holds is the next one's."""

    def __init__(self, site: ManagedSite) -> None:
        self.site = site
        self.file = site.folder / "point"
        self.file.write_text("")

    async def start(self) -> None:
        site = self.site
        argv = (command("python"), crashing.__file__, f"@{self.file}", "cloud-relay", "serve")
        site._relay = site.run("relay", *argv, "--config", str(site.write("relay")))
        await until(lambda: listens(site.ports["tls"]), "the relay")

    async def pid(self) -> int:
        """Of the process that has the control socket now; 0 while none answers."""
        try:
            return int((await self.site.status())["pid"])
        except CommandError:
            return 0

    async def serves(self, pid: int, load: Load) -> None:
        """Until this process has all: commands, the state, pushes."""

        async def answers() -> bool:
            if await self.pid() != pid:
                return False
            with contextlib.suppress(CommandError):
                await self.site.command("POST", "/v1/identity/tokens-create", {"connector": "acme/walldorf/c3"})
                return str((await self.site.status())["state"]) == "serving"
            return False

        await until(answers, f"process {pid}")
        since = time.monotonic()
        await until(lambda: load.first_acknowledged(since), "a push")


async def test_whichever_process_is_killed_at_whichever_point_a_relay_is_left_that_works(
    request, pki, target, tmp_path_factory, record_property
):
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as site:
        request.node.stash[SITES] = [site]
        site.expose(target)
        site.relay_config["drain"] = {"timeout": "1s", "upgrade": "1s"}
        await site.init()
        await site.invite()
        chain = Chain(site)
        await chain.start()
        site.launch_connector()
        await site.connector_is_ready()
        load = Load(site, 40.0, 10)
        silent = []
        async with load.running():
            await until(lambda: load.has_acknowledged(10), "pushes")
            old = await chain.pid()
            for point in ARRIVING_POINTS:
                chain.file.write_text(point)
                began = time.monotonic()
                with contextlib.suppress(CommandError):
                    await site.upgrade()
                await chain.serves(old, load)  # the old one has taken everything back
                silent.append((began, time.monotonic()))
            # From here on each new process is armed with the point at which it will die as the old one.
            chain.file.write_text(LEAVING_POINTS[0])
            old = await site.upgrade()
            await until(lambda: is_gone_or_served_out(site), "the end of the first one")
            for point in (*LEAVING_POINTS[1:], ""):
                chain.file.write_text(point)
                began = time.monotonic()
                with contextlib.suppress(CommandError):
                    await site.upgrade()
                await until(functools.partial(is_gone, old), "the death of the old one", 30)
                old = await chain.pid() or await until(chain.pid, "the new one")
                await chain.serves(old, load)
                silent.append((began, time.monotonic()))
        assert not load.given_up
        lost = load.acknowledged - target.ids
        assert not lost
        load.assert_honest(silent=tuple(silent))
        record_property("kill -9 at each point of a hand-over: pushes, tries that failed", [
            len(load.acknowledged), load.failures_by_cause])  # fmt: skip
        events = (await site.command("POST", "/v1/identity/events", {"limit": 1000}))["events"]
        numbers = [event["number"] for event in events]
        assert numbers == sorted(set(numbers)), "one writer at a time"


async def is_gone_or_served_out(site: Site) -> bool:
    return not (await site.status())["draining"]


# --- what is exclusive


async def test_the_state_changes_hands_and_what_is_decided_counts_in_both(
    request, pki, target, tmp_path_factory, record_property
):
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as site, echo() as port:
        request.node.stash[SITES] = [site]
        site.expose(target)
        listen = site.expose_tcp("echo", port)
        site.relay_config["drain"] = {"timeout": "1s", "upgrade": "60s"}
        await site.init()
        await site.invite()
        await site.start_relay()
        site.launch_connector()
        await site.fully_connected()
        line = await Line.open(listen)
        assert await line.is_alive()
        await site.upgrade()
        # What connectors ask for, the new process gives.
        rotated = await site.connector_says("c1", "certs", "rotate")
        assert rotated["new_not_after"] >= rotated["old_not_after"]
        await site.invite("c2")
        site.launch_connector("c2")
        await site.fully_connected("c2")
        assert await line.is_alive(), "the old process still serves it, by a tunnel of the old certificate"
        # What the new process is told, the old one does, too.
        began = time.monotonic()
        await site.command("POST", "/v1/identity/connectors-block", {"connector": "acme/walldorf/c1"})
        with contextlib.suppress(ConnectionError):
            assert await asyncio.wait_for(line.reader.read(), 5) == b""
        record_property("a block reaches what the old process has, s", round(time.monotonic() - began, 2))
        assert time.monotonic() - began < 1.5
        assert (await site.push()).status == 200, "by c2"


async def test_a_port_that_connectors_and_senders_share(site, target):
    site.expose(target)
    shared = f"127.0.0.1:{site.ports['tls']}"
    site.relay_config["tunnel"] |= {"listen": shared, "advertise": [f"localhost:{site.ports['tls']}"]}
    site.connector_config()["relays"] = [f"wss://localhost:{site.ports['tls']}"]
    site.route["hold"] = 0
    await site.start()
    answers: list[tuple[int, str]] = []
    url = f"https://127.0.0.1:{site.ports['tls']}/push"  # no server name: a sender

    async def push_on() -> None:
        headers = {"Authorization": site.basic, "Host": "localhost", "Connection": "close"}
        while True:
            async with site.http.post(url, data=b"42", headers=headers) as answer:
                answers.append((answer.status, answer.headers.get("Qanat-Error", "")))
                await answer.read()
            await asyncio.sleep(0.01)

    pushing = asyncio.Task(push_on())
    await until(lambda: len(answers) > 20, "pushes")
    await site.upgrade()
    wanted = len(answers) + 20
    await until(lambda: len(answers) > wanted, "pushes")
    pushing.cancel()
    assert set(answers) == {(200, "")}, "not one has waited for a connector, as none may here"


# --- systemd

_ACTIVATED = """
import os, socket, sys
addresses, argv = sys.argv[1].split(","), sys.argv[2:]
for number, address in enumerate(addresses, 3):
    host, _, port = address.rpartition(":")
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind((host, int(port)))
    sock.listen(5)
    os.dup2(os.dup(sock.detach()), number)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(addresses)), "WATCHDOG_PID": str(os.getpid())}
os.execv(argv[0], argv)
"""


def launch_activated(site: Site, addresses: list[str], **variables: str) -> Program:
    """The relay, with these addresses bound by whoever starts it."""
    argv = (command("cloud-relay"), "serve", "--config", str(site.write("relay")))
    site._relay = site.run(  # as `launch_relay` does
        "relay", command("python"), "-c", _ACTIVATED, ",".join(addresses), *argv, variables=environment(**variables)
    )
    return site.relay


async def test_as_systemd_starts_it_the_new_process_becomes_the_main_one(site, target):
    site.expose(target)
    site.relay_config["drain"] = {"timeout": "1s", "upgrade": "2s"}
    with Manager(site.folder) as manager:
        old = launch_activated(site, [f"127.0.0.1:{site.ports['tls']}"], **manager.environment(watchdog=2.0))
        site.launch_connector()
        await site.relay_is_ready()
        await site.connector_is_ready()
        assert (await site.push()).status == 200
        assert ["READY=1"] in [lines[:1] for lines in manager.hear()]
        pid = await site.upgrade()
        assert await old.ended(20) == 0, "it does not stay: the service manager follows the new one"
        heard = [line for lines in manager.hear() for line in lines]
        assert f"MAINPID={pid}" in heard
        assert Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1] != str(old.pid)
        await until(lambda: ["WATCHDOG=1"] in manager.hear(), "a word of the new process")
        assert (await site.push()).status == 200
        os.kill(pid, signal.SIGTERM)
        await until(lambda: is_gone(pid), "the end")
        assert "STOPPING=1" in [line for lines in manager.hear() for line in lines]


async def test_a_socket_that_no_listener_wants_is_named(site):
    stray = f"127.0.0.1:{free_port()}"
    relay = launch_activated(site, [f"127.0.0.1:{site.ports['tls']}", stray])
    assert await relay.ended() == ExitCode.CONFIG
    assert f"the config has no listener for what the service manager passed: {stray}" in relay.err
