"""What a connection and its driver agree on: the two roles, the states, and the calls that the driver gets."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from typing import Protocol

from shared.protocol.hello import Hello
from shared.protocol.stream import Stream


class Role(enum.Enum):
    """Which end this is: the relay opens streams, the connector answers them."""

    RELAY = "relay"
    CONNECTOR = "connector"


class State(enum.Enum):
    """The life of a tunnel."""

    GREETING = "greeting"
    OPEN = "open"
    CLOSED = "closed"


class ConnectionHandler(Protocol):
    """What a connection calls; each call may call back into the connection."""

    def on_ready(self, hello: Hello) -> None:
        """The peer's HELLO came and fits."""

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """At the connector: a push. Set `stream.handler`; answer or reset it, now or later."""

    def on_targets(self, targets: Mapping[str, str]) -> None:
        """At the relay: the connector exposes these from now on."""

    def on_renew(self, request: bytes) -> None:
        """At the relay: a certificate request, in PEM. Answer it, now or later, by `renewal.answer_certificate`."""

    def on_certificate(self, answer: Mapping[str, str]) -> None:
        """At the connector: `certificate`, a PEM chain, or `error` and `detail`. None of it is verified."""

    def on_trust(self, message: Mapping[str, Sequence[str]]) -> None:
        """At the connector `roots` and `cross` in PEM, unverified; at the relay the `pins` that it trusts."""

    def on_hint(self, within: float) -> None:
        """At the connector: the relay asks for a renewal within so many seconds."""

    def on_drain(self, timeout: float) -> None:
        """The peer will close this tunnel within so many seconds: no new pushes here."""

    def on_replace(self, timeout: float) -> None:
        """At the connector: the relay will drain this tunnel within so many seconds, and wants a new one before. Pushes
        come here until then. May come again."""

    def on_drained(self) -> None:
        """We drain, and the last stream is done (or the time is up): close, but not before this call into the core has
        returned. The last answers may be in the message that it is making, or reading. May come again."""

    def on_failed(self, code: str, detail: str) -> None:
        """The tunnel is over by a violation, by silence, or by a hello that does not fit: close. `detail` is for our
        log."""

    def on_error(self, error: Exception) -> None:
        """A handler of ours raised; its stream was reset."""

    def on_usable(self) -> None:
        """At the relay: the connector was silent for a while, and is heard again: it may have pushes."""

    def on_room(self) -> bool:
        """At the relay: there was no place for another push, and now there is one. Whether anybody waited for it: if
        so, the next place is told of too."""

    def on_output(self) -> None:
        """There is something to send, where there was nothing before."""
