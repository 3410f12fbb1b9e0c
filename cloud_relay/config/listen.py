"""Where a listener listens: ":443", "127.0.0.1:8443", "[::1]:8443"."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, NamedTuple

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

_FORM: Final = re.compile(r"(?:([A-Za-z0-9.-]{1,253})|\[([0-9A-Fa-f:.]{2,45})\])?:([0-9]{1,5})", re.ASCII)
_RULE: Final = 'write ":443" for all addresses, "127.0.0.1:8443" or "[::1]:8443" for one'


class ListenAddress(NamedTuple):
    """A host, empty for all interfaces, and a port, 0 for any free one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can come in."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def collides(self, other: ListenAddress) -> bool:
        """Whether both cannot be bound at once. Port 0 never collides."""
        if self.port != other.port or self.port == 0:
            return False
        everywhere = ("", "0.0.0.0", "::")
        return self.host == other.host or self.host in everywhere or other.host in everywhere

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse_listen(value: object) -> ListenAddress:
    """Read an address. ValueError says how to write it."""
    if isinstance(value, ListenAddress):
        return value
    match = _FORM.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[3]) > 65535:
        raise ValueError(f"not an address to listen on; {_RULE}")
    if match[2]:
        try:
            ipaddress.IPv6Address(match[2])
        except ValueError:
            raise ValueError(f"not an address to listen on; {_RULE}") from None
    return ListenAddress(match[1] or match[2] or "", int(match[3]))


Listen = Annotated[
    ListenAddress,
    BeforeValidator(parse_listen),
    PlainSerializer(str),
    WithJsonSchema({"type": "string", "pattern": f"^{_FORM.pattern}$", "description": _RULE}),
]
"""A pydantic field for an address to listen on."""
