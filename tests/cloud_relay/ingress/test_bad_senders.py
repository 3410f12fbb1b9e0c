"""Senders that are slow, too large, malformed, or refused; and what the access log says."""

from __future__ import annotations

import pytest

from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import chunks, code_of, get, post


def test_a_slow_head_is_cut_off_without_an_answer():
    relay = Relay()
    sender = relay.connect()
    for byte in b"POST /":
        relay.sleep(0.7)
        sender.send(bytes([byte]))
    assert not sender.is_closed
    relay.sleep(1.6)
    assert sender.is_closed
    assert sender.received == b""
    assert relay.access_log.lines[0]["code"] == "sender-too-slow"
    relay.assert_all_closed()


def test_a_slow_body_is_cut_off_without_an_answer():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", content_length="1000000"))
    for _ in range(12):
        relay.sleep(1)
        sender.send(b"x" * 1000)
    assert sender.is_closed
    assert sender.received == b""
    assert relay.stream.was_reset == (106, False)
    assert relay.access_log.lines[0]["code"] == "sender-too-slow"
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_a_body_just_fast_enough_is_not():
    relay = Relay(timeout=5.0)
    sender = relay.connect()
    sender.send(post(b"", content_length=str(60 * 1300)))
    for _ in range(60):
        relay.sleep(1)
        sender.send(b"x" * 1300)
    assert relay.stream.ended
    relay.stream.answer(200)
    assert sender.answers() == [(200, b"")]


# Refused bodies.


def test_the_rest_of_a_small_refused_body_is_skipped_and_the_connection_kept():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", "/nowhere", content_length="1000") + b"x" * 10)
    assert [status for status, _ in sender.answers()] == [404]
    assert "connection" not in sender.last.headers
    sender.send(b"x" * 990 + post(b"next"))
    assert relay.stream.body == b"next"
    relay.stream.answer(200)
    assert [status for status, _ in sender.answers()] == [404, 200]
    relay.assert_nothing_left()


def test_the_rest_of_a_large_one_is_not():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", "/nowhere", content_length="1000000") + b"x" * 10)
    assert sender.last.headers["connection"] == "close"
    chunked = relay.connect()
    chunked.send(post(b"", "/nowhere", chunked=True)[:-5] + b"5\r\nabc")
    assert chunked.last.headers["connection"] == "close"


def test_a_skipped_body_may_not_be_slow_either():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", "/nowhere", content_length="1000") + b"x" * 10)
    relay.sleep(11)
    assert sender.is_closed
    relay.assert_all_closed()


@pytest.mark.parametrize("is_chunked", [False, True])
def test_body_limit(is_chunked):
    relay = Relay(max_body=100)
    sender = relay.connect()
    sender.send(post(b"x" * 100, chunked=is_chunked))
    relay.stream.answer(200)
    sender.send(post(b"x" * 101, chunked=is_chunked))
    assert [status for status, _ in sender.answers()] == [200, 413]
    assert len(relay.streams) == 1
    assert sender.last.headers["connection"] == "close"
    assert sender.transport.how_ended == "closed"  # nothing of it is unread
    relay.assert_nothing_left()


def test_body_limit_is_counted_while_chunks_arrive():
    relay = Relay(max_body=100)
    sender = relay.connect()
    sender.send(post(b"", chunked=True)[:-5])
    sender.send(chunks(b"x" * 90)[:-5])
    assert relay.stream.body == b"x" * 90
    sender.send(chunks(b"x" * 11))
    assert [status for status, _ in sender.answers()] == [413]
    assert relay.stream.was_reset == (107, False)
    assert sender.transport.how_ended == "closed"
    lingering = relay.connect()
    lingering.send(post(b"", content_length="101") + b"x" * 50)
    assert [status for status, _ in lingering.answers()] == [413]
    assert not lingering.is_closed
    relay.assert_nothing_left()


