"""What is counted of the tunnels to each relay, read by a scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final, NamedTuple

from prometheus_client.core import Metric

from shared.errors import FAULTS
from shared.metrics import counter_family, gauge_family
from shared.protocol import StallCounts
from shared.stall_metrics import stall_families

_RELAY: Final = ("relay",)


class RelayCounts:
    """Of the tunnels to one relay: `lost` although they were wanted, `failed` before they were open, both by code."""

    __slots__ = ("failed", "lost", "stalls")

    def __init__(self) -> None:
        self.lost: dict[str, int] = {}
        self.failed: dict[str, int] = {}
        self.stalls = StallCounts()


class Standing(NamedTuple):
    """One tunnel that is up: to which relay (host:port), for how many seconds, and its round trip in seconds, infinite
    before it is known."""

    relay: str
    age: float
    round_trip: float


class TunnelMetrics:
    """Those of all tunnels of the process. `standing` lists the ones that are up."""

    def __init__(self) -> None:
        self.standing: Callable[[], Iterable[Standing]] = tuple
        self._relays: dict[str, RelayCounts] = {}

    def of(self, relay: str) -> RelayCounts:
        """The counts of one relay, as host:port; the same object each time."""
        return self._relays.setdefault(relay, RelayCounts())

    def collect(self) -> Iterator[Metric]:
        """For prometheus_client."""
        ages: dict[tuple[str, ...], float] = {}
        trips: dict[tuple[str, ...], float] = {}
        for one in self.standing():
            key = (one.relay,)
            ages[key] = max(ages.get(key, 0.0), one.age)
            if one.round_trip < 1e6:
                trips[key] = max(trips.get(key, 0.0), one.round_trip)
        yield gauge_family("qanat_connector_tunnel_age_seconds", "Of the oldest tunnel.", _RELAY, ages.items())
        yield gauge_family(
            "qanat_connector_tunnel_round_trip_seconds", "What a ping takes, in the slowest tunnel.", _RELAY,
            trips.items(),
        )  # fmt: skip
        relays = list(self._relays.items())
        for name, text, counts in (
            ("tunnels_lost", "Tunnels that ended although they were wanted.", [(r, one.lost) for r, one in relays]),
            ("tunnel_tries_failed", "Tries to open a tunnel that failed.", [(r, one.failed) for r, one in relays]),
        ):
            yield counter_family(
                f"qanat_connector_{name}", text, (*_RELAY, "code", "origin"),
                (((relay, code, origin_of(code)), n) for relay, codes in counts for code, n in list(codes.items())),
            )  # fmt: skip
        yield from stall_families("qanat_connector", _RELAY, (((r,), one.stalls) for r, one in relays))


def count(codes: dict[str, int], code: str) -> None:
    """One more of this code."""
    codes[code] = codes.get(code, 0) + 1


def origin_of(code: str) -> str:
    """Where an error of this code is made; the relay's are the only ones that we may not know."""
    fault = FAULTS.get(code)
    return "relay" if fault is None else fault.origin.value
