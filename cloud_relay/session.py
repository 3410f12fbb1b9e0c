"""A session: one tunnel of one connector as the relay knows it, and what it exposes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from cloud_relay.admit import Identity
    from shared.protocol import StreamEnd, StreamHandler

Key = tuple[str, str, str]
"""(tenant, location, target as `exposed_as` writes it)."""


class SessionLink(Protocol):
    """What is asked of a session's link; `shared.tunnel.link.Link` is the one that tunnels have."""

    @property
    def can_open(self) -> bool: ...
    @property
    def accepts(self) -> bool: ...
    @property
    def is_gathering(self) -> bool: ...
    @property
    def is_open(self) -> bool: ...
    @property
    def is_suspect(self) -> bool: ...
    @property
    def is_draining(self) -> bool: ...
    @property
    def in_flight(self) -> int: ...
    @property
    def rtt(self) -> float: ...
    @property
    def last_ping(self) -> tuple[float, float]: ...
    @property
    def last_received(self) -> float: ...
    def describe(self) -> str: ...
    def open_stream(
        self, handler: StreamHandler, head: bytes, body: bytes = b"", end: bool = False, deadline: float = 0.0
    ) -> StreamEnd: ...
    def ping(self) -> None: ...
    def drain(self, timeout: float) -> None: ...
    def abort(self) -> None: ...
    def close(self, code: str = "going-away", detail: str = "") -> None: ...


def exposed_as(target: str, kind: str) -> str:
    """A target's name in the registry's keys: what is exposed as one kind is not there for the other.

    A name holds no colon, so those of kind http can stay as they are.
    """
    return target if kind == "http" else f"{kind}:{target}"


class Session:
    """One tunnel of one connector, from its HELLO to its end.

    `instance` is the connector process that opened it, `attached_at` the loop's time, `targets` name → kind.
    `is_standby`: it wants pushes only where no other can take them. `answers_probes`: it can be asked how targets are.
    """

    __slots__ = (
        "answers_probes", "attached_at", "identity", "instance", "is_standby", "link", "number", "targets",
    )  # fmt: skip

    def __init__(
        self,
        identity: Identity,
        link: SessionLink,
        instance: str,
        targets: Mapping[str, str],
        attached_at: float,
        number: int,
        *,
        is_standby: bool = False,
        answers_probes: bool = False,
    ) -> None:
        self.is_standby = is_standby
        self.answers_probes = answers_probes
        self.identity = identity
        self.link = link
        self.instance = instance
        self.targets: Mapping[str, str] = dict(targets)
        self.attached_at = attached_at
        self.number = number

    def __repr__(self) -> str:
        flying = self.link.in_flight
        return f"<Session {self.number} of {self.identity} with {len(self.targets)} targets, {flying} in flight>"


def keys_of(session: Session) -> list[Key]:
    """What a session exposes."""
    tenant, location = session.identity.tenant, session.identity.location
    return [(tenant, location, exposed_as(target, kind)) for target, kind in session.targets.items()]
