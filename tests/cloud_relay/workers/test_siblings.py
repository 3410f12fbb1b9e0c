"""Two workers over a real Unix socket: what one knows of the other's tunnels, and pushes that cross."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import pytest

from cloud_relay.admit import Identity
from cloud_relay.attendance import Attendance, Attendant
from cloud_relay.probing.book import HealthBook
from cloud_relay.probing.view import route_health
from cloud_relay.registry import Registry
from cloud_relay.session import Session
from cloud_relay.workers.covering import until_covered
from cloud_relay.workers.hop import Hop
from cloud_relay.workers.host import Host
from cloud_relay.workers.lines import MAX_LINE, Lines, line
from cloud_relay.workers.sibling import Sibling
from cloud_relay.workers.wide import WideRegistry
from shared.errors import FAULTS
from shared.probe import Verdict
from shared.protocol import Hello, MemoryBudget, StallCounts
from shared.tunnel import local
from shared.tunnel.gaps import GapWatch
from shared.tunnel.local import LocalTransport
from tests.support.ends import until

KEY = ("acme", "walldorf", "frun")


class FakeStream:
    """The stream of a tunnel: it answers with what it got."""

    was_sent = True
    is_writable = True

    def __init__(self, handler: Any, head: bytes, body: bytes, end: bool) -> None:
        self.handler = handler
        self.got = (head, body, end)
        self.taken = 0
        self.was_reset: tuple[int, bool] | None = None

    def send(self, data: bytes, end: bool = False) -> None:
        self.got = (self.got[0], self.got[1] + data, end)

    def consumed(self, n: int) -> None:
        self.taken += n

    def reset(self, wire_code: int, refused: bool = False) -> None:
        self.was_reset = (wire_code, refused)


class FakeLink:
    """A tunnel."""

    can_open = accepts = True
    is_gathering = is_draining = False
    in_flight = 0

    def __init__(self) -> None:
        self.streams: list[FakeStream] = []
        self.closed: tuple[str, ...] = ()
        self.answers_pings = True
        self.last_received = 0.0
        self.peer = Hello()

    def open_stream(self, handler: Any, head: bytes, body: bytes, end: bool, deadline: float) -> FakeStream:
        self.streams.append(FakeStream(handler, head, body, end))
        return self.streams[-1]

    def count_stalls(self, counts: StallCounts) -> None: ...

    def ping(self) -> None:
        if self.answers_pings:
            self.last_received = asyncio.get_running_loop().time() + 0.001

    def close(self, *why: str) -> None:
        self.closed = why

    def describe(self) -> str:
        return "a tunnel"


@dataclass
class FakeTunnels:
    """The tunnel listener of who leaves."""

    loop: asyncio.AbstractEventLoop
    reconnect_spread: float = 0.05
    asked: list[float] = field(default_factory=list)

    async def ask_replacements(self, seconds: float) -> None:
        self.asked.append(seconds)


@dataclass
class Taker:
    """A push's handler."""

    stream: Any = None
    answer: tuple[bytes, bytes, bool] | None = None
    resets: list[tuple[int, bool]] = field(default_factory=list)

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        self.answer = (head, body, end)
        self.stream.consumed(len(body))

    def on_data(self, data: bytes, end: bool) -> None: ...

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self.resets.append((wire_code, refused))

    def on_writable(self) -> None: ...


