"""Requests on one connection, as transcripts: framing, keep-alive, pipelining, 100 Continue."""

from __future__ import annotations

import itertools

import pytest

from cloud_relay.health import RelayState
from cloud_relay.ingress.context import REFUSED_AT_ONCE, IngressSettings
from shared.errors import FAULTS
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import get, post, request


def test_a_small_push_is_one_call_and_its_answer_one_write():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x" * 2048, "/metrics/job?a=1"))
    assert relay.stream.first == (b"x" * 2048, True)
    assert relay.stream.head.path == b"/metrics/job?a=1"
    assert relay.stream.head.content_length == 2048
    relay.stream.answer(204)
    assert len(sender.transport.writes) == 1
    assert sender.answers() == [(204, b"")]
    assert not sender.is_closed
    relay.assert_nothing_left()


def test_what_the_connector_is_told():
    relay = Relay()
    sender = relay.connect(is_tls=True)
    sender.send(post(b"x", authorization="Basic eDp5", x_scope_orgid="1", x_request_id="mine", cookie="a=b"))
    head = relay.stream.head
    assert (head.target, head.sender, head.route, head.attempt, head.method) == ("prom", "s4", "metrics", 1, b"POST")
    headers = {name.lower(): value for name, value in head.headers}
    assert b"authorization" not in headers
    assert b"cookie" not in headers
    assert headers[b"x-scope-orgid"] == b"1"
    assert headers[b"x-forwarded-for"] == b"192.0.2.7"
    assert headers[b"x-forwarded-proto"] == b"https"
    assert b"x-request-id" not in headers, "the connector makes it of request_id"
    assert head.request_id
    assert relay.stream.deadline == relay.clock.now + 20.0
    relay.stream.answer(200)
    assert relay.access_log.lines[0]["sender_request_id"] == "mine"


@pytest.mark.parametrize(
    ("method", "headers", "length"),
    [("GET", {}, None), ("HEAD", {}, None), ("DELETE", {}, None), ("GET", {"content_length": "0"}, 0),
     ("POST", {}, 0), ("PUT", {}, 0), ("PATCH", {}, 0)],
)  # fmt: skip
def test_a_request_without_a_body_has_a_length_where_one_is_expected(method, headers, length):
    relay = Relay()
    relay.connect().send(request(method, body=None, **headers))
    assert relay.stream.head.content_length == length
    assert relay.stream.first == (b"", True)


def test_pass_authorization():
    relay = Relay(pass_authorization=True)
    relay.connect().send(post(b"x", authorization="Basic eDp5"))
    assert (b"authorization", b"Basic eDp5") in relay.stream.head.headers


@pytest.mark.parametrize("is_chunked", [False, True])
@pytest.mark.parametrize("by", [1, 2, 3, 7, 100])
def test_any_segments_give_the_same_push(by, is_chunked):
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"0123456789" * 10, chunked=is_chunked) + get("/metrics/2"), by=by)
    assert relay.stream.body == b"0123456789" * 10
    assert relay.stream.ended
    relay.stream.answer(200, b"first")
    assert relay.stream.head.path == b"/metrics/2"
    assert relay.stream.first == (b"", True)
    relay.stream.answer(200, b"second")
    assert sender.answers() == [(200, b"first"), (200, b"second")]
    assert len(relay.streams) == 2
    relay.assert_nothing_left()


def test_a_body_is_streamed_not_collected():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", content_length="6") + b"ab")
    assert relay.stream.first == (b"ab", False)
    sender.send(b"cd")
    assert relay.stream.body == b"abcd"
    assert not relay.stream.ended
    sender.send(b"ef")
    assert relay.stream.ended
    relay.stream.answer(200)
    assert not sender.is_closed


def test_pipelined_pushes_go_one_at_a_time_in_order():
    relay = Relay()
    sender = relay.connect()
    sender.send(b"".join(post(b"%d" % n, f"/metrics/{n}") for n in range(5)))
    for n in range(5):
        assert len(relay.streams) == n + 1
        assert relay.stream.body == b"%d" % n
        relay.stream.answer(200, b"answer %d" % n)
    assert sender.answers() == [(200, b"answer %d" % n) for n in range(5)]
    relay.assert_nothing_left()


def test_pipelined_refusals_do_not_recurse():
    relay = Relay()
    sender = relay.connect()
    sender.send(get("/nowhere") * 3000)
    assert [status for status, _ in sender.answers()] == [404] * 3000
    assert not sender.is_closed