def test_an_access_line_has_what_is_needed_and_no_more():
    relay = Relay()
    sender = relay.connect()
    path = "/metrics/" + "p" * 400 + "?secret=1"
    sender.send(post(b"x" * 10, path, authorization="Basic c2VjcmV0", x_request_id="a b"))
    relay.sleep(0.25)
    relay.stream.answer(202, b"four")
    (line,) = relay.access_log.lines
    time, request_id = line.pop("time"), line.pop("request_id")
    assert time.endswith("Z")
    assert request_id == relay.stream.head.request_id
    assert line == {
        "tenant": "acme", "route": "metrics", "sender": "s4", "source": "192.0.2.7", "method": "POST",
        "path": "/metrics/" + "p" * 247, "status": 202, "bytes_in": 10, "bytes_out": 4, "total_ms": 250.0,
        "beyond_ms": 250.0, "connector": "c1", "attempt": 1,
    }  # fmt: skip
    assert relay.route_metrics.by_class == [0, 0, 1, 0, 0, 0]
    assert (relay.route_metrics.bytes_in, relay.route_metrics.bytes_out) == (10, 4)
    assert (relay.sender.metrics.pushes, relay.sender.metrics.delivered) == (1, 1)


def test_what_is_malformed_is_refused_and_closed():
    relay = Relay()
    for raw, status, code in [
        (b"GET / HTTP/1.1\n\n", 400, "malformed-request"),
        (b"\x16\x03\x01\x02\x00\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\n\r\n", 400, "malformed-request"),
        (b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n", 400, "malformed-request"),
        (post(b"x", content_length="+1"), 400, "malformed-request"),
        (post(b"x", transfer_encoding="gzip, chunked"), 400, "malformed-request"),
        (post(b"x", transfer_encoding="chunked", content_length="1"), 400, "malformed-request"),
        (post(b"x", transfer_encoding="chunked", version="1.0"), 400, "malformed-request"),
        (get().replace(b"1.1", b"2.0"), 505, "version-not-supported"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "version-not-supported"),
        (get("/" + "a" * 9000), 414, "target-uri-too-long"),
        (b"GET /" + b"a" * 9000, 414, "target-uri-too-long"),
        (get(x="y" * 33000), 431, "headers-too-large"),
        (get(x="y" * 33000)[:33000], 431, "headers-too-large"),
        (get("/metrics/../x"), 400, "bad-path"),
        (post(b"x", connection="upgrade", upgrade="websocket"), 400, "upgrade-with-body"),
    ]:
        for by in (0, 100):
            sender = relay.connect()
            sender.send(raw, by=by)
            assert [status for status, _ in sender.answers()] == [status], raw[:100]
            assert code_of(sender.last) == code
            assert sender.last.headers["connection"] == "close"
            assert sender.transport.eof_sent
            assert relay.access_log.lines[-1]["code"] == code
            sender.hang_up()
    assert relay.streams == []
    relay.assert_nothing_left()
    relay.assert_all_closed()


@pytest.mark.parametrize(
    "bad", [b"g\r\n", b"5;ext\r\nhello\r\n", b"5\nhello", b"5\r\nhelloX\r\n", b"-1\r\n", b"0x5\r\n"]
)
def test_bad_chunks(bad):
    relay = Relay()
    at_once, later = relay.connect(), relay.connect()
    at_once.send(post(b"", chunked=True)[:-5] + bad)
    later.send(post(b"", chunked=True)[:-5])
    later.send(bad)
    for sender in (at_once, later):
        assert [status for status, _ in sender.answers()] == [400]
        assert sender.last.headers["connection"] == "close"
    relay.assert_nothing_left()


def test_nothing_after_a_refusal_is_a_request():
    relay = Relay()
    sender = relay.connect()
    sender.send(b"GET / HTTP/1.1\r\nhost: a\r\nhost: b\r\n\r\n" + post(b"smuggled"))
    sender.send(post(b"smuggled"))
    assert len(sender.answers()) == 1
    assert relay.streams == []
