"""A push that becomes a WebSocket: what is asked of the target, what the sender gets, and how it ends."""

from __future__ import annotations

from typing import Any, cast

import pytest

from cloud_relay.ingress.context import IngressContext
from cloud_relay.routing import Route, RoutingTable
from cloud_relay.senders import Sender
from shared.errors import FAULTS
from shared.tunnel.duplex import END_PATIENCE, LINGER
from tests.cloud_relay.ingress.kit import Relay, SenderSide
from tests.cloud_relay.ingress.wire import get, request

ACCEPT = (b"Sec-WebSocket-Accept", b"s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")
SWITCHED = (
    b"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
    b"Upgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
)


def ask(**headers: str) -> bytes:
    fields = {
        "connection": "keep-alive, Upgrade",
        "upgrade": "WebSocket",
        "sec_websocket_key": "dGhlIHNhbXBsZSBub25jZQ==",
        "sec_websocket_version": "13",
    }
    return get(**(fields | headers))


def with_routes(relay: Relay, routes: list[Route]) -> IngressContext:
    context = relay.context
    return IngressContext(
        routing=RoutingTable(routes), authenticator=context.authenticator, limits=context.limits,
        registry=context.registry, budget=context.budget, access_log=context.access_log,
    )  # fmt: skip


def upgraded(relay: Relay, *, first: bytes = b"", is_tls: bool = False) -> SenderSide:
    sender = relay.connect(is_tls=is_tls)
    sender.send(ask())
    relay.stream.answer(101, first, end=False, length=None, headers=[ACCEPT])
    return sender


def test_what_the_target_is_asked():
    relay = Relay(upgrades=True)
    relay.connect().send(ask(keep_alive="timeout=5", te="trailers"))
    head = relay.stream.head
    assert head.upgrade == b"websocket"
    assert (head.method, head.content_length) == (b"GET", None)
    assert not relay.stream.ended
    assert relay.stream.deadline == pytest.approx(relay.clock.now + 20.0)
    names = {name.lower() for name, _ in head.headers}
    assert {b"sec-websocket-key", b"sec-websocket-version"} <= names
    assert names.isdisjoint({b"connection", b"upgrade", b"keep-alive", b"te"})


def test_bytes_both_ways_and_both_ends():
    relay = Relay(upgrades=True)
    sender = upgraded(relay, first=b"from the target")
    assert sender.received == SWITCHED + b"from the target"
    sender.send(b"GET /metrics HTTP/1.1\r\n\r\n")  # bytes, not a request
    relay.stream.data(b" and more")
    assert relay.in_flight == (1, 1, 1)
    sender.hang_up()
    assert relay.stream.ended
    assert not sender.is_closed
    relay.stream.data(b"!", end=True)
    assert sender.received == SWITCHED + b"from the target and more!"
    assert relay.stream.body == b"GET /metrics HTTP/1.1\r\n\r\n"
    assert sender.transport.how_ended == "closed"
    relay.assert_nothing_left()
    relay.assert_all_closed()
    (line,) = relay.access_log.lines
    assert (line["status"], line["bytes_in"], line["bytes_out"]) == (101, 25, 25)
    assert "code" not in line
    assert relay.route_metrics.by_class[1] == 1
    assert (relay.route_metrics.bytes_in, relay.route_metrics.bytes_out) == (25, 25)
    assert relay.sender.metrics.pushes == 1


def test_what_comes_before_the_101_is_held_bounded_and_is_no_request():
    relay = Relay(upgrades=True)
    sender = relay.connect()
    early = b"POST /metrics HTTP/1.1\r\n\r\n" * 4000
    sender.send(ask() + early[:100])
    sender.send(early[100:], by=8192)
    assert sender.transport.is_paused
    assert len(sender.waiting) > 1
    assert relay.stream.body == b""
    relay.stream.answer(101, end=False, length=None)
    sender.flush()
    assert relay.stream.body == early
    assert len(relay.streams) == 1
    sender.vanish()
    relay.assert_nothing_left()


@pytest.mark.parametrize(
    "raw",
    [
        ask(upgrade="h2c"),
        ask(upgrade="websocket, h2c"),
        ask(upgrade="websocket\r\nUpgrade: websocket"),
        ask(connection="keep-alive"),
        ask(connection="close"),
        ask(version="1.0"),
        request("POST", "/metrics", None, connection="upgrade", upgrade="websocket"),
    ],
    ids=["h2c", "a list", "twice", "not in Connection", "close", "HTTP/1.0", "POST"],
)
def test_any_other_upgrade_is_dropped(raw):
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(raw)
    assert relay.stream.head.upgrade is None
    assert relay.stream.ended
    assert b"upgrade" not in {name.lower() for name, _ in relay.stream.head.headers}
    relay.stream.answer(200, b"ok")
    assert sender.answers() == [(200, b"ok")]
    relay.assert_nothing_left()


