"""Real programs over TCP routes: openssl, OpenSSH, HAProxy, rsyslog, gRPC; and what the relay's memory holds."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import secrets
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import pytest
import trustme
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

from benchmarks.systems.ssh import SSHD_CONFIG, account_of_sshd, write_ssh_key
from shared.tcp.proxy_v2 import decode, size_of
from tests.support.ports import free_port
from tests.system.kit import Site
from tests.system.programs import listens, until

pytestmark = pytest.mark.system

NAME = "localhost"


@contextlib.asynccontextmanager
async def plain_target(read: bool = True) -> AsyncIterator[tuple[int, list[bytearray]]]:
    """A target that keeps what it gets, or that never reads."""
    got: list[bytearray] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        mine = bytearray()
        got.append(mine)
        if not read:
            await asyncio.sleep(30)
        while data := await reader.read(65536):
            mine += data
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, limit=1024)
    yield server.sockets[0].getsockname()[1], got
    server.close()


def tls_of(site: Site) -> dict[str, str]:
    return {"certificate": str(site.pki / "ingress.pem"), "key": str(site.pki / "ingress.key")}


def lines_of(site: Site) -> list[dict[str, Any]]:
    """The relay's access lines of TCP connections."""
    found = [json.loads(line) for line in site.relay.out.splitlines() if line.startswith("{")]
    return [line for line in found if line.get("kind") == "tcp"]


async def test_openssl_at_both_ends_of_a_sealed_route(site):
    port = free_port()
    tls = tls_of(site)
    server = site.run("s_server", "openssl", "s_server", "-accept", f"127.0.0.1:{port}", "-cert", tls["certificate"],
                      "-cert_chain", tls["certificate"],
                      "-key", tls["key"], "-rev", "-quiet")  # fmt: skip
    listen = site.expose_tcp("echo", port, {"sni": NAME})
    await until(lambda: listens(port), "s_server")
    await site.start()

    def ask(name: str, *more: str) -> subprocess.CompletedProcess[bytes]:
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{listen}", "-servername", name, "-CAfile",
                str(site.pki / "ca.pem"), "-verify_return_error", "-verify_hostname", NAME, "-ign_eof",
                *more]  # fmt: skip
        return subprocess.run(argv, input=b"a line\nCLOSE\n", capture_output=True, timeout=20)

    good = await asyncio.to_thread(ask, NAME, "-quiet")
    assert b"enil a" in good.stdout, good.stderr
    stranger = await asyncio.to_thread(ask, "stranger.example.com")
    assert b"unrecognized name" in stranger.stderr
    assert server.is_running


async def test_openssl_to_a_route_that_ends_tls(site):
    async with plain_target() as (port, got):
        listen = site.expose_tcp("logs", port, {"tls": tls_of(site)})
        await site.start()
        argv = ["openssl", "s_client", "-connect", f"127.0.0.1:{listen}", "-servername", NAME, "-CAfile",
                str(site.pki / "ca.pem"), "-verify_return_error", "-quiet", "-no_ign_eof"]  # fmt: skip
        body = b"line\n" * 20_000
        run = await asyncio.to_thread(subprocess.run, argv, input=body, capture_output=True, timeout=20)
        assert run.returncode == 0, run.stderr
        await until(lambda: got and len(got[0]) == len(body), "the lines")
        await until(lambda: lines_of(site), "the access line")
        assert "code" not in lines_of(site)[0]