def test_pipelined_refusals_leave_the_loop_to_others():
    relay = Relay()
    flood, other = relay.connect(), relay.connect()
    turns: list[int] = []

    def turn() -> None:
        turns.append(len(flood.transport.writes))
        if len(turns) == 5:
            other.connection.data_received(post(b"x"))
        if turns[-1] < 3000:
            relay.clock.call_soon(turn)

    relay.clock.call_soon(turn)
    flood.connection.data_received(get("/nowhere") * 3000)
    assert len(flood.transport.writes) < 20
    flood.send(get("/nowhere/more"))  # belongs behind all of them
    assert len(relay.streams) == 1
    flood.flush()
    assert max(after - before for before, after in itertools.pairwise(turns)) < 20
    assert [status for status, _ in flood.answers()] == [404] * 3001
    relay.stream.answer(204)
    relay.assert_nothing_left()


def test_refusals_on_many_connections_leave_the_loop_to_others():
    """Each asks again as soon as it is answered; a push of somebody else is not behind all of them."""
    relay = Relay()
    flood, other = [relay.connect() for _ in range(50)], relay.connect()
    for sender in flood:
        sender.connection.data_received(get("/nowhere"))
    assert [len(sender.answers()) for sender in flood] == [1] * 50
    assert all(sender.transport.is_paused for sender in flood), "nothing more of them is even decrypted"
    turns = 0
    while any(sender.transport.is_paused for sender in flood):
        relay.clock.turn()
        turns += 1
        asking = [sender for sender in flood if not sender.transport.is_paused]
        assert len(asking) <= REFUSED_AT_ONCE * turns
        if turns == 2:
            other.connection.data_received(post(b"x"))
            relay.stream.answer(204)
            assert other.answers() == [(204, b"")]
            assert not other.transport.is_paused
    assert turns == -(-50 // REFUSED_AT_ONCE)
    for sender in flood[:5]:
        sender.send(get("/nowhere"))
    assert [len(sender.answers()) for sender in flood[:5]] == [2] * 5
    relay.assert_nothing_left()


def test_what_comes_before_its_turn_is_kept():
    relay = Relay()
    sender = relay.connect()
    sender.connection.data_received(get("/nowhere"))
    sender.connection.data_received(post(b"x"))  # it was on its way already
    assert relay.streams == []
    relay.clock.run()
    relay.stream.answer(204)
    assert [status for status, _ in sender.answers()] == [404, 204]
    assert not sender.transport.is_paused
    relay.assert_nothing_left()


def test_who_hangs_up_before_its_turn_is_gone():
    relay = Relay()
    sender = relay.connect()
    sender.connection.data_received(get("/nowhere"))
    sender.hang_up()
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_who_hangs_up_amid_pipelined_refusals_is_gone():
    relay = Relay()
    sender = relay.connect()
    sender.connection.data_received(get("/nowhere") * 100)
    sender.hang_up()
    relay.clock.run()
    assert len(sender.transport.writes) < 20
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_pipelined_input_is_bounded():
    relay = Relay(settings=IngressSettings(pipeline_buffer=1000))
    sender = relay.connect()
    sender.send(b"".join(post(b"x" * 100, f"/metrics/{n}") for n in range(50)), by=64)
    assert sender.transport.is_paused
    for n in range(50):
        assert relay.stream.head.path == b"/metrics/%d" % n
        relay.stream.answer(204)
        sender.flush()
    assert sender.answers() == [(204, b"")] * 50
    relay.assert_nothing_left()


def test_a_sender_that_hangs_up_while_waiting_is_noticed():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    sender.hang_up()
    assert relay.stream.was_reset == (108, False)
    assert relay.access_log.lines[0]["code"] == "sender-gone"
    assert relay.access_log.lines[0]["status"] == 0
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_a_sender_that_stops_in_the_middle_of_a_body():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", content_length="100") + b"abc")
    sender.vanish()
    assert relay.stream.was_reset == (109, False)
    relay.assert_nothing_left()
    relay.assert_all_closed()


# Keep-alive.


@pytest.mark.parametrize(
    ("version", "connection", "is_kept"),
    [("1.1", "-", True), ("1.1", "close", False), ("1.0", "-", False), ("1.0", "keep-alive", True)],
)
def test_keep_alive(version, connection, is_kept):
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x", version=version, connection=connection))
    relay.stream.answer(200, b"ok")
    assert sender.is_closed is not is_kept
    expected = {("1.1", True): None, ("1.0", True): "keep-alive"}.get((version, is_kept), "close")
    assert sender.last.headers.get("connection") == expected
    if not is_kept:
        assert sender.transport.how_ended == "closed"
        relay.assert_all_closed()


def test_an_idle_connection_is_closed_after_a_while():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.stream.answer(200)
    relay.sleep(74)
    assert not sender.is_closed
    relay.sleep(2)
    assert sender.is_closed
    assert relay.access_log.lines[1:] == []
    relay.assert_all_closed()


def test_a_connection_that_never_sends_is_closed():
    relay = Relay()
    sender = relay.connect()
    relay.sleep(9)
    assert not sender.is_closed
    relay.sleep(2)
    assert sender.is_closed
    assert relay.access_log.lines == []
    relay.assert_all_closed()


def test_while_draining_answers_close():
    relay = Relay()
    sender, idle, later = relay.connect(), relay.connect(), relay.connect()
    sender.send(post(b"x"))
    relay.ingress.state = RelayState.DRAINING
    relay.stream.answer(200, b"ok")
    assert sender.answers() == [(200, b"ok")]
    assert sender.last.headers["connection"] == "close"
    assert sender.is_closed
    idle.connection.close_if_idle()
    assert idle.is_closed
    later.send(post(b"x"))
    relay.stream.answer(200, b"ok")
    assert later.answers() == [(200, b"ok")]
    assert later.is_closed
    relay.assert_nothing_left()
    relay.assert_all_closed()


# 100 Continue.


def test_continue_once_admitted_and_a_connector_is_chosen():
    relay = Relay(connectors=0)
    sender = relay.connect()
    sender.send(request(content_length="3", expect="100-continue", body=None))
    assert sender.received == b""
    relay.attach()
    assert sender.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    sender.send(b"abc")
    assert relay.stream.body == b"abc"
    relay.stream.answer(200)
    assert sender.answers()[-1] == (200, b"")
    relay.assert_nothing_left()


def test_no_continue_for_what_is_refused_and_then_the_connection_ends():
    relay = Relay()
    relay.authenticator.verdict = FAULTS["unauthenticated"]
    sender = relay.connect()
    sender.send(request(content_length="3", expect="100-continue", body=None))
    assert [status for status, _ in sender.answers()] == [401]
    assert sender.last.headers["connection"] == "close"


def test_no_continue_when_the_body_comes_along():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"abc", expect="100-continue"))
    assert sender.received == b""
    sender2 = relay.connect()
    sender2.send(post(b"", content_length="4", expect="100-continue") + b"ab")
    assert sender2.received == b""