class Worker:
    """One worker: a registry, a host at a socket, and its view of the other one."""

    def __init__(self, number: int, folder: Path) -> None:
        self.loop = loop = asyncio.get_running_loop()
        self.path = folder / f"{number}.sock"
        self.registry = Registry(loop)
        self.gaps = GapWatch(loop)
        self.budget = MemoryBudget(1 << 24)
        self.book = self.registry.watcher = HealthBook(self.registry, loop.time)
        self.host = Host(loop, self.registry, self.budget, self.gaps, book=self.book)
        self.wide = WideRegistry(self.registry)
        self.attendance = Attendance(loop, self.registry)
        self.attendance.elsewhere = self.wide.rivals_of
        self.attendance.worker = number
        self.wide.rival_came, self.wide.rival_gone = self.attendance.rival_came, self.attendance.rival_gone
        self.server: asyncio.Server | None = None
        self.transports: list[LocalTransport] = []
        self.tasks: list[asyncio.Task[Any]] = []

    async def serve(self) -> None:
        def connect() -> LocalTransport:
            transport = LocalTransport(self.loop)
            self.transports.append(transport)
            self.loop.call_soon(self.host.connected, transport)
            return transport

        self.server = await self.loop.create_unix_server(connect, str(self.path))

    def look_at(self, other: Worker, number: int) -> Sibling:
        sibling = Sibling(self.loop, number, other.path, self.wide, self.budget, self.gaps)
        self.wide.siblings.append(sibling)
        self.tasks.append(self.loop.create_task(sibling.run()))
        return sibling

    async def stop(self) -> None:
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        self.die()
        for sibling in self.wide.siblings:
            sibling.close()
        await asyncio.sleep(0.01)

    def die(self) -> None:
        if self.server is not None:
            self.server.close()
        for transport in self.transports:
            transport.abort()
        self.path.unlink(missing_ok=True)

    def attach(
        self, connector: str = "c1", instance: str = "i1", *, standby: bool = False, ago: float = 0.0, **targets: str
    ) -> tuple[FakeLink, Attendant]:
        link = FakeLink()
        identity = Identity("acme", "walldorf", connector, "ab", datetime(2030, 1, 1, tzinfo=UTC))
        clock = SimpleNamespace(time=lambda: self.loop.time() - ago)
        attendant = Attendant(cast(Any, clock), self.attendance, identity, lambda _: None)
        hello = Hello(instance=instance, targets=targets or {"frun": "http"}, standby=standby)
        attendant.on_ready(cast(Any, link), hello)
        return link, attendant

    def session_of(self, attendant: Attendant) -> Session:
        assert attendant.session is not None
        return attendant.session


@dataclass
class Two:
    near: Worker
    far: Worker
    view: Sibling

    def open(self, avoid: tuple[Any, ...] = ()) -> Taker:
        session = self.near.wide.choose(*KEY, avoid)
        assert isinstance(session, Hop)
        taker = Taker()
        taker.stream = session.link.open_stream(taker, b"head", b"body", True)
        return taker


@pytest.fixture
async def two(tmp_path: Path) -> AsyncIterator[Two]:
    near, far = Worker(1, tmp_path), Worker(2, tmp_path)
    await far.serve()
    await near.serve()
    view = near.look_at(far, 2)
    far.look_at(near, 1)
    try:
        await until(lambda: view.is_connected)
        yield Two(near, far, view)
    finally:
        await near.stop()
        await far.stop()


async def test_a_push_crosses_to_where_the_tunnel_is(two: Two) -> None:
    link, _ = two.far.attach()
    await until(lambda: KEY in two.view.keys)
    taker = two.open()
    await until(lambda: bool(link.streams))
    stream = link.streams[0]
    assert stream.got == (b"head", b"body", True)
    stream.handler.on_answer(b"204", b"done", True, False)
    await until(lambda: taker.answer is not None)
    assert taker.answer == (b"204", b"done", True)
    assert two.far.host.crossed == two.near.wide.hops.value == 1


async def test_its_own_tunnel_goes_first(two: Two) -> None:
    two.far.attach()
    two.near.attach("c2")
    await until(lambda: KEY in two.view.keys)
    assert isinstance(two.near.wide.choose(*KEY), Session)
    assert two.near.wide.hops.value == 0
    assert two.near.wide.count(KEY) == 2


async def test_a_siblings_tunnel_comes_before_a_standby_here(two: Two) -> None:
    link, _ = two.far.attach("c1")
    two.near.attach("c2", standby=True)
    await until(lambda: KEY in two.view.keys)
    two.open()
    await until(lambda: bool(link.streams))
    two.far.attach("c3", standby=True)
    await until(lambda: "c3" in two.view.how[KEY])
    assert two.view.rank(KEY, ["c1"]) == 1
    assert isinstance(two.near.wide.choose(*KEY, exclude=()), Hop)


async def test_a_standby_there_takes_nothing_while_one_here_is_only_full(two: Two) -> None:
    link, _ = two.near.attach("c1")
    two.far.attach("c2", standby=True)
    await until(lambda: KEY in two.view.keys)
    link.can_open = False
    assert two.near.wide.choose(*KEY) is None
    two.far.attach("c3")
    await until(lambda: "c3" in two.view.how[KEY])
    assert isinstance(two.near.wide.choose(*KEY), Hop)
    link.accepts = False
    assert isinstance(two.near.wide.choose(*KEY), Hop)


async def test_a_standby_there_takes_pushes_where_there_is_no_other_way(two: Two) -> None:
    link, _ = two.far.attach("c2", standby=True)
    await until(lambda: KEY in two.view.keys)
    two.open()
    await until(lambda: bool(link.streams))


