"""OpenSSL's programs and sslyze on a relay with its own CA: what we claim of certificates and TLS, said by others."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, Final

import pytest
import pytest_asyncio

from tests.support.peers import Peer
from tests.system.managed import ManagedSite
from tests.system.programs import until
from tests.system.targets import Target

pytestmark = pytest.mark.system

_CERTIFICATE: Final = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----\n", re.DOTALL)
SCANS: Final = (
    "--sslv2", "--sslv3", "--tlsv1", "--tlsv1_1", "--tlsv1_2", "--tlsv1_3", "--compression", "--reneg", "--resum",
    "--early_data", "--heartbleed", "--openssl_ccs", "--robot", "--fallback",
)  # fmt: skip


@pytest_asyncio.fixture
async def site(pki: Path, tmp_path_factory: pytest.TempPathFactory, target: Target) -> AsyncIterator[ManagedSite]:
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as made:
        # sslyze waits for five seconds without a word, to see whether a client certificate is demanded.
        made.relay_config["tunnel"]["limits"] = {"handshake_timeout": "20s"}
        made.lifetimes(leaf_lifetime="20s")
        made.expose(target)
        await made.init()
        await made.start_relay()
        await made.invite()
        await made.start_connector()
        yield made


class OpenSsl:
    """The program, in the site's folder."""

    def __init__(self, peer: Callable[[str], Peer], folder: Path) -> None:
        self._program = peer("openssl")
        self._folder = folder

    async def run(self, *arguments: str, stdin: bytes = b"") -> str:
        """What it says, on both ways; AssertionError where it does not end with 0."""
        process = await asyncio.create_subprocess_exec(
            self._program.path, *arguments, cwd=self._folder, env=dict(self._program.environment),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(20):
            out, _ = await process.communicate(stdin)
        assert process.returncode == 0, out.decode()
        return out.decode()

    async def chain(self, port: int) -> list[str]:
        """What a server shows, in PEM, its own certificate first."""
        return _CERTIFICATE.findall(await self.run("s_client", "-connect", f"localhost:{port}", "-showcerts"))

    async def verify(self, root: Path, chain: list[str], purpose: str, *more: str) -> None:
        """At its strictest, from `root` down."""
        leaf, untrusted = self._folder / "leaf.pem", self._folder / "untrusted.pem"
        leaf.write_text(chain[0])
        untrusted.write_text("".join(chain[1:]))
        said = await self.run(
            "verify", "-x509_strict", "-check_ss_sig", "-policy_check", "-auth_level", "2", "-purpose", purpose, *more,
            "-no-CApath", "-no-CAstore", "-CAfile", str(root), "-untrusted", str(untrusted), str(leaf),
        )  # fmt: skip
        assert said == f"{leaf}: OK\n"

    async def text(self, certificate: str) -> str:
        """What `openssl x509` reads in it, without line ends."""
        said = await self.run("x509", "-noout", "-text", stdin=certificate.encode())
        return " ".join(said.split())


def pems(path: Path) -> list[str]:
    return _CERTIFICATE.findall(path.read_text())


async def test_openssl_agrees_about_the_certificates(site, peer):
    openssl = OpenSsl(peer, site.folder)
    roots, identity = site.folder / "c1-state" / "roots.pem", site.folder / "c1-state" / "identity.pem"
    old_root = site.folder / "old-root.pem"
    old_root.write_text(roots.read_text())
    relay, connector = await openssl.chain(site.ports["tunnel"]), pems(identity)
    (root,) = pems(roots)
    await openssl.verify(roots, relay, "sslserver", "-verify_hostname", "localhost")
    await openssl.verify(roots, connector, "sslclient")
    for one in (root, *relay, *connector):
        text = await openssl.text(one)
        for claim in ("Version: 3", "ecdsa-with-SHA256", "NIST CURVE: P-256", "Subject Key Identifier",
                      "X509v3 Basic Constraints: critical", "X509v3 Key Usage: critical"):  # fmt: skip
            assert claim in text, claim
    assert connector[1] == relay[1]
    issuing, leaves = relay[1], {"relay": relay[0], "connector": connector[0]}
    for ca, length in ((root, "CA:TRUE"), (issuing, "CA:TRUE, pathlen:0")):
        text = await openssl.text(ca)
        assert f"Basic Constraints: critical {length}" in text
        assert re.search(r"Key Usage: critical Certificate Sign, CRL Sign (X509v3|Signature)", text), text
    for kind, usage, names in (
        ("relay", "TLS Web Server Authentication, TLS Web Client Authentication",
         "DNS:localhost, URI:spiffe://qanat.test/relay/r1"),
        ("connector", "TLS Web Client Authentication",
         "URI:spiffe://qanat.test/tenant/acme/location/walldorf/connector/c1"),
    ):  # fmt: skip
        text = await openssl.text(leaves[kind])
        assert "Basic Constraints: critical CA:FALSE" in text
        assert re.search(r"Key Usage: critical Digital Signature (X509v3|Signature)", text), text
        assert re.search(rf"Extended Key Usage: {usage} (X509v3|Signature)", text), text
        assert set(names.split(", ")) == set(re.findall(r"(?:DNS|URI):[^ ,]+", text))
        assert "Authority Key Identifier" in text

    await site.ask("ca-rotate")

    async def is_steady() -> bool:
        return bool((await site.ask("ca-status"))["stage"] == "steady")

    await until(is_steady, "the end of the roll-over", 40)
    relay, connector = await openssl.chain(site.ports["tunnel"]), pems(identity)
    assert pems(roots) != [root]
    await openssl.verify(roots, relay, "sslserver", "-verify_hostname", "localhost")
    await openssl.verify(roots, connector, "sslclient")
    # The old root's word for the new one is in what the relay shows: who slept through the roll-over can follow.
    await openssl.verify(old_root, relay, "sslserver", "-verify_hostname", "localhost")


async def scan(site: ManagedSite, program: Peer, *ports: str) -> list[dict[str, Any]]:
    """What sslyze found out about each."""
    report = site.folder / "sslyze.json"
    sslyze = site.run(
        "sslyze", program.path, *(f"localhost:{site.ports[port]}" for port in ports), "--mozilla_config=disable",
        *SCANS, f"--json_out={report}", "--quiet", variables=dict(program.environment),
    )  # fmt: skip
    await sslyze.ended(40)
    results = {one["server_location"]["port"]: one for one in json.loads(report.read_text())["server_scan_results"]}
    found = []
    for port in ports:
        one = results[site.ports[port]]
        assert one["scan_status"] == "COMPLETED", one["connectivity_error_trace"]
        done = {name: scanned for name, scanned in one["scan_result"].items() if scanned["status"] != "NOT_SCHEDULED"}
        assert len(done) == len(SCANS)
        assert {scanned["status"] for scanned in done.values()} == {"COMPLETED"}
        found.append({name: scanned["result"] for name, scanned in done.items()})
    return found


def versions(found: dict[str, Any]) -> set[str]:
    """The versions of TLS that are spoken."""
    return {
        name.removesuffix("_cipher_suites") for name, result in found.items()
        if name.endswith("_cipher_suites") and result["is_tls_version_supported"]
    }  # fmt: skip


def suites(found: dict[str, Any], version: str) -> set[str]:
    return {one["cipher_suite"]["name"] for one in found[f"{version}_cipher_suites"]["accepted_cipher_suites"]}


async def test_sslyze_agrees_about_the_listeners(site, peer):
    tunnel, ingress = await scan(site, peer("sslyze"), "tunnel", "tls")
    assert versions(tunnel) == {"tls_1_3"}
    assert versions(ingress) == {"tls_1_2", "tls_1_3"}
    aead = re.compile(r"TLS_ECDHE_ECDSA_WITH_(AES_\d+_GCM_SHA\d+|CHACHA20_POLY1305_SHA256)")
    old = suites(ingress, "tls_1_2")
    assert old
    assert all(aead.fullmatch(name) for name in old), old
    for found in (tunnel, ingress):
        assert not found["tls_compression"]["supports_compression"]
        assert not found["tls_1_3_early_data"]["supports_early_data"]
        assert not found["session_renegotiation"]["is_vulnerable_to_client_renegotiation_dos"]
        assert found["session_renegotiation"]["client_renegotiations_success_count"] == 0
        assert not found["heartbleed"]["is_vulnerable_to_heartbleed"]
        assert not found["openssl_ccs_injection"]["is_vulnerable_to_ccs_injection"]
        assert found["robot"]["robot_result"].startswith("NOT_VULNERABLE")
        assert suites(found, "tls_1_3")
    assert tunnel["session_resumption"]["tls_ticket_successful_resumptions_count"] == 0
    assert tunnel["session_resumption"]["session_id_successful_resumptions_count"] == 0


async def test_openssl_gets_no_ticket_from_the_tunnels_port(site, peer):
    """sslyze does not look for the tickets of TLS 1.3. An answer has been read, so that a ticket would have come."""
    openssl = OpenSsl(peer, site.folder)
    ticket = "Post-Handshake New Session Ticket arrived"

    async def said_by(port: str) -> str:
        request = b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        connect = f"localhost:{site.ports[port]}"
        said = await openssl.run("s_client", "-connect", connect, "-tls1_3", "-ign_eof", stdin=request)
        assert "HTTP/1.1 4" in said
        return said

    assert ticket in await said_by("tls")
    tunnel = await said_by("tunnel")
    assert ticket not in tunnel
    assert "Compression: NONE" in tunnel
