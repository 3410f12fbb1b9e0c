"""Connections to targets over real sockets: addresses checked, TLS verified, every fault with its code."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import trustme

from connector_agent.upstream import connect as connect_module
from connector_agent.upstream.connect import Endpoint, connect, refusal
from shared.errors import LocalFault
from shared.pki.tls import target_client_context


class Silent(asyncio.Protocol):
    """The client's end: only there."""

    transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport


@pytest.fixture
def ca(tmp_path: Path) -> trustme.CA:
    ca = trustme.CA()
    ca.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return ca


def server_context(ca: trustme.CA, *names: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert(*names).configure_cert(context)
    return context


@asynccontextmanager
async def listening(
    handle: Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any] | None = None,
    context: ssl.SSLContext | None = None,
) -> AsyncIterator[int]:
    under_way: dict[asyncio.Task[Any], asyncio.StreamWriter] = {}

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        under_way[task] = writer
        try:
            await (handle(reader, writer) if handle is not None else reader.read())
        except OSError:
            pass
        writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()
        await asyncio.sleep(0.01)
        for writer in under_way.values():
            writer.transport.abort()
        await asyncio.gather(*under_way)
        await asyncio.sleep(0)


async def fault_of(endpoint: Endpoint) -> LocalFault:
    with pytest.raises(LocalFault) as caught:
        await connect(endpoint, Silent, asyncio.get_running_loop())
    return caught.value


async def test_plain() -> None:
    async with listening() as port:
        protocol = await connect(Endpoint("127.0.0.1", port), Silent, asyncio.get_running_loop())
        sock = protocol.transport.get_extra_info("socket")
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        protocol.transport.abort()


async def test_tls_with_a_ca_of_its_own(ca: trustme.CA, tmp_path: Path) -> None:
    async with listening(context=server_context(ca, "localhost")) as port:
        endpoint = Endpoint("localhost", port, target_client_context(tmp_path / "ca.pem"))
        protocol = await connect(endpoint, Silent, asyncio.get_running_loop())
        assert protocol.transport.get_extra_info("sslcontext") is not None
        protocol.transport.abort()


async def test_a_certificate_of_another_ca(ca: trustme.CA, tmp_path: Path) -> None:
    async with listening(context=server_context(trustme.CA(), "localhost")) as port:
        fault = await fault_of(Endpoint("localhost", port, target_client_context(tmp_path / "ca.pem")))
    assert fault.fault.code == "target-tls-failed"
    assert "unable to get local issuer" in fault.detail


async def test_a_certificate_for_another_name(ca: trustme.CA, tmp_path: Path) -> None:
    async with listening(context=server_context(ca, "other.test")) as port:
        fault = await fault_of(Endpoint("localhost", port, target_client_context(tmp_path / "ca.pem")))
    assert fault.fault.code == "target-tls-failed"
    assert "Hostname mismatch" in fault.detail


async def test_a_target_that_speaks_no_tls(ca: trustme.CA, tmp_path: Path) -> None:
    async def greet(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"220 mail.test ESMTP\r\n")
        await reader.read(100)
        writer.close()

    async with listening(greet) as port:
        fault = await fault_of(Endpoint("localhost", port, target_client_context(tmp_path / "ca.pem")))
    assert fault.fault.code == "target-tls-failed"


async def test_a_target_that_hangs_up_in_the_handshake(ca: trustme.CA, tmp_path: Path) -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.close()

    async with listening(hang_up) as port:
        fault = await fault_of(Endpoint("127.0.0.1", port, target_client_context(tmp_path / "ca.pem")))
    assert fault.fault.code == "target-tls-failed"


async def test_a_target_that_never_shakes_hands(ca: trustme.CA, tmp_path: Path) -> None:
    async with listening() as port:
        endpoint = Endpoint("127.0.0.1", port, target_client_context(tmp_path / "ca.pem"), timeout=0.1)
        fault = await fault_of(endpoint)
    assert fault.fault.code == "target-unreachable"
    assert "within 0.1 s" in fault.detail


async def test_nobody_listens() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    fault = await fault_of(Endpoint("127.0.0.1", port))
    assert fault.fault.code == "target-unreachable"
    assert f"127.0.0.1:{port}" in fault.detail


async def test_a_client_certificate(ca: trustme.CA, tmp_path: Path) -> None:
    context = server_context(ca, "localhost")
    ca.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED
    pair = ca.issue_cert("connector.test")
    pair.cert_chain_pems[0].write_to_path(str(tmp_path / "c.pem"))
    (tmp_path / "c.key").write_bytes(pair.private_key_pem.bytes())
    (tmp_path / "c.key").chmod(0o600)
    async with listening(context=context) as port:
        trusted = target_client_context(tmp_path / "ca.pem", tmp_path / "c.pem", tmp_path / "c.key")
        protocol = await connect(Endpoint("localhost", port, trusted), Silent, asyncio.get_running_loop())
        protocol.transport.abort()


# Addresses.


def resolving_to(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    async def resolve(_host: str, port: int, **_options: Any) -> list[tuple[Any, ...]]:
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.get_running_loop(), "getaddrinfo", resolve)


async def test_a_name_that_does_not_exist() -> None:
    fault = await fault_of(Endpoint("no-such-host.invalid", 80))
    assert fault.fault.code == "target-unreachable"
    assert "cannot be resolved" in fault.detail


@pytest.mark.parametrize(
    "address",
    [
        "169.254.169.254", "fe80::1%1", "224.0.0.1", "ff02::1", "0.0.0.0", "::", "255.255.255.255",
        "::ffff:169.254.1.1", "64:ff9b::a9fe:a9fe",
    ],
)  # fmt: skip
async def test_addresses_that_are_never_dialled(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    resolving_to(monkeypatch, address)
    fault = await fault_of(Endpoint("target.test", 80))
    assert fault.fault.code == "target-address-refused"


def test_networks() -> None:
    networks = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00::/8"))
    assert refusal("10.1.2.3", networks) is None
    assert refusal("::ffff:10.1.2.3", networks) is None
    assert refusal("fd00::1", networks) is None
    assert refusal("10.2.0.1", networks) == "is in none of the target's networks"
    assert refusal("garbage", ()) == "is no IP address"
    assert refusal("127.0.0.1", ()) is None


async def test_an_address_outside_the_networks_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    async with listening() as port:
        resolving_to(monkeypatch, "192.0.2.1", "127.0.0.1")
        endpoint = Endpoint("target.test", port, networks=(ipaddress.ip_network("127.0.0.0/8"),))
        protocol = await connect(endpoint, Silent, asyncio.get_running_loop())
        assert protocol.transport.get_extra_info("peername")[0] == "127.0.0.1"
        protocol.transport.abort()


async def test_the_next_address_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = []

    async def dial(_endpoint: Endpoint, address: str, factory: Any, _loop: Any) -> Any:
        tried.append(address)
        if len(tried) == 1:
            await asyncio.sleep(100)
        if len(tried) == 2:
            raise LocalFault("target-unreachable", "refused")
        return factory()

    monkeypatch.setattr(connect_module, "_dial", dial)
    resolving_to(monkeypatch, "192.0.2.1", "192.0.2.2", "192.0.2.3")
    await connect(Endpoint("target.test", 80, timeout=0.3), Silent, asyncio.get_running_loop())
    assert tried == ["192.0.2.1", "192.0.2.2", "192.0.2.3"]
