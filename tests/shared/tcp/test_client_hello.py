"""The ClientHello reader: real hellos in any cutting, and hostile ones, which get the alert that a server sends."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tcp.client_hello import (
    DECODE_ERROR,
    ILLEGAL_PARAMETER,
    MAX_BYTES,
    MAX_HELLO,
    RECORD_OVERFLOW,
    UNEXPECTED_MESSAGE,
    BadHello,
    alert_record,
    read_client_hello,
)
from tests.support.hellos import REAL, message, real_hello, records


def made(extensions: bytes, *, suites: bytes = b"\x13\x01", compression: bytes = b"\0", session: bytes = b"") -> bytes:
    body = b"\x03\x03" + bytes(32) + bytes([len(session)]) + session
    body += len(suites).to_bytes(2, "big") + suites + bytes([len(compression)]) + compression
    body += len(extensions).to_bytes(2, "big") + extensions
    return records(b"\x01" + len(body).to_bytes(3, "big") + body, [])


def extension(kind: int, value: bytes) -> bytes:
    return kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value


def sni(*names: bytes, kind: int = 0) -> bytes:
    entries = b"".join(bytes([kind]) + len(name).to_bytes(2, "big") + name for name in names)
    return extension(0, len(entries).to_bytes(2, "big") + entries)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_a_real_one(version):
    hello = read_client_hello(real_hello("Otlp.Example.com", version))
    assert hello is not None
    assert hello.server_name == "otlp.example.com"
    assert read_client_hello(real_hello(None, version)) == (None, (b"h2",))


@given(st.lists(st.integers(1, 200), max_size=40), st.binary(max_size=50))
def test_any_cutting_into_records_reads_the_same(sizes, behind):
    whole = records(message(REAL), sizes)
    assert read_client_hello(whole + behind) == ("otlp.example.com", (b"h2",))
    for end in range(0, len(whole), 7):
        assert read_client_hello(whole[:end]) is None


def test_every_prefix_waits_for_more():
    for end in range(len(REAL)):
        assert read_client_hello(REAL[:end]) is None


def test_what_is_looked_at_is_bounded():
    """A hello that is as large as it may be, cut as finely as it may be, fits what is looked at."""
    assert MAX_BYTES >= MAX_HELLO + 4 + 64 * 5
    pad = extension(21, bytes(MAX_HELLO - 400))
    assert read_client_hello(records(message(made(sni(b"a.example") + pad)), [100] * 20)) == ("a.example", ())


HOSTILE = {
    "plain HTTP": (b"GET / HTTP/1.1\r\n", UNEXPECTED_MESSAGE),
    "one wrong byte": (b"\x80", UNEXPECTED_MESSAGE),
    "SSL 2.0": (b"\x80\x2e\x01\x00\x02", UNEXPECTED_MESSAGE),
    "an alert record": (b"\x15\x03\x01\x00\x02\x02\x28", UNEXPECTED_MESSAGE),
    "a record of another major version": (b"\x16\x02", DECODE_ERROR),
    "a record that is too long": (b"\x16\x03\x01\x40\x01", RECORD_OVERFLOW),
    "an empty record": (b"\x16\x03\x01\x00\x00", DECODE_ERROR),
    "a ServerHello": (b"\x16\x03\x01\x00\x04\x02\x00\x00\x00", UNEXPECTED_MESSAGE),
    "a ServerHello's first byte": (b"\x16\x03\x01\x00\x04\x02", UNEXPECTED_MESSAGE),
    "a hello that is too long": (b"\x16\x03\x01\x00\x04\x01\x00\x40\x01", ILLEGAL_PARAMETER),
    "too many records": (records(b"\x01\x00\x10\x00" + bytes(100), [1] * 100), ILLEGAL_PARAMETER),
    "another record in the middle": (records(message(REAL), [9])[:14] + b"\x17\x03\x03\x00\x01x", UNEXPECTED_MESSAGE),
    "no body": (records(b"\x01\x00\x00\x00", []), DECODE_ERROR),
    "two names": (made(sni(b"a.example", b"b.example")), ILLEGAL_PARAMETER),
    "two name extensions": (made(sni(b"a.example") + sni(b"b.example")), ILLEGAL_PARAMETER),
    "any extension twice": (made(extension(7, b"") + extension(7, b"")), ILLEGAL_PARAMETER),
    "an unknown kind of name": (made(sni(b"a.example", kind=1)), ILLEGAL_PARAMETER),
    "an empty list of names": (made(extension(0, b"\0\0")), DECODE_ERROR),
    "an empty name": (made(sni(b"")), ILLEGAL_PARAMETER),
    "a name with a NUL": (made(sni(b"a.example\0.evil")), ILLEGAL_PARAMETER),
    "a name with a line's end": (made(sni(b"a.example\n")), ILLEGAL_PARAMETER),
    "a name that is no ASCII": (made(sni("ä.example".encode())), ILLEGAL_PARAMETER),
    "a name that ends in a dot": (made(sni(b"a.example.")), ILLEGAL_PARAMETER),
    "a wildcard": (made(sni(b"*.example")), ILLEGAL_PARAMETER),
    "a name that is too long": (made(sni(b"a" * 64)), ILLEGAL_PARAMETER),
    "bytes behind the names": (made(extension(0, b"\0\x04\0\0\x01a!")), DECODE_ERROR),
    "an extension that is cut short": (made(b"\0\0\0\x09ab"), DECODE_ERROR),
    "no cipher suites": (made(sni(b"a.example"), suites=b""), DECODE_ERROR),
    "half a cipher suite": (made(sni(b"a.example"), suites=b"\x13"), DECODE_ERROR),
    "no compression method": (made(sni(b"a.example"), compression=b""), DECODE_ERROR),
    "a session id that is too long": (made(sni(b"a.example"), session=bytes(33)), DECODE_ERROR),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile(case):
    data, alert = HOSTILE[case]
    with pytest.raises(BadHello) as caught:
        read_client_hello(data)
    assert caught.value.alert == alert


@given(st.binary(max_size=300))
def test_nothing_raises_anything_else(data):
    for start in (b"", b"\x16\x03\x01", REAL[:60]):
        try:
            read_client_hello(start + data)
        except BadHello as error:
            assert 0 < error.alert < 256


@given(st.integers(0, len(REAL) - 1), st.integers(0, 255))
def test_one_flipped_byte_never_yields_a_strange_name(at, value):
    data = REAL[:at] + bytes([value]) + REAL[at + 1 :]
    try:
        hello = read_client_hello(data)
    except BadHello:
        return
    if hello is not None and hello.server_name is not None:
        assert hello.server_name.isascii()
        assert not set(hello.server_name) & set("\0\r\n /*")


def test_the_alert_is_one_that_openssl_understands():
    incoming = ssl.MemoryBIO()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client = context.wrap_bio(incoming, ssl.MemoryBIO(), server_hostname="a.example")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    incoming.write(alert_record(112))
    with pytest.raises(ssl.SSLError, match="UNRECOGNIZED_NAME"):
        client.do_handshake()


def alpn(*names: bytes, behind: bytes = b"") -> bytes:
    entries = b"".join(bytes([len(name)]) + name for name in names)
    return extension(16, len(entries).to_bytes(2, "big") + entries + behind)


def test_the_protocols_that_a_real_one_offers():
    context = ssl.create_default_context()
    context.set_alpn_protocols(["qanat-worker-3", "http/1.1"])
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = context.wrap_bio(incoming, outgoing, server_hostname="relay.example.com")
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    assert read_client_hello(outgoing.read()) == ("relay.example.com", (b"qanat-worker-3", b"http/1.1"))


@pytest.mark.parametrize(
    "extension_bytes", [alpn(b"h2", behind=b"x"), extension(16, b"\0\x05\x02h2"), extension(16, b"\0\x03\x05h2")]
)
def test_a_list_of_protocols_that_is_broken_refuses_nobody(extension_bytes):
    assert read_client_hello(made(sni(b"a.example") + extension_bytes)) == ("a.example", ())
