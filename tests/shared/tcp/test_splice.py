"""An edge and a stream, coupled, in whatever order both and the time act: a good end is one only when all is out."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import example, given
from hypothesis import strategies as st

from shared.errors import BY_WIRE, FAULTS
from shared.tcp.splice import LAST_WORDS, Splice, who_ended
from tests.cloud_relay.ingress.fakes import Clock

IDLE = 100.0
RESET = 161


class Edge:
    """A connection that takes `room` bytes at once; what it has said of its end."""

    def __init__(self) -> None:
        self.room = 0
        self.written = b""
        self.handed_over = 0
        self.is_full = self.is_paused = self.has_ended = self.has_eof = self.was_reset = self.is_lost = False

    @property
    def waiting(self) -> int:
        return len(self.written) - self.handed_over

    @property
    def is_closing(self) -> bool:
        return self.has_ended and self.has_eof

    def write(self, data: bytes) -> None:
        assert not self.has_ended
        assert not self.was_reset
        assert not self.is_lost
        self.written += data
        self.is_full = self.waiting > 50

    def end(self) -> None:
        assert not self.has_ended, "ended twice"
        self.has_ended = True

    def reset(self) -> None:
        self.was_reset = True

    def pause_reading(self) -> None:
        self.is_paused = True

    def resume_reading(self) -> None:
        self.is_paused = False


class Stream:
    """The near end of a stream, judged as it is used."""

    def __init__(self) -> None:
        self.got = b""
        self.ended = self.far_ended = self.was_reset = False
        self.queued = self.handed = self.taken = 0
        self.wants = False

    @property
    def is_over(self) -> bool:
        return self.was_reset or (self.ended and self.far_ended and not self.queued)

    @property
    def is_writable(self) -> bool:
        self.wants = self.wants or self.queued > 60
        return self.queued <= 60

    @property
    def is_sent(self) -> bool:
        self.wants = self.wants or self.queued > 0
        return not self.queued

    def send(self, data: bytes, end: bool = False) -> None:
        assert not self.ended, "sent after the end"
        assert not self.was_reset
        self.got += data
        self.queued += len(data) + end
        self.ended = end

    def consumed(self, n: int) -> None:
        assert n > 0
        self.taken += n
        assert self.taken <= self.handed, "more consumed than was handed over"

    def reset(self, wire_code: int, refused: bool = False) -> None:
        assert wire_code in BY_WIRE
        self.was_reset = True


class One(Splice):
    IDLE = FAULTS["idle-timeout"]
    EDGE_LOST = FAULTS["sender-reset"]

    def __init__(self, clock: Clock, edge: Edge, stream: Stream) -> None:
        super().__init__(cast(Any, clock), clock.time, IDLE)
        self.edge = cast(Any, edge)
        self._stream = cast(Any, stream)
        self.settled = 0
        self.watch()

    def settle(self) -> None:
        self.settled += 1


class World:
    """What can happen, each as a method that gets a number."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.here = Edge()
        self.stream = Stream()
        self.splice = One(self.clock, self.here, self.stream)
        self.said = b""

    # What the peer at the edge does.

    def says(self, size: int) -> None:
        if not (self.here.has_eof or self.here.is_paused or self.is_edge_gone):
            self.said += b"s" * size
            self.splice.on_bytes(b"s" * size)

    def hangs_up(self, _: int) -> None:
        if not (self.here.has_eof or self.is_edge_gone):
            self.here.has_eof = True
            self.splice.on_eof()

    def reads(self, size: int) -> None:
        here = self.here
        if not self.is_edge_gone:
            here.handed_over = min(len(here.written), here.handed_over + size * 5)
            if here.is_full and here.waiting <= 10:
                here.is_full = False
                self.splice.on_drained()

    def vanishes(self, _: int) -> None:
        if not self.is_edge_gone:
            self._lose(ConnectionResetError())

    # What the tunnel does.

    def brings(self, size: int) -> None:
        if not (self.stream.is_over or self.stream.far_ended):
            self.stream.handed += size
            self.splice.on_data(b"t" * size, end=False)

    def ends(self, size: int) -> None:
        if not (self.stream.is_over or self.stream.far_ended):
            self.stream.handed += size
            self.stream.far_ended = True
            self.splice.on_data(b"t" * size, end=True)

    def takes(self, size: int) -> None:
        stream = self.stream
        if not stream.is_over:
            stream.queued = max(0, stream.queued - size * 3)
            if stream.wants and stream.queued <= 30:
                stream.wants = False
                self.splice.on_writable()

    def resets(self, _: int) -> None:
        if not self.stream.is_over:
            self.stream.was_reset = True
            self.splice.on_reset(RESET, refused=False)

    # What else happens.

    def is_given_up(self, _: int) -> None:
        self.splice.fail(FAULTS["starting"])

    def time_passes(self, size: int) -> None:
        self.clock.sleep(size)

    # Within.

    def does(self, name: str, size: int) -> None:
        getattr(self, name)(size)
        self.clock.run()
        self.settle_edge()
        assert self.splice.settled == self.splice.is_over
        if self.splice.is_over and self.splice.fault is None:
            self.must_have_ended_well()

    def must_have_ended_well(self) -> None:
        here, stream = self.here, self.stream
        assert here.is_lost
        assert not here.was_reset
        assert not here.waiting, "it counts as delivered before its last bytes are out"
        assert here.written == b"t" * stream.handed
        assert stream.ended
        assert stream.far_ended
        assert not stream.queued
        assert stream.got == self.said
        assert stream.taken == stream.handed

    @property
    def is_edge_gone(self) -> bool:
        return self.here.is_lost

    def settle_edge(self) -> None:
        """What a transport does by itself, on a later tick."""
        here = self.here
        if not here.is_lost and (here.was_reset or (here.is_closing and not here.waiting)):
            self._lose(None)

    def _lose(self, error: Exception | None) -> None:
        self.here.is_lost = True
        self.splice.on_lost(error)


