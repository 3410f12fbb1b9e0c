"""New certificates while the relay runs, as files: good ones count at once, others change nothing, nothing drops."""

from __future__ import annotations

import asyncio
import base64
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_relay.app import RelayApp
from cloud_relay.config import RelayConfig
from shared.config import read_config
from shared.control import control_request
from shared.exits import CommandError, ExitCode
from shared.pki.tls import KeyPair
from shared.process import StopRequest
from tests.cloud_relay.connector_double import ConnectorDouble, attached
from tests.support.development import Pki
from tests.support.mounts import Mount

HEAD = (
    b"POST /sap/frun/x HTTP/1.1\r\nHost: push.example.com\r\nContent-Length: 2\r\nAuthorization: Basic "
    + base64.b64encode(b"s4:s4-password")
    + b"\r\n\r\n42"
)


class Sender:
    """One connection to the ingress, kept."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @property
    def certificate(self) -> bytes:
        """What the ingress has shown."""
        return bytes(self._writer.get_extra_info("ssl_object").getpeercert(binary_form=True))

    async def push(self) -> int:
        self._writer.write(HEAD)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        await self._reader.readexactly(int(length.partition(b":")[2]))
        return int(head.split(b" ")[1])


class Relay:
    """A relay whose certificates lie in three mounts, each with a CA of its own."""

    def __init__(self, folder: Path, document: dict[str, Any]) -> None:
        self.pkis = {name: _pki(folder / f"pki-{name}") for name in ("tunnel", "ingress", "globex")}
        self.pki = self.pkis["tunnel"]
        self.mounts = {name: Mount(folder / name, ca__crt=pki.ca.read_bytes()) for name, pki in self.pkis.items()}
        self.renew("tunnel")
        self.renew("ingress")
        tunnel, ingress = self.mounts["tunnel"], self.mounts["ingress"]
        document["tunnel"]["tls"] = {
            "certificate": tunnel.path("tls.crt"), "key": tunnel.path("tls.key"), "client_ca": tunnel.path("ca.crt"),
        }  # fmt: skip
        document["ingress"][0]["tls"] = {"certificate": ingress.path("tls.crt"), "key": ingress.path("tls.key")}
        document["tenants"]["globex"]["connectors"] = {"client_ca": self.mounts["globex"].path("ca.crt")}
        document["log"] = {"access": "off"}
        path = folder / "relay.yaml"
        path.write_text(yaml.safe_dump(document, sort_keys=False))
        self.app = RelayApp(path, read_config(path, RelayConfig))

    def renew(self, name: str) -> KeyPair:
        """A new certificate with a new key, put into its place."""
        pki = self.pkis[name]
        pair = pki.relay() if name == "tunnel" else pki.server("push.example.com")
        self.mounts[name].put_pair(pair)
        return pair

    def port(self, kind: str) -> int:
        assert self.app.doors is not None
        bound = next(door["bound"][0] for door in self.app.doors.describe() if door["kind"] == kind)
        return int(bound.rpartition(":")[2])

    async def reload(self) -> dict[str, Any]:
        return await control_request(self.app.config.state_dir / "control.sock", "POST", "/v1/reload")

    @asynccontextmanager
    async def sender(self) -> AsyncIterator[Sender]:
        context = ssl.create_default_context(cafile=self.pkis["ingress"].ca)
        reader, writer = await asyncio.open_connection(
            "127.0.0.1", self.port("ingress"), ssl=context, server_hostname="push.example.com"
        )
        try:
            yield Sender(reader, writer)
        finally:
            writer.transport.abort()

    def connector(self) -> Any:
        return attached(self.pki, self.port("tunnel"), {"focused-run": "http"})

    async def shown_by_tunnel(self) -> bytes:
        """The certificate of the next connection to the tunnel's port."""
        context = ssl.create_default_context(cafile=self.pki.ca)
        _, writer = await asyncio.open_connection(
            "127.0.0.1", self.port("tunnel"), ssl=context, server_hostname="localhost"
        )
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
        writer.transport.abort()
        return bytes(certificate)


def _pki(folder: Path) -> Pki:
    folder.mkdir()
    return Pki(folder)


@pytest.fixture
async def relay(tmp_path: Path, relay_document: dict[str, Any]) -> AsyncIterator[Relay]:
    made = Relay(tmp_path, relay_document)
    try:
        await made.app.start(StopRequest())
        yield made
    finally:
        await made.app.stop()


