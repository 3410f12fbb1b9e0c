"""nginx as the TLS ingress, and chisel (SSH inside a WebSocket) with a reverse tunnel."""

from __future__ import annotations

from benchmarks.nginx import start_ingress
from benchmarks.programs import missing_programs, need_program
from benchmarks.side import free_port, wait_for_port
from benchmarks.site import Site
from benchmarks.systems.base import Running, Shape, both_doors


class NginxChisel:
    """Its documented set-up: one client, one WebSocket, the server behind no further proxy."""

    name = "nginx+chisel"

    def missing(self) -> list[str]:
        return missing_programs("nginx", "chisel")

    def start(self, site: Site, shape: Shape) -> Running:
        program, port = need_program("chisel"), free_port()
        address = site.cloud.address
        argv = [program.path, "server", "--host", address, "--port", str(port), "--reverse", "--auth", "bench:bench"]
        server = site.start(site.cloud, argv, "chisel-server")
        wait_for_port(port, server, site.cloud, host=address)
        forwards = {name: free_port() for name in site.targets}
        remotes = [f"R:127.0.0.1:{forward}:127.0.0.1:{site.targets[name]}" for name, forward in forwards.items()]
        argv = [program.path, "client", "--auth", "bench:bench", f"http://{address}:{port}", *remotes]
        client = site.start(site.premises, argv, "chisel-client")
        for forward in forwards.values():
            wait_for_port(forward, client, site.cloud)
        upstreams = {name: ("127.0.0.1", forward) for name, forward in forwards.items()}
        ingress, tls_port, plain_port = start_ingress(site, upstreams)
        doors = both_doors(site.targets, tls_port, plain_port)
        return Running(doors, [ingress, server, client], {"relay": server, "connector": client})
