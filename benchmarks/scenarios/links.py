"""Long and narrow lines: two networks with a delay line between them."""

from __future__ import annotations

from benchmarks.load.bulk import Bulk
from benchmarks.load.run import run_bulk, sender_headers
from benchmarks.scenarios.base import MIB, PEERS, Bench, Figures, LinkShape, Scenario, metered
from benchmarks.scenarios.mixed import beside

_BODY = 64 * MIB

LONG_FAT = LinkShape(bits_per_s=1e9, delay_s=0.050, queue_bytes=16 * MIB, mtu=9000)
SLOW = LinkShape(bits_per_s=10e6, delay_s=0.025, queue_bytes=MIB // 4)


def long_fat(bench: Bench) -> Figures:
    """One 64 MiB body on a new sender connection; the tunnel is as the last repeat left it."""
    door = bench.running.endpoint("sink", is_tls=False)
    spec = Bulk(door.host, door.port, door.is_tls, "/sink", _BODY, headers=sender_headers())
    return metered(bench, lambda: run_bulk(bench.site, spec), push_bytes=_BODY)


def slow_link(bench: Bench) -> Figures:
    """`p99_round_trips` has a bar: how many round trips of the line a small push takes beside bulk."""
    figures = beside(4 * MIB, per_s=20, stretch=3.0)(bench)
    return figures | {"p99_round_trips": figures["p99_ms"] / (2e3 * SLOW.delay_s)}


SCENARIOS = (
    Scenario(
        "long-fat",
        "one 64 MiB body over 100 ms round trip at 1 Gbit/s, MTU 9000",
        long_fat,
        group="links",
        systems=(*PEERS, "direct"),
        link=LONG_FAT,
        takes_s=5.0,
        spans=0.0,
    ),
    Scenario(
        "slow-link",
        "2 KiB pushes beside bulk over 10 Mbit/s, 50 ms round trip, a queue of 256 KiB",
        slow_link,
        group="links",
        systems=("qanat", "qanat-compiled", "nginx+ssh-R"),
        link=SLOW,
        is_long=True,
        takes_s=12.0,
        spans=6.0,
    ),
)
