"""Attendance: contests for an identity, and what a connector can make us log."""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import structlog

from cloud_relay.admit import Identity
from cloud_relay.attendance import Attendance, Attendant
from cloud_relay.registry import Registry
from cloud_relay.session import Session
from shared.logs import LogLimiter, setup_logging
from shared.protocol import Hello, StallCounts

IDENTITY = Identity("acme", "walldorf", "c1", "ab", datetime(2030, 1, 1, tzinfo=UTC))


class CoarseLoop:
    """A loop whose clock stands still while callbacks run, as uvloop's does."""

    __module__ = "uvloop"

    def __init__(self) -> None:
        self.started = time.monotonic()
        self.later: list[Callable[[], None]] = []

    def time(self) -> float:
        return self.started

    def call_later(self, _: float, callback: Callable[..., None], *args: Any) -> Any:
        self.later.append(lambda: callback(*args))
        return self

    def call_soon(self, callback: Callable[[], None]) -> None:
        callback()

    def cancel(self) -> None:
        """As a timer's handle."""


class FakeLink:
    def __init__(self) -> None:
        self.is_draining = False
        self.last_received = 0.0
        self.closed: tuple[str, ...] = ()
        self.pings = 0
        self.peer = Hello()
        self.stalls: StallCounts | None = None

    def ping(self) -> None:
        self.pings += 1

    def count_stalls(self, counts: StallCounts) -> None:
        self.stalls = counts

    def close(self, *why: str) -> None:
        self.closed = why

    def describe(self) -> str:
        return "a peer"


class Room:
    """An attendance, and sessions that come to it."""

    def __init__(self) -> None:
        self.loop = CoarseLoop()
        self.registry = Registry(cast(Any, self.loop))
        self.attendance = Attendance(cast(Any, self.loop), self.registry)

    def arrive(self, instance: str, **targets: str) -> tuple[FakeLink, Attendant]:
        link = FakeLink()
        attendant = Attendant(cast(Any, self.loop), self.attendance, IDENTITY, lambda _: None)
        attendant.on_ready(cast(Any, link), Hello(instance=instance, targets=targets))
        return link, attendant

    @property
    def attached(self) -> list[Session]:
        return self.registry.sessions()


def test_what_came_before_the_question_is_no_answer():
    room = Room()
    old, _ = room.arrive("first")
    old.last_received = time.monotonic()
    assert old.last_received > room.loop.time()
    new, attendant = room.arrive("second")
    assert old.pings == 1 + 1, "each is asked once when it comes"
    room.loop.later.pop()()
    assert old.closed == ("replaced",)
    assert new.closed == ()
    assert room.attached == [attendant.session]


def test_what_came_after_it_is():
    room = Room()
    old, attendant = room.arrive("first")
    new, _ = room.arrive("second")
    old.last_received = time.monotonic()
    room.loop.later.pop()()
    assert new.closed == ("duplicate-instance",)
    assert room.attached == [attendant.session]


def test_a_hello_without_an_instance_is_refused():
    room = Room()
    link, attendant = room.arrive("")
    assert link.closed[0] == "protocol-error"
    assert attendant.session is None
    assert room.attached == []
    attendant.on_closed(cast(Any, link), "protocol-error", "")


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    lines: list[dict[str, Any]] = []
    limiter = LogLimiter(clock=lambda: 0.0)

    def note(_: object, __: str, key: str, event: str, **values: Any) -> None:
        if "limiter" not in values and limiter.admit(key) is not None:
            lines.append({"event": event, **values})

    monkeypatch.setattr("cloud_relay.attendance.log_limited", note)
    return lines


def test_targets_that_did_not_change_are_no_news(logged):
    room = Room()
    link, attendant = room.arrive("first", a="http")
    attendant.on_targets(cast(Any, link), {"a": "http"})
    assert logged == []
    attendant.on_targets(cast(Any, link), {"a": "tcp"})
    assert [line["targets"] for line in logged] == [["a"]]
    assert room.attached[0].targets == {"a": "tcp"}


def test_what_a_connector_can_make_us_log_is_bounded(logged):
    room = Room()
    link, attendant = room.arrive("first")
    for number in range(100):
        targets = {f"t{index:03}": "http" for index in range(500 - number)}
        attendant.on_targets(cast(Any, link), targets)
        assert room.attached[0].targets == targets
    assert len(logged) == 5
    assert logged[0]["targets"] == [*(f"t{index:03}" for index in range(20)), "and 480 more"]


def test_a_connector_that_comes_back_as_fast_as_it_is_thrown_out_writes_few_lines(monkeypatch):
    limiter = LogLimiter(rate=1.0, burst=200, clock=lambda: 0.0)
    monkeypatch.setattr("cloud_relay.attendance._LIVES", limiter)
    stream = io.StringIO()
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    setup_logging("json", "info", stream)
    try:
        room = Room()
        for _ in range(10_000):
            link, attendant = room.arrive("first")
            attendant.on_closed(cast(Any, link), "protocol-error", "a bad frame")
    finally:
        structlog.reset_defaults()
        logging.captureWarnings(capture=False)
        root.handlers[:] = handlers
        root.setLevel(level)
    lines = [json.loads(line)["event"] for line in stream.getvalue().splitlines()]
    assert lines.count("tunnel attached") == lines.count("tunnel ended") == 200
    assert len(lines) == 400


def test_tunnels_are_counted_by_connector_and_by_how_they_end():
    room = Room()
    link, attendant = room.arrive("first")
    counts = room.attendance.counts.of(IDENTITY.key)
    assert (counts.attached, counts.ended) == (1, {})
    assert link.stalls is counts.stalls
    attendant.on_closed(cast(Any, link), "silent", "")
    second, attendant = room.arrive("second")
    assert second.stalls is counts.stalls
    attendant.on_closed(cast(Any, second), "going-away", "")
    assert (counts.attached, counts.ended) == (2, {"silent": 1, "going-away": 1})
