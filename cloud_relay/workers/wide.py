"""Where sessions are found when several workers serve as one relay: here first, else at a sibling.

Its own tunnels save a push the way through a second process. So a sibling is asked only where none of them takes the
push; `hops` counts how often.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from cloud_relay.registry import RANKS, Registry
from cloud_relay.session import Session
from cloud_relay.workers.hop import Hop
from shared.metric_cells import Counter

if TYPE_CHECKING:
    from cloud_relay.identity.records import ConnectorKey
    from cloud_relay.registry import Waiter
    from cloud_relay.session import Key
    from cloud_relay.workers.rival import Rival
    from cloud_relay.workers.shares import GateKey
    from cloud_relay.workers.sibling import Sibling


class WideRegistry:
    """The registry that pushes ask: `local` is this worker's, `siblings` are the others."""

    def __init__(
        self, local: Registry, hops: Counter | None = None, source: Callable[[], float] = random.random
    ) -> None:
        """`hops` counts pushes that are given to a sibling."""
        self.local = local
        self.siblings: list[Sibling] = []
        self.hops = hops or Counter()
        self.rival_came: Callable[[Rival], None] = _nobody
        self.rival_gone: Callable[[Rival], None] = _nobody
        """Told of sessions that siblings have, and of their ends."""
        self.hint: Callable[[ConnectorKey, float], object] = _nobody_renews
        """Asks the connector's tunnels here for a renewal."""
        self.share: Callable[[GateKey, float], object] = _nobody_divides
        """Takes a share of a quota."""
        self.stored: Callable[[int], object] = _nothing_shared
        """Told that a sibling has written events, up to this number."""
        self._random = source

    def __repr__(self) -> str:
        return f"<WideRegistry {self.local!r}, {self.siblings!r}, {self.hops.value} hops>"

    # --- what pushes ask

    def choose(
        self,
        tenant: str,
        location: str,
        target: str,
        exclude: Sequence[Session | Hop] = (),
        *,
        other_connector: bool = False,
    ) -> Session | Hop | None:
        """As `Registry.choose`; where this worker has none, the way to a sibling that has."""
        here = [one for one in exclude if isinstance(one, Session)] if exclude else ()
        key = (tenant, location, target)
        session = self.local.choose(tenant, location, target, here, other_connector=other_connector)
        if session is None:
            # A place in a full tunnel here is better than one in a standby's there.
            return self._hop(key, exclude, len(RANKS) if exclude else self.local.awaited(key) + 1)
        if not exclude and key not in self.local.worse:
            return session
        return self._hop(key, exclude, self.local.rank(key, session)) or session

    def wait(self, key: Key, callback: Callable[[], None]) -> Waiter:
        """As `Registry.wait`; a sibling's new tunnel counts too."""
        return self.local.wait(key, callback)

    def doubt(self, key: Key, session: Session | Hop) -> bool:
        """A sibling had no connector for a push: its last tunnel has just ended, or all are full."""
        if not isinstance(session, Hop):
            return False
        for sibling in self.siblings:
            if session.worker == sibling.number:
                sibling.doubt(key)
        return True

    def count(self, key: Key) -> int:
        """Tunnels here by which a push for the key could go now, and siblings that have some."""
        return self.local.count(key) + sum(key in sibling.keys for sibling in self.siblings)

    def active(self) -> set[tuple[str, str]]:
        """Some of those who push at siblings, by tenant and name."""
        return {one for sibling in self.siblings for one in sibling.active}

    def states(self, key: Key) -> list[tuple[str, str]]:
        """How a target is behind the connectors of each sibling, and why."""
        found = [sibling.how.get(key, {}) for sibling in self.siblings]
        return [(state, why) for how in found for _, state, why in how.values()]

    def _hop(self, key: Key, exclude: Sequence[Session | Hop], worse_than: int = len(RANKS)) -> Hop | None:
        """The way to the best rank there is, if it is below `worse_than`, and to the least loaded of those."""
        avoid = [one.identity.connector for one in exclude if one.identity.connector]
        tried = {one.worker for one in exclude if isinstance(one, Hop) and not one.identity.connector}
        found = [
            (rank, sibling.in_flight, self._random(), hop)
            for sibling in self.siblings
            if sibling.number not in tried and (hop := sibling.hop(key, avoid)) is not None
            and (rank := sibling.rank(key, avoid)) < worse_than
        ]  # fmt: skip
        if not found:
            return None
        self.hops.value += 1
        return min(found)[-1]

    # --- what contests ask

    def rivals_of(self, connector: ConnectorKey, instance: str) -> list[Rival]:
        """Sessions of other instances of this connector, at siblings; for "" of all instances."""
        return [
            rival
            for sibling in self.siblings
            for rival in sibling.rivals.values()
            if rival.connector == connector and rival.instance != instance
        ]

    def rivals(self) -> list[Rival]:
        """All sessions at siblings."""
        return [rival for sibling in self.siblings for rival in sibling.rivals.values()]

    # --- what siblings tell

    def on_key(self, key: Key) -> None:
        """A sibling has a tunnel for this key now."""
        self.local.wake(key)

    def on_rival(self, rival: Rival) -> None:
        """A sibling has attached a session."""
        self.rival_came(rival)

    def on_rival_gone(self, rival: Rival) -> None:
        """A session at a sibling has ended."""
        self.rival_gone(rival)

    def on_hint(self, connector: ConnectorKey, within: float) -> None:
        """A sibling wants this connector to renew."""
        self.hint(connector, within)

    def on_share(self, key: GateKey, share: float) -> None:
        """The first worker says how much of a quota is this one's."""
        self.share(key, share)

    def on_stored(self, number: int) -> None:
        """A sibling has written events."""
        self.stored(number)


def _nobody_divides(_key: GateKey, _share: float) -> None:
    """No quotas yet."""


def _nothing_shared(_number: int) -> None:
    """No state yet."""


def _nobody_renews(_connector: ConnectorKey, _within: float) -> None:
    """No tunnel listener yet."""


def _nobody(_rival: Rival) -> None:
    """No contest goes on."""
