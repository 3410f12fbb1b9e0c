"""One tunnel of the connector: its link, and what is known of it for `status`."""

from __future__ import annotations

import asyncio
import enum
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from shared.logs import get_logger, log_limited

if TYPE_CHECKING:
    from shared.protocol import Hello, Stream
    from shared.tunnel.link import Link

OnStream = Callable[["Stream", bytes, bytes, bool], None]

MAX_DRAIN: Final = 60.0
"""Seconds after which a tunnel that the relay drains is closed, whatever the relay said: it holds a connection."""

MAX_LEAVING: Final = 11_000.0
"""The same for one that goes on taking pushes after a new one was asked for: a relay's longest, and some minutes."""

log = get_logger("connector.tunnels")


class TunnelState(enum.Enum):
    """The life of one tunnel. `PENDING`: it waits for the first one of its relay to be open."""

    PENDING = "pending"
    CONNECTING = "connecting"
    OPEN = "open"
    WAITING = "waiting"


class IdentityKeeper(Protocol):
    """Who looks after the identity that tunnels are dialled with; nobody, where the CA is the operator's own."""

    def on_ready(self, tunnel: Tunnel, hello: Hello) -> None:
        """HELLOs are exchanged."""

    def on_certificate(self, tunnel: Tunnel, answer: Mapping[str, str]) -> None:
        """The relay's answer to RENEW; see `LinkHandler`."""

    def on_trust(self, tunnel: Tunnel, message: Mapping[str, Sequence[str]]) -> None:
        """The relay's roots; see `LinkHandler`."""

    def on_hint(self, tunnel: Tunnel, within: float) -> None:
        """The relay asks for a renewal."""

    def on_closed(self, tunnel: Tunnel) -> None:
        """The tunnel is over."""


class Tunnel:
    """The LinkHandler of one link at the connector. `greeted` is done when HELLOs are exchanged or the link is over.

    `on_change` is called when the link is ready, drains, or is over. `version` is that of the identity and the trust
    that it is dialled with: one of an older version is replaced.
    """

    __slots__ = (
        "_end", "_keeper", "_loop", "_on_change", "ended_by", "greeted", "is_leaving", "link", "on_stream", "opened_at",
        "relay_hello", "version",
    )  # fmt: skip

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        on_stream: OnStream,
        on_change: Callable[[Tunnel], None],
        version: int = 0,
        keeper: IdentityKeeper | None = None,
    ) -> None:
        self._loop = loop
        self._keeper = keeper
        self.version = version
        self._on_change = on_change
        self._end: asyncio.TimerHandle | None = None
        self.on_stream = on_stream  # the dispatcher's own: nothing in between for a push
        self.link: Link | None = None
        self.greeted: asyncio.Future[None] = loop.create_future()
        self.opened_at = 0.0
        self.relay_hello: Hello | None = None
        self.ended_by: tuple[str, str] | None = None
        self.is_leaving = False
        """Whether the relay has asked for another one in its place."""

    @property
    def is_usable(self) -> bool:
        """Whether a push could come by it now."""
        return self.link is not None and self.link.is_open and not self.link.is_draining

    @property
    def is_wanted(self) -> bool:
        """Whether it counts among those that are kept: pushes come by it, and the relay wants no other one."""
        return self.is_usable and not self.is_leaving

    def lived(self) -> float:
        """Seconds since HELLOs were exchanged, 0.0 if they never were."""
        return self._loop.time() - self.opened_at if self.opened_at else 0.0

    def describe(self) -> dict[str, Any]:
        """What `status` shows of a link."""
        link = self.link
        if link is None:
            return {}
        return {
            "age_s": round(self.lived(), 1),
            "rtt_ms": round(link.rtt * 1e3, 2) if link.rtt < 1e6 else None,
            "in_flight": link.in_flight,
            "peer": link.describe(),
        }

    # LinkHandler

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.opened_at = self._loop.time()
        self.relay_hello = hello
        if self._keeper is not None:
            self._keeper.on_ready(self, hello)
        self._greet()
        self._on_change(self)

    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None:
        """Never comes: a relay exposes nothing."""

    def on_renew(self, link: Link, request: bytes) -> None:
        """Never comes: the core fails a relay that asks for a certificate."""

    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None:
        if self._keeper is not None:
            self._keeper.on_certificate(self, answer)

    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None:
        if self._keeper is not None:
            self._keeper.on_trust(self, message)

    def on_hint(self, link: Link, within: float) -> None:
        if self._keeper is not None:
            self._keeper.on_hint(self, within)

    @property
    def is_renew_only(self) -> bool:
        """Whether no push will ever come by it."""
        return self.relay_hello is not None and self.relay_hello.renew_only

    def replace(self) -> None:
        """Another tunnel has taken its place: end it, once its pushes are done."""
        if self.link is not None:
            self.link.drain(MAX_DRAIN)

    def on_drain(self, link: Link, timeout: float) -> None:
        self._close_after(link, min(timeout, MAX_DRAIN))
        self._on_change(self)

    def on_replace(self, link: Link, timeout: float) -> None:
        if not self.is_leaving:
            self.is_leaving = True
            self._close_after(link, min(timeout, MAX_LEAVING))
            self._on_change(self)

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self.ended_by = (code, detail)
        if self._end is not None:
            self._end.cancel()
        if self._keeper is not None:
            self._keeper.on_closed(self)
        self._greet()
        self._on_change(self)

    def on_usable(self, link: Link) -> None:
        """Only a relay doubts its peers."""

    def on_room(self, link: Link) -> bool:
        """Only a relay opens streams."""
        return False

    def on_handler_error(self, link: Link, error: Exception) -> None:
        log_limited(log, "error", "bug", "a push failed by a bug of ours", exc_info=error)

    def _close_after(self, link: Link, seconds: float) -> None:
        if self._end is not None:
            self._end.cancel()
        self._end = self._loop.call_later(seconds, link.close, "going-away", "drained for too long")

    def _greet(self) -> None:
        if not self.greeted.done():
            self.greeted.set_result(None)
