"""Certificate files change under running programs, as Kubernetes swaps them, while pushes go on: not one fails."""

from __future__ import annotations

import signal
import ssl
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from shared.pki.tls import KeyPair
from tests.support.development import Pki
from tests.support.mounts import Mount
from tests.system.kit import Site
from tests.system.load import Load
from tests.system.programs import Program, until
from tests.system.targets import Target

pytestmark = pytest.mark.system

NOT_PEM = b"-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n"
NOT_TAKEN = "config not taken; the old one stays in force"
TAKEN = "config reloaded"
NOTHING_NEW = "config and certificates read again; nothing changed in the config"


class MountedSite(Site):
    """A site whose certificate files all lie in mounts: the relay's and its ingress', the connector's, its target's."""

    def __init__(self, folder: Path) -> None:
        self.authority = Pki(_made(folder / "pki"))
        super().__init__(folder, self.authority.folder)
        ca = self.authority.ca.read_bytes()
        self.mounts = {name: Mount(folder / name, ca__crt=ca) for name in ("relay", "ingress", "connector", "target")}
        for name in self.mounts:
            self.renew(name)
        self.relay_config["tunnel"]["tls"] = self._files("relay", "client_ca")
        self.relay_config["ingress"][0]["tls"] = self._files("ingress")
        self.connector_config()["tls"] = self._files("connector", "ca")

    def renew(self, name: str) -> KeyPair:
        """A new certificate with a new key."""
        pki = self.authority
        pair = {
            "relay": pki.relay, "ingress": lambda: pki.server("localhost"), "connector": pki.connector,
            "target": lambda: pki.connector("client"),
        }[name]()  # fmt: skip
        self.mounts[name].put_pair(pair)
        return pair

    def _files(self, name: str, ca: str = "") -> dict[str, str]:
        mount = self.mounts[name]
        files = {"certificate": mount.path("tls.crt"), "key": mount.path("tls.key")}
        return files | ({ca: mount.path("ca.crt")} if ca else {})

    def expose_tls(self, target: Target) -> None:
        """The target wants a client certificate of the site's."""
        self.expose(target, tls=self._files("target", "ca"))

    def target_context(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        pair = self.authority.server("localhost", file="target-server")
        context.load_cert_chain(pair.certificate, pair.key)
        context.load_verify_locations(self.authority.ca)
        context.verify_mode = ssl.CERT_REQUIRED
        return context


def _made(folder: Path) -> Path:
    folder.mkdir()
    return folder


@pytest_asyncio.fixture
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[MountedSite]:
    async with MountedSite(tmp_path_factory.mktemp("site")) as made:
        target = Target(made.target_context())
        await target.open()
        try:
            made.expose_tls(target)
            await made.start()
            yield made
        finally:
            await target.close()


def said(program: Program, event: str) -> list[dict[str, Any]]:
    return [line for line in program.log_lines if line["event"] == event]


def _has_more(program: Program, event: str, than: int) -> bool:
    return len(said(program, event)) > than


async def attached(site: MountedSite) -> int:
    """Tunnels that the relay has seen since its start."""
    return len(said(site.relay, "tunnel attached"))


async def test_broken_files_are_not_taken_and_mended_ones_are(site: MountedSite) -> None:
    load = Load(site)
    async with load.running():
        await until(lambda: load.has_acknowledged(50), "pushes")
        tunnels = await attached(site)
        for name in site.mounts:
            await break_and_mend(site, name)
        assert await attached(site) == tunnels, "no tunnel was dropped"
        done = len(load.acknowledged)
        await until(lambda: load.has_acknowledged(done + 50), "pushes afterwards")
    assert load.failures == []


async def break_and_mend(site: MountedSite, name: str) -> None:
    """Each of its files in turn, told by SIGHUP; the last one is mended without any signal."""
    program, config = (site.relay, "relay") if name in ("relay", "ingress") else (site.connector, "c1")
    mount = site.mounts[name]
    good = {one.replace(".", "__"): Path(mount.path(one)).read_bytes() for one in ("tls.crt", "tls.key", "ca.crt")}
    other = site.authority.server("other", file="other").key.read_bytes()
    broken: list[tuple[str, bytes | None]] = [("tls__crt", NOT_PEM), ("tls__key", other), ("tls__key", None)]
    if name != "ingress":
        broken += [("ca__crt", b""), ("ca__crt", None)]
    for file, content in broken:
        mount.put(**good)
        refused = partial(_has_more, program, NOT_TAKEN, len(said(program, NOT_TAKEN)))
        mount.put(**{file: content})
        program.signal(signal.SIGHUP)
        await until(refused, f"a refusal of {name}")
        assert file.replace("__", ".") in str(said(program, NOT_TAKEN)[-1]["problems"])
        assert (await site.status(config))["reload"]["taken"] is False
    mended = partial(_has_more, program, NOTHING_NEW, len(said(program, NOTHING_NEW)))
    mount.put(**good)  # which is what is in use all the time
    await until(mended, "the mended files")
    assert (await site.status(config))["reload"]["taken"] is True


async def test_new_files_are_taken_by_themselves(site: MountedSite) -> None:
    """All four at once, found by their content, since nothing but a link has changed."""
    load = Load(site)
    async with load.running():
        await until(lambda: load.has_acknowledged(50), "pushes")
        tunnels = await attached(site)
        for name in site.mounts:
            site.renew(name)
        await until(lambda: said(site.relay, TAKEN) and said(site.connector, TAKEN), "both to take them")
        changes = str(said(site.connector, TAKEN)[-1]["changes"])
        assert "this connector's certificate is valid until" in changes
        assert "target main changed: its certificate files" in changes
        changes = str(said(site.relay, TAKEN))
        for kind, name in (("tunnel", "relay"), ("ingress", "ingress")):
            assert f"{kind} certificate {site.mounts[name].path('tls.crt')}: a new one" in changes
        await until(lambda: len(said(site.relay, "tunnel attached")) == tunnels + 2, "new tunnels")
        done = len(load.acknowledged)
        await until(lambda: load.has_acknowledged(done + 50), "pushes afterwards")
    assert load.failures == []
