"""The server name in a TLS ClientHello, read without taking part in the handshake. Pure.

`read_client_hello` gets all bytes that have come so far, again and again as more come, and says: a name, not yet, or
why not (with the alert that a TLS server would send, RFC 8446 section 6.2). It is strict where being lenient could
make two readers see two names: lengths must fit exactly, an extension comes once, a name is one DNS name in ASCII.

A ClientHello may be cut into records of any size (RFC 8446, section 5.1); empty records and other records within it
are refused. What is after the ClientHello is not looked at.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

MAX_HELLO: Final = 16 * 1024
"""Bytes of a ClientHello: those with post-quantum key shares have 1.5 to 2 KiB; OpenSSL's own limit is 128 KiB."""

MAX_RECORDS: Final = 64
"""Records that one ClientHello may be cut into: no client makes more than a few."""

MAX_BYTES: Final = MAX_HELLO + 4 + MAX_RECORDS * 5
"""Bytes that have to be looked at, at most."""

UNEXPECTED_MESSAGE: Final = 10
RECORD_OVERFLOW: Final = 22
ILLEGAL_PARAMETER: Final = 47
DECODE_ERROR: Final = 50
MISSING_EXTENSION: Final = 109
UNRECOGNIZED_NAME: Final = 112

_HANDSHAKE, _CLIENT_HELLO, _SERVER_NAME, _HOST_NAME, _ALPN = 22, 1, 0, 0, 16
_NAME: Final = re.compile(
    rb"(?=.{1,253}\Z)[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?+"
    rb"(?:\.[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?+)*+"
)


class ClientHello(NamedTuple):
    """What is known of a whole ClientHello. `server_name` is in lower case, None where the client names no host;
    `protocols` are those that it offers (ALPN, RFC 7301), none where its list is not well formed."""

    server_name: str | None
    protocols: tuple[bytes, ...] = ()


class BadHello(ValueError):
    """This will never be a ClientHello that we take. `alert` is the description to send back."""

    def __init__(self, alert: int, why: str) -> None:
        super().__init__(why)
        self.alert = alert


def alert_record(description: int) -> bytes:
    """A fatal alert, as a server sends it before any key is agreed on (RFC 8446, section 6)."""
    return bytes((21, 3, 3, 0, 2, 2, description))


def read_client_hello(data: bytes) -> ClientHello | None:
    """The ClientHello that `data` begins with; None as long as it is not whole. Raises BadHello."""
    hello = _message(data)
    return None if hello is None else _read(hello)


def _message(data: bytes) -> bytes | None:
    """The body of the ClientHello, put together from its records."""
    message = bytearray()
    position = records = 0
    is_cut = False
    while True:
        if message and (end := _judge(message)) is not None and len(message) >= end:
            return bytes(message[4:end])
        if is_cut:
            return None
        header = data[position : position + 5]
        _check_record(header)
        if len(header) < 5:
            return None
        records += 1
        if records > MAX_RECORDS:
            raise BadHello(ILLEGAL_PARAMETER, f"a ClientHello in more than {MAX_RECORDS} records")
        start, length = position + 5, int.from_bytes(header[3:5], "big")
        position = start + length
        message += data[start:position]
        is_cut = len(data) < position


def _judge(message: bytearray) -> int | None:
    """Where the message that begins so ends; None as long as that cannot be told."""
    if message[0] != _CLIENT_HELLO:
        raise BadHello(UNEXPECTED_MESSAGE, f"a handshake message of type {message[0]}")
    if len(message) < 4:
        return None
    size = int.from_bytes(message[1:4], "big")
    if size > MAX_HELLO:
        raise BadHello(ILLEGAL_PARAMETER, f"a ClientHello of {size} bytes")
    return 4 + size


def _check_record(header: bytes) -> None:
    """Judge a record's header as far as it has come."""
    if header[:1] and header[0] != _HANDSHAKE:
        raise BadHello(UNEXPECTED_MESSAGE, f"a record of type {header[0]}")
    if len(header) > 1 and header[1] != 3:
        raise BadHello(DECODE_ERROR, f"a record of version {header[1]}")
    if len(header) == 5:
        length = int.from_bytes(header[3:5], "big")
        if length > 1 << 14:
            raise BadHello(RECORD_OVERFLOW, f"a record of {length} bytes")
        if not length:  # RFC 8446, section 5.1: not for handshake messages
            raise BadHello(DECODE_ERROR, "an empty record")


class _Reader:
    """Takes fields off a byte string; what is too short is a decode_error."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def is_at_end(self) -> bool:
        return self._at == len(self._data)

    def take(self, size: int) -> bytes:
        taken = self._data[self._at : self._at + size]
        if len(taken) != size:
            raise BadHello(DECODE_ERROR, "a field is cut short")
        self._at += size
        return taken

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def vector(self, prefix: int) -> bytes:
        """A field with its length in front, in `prefix` bytes."""
        return self.take(self.number(prefix))


def _read(body: bytes) -> ClientHello:
    """RFC 8446, section 4.1.2: version, random, session id, cipher suites, compression methods, extensions."""
    reader = _Reader(body)
    reader.take(2 + 32)
    if len(reader.vector(1)) > 32:
        raise BadHello(DECODE_ERROR, "a session id of more than 32 bytes")
    suites = reader.vector(2)
    if not suites or len(suites) & 1 or not reader.vector(1):
        raise BadHello(DECODE_ERROR, "no cipher suites or compression methods")
    if reader.is_at_end():  # TLS 1.2 without extensions
        return ClientHello(None)
    extensions = _Reader(reader.vector(2))
    if not reader.is_at_end():
        raise BadHello(DECODE_ERROR, "something behind the extensions")
    name: str | None = None
    protocols: tuple[bytes, ...] = ()
    seen: set[int] = set()
    while not extensions.is_at_end():
        kind = extensions.number(2)
        value = extensions.vector(2)
        if kind in seen:
            raise BadHello(ILLEGAL_PARAMETER, f"extension {kind} twice")
        seen.add(kind)
        if kind == _SERVER_NAME:
            name = _host_name(value)
        elif kind == _ALPN:
            protocols = _protocols(value)
    return ClientHello(name, protocols)


def _host_name(value: bytes) -> str:
    """RFC 6066, section 3: a list, of which only host names were ever defined, and one of them."""
    outer = _Reader(value)
    names = _Reader(outer.vector(2))
    if not outer.is_at_end():
        raise BadHello(DECODE_ERROR, "something behind the server names")
    if names.number(1) != _HOST_NAME:
        raise BadHello(ILLEGAL_PARAMETER, "a server name that is no host name")
    name = names.vector(2)
    if not names.is_at_end():
        raise BadHello(ILLEGAL_PARAMETER, "more than one server name")
    if _NAME.fullmatch(name) is None:
        raise BadHello(ILLEGAL_PARAMETER, "a server name that is no DNS name")
    return name.decode("ascii").lower()


def _protocols(value: bytes) -> tuple[bytes, ...]:
    """RFC 7301, section 3.1. Nobody is refused for it: it decides nothing but which of our own processes is asked."""
    found = []
    try:
        outer = _Reader(value)
        names = _Reader(outer.vector(2))
        while not names.is_at_end():
            found.append(names.vector(1))
    except BadHello:
        return ()
    return tuple(found) if outer.is_at_end() else ()
