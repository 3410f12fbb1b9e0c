"""Whether an address lies in networks that the config names."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable

from shared.config.networks import Network

__all__ = ["Network", "is_within"]


def is_within(address: str, networks: Iterable[Network]) -> bool:
    """Whether an address, as a socket names its peer, lies in one of the networks.

    An IPv4 address seen through an IPv6 socket (RFC 4291 §2.5.5.2) is an IPv4 one.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and ip.ipv4_mapped is not None:
        ip = ip.ipv4_mapped
    return any(ip.version == network.version and ip in network for network in networks)
