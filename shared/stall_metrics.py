"""Waits for credit as metrics, the same on both sides."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client.core import Metric

from shared.metrics import Labels, counter_family
from shared.protocol import StallCounts


def stall_families(program: str, labels: Labels, counts: Iterable[tuple[Labels, StallCounts]]) -> Iterator[Metric]:
    """Two counters: `kind` is "stream" for a slow reader, "tunnel" for a full line."""
    every = list(counts)
    yield counter_family(
        f"{program}_credit_stalls", "How often what was ready to be sent waited for credit.",
        (*labels, "kind"), _by_kind((key, one.streams, one.tunnels) for key, one in every),
    )  # fmt: skip
    yield counter_family(
        f"{program}_credit_stall_seconds", "Seconds for which what was ready to be sent waited for credit, added up.",
        (*labels, "kind"), _by_kind((key, one.stream_seconds, one.tunnel_seconds) for key, one in every),
    )  # fmt: skip


def _by_kind(values: Iterable[tuple[Labels, float, float]]) -> Iterator[tuple[Labels, float]]:
    for key, streams, tunnels in values:
        yield (*key, "stream"), streams
        yield (*key, "tunnel"), tunnels
