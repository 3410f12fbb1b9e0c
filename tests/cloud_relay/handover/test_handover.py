"""A relay hands over to another one, step by step; and all is as it was when the other one fails at any of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from cloud_relay.handover import steps
from cloud_relay.handover.leaving import Phase
from cloud_relay.handover.passing import Passed
from cloud_relay.health import RelayState
from cloud_relay.identity.office import open_office
from cloud_relay.identity.store import StateLock
from shared.clock import TrustedClock
from shared.exits import CommandError, ExitCode
from shared.tasks import spawn
from tests.cloud_relay.connector_double import ConnectorDouble, attached
from tests.cloud_relay.handover.kit import Here, ask, launched_here, replaced
from tests.cloud_relay.test_app import World, running

Document = dict[str, Any]


@pytest.fixture
async def world(tmp_path: Path, relay_document: Document) -> AsyncIterator[World]:
    relay_document["drain"] = {"timeout": "1s"}
    async with running(tmp_path, relay_document) as world:
        yield world


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession() as session:
        yield session


@pytest.fixture
async def connector(world: World) -> AsyncIterator[ConnectorDouble]:
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as double:
        yield double


def ignore(_name: str, _error: BaseException) -> None:
    """Whoever awaits it gets what it raised."""


async def over(world: World) -> None:
    async with asyncio.timeout(10):
        while not world.stop_request.is_wanted.is_set():
            await asyncio.sleep(0.01)


async def pushed(world: World, session: aiohttp.ClientSession, port: int) -> tuple[int, str | None]:
    headers = {"Authorization": "Basic czQ6czQtcGFzc3dvcmQ=", "Host": "push.example.com"}
    async with session.post(f"http://127.0.0.1:{port}/sap/frun/x", data=b"hello", headers=headers) as answer:
        await answer.read()
        return answer.status, answer.headers.get("Connection")


async def test_the_new_process_has_everything_and_the_old_one_serves_out(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    port = world.port("ingress")
    assert await pushed(world, session, port) == (200, None)
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")) as new:
            answer = await ask(world, "POST", "/v1/upgrade")
            assert (answer["old"]["connections"], answer["new"]["version"]) == (1, "new")
            assert world.app.leaving.phase is Phase.LEAVING
            assert here.app is not None
            assert here.app.state is RelayState.SERVING
            async with aiohttp.ClientSession() as other:
                assert await pushed(world, other, port) == (200, None)
                assert (len(connector.pushes), len(new[0].pushes)) == (1, 1)
                report: list[dict[str, Any]] = []
                async with asyncio.timeout(5):
                    while not report:
                        report = (await ask(world, "GET", "/v1/status"))["draining"]
                        await asyncio.sleep(0.02)
                assert (report[0]["state"], report[0]["connections"], report[0]["tunnels"]) == ("draining", 1, 1)
                # The connection that is kept is served once more by the old one, over its old tunnel, and closed.
                assert await pushed(world, session, port) == (200, "close")
                assert (len(connector.pushes), len(new[0].pushes)) == (2, 1)
                await over(world)
                assert await connector.closed == "going-away"
                await world.app.drain()
                await world.app.leaving.close()  # as its end does
                assert await pushed(world, other, port) == (200, None)
                assert (await ask(world, "GET", "/v1/status"))["draining"] == []
        await here.close()


async def test_what_is_left_in_the_end_is_cut(
    tmp_path: Path, relay_document: Document, session: aiohttp.ClientSession
) -> None:
    relay_document["drain"] = {"upgrade": "500ms", "timeout": "200ms"}
    async with (
        running(tmp_path, relay_document) as world,
        attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector,
    ):
        connector.is_holding = True
        held = spawn(pushed(world, session, world.port("ingress")), "a push that never ends")
        await connector.arrived.wait()
        with launched_here(world) as here:
            async with replaced(world, connector, world.port("tunnel")):
                began = asyncio.get_running_loop().time()
                await ask(world, "POST", "/v1/upgrade")
                assert await held == (503, "close"), "it is answered"
                assert await connector.closed == "going-away"
                await over(world)
                assert asyncio.get_running_loop().time() - began < 5
            await here.close()


async def test_quotas_start_where_they_were(
    tmp_path: Path, relay_document: Document, session: aiohttp.ClientSession
) -> None:
    limits = {"rate": "1/min", "burst": 3}
    relay_document["tenants"]["acme"]["routes"][0]["limits"] = limits
    relay_document["limits"] = {"queue": 0}
    async with running(tmp_path, relay_document) as world:
        port = world.port("ingress")
        async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}) as connector:
            for _ in range(2):
                assert (await pushed(world, session, port))[0] == 200
            with launched_here(world) as here:
                async with replaced(world, connector, world.port("tunnel")), aiohttp.ClientSession() as other:
                    await ask(world, "POST", "/v1/upgrade")
                    assert [(await pushed(world, other, port))[0] for _ in range(2)] == [200, 429]
                await here.close()


async def test_a_sender_that_is_switched_off_in_the_new_process_is_off_in_the_old_one(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    port = world.port("ingress")
    assert (await pushed(world, session, port))[0] == 200
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            await ask(world, "POST", "/v1/upgrade")
            assert (await ask(world, "POST", "/v1/senders/acme/s4/disable"))["changed"]
            await asyncio.sleep(0.4)
            assert (await pushed(world, session, port))[0] == 401
            assert len(connector.pushes) == 1
        await here.close()


async def test_a_config_that_is_read_again_counts_in_the_old_process_too(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    port = world.port("ingress")
    assert (await pushed(world, session, port))[0] == 200
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            await ask(world, "POST", "/v1/upgrade")
            world.document["tenants"]["acme"]["routes"][0]["senders"] = ["ibp"]
            world.write(world.document)
            assert (await world.app.reload()).is_taken
            assert (await pushed(world, session, port))[0] == 403
        await here.close()


# --- the new process fails


class Actor:
    """A new process that says what it is told to say, and hears what comes."""

    def __init__(self, *says: str, then: str = "waits") -> None:
        self.says = says
        self.then = then
        self.heard: list[str] = []

    async def __call__(self, passed: Passed) -> None:
        gone = asyncio.Event()
        passed.channel.start(
            asyncio.get_running_loop(), lambda message, _: self.heard.append(str(message["say"])), gone.set
        )
        for word in self.says:
            passed.channel.send({"say": word, "count": 0, "keys": []})
            await asyncio.sleep(0.05)
        if self.then == "fails":
            raise CommandError(ExitCode.CONFIG, "it has no good config", "Mend it.", "bad", detail="line 7")
        if self.then == "waits":
            await asyncio.Event().wait()


STEPS = ((), ("prepared",), ("prepared", "tunnels-open"), ("prepared", "tunnels-open", "missing"))


async def assert_as_before(world: World, session: aiohttp.ClientSession, connector: ConnectorDouble) -> None:
    async with asyncio.timeout(5):
        while world.app.leaving.phase is not Phase.SERVING:
            await asyncio.sleep(0.01)
    assert await pushed(world, session, world.port("ingress")) == (200, None)
    async with aiohttp.ClientSession() as other:
        assert await pushed(world, other, world.port("ingress")) == (200, None)
        async with other.get(f"http://127.0.0.1:{world.port('observe')}/readyz") as ready:
            assert ready.status == 200
    assert (await ask(world, "POST", "/v1/senders/acme/s4/disable"))["changed"], "it is the writer again"
    assert (await pushed(world, session, world.port("ingress")))[0] == 401
    assert (await ask(world, "POST", "/v1/senders/acme/s4/enable"))["changed"]
    assert world.app.identity is not None
    await world.app.identity.office.registrar.change(lambda: ([], {}))
    async with attached(world.pki, world.port("tunnel"), {"focused-run": "http"}, world.pki.connector("c2")):
        pass
    assert not connector.closed.done()
    assert (await ask(world, "POST", "/v1/reload"))["changes"] == []


@pytest.mark.parametrize("says", STEPS)
@pytest.mark.parametrize(
    ("then", "exit_code", "says_why"),
    [
        ("fails", ExitCode.CONFIG, "cannot take over: it has no good config"),
        ("ends", ExitCode.FAILED, "the new process ended without a word"),
        ("waits", ExitCode.FAILED, "did not come to"),
    ],
)
async def test_whatever_step_the_new_process_fails_at_everything_is_as_before(
    says: tuple[str, ...], then: str, exit_code: ExitCode, says_why: str, world: World, connector: ConnectorDouble,
    session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    for name in ("START_TIMEOUT", "TAKE_TIMEOUT", "ATTACH_TIMEOUT"):
        monkeypatch.setattr(steps, name, 0.5)
    actor = Actor(*says, then=then)
    with launched_here(world, actor) as here:
        with pytest.raises(CommandError, match=says_why) as caught:
            await ask(world, "POST", "/v1/upgrade")
        assert caught.value.exit_code is exit_code
        assert caught.value.remedy
        if then == "fails":
            assert caught.value.extra["detail"] == "line 7"
        assert here.poll() is not None, "it is not left behind"
        if says:
            assert actor.heard[:2] == ["hello", "take-state"]
        await assert_as_before(world, session, connector)


@pytest.mark.parametrize("then", ["fails", "ends"])
async def test_its_last_word_does_not_count_when_it_is_dead_by_then(
    then: str, world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    async def play(passed: Passed) -> None:
        for word in ("prepared", "tunnels-open", "missing"):
            passed.channel.send({"say": word, "count": 0, "keys": []})
        await asyncio.sleep(0.3)
        passed.channel.send({"say": "serving"})
        if then == "fails":
            raise CommandError(ExitCode.FAILED, "it cannot serve after all")

    with launched_here(world, play), pytest.raises(CommandError, match="the new process"):
        await ask(world, "POST", "/v1/upgrade")
    await assert_as_before(world, session, connector)


async def test_what_the_new_process_has_read_anew_counts_in_the_old_one_too(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    """Also where it comes with a key that no reload can change."""
    port = world.port("ingress")
    assert (await pushed(world, session, port))[0] == 200
    world.document["tenants"]["acme"]["routes"][0]["senders"] = ["ibp"]
    world.document["memory"] = {"budget": "300MiB"}
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            world.write(world.document)
            await ask(world, "POST", "/v1/upgrade")
            async with asyncio.timeout(5):
                while world.app.config.memory.budget != 300 << 20:
                    await asyncio.sleep(0.02)
            assert (await pushed(world, session, port))[0] == 403
        await here.close()


async def test_a_new_process_that_dies_later_is_no_loss_while_the_old_one_is_there(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    port = world.port("ingress")
    assert (await pushed(world, session, port))[0] == 200
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            await ask(world, "POST", "/v1/upgrade")
            assert here.app is not None
            here.kill()
            await assert_as_before(world, session, connector)
        # And it can be tried again. The connector's tunnel of before is asked for a replacement, too.
        assert connector.replace.is_set()


async def test_one_that_dies_when_the_old_one_has_closed_its_doors_makes_it_end_at_once(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    drains = asyncio.Event()

    async def never_ends() -> None:
        drains.set()
        await asyncio.Event().wait()

    monkeypatch.setattr(world.app, "drain_rest", never_ends)
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            await ask(world, "POST", "/v1/upgrade")
            await asyncio.wait_for(drains.wait(), 10)
            stop_request = world.app.leaving._stop_request
            assert stop_request is not None
            assert not stop_request.is_wanted.is_set()
            here.kill()
            await asyncio.wait_for(stop_request.is_urgent.wait(), 5)
            assert stop_request.is_wanted.is_set()


async def test_connectors_that_do_not_come_stop_the_upgrade_unless_they_may_be_left_behind(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(steps, "ATTACH_TIMEOUT", 0.3)
    with launched_here(world) as here:
        with pytest.raises(
            CommandError, match="no connector has come to the new process for 1 targets: acme/walldorf/f"
        ):
            await ask(world, "POST", "/v1/upgrade")
        await assert_as_before(world, session, connector)
        answer = await ask(world, "POST", "/v1/upgrade", {"anyway": True})
        assert answer["new"]["version"] == "new"
        assert here.launched == 2
        await here.close()


async def test_one_upgrade_at_a_time_and_no_reload_meanwhile(world: World, connector: ConnectorDouble) -> None:
    with launched_here(world, Actor("prepared")) as here:
        first = spawn(world.app.leaving.upgrade(), "upgrade", ignore)
        await asyncio.sleep(0.1)
        with pytest.raises(CommandError, match="an upgrade is under way") as caught:
            await world.app.leaving.upgrade()
        assert caught.value.exit_code is ExitCode.REFUSED
        assert not (await world.app.reload()).is_taken
        here.kill()
        with pytest.raises(CommandError, match="ended by signal 9"):
            await first


async def test_told_to_end_in_the_midst_of_it_the_relay_takes_everything_back_and_drains(
    world: World, connector: ConnectorDouble
) -> None:
    with launched_here(world, Actor("prepared")) as here:
        upgrade = spawn(world.app.leaving.upgrade(), "upgrade", ignore)
        await asyncio.sleep(0.2)
        await world.app.drain()
        assert here.poll() == -9
        with pytest.raises(CommandError, match="told to end"):
            await upgrade
        assert world.app.state is RelayState.STOPPED


async def test_told_to_end_while_it_serves_out_it_tells_the_new_process(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    assert (await pushed(world, session, world.port("ingress")))[0] == 200
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            await ask(world, "POST", "/v1/upgrade")
            await world.app.drain()
            async with asyncio.timeout(5):
                await here.stop_request.is_wanted.wait()
            assert not here.stop_request.is_urgent.is_set()
        await here.close()


async def test_when_the_new_process_is_told_to_end_the_old_one_does_not_take_over_again(
    world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    assert (await pushed(world, session, world.port("ingress")))[0] == 200
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            await ask(world, "POST", "/v1/upgrade")
            await ask(world, "POST", "/v1/drain")
            await over(world)
        await here.close()
        assert world.app.leaving.phase is Phase.LEAVING


async def test_a_state_that_moved_is_refused(world: World, connector: ConnectorDouble) -> None:
    world.document["state_dir"] = "elsewhere"
    world.write(world.document)
    with launched_here(world), pytest.raises(CommandError, match="state_dir is") as caught:
        await ask(world, "POST", "/v1/upgrade")
    assert caught.value.exit_code is ExitCode.CONFIG


async def test_an_address_that_cannot_be_had(world: World, connector: ConnectorDouble) -> None:
    world.document["ingress"].append({"listen": f"127.0.0.1:{world.port('ingress')}"})
    world.write(world.document)
    with launched_here(world), pytest.raises(CommandError, match="cannot listen on") as caught:
        await ask(world, "POST", "/v1/upgrade")
    assert caught.value.exit_code is ExitCode.FAILED


def test_what_the_kit_starts_is_what_a_launcher_is() -> None:
    from shared.launch import Launcher

    public = {name for name in vars(Launcher) if not name.startswith("_")}
    assert public <= set(dir(Here))


async def test_the_state_of_a_process_that_dies_is_waited_for(tmp_path: Path, relay_document: Document) -> None:
    """Its death is heard of by the channel before the kernel has released its lock."""
    async with running(tmp_path, relay_document) as world:
        lock = StateLock(world.app.config.state_dir)
        identity = world.app.identity
        assert identity is not None
        asyncio.get_running_loop().call_later(0.2, lambda: spawn(identity.let_go(), "letting go"))
        office = await open_office(world.app.config, TrustedClock(), patience=5.0)
        with pytest.raises(CommandError, match="another process holds the state"):
            lock.acquire()
        await office.close()
        await identity.take_back()


@pytest.mark.parametrize("needs_restart", [False, True])
async def test_a_new_config_whose_process_dies_leaves_a_relay_that_can_reload(
    needs_restart: bool, world: World, connector: ConnectorDouble, session: aiohttp.ClientSession
) -> None:
    """The old process has its senders and routes, and the doors of before."""
    assert (await pushed(world, session, world.port("ingress")))[0] == 200
    if needs_restart:
        world.document["ingress"].append({"listen": "127.0.0.1:0"})
    route = {"name": "syslog", "listen": "127.0.0.1:0", "to": {"location": "walldorf", "target": "syslog"},
             "networks": ["127.0.0.0/8"]}  # fmt: skip
    world.document["tenants"]["acme"]["tcp_routes"] = [route]
    with launched_here(world) as here:
        async with replaced(world, connector, world.port("tunnel")):
            world.write(world.document)
            await ask(world, "POST", "/v1/upgrade")
            async with asyncio.timeout(5):
                while not world.app.config.tenants["acme"].tcp_routes:
                    await asyncio.sleep(0.02)
            here.kill()
            async with asyncio.timeout(5):
                while world.app.leaving.phase is not Phase.SERVING:
                    await asyncio.sleep(0.01)
            outcome = await world.app.reload()
            assert outcome.is_taken is not needs_restart
            if needs_restart:
                assert "ingress.listen" in str(outcome)
            assert world.app.doors is not None
            kinds = [door["kind"] for door in world.app.doors.describe()]
            assert ("tcp" in kinds) is not needs_restart
            assert await pushed(world, session, world.port("ingress")) == (200, None)
