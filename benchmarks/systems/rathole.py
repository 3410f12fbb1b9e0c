"""nginx as the TLS ingress, and rathole over its TLS transport, as the other tunnels are encrypted too."""

from __future__ import annotations

import subprocess
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import BestAvailableEncryption, load_pem_private_key
from cryptography.hazmat.primitives.serialization.pkcs12 import serialize_key_and_certificates

from benchmarks.nginx import start_ingress
from benchmarks.programs import find_program, missing_programs, need_program
from benchmarks.side import free_port, wait_for_port
from benchmarks.site import HOST, Site
from benchmarks.systems.base import Running, Shape, both_doors

_SECRET = "bench"  # noqa: S105 - of this machine's loopback, for as long as a measure takes

_SERVER = """\
[server]
bind_addr = "{address}:{port}"
default_token = "bench"

[server.transport]
type = "tls"

[server.transport.tls]
pkcs12 = "{identity}"
pkcs12_password = "{password}"
"""

_CLIENT = """\
[client]
remote_addr = "{address}:{port}"
default_token = "bench"

[client.transport]
type = "tls"

[client.transport.tls]
trusted_root = "{authority}"
hostname = "{host}"
"""


def write_identity(site: Site, path: Path) -> None:
    """The ingress's certificate and key as PKCS #12, which is what rathole reads."""
    certificates = x509.load_pem_x509_certificates(site.certificate.read_bytes())
    key = load_pem_private_key(site.key.read_bytes(), None)
    assert isinstance(key, EllipticCurvePrivateKey)
    encryption = BestAvailableEncryption(_SECRET.encode())
    path.touch(mode=0o600)
    path.write_bytes(serialize_key_and_certificates(b"bench", key, certificates[0], certificates[1:], encryption))


class Rathole:
    """One service for each target. It opens a connection of the tunnel for each one of the ingress: there are no
    streams in it."""

    name = "rathole"

    def missing(self) -> list[str]:
        return missing_programs("nginx", "rathole") or _missing_feature()

    def start(self, site: Site, shape: Shape) -> Running:
        program, port, address = need_program("rathole"), free_port(), site.cloud.address
        identity = site.folder / "identity.pfx"
        write_identity(site, identity)
        forwards = {name: free_port() for name in site.targets}
        server_text = _SERVER.format(address=address, port=port, identity=identity, password=_SECRET)
        client_text = _CLIENT.format(address=address, port=port, authority=site.authority, host=HOST)
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


def _missing_feature() -> list[str]:
    program = find_program("rathole")
    assert program is not None
    result = subprocess.run([program.path, "--version"], capture_output=True, text=True, timeout=10, check=False)
    features = result.stdout.rpartition("Features:")[2].replace(",", " ").split()
    return [] if "tls" in features else ["rathole's TLS transport: build it with the feature native-tls"]
