"""What the probe of one target does. Made from the config; nothing of it ever comes from a relay."""

from __future__ import annotations

import enum
import re
from typing import Final, NamedTuple

_STATUS: Final = re.compile(r"([1-5])([0-9][0-9]|xx)", re.ASCII)


class ProbeKind(enum.StrEnum):
    """How far a probe goes: not at all, to a connection, through TLS, to an answer."""

    NONE = "none"
    TCP = "tcp"
    TLS = "tls"
    HTTP = "http"


class StatusRange(NamedTuple):
    """HTTP statuses from `low` to `high`, both included."""

    low: int
    high: int

    def __contains__(self, status: object) -> bool:
        return isinstance(status, int) and self.low <= status <= self.high

    def __str__(self) -> str:
        return str(self.low) if self.low == self.high else f"{self.low // 100}xx"


SUCCESS: Final = (StatusRange(200, 299),)


def parse_status(value: object) -> StatusRange:
    """200, "401", "2xx"; ValueError says how to write it."""
    if isinstance(value, StatusRange):
        return value
    match = None if isinstance(value, bool) else _STATUS.fullmatch(str(value)) if isinstance(value, int | str) else None
    if match is None:
        raise ValueError('not a status; write 200, or "2xx" for a whole class')
    if match[2] == "xx":
        return StatusRange(int(match[1]) * 100, int(match[1]) * 100 + 99)
    return StatusRange(int(match[0]), int(match[0]))


class ProbeSpec(NamedTuple):
    """`timeout` in seconds, for the whole probe. `interval`: seconds for which a good result is told again rather than
    found out anew. `method`, `path` (with its query) and `statuses` are for kind http."""

    kind: ProbeKind
    timeout: float = 3.0
    interval: float = 5.0
    method: bytes = b"GET"
    path: bytes = b"/"
    statuses: tuple[StatusRange, ...] = SUCCESS

    def expects(self, status: int) -> bool:
        """Whether an answer with this status says that the target is well."""
        return any(status in accepted for accepted in self.statuses)

    def describe(self) -> str:
        """For people: "tcp", "GET /-/healthy, expecting 2xx"."""
        if self.kind is not ProbeKind.HTTP:
            return self.kind.value
        wanted = ", ".join(map(str, self.statuses))
        return f"{self.method.decode('ascii')} {self.path.decode('ascii')}, expecting {wanted}"


DEFAULT: Final = ProbeSpec(ProbeKind.TCP)


def default_kind(scheme: str) -> ProbeKind:
    """What is probed where the config says nothing: of "https" the handshake, of "http" and "tcp" a connection."""
    return ProbeKind.TLS if scheme == "https" else ProbeKind.TCP
