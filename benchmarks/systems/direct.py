"""No system at all: the load generator speaks to the target. The floor of every latency."""

from __future__ import annotations

from benchmarks.programs import missing_programs
from benchmarks.site import Site
from benchmarks.systems.base import FILES, Endpoint, Running, Shape


class Direct:
    """Plain HTTP straight to the target, also where a scenario asks for TLS."""

    name = "direct"

    def missing(self) -> list[str]:
        return missing_programs("nginx")

    def start(self, site: Site, shape: Shape) -> Running:
        doors = {
            (target, is_tls): Endpoint(port, is_tls=False, host=site.premises.address)
            for target, port in site.targets.items()
            for is_tls in (True, False)
        }
        if site.file_server is not None:
            doors[FILES, False] = Endpoint(site.file_server.port, is_tls=False, host=site.premises.address)
        return Running(doors, [], {})
