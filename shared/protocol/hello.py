"""HELLO and TARGETS: what the two sides tell each other. JSON objects, since they are rare and must be easy to extend.

Unknown fields are skipped, known ones are checked here and nowhere else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

PROTOCOL_VERSIONS: Final = (1,)
CAPABILITIES: Final = frozenset({"http", "drain-ack", "tcp", "probe"})
RENEWAL: Final = "renewal"
"""The capability of a side that takes the renewal's frames: not where the CA is the operator's own."""

MAX_TARGETS: Final = 500
"""What fits one frame with room to spare; more would be a list that nobody reviews."""

MAX_WORKERS: Final = 256

KINDS: Final = frozenset({"http", "tcp"})
_NAME: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,62}", re.ASCII)
_TEXT: Final = re.compile(r"[\x20-\x7e]{0,128}", re.ASCII)


class BadHello(ValueError):
    """The peer's HELLO, or another JSON object of the tunnel, cannot be used; the text is for our own log."""


@dataclass(frozen=True, slots=True)
class Hello:
    """One side's HELLO. Times are seconds, `clock` microseconds of the relay's monotonic clock, sizes bytes."""

    software: str = ""
    instance: str = ""
    versions: tuple[int, ...] = PROTOCOL_VERSIONS
    capabilities: frozenset[str] = CAPABILITIES
    stream_credit: int = 1024 * 1024
    tunnel_credit: int = 32 * 1024 * 1024
    max_streams: int = 4096
    targets: Mapping[str, str] = field(default_factory=dict)
    """From the connector: name → kind."""
    standby: bool = False
    """From the connector: it wants pushes only where no other one of its location can take them."""
    session: str = ""
    worker: int = 0
    workers: int = 1
    """From the relay: which of its processes this is, from 0, and how many there are."""
    clock: int = 0
    wall: float = 0.0
    """From the relay: Unix time, for whoever must judge validity dates with a wrong clock of its own."""
    reconnect_spread: float = 1.0
    """From the relay: how widely reconnecting connectors should spread."""
    renew_only: bool = False
    """From the relay: no pushes come here. The connector may renew, and dials again with the new certificate."""

    def serialize(self) -> bytes:
        """The frame's payload."""
        return json.dumps(
            {
                "software": self.software, "instance": self.instance, "versions": list(self.versions),
                "capabilities": sorted(self.capabilities), "stream_credit": self.stream_credit,
                "tunnel_credit": self.tunnel_credit, "max_streams": self.max_streams, "targets": dict(self.targets),
                "standby": self.standby, "session": self.session, "worker": self.worker, "workers": self.workers,
                "clock": self.clock, "wall": self.wall, "reconnect_spread": self.reconnect_spread,
                "renew_only": self.renew_only,
            },
            separators=(",", ":"),
        ).encode()  # fmt: skip

    @classmethod
    def parse(cls, payload: bytes) -> Hello:
        """Read the peer's. Raises BadHello."""
        fields = json_object(payload)
        return cls(
            software=_text(fields, "software"),
            instance=_text(fields, "instance"),
            versions=tuple(_whole(version, "versions", 0, 1 << 16) for version in _list(fields, "versions")),
            capabilities=frozenset(str(item)[:64] for item in _list(fields, "capabilities")),
            stream_credit=_whole(fields.get("stream_credit", 65536), "stream_credit", 1, 1 << 31),
            tunnel_credit=_whole(fields.get("tunnel_credit", 262144), "tunnel_credit", 65536, 1 << 31),
            max_streams=_whole(fields.get("max_streams", 100), "max_streams", 1, 1 << 20),
            targets=_targets(fields),
            standby=_flag(fields, "standby"),
            session=_text(fields, "session"),
            worker=_whole(fields.get("worker", 0), "worker", 0, MAX_WORKERS - 1),
            workers=_whole(fields.get("workers", 1), "workers", 1, MAX_WORKERS),
            clock=_whole(fields.get("clock", 0), "clock", 0, 1 << 63),
            wall=_seconds(fields, "wall", 0.0, 1e12),
            reconnect_spread=_seconds(fields, "reconnect_spread", 1.0, 3600.0),
            renew_only=_flag(fields, "renew_only"),
        )


def common_version(ours: Hello, theirs: Hello) -> int | None:
    """The highest version that both speak; None where there is none."""
    return max(set(ours.versions) & set(theirs.versions), default=None)


def serialize_targets(targets: Mapping[str, str]) -> bytes:
    """TARGETS' payload: all that the connector exposes from now on, name → kind."""
    return json.dumps({"targets": dict(targets)}, separators=(",", ":")).encode()


def parse_targets(payload: bytes) -> dict[str, str]:
    """Read TARGETS' payload. Raises BadHello."""
    return _targets(json_object(payload))


def json_object(payload: bytes) -> dict[str, object]:
    """The JSON object in a payload. Raises BadHello."""
    try:
        parsed = json.loads(payload)
    except (ValueError, RecursionError) as error:
        raise BadHello(f"not JSON: {type(error).__name__}") from error
    if not isinstance(parsed, dict):
        raise BadHello("not a JSON object")
    return parsed


def _list(fields: dict[str, object], key: str) -> list[object]:
    value = fields.get(key, [])
    if not isinstance(value, list) or len(value) > MAX_TARGETS:
        raise BadHello(f"{key}: not a list, or too long")
    return value


def _text(fields: dict[str, object], key: str) -> str:
    value = fields.get(key, "")
    if not isinstance(value, str) or not _TEXT.fullmatch(value):
        raise BadHello(f"{key}: not a short printable text")
    return value


def _whole(value: object, key: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise BadHello(f"{key}: not a whole number from {low} to {high}")
    return value


def _flag(fields: dict[str, object], key: str) -> bool:
    value = fields.get(key, False)
    if not isinstance(value, bool):
        raise BadHello(f"{key}: neither true nor false")
    return value


def _seconds(fields: dict[str, object], key: str, default: float, high: float) -> float:
    value = fields.get(key, default)
    if type(value) not in (int, float) or not 0 <= value <= high:  # type: ignore[operator]  # the type was just looked at
        raise BadHello(f"{key}: not a number from 0 to {high}")
    return float(value)  # type: ignore[arg-type]  # likewise


def _targets(fields: dict[str, object]) -> dict[str, str]:
    value = fields.get("targets", {})
    if not isinstance(value, dict) or len(value) > MAX_TARGETS:
        raise BadHello(f"targets: not an object of at most {MAX_TARGETS} names")
    for name, kind in value.items():
        if not _NAME.fullmatch(name) or not isinstance(kind, str):
            raise BadHello("targets: a name or a kind is not valid")
    # A kind that only a newer connector knows is no target that this side could use.
    return {name: kind for name, kind in value.items() if kind in KINDS}
