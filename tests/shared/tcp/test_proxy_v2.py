"""The PROXY protocol, version 2: one literal both ways, any ends, and what is refused."""

from __future__ import annotations

import ipaddress
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shared.tcp.head import Ends
from shared.tcp.proxy_v2 import FIXED, SIGNATURE, BadProxyHeader, ProxyHeader, decode, encode, size_of

IPV4 = bytes.fromhex("0d0a0d0a000d0a515549540a 21 11 000c c0000207 c6336401 3039 01bb")
ports = st.integers(0, 65535)


def _ends(version: Literal[4, 6]) -> st.SearchStrategy[Ends]:
    address = st.ip_addresses(v=version).map(str)
    return st.builds(Ends, address, ports, address, ports)


ends = _ends(4) | _ends(6)


def test_a_literal_both_ways():
    told = Ends("192.0.2.7", 12345, "198.51.100.1", 443)
    assert encode(told) == IPV4
    assert decode(IPV4) == ProxyHeader(28, told)


@given(ends, st.binary(max_size=200))
def test_what_is_encoded_is_decoded_whatever_follows_in_tlvs(told, more):
    header = encode(told)
    assert decode(header) == (len(header), told)
    longer = header[:14] + (len(header) - FIXED + len(more)).to_bytes(2, "big") + header[16:] + more
    assert size_of(longer[:FIXED]) == len(longer)
    assert decode(longer) == (len(longer), told)
    for end in range(len(header)):
        assert size_of(header[: min(end, FIXED)]) in {FIXED, len(header)}


def test_local_says_nothing():
    assert decode(encode(None)) == (16, None)
    assert decode(SIGNATURE + b"\x20\x11\0\x02ab") == (18, None)


BAD = {
    "no signature": b"GET / HTTP/1.1\r\n",
    "version 1": b"PROXY TCP4 192.0.2.7",
    "another version": SIGNATURE + b"\x11\x11\0\x0c" + bytes(12),
    "an unknown command": SIGNATURE + b"\x22\x11\0\x0c" + bytes(12),
    "UDP": SIGNATURE + b"\x21\x12\0\x0c" + bytes(12),
    "a Unix socket": SIGNATURE + b"\x21\x31\0\xd8" + bytes(216),
    "no family": SIGNATURE + b"\x21\x00\0\0",
    "addresses cut short": SIGNATURE + b"\x21\x11\0\x0b" + bytes(11),
    "too long": SIGNATURE + b"\x21\x11\xff\xff",
    "cut short": IPV4[:-1],
    "longer than it says": IPV4 + b"x",
}


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case):
    with pytest.raises(BadProxyHeader):
        decode(BAD[case])


def test_a_wrong_byte_is_noticed_at_once():
    assert size_of(b"") == FIXED
    with pytest.raises(BadProxyHeader):
        size_of(b"\r\n\r\nX")


@given(st.binary(max_size=64))
def test_nothing_raises_anything_else(data):
    for header in (data, SIGNATURE + data):
        try:
            told = decode(header)
        except BadProxyHeader:
            continue
        if told.ends is not None:
            assert ipaddress.ip_address(told.ends.source).version == ipaddress.ip_address(told.ends.destination).version


def test_two_families_cannot_be_written():
    with pytest.raises(ValueError, match="families"):
        encode(Ends("192.0.2.7", 1, "::1", 2))
