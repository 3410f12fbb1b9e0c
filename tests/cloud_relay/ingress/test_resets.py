"""What a push is answered when the tunnel, the connector or the target fails."""

from __future__ import annotations

import pytest

from shared.http.push_head import encode_answer
from tests.cloud_relay.ingress.judge import assert_cut, begun, judge
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import code_of, post


@pytest.mark.parametrize("code", [
    "method-not-allowed", "path-not-allowed", "path-refused", "target-body-too-large", "bad-push", "target-unreachable",
    "target-tls-failed", "target-malformed-answer", "target-lost", "target-too-slow", "target-credential-refused",
    "target-address-refused", "connector-error", "connector-overloaded", "unknown-target", "tunnel-lost",
    "out-of-credit", "connection-closed",
])  # fmt: skip
@pytest.mark.parametrize("is_refused", [False, True])
def test_a_reset_before_the_answer(code, is_refused):
    relay = Relay(hold=0.0)
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.stream.fail(code, refused=is_refused)
    answer = judge(relay, sender)
    expected = "tunnel-refused" if (code, is_refused) == ("tunnel-lost", True) else code
    assert code_of(answer) == expected
    assert not sender.is_closed


@pytest.mark.parametrize("wire", [0, 1, 106, 108, 120, 144, 300, 320, 9999, 65535])
def test_the_connector_cannot_speak_for_the_relay(wire):
    relay = Relay(hold=0.0)
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.stream.fail(wire)
    assert code_of(judge(relay, sender)) == "connector-error"
    sender.send(post(b"x"))
    relay.stream.fail(wire, refused=True)
    assert code_of(judge(relay, sender)) == "tunnel-refused"


def test_the_targets_own_answer_passes_untouched():
    relay = Relay()
    sender = relay.connect()
    headers = [(b"Retry-After", b"7"), (b"Qanat-Error", b"fake"), (b"Connection", b"close")]
    for status in (200, 202, 400, 401, 404, 405, 408, 415, 429, 500, 501, 503, 599):
        sender.send(post(b"x"))
        relay.stream.answer(status, b"body", headers=headers)
        assert sender.answers()[-1] == (status, b"body")
        assert sender.last.headers == {"retry-after": "7", "content-length": "4"}
    relay.assert_nothing_left()


@pytest.mark.parametrize("raw", [
    b"", b"garbage", encode_answer(200, 3, []), encode_answer(200, 9, []), encode_answer(100, None, []),
    encode_answer(204, None, []), encode_answer(200, 4, [(b"x", b"a\r\nb")]), b"1\x00999\x00\x00\x00",
])  # fmt: skip
def test_a_connector_that_answers_garbage(raw):
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.stream.answer_raw(raw, b"body", end=True)
    assert code_of(judge(relay, sender)) == "target-malformed-answer"


@pytest.mark.parametrize("version", ["1.0", "1.1"])
@pytest.mark.parametrize("length", [None, 5])
def test_a_reset_cuts_it_off(length, version):
    relay, sender = begun(length=length, version=version)
    relay.stream.fail("target-lost")
    assert_cut(relay, sender, "target-lost")


@pytest.mark.parametrize("data", [b"c", b"cdef"])
def test_more_or_less_than_declared(data):
    relay, sender = begun(length=5)
    relay.stream.data(data, end=True)
    assert_cut(relay, sender, "target-malformed-answer")
    assert not sender.received.endswith(b"f")


def test_a_target_that_falls_silent():
    relay, sender = begun()
    relay.sleep(50)
    relay.stream.data(b"c")
    relay.sleep(50)
    assert not sender.is_closed
    relay.sleep(11)
    assert_cut(relay, sender, "target-too-slow")


def test_chunks_broken_by_the_sender_under_a_begun_answer():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"", chunked=True)[:-5])
    relay.stream.answer(200, b"ab", end=False)
    sender.send(b"nonsense\r\n")
    assert_cut(relay, sender, "malformed-request")


def test_the_memory_budget_ends_an_answer_that_nobody_reads():
    relay = Relay()
    sender = relay.connect()
    sender.transport.room = 10
    sender.send(post(b"x"))
    relay.stream.answer(200, b"x" * 1000)
    relay.stream.fail("out-of-credit")
    assert sender.transport.how_ended == "reset"
    relay.assert_nothing_left()
    relay.assert_all_closed()


def test_but_a_lost_tunnel_does_not():
    relay = Relay()
    sender = relay.connect()
    sender.transport.room = 10
    sender.send(post(b"x"))
    relay.stream.answer(200, b"x" * 1000)
    relay.stream.fail("tunnel-lost")
    sender.transport.drain()
    assert sender.answers() == [(200, b"x" * 1000)]
    assert not sender.is_closed
    relay.assert_nothing_left()
