"""The tunnels to all relays: made from the config, kept up, told of new targets, drained and closed."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol

from connector_agent.dialer import Dialer
from connector_agent.relay_keeper import RelayKeeper, name_of
from connector_agent.tunnel import IdentityKeeper, OnStream, Tunnel
from connector_agent.tunnel_metrics import Standing, TunnelMetrics
from shared.protocol import Hello, MemoryBudget, Role, Settings, StallCounts
from shared.protocol.hello import CAPABILITIES, RENEWAL
from shared.tasks import cancel, spawn
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link

if TYPE_CHECKING:
    from datetime import datetime

    from connector_agent.certificates import InUse
    from connector_agent.handshake import DialError

GOODBYE: Final = 1.0
"""Seconds for the last resets and the goodbyes to leave."""


class Keeper(IdentityKeeper, Protocol):
    """Who looks after the identity, as `Tunnels` needs it."""

    @property
    def version(self) -> int:
        """Counts identities and lists of roots."""

    async def run(self) -> None:
        """Runs until cancelled; calls `Tunnels.begin` once there is an identity."""

    async def renew_over(self, tunnel: Tunnel) -> DialError | None:
        """Renew over a renew-only tunnel."""


class IdentityView(Protocol):
    """What can be asked of the identity that the tunnels are dialled with, and how it is read anew."""

    def read(self) -> Any:
        """The files of an operator's own CA as they are now, for `use`. May block. PkiError: they are not good."""

    def use(self, loaded: Any) -> list[str]:
        """Dial with what was read; a line for what has changed."""

    def certificates(self) -> list[InUse]:
        """Those in use."""

    def describe(self) -> dict[str, Any]:
        """For `status` and `certs show`: mode, state, id, next_renewal, error, clock."""

    def now(self) -> datetime:
        """By the clock that certificates are judged by."""

    def counts(self) -> dict[str, int]:
        """Renewals by result."""

    async def rotate(self) -> dict[str, Any]:
        """Renew now: the old end and the new. ControlFault when that cannot be."""


