"""What is counted of each connector's tunnels, kept while they come and go, read by a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Final, Protocol

from prometheus_client.core import Metric

from shared.errors import FAULTS
from shared.metrics import MAX_SERIES, OTHER, counter_family, gauge_family
from shared.protocol import StallCounts
from shared.stall_metrics import stall_families

if TYPE_CHECKING:
    from cloud_relay.identity.records import ConnectorKey

_CONNECTOR: Final = ("tenant", "location", "connector")


class SessionLink(Protocol):
    """What is asked of a session's link."""

    @property
    def rtt(self) -> float: ...
    @property
    def is_draining(self) -> bool: ...


class Identified(Protocol):
    """What is asked of a session's identity."""

    @property
    def key(self) -> ConnectorKey: ...


class SessionView(Protocol):
    """What is asked of a session at a scrape."""

    @property
    def identity(self) -> Identified: ...
    @property
    def link(self) -> SessionLink: ...
    @property
    def attached_at(self) -> float: ...


class ConnectorCounts:
    """Of one connector: tunnels that were `attached`, those that `ended` by code, and their waits for credit."""

    __slots__ = ("attached", "ended", "stalls")

    def __init__(self) -> None:
        self.attached = 0
        self.ended: dict[str, int] = {}
        self.stalls = StallCounts()

    def end(self, code: str) -> None:
        """A tunnel of it is over."""
        self.ended[code] = self.ended.get(code, 0) + 1


class TunnelMetrics:
    """Those of all connectors. `sessions` lists the tunnels that are up, `now` is the clock of their `attached_at`.

    What a connector was counted for stays when it is gone: a counter that vanishes looks like a restart.
    """

    def __init__(self) -> None:
        self.sessions: Callable[[], Iterable[SessionView]] = tuple
        self.now: Callable[[], float] = float
        self._counts: dict[ConnectorKey, ConnectorCounts] = {}

    def of(self, key: ConnectorKey) -> ConnectorCounts:
        """The counts of (tenant, location, connector), the same object each time."""
        counts = self._counts.get(key)
        if counts is None:
            if len(self._counts) >= MAX_SERIES:
                key = (OTHER, OTHER, OTHER)
            counts = self._counts.setdefault(key, ConnectorCounts())
        return counts

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        every = list(self._counts.items())
        yield counter_family(
            "qanat_relay_connector_tunnels_attached", "Tunnels that a connector opened.", _CONNECTOR,
            ((key, one.attached) for key, one in every),
        )  # fmt: skip
        yield counter_family(
            "qanat_relay_connector_tunnels_ended", "Tunnels that ended, by code; going-away is a good end.",
            (*_CONNECTOR, "code", "origin"),
            (((*key, code, FAULTS[code].origin.value), n) for key, one in every for code, n in list(one.ended.items())),
        )  # fmt: skip
        yield from stall_families("qanat_relay", _CONNECTOR, ((key, one.stalls) for key, one in every))
        yield from self._of_sessions()

    def _of_sessions(self) -> Iterator[Metric]:
        ages: dict[ConnectorKey, float] = {}
        trips: dict[ConnectorKey, float] = {}
        now = self.now()
        for session in self.sessions():
            key = session.identity.key
            ages[key] = max(ages.get(key, 0.0), now - session.attached_at)
            if session.link.rtt < 1e6:
                trips[key] = max(trips.get(key, 0.0), session.link.rtt)
        yield gauge_family("qanat_relay_tunnel_age_seconds", "Of its oldest tunnel.", _CONNECTOR, ages.items())
        yield gauge_family(
            "qanat_relay_tunnel_round_trip_seconds", "What a ping takes, in its slowest tunnel.", _CONNECTOR,
            trips.items(),
        )  # fmt: skip