EVENTS = ["says", "hangs_up", "reads", "vanishes", "brings", "ends", "takes", "resets", "is_given_up", "time_passes"]
STEPS = st.lists(st.tuples(st.sampled_from(EVENTS), st.integers(1, 40)), min_size=2, max_size=40)


@given(steps=STEPS, goes_well=st.booleans())
@example(steps=[("brings", 40), ("ends", 40), ("hangs_up", 1), ("vanishes", 1)], goes_well=True)
@example(steps=[("ends", 1), ("says", 40), ("hangs_up", 1), ("reads", 1), ("resets", 1)], goes_well=False)
def test_any_order(steps: list[tuple[str, int]], goes_well: bool) -> None:
    world = World()
    splice = world.splice
    for name, size in steps:
        world.does(name, size)
    if goes_well:
        was_cut = splice.is_over and splice.fault is not None
        for name in ("hangs_up", "ends", *["reads", "takes"] * 40):
            world.does(name, 40)
        assert (splice.fault is None) is not was_cut, "nothing may keep it from ending well"
    else:
        world.does("time_passes", int(IDLE * 2 + LAST_WORDS))
    assert splice.settled == 1
    assert world.clock.armed == 0
    if splice.fault is None:
        world.must_have_ended_well()
    else:
        assert world.stream.was_reset or world.stream.is_over
        assert world.here.was_reset or world.here.is_lost


def test_the_end_that_comes_last_is_passed_on_when_all_is_out() -> None:
    world = World()
    world.ends(40)
    world.hangs_up(1)
    world.settle_edge()
    assert (world.here.waiting, world.stream.ended) == (40, False)
    world.reads(40)
    world.settle_edge()
    assert world.stream.ended
    assert not world.splice.is_over, "its end is still in the queue"
    world.takes(1)
    assert world.splice.is_over
    assert world.splice.fault is None


def test_last_bytes_that_nobody_reads_are_waited_for_so_long() -> None:
    world = World()
    world.ends(40)
    world.hangs_up(1)
    world.clock.sleep(LAST_WORDS * 0.9)
    world.clock.run()
    assert not world.splice.is_over
    world.clock.sleep(LAST_WORDS * 0.2)
    world.clock.run()
    assert world.splice.fault is FAULTS["idle-timeout"]
    assert world.stream.was_reset
    assert not world.stream.ended


def test_who_ended() -> None:
    cases = ((True, True), (True, False), (False, True), (False, False))
    told = [who_ended(has_sender=sender, has_target=target) for sender, target in cases]
    assert told == ["both", "sender", "target", "none"]
