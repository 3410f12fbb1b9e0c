"""Answers on one connection, as transcripts: framing, early ones, back-pressure."""

from __future__ import annotations

import pytest

from cloud_relay.ingress.context import IngressSettings
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import get, parse_answers, post, request


def test_head_and_no_content():
    relay = Relay()
    sender = relay.connect()
    sender.send(request("HEAD", body=None))
    relay.stream.answer(200, b"", length=512)
    sender.send(post(b"x"))
    relay.stream.answer(304, b"", length=99)
    sender.send(post(b"x"))
    relay.stream.answer(204, b"", length=None)
    first, second, third = parse_answers(sender.received, ["HEAD"])
    assert (first.status, first.headers["content-length"]) == (200, "512")
    assert (second.status, second.headers["content-length"]) == (304, "99")
    assert third.status == 204
    assert "content-length" not in third.headers
    assert not sender.is_closed


def test_an_answer_of_unknown_length_is_chunked():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.stream.answer(200, b"ab", end=False)
    relay.stream.data(b"cd")
    relay.stream.data(b"", end=True)
    assert sender.last.headers["transfer-encoding"] == "chunked"
    assert sender.last.is_complete
    assert sender.answers() == [(200, b"abcd")]
    assert not sender.is_closed
    relay.assert_nothing_left()


def test_an_answer_that_is_whole_at_once_needs_no_chunks():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.stream.answer(200, b"ab", length=None)
    assert sender.last.headers["content-length"] == "2"


def test_an_answer_of_unknown_length_to_http10_lasts_until_the_close():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x", version="1.0", connection="keep-alive"))
    relay.stream.answer(200, b"ab", end=False)
    relay.stream.data(b"cd", end=True)
    assert sender.received.endswith(b"\r\n\r\nabcd")
    assert sender.last.headers["connection"] == "close"
    assert sender.transport.how_ended == "closed" or sender.is_closed
    relay.assert_all_closed()


def test_interim_answers_are_passed_on_but_never_ours():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.stream.answer(103, end=False, interim=True, headers=[(b"Link", b"</a>")], length=None)
    relay.stream.answer(100, end=False, interim=True, length=None)
    relay.stream.answer(101, end=False, interim=True, length=None)
    relay.stream.answer(200, b"ok")
    assert [status for status, _ in sender.answers()] == [103, 200]
    old = relay.connect()
    old.send(post(b"x", version="1.0"))
    relay.stream.answer(103, end=False, interim=True, length=None)
    relay.stream.answer(200, b"ok")
    assert old.answers() == [(200, b"ok")]


@pytest.mark.parametrize("is_tls", [False, True])
def test_an_early_answer_lingers(is_tls):
    relay = Relay()
    sender = relay.connect(is_tls=is_tls)
    sender.send(post(b"", content_length="1000") + b"abc")
    relay.stream.answer(400, b"no")
    assert sender.answers() == [(400, b"no")]
    assert sender.last.headers["connection"] == "close"
    assert relay.stream.was_reset == (109, False)
    assert not sender.is_closed
    assert sender.transport.eof_sent is not is_tls
    sender.send(b"d" * 500)
    sender.hang_up()
    assert sender.transport.how_ended == "closed"
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_lingering_ends_after_a_time_and_after_many_bytes():
    relay = Relay(settings=IngressSettings(linger_bytes=1000))
    slow, fast = relay.connect(), relay.connect()
    for sender in (slow, fast):
        sender.send(post(b"", content_length="100000"))
        relay.stream.answer(400, b"no")
    fast.send(b"d" * 1001)
    assert fast.transport.how_ended == "aborted"
    relay.sleep(4)
    assert not slow.is_closed
    relay.sleep(2)
    assert slow.transport.how_ended == "aborted"
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_both_ways_at_once():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", content_length="6"))
    relay.stream.answer(200, b"A", end=False)
    sender.send(b"abc")
    relay.stream.data(b"B")
    sender.send(b"def")
    assert relay.stream.body == b"abcdef"
    relay.stream.data(b"C", end=True)
    assert sender.answers() == [(200, b"ABC")]
    assert sender.is_closed
    relay.assert_nothing_left()


# Back-pressure.


def test_a_full_stream_stops_reading_and_that_is_not_the_senders_fault():
    relay = Relay()
    sender = relay.connect()
    relay.registry.sessions[0].link.new_streams_have_room = False
    sender.send(post(b"", content_length="100000") + b"x" * 50000)
    assert sender.transport.is_paused
    relay.sleep(15)
    assert not sender.is_closed
    relay.stream.make_room()
    assert not sender.transport.is_paused
    sender.send(b"x" * 50000)
    assert relay.stream.ended
    relay.stream.answer(200)
    relay.assert_nothing_left()


def test_credit_goes_back_only_once_the_sender_reads():
    relay = Relay()
    sender = relay.connect()
    sender.transport.room = 100
    sender.send(post(b"x"))
    relay.stream.answer(200, b"a" * 200, end=False)
    assert relay.stream.taken == 0
    relay.stream.data(b"b" * 50)
    assert relay.stream.taken == 0
    sender.transport.drain()
    assert relay.stream.taken == 250
    relay.stream.data(b"c" * 10, end=True)
    assert relay.stream.taken == 260
    assert sender.answers() == [(200, b"a" * 200 + b"b" * 50 + b"c" * 10)]
    relay.assert_nothing_left()


def test_the_next_push_waits_until_the_sender_has_read_the_last_answer():
    relay = Relay()
    sender = relay.connect()
    sender.transport.room = 100
    sender.send(post(b"1") + post(b"2"))
    relay.stream.answer(200, b"a" * 200)
    assert len(relay.streams) == 1
    assert relay.in_flight == (1, 1, 1)
    sender.transport.drain()
    assert len(relay.streams) == 2
    relay.stream.answer(200)
    relay.assert_nothing_left()


def test_refusals_stop_too_when_nobody_reads_them():
    relay = Relay()
    sender = relay.connect()
    sender.transport.room = 2000
    sender.send(get("/nowhere") * 100)
    assert len(sender.transport.writes) < 10
    sender.transport.drain()
    relay.clock.run()
    assert [status for status, _ in sender.answers()] == [404] * 100


def test_a_sender_that_never_reads_its_answer_is_cut_off():
    relay = Relay()
    sender = relay.connect()
    sender.transport.room = 10
    sender.send(post(b"x"))
    relay.stream.answer(200, b"a" * 200, end=False)
    relay.sleep(61)
    assert sender.transport.how_ended == "reset"
    assert relay.access_log.lines[0]["code"] == "sender-too-slow"
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_closing_is_bounded_when_nobody_reads():
    relay = Relay()
    sender = relay.connect()
    sender.transport.room = 10
    sender.send(get("/nowhere", connection="close"))
    assert sender.transport.how_ended == "closed"
    relay.sleep(6)
    assert sender.transport.how_ended == "aborted"
    relay.assert_all_closed()
