"""What a system is to the benchmarks."""

from __future__ import annotations

import typing
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.programs import Process
from benchmarks.site import Site


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where a load generator pushes to."""

    port: int
    is_tls: bool
    host: str = "127.0.0.1"


@dataclass(slots=True)
class Running:
    """A system that is up: where its ingress is, and whose CPU and memory count as its own.

    `roles` names processes whose memory is of interest by themselves (`relay`, `connector`); `details` is what a
    scenario for this system alone needs to know; `restart_relay` kills the relay and starts it again, where it can.
    """

    endpoints: dict[tuple[str, bool], Endpoint]
    counted: list[Process]
    roles: dict[str, Process]
    details: dict[str, str] = field(default_factory=dict)
    restart_relay: Callable[[], None] | None = None

    def endpoint(self, target: str, *, is_tls: bool) -> Endpoint:
        return self.endpoints[target, is_tls]

    @property
    def pids(self) -> list[int]:
        return [process.pid for process in self.counted]


FILES = "files"
"""The name of the file server among the endpoints, where there is one."""

BYSTANDER = "bystander"
"""The name of the other relay among the endpoints, where there is one."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How large a system is set up; 1 each is what the benchmarks take unless the scenario is about size.

    With `slow_passwords` senders have passwords that people chose. With a `bystander` there is one more relay with
    its connector: what is done to it shows what the machine itself makes of such a load. `idle_connectors` (each with
    `tunnels_each`) and `locations` are the crowd, which one process plays: connectors of one location that get no
    push, and locations with a connector and a tunnel each. `workers` overrules the system's own number; with
    `gc_watch` the relay writes down each pause of its garbage collector.
    """

    routes: int = 1
    senders: int = 1
    idle_connectors: int = 0
    tunnels_each: int = 1
    locations: int = 0
    workers: int = 0
    gc_watch: bool = False
    slow_passwords: bool = False
    bystander: bool = False


ONE = Shape()


class System(typing.Protocol):
    """Something that carries pushes from an ingress to the targets."""

    name: str

    def missing(self) -> list[str]:
        """What would have to be there; an empty list when it can start."""
        ...

    def start(self, site: Site, shape: Shape) -> Running:
        """Starts its processes with the site and waits until pushes can cross."""
        ...


def both_doors(targets: typing.Iterable[str], tls_port: int, plain_port: int) -> dict[tuple[str, bool], Endpoint]:
    """The endpoints of a system that has one TLS and one plain ingress for all targets."""
    doors: dict[tuple[str, bool], Endpoint] = {}
    for target in targets:
        doors[target, True] = Endpoint(tls_port, is_tls=True)
        doors[target, False] = Endpoint(plain_port, is_tls=False)
    return doors
