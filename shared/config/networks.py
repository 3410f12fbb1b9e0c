"""Networks in a config: 10.1.0.0/16, fd00::/8."""

from __future__ import annotations

import ipaddress
from typing import Annotated

from pydantic import PlainValidator, WithJsonSchema

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def _network(value: object) -> Network:
    if isinstance(value, ipaddress.IPv4Network | ipaddress.IPv6Network):
        return value
    if not isinstance(value, str):
        raise ValueError("write a network as 10.1.0.0/16")
    try:
        return ipaddress.ip_network(value)
    except ValueError as error:
        raise ValueError(f"not a network ({error}); write it as 10.1.0.0/16 or fd00::/8") from None


NetworkField = Annotated[Network, PlainValidator(_network), WithJsonSchema({"type": "string"})]
"""A pydantic field that reads a `Network`. An address with bits set beyond the prefix is refused."""