NOT_PEM = b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
BROKEN = {
    "tunnel certificate": ("tunnel", "tls.crt", NOT_PEM),
    "tunnel certificate gone": ("tunnel", "tls.crt", None),
    "tunnel key": ("tunnel", "tls.key", b"nonsense"),
    "tunnel key of another": ("tunnel", "tls.key", "ingress"),
    "tunnel CA empty": ("tunnel", "ca.crt", b""),
    "tunnel CA": ("tunnel", "ca.crt", NOT_PEM),
    "ingress certificate": ("ingress", "tls.crt", NOT_PEM),
    "ingress key empty": ("ingress", "tls.key", b""),
    "ingress key of another": ("ingress", "tls.key", "tunnel"),
    "tenant's CA empty": ("globex", "ca.crt", b" \n"),
    "tenant's CA gone": ("globex", "ca.crt", None),
}


@pytest.mark.parametrize("what", BROKEN)
async def test_what_is_broken_changes_nothing_until_it_is_mended(relay: Relay, what: str) -> None:
    name, file, content = BROKEN[what]
    mount = relay.mounts[name]
    good = Path(mount.path(file)).read_bytes()
    if isinstance(content, str):
        content = Path(relay.mounts[content].path(file)).read_bytes()
    async with relay.connector() as connector, relay.sender() as sender:
        assert await sender.push() == 200
        before = (await relay.shown_by_tunnel(), sender.certificate)
        mount.put(**{file.replace(".", "__"): content})
        with pytest.raises(CommandError) as caught:
            await relay.reload()
        assert caught.value.exit_code is ExitCode.CONFIG
        status = relay.app.status()["reload"]
        assert status["taken"] is False
        assert file in str(status["lines"])
        assert "PRIVATE" not in str(status["lines"])
        async with relay.sender() as later:
            assert (await relay.shown_by_tunnel(), later.certificate) == before
            assert [await sender.push(), await later.push()] == [200, 200]
        async with relay.connector():
            pass
        mount.put(**{file.replace(".", "__"): good})
        await relay.reload()
        assert relay.app.status()["reload"]["taken"] is True
        assert await sender.push() == 200
        assert not connector.closed.done()


async def test_new_ones_are_for_new_connections_and_old_ones_stay(relay: Relay) -> None:
    async with relay.connector() as connector, relay.sender() as sender:
        before = await relay.shown_by_tunnel()
        for name in ("tunnel", "ingress"):
            relay.renew(name)
        await relay.reload()
        async with relay.sender() as later:
            assert later.certificate != sender.certificate
            assert await relay.shown_by_tunnel() != before
            assert [await sender.push(), await later.push()] == [200, 200]
        assert not connector.closed.done()
        assert len(connector.pushes) == 2


async def _ended(connector: ConnectorDouble) -> str:
    async with asyncio.timeout(1):
        return await connector.closed


async def test_another_ca_is_trusted_beside_the_old_one_and_then_alone(relay: Relay, tmp_path: Path) -> None:
    """A roll-over by hand: with both no tunnel ends; without the old one those below it do, within a second."""
    other, mount = _pki(tmp_path / "other"), relay.mounts["tunnel"]
    async with relay.connector() as old:
        mount.put(ca__crt=relay.pki.ca.read_bytes() + other.ca.read_bytes())
        await relay.reload()
        client = other.connector("c2")
        async with attached(relay.pki, relay.port("tunnel"), {"focused-run": "http"}, client) as new:
            assert not old.closed.done()
            mount.put(ca__crt=other.ca.read_bytes())
            (line,) = (await relay.reload())["changes"]
            assert "no longer trusted" in line
            assert await _ended(old) == "certificate-foreign"
            async with relay.sender() as sender:
                assert await sender.push() == 200
            assert len(new.pushes) == 1


async def test_a_tenants_ca_is_replaced(relay: Relay, tmp_path: Path) -> None:
    mount, old_ca, new_ca = relay.mounts["globex"], relay.pkis["globex"], _pki(tmp_path / "new")
    theirs = old_ca.connector("c9", tenant="globex")
    async with (
        relay.connector() as ours,
        attached(relay.pki, relay.port("tunnel"), {"focused-run": "http"}, theirs) as gone,
    ):
        mount.put(ca__crt=new_ca.ca.read_bytes())
        await relay.reload()
        assert await _ended(gone) == "certificate-foreign"
        assert not ours.closed.done()
    theirs = new_ca.connector("c9", tenant="globex")
    async with attached(relay.pki, relay.port("tunnel"), {"focused-run": "http"}, theirs) as back:
        assert not back.closed.done()
