"""The roots that relays are verified against, and how they change: only by those that are trusted already.

What comes in TRUST is looked at one message at a time, the newest one, once a second at most: a relay that sends lists
without end gets no more of this process than that.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NoReturn

from connector_agent.identity.store import IdentityStore, StoreError
from shared.logs import get_logger, log_limited
from shared.pki.trust import MAX_ROOTS, accept_roots, load_pems, pin_of

if TYPE_CHECKING:
    from cryptography import x509

    from shared.clock import TrustedClock

PACE: Final = 1.0
"""Seconds from one message to the next that is looked at."""

Offload = Callable[..., Awaitable[Any]]
"""As asyncio.to_thread: runs a function that may block."""

log = get_logger("connector.identity")


class TrustKeeper:
    """Holds the roots. `on_change` is called after a new list was stored."""

    def __init__(
        self,
        roots: Sequence[x509.Certificate],
        store: IdentityStore,
        clock: TrustedClock,
        on_change: Callable[[], None],
        offload: Offload = asyncio.to_thread,
    ) -> None:
        self.roots = list(roots)
        self.refused = 0
        self._store = store
        self._clock = clock
        self._on_change = on_change
        self._offload = offload
        self._offered: Mapping[str, Sequence[str]] | None = None
        self._came = asyncio.Event()

    def __repr__(self) -> str:
        return f"<TrustKeeper {len(self.roots)} roots, {self.refused} lists refused>"

    @property
    def pins(self) -> list[str]:
        """What the connector says it trusts."""
        return [pin_of(root) for root in self.roots[:MAX_ROOTS]]

    def offer(self, message: Mapping[str, Sequence[str]]) -> None:
        """A relay's TRUST. Of several that wait the last one counts: each is a complete list."""
        self._offered = message
        self._came.set()

    async def run(self) -> NoReturn:
        """Look at what comes, until cancelled."""
        while True:
            await self._came.wait()
            self._came.clear()
            offered, self._offered = self._offered, None
            try:
                if offered is not None:
                    await self._take(offered)
            except Exception:  # whatever it was, the next list must be looked at
                log.exception("new root certificates failed by a bug of ours")
            await asyncio.sleep(PACE)

    async def _take(self, message: Mapping[str, Sequence[str]]) -> None:
        try:
            accepted = await self._offload(self._judge, message)
        except ValueError as error:
            self.refused += 1
            log_limited(
                log, "warning", "trust refused", "the relay offers root certificates that are not taken",
                detail=str(error)[:200], trusted=len(self.roots),
            )  # fmt: skip
            return
        if set(accepted) == set(self.roots):
            return
        try:
            await self._offload(self._store.save_roots, accepted)
        except StoreError as error:
            log_limited(log, "error", "trust unsaved", "new root certificates cannot be stored", detail=str(error))
            return
        added = [pin_of(root) for root in accepted if root not in self.roots]
        removed = [pin_of(root) for root in self.roots if root not in accepted]
        self.roots = accepted
        log.info("root certificates changed", added=added, removed=removed)
        self._on_change()

    def _judge(self, message: Mapping[str, Sequence[str]]) -> list[x509.Certificate]:
        """The list to trust from now on; ValueError when none of it can be believed."""
        accepted = accept_roots(self.roots, load_pems(message["roots"]), load_pems(message["cross"]), self._clock.now())
        return list(dict.fromkeys(accepted))
