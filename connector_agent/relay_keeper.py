"""Keeps N tunnels to one relay, for ever: one task that opens them one after the other.

One after the other, since the next may only come when the one before carries traffic; so a relay that comes back after
an outage has one handshake of each connector to do before any second one. A tunnel that the relay drains is replaced at
once, and ends when its pushes are done, or its time is up. A relay that drains tunnel after tunnel gets no more of
them than that: at most `count` end at a time, and those that were young are replaced at the backoff's pace. One that
hands over to another process asks for new tunnels first, and gives pushes to the old ones until it drains them.

A relay may be several processes, each with tunnels of its own: what comes to one that has none for a push takes a
second hop. So where the relay says that it is more than one, there is a tunnel to each of them, up to MAX_TUNNELS. One
that came to another process than it asked for, since that one was not there yet, is replaced by and by.

When the identity, or whom it trusts, is another (`version`), each tunnel is replaced: the new one first, then the old
one ends when its pushes are done. Until a new one is open, and if it cannot be, the old ones stay as they are.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, Final

from connector_agent.coverage import doubled, surplus, uncovered
from connector_agent.dialer import Dialer
from connector_agent.handshake import REFUSALS, DialError
from connector_agent.tunnel import Tunnel, TunnelState
from connector_agent.tunnel_metrics import RelayCounts, count
from shared.backoff import FIRST, Backoff
from shared.errors import FAULTS
from shared.logs import get_logger

if TYPE_CHECKING:
    from shared.tunnel.link import Link
    from shared.tunnel.websocket_client import ClientTransport

REFUSAL_DELAY: Final = 15.0
"""Seconds until the next try when the relay refused: an operator has to do something first."""

LIVED: Final = 5.0
"""Seconds that a tunnel must have lived for the backoff to begin anew."""

LEAST_SPREAD: Final = 1.0
"""Seconds within which a connector is back after its relay is, whatever the relay advised."""

DIAL: Final = 0.2
"""Seconds of it that are kept for the dial itself: who waits longest shall be back by then, not begin."""

MAX_SPREAD: Final = 120.0
"""Seconds between two tries, at most, whatever the relay advised: it would take 36,000 tunnels to need as much."""

REPEAT_LOG: Final = 60.0
"""Seconds after which a failure that goes on is logged again."""

PROVEN: Final = 0.3
"""Seconds that a new tunnel must have lasted before an old one is given up for it: a relay may think better of it."""

MAX_TUNNELS: Final = 8
"""Tunnels to one relay, however many processes it has, unless the config asks for more."""

SPREAD_FIRST: Final = 1.0
"""Seconds until a tunnel is tried at a process that has none, at first; a process that has died is soon back."""

SPREAD_SLOWER: Final = 5.0
"""The same at most, in times the spread that the relay advises: this is less urgent than being back at all."""

MAX_RETIRING: Final = 16
"""Old tunnels that may still end their pushes, for each that is kept, when certificates change quickly."""

MAX_HAND_OVERS: Final = 4
"""Relay processes that may be on their way out at once, each still giving pushes to its tunnels."""

Renew = Callable[[Tunnel], Awaitable[DialError | None]]
"""Renews over a renew-only tunnel; None when the next dial has a new certificate."""

log = get_logger("connector.tunnels")


class RelayKeeper:
    """The tunnels to one relay. `make_link` makes a tunnel's link once its WebSocket is open. Run it as a task."""

    def __init__(
        self,
        host: str,
        port: int,
        count: int,
        dialer: Dialer,
        make_tunnel: Callable[[Callable[[Tunnel], None]], Tunnel],
        make_link: Callable[[Tunnel], Link],
        jitter: Callable[[], float] = random.random,
        *,
        version: Callable[[], int] = lambda: 0,
        renew: Renew | None = None,
        counts: RelayCounts | None = None,
    ) -> None:
        self.counts = counts or RelayCounts()
        self.host = host
        self.port = port
        self.count = count
        self.tunnels: list[Tunnel] = []
        self.retiring: list[Tunnel] = []
        self.state = TunnelState.CONNECTING
        self.error: DialError | None = None
        self.next_try_at = 0.0
        self.tries = 0
        self._dialer = dialer
        self._make_tunnel = make_tunnel
        self._make_link = make_link
        self._jitter = jitter
        self._version = version
        self._renew = renew
        self._renewed = 0
        self._backoff = Backoff(cap=LEAST_SPREAD - DIAL, source=jitter)
        self._changed = asyncio.Event()
        self._logged: tuple[str, float] = ("", 0.0)
        self._is_stopping = False
        self._owed = 0.0
        self._workers = 1
        self._first_asked = int(jitter() * 1000)
        """So that not all connectors come to the same process first."""
        self._spreading = Backoff(cap=SPREAD_SLOWER, first=SPREAD_FIRST, source=jitter)

    def __repr__(self) -> str:
        return f"<RelayKeeper {self.name} {len(self.tunnels)} of {self._wanted} tunnels, {self.state.value}>"

    @property
    def name(self) -> str:
        """The relay's host:port."""
        return name_of(self.host, self.port)

    async def run(self) -> None:
        """Dial, and go on. Cancelled, it leaves the tunnels that are open as they are."""
        while not self._is_stopping:
            if len(self.tunnels) - len(self._stale()) >= self._wanted:
                await self._rest()
                continue
            delay, self._owed = self._owed, 0.0
            if delay:
                await self._wait(delay)
            else:
                await self._try()

    def refresh(self) -> None:
        """The version may be another: replace the tunnels of older ones."""
        self._changed.set()

    def stop_dialling(self) -> None:
        """Open no more tunnels."""
        self._is_stopping = True
        self._changed.set()

    def all_tunnels(self) -> list[Tunnel]:
        """Those that are kept, and those that drain."""
        return [*self.tunnels, *self.retiring]

    def describe(self) -> list[dict[str, Any]]:
        """A row for each tunnel that should be there. JSON-able."""
        rows = [self._row(TunnelState.OPEN.value, tunnel) for tunnel in self.tunnels]
        rows += [self._row("draining", tunnel) for tunnel in self.retiring]
        for number in range(len(self.tunnels), self._wanted):
            is_next = number == len(self.tunnels)
            rows.append(self._row((self.state if is_next else TunnelState.PENDING).value, None, is_next=is_next))
        return rows

    # --- one try

    async def _try(self) -> None:
        """Open one tunnel and wait for its HELLO."""
        self.state = TunnelState.CONNECTING
        self.tries += 1
        tunnel = self._make_tunnel(self._on_change)
        try:
            await self._open(tunnel)
        except DialError as error:
            self.error = error
            count(self.counts.failed, error.code)
            self._log(error)
            self._owe(error)
            return
        if tunnel.is_renew_only:
            await self._renew_only(tunnel)
            return
        self._renewed = 0
        self.error = None
        self._logged = ("", 0.0)
        self.tunnels.append(tunnel)
        self._thin_out()
        if self._stale():
            asyncio.get_running_loop().call_later(PROVEN, self._make_room)
        self._note_advice(tunnel)
        self._on_change(tunnel)  # it may have ended, or begun to drain, while nobody looked
        if tunnel not in self.tunnels:
            return
        log.info(
            "tunnel open", relay=self.name, tunnels=len(self.tunnels),
            proxy=str(self._dialer.proxies.for_host(self.host, self.port) or ""),
        )  # fmt: skip

    async def _open(self, tunnel: Tunnel) -> None:
        def open_receiver(transport: ClientTransport) -> Link:
            link = tunnel.link = self._make_link(tunnel)
            link.start(transport)
            return link

        transport = await self._dialer.dial(self.host, self.port, open_receiver, self._uncovered())
        try:
            await tunnel.greeted
        except asyncio.CancelledError:
            transport.abort()
            raise
        if tunnel.ended_by is not None:
            raise _as_error(*tunnel.ended_by)

    async def _renew_only(self, tunnel: Tunnel) -> None:
        """No push comes by this one: renew, and dial anew at once. A relay that goes on like this has to wait."""
        log.info("the relay takes this certificate for a renewal only", relay=self.name)
        error: DialError | None = _as_error("certificate-expired", "The relay takes no renewal from this connector.")
        try:
            if self._renew is not None:
                error = await self._renew(tunnel)
        finally:
            if tunnel.link is not None:
                tunnel.link.close()
        self._renewed += error is None
        if error is None and self._renewed > 1:
            error = _as_error("certificate-expired", "It was just renewed, and still no push may come.")
        if error is not None:
            self.error = error
            self._log(error)
            self._owe(error)

    @property
    def _wanted(self) -> int:
        """How many tunnels there should be."""
        return max(self.count, min(self._workers, MAX_TUNNELS))

    def _uncovered(self) -> int | None:
        """A process of the relay that no tunnel goes to yet, as far as is known."""
        if self._workers < 2:
            return None
        stale = self._stale()
        missing = uncovered([one for one in self.tunnels if one not in stale], self._workers)
        return missing[(self._first_asked + self.tries) % len(missing)] if missing else None

    async def _rest(self) -> None:
        """There are enough tunnels: wait until there are not, or try to have them at different processes."""
        self._changed.clear()
        if self._workers < 2 or self._uncovered() is None or not doubled(self.tunnels):
            self._spreading.reset()
            await self._changed.wait()
            return
        try:
            async with asyncio.timeout(next(self._spreading)):
                await self._changed.wait()
        except TimeoutError:
            await self._try()

    def _thin_out(self) -> None:
        """One too many was opened, to be at another process: end one of two that are at the same."""
        if self._workers < 2:
            return
        fresh = len(self.tunnels) - len(self._stale())
        for tunnel in surplus(self.tunnels, fresh - self._wanted):
            self.tunnels.remove(tunnel)
            self.retiring.append(tunnel)
            tunnel.replace()

    def _stale(self) -> list[Tunnel]:
        """Tunnels of an older identity, or of older trust."""
        version = self._version()
        return [tunnel for tunnel in self.tunnels if tunnel.version != version]

    def _make_room(self) -> None:
        """A new tunnel has lasted: an old one, if it is one too many, ends when its pushes are done."""
        stale = self._stale()
        proven = sum(tunnel.lived() >= 0.9 * PROVEN for tunnel in self.tunnels if tunnel not in stale)
        for tunnel in stale[: max(0, proven + len(stale) - self._wanted)]:
            self.tunnels.remove(tunnel)
            self.retiring.append(tunnel)
            tunnel.replace()
        for oldest in self.retiring[: -MAX_RETIRING * self._wanted]:
            if oldest.link is not None:
                oldest.link.abort()

    def _owe(self, error: DialError) -> None:
        """Let the next try wait. Several tunnels that are lost together are one loss."""
        if error.is_refusal:
            self._owed = REFUSAL_DELAY * (0.8 + 0.2 * self._jitter())
        elif not self._owed and not self.next_try_at:
            self._owed = next(self._backoff)

    async def _wait(self, delay: float) -> None:
        self.state = TunnelState.WAITING
        loop = asyncio.get_running_loop()
        self.next_try_at = loop.time() + delay
        try:
            async with asyncio.timeout(delay):
                while not self._is_stopping:
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            pass
        self.next_try_at = 0.0

    def _note_advice(self, tunnel: Tunnel) -> None:
        if tunnel.relay_hello is not None:
            spread = min(max(LEAST_SPREAD, tunnel.relay_hello.reconnect_spread), MAX_SPREAD)
            self._backoff.cap = spread - DIAL
            self._spreading.cap = SPREAD_SLOWER * spread
            self._workers = tunnel.relay_hello.workers

    def _log(self, error: DialError) -> None:
        now = asyncio.get_running_loop().time()
        code, at = self._logged
        if error.code == code and now - at < REPEAT_LOG:
            return
        self._logged = (error.code, now)
        log.warning(
            "no tunnel", relay=self.name, code=error.code, detail=error.text, remedy=error.remedy, tries=self.tries
        )

    # --- a tunnel changed

    def _on_change(self, tunnel: Tunnel) -> None:
        if tunnel.ended_by is not None:
            self._forget(tunnel, *tunnel.ended_by)
        elif tunnel in self.tunnels and not tunnel.is_wanted:
            self._retire(tunnel)
        self._changed.set()

    def _retire(self, tunnel: Tunnel) -> None:
        """The relay drains it, or wants another in its place."""
        self.tunnels.remove(tunnel)
        self.retiring.append(tunnel)
        if tunnel.lived() >= LIVED:
            self._backoff.reset()
            self._owed = self._owed or self._jitter() * FIRST
        elif not self._owed and not self.next_try_at:
            self._owed = next(self._backoff)
        log.info("the relay drains a tunnel", relay=self.name, serves_on=tunnel.is_usable)
        leaving = [one for one in self.retiring if one.is_usable and one.is_leaving]
        drained = [one for one in self.retiring if one not in leaving]
        for oldest in drained[: -self._wanted] + leaving[: -MAX_HAND_OVERS * self._wanted]:
            if oldest.link is not None:
                oldest.link.abort()

    def _forget(self, tunnel: Tunnel, code: str, detail: str) -> None:
        if tunnel in self.retiring:
            self.retiring.remove(tunnel)
        elif tunnel in self.tunnels:
            self.tunnels.remove(tunnel)
            self.error = _as_error(code, detail)
            if tunnel.lived() >= LIVED:
                self._backoff.reset()
            self._owe(self.error)
            if not self._is_stopping:
                count(self.counts.lost, self.error.code)
                log.warning("tunnel lost", relay=self.name, code=code, detail=detail, lived=round(tunnel.lived(), 1))

    def _row(self, state: str, tunnel: Tunnel | None, *, is_next: bool = False) -> dict[str, Any]:
        row: dict[str, Any] = {
            "relay": self.name, "state": state, "age_s": None, "rtt_ms": None, "in_flight": 0, "peer": "",
            "error": None, "code": None, "next_try_s": None,
        }  # fmt: skip
        if tunnel is not None:
            row.update(tunnel.describe())
        elif is_next and self.error is not None:
            row["error"] = f"{self.error.text} {self.error.remedy}".rstrip()
            row["code"] = self.error.code
        if is_next and self.next_try_at:
            row["next_try_s"] = round(max(0.0, self.next_try_at - asyncio.get_running_loop().time()), 2)
        return row


def name_of(host: str, port: int) -> str:
    """A relay as it is called in logs and metrics: host:port."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _as_error(code: str, detail: str) -> DialError:
    """The end of a tunnel, as a failure."""
    fault = FAULTS.get(code, FAULTS["connection-lost"])
    return DialError(fault.code, f"{fault.title} {detail}".rstrip(), fault.remedy, is_refusal=code in REFUSALS)