async def test_scp_through_the_tunnel(site, peer):
    sshd, scp, ssh = peer("sshd"), peer("scp"), peer("ssh")
    account = account_of_sshd()
    folder = Path(tempfile.mkdtemp(prefix="qanat-ssh-"))  # not pytest's: sshd's account may not look into that
    folder.chmod(0o755)
    host_key = write_ssh_key(folder / "host_key", account.uid)
    (folder / "authorized_keys").write_text(write_ssh_key(folder / "client_key", None) + "\n")
    port = free_port()
    config = SSHD_CONFIG.format(port=port, address="127.0.0.1", folder=folder) + "Subsystem sftp internal-sftp\n"
    (folder / "sshd_config").write_text(config)
    received = folder / "received"
    received.mkdir()
    if account.uid is not None:
        os.chown(received, account.uid, -1)
    popen = subprocess.Popen(
        [sshd.path, "-D", "-e", "-f", str(folder / "sshd_config")], env=sshd.environment, user=account.uid,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        await until(lambda: listens(port), "sshd")
        listen = site.expose_tcp("ssh", port)
        await site.start()
        (folder / "known_hosts").write_text(f"[127.0.0.1]:{listen} {host_key}\n")
        data = secrets.token_bytes(1 << 20) * 16
        (folder / "file").write_bytes(data)
        argv = [scp.path, "-S", ssh.path, "-P", str(listen), "-i", str(folder / "client_key"), "-F", "none", "-o",
                f"UserKnownHostsFile={folder}/known_hosts", "-o", "BatchMode=yes",
                str(folder / "file"), f"{account.name}@127.0.0.1:{received}/file"]  # fmt: skip
        run = await asyncio.to_thread(subprocess.run, argv, env=scp.environment, capture_output=True, timeout=40)
        assert run.returncode == 0, run.stderr
        copied = (received / "file").read_bytes()
        assert hashlib.sha256(copied).digest() == hashlib.sha256(data).digest()
    finally:
        popen.terminate()
        popen.wait()
        shutil.rmtree(folder)


HAPROXY = """
defaults
    mode tcp
    timeout connect 5s
    timeout client 10s
    timeout server 10s
frontend f
    bind 127.0.0.1:{front}
    default_backend b
backend b
    server relay 127.0.0.1:{relay} send-proxy-v2
"""


async def test_haproxy_in_front_tells_who_sends(site, peer):
    haproxy = peer("haproxy")
    async with plain_target() as (port, got):
        route = {"proxy_from": ["127.0.0.1/32"], "networks": ["127.0.0.9/32"]}
        listen = site.expose_tcp("logs", port, route, proxy_protocol=True)
        await site.start()
        front = free_port()
        (site.folder / "haproxy.cfg").write_text(HAPROXY.format(front=front, relay=listen))
        argv = (haproxy.path, "-db", "-f", str(site.folder / "haproxy.cfg"))
        site.run("haproxy", *argv, variables=dict(haproxy.environment))
        await until(lambda: listens(front), "haproxy")
        _, writer = await asyncio.open_connection("127.0.0.1", front, local_addr=("127.0.0.9", 0))
        writer.write(b"a line\n")
        await until(lambda: any(one.endswith(b"a line\n") for one in got), "the line")
        told = next(bytes(one) for one in got if one.endswith(b"a line\n"))
        ends = decode(told[: size_of(told[:16])]).ends
        assert ends is not None
        assert (ends.source, ends.destination_port) == ("127.0.0.9", front)
        writer.close()
        await until(lambda: [line for line in lines_of(site) if line["source"] == "127.0.0.9"], "the access line")


class Receiver(metrics_service_pb2_grpc.MetricsServiceServicer):
    def __init__(self) -> None:
        self.names: list[str] = []

    def Export(self, request: Any, context: Any) -> Any:  # noqa: N802 - gRPC's own name
        self.names += [
            metric.name for one in request.resource_metrics for scope in one.scope_metrics for metric in scope.metrics
        ]
        return metrics_service_pb2.ExportMetricsServiceResponse()


async def test_otlp_by_grpc_over_a_sealed_route(site, monkeypatch):
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    tls, receiver = tls_of(site), Receiver()
    server = grpc.server(ThreadPoolExecutor(2))
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(receiver, server)
    pair = (Path(tls["key"]).read_bytes(), Path(tls["certificate"]).read_bytes())
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([pair]))
    server.start()
    try:
        listen = site.expose_tcp("otlp", port, {"sni": NAME})
        await site.start()

        def push() -> bool:
            trust = grpc.ssl_channel_credentials((site.pki / "ca.pem").read_bytes())
            exporter = OTLPMetricExporter(endpoint=f"https://{NAME}:{listen}", credentials=trust, timeout=10)
            reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
            provider = MeterProvider([reader], shutdown_on_exit=False)
            provider.get_meter("test").create_counter("orders").add(42)
            flushed = provider.force_flush()
            provider.shutdown()
            return flushed

        assert await asyncio.to_thread(push)
        assert receiver.names == ["orders"] * len(receiver.names) != []
    finally:
        server.stop(None).wait()


# --- what the relay's memory holds


def memory_holds(pid: int, marker: bytes) -> bool:
    """Whether a process has these bytes anywhere in its writable memory."""
    with Path(f"/proc/{pid}/maps").open() as maps, Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in maps:
            match = re.match(r"([0-9a-f]+)-([0-9a-f]+) rw", line)
            if match is None:
                continue
            start, end = (int(text, 16) for text in match.groups())
            try:
                memory.seek(start)
                if marker in memory.read(end - start):
                    return True
            except (OSError, ValueError, OverflowError):  # the kernel's own pages
                continue
    return False


def forms_of_key(pem: bytes) -> list[bytes]:
    """An elliptic curve's private key as a program may hold it: as the file has it, and as a number of either order."""
    key = load_pem_private_key(pem, None)
    assert isinstance(key, EllipticCurvePrivateKey)
    number, size = key.private_numbers().private_value, (key.key_size + 7) // 8
    return [pem.split(b"\n")[1], number.to_bytes(size, "big"), number.to_bytes(size, "little")]


