"""nginx as the TLS ingress, and frp with a TCP proxy for each target over its own TLS."""

from __future__ import annotations

from benchmarks.nginx import start_ingress
from benchmarks.programs import missing_programs, need_program
from benchmarks.side import free_port, wait_for_port
from benchmarks.site import Site
from benchmarks.systems.base import Running, Shape, both_doors

_SERVER = """\
bindAddr = "{address}"
bindPort = {port}
proxyBindAddr = "127.0.0.1"
auth.token = "bench"
transport.tls.force = true
log.level = "warn"
"""

_CLIENT = """\
serverAddr = "{address}"
serverPort = {port}
auth.token = "bench"
transport.tls.enable = true
log.level = "warn"
"""

_PROXY = """
[[proxies]]
name = "{name}"
type = "tcp"
localIP = "127.0.0.1"
localPort = {local}
remotePort = {remote}
"""


class Frp:
    """Its defaults: one multiplexed connection, TLS on."""

    name = "frp"

    def missing(self) -> list[str]:
        return missing_programs("nginx", "frps", "frpc")

    def start(self, site: Site, shape: Shape) -> Running:
        port, address = free_port(), site.cloud.address
        forwards = {name: free_port() for name in site.targets}
        proxies = [
            _PROXY.format(name=name, local=site.targets[name], remote=forward) for name, forward in forwards.items()
        ]
        (site.folder / "frps.toml").write_text(_SERVER.format(address=address, port=port))
        (site.folder / "frpc.toml").write_text(_CLIENT.format(address=address, port=port) + "".join(proxies))
        server = site.start(site.cloud, [need_program("frps").path, "-c", "frps.toml"], "frps")
        wait_for_port(port, server, site.cloud, host=address)
        client = site.start(site.premises, [need_program("frpc").path, "-c", "frpc.toml"], "frpc")
        for forward in forwards.values():
            wait_for_port(forward, client, site.cloud)
        upstreams = {name: ("127.0.0.1", forward) for name, forward in forwards.items()}
        ingress, tls_port, plain_port = start_ingress(site, upstreams)
        doors = both_doors(site.targets, tls_port, plain_port)
        return Running(doors, [ingress, server, client], {"relay": server, "connector": client})
