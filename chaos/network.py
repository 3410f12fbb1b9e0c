"""Where the four parties stand: senders, relay (cloud), connectors (premises), targets (monitoring)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from benchmarks.side import HERE, Side


@dataclass(frozen=True, slots=True)
class Network:
    """The sides, and how they reach each other.

    `ingress` is the relay's address as senders see it, `targets` the targets' as connectors do. `relay_names` are the
    host names by which each connector dials the relay; a connector that is not in it dials "localhost".
    """

    senders: Side = HERE
    cloud: Side = HERE
    premises: Side = HERE
    monitoring: Side = HERE
    ingress: str = "127.0.0.1"
    targets: str = "127.0.0.1"
    relay_names: Mapping[str, str] = field(default_factory=dict)

    def relay_name(self, connector: str) -> str:
        return self.relay_names.get(connector, "localhost")


LOOPBACK = Network()
"""All on this machine's loopback."""
