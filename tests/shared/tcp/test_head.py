"""The head of a TCP connection in the tunnel: one literal both ways, and a relay that is hostile."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.errors import LocalFault
from shared.http.push_head import HeadError, decode_varying
from shared.tcp.head import ANSWER, ConnectionHead, Ends, decode_connection, encode_connection, is_answer

LITERAL = b"tcp\0ab12-00000001\0002\0syslog\0plant-1\0logs\0source=192.0.2.7 4711\0destination=198.51.100.1 6514\0\0"
HEAD = ConnectionHead(
    "syslog", "ab12-00000001", 2, "plant-1", "logs", Ends("192.0.2.7", 4711, "198.51.100.1", 6514)
)  # fmt: skip


def test_a_literal_both_ways():
    assert encode_connection(HEAD) == LITERAL
    assert decode_connection(LITERAL) == HEAD


@pytest.mark.parametrize("sender", ["", "plant-1"])
@pytest.mark.parametrize("ends", [None, Ends("::1", 0, "2001:db8::1", 65535)])
def test_there_and_back(sender, ends):
    head = HEAD._replace(sender=sender, ends=ends)
    assert decode_connection(encode_connection(head)) == head


def test_an_older_connector_refuses_it_as_a_push():
    with pytest.raises(HeadError):
        decode_varying(LITERAL)


def test_unknown_extras_are_skipped():
    assert decode_connection(LITERAL[:-1] + b"later=on\0\0") == HEAD


BAD = [
    b"", b"tcp\0", LITERAL[:-1], LITERAL + b"\0", LITERAL.replace(b"syslog", b"Syslog"),
    LITERAL.replace(b"\0002\0", b"\0000\0"),
    LITERAL.replace(b"syslog", b""), LITERAL.replace(b"192.0.2.7", b"::1"), LITERAL.replace(b"192.0.2.7", b"fe80::1%x"),
    LITERAL.replace(b"4711", b"70000"), LITERAL.replace(b"4711", b"-1"), LITERAL.replace(b"192.0.2.7", b"localhost"),
    LITERAL.replace(b"plant-1", b"plant\r\n"),
]  # fmt: skip


@pytest.mark.parametrize("data", BAD)
def test_what_is_refused(data):
    with pytest.raises(LocalFault) as caught:
        decode_connection(data)
    assert caught.value.fault.code == "bad-push"


@given(st.binary(max_size=200))
def test_nothing_raises_anything_else(data):
    for head in (data, b"tcp\0" + data, LITERAL[:-1] + data):
        try:
            decode_connection(head)
        except LocalFault:
            pass


def test_answers():
    assert is_answer(ANSWER)
    assert is_answer(b"tcp\0later=on\0\0")
    assert not any(map(is_answer, [b"", b"tcp\0", b"1\x00200\x00\x00\x00", ANSWER + b"x"]))