def test_a_sender_that_waits_for_continue_is_not_slow():
    relay = Relay(connectors=0, hold=15.0)
    sender = relay.connect()
    sender.send(request(content_length="3", expect="100-continue", body=None))
    relay.sleep(12)
    assert not sender.is_closed
    relay.attach()
    assert sender.received == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_continue_is_said_once():
    relay = Relay(connectors=2)
    sender = relay.connect()
    sender.send(request(content_length="3", expect="100-continue", body=None))
    relay.stream.fail("connector-overloaded", refused=True)
    assert len(relay.streams) == 2
    assert sender.received == b"HTTP/1.1 100 Continue\r\n\r\n"


def test_a_part_of_the_next_request_does_not_stand_in_for_a_turn():
    """Nor does one that always has the next request begun go before all others."""
    relay = Relay()
    flood, ask = [relay.connect() for _ in range(50)], get("/nowhere")
    for sender in flood:
        sender.connection.data_received(ask + ask[:9])
    for sender in flood:
        sender.connection.data_received(ask[9:] + ask[:9])  # it was on its way already
    assert [len(sender.answers()) for sender in flood] == [1] * 50
    assert all(sender.transport.is_paused for sender in flood)
    relay.clock.turn()
    assert [len(sender.answers()) for sender in flood].count(2) == REFUSED_AT_ONCE
    relay.clock.run()
    assert [len(sender.answers()) for sender in flood] == [2] * 50
    relay.sleep(5.1)
    assert all(sender.is_closed for sender in flood), "a head has its time as ever"


def test_who_does_not_read_its_refusals_waits_for_its_turn_as_well():
    relay = Relay()
    flood = [relay.connect() for _ in range(50)]
    for sender in flood:
        sender.transport.room = 0
        sender.connection.data_received(get("/nowhere") * 20)
    relay.clock.run()
    assert [len(sender.transport.writes) for sender in flood] == [1] * 50
    for sender in flood:
        sender.transport.drain()
    assert [len(sender.transport.writes) for sender in flood] == [1] * 50
    relay.clock.turn()
    assert sum(len(sender.transport.writes) > 1 for sender in flood) == REFUSED_AT_ONCE
    relay.clock.run()
    assert [len(sender.answers()) for sender in flood] == [20] * 50
    relay.assert_nothing_left()


def test_a_part_of_a_body_does_not_stand_in_for_a_turn():
    relay = Relay()
    flood, ask = [relay.connect() for _ in range(50)], post(b"0123456789", "/nowhere")
    for sender in flood:
        sender.connection.data_received(ask[:-5])
    for sender in flood:
        sender.connection.data_received(ask[-5:] + ask[:-5])
    assert [len(sender.answers()) for sender in flood] == [1] * 50
    assert all(sender.transport.is_paused for sender in flood)
    relay.clock.turn()
    assert [len(sender.answers()) for sender in flood].count(2) == REFUSED_AT_ONCE
    relay.clock.run()
    for sender in flood:
        sender.send(ask[-5:] + get("/nowhere"))
    assert [len(sender.answers()) for sender in flood] == [3] * 50
    relay.assert_nothing_left()