@pytest.mark.parametrize("is_sealed", [False, True], ids=["ended", "sealed"])
async def test_plaintext_in_the_relays_memory(site, is_sealed):
    """In flight: the target does not read, so all that the relay will ever see of it is there."""
    marker = secrets.token_hex(24).encode()
    tls, authority = tls_of(site), trustme.CA()
    leaf = authority.issue_cert(NAME)  # the target's own: its key is nowhere near the relay
    held, over = asyncio.Event(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        held.set()
        await over.wait()
        writer.transport.abort()

    context = None
    if is_sealed:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        leaf.configure_cert(context)
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context, limit=1024)
    route: dict[str, Any] = {"sni": NAME} if is_sealed else {"sni": NAME, "tls": tls}
    listen = site.expose_tcp("t", server.sockets[0].getsockname()[1], route)
    await site.start()
    trust = ssl.create_default_context(cafile=str(site.pki / "ca.pem"))
    authority.configure_trust(trust)
    _, writer = await asyncio.open_connection("127.0.0.1", listen, ssl=trust, server_hostname=NAME)
    await held.wait()
    writer.write(marker * (96 << 20 >> 6))  # more than all buffers on the way

    async def taken() -> int:
        found: int = (await site.status())["tcp_routes"][0]["bytes_in"]
        return found

    async def is_stuck() -> bool:
        before = await taken()
        await asyncio.sleep(0.3)
        return 0 < await taken() == before

    await until(is_stuck, "a target that does not read")
    assert await asyncio.to_thread(memory_holds, site.relay.pid, marker) is not is_sealed
    for form in forms_of_key(leaf.private_key_pem.bytes()):
        assert not await asyncio.to_thread(memory_holds, site.relay.pid, form)
    ours = forms_of_key(Path(tls["key"]).read_bytes())
    found = [await asyncio.to_thread(memory_holds, site.relay.pid, form) for form in ours]
    assert any(found), "the ingress' key, which the relay has, would be found: so one that is not found is not there"
    writer.transport.abort()
    over.set()
    server.close()
    await asyncio.sleep(0.05)


# --- syslog

RSYSLOG = """
module(load="imtcp"{module})
input(type="imtcp" port="{port}" address="127.0.0.1")
global(workDirectory="{folder}"{tls})
{rule}
"""
DRIVERS = {"ended": "ossl", "sealed": "gtls", "sealed-by-port": "ossl"}
"""Of the sender. rsyslog's driver for OpenSSL names no server (SNI), the one for GnuTLS does."""


def modules_of(peer: Any) -> Path:
    root = Path(peer.path).parents[2]
    return next(iter(root.glob("usr/lib/*/rsyslog")), Path("/usr/lib/rsyslog"))


async def start_rsyslog(
    site: Site, peer: Any, name: str, port: int, rule: str, tls: str = "", module: str = ""
) -> None:
    folder = site.folder / name
    folder.mkdir()
    config = folder / "rsyslog.conf"
    config.write_text(RSYSLOG.format(port=port, folder=folder, rule=rule, tls=tls, module=module))
    argv = (peer.path, "-n", "-f", str(config), "-i", str(folder / "pid"), "-M", str(modules_of(peer)))
    site.run(name, *argv, variables=dict(peer.environment))
    await until(lambda: listens(port), name)


@pytest.mark.parametrize("kind", ["plain", *DRIVERS])
async def test_syslog_from_rsyslog_to_rsyslog(site, peer, kind):
    """The sender speaks TCP or TLS to the relay. TLS ends there, or at the target, which is another rsyslog; then the
    relay tells routes apart by the server name, or by a port of their own for who names none."""
    rsyslogd, driver = peer("rsyslogd"), DRIVERS.get(kind, "")
    if driver == "gtls" and not (modules_of(rsyslogd) / "lmnsd_gtls.so").exists():
        peer("rsyslog-gnutls")
    inbound, outbound = free_port(), free_port()
    written, tls = site.folder / "written", tls_of(site)
    trust = f' DefaultNetstreamDriverCAFile="{site.pki / "ca.pem"}"'
    end, own = "", ""
    if kind.startswith("sealed"):
        own = f' DefaultNetstreamDriverCertFile="{tls["certificate"]}" DefaultNetstreamDriverKeyFile="{tls["key"]}"'
        end = ' StreamDriver.Name="ossl" StreamDriver.Mode="1" StreamDriver.AuthMode="anon"'
    keep = f'action(type="omfile" file="{written}")'
    await start_rsyslog(site, rsyslogd, "receiver", inbound, keep, trust + own if own else "", end)
    listen = site.expose_tcp("syslog", inbound, {"ended": {"tls": tls}, "sealed": {"sni": NAME}}.get(kind))
    await site.start()
    secure = f'StreamDriver="{driver}" StreamDriverMode="1" StreamDriverAuthMode="x509/name"'
    secure += f' StreamDriverPermittedPeers="{NAME}"'
    rule = f'action(type="omfwd" target="{NAME}" port="{listen}" protocol="tcp" {secure if driver else ""})'
    await start_rsyslog(site, rsyslogd, "sender", outbound, rule, trust if driver else "")
    _, writer = await asyncio.open_connection("127.0.0.1", outbound)
    for number in range(200):
        writer.write(b"<14>Jan  1 00:00:00 host app: message %d\n" % number)
    await writer.drain()
    writer.close()

    def has_all() -> bool:
        text = written.read_text() if written.exists() else ""
        return all(f"message {number}\n" in text for number in range(200))

    await until(has_all, "all messages")