def test_a_route_that_does_not_say_so_drops_it():
    relay = Relay()
    sender = relay.connect()
    sender.send(ask())
    assert (relay.stream.head.upgrade, relay.stream.ended) == (None, True)
    relay.stream.answer(426, b"?")
    assert sender.answers("GET") == [(426, b"?")]
    relay.assert_nothing_left()


@pytest.mark.parametrize("framing", ["content-length: 5\r\n\r\nhello", "transfer-encoding: chunked\r\n\r\n0\r\n\r\n"])
def test_a_body_is_refused(framing):
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask()[:-2] + framing.encode())
    assert sender.last.headers["qanat-error"] == "upgrade-with-body"
    assert sender.last.headers["connection"] == "close"
    assert not relay.streams
    sender.hang_up()
    relay.assert_all_closed()


def test_a_content_length_of_0_is_no_body_and_is_not_passed_on():
    relay = Relay(upgrades=True)
    relay.connect().send(ask()[:-2] + b"content-length: 0\r\n\r\n")
    assert relay.stream.head.upgrade == b"websocket"
    assert relay.stream.head.content_length is None


@pytest.mark.parametrize("status", [200, 204, 401, 404, 426, 503])
def test_any_other_answer_is_an_ordinary_one(status):
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    relay.stream.answer(status, b"" if status == 204 else b"no", length=None if status == 204 else 2)
    assert relay.streams[0].ended
    sender.send(get())
    relay.stream.answer(200, b"next")
    assert [status for status, _ in sender.answers("GET")] == [status, 200]
    relay.assert_nothing_left()


@pytest.mark.parametrize("is_ours", [False, True])
def test_without_an_upgrade_what_came_early_is_no_request(is_ours):
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask() + get())
    if is_ours:
        relay.stream.fail("target-unreachable")
    else:
        relay.stream.answer(426, b"no")
    assert sender.last.headers["connection"] == "close"
    assert len(sender.answers("GET")) == len(relay.streams) == 1
    sender.hang_up()
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_an_ordinary_answer_that_takes_its_time():
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    relay.stream.answer(200, b"a", end=False)
    relay.stream.data(b"b", end=True)
    assert sender.answers("GET") == [(200, b"ab")]
    relay.assert_nothing_left()


def test_a_101_that_nobody_asked_for():
    for raw in (get(), ask()):
        relay = Relay()
        sender = relay.connect()
        sender.send(raw)
        relay.stream.answer(101, end=False, length=None)
        assert sender.answers()[0][0] == 502
        assert sender.last.headers["qanat-error"] == "target-malformed-answer"
        relay.assert_nothing_left()


def test_a_head_from_a_hostile_connector():
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    relay.stream.answer_raw(b"1\x00101\x00\x00X: a\r\nSplit: b\x00", end=False)
    assert sender.last.headers["qanat-error"] == "target-malformed-answer"
    relay.assert_nothing_left()


def test_headers_of_the_connection_do_not_come_from_the_connector():
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    headers = [
        ACCEPT,
        (b"Upgrade", b"h2c"),
        (b"Connection", b"x"),
        (b"Transfer-Encoding", b"chunked"),
        (b"Qanat-X", b"1"),
    ]
    relay.stream.answer(101, end=False, length=None, headers=headers)
    assert sender.received == SWITCHED


@pytest.mark.parametrize("is_tls", [False, True])
def test_a_reset_is_a_reset(is_tls):
    relay = Relay(upgrades=True)
    sender = upgraded(relay, is_tls=is_tls)
    relay.stream.fail("target-lost")
    assert sender.transport.how_ended == "reset"
    relay.assert_nothing_left()
    relay.assert_all_closed()
    assert relay.access_log.lines[0]["code"] == "target-lost"
    assert relay.access_log.lines[0]["status"] == 101


def test_a_sender_that_vanishes_resets_the_stream():
    relay = Relay(upgrades=True)
    sender = upgraded(relay)
    sender.send(b"half a message")
    sender.vanish()
    assert relay.stream.was_reset == (FAULTS["sender-gone"].wire, False)
    relay.assert_nothing_left()
    relay.assert_all_closed()
    assert relay.access_log.lines[0]["code"] == "sender-gone"


def test_a_sender_that_vanishes_before_the_101():
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    sender.hang_up()
    assert relay.stream.was_reset == (FAULTS["sender-gone"].wire, False)
    relay.assert_nothing_left()


