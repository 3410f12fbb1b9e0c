"""Real ClientHellos, and how to cut them."""

from __future__ import annotations

import ssl

import pytest


def real_hello(name: str | None, version: ssl.TLSVersion = ssl.TLSVersion.TLSv1_3) -> bytes:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.maximum_version = version
    context.set_alpn_protocols(["h2"])
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name)
    with pytest.raises(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


REAL = real_hello("Otlp.Example.com")


def message(hello: bytes) -> bytes:
    """Without its record's header."""
    return hello[5:]


def records(payload: bytes, sizes: list[int]) -> bytes:
    """Cut into records of these sizes, the rest in a last one."""
    out, at = b"", 0
    for size in [*sizes, len(payload)]:
        piece = payload[at : at + size]
        at += size
        if piece:
            out += b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece
    return out