class Tunnels:
    """All tunnels of one connector process. Make it inside a running loop, `start` it once.

    `targets` gives what is exposed, kind by name. To end: `drain`, which waits for pushes, if that is wanted, then end
    the streams that are left, then `close`.
    """

    def __init__(
        self,
        relays: list[tuple[str, int]],
        dialer: Dialer,
        on_stream: OnStream,
        targets: Callable[[], Mapping[str, str]],
        *,
        count: int = 2,
        standby: bool = False,
        budget: MemoryBudget,
        gaps: GapWatch,
        settings: Settings | None = None,
        software: str = "qanat",
        keeper: Keeper | None = None,
        version: Callable[[], int] | None = None,
        identity: IdentityView | None = None,
        metrics: TunnelMetrics | None = None,
    ) -> None:
        """`keeper` looks after the identity and says when to dial, or nobody does; `version` counts identities."""
        self._loop = asyncio.get_running_loop()
        self._on_stream = on_stream
        self._targets = targets
        self._budget = budget
        self._gaps = gaps
        self._settings = settings or Settings()
        self._software = software
        self._instance = secrets.token_hex(8)
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._count = count
        self._standby = standby
        self._dialer = dialer
        self._keeper = keeper
        self.identity = identity
        self._metrics = metrics or TunnelMetrics()
        self._metrics.standing = self._standing
        self._version = version or (lambda: keeper.version if keeper is not None else 0)
        self.keepers = [self._make_keeper(host, port) for host, port in relays]

    def __repr__(self) -> str:
        return f"<Tunnels {self.open_count} open to {len(self.keepers)} relays>"

    @property
    def open_count(self) -> int:
        """Tunnels by which a push could come now."""
        return sum(tunnel.is_usable for keeper in self.keepers for tunnel in keeper.all_tunnels())

    def start(self) -> None:
        """Dial, and go on dialling; with a keeper of the identity, once it says so."""
        if self._keeper is None:
            self._tasks = [spawn(keeper.run(), f"tunnels to {keeper.name}") for keeper in self.keepers]
        else:
            self._tasks = [spawn(self._keeper.run(), "identity")]

    def begin(self, relays: Sequence[tuple[str, int]]) -> None:
        """There is an identity: dial the relays of the config, or else these."""
        if not self.keepers:
            self.keepers = [self._make_keeper(host, port) for host, port in relays]
        self._tasks += [spawn(keeper.run(), f"tunnels to {keeper.name}") for keeper in self.keepers]

    def refresh(self) -> None:
        """The identity, or whom it trusts, is another: new tunnels take the place of the old ones."""
        for keeper in self.keepers:
            keeper.refresh()

    def open_links(self) -> list[Link]:
        """The links over which a relay can be asked now: those that are kept, or where there are none, any."""
        kept = [tunnel.link for keeper in self.keepers for tunnel in keeper.tunnels if tunnel.link is not None]
        return [link for link in kept if link.is_open] or [link for link in self._links() if link.is_open]

    def update_targets(self, targets: Mapping[str, str]) -> None:
        """Tell every relay what is exposed from now on."""
        for link in self._links():
            if link.is_open:
                link.update_targets(targets)

    def _standing(self) -> list[Standing]:
        return [
            Standing(keeper.name, tunnel.lived(), tunnel.link.rtt)
            for keeper in self.keepers
            for tunnel in keeper.all_tunnels()
            if tunnel.link is not None and tunnel.is_usable
        ]

    def describe(self) -> list[dict[str, Any]]:
        """A row for each tunnel that there is or should be."""
        return [row for keeper in self.keepers for row in keeper.describe()]

    async def drain(self, seconds: float) -> None:
        """Take no new pushes, let those in flight end within `seconds`, and say goodbye.

        After that time, or when cancelled, nothing new is dialled, and what is open is left to `close`.
        """
        await self._stop_dialling()
        await self._drain_links(seconds + GOODBYE, seconds)

    async def close(self) -> None:
        """End all tunnels within GOODBYE. What their streams have said until now leaves before."""
        await self._stop_dialling()
        await self._drain_links(GOODBYE, GOODBYE)
        for link in self._links():
            link.abort()
        await self._until_ended()

    async def _drain_links(self, announced: float, seconds: float) -> None:
        for link in self._links():
            link.drain(announced)
        try:
            async with asyncio.timeout(seconds):
                await self._until_ended()
        except TimeoutError:
            pass

    async def _stop_dialling(self) -> None:
        for keeper in self.keepers:
            keeper.stop_dialling()
        tasks, self._tasks = self._tasks, []
        await cancel(*tasks)

    async def _until_ended(self) -> None:
        while self._links():
            self._changed.clear()
            await self._changed.wait()

    def _links(self) -> list[Link]:
        every = [tunnel.link for keeper in self.keepers for tunnel in keeper.all_tunnels()]
        return [link for link in every if link is not None]

    def _make_tunnel(self, on_change: Callable[[Tunnel], None]) -> Tunnel:
        def note(tunnel: Tunnel) -> None:
            on_change(tunnel)
            self._changed.set()

        return Tunnel(self._loop, self._on_stream, note, self._version(), self._keeper)

    def _make_keeper(self, host: str, port: int) -> RelayKeeper:
        renew = self._keeper.renew_over if self._keeper is not None else None
        counts = self._metrics.of(name_of(host, port))
        return RelayKeeper(
            host, port, self._count, self._dialer, self._make_tunnel, partial(self._make_link, counts.stalls),
            version=self._version, renew=renew, counts=counts,
        )  # fmt: skip

    def _make_link(self, stalls: StallCounts, tunnel: Tunnel) -> Link:
        capabilities = CAPABILITIES if self._keeper is None else CAPABILITIES | {RENEWAL}
        hello = Hello(
            software=self._software,
            instance=self._instance,
            capabilities=capabilities,
            targets=dict(self._targets()),
            standby=self._standby,
        )
        link = Link(
            Role.CONNECTOR, tunnel, hello, settings=self._settings, budget=self._budget, gaps=self._gaps,
            loop=self._loop,
        )  # fmt: skip
        link.count_stalls(stalls)
        return link
