"""From a tunnel's HELLO to its end: sessions are attached, contested, watched and detached.

One identity, one running instance. When another instance shows the same identity, the sessions of the old one are asked
for a sign of life and have CONTEST_TIME for it. One that answers keeps its place, and the newcomer is refused; else it
is replaced. Sessions that drain, or that end meanwhile, contest nothing: that is how a restart looks.

Two instances that come in the same moment, each to another worker of this relay, find nobody. Each worker hears of the
other's session a moment later, and then the instance that came later is the newcomer: both judge that alike.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

from cloud_relay.registry import Registry
from cloud_relay.session import Session
from cloud_relay.tunnel_metrics import TunnelMetrics
from shared.logs import LogLimiter, get_logger, log_limited
from shared.probe import CAPABILITY as PROBE
from shared.tcp.head import CAPABILITY
from shared.timers import precise_clock

if TYPE_CHECKING:
    from cloud_relay.admit import Identity
    from cloud_relay.identity.records import ConnectorKey
    from cloud_relay.identity.sessions import RenewalDesk
    from cloud_relay.identity.targets import TargetGuard
    from shared.protocol import Hello, Stream
    from shared.tunnel.link import Link

CONTEST_TIME: Final = 1.0
"""Seconds for an old session to show that it lives."""

TARGETS_SHOWN: Final = 20
"""Names of targets in a line of the log."""

_LIVES: Final = LogLimiter(rate=1.0, burst=200, max_keys=20_000)
"""Tunnels come and go, and each time is worth a line; but not for one that comes back as fast as it is thrown out."""

log = get_logger("relay.tunnels")


class Rival(Protocol):
    """A session of another instance, as a contest sees it: here, or at another worker of this relay."""

    @property
    def last_received(self) -> float: ...
    def ping(self) -> None: ...
    def describe(self) -> str: ...
    def replace(self) -> None:
        """It did not answer: another takes its place."""


Seniority = tuple[float, int, int]
"""When a session came, by the clock that all workers share; its worker; its number there. The smallest came first."""


class DistantRival(Rival, Protocol):
    """A session at another worker."""

    @property
    def connector(self) -> ConnectorKey: ...
    @property
    def instance(self) -> str: ...
    @property
    def seniority(self) -> Seniority: ...


Elsewhere = Callable[["ConnectorKey", str], Sequence[DistantRival]]
"""Rivals at other workers: sessions of this connector's other instances than this one; of all of them for ""."""


class LocalRival:
    """A rival in this process."""

    __slots__ = ("_registry", "session")

    def __init__(self, session: Session, registry: Registry) -> None:
        self.session = session
        self._registry = registry

    @property
    def last_received(self) -> float:
        return self.session.link.last_received

    def ping(self) -> None:
        self.session.link.ping()

    def describe(self) -> str:
        return self.session.link.describe()

    def replace(self) -> None:
        log.warning(
            "session replaced: it did not answer", connector=str(self.session.identity), session=self.session.number
        )
        self._registry.detach(self.session)
        self.session.link.close("replaced")


class Contest:
    """A newcomer against the sessions of another instance, asked at `asked_at` on the clock of `Link.last_received`."""

    __slots__ = ("asked_at", "newcomer", "rivals", "timer")

    def __init__(self, newcomer: Session, rivals: list[Rival], asked_at: float) -> None:
        self.newcomer = newcomer
        self.rivals = rivals
        self.asked_at = asked_at
        self.timer: asyncio.TimerHandle | None = None


