"""Who floods waits behind itself: how many pushes of one sender may be in flight while it gets in the way of others.

What is in flight cannot be overtaken: it queues in the tunnels, in both programs' loops, in the kernel. So when pushes
pile up there, and several senders are active, the pile is made small, and each tenant gets an equal part of it, and of
that each of its senders (max-min, both times: those who need less keep what they need). What is beyond a sender's part
waits in its own line (see fair_queue), where the others pass by. Nobody is held back alone, or where nothing piles up.
Where several processes serve as one relay, each tells the others of some who push there: a flood at one of them piles
up at connectors that serve all.

Whether something piles up, late pings tell. Of a sender's pushes those are in the pile that end within the time that
the pings of the locations that it pushes to are late by (Little's law); the others are on a long line or at a slow
target, and are nobody's concern. The window for the pile is halved while pings are late and grows while they are not,
as TCP's does (RFC 5681 §3.1).

Nothing here is called for a push: the controller looks every 50 ms, at those who were active of late.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING, Final, Protocol

from cloud_relay.late_pings import LatePings, Link, Place
from shared.logs import get_logger, log_limited

if TYPE_CHECKING:
    from cloud_relay.fair_queue import FairQueue, Handle
    from cloud_relay.gates import Gate
    from cloud_relay.limits import Limits
    from cloud_relay.senders import Sender

STEP: Final = 0.05
"""Seconds between two looks, and …"""

WATCH: Final = 0.02
"""… while there is no crowd: soon enough that one sender's flood is noticed before it has piled up for long."""

CROWD: Final = 16
"""Pushes in flight, of all senders, that harm nobody: with as many both programs are as fast as with more."""

LEAST: Final = 4
"""What each sender may always have in flight; where several tenants are active, those of one twice as many together,
but one each."""

ALIKE: Final = 4
"""Where all have more than their part, those are left alone that have no more than so many times what any other has:
one who pushes steadily has a few in the pile, too, as long as it is there."""

FLOOR: Final = 8
"""The smallest window: what is under way while both programs work on some."""

SLOWLY: Final = 10
"""Looks that it takes the window to grow by one, near the size at which pings were late last; below, each look does.
Or else it would be too large every half a second, for long enough to be all that a hundredth of the pushes see."""

CALM: Final = 100
"""Looks in a row without a late ping after which that size counts no more: then it grows by a sixteenth each time."""

OWN: Final = 0.001
"""Seconds that a push takes through both programs where nothing piles up."""

ACTIVE_FOR: Final = 10.0
"""Seconds after its last push for which a sender counts as one who may come to harm."""

_SCAN: Final = 0.5
"""Seconds between two looks at who is active, and at which tunnels carry most."""

SCAN_AGAIN: Final = 0.1
"""Seconds after which they are looked at again where only one was active, and there is a crowd."""

_SCANNED: Final = 1000
"""Senders that are looked at so often; more of them less often, for it takes some microseconds each."""

_PER_LINK: Final = 2e-5
"""Seconds from one choice of tunnels to the next, for each that there is: a choice takes a twentieth of that."""

LATE_FOR: Final = CALM * STEP
"""Seconds for which pings that were late once on a sender's way say that its pushes may be in the pile."""

_INFINITE: Final = float("inf")

log = get_logger("relay.senders")


class Loop(Protocol):
    """What is used of an event loop."""

    def call_at(self, when: float, callback: Callable[[], object]) -> Handle: ...
    def time(self) -> float: ...


class _Activity:
    """One sender that was active of late: of its pushes, how many are in the pile, and how many are elsewhere."""

    __slots__ = ("_done", "_looked_at", "_rate", "_weight", "away", "demand", "late_at", "piled", "sender")

    def __init__(self, sender: Sender, now: float) -> None:
        self.sender = sender
        self.away = self.piled = self.demand = 0
        self._done = sender.metrics.pushes
        self._looked_at = now
        self._rate = 0.0
        self.late_at = -_INFINITE
        """When pings were late last on one of its ways."""
        self._weight = 1.0  # of the first measure: there is nothing before it

    @property
    def name(self) -> tuple[str, str]:
        """Tenant and name of the sender."""
        return self.sender.tenant, self.sender.name

    def measure(self, queued: float, queue: FairQueue, now: float) -> None:
        """`queued` is what a push waits in one pass of both loops; it passes them twice."""
        done, since = self.sender.metrics.pushes, now - self._looked_at
        if since > 0:
            weight = max(self._weight, min(1.0, since / (4 * STEP)))
            self._rate += ((done - self._done) / since - self._rate) * weight
            self._weight = 0.0
            self._done, self._looked_at = done, now
        in_flight = _passing(self.sender.gate)
        self.piled = min(in_flight, round(self._rate * (OWN + 2 * queued)))
        self.away = in_flight - self.piled
        self.demand = self.piled + queue.waiting_of(self.sender.gate)