async def test_and_before_one_here_behind_which_the_target_is_dead(two: Two) -> None:
    two.near.attach("c2")
    link, _ = two.far.attach("c1")
    await until(lambda: KEY in two.view.keys)
    assert isinstance(two.near.wide.choose(*KEY), Session)
    for book, connector in ((two.near.book, "c2"), (two.far.book, "c1")):
        record = book.find(KEY, connector)
        assert record is not None
        book.probed(record, Verdict("target-unreachable"), 1.0)
        if connector == "c2":
            two.open()
            await until(lambda: bool(link.streams))
    await until(lambda: two.near.wide.states(KEY) == [("red", "target-unreachable")])
    assert isinstance(two.near.wide.choose(*KEY), Session), "dead everywhere: no hop is worth it"
    record = two.far.book.find(KEY, "c1")
    assert record is not None
    two.far.book.probed(record, Verdict(""), 2.0)
    await until(lambda: two.near.wide.states(KEY) == [("green", "")])
    two.open()
    health = route_health(two.near.registry, two.near.book, KEY, 3.0, two.near.wide.states(KEY))
    assert (str(health.state), health.tunnels) == ("green", 1)
    nobody = Registry(two.near.loop)
    health = route_health(nobody, HealthBook(nobody, two.near.loop.time), KEY, 3.0, [("unknown", "probe-none")])
    assert (str(health.state), health.why, health.tunnels) == ("unknown", "probe-none", 0)


async def test_what_becomes_of_a_push_that_crossed_is_told_where_the_connector_is(two: Two) -> None:
    link, _ = two.far.attach()
    await until(lambda: KEY in two.view.keys)
    for number in range(5):
        taker = two.open()
        await until(lambda number=number: len(link.streams) == number + 1)  # type: ignore[misc]
        if number == 3:
            taker.stream.reset(FAULTS["deadline-exceeded"].wire)
            await until(lambda: link.streams[3].was_reset is not None)
        else:
            link.streams[number].handler.on_reset(FAULTS["target-unreachable"].wire, True)
    record = two.far.book.find(KEY, "c1")
    assert record is not None
    await until(lambda: record.is_tripped)
    assert two.near.book.find(KEY, "c1") is None
    await until(lambda: two.near.wide.states(KEY) == [("red", "target-unreachable")])
    two.open()
    await until(lambda: len(link.streams) == 6)
    link.streams[5].handler.on_answer(b"204", b"", True, False)
    assert two.far.book.doubts


async def test_a_retry_goes_to_another_connector(two: Two) -> None:
    _, here = two.near.attach("c1")
    links = {name: two.far.attach(name)[0] for name in ("c1", "c2")}
    await until(lambda: two.view.keys.get(KEY) == ["c1", "c2"])
    session = two.near.session_of(here)
    two.near.registry.detach(session)
    two.open((session,))
    await until(lambda: bool(links["c2"].streams))
    assert not links["c1"].streams


async def test_nothing_is_there_for_whom_all_were_tried(two: Two) -> None:
    two.far.attach()
    await until(lambda: KEY in two.view.keys)
    hop = two.near.wide.choose(*KEY)
    assert isinstance(hop, Hop)
    assert hop.identity.connector == "c1"
    assert two.near.wide.choose(*KEY, (hop,)) is None


async def test_who_waits_is_called_for_a_siblings_tunnel(two: Two) -> None:
    called = asyncio.Event()
    two.near.wide.wait(KEY, called.set)
    two.far.attach()
    await asyncio.wait_for(called.wait(), 5)
    assert isinstance(two.near.wide.choose(*KEY), Hop)


async def test_a_sibling_that_refused_is_asked_again_after_a_moment(two: Two) -> None:
    link, _ = two.far.attach()
    await until(lambda: KEY in two.view.keys)
    link.can_open = False  # full, and no news tells of that
    hop = two.near.wide.choose(*KEY)
    assert isinstance(hop, Hop)
    called = asyncio.Event()
    two.near.wide.doubt(KEY, hop)
    two.near.wide.doubt(KEY, hop)
    assert two.near.wide.choose(*KEY) is None
    two.near.wide.wait(KEY, called.set)
    await asyncio.wait_for(called.wait(), 5)
    assert isinstance(two.near.wide.choose(*KEY), Hop)
    for _ in range(6):
        two.view.doubt(KEY)
        two.view._trust(KEY)
    assert two.view._lasted == {KEY: 0.8}, "each doubt lasts longer while there are no news"


