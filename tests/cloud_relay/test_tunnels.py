"""The tunnel listener on loopback: what one connector may take of it."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from cloud_relay.entrance import MAX_EARLY, _Doorstep
from cloud_relay.tunnels import TunnelLimits
from cloud_relay.turns import Turns
from shared.tunnel.endings import let_reset
from shared.tunnel.link import Link
from shared.tunnel.websocket_server import ServerTransport
from tests.support.tunnels import KEY, world

pytestmark = pytest.mark.system


async def test_one_connector_cannot_take_all_places(tmp_path):
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(tunnels_per_connector=2))
        greedy = w.connect(w.pki.connector("c1"), count=3)
        await w.until(lambda: "overloaded" in listener.counts.refused)
        assert w.registry.count(KEY) == 2
        w.connect(w.pki.connector("c2"), count=2)
        await w.until_open(4)
        await greedy.close()
        await w.until(lambda: w.registry.count(KEY) == 2)
        w.connect(w.pki.connector("c1"), count=2)
        await w.until_open(4)


async def test_tunnels_without_a_session_count_too(tmp_path, monkeypatch):
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(tunnels_per_connector=1))
        monkeypatch.setattr("cloud_relay.attendance.Attendance.ready", lambda *_: None)
        tunnels = w.connect(count=1)
        await w.until(lambda: listener.counts.accepted == 1)
        assert w.registry.sessions() == []
        second = w.connect(count=1)
        await w.until(lambda: w.error_of(second) == "overloaded")
        await tunnels.close()


async def test_who_waits_is_told_when_a_tunnel_is_heard_again(tmp_path):
    async with world(tmp_path) as w:
        await w.serve()
        w.connect(count=1)
        await w.until_open(1)
        (session,) = w.registry.sessions()
        called: list[bool] = []
        w.registry.wait(KEY, lambda: called.append(True))
        assert isinstance(session.link, Link)
        session.link.on_usable()
        await w.until(lambda: called == [True])


@pytest.mark.parametrize("method", ["__init__", "connection_made"])
async def test_a_handshake_that_cannot_begin_keeps_no_place(tmp_path, monkeypatch, method):
    async with world(tmp_path) as w:
        listener = await w.serve()
        failures = 0

        def fail(*_: object, **__: object) -> None:
            nonlocal failures
            failures += 1
            raise RuntimeError("no context")

        with monkeypatch.context() as patch:
            patch.setattr(f"cloud_relay.entrance.ServerTransport.{method}", fail)
            tunnels = w.connect(count=1)
            await w.until(lambda: failures > 0 and w.error_of(tunnels) is not None)
        assert listener.entrance.gate.in_progress == 0
        await w.until_open(1)
        assert listener.entrance.gate.in_progress == 0


async def test_more_than_may_shake_hands_at_once_come_in_one_after_the_other(tmp_path):
    """Those that wait say their ClientHello before their turn."""
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(handshakes_per_source=2))
        for number in range(20):
            w.connect(w.pki.connector(f"c{number}"), count=1)
        await w.until_open(20)
        assert listener.counts.failed == 0


async def test_who_says_too_much_before_its_turn_is_cut_off(tmp_path):
    class Raw(asyncio.Transport):
        is_aborted = False

        def pause_reading(self) -> None: ...

        def abort(self) -> None:
            self.is_aborted = True

    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(handshakes_per_source=1))
        _, stalling = await asyncio.open_connection("127.0.0.1", w.port)
        await w.until(lambda: listener.entrance.gate.in_progress == 1)
        raw = Raw({"peername": ("127.0.0.1", 4711)})
        doorstep = _Doorstep(listener.entrance)
        doorstep.connection_made(raw)
        doorstep.data_received(bytes(MAX_EARLY))
        assert not raw.is_aborted
        doorstep.data_received(b"x")
        assert raw.is_aborted
        listener.entrance.gate._waiting = Turns(2)
        stalling.close()


@pytest.mark.parametrize("ending", ["fin", "rst"])
async def test_who_gave_up_waiting_costs_no_handshake(tmp_path, monkeypatch, ending):
    """Behind one handshake that stalls, a crowd comes, says its ClientHello, and leaves."""
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(handshakes_per_source=1, handshake_timeout=1.0))
        begun: list[str] = []
        begin = ServerTransport.connection_made

        def note(transport: ServerTransport, raw: asyncio.BaseTransport) -> None:
            begun.append(str(raw.get_extra_info("peername")[1]))
            begin(transport, raw)

        monkeypatch.setattr(ServerTransport, "connection_made", note)
        _, stalling = await asyncio.open_connection("127.0.0.1", w.port)
        stalling.write(b"\x16\x03\x01")
        await w.until(lambda: len(begun) == 1)
        for _ in range(20):
            _, waiting = await asyncio.open_connection("127.0.0.1", w.port)
            waiting.write(b"\x16\x03\x01\x02\x00" + bytes(512))
            await waiting.drain()
            if ending == "rst":
                let_reset(waiting.get_extra_info("socket"))
                waiting.transport.abort()
            else:
                waiting.close()
        w.connect(count=1)
        await w.until_open(1)
        assert len(begun) == 2
        assert listener.counts.failed == 1 + 20
        assert listener.entrance.gate.in_progress == 0
        stalling.close()


async def test_handshakes_that_come_at_once_begin_one_in_a_turn_of_the_loop(tmp_path, monkeypatch):
    """A crowd connects, waits, and says its ClientHello in one moment: pushes are served between them all the same."""
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits())
        turns: list[int] = []
        turn = 0

        def begin(raw: asyncio.Transport, source: str, _peer: str, _early: bytes) -> None:
            turns.append(turn)
            raw.abort()
            listener.entrance.gate.leave(source)

        monkeypatch.setattr(listener.entrance, "begin", begin)

        def count() -> None:
            nonlocal turn
            turn += 1
            if len(turns) < 50:
                asyncio.get_running_loop().call_soon(count)

        crowd = [(await asyncio.open_connection("127.0.0.1", w.port))[1] for _ in range(50)]
        await w.until(lambda: listener.entrance.gate.in_progress == 50)
        assert turns == []
        count()
        for one in crowd:
            one.write(b"\x16\x03\x01")
        await w.until(lambda: len(turns) == 50)
        assert len(set(turns)) == 50
        for one in crowd:
            one.close()


async def test_who_waits_silently_is_let_go_and_gives_its_place_back(tmp_path):
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(handshake_timeout=0.2))
        silent, writer = await asyncio.open_connection("127.0.0.1", w.port)
        _, leaving = await asyncio.open_connection("127.0.0.1", w.port)
        await w.until(lambda: listener.entrance.gate.in_progress == 2)
        leaving.close()
        await w.until(lambda: listener.entrance.gate.in_progress == 1)
        with contextlib.suppress(ConnectionResetError):
            assert await silent.read() == b""
        await w.until(lambda: listener.entrance.gate.in_progress == 0)
        assert listener.counts.failed == 2
        writer.close()


async def test_closing_ends_those_who_wait_silently(tmp_path):
    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits())
        silent, writer = await asyncio.open_connection("127.0.0.1", w.port)
        await w.until(lambda: listener.entrance.gate.in_progress == 1)
        listener.stop_accepting()
        with contextlib.suppress(ConnectionResetError):
            assert await silent.read() == b""
        await w.until(lambda: listener.entrance.gate.in_progress == 0)
        writer.close()


async def test_a_host_with_many_ipv6_addresses_is_one_source(tmp_path, monkeypatch):
    class Raw(asyncio.Transport):
        def __init__(self, address: str) -> None:
            super().__init__({"peername": (address, 4711, 0, 0)})

        def pause_reading(self) -> None: ...
        def resume_reading(self) -> None: ...
        def is_closing(self) -> bool:
            return False

    async with world(tmp_path) as w:
        listener = await w.serve(TunnelLimits(handshakes_per_source=2))
        begun: list[str] = []
        monkeypatch.setattr(listener.entrance, "begin", lambda _, __, peer, ___: begun.append(peer))
        for address in ("2001:db8::1", "2001:db8::2", "2001:db8::3", "2001:db8:0:1::1"):
            doorstep = _Doorstep(listener.entrance)
            doorstep.connection_made(Raw(address))
            doorstep.data_received(b"\x16\x03\x01")
        await w.until(lambda: len(begun) == 3)
        assert begun == ["2001:db8::1", "2001:db8:0:1::1", "2001:db8::2"], "in turn among the sources"
        listener.entrance.gate._waiting = Turns(2)
