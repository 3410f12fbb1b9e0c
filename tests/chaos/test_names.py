"""The name server's answers, as a stub resolver reads them."""

from __future__ import annotations

import socket
import struct

import pytest

from chaos.names import Mood, answer

NAMES = {"relay.test": "10.0.0.9"}


def question(name: str, kind: int = 1) -> bytes:
    labels = b"".join(bytes([len(label)]) + label.encode() for label in name.split("."))
    return struct.pack("!HHHHHH", 0x1234, 0x0100, 1, 0, 0, 0) + labels + b"\0" + struct.pack("!HH", kind, 1)


def test_an_address():
    asked = question("Relay.test")
    said = answer(asked, Mood.ANSWERS, NAMES)
    assert said is not None
    assert struct.unpack_from("!HHHHHH", said) == (0x1234, 0x8180, 1, 1, 0, 0)
    assert said[12 : len(asked)] == asked[12:]
    assert said[-4:] == socket.inet_aton("10.0.0.9")


@pytest.mark.parametrize(
    ("name", "kind", "mood", "code"),
    [
        ("relay.test", 28, Mood.ANSWERS, 0),
        ("other.test", 1, Mood.ANSWERS, 3),
        ("relay.test", 1, Mood.KNOWS_NOTHING, 3),
        ("relay.test", 1, Mood.FAILS, 2),
    ],
)
def test_no_address(name, kind, mood, code):
    said = answer(question(name, kind), mood, NAMES)
    assert said is not None
    assert struct.unpack_from("!HHHH", said, 2) == (0x8180 | code, 1, 0, 0)


def test_silence():
    assert answer(question("relay.test"), Mood.IS_SILENT, NAMES) is None
    assert answer(b"short", Mood.ANSWERS, NAMES) is None