def test_under_tls_the_targets_end_waits_for_the_sender_for_a_moment():
    relay = Relay(upgrades=True)
    sender = upgraded(relay, is_tls=True)
    relay.stream.data(b"bye", end=True)
    relay.sleep(END_PATIENCE / 2)
    sender.send(b"bye, too")
    relay.sleep(END_PATIENCE * 0.9)
    assert not sender.is_closed
    assert relay.in_flight == (1, 1, 1)
    relay.sleep(END_PATIENCE)
    assert sender.transport.how_ended == "closed"
    assert relay.stream.was_reset == (FAULTS["sender-gone"].wire, False)  # it said no goodbye of its own
    relay.assert_nothing_left()
    relay.assert_all_closed()
    assert "code" not in relay.access_log.lines[0]


def test_under_tls_a_sender_that_leaves_first():
    relay = Relay(upgrades=True)
    sender = upgraded(relay, is_tls=True)
    sender.hang_up()
    assert relay.stream.ended
    assert relay.in_flight == (1, 1, 1)
    relay.stream.data(b"", end=True)
    relay.assert_nothing_left()
    relay.assert_all_closed()
    assert "code" not in relay.access_log.lines[0]


def test_under_tls_a_target_that_never_ends_is_not_waited_for_for_ever():
    relay = Relay(upgrades=True)
    sender = upgraded(relay, is_tls=True)
    sender.hang_up()
    relay.sleep(LINGER + 0.1)
    assert relay.stream.was_reset is not None
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_nothing_moves():
    relay = Relay(upgrades=True)
    sender = upgraded(relay)
    for _ in range(4):
        relay.sleep(50.0)
        sender.send(b"ping")
        relay.sleep(50.0)
        relay.stream.data(b"pong")
    relay.sleep(59.0)
    assert not sender.is_closed
    relay.sleep(1.1)
    assert sender.transport.how_ended == "reset"
    assert relay.stream.was_reset == (FAULTS["idle-too-long"].wire, False)
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_back_pressure_both_ways():
    relay = Relay(upgrades=True)
    sender = upgraded(relay)
    stream = relay.stream
    sender.transport.drain(10)
    stream.data(b"x" * 100)
    stream.data(b"y" * 100)
    assert (stream.handed, stream.taken) == (200, 0)
    sender.transport.drain()
    assert stream.taken == 200
    stream.room = False
    sender.send(b"a" * 100)
    assert sender.transport.is_paused
    sender.send(b"b" * 100)
    assert stream.body == b"a" * 100
    stream.make_room()
    sender.flush()
    assert stream.body == b"a" * 100 + b"b" * 100
    # Both ends come while the sender is not reading: what was written still leaves.
    sender.transport.drain(10)
    stream.data(b"z" * 100, end=True)
    sender.hang_up()
    assert sender.transport.how_ended == ""
    sender.transport.drain()
    assert sender.transport.how_ended == "closed"
    relay.assert_nothing_left()


def test_a_sender_that_reads_nothing_more_is_cut_off():
    relay = Relay(upgrades=True)
    sender = upgraded(relay)
    sender.transport.drain(10)
    relay.stream.data(b"x" * 100, end=True)
    relay.sleep(61.0)
    assert sender.transport.how_ended == "reset"
    relay.assert_nothing_left()


def test_a_drain_and_an_abort():
    for end in ("give_up", "abort", "close_if_idle"):
        relay = Relay(upgrades=True)
        sender = upgraded(relay)
        getattr(sender.connection, end)()
        if end == "close_if_idle":
            assert not sender.is_closed
            continue
        assert sender.transport.how_ended == "reset"
        assert relay.stream.was_reset is not None
        relay.assert_nothing_left()
        relay.assert_all_closed()


@pytest.mark.parametrize(
    ("change", "lives"),
    [
        ({}, True),
        ({"max_body": 1}, True),
        ({"upgrades": False}, False),
        ({"target": "other", "key": ("acme", "dc1", "other")}, False),
        ({"name": "other"}, False),
        ({"senders": frozenset()}, False),
        ({"path": b"/elsewhere"}, False),
        (None, False),
    ],
)
def test_a_reload(change: dict[str, Any] | None, lives: bool):
    relay = Relay(upgrades=True)
    sender = upgraded(relay)
    routes = []
    if change is not None:
        other = Relay(upgrades=True).route
        other.senders = frozenset({relay.sender})
        for name, value in change.items():
            setattr(other, name, value)
        routes.append(other)
    relay.ingress.use(with_routes(relay, routes))
    assert sender.is_closed is not lives
    if not lives:
        assert relay.access_log.lines[0]["code"] == "no-such-route"
        relay.assert_nothing_left()