async def test_its_next_news_end_the_doubt(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_relay.workers.sibling.DOUBT", (3600.0, 3600.0))
    two.far.attach("c1")
    await until(lambda: KEY in two.view.keys)
    hop = two.near.wide.choose(*KEY)
    assert isinstance(hop, Hop)
    called = asyncio.Event()
    two.near.wide.doubt(KEY, hop)
    two.near.wide.wait(KEY, called.set)
    two.far.attach("c2")
    await asyncio.wait_for(called.wait(), 5)
    assert isinstance(two.near.wide.choose(*KEY), Hop)
    two.near.wide.doubt(KEY, hop)
    two.far.die()
    await until(lambda: not two.view.is_connected)
    await two.far.serve()
    await until(lambda: KEY in two.view.keys)
    assert isinstance(two.near.wide.choose(*KEY), Hop)


async def test_who_leaves_waits_until_its_siblings_have_what_only_it_has(two: Two) -> None:
    two.near.attach("c1")
    far = FakeTunnels(two.near.loop)
    leaving = two.near.loop.create_task(until_covered(cast(Any, far), two.near.registry, two.near.wide, 60.0))
    await until(lambda: far.asked == [60.0])
    await asyncio.sleep(0.1)
    assert not leaving.done()
    two.far.attach("c1")
    await asyncio.wait_for(leaving, 5)


async def test_it_does_not_wait_for_ever(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloud_relay.workers.covering.PATIENCE", 0.05)
    two.near.attach("c1")
    tunnels = FakeTunnels(two.near.loop)
    warn = Mock()
    monkeypatch.setattr("cloud_relay.workers.covering.log.warning", warn)
    await until_covered(cast(Any, tunnels), two.near.registry, two.near.wide, 60.0)
    warn.assert_called_once_with(
        "no connector has come to another worker", targets=1, names="acme/walldorf/frun"
    )  # fmt: skip


async def test_one_that_serves_nobody_says_so_to_those_that_come_later_too(two: Two) -> None:
    two.far.host.tell_blind(is_blind=True)
    await until(lambda: two.view.is_blind)
    again = two.near.look_at(two.far, 2)
    await until(lambda: again.is_blind)
    two.far.host.tell_blind(is_blind=False)
    await until(lambda: not two.view.is_blind and not again.is_blind)


async def test_who_pushes_there_is_told_to_those_that_come_later_too(two: Two) -> None:
    two.far.host.tell_active([("acme", "s4"), ("globex", "ibp")])
    await until(lambda: two.near.wide.active() == {("acme", "s4"), ("globex", "ibp")})
    again = two.near.look_at(two.far, 2)
    await until(lambda: again.active == [("acme", "s4"), ("globex", "ibp")])
    two.far.host.tell_active([])
    await until(lambda: not two.near.wide.active() and not again.active)


async def test_what_ends_or_changes_is_told(two: Two) -> None:
    _, attendant = two.far.attach()
    await until(lambda: KEY in two.view.keys and len(two.view.rivals) == 1)
    session = two.far.session_of(attendant)
    two.far.registry.update_targets(session, {"other": "tcp"})
    await until(lambda: list(two.view.keys) == [("acme", "walldorf", "tcp:other")])
    two.far.registry.detach(session)
    await until(lambda: not two.view.keys and not two.view.rivals)
    assert two.near.wide.choose(*KEY) is None


async def test_a_sibling_that_dies_is_forgotten_and_found_again(two: Two) -> None:
    two.far.attach()
    await until(lambda: KEY in two.view.keys)
    taker = two.open()
    await until(lambda: bool(two.far.host.crossed))
    two.far.die()
    await until(lambda: not two.view.keys)
    assert [refused for _, refused in taker.resets] == [False]
    assert two.near.wide.choose(*KEY) is None
    await two.far.serve()
    await until(lambda: KEY in two.view.keys)


async def test_who_closes_knows_when_all_links_have_ended(two: Two) -> None:
    host = two.far.host
    for task in two.near.tasks:
        task.cancel()
    two.view.close()
    host.close()
    async with asyncio.timeout(5):
        await two.view.ended()
        await host.ended()
    assert not two.view.is_connected
    host.connected(late := LocalTransport(two.far.loop))
    assert late._is_closing, "nobody would end it"


async def test_one_that_does_not_say_goodbye_can_be_dropped(two: Two, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LocalTransport, "_on_goodbye", lambda _transport, _payload: None)
    for task in two.near.tasks:
        task.cancel()
    two.view.close()
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.05):
            await two.view.ended()
    two.view.abort()
    async with asyncio.timeout(1):
        await two.view.ended()


@pytest.mark.parametrize("uid", [os.geteuid() + 1, None])
async def test_a_process_of_another_user_is_no_sibling(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int | None
) -> None:
    worker = Worker(1, tmp_path)
    await worker.serve()
    monkeypatch.setattr(local, "peer_uid", lambda _transport: uid)
    reader, writer = await asyncio.open_unix_connection(str(worker.path))
    try:
        with contextlib.suppress(ConnectionError):  # what it sends is not even read
            writer.write(bytes(64))
            await writer.drain()
            assert await asyncio.wait_for(reader.read(), 5) == b""
        await until(lambda: "0 siblings" in repr(worker.host))
    finally:
        writer.close()
        await worker.stop()


async def test_a_second_instance_at_another_worker_is_refused_while_the_first_lives(two: Two) -> None:
    first, _ = two.far.attach(instance="i1")
    await until(lambda: bool(two.view.rivals))
    second, _ = two.near.attach(instance="i2")
    await until(lambda: bool(second.closed))
    assert second.closed == ("duplicate-instance",)
    assert not first.closed


async def test_one_that_does_not_answer_is_replaced(two: Two) -> None:
    first, _ = two.far.attach(instance="i1")
    first.answers_pings = False
    await until(lambda: bool(two.view.rivals))
    second, attendant = two.near.attach(instance="i2")
    await until(lambda: bool(first.closed) and two.near.session_of(attendant) in two.near.registry)
    assert first.closed == ("replaced",)
    assert not second.closed


async def test_one_that_lives_and_exposes_something_else_meanwhile_stays(two: Two) -> None:
    first, old = two.far.attach(instance="i1")
    await until(lambda: bool(two.view.rivals))
    second, _ = two.near.attach(instance="i2")
    two.far.registry.update_targets(two.far.session_of(old), {"other": "http"})
    await until(lambda: bool(second.closed))
    assert second.closed == ("duplicate-instance",)
    assert not first.closed


async def test_one_that_ends_meanwhile_contests_nothing(two: Two) -> None:
    _, old = two.far.attach(instance="i1")
    await until(lambda: bool(two.view.rivals))
    _, new = two.near.attach(instance="i2")
    two.far.registry.detach(two.far.session_of(old))
    began = asyncio.get_running_loop().time()
    await until(lambda: two.near.session_of(new) in two.near.registry)
    assert asyncio.get_running_loop().time() - began < 0.5


async def test_of_two_instances_that_come_in_the_same_moment_the_first_stays(two: Two) -> None:
    first, _ = two.far.attach(instance="i1", ago=0.01)
    second, attendant = two.near.attach(instance="i2")
    assert two.near.session_of(attendant) in two.near.registry, "neither worker knows of the other's session"
    await until(lambda: bool(second.closed))
    assert second.closed == ("duplicate-instance",)
    assert len(two.near.registry) == 0
    await asyncio.sleep(0.1)
    assert not first.closed
    assert len(two.far.registry) == 1


async def test_unless_it_is_dead(two: Two) -> None:
    first, _ = two.far.attach(instance="i1", ago=0.01)
    first.answers_pings, first.last_received = False, 0.0
    second, attendant = two.near.attach(instance="i2")
    await until(lambda: bool(first.closed))
    assert first.closed == ("replaced",)
    assert not second.closed
    assert two.near.session_of(attendant) in two.near.registry
    assert len(two.far.registry) == 0


async def test_the_first_tunnel_of_an_instance_speaks_for_those_that_came_later(two: Two) -> None:
    first, _ = two.far.attach(instance="i1", ago=0.01)
    second, _ = two.near.attach(instance="i2")
    third, _ = two.far.attach(instance="i1")
    await until(lambda: bool(second.closed))
    await asyncio.sleep(0.1)
    assert not first.closed
    assert not third.closed


async def test_the_same_instance_may_have_tunnels_at_both(two: Two) -> None:
    two.far.attach(instance="i1")
    await until(lambda: bool(two.view.rivals))
    _, attendant = two.near.attach(instance="i1")
    assert two.near.session_of(attendant) in two.near.registry


@pytest.mark.parametrize("data", [b"[1]\n", b"nonsense\n", b"x" * (MAX_LINE + 1)])
def test_what_is_no_line_is_an_error(data: bytes) -> None:
    with pytest.raises(ValueError, match=r".+"):
        list(Lines().feed(data))


def test_lines_are_put_together_whatever_the_pieces() -> None:
    whole = line({"a": 1}) + line({"b": "ü"})
    for size in range(1, len(whole)):
        lines = Lines()
        got = [one for at in range(0, len(whole), size) for one in lines.feed(whole[at : at + size])]
        assert got == [{"a": 1}, {"b": "ü"}]
