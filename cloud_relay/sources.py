"""Whom the caps per source count: an IPv4 address, or an IPv6 network of 64 bits, for a host may use all of one; and
which network such a source belongs to."""

from __future__ import annotations

import socket
from typing import Final

_MAPPED: Final = bytes(10) + b"\xff\xff"
"""RFC 4291 §2.5.5.2: an IPv4 address seen through an IPv6 socket."""


def source_key(address: str) -> str:
    """What connections from `address`, as a socket names its peer, count under."""
    if ":" not in address:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    if packed.startswith(_MAPPED):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed[:8] + bytes(8)) + "/64"


def network_of(source: str) -> str:
    """The network that a source, as `source_key` names it, counts under when places run short: who has one address of
    it mostly has many. IPv4 of 24 bits, which is the smallest that is routed (RFC 7454 §6.1.3); IPv6 of 48, which a
    site is given (RFC 6177)."""
    if ":" not in source:
        return source.rpartition(".")[0] + ".0/24" if "." in source else source
    packed = socket.inet_pton(socket.AF_INET6, source.partition("/")[0])
    return socket.inet_ntop(socket.AF_INET6, packed[:6] + bytes(10)) + "/48"
