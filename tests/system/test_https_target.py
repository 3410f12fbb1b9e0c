"""nginx as an https target: verified by a CA of its own, refused with another one, and asking for a certificate."""

from __future__ import annotations

from pathlib import Path

import pytest
import trustme

from benchmarks.nginx import main_config
from tests.support.peers import Peer
from tests.support.ports import free_port
from tests.system.kit import Site, assert_honest
from tests.system.programs import listens, until

pytestmark = pytest.mark.system

SERVER = """
    server {{
        listen 127.0.0.1:{port} ssl;
        ssl_certificate {folder}/nginx.pem;
        ssl_certificate_key {folder}/nginx.key;
        {more}
        add_header X-Client $ssl_client_s_dn always;
        location / {{ return 200 "taken by nginx"; }}
    }}
"""


class Nginx:
    """Certificates of a CA that nobody else knows, and the server."""

    def __init__(self, site: Site, program: Peer) -> None:
        self.folder = site.folder
        self.port = free_port()
        self.ca = trustme.CA(organization_name="Corp")
        self._site = site
        self._program = program
        self.ca.cert_pem.write_to_path(self.folder / "corp.pem")
        trustme.CA(organization_name="Stranger").cert_pem.write_to_path(self.folder / "stranger.pem")
        self.leaf("nginx", "localhost")

    def leaf(self, name: str, *identities: str) -> None:
        made = self.ca.issue_cert(*identities, common_name=identities[0])
        (self.folder / f"{name}.pem").write_bytes(b"".join(pem.bytes() for pem in made.cert_chain_pems))
        key = self.folder / f"{name}.key"
        key.touch(mode=0o600)
        key.write_bytes(made.private_key_pem.bytes())

    async def start(self, more: str = "") -> None:
        config = self.folder / "nginx.conf"
        server = SERVER.format(port=self.port, folder=self.folder, more=more)
        config.write_text(main_config("nginx", self.folder, server))
        argv = [self._program.path, "-p", str(self.folder), "-e", str(self.folder / "nginx-error.log")]
        program = self._site.run("nginx", *argv, "-c", str(config), variables=dict(self._program.environment))
        await until(lambda: program.is_running and listens(self.port), "nginx")

    @property
    def url(self) -> str:
        return f"https://localhost:{self.port}"


async def test_the_targets_own_ca(site, peer):
    nginx = Nginx(site, peer("nginx"))
    await nginx.start()
    site.expose(nginx.url, tls={"ca": "corp.pem"})
    await site.start()
    answer = await site.push()
    assert (answer.status, answer.body) == (200, b"taken by nginx")


async def test_the_wrong_ca_is_told_to_the_operator_only(site, peer):
    nginx = Nginx(site, peer("nginx"))
    await nginx.start()
    site.expose(nginx.url, tls={"ca": "stranger.pem"})
    await site.start()
    answer = await site.push()
    assert (answer.status, answer.fault) == (502, "target-tls-failed")
    assert_honest(answer)
    told = [line for line in site.connector.log_lines if line.get("code") == "target-tls-failed"]
    assert told
    assert "certificate" in told[0]["detail"]
    for secret in (str(nginx.port), "self-signed", "Corp", told[0]["detail"]):
        assert secret not in answer.body.decode()
        assert secret not in site.relay.out + site.relay.err
    (row,) = (await site.status("c1"))["targets"]
    assert row["state"] == "failing"
    assert row["connect_fault"]["code"] == "target-tls-failed"


async def test_a_client_certificate(site, peer):
    nginx = Nginx(site, peer("nginx"))
    nginx.leaf("client", "connector.corp.local")
    await nginx.start(f"ssl_client_certificate {nginx.folder}/corp.pem; ssl_verify_client on;")
    site.expose(nginx.url, tls={"ca": "corp.pem", "certificate": "client.pem", "key": "client.key"})
    site.expose(nginx.url, "without", tls={"ca": "corp.pem"})
    site.relay_config["tenants"]["acme"]["routes"].append(site.make_route("without", "/without", "without"))
    await site.start()
    answer = await site.push()
    assert (answer.status, answer.body) == (200, b"taken by nginx")
    assert "connector.corp.local" in answer.headers["X-Client"]
    # nginx completes the handshake and answers the request with a page of its own: that is the target's word.
    answer = await site.push("/without")
    assert (answer.status, answer.fault) == (400, "")
    assert b"No required SSL certificate was sent" in answer.body


async def test_a_name_that_the_certificate_lacks(site: Site, peer, tmp_path: Path):
    nginx = Nginx(site, peer("nginx"))
    nginx.leaf("nginx", "elsewhere.corp.local")
    await nginx.start()
    site.expose(nginx.url, tls={"ca": "corp.pem"})
    await site.start()
    answer = await site.push()
    assert (answer.status, answer.fault) == (502, "target-tls-failed")
    assert "localhost" in site.connector.err