def test_a_reload_between_the_wish_and_the_101():
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    relay.ingress.use(with_routes(relay, []))
    relay.stream.answer(101, end=False, length=None)
    assert sender.transport.how_ended == "reset"
    assert relay.access_log.lines[0]["code"] == "no-such-route"
    relay.assert_nothing_left()


def test_a_target_that_never_answers():
    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    relay.sleep(20.1)
    assert sender.last.headers["qanat-error"] == "deadline-exceeded"
    assert relay.stream.was_reset == (FAULTS["deadline-exceeded"].wire, False)
    relay.assert_nothing_left()


def test_a_bug_of_ours_leaves_nothing_open(monkeypatch):
    def fail(*_: object) -> bytes:
        raise RuntimeError("a bug")

    relay = Relay(upgrades=True)
    sender = relay.connect()
    sender.send(ask())
    monkeypatch.setattr(sender.transport, "set_protocol", fail)
    relay.stream.answer(101, end=False, length=None)
    assert sender.transport.how_ended == "reset"
    assert relay.stream.was_reset == (FAULTS["internal-error"].wire, False)
    relay.assert_nothing_left(bugs=1)
    relay.assert_all_closed()


def test_limits_count_it_until_it_ends():
    relay = Relay(upgrades=True, max_in_flight=1)
    first = upgraded(relay)
    second = relay.connect()
    second.send(get())
    relay.sleep(3.1)
    assert second.answers()[0][0] == 429
    first.vanish()
    second.send(get())
    relay.stream.answer(200)
    assert second.answers("GET")[-1][0] == 200
    relay.assert_nothing_left()


def test_a_try_that_was_refused_goes_to_another_connector():
    relay = Relay(upgrades=True, connectors=2)
    sender = relay.connect()
    sender.send(ask() + b"early")
    relay.stream.fail("tunnel-refused", refused=True)
    assert len(relay.streams) == 2
    assert (relay.stream.head.upgrade, relay.stream.ended) == (b"websocket", False)
    relay.stream.answer(101, end=True, length=None)
    assert relay.stream.body == b"early"
    sender.hang_up()
    relay.assert_nothing_left()


@pytest.mark.parametrize("is_disabled", [False, True])
def test_a_sender_that_is_switched_off_loses_its_websocket(is_disabled: bool):
    relay = Relay(upgrades=True)
    sender = upgraded(relay)
    relay.sender.is_disabled = is_disabled
    relay.ingress.use(relay.context)
    assert sender.is_closed is is_disabled


class Certificate:
    """A PeerCertificate as far as it matters here: known to one sender, good for 30 seconds."""

    def __init__(self, relay: Relay) -> None:
        self.owner: Sender | None = relay.sender
        self.until = relay.clock.time() + 30.0
        self.clock = relay.clock

    def sender_of(self, _: object) -> Sender | None:
        return self.owner

    def is_in_time(self, _: float) -> bool:
        return bool(self.clock.time() < self.until)


def certified(relay: Relay) -> tuple[SenderSide, Certificate]:
    """A WebSocket of a sender that showed a client certificate."""
    peer, sender = Certificate(relay), relay.connect(is_tls=True)
    relay.route.realm.certificates = cast(Any, object())
    sender.connection.peer = cast(Any, peer)
    sender.send(ask())
    relay.stream.answer(101, end=False, length=None, headers=[ACCEPT])
    return sender, peer


def test_it_ends_with_the_certificate_that_its_sender_is_known_by():
    relay = Relay(upgrades=True)
    sender, _ = certified(relay)
    relay.clock.sleep(29.0)
    assert not sender.is_closed
    relay.clock.sleep(2.0)
    assert sender.is_closed
    assert relay.access_log.lines[0]["code"] == "sender-certificate-expired"
    relay.assert_nothing_left()


@pytest.mark.parametrize("becomes", ["nobody", "somebody else"])
def test_it_ends_when_its_certificate_is_its_senders_no_more(becomes):
    relay = Relay(upgrades=True)
    sender, peer = certified(relay)
    relay.ingress.use(relay.context)
    assert not sender.is_closed
    peer.owner = None if becomes == "nobody" else Sender("acme", "other", relay.sender.gate, relay.sender.metrics)
    relay.ingress.use(relay.context)
    assert sender.is_closed
    assert relay.access_log.lines[0]["code"] == "no-such-route"


def test_it_does_not_end_with_a_certificate_that_nobody_asked_about(monkeypatch):
    relay = Relay(upgrades=True)
    monkeypatch.setattr(Certificate, "sender_of", lambda *_: None)  # its Authorization says who it is
    sender, _ = certified(relay)
    for _ in range(3):
        relay.clock.sleep(30.0)
        sender.send(b"ping")
    assert not sender.is_closed