class Attendance:
    """Keeps the registry true to the links of one process."""

    def __init__(self, loop: asyncio.AbstractEventLoop, registry: Registry, guard: TargetGuard | None = None) -> None:
        self.registry = registry
        self.counts = TunnelMetrics()
        """May be replaced before the first tunnel comes."""
        self._guard = guard
        self._loop = loop
        self._time = precise_clock(loop)
        self._contests: list[Contest] = []
        self.elsewhere: Elsewhere = _none
        self.worker = 0
        """The number of this worker, where there are several."""

    def allowed(self, identity: Identity, targets: Mapping[str, str]) -> Mapping[str, str]:
        """Those of the announced targets that this connector may expose."""
        return targets if self._guard is None else self._guard.allowed(identity, targets)

    def ready(self, session: Session) -> None:
        """Its HELLO came: attach it, perhaps after a contest."""
        key = session.identity.key
        rivals: list[Rival] = [
            LocalRival(one, self.registry)
            for one in self.registry.of_connector(key)
            if one.instance != session.instance and not one.link.is_draining
        ]
        rivals += self.elsewhere(key, session.instance)
        if rivals:
            self._contest(session, rivals)
            return
        self.registry.attach(session)
        self.counts.of(key).attached += 1
        log_limited(
            log, "info", f"attached {session.identity}", "tunnel attached", limiter=_LIVES,
            connector=str(session.identity), session=session.number,
            peer=session.link.describe(), targets=_shown(session.targets),
        )  # fmt: skip

    def ended(self, session: Session, code: str, detail: str) -> None:
        """Its link is over."""
        self.registry.detach(session)
        self.counts.of(session.identity.key).end(code)
        log_limited(
            log, "info", f"ended {session.identity}", "tunnel ended", limiter=_LIVES,
            connector=str(session.identity), session=session.number,
            peer=session.link.describe(), code=code, detail=detail,
        )  # fmt: skip
        for contest in list(self._contests):
            if contest.newcomer is session:
                self._end(contest)
            else:
                for rival in contest.rivals:
                    if isinstance(rival, LocalRival) and rival.session is session:
                        self.rival_gone(rival)
                        break

    def rival_gone(self, rival: Rival) -> None:
        """A rival has ended by itself, or is about to: it contests nothing any more."""
        for contest in list(self._contests):
            if rival in contest.rivals:
                contest.rivals.remove(rival)
                if not contest.rivals:
                    self._end(contest)
                    self._stays(contest.newcomer)

    def rival_came(self, rival: DistantRival) -> None:
        """Another worker has attached a session. Of two instances the one that came first stays, if it lives."""
        for session in self.registry.of_connector(rival.connector):
            if session.instance == rival.instance or session.link.is_draining:
                continue
            if any(contest.newcomer is session for contest in self._contests):
                continue
            if self._seniority(rival.connector, rival.instance) < self._seniority(rival.connector, session.instance):
                several = self.elsewhere(rival.connector, session.instance)
                self._contest(session, [one for one in several if one.instance == rival.instance])

    def _seniority(self, key: ConnectorKey, instance: str) -> Seniority:
        """Of an instance's sessions, wherever they are, the first one's."""
        here = [
            (one.attached_at, self.worker, one.number)
            for one in self.registry.of_connector(key)
            if one.instance == instance
        ]
        there = [one.seniority for one in self.elsewhere(key, "") if one.instance == instance]
        return min(here + there)

    def _stays(self, newcomer: Session) -> None:
        """It has nobody to contest any more."""
        if newcomer not in self.registry:
            self.ready(newcomer)

    def _contest(self, newcomer: Session, rivals: list[Rival]) -> None:
        contest = Contest(newcomer, rivals, self._time())
        contest.timer = self._loop.call_later(CONTEST_TIME, self._judge, contest)
        self._contests.append(contest)
        for rival in rivals:
            rival.ping()

    def _judge(self, contest: Contest) -> None:
        self._end(contest)
        newcomer = contest.newcomer
        alive = [rival for rival in contest.rivals if rival.last_received > contest.asked_at]
        if alive:
            log.warning(
                "two running connectors hold the same identity: the newcomer is refused",
                connector=str(newcomer.identity), newcomer=newcomer.link.describe(), attached=alive[0].describe(),
            )  # fmt: skip
            self.registry.detach(newcomer)  # it may have been attached, in the same moment as the other one
            newcomer.link.close("duplicate-instance")
            return
        for rival in contest.rivals:
            rival.replace()
        self._stays(newcomer)

    def _end(self, contest: Contest) -> None:
        self._contests.remove(contest)
        if contest.timer is not None:
            contest.timer.cancel()


