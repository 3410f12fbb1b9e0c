"""The seam between the tunnel and whatever carries its messages: five calls down, four up.

A transport carries whole binary messages, in order, both ways. Its user (the link) decides *late* what to send, so a
transport must say truthfully how much it still holds, and must call `transport_writable` when that falls to HIGH_WATER.
"""

from __future__ import annotations

from typing import Final, Protocol

MAX_MESSAGE: Final = 64 * 1024
"""Bytes of the largest message. Larger ones pin memory in every TLS buffer, and small pushes cannot overtake them."""

HIGH_WATER: Final = 64 * 1024
"""While a transport holds more than this many bytes, nothing more is taken from any stream."""


class MessageTransport(Protocol):
    """Sends messages. All calls are synchronous and must come from the event loop's thread."""

    def send(self, message: bytes) -> None:
        """Queue a binary message of 1 to MAX_MESSAGE bytes (more: ValueError). A no-op once it is closing."""

    def buffered(self) -> int:
        """Bytes that were given to `send` and not yet to the kernel."""

    def close(self, code: int = 1000, reason: str = "") -> None:
        """Close with grace: what was sent goes out, then a close message.

        `code` is a WebSocket close code, `reason` at most 120 bytes.
        """

    def abort(self) -> None:
        """End at once; what is still queued is lost. `transport_closed` follows on a later tick."""

    def describe(self) -> str:
        """The peer's address, for our own log."""


class MessageReceiver(Protocol):
    """What a transport calls; all calls come from the event loop."""

    def message_received(self, message: bytes) -> None:
        """One whole binary message arrived."""

    def bytes_received(self) -> None:
        """Some bytes arrived, perhaps only a part of a message: the peer is alive. Comes before `message_received`."""

    def transport_writable(self) -> None:
        """What the transport holds fell to HIGH_WATER or below, after having been above."""

    def transport_closing(self, code: int | None, reason: str) -> None:
        """The peer's close message came: nothing that is sent from now on arrives. `transport_closed` follows."""

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        """The last call. `code` and `reason` are the peer's close message, None and "" where there was none."""
