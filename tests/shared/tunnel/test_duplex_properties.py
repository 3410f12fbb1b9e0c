"""A Duplex, in whatever order connection, stream, owner and time act: it ends once, and keeps nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import BY_WIRE
from shared.tunnel.duplex import END_PATIENCE, LINGER, Duplex, EdgeRules
from tests.cloud_relay.ingress.fakes import Clock, FakeTransport


class Stream:
    """What a Duplex may do to its stream, judged as it does it."""

    def __init__(self) -> None:
        self.handler: Any = None
        self.got = b""
        self.ended = self.was_reset = self.far_ended = False
        self.has_room = True
        self.handed = self.taken = 0

    @property
    def is_writable(self) -> bool:
        return self.has_room

    @property
    def is_sent(self) -> bool:
        return self.has_room

    @property
    def is_over(self) -> bool:
        return self.was_reset or (self.ended and self.far_ended and self.has_room)

    def send(self, data: bytes, end: bool = False) -> None:
        if self.was_reset:
            return
        assert not self.ended, "sent after the end"
        self.got += data
        self.ended = end

    def consumed(self, n: int) -> None:
        assert n > 0
        self.taken += n
        assert self.taken <= self.handed, "more consumed than was handed over"

    def reset(self, wire_code: int, refused: bool = False) -> None:
        assert wire_code in BY_WIRE
        self.was_reset = True


class Owner:
    def __init__(self) -> None:
        self.codes: list[str] = []
        self.gone = 0

    def on_over(self, code: str) -> None:
        self.codes.append(code)

    def on_gone(self, error: Exception | None) -> None:
        assert self.codes, "gone before it was over"
        self.gone += 1

    def code_of(self, wire_code: int, refused: bool) -> str:
        return BY_WIRE[wire_code].code


class World:
    def __init__(self, is_tls: bool) -> None:
        self.clock = Clock()
        self.is_tls = is_tls
        self.transport = FakeTransport(cast(Any, self), is_tls=is_tls)
        self.stream = Stream()
        self.owner = Owner()
        self.said = b""
        self.has_said_all = False
        self.duplex = Duplex(
            self.owner, self.transport, cast(Any, self.stream), EdgeRules(60.0, "sender-gone", "idle-too-long"),
            cast(Any, self.clock), self.clock.time,
        )  # fmt: skip
        self.transport.protocol = self.stream.handler = self.duplex
        self.duplex.start(b"", b"", end=False)

    # What the peer at the connection does.

    def says(self, size: int) -> None:
        if self.has_said_all or self.transport.is_lost or self.transport.is_paused:
            return
        data = bytes([len(self.said) & 255]) * size
        if not self.transport.is_closing():
            self.said += data
        self.duplex.data_received(data)

    def hangs_up(self, _: int) -> None:
        if self.has_said_all or self.transport.is_lost or self.transport.is_paused:
            return
        self.has_said_all = True
        if not self.duplex.eof_received():
            self.transport.close()

    def vanishes(self, _: int) -> None:
        self.transport.lose(ConnectionResetError())

    def reads(self, _: int) -> None:
        self.transport.drain()
        if self.transport.how_ended == "closed":
            self.transport.lose()

    def reads_no_more(self, _: int) -> None:
        if not self.transport.is_closing():
            self.transport.room = min(self.transport.room, 10)

    # What comes out of the tunnel.

    def brings(self, size: int) -> None:
        if not (self.stream.is_over or self.stream.far_ended):
            self.stream.handed += size
            self.duplex.on_data(b"x" * size, end=False)

    def ends(self, size: int) -> None:
        if not (self.stream.is_over or self.stream.far_ended):
            self.stream.handed += size
            self.stream.far_ended = True
            self.duplex.on_data(b"x" * size, end=True)

    def resets(self, _: int) -> None:
        if not self.stream.is_over:
            self.stream.was_reset = True
            self.duplex.on_reset(161, refused=False)

    def is_full(self, _: int) -> None:
        if not self.stream.is_over:
            self.stream.has_room = False

    def has_room(self, _: int) -> None:
        if not self.stream.has_room:
            self.stream.has_room = True
            if not self.stream.is_over:
                self.duplex.on_writable()

    # What else happens.

    def is_aborted(self, _: int) -> None:
        self.duplex.abort("starting")

    def time_passes(self, size: int) -> None:
        self.clock.sleep(size * size / 50)


_EVENTS = [name for name in vars(World) if not name.startswith("_")]
_STEPS = st.lists(st.tuples(st.sampled_from(_EVENTS), st.integers(1, 40)), min_size=3, max_size=40)


@given(is_tls=st.booleans(), steps=_STEPS)
def test_any_order(is_tls: bool, steps: list[tuple[str, int]]) -> None:
    world = World(is_tls)
    for name, size in steps:
        getattr(world, name)(size)
        world.clock.run()
        assert len(world.owner.codes) <= 1
    world.clock.sleep(200.0 + LINGER)
    world.reads(0)
    world.clock.run()
    assert len(world.owner.codes) == 1
    assert world.owner.gone == 1
    assert world.clock.armed == 0
    assert world.stream.is_over
    (code,) = world.owner.codes
    if not code:
        # A clean end: both directions were whole, and what came was given back.
        assert world.stream.ended
        assert world.stream.has_room, "over before its last bytes are on their way"
        assert world.transport.is_lost, "over before its last bytes are out"
        assert world.stream.got == world.said
        assert world.stream.far_ended
        assert world.stream.taken == world.stream.handed
        assert b"".join(world.transport.writes) == b"x" * world.stream.handed
        assert world.transport.how_ended in {"closed", "aborted", "lost"}
    elif not world.transport.is_lost or world.transport.how_ended not in {"lost", "closed"}:
        assert world.transport.how_ended == "reset"


@pytest.mark.parametrize(
    ("behind", "says_goodbye", "code"),
    [(b"", True, ""), (b"late", True, "sender-gone"), (b"", False, "sender-gone"), (b"late", False, "sender-gone")],
)
def test_what_comes_behind_our_goodbye_is_no_clean_end(behind: bytes, says_goodbye: bool, code: str) -> None:
    world = World(is_tls=True)
    world.transport.room = -1  # its end takes a while
    world.stream.far_ended = True
    world.duplex.on_data(b"", end=True)
    world.clock.sleep(END_PATIENCE * 1.1)
    assert world.transport.how_ended == "closed"
    assert world.owner.codes == []
    if behind:
        world.duplex.data_received(behind)
    if says_goodbye:
        world.duplex.eof_received()
    world.transport.lose()
    assert world.owner.codes == [code]
    assert world.stream.ended is (not code)
    assert world.stream.was_reset is bool(code)


def test_a_connection_that_is_lost_without_a_goodbye_is_told_at_once() -> None:
    for is_tls in (False, True):
        world = World(is_tls)
        world.says(5)
        world.transport.lose()
        assert world.owner.codes == ["sender-gone"]
        assert (world.stream.was_reset, world.stream.ended) == (True, False)


def test_last_bytes_that_cannot_leave_are_no_clean_end() -> None:
    world = World(is_tls=False)
    world.reads_no_more(0)
    world.ends(40)
    world.hangs_up(0)
    assert world.owner.codes == []
    world.vanishes(0)
    assert world.owner.codes == ["sender-gone"]


def test_under_tls_a_far_end_that_never_comes_is_given_up() -> None:
    world = World(is_tls=True)
    world.hangs_up(0)
    world.clock.sleep(LINGER * 0.9)
    assert world.owner.codes == []
    world.clock.sleep(LINGER * 0.2)
    assert world.owner.codes == ["sender-gone"]