class Attendant:
    """The LinkHandler of one link at the relay: what comes between its HELLO and its end.

    `renewal` is what the link's renewal frames go to, None where the CA is the operator's own.
    """

    __slots__ = ("_announced", "_attendance", "_loop", "_on_end", "_renewal", "identity", "session")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        attendance: Attendance,
        identity: Identity,
        on_end: Callable[[Link], None],
        renewal: RenewalDesk | None = None,
    ) -> None:
        self._loop = loop
        self._attendance = attendance
        self._on_end = on_end
        self._renewal = renewal
        self.identity = identity
        self.session: Session | None = None
        self._announced: Mapping[str, str] = {}

    def on_ready(self, link: Link, hello: Hello) -> None:
        if not hello.instance:  # all that say nothing would be one instance
            link.close("protocol-error", "a HELLO without an instance")
            return
        self._announced = hello.targets
        renewal = self._renewal
        if renewal is None or renewal.may_attend(link, self.identity, lambda: self._attend(link, hello)):
            self._attend(link, hello)

    def _attend(self, link: Link, hello: Hello) -> None:
        number = self._attendance.registry.next_number()
        targets = _usable(link, self._attendance.allowed(self.identity, self._announced))
        session = Session(
            self.identity, link, hello.instance, targets, self._loop.time(), number,
            is_standby=hello.standby, answers_probes=PROBE in hello.capabilities,
        )  # fmt: skip
        self.session = session
        link.count_stalls(self._attendance.counts.of(self.identity.key).stalls)
        self._attendance.ready(session)
        link.ping()  # what the path takes by itself: fair_share compares with it

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """Never comes: only the relay opens streams, and the core fails a connector that tries."""

    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None:
        self._announced = targets
        session = self.session
        if session is None:
            return
        targets = _usable(link, self._attendance.allowed(self.identity, targets))
        if targets == session.targets:
            return
        self._attendance.registry.update_targets(session, targets)
        name = str(self.identity)
        log_limited(log, "info", f"targets {name}", "targets changed", connector=name, targets=_shown(targets))

    def on_renew(self, link: Link, request: bytes) -> None:
        if self._renewal is not None:  # else the core fails whoever asks: it was not offered
            self._renewal.renew(link, self.identity, request)

    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None:
        """Never comes: a relay asks for none."""

    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None:
        if self._renewal is not None:
            self._renewal.note_trust(link, self.identity, message["pins"])

    def on_hint(self, link: Link, within: float) -> None:
        """Never comes: only a connector is asked to renew."""

    def on_drain(self, link: Link, timeout: float) -> None:
        name = str(self.identity)
        log_limited(
            log, "info", f"drains {name}", "connector drains a tunnel", limiter=_LIVES, connector=name, timeout=timeout
        )

    def on_replace(self, link: Link, timeout: float) -> None:
        """Never comes: only a connector is asked for a new tunnel."""

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self._on_end(link)
        if self.session is not None:
            self._attendance.ended(self.session, code, detail)
        else:
            log_limited(
                log, "info", f"ended {self.identity}", "tunnel ended before it took pushes", limiter=_LIVES,
                connector=str(self.identity), peer=link.describe(),
                code=code, detail=detail,
            )  # fmt: skip

    def on_usable(self, link: Link) -> None:
        if self.session is not None:
            self._attendance.registry.on_usable(self.session)

    def on_room(self, link: Link) -> bool:
        return self.session is not None and self._attendance.registry.on_room(self.session)

    def on_handler_error(self, link: Link, error: Exception) -> None:
        name = str(self.identity)
        log_limited(log, "error", f"bug {name}", "a push failed by a bug of ours", connector=name, exc_info=error)


def _usable(link: Link, targets: Mapping[str, str]) -> Mapping[str, str]:
    """Without those of a kind that the connector names, but does not say to take: it would not understand us."""
    peer = link.peer
    if peer is not None and CAPABILITY in peer.capabilities:
        return targets
    return {name: kind for name, kind in targets.items() if kind != "tcp"}


def _none(_key: ConnectorKey, _instance: str) -> Sequence[DistantRival]:
    """There are no other workers."""
    return ()


def _shown(targets: Mapping[str, str]) -> list[str]:
    names = sorted(targets)
    rest = len(names) - TARGETS_SHOWN
    return [*names[:TARGETS_SHOWN], f"and {rest} more"] if rest > 0 else names
