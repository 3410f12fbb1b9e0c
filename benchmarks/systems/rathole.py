"""nginx as the TLS ingress, and rathole over its Noise transport."""

from __future__ import annotations

import subprocess

from benchmarks.nginx import start_ingress
from benchmarks.programs import Program, missing_programs, need_program
from benchmarks.side import free_port, wait_for_port
from benchmarks.site import Site
from benchmarks.systems.base import Running, Shape, both_doors

_SERVER = """\
[server]
bind_addr = "{address}:{port}"
default_token = "bench"

[server.transport]
type = "noise"

[server.transport.noise]
local_private_key = "{private}"
"""

_CLIENT = """\
[client]
remote_addr = "{address}:{port}"
default_token = "bench"

[client.transport]
type = "noise"

[client.transport.noise]
remote_public_key = "{public}"
"""


def _keys(program: Program) -> tuple[str, str]:
    """A private and a public key, which rathole makes itself; it prints each on the line after its title."""
    result = subprocess.run([program.path, "--genkey"], capture_output=True, text=True, timeout=10, check=True)
    lines = [line.strip() for line in result.stdout.splitlines() if line.strip()]
    return lines[1], lines[3]


class Rathole:
    """One service for each target."""

    name = "rathole"

    def missing(self) -> list[str]:
        return missing_programs("nginx", "rathole")

    def start(self, site: Site, shape: Shape) -> Running:
        program, port, address = need_program("rathole"), free_port(), site.cloud.address
        private, public = _keys(program)
        forwards = {name: free_port() for name in site.targets}
        server_text = _SERVER.format(address=address, port=port, private=private)
        client_text = _CLIENT.format(address=address, port=port, public=public)
        for name, forward in forwards.items():
            server_text += f'\n[server.services.{name}]\nbind_addr = "127.0.0.1:{forward}"\n'
            client_text += f'\n[client.services.{name}]\nlocal_addr = "127.0.0.1:{site.targets[name]}"\n'
        (site.folder / "server.toml").write_text(server_text)
        (site.folder / "client.toml").write_text(client_text)
        server = site.start(site.cloud, [program.path, "--server", "server.toml"], "rathole-server")
        wait_for_port(port, server, site.cloud, host=address)
        client = site.start(site.premises, [program.path, "--client", "client.toml"], "rathole-client")
        for forward in forwards.values():
            wait_for_port(forward, client, site.cloud)
        upstreams = {name: ("127.0.0.1", forward) for name, forward in forwards.items()}
        ingress, tls_port, plain_port = start_ingress(site, upstreams)
        doors = both_doors(site.targets, tls_port, plain_port)
        return Running(doors, [ingress, server, client], {"relay": server, "connector": client})