class FairShare:
    """The controller. `senders` gives all that there are, `links` all tunnels with the places that they lead to;
    `is_on` says whether there may be lines."""

    def __init__(
        self,
        loop: Loop,
        limits: Limits,
        queue: FairQueue,
        senders: Callable[[], Iterable[Sender]],
        links: Callable[[], Collection[tuple[Place, Link]]],
        is_on: Callable[[], bool],
    ) -> None:
        self._loop = loop
        self._limits = limits
        self._queue = queue
        self._senders = senders
        self._links = links
        self._is_on = is_on
        self._timer: Handle | None = None
        self._scan_at = self._scanned_at = self._choose_at = 0.0
        self._pushes: dict[Sender, tuple[int, float]] = {}
        self._active: list[_Activity] = []
        self._pings = LatePings()
        self._narrowed: set[Gate] = set()
        self._told: list[tuple[str, str]] = []
        self.elsewhere: Callable[[], set[tuple[str, str]]] = set
        """Gives some of those who push at other processes of the relay, by tenant and name."""
        self.on_active: Callable[[list[tuple[str, str]]], object] = _nobody
        """Told of some of those who push here, when they are others than before."""
        self._has_others = False
        self._calm = 0
        self._too_large = 0.0
        self.window = _INFINITE
        """Pushes in flight that all senders share just now; infinite as long as it is no matter."""

    @property
    def narrowed(self) -> int:
        """Senders that are held back for others."""
        return len(self._narrowed)

    def start(self) -> None:
        """Look from now on."""
        pause = STEP if self.window < _INFINITE else WATCH
        self._timer = self._loop.call_at(self._loop.time() + pause, self._on_time)

    def stop(self) -> None:
        """Look no more, and hold nobody back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._relax()

    def _on_time(self) -> None:
        try:
            self.look(self._loop.time())
        finally:
            self.start()

    def look(self, now: float) -> None:
        """Compare, and decide."""
        limits, queue = self._limits, self._queue
        is_due = now >= self._scan_at
        if is_due:
            self._scan(now)
        if limits.in_flight + queue.waiting <= CROWD or not self._is_on() or not self._is_contested(now):
            self._relax()
            return
        pings = self._pings
        if now >= self._choose_at and (is_due or self.window == _INFINITE or not pings.is_pinging):
            links = self._links()
            self._choose_at = now + len(links) * _PER_LINK
            pings.choose(links, now)
        is_late = pings.look(now)
        for one in self._active:
            queued, is_way_late = pings.wait_of(one.sender.tenant, one.sender.locations)
            one.measure(queued, queue, now)
            if is_way_late:
                one.late_at = now
        self._adjust(is_late=is_late)
        if self.window < sum(one.demand for one in self._active):
            self._share_out(now)
        else:
            self._let_go()

    def _scan(self, now: float) -> None:
        """Who was active of late."""
        self._scanned_at = now
        self._scan_at = now + self._slowed(_SCAN)
        before, self._pushes = self._pushes, {}
        for sender in self._senders():
            pushes, gate = sender.metrics.pushes, sender.gate
            known = before.get(sender)
            is_new = known is not None and known[0] != pushes
            if is_new or _passing(gate) or self._queue.waiting_of(gate):
                self._pushes[sender] = (pushes, now)
            else:
                self._pushes[sender] = (pushes, known[1] if known is not None else -ACTIVE_FOR)
        known_ones = {one.sender: one for one in self._active}
        self._active = [
            known_ones.get(sender) or _Activity(sender, now)
            for sender, (_, at) in self._pushes.items()
            if now - at < ACTIVE_FOR
        ]
        # Two are enough for whoever hears of it to know one that is not its own.
        some = [one.name for one in self._active[:2]]
        if some != self._told:
            self._told = some
            self.on_active(some)

    def _slowed(self, pause: float) -> float:
        return pause * max(1.0, len(self._pushes) / _SCANNED)

    def _is_contested(self, now: float) -> bool:
        """Whether there are several who push. Who was idle at the last scan may be the one that makes the crowd."""
        if len(self._active) < 2 and now - self._scanned_at >= self._slowed(SCAN_AGAIN):
            self._scan(now)
        self._has_others = not self.elsewhere() <= {one.name for one in self._active}
        return len(self._active) > 1 or (self._has_others and len(self._active) > 0)

    def _adjust(self, *, is_late: bool) -> None:
        """Shrink while pings are late, grow while they are not."""
        if is_late:
            self._calm = 0
            self._too_large = max(2 * FLOOR, min(self.window, sum(one.piled for one in self._active)))
            self.window = self._too_large / 2
        elif self._pings.is_pinging and self.window < _INFINITE:
            self._calm += 1
            if self._calm >= CALM:
                self.window *= 1 + 1 / 16
            else:
                self.window += 1 if self.window < self._too_large * 3 / 4 else 1 / SLOWLY

    def _share_out(self, now: float) -> None:
        """Each gets what it needs up to the same level; those above it are held back, if there is anybody below.

        Whose ways were not late has nothing in the pile, however much it has under way.
        """
        parts = self._parts()
        above = [(one, part) for one, part in parts if one.demand > part and now - one.late_at <= LATE_FOR]
        # Where all are above, for whose sake? One with far less, a tenant with fewer senders, or others elsewhere.
        if len(above) == len(self._active) and not self._has_others:
            most, least = max(part for _, part in parts), min(one.demand for one in self._active)
            above = [(one, part) for one, part in above if part < most or one.demand > ALIKE * least]
        if not above:
            self._let_go()
            return
        narrowed = {one.sender.gate for one, _ in above}
        self._widen(self._narrowed - narrowed)
        for one, part in above:
            gate = one.sender.gate
            if gate not in self._narrowed:
                _tell(one.sender, one.demand)
            gate.narrow(one.away + part)
            self._wake(gate)
        self._narrowed = narrowed

    def _parts(self) -> list[tuple[_Activity, int]]:
        """What each sender may have in the pile."""
        tenants: dict[str, list[_Activity]] = {}
        for one in self._active:
            tenants.setdefault(one.sender.tenant, []).append(one)
        wanted = [sum(one.demand for one in senders) for senders in tenants.values()]
        of_tenant = max(LEAST, level_of(wanted, int(self.window)))
        parts: list[tuple[_Activity, int]] = []
        for senders in tenants.values():
            least = LEAST if len(tenants) == 1 else max(1, min(LEAST, 2 * LEAST // len(senders)))
            part = max(least, level_of([one.demand for one in senders], of_tenant))
            parts += [(one, part) for one in senders]
        return parts

    def _let_go(self) -> None:
        """Nobody need be held back."""
        if self._narrowed:
            self._widen(self._narrowed)
            self._narrowed = set()
        self.window = _INFINITE
        self._pings.pause()

    def _relax(self) -> None:
        """Nor could anybody come to harm: there is nothing to look for."""
        self._let_go()
        self._pings.rest()

    def _widen(self, gates: Iterable[Gate]) -> None:
        for gate in gates:
            gate.narrow(0)
            self._wake(gate)

    def _wake(self, gate: Gate) -> None:
        if gate.line is not None:
            self._queue.has_room(gate)

    def __repr__(self) -> str:
        return f"<FairShare window {self.window:.0f}, {len(self._active)} active, {self.narrowed} held back>"


def level_of(demands: Iterable[int], total: int) -> int:
    """The max-min fair level: the largest L for which the demands, each cut at L, add up to no more than `total`."""
    left = sorted(demands)
    for at, demand in enumerate(left):
        part = total // (len(left) - at)
        if demand > part:
            return part
        total -= demand
    return left[-1] if left else 0


def _nobody(_active: list[tuple[str, str]]) -> None:
    """There are no other processes."""


def _passing(gate: Gate) -> int:
    return gate.in_flight - gate.lasting


def _tell(sender: Sender, demand: int) -> None:
    name = f"{sender.tenant}/{sender.name}"
    log_limited(
        log, "info", f"share {name}", "a sender's pushes wait for others", tenant=sender.tenant, sender=sender.name,
        pushes=demand,
    )  # fmt: skip
