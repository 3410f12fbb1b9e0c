"""A cut segment is the same bytes of the stream, in packets that every TCP takes."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.segments import checksum, cut

FIN, SYN, PSH, ACK = 0x01, 0x02, 0x08, 0x10


def packet(payload: bytes, sequence: int = 1000, flags: int = ACK | PSH, options: bytes = b"") -> bytes:
    """An IPv4 packet from 10.0.0.1:1000 to 10.0.0.2:2000 with right checksums."""
    offset = (20 + len(options)) // 4 << 4
    tcp = bytearray(struct.pack("!HHIIBBHHH", 1000, 2000, sequence, 77, offset, flags, 512, 0, 0))
    tcp += options + payload
    ip = bytearray(struct.pack("!BBHHHBBH4s4s", 0x45, 0, 20 + len(tcp), 7, 0x4000, 64, 6, 0, b"\n\0\0\1", b"\n\0\0\2"))
    struct.pack_into("!H", ip, 10, checksum(ip))
    struct.pack_into("!H", tcp, 16, checksum(bytes(ip[12:20]) + struct.pack("!HH", 6, len(tcp)) + tcp))
    return bytes(ip + tcp)


def is_sound(one: bytes) -> bool:
    """Whether both checksums and the length are right."""
    (total,) = struct.unpack_from("!H", one, 2)
    pseudo = one[12:20] + struct.pack("!HH", 6, total - 20)
    return total == len(one) and checksum(one[:20]) == 0 and checksum(pseudo + one[20:]) == 0


def test_the_packets_of_this_test_are_sound():
    assert is_sound(packet(b"odd"))
    assert is_sound(packet(b"even"))


@given(
    payload=st.binary(max_size=600), sequence=st.integers(0, 2**32 - 1), size=st.integers(1, 50),
    most=st.integers(2, 40), options=st.sampled_from([b"", b"\1\1\1\0", bytes(12)]),
    flags=st.sampled_from([ACK, ACK | PSH, ACK | PSH | FIN]),
)  # fmt: skip
def test_pieces_are_the_payload_in_order(payload, sequence, size, most, options, flags):
    whole = packet(payload, sequence, flags, options)
    pieces = cut(whole, size, most)
    assert all(is_sound(one) for one in pieces)
    assert 1 <= len(pieces) <= most
    head = 40 + len(options)
    assert b"".join(one[head:] for one in pieces) == payload
    at = sequence
    for number, one in enumerate(pieces):
        assert struct.unpack_from("!I", one, 24) == (at % 2**32,)
        assert one[33] == (flags if number == len(pieces) - 1 else flags & ~(FIN | PSH))
        at += len(one) - head
    if len(payload) > size:
        assert len(pieces[0]) - head == size


@pytest.mark.parametrize(
    "whole",
    [packet(b"hello", flags=SYN), packet(b""), b"", b"\x60" + bytes(60), packet(b"hello")[:9] + b"\x11" + bytes(30)],
)
def test_what_is_not_to_be_cut_passes(whole):
    assert cut(whole, 1, 200) == [whole]
