"""Whoever may not open a tunnel is told why; whoever talks nonsense to the tunnel's port harms nobody."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import websockets
from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from shared.errors import FAULTS
from shared.pki import files, issue
from shared.pki.spiffe import connector_id
from tests.system.kit import LOCATION, TENANT, TRUST_DOMAIN, Site
from tests.system.programs import until

pytestmark = pytest.mark.system

NOW = datetime.now(UTC)
SUBPROTOCOL = "qanat.v1"
PROTOCOL_ERROR = 4000 + FAULTS["protocol-error"].wire


def issuing_authority(pki: Path) -> issue.Authority:
    """The site's own."""
    certificate = x509.load_pem_x509_certificate((pki / "issuing.pem").read_bytes())
    key = load_pem_private_key((pki / "issuing.key").read_bytes(), None)
    return issue.Authority(certificate, key, (certificate,))  # type: ignore[arg-type]  # it is an EC key


def foreign_authority(_pki: Path) -> issue.Authority:
    """As good as the site's own, and nobody's."""
    return issue.create_issuing(issue.create_root(NOW), "r1", NOW)


def expired(pki: Path, key: issue.PublicKey) -> tuple[x509.Certificate, issue.Authority]:
    authority = issuing_authority(pki)
    identity = connector_id(TRUST_DOMAIN, TENANT, LOCATION, "c1")
    return issue.issue_connector(authority, identity, key, NOW - timedelta(days=2), timedelta(days=1)), authority


def foreign(pki: Path, key: issue.PublicKey) -> tuple[x509.Certificate, issue.Authority]:
    authority = foreign_authority(pki)
    return issue.issue_connector(authority, connector_id(TRUST_DOMAIN, TENANT, LOCATION, "c1"), key, NOW), authority


def other_trust_domain(pki: Path, key: issue.PublicKey) -> tuple[x509.Certificate, issue.Authority]:
    authority = issuing_authority(pki)
    return issue.issue_connector(authority, connector_id("else.test", TENANT, LOCATION, "c1"), key, NOW), authority


def other_tenant(pki: Path, key: issue.PublicKey) -> tuple[x509.Certificate, issue.Authority]:
    authority = issuing_authority(pki)
    return issue.issue_connector(authority, connector_id(TRUST_DOMAIN, "emca", LOCATION, "c1"), key, NOW), authority


def for_servers(pki: Path, key: issue.PublicKey) -> tuple[x509.Certificate, issue.Authority]:
    authority = issuing_authority(pki)
    return issue.issue_server(authority, ["localhost"], key, NOW), authority


Maker = Callable[[Path, issue.PublicKey], tuple[x509.Certificate, issue.Authority]]

REFUSED: list[tuple[Maker, str]] = [
    (expired, "certificate-expired"),
    (foreign, "certificate-foreign"),
    (other_trust_domain, "certificate-wrong-identity"),
    (other_tenant, "unknown-location"),
    (for_servers, "certificate-wrong-usage"),
]


@pytest.mark.parametrize(("make", "code"), REFUSED, ids=[code for _, code in REFUSED])
async def test_the_connector_names_the_cause(site, target, make, code):
    site.expose(target)
    config = site.connector_config()
    key = issue.new_key()
    certificate, authority = make(site.pki, key.public_key())
    files.write_public(site.folder / "bad.pem", issue.certificate_pem(certificate, *authority.chain))
    files.write_private(site.folder / "bad.key", issue.key_pem(key))
    config["tls"] |= {"certificate": "bad.pem", "key": "bad.key"}
    await site.start_relay()
    connector = site.launch_connector()
    await until(lambda: code in connector.err, f"{code} in the connector's log")
    (told,) = [line for line in connector.log_lines if line["event"] == "no tunnel"]
    assert told["code"] == code
    assert told["remedy"]
    (row, *_) = (await site.status("c1"))["tunnels"]
    assert row["code"] == code
    assert row["next_try_s"] > 5
    assert code in site.relay.err
    assert (await site.status())["tenants"][0]["locations"][0]["connectors"] == []


def client_context(site: Site, name: str | None = "c1") -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(site.pki / "ca.pem"))
    if name is not None:
        leaf = site.pki / f"connector.{TENANT}.{LOCATION}.{name}"
        context.load_cert_chain(f"{leaf}.pem", f"{leaf}.key")
    return context


async def refused(site: Site, subprotocol: str | None = SUBPROTOCOL, name: str | None = "c1", path: str = "/") -> str:
    """The code with which a WebSocket handshake is refused."""
    subprotocols = [websockets.Subprotocol(subprotocol)] if subprotocol else None
    url = f"wss://localhost:{site.ports['tunnel']}{path}"
    with pytest.raises(websockets.InvalidStatus) as caught:
        await websockets.connect(url, ssl=client_context(site, name), subprotocols=subprotocols, proxy=None)
    return caught.value.response.headers["Qanat-Error"]


async def closed_after(site: Site, *messages: str | bytes) -> int:
    """The code with which the relay closes a WebSocket of connector c2 after these messages."""
    url = f"wss://localhost:{site.ports['tunnel']}/"
    subprotocols = [websockets.Subprotocol(SUBPROTOCOL)]
    context = client_context(site, "c2")
    async with websockets.connect(url, ssl=context, subprotocols=subprotocols, proxy=None) as socket:
        for message in messages:
            await socket.send(message)
        try:
            async with asyncio.timeout(10):
                while True:
                    await socket.recv()
        except websockets.ConnectionClosed as error:
            return error.rcvd.code if error.rcvd else 1006


async def shout(site: Site, data: bytes) -> bytes:
    """What comes back for bytes without TLS, until the relay closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", site.ports["tunnel"])
    try:
        writer.write(data)
        async with asyncio.timeout(10):
            return await reader.read()
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_nonsense_on_the_tunnels_port(site, target):
    site.expose(target)
    await site.start()
    assert (await site.push()).status == 200
    baseline = site.relay.open_files

    for _ in range(3):
        assert await refused(site, name=None) == "certificate-required"
        assert await refused(site, subprotocol="chat") == "wrong-subprotocol"
        assert await refused(site, subprotocol=None) == "wrong-subprotocol"
        assert await refused(site, path="/admin") == "wrong-path"
        assert await closed_after(site, "a text message") == 1003
        assert await closed_after(site, b"\xff" + os.urandom(1000)) == PROTOCOL_ERROR
        assert await closed_after(site, b"\x00" * 70_000) == 1009
        await shout(site, os.urandom(1000))
        await shout(site, b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await site.push()).status == 200
    # Handshakes that never go on end after 5 s, and so does a tunnel without a HELLO.
    speechless = asyncio.Task(closed_after(site, b""))
    silent = [asyncio.Task(shout(site, data)) for data in [b"", b"\x16\x03\x01"] * 20]
    await until(lambda: site.relay.open_files >= baseline + 40, "connections that say nothing")
    assert (await site.push()).status == 200
    await asyncio.gather(*silent, speechless)

    await until(lambda: site.relay.open_files <= baseline, "files as before")
    (connector,) = (await site.status())["tenants"][0]["locations"][0]["connectors"]
    assert connector["connector"] == "c1"
    assert all(line["level"] != "error" for line in site.relay.log_lines), site.relay.err
