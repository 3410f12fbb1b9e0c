"""What both ends of a link between workers have in common: most of what a tunnel's link can tell never comes on it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from shared.logs import get_logger, log_limited

if TYPE_CHECKING:
    from shared.protocol import Hello
    from shared.protocol.stream import Stream
    from shared.tunnel.link import Link

log = get_logger("relay.workers")


class QuietHandler:
    """A LinkHandler that heeds nothing but bugs. Whoever derives from it heeds what it needs."""

    def on_ready(self, link: Link, hello: Hello) -> None: ...
    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None: ...
    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None: ...
    def on_renew(self, link: Link, request: bytes) -> None: ...
    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None: ...
    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None: ...
    def on_hint(self, link: Link, within: float) -> None: ...
    def on_drain(self, link: Link, timeout: float) -> None: ...
    def on_replace(self, link: Link, timeout: float) -> None: ...
    def on_usable(self, link: Link) -> None: ...
    def on_closed(self, link: Link, code: str, detail: str) -> None: ...

    def on_room(self, link: Link) -> bool:
        return False

    def on_handler_error(self, link: Link, error: Exception) -> None:
        log_limited(log, "error", "crossing", "a push failed by a bug of ours", exc_info=error)
