"""The recipes of docs/routes.md, all in one relay and one connector, run as they stand.

What is replaced is only what must be on one machine: ports, the addresses of targets, and networks.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from cryptography import x509

from shared.pki import files, issue
from shared.tcp.head import Ends
from shared.tcp.proxy_v2 import decode, encode, size_of
from tests.docs.test_readme import blocks
from tests.support.ports import free_port
from tests.system.programs import ROOT, Program, command, environment, until

PAGE = (ROOT / "docs" / "routes.md").read_text(encoding="utf-8")
LOOPBACK = ["127.0.0.0/8"]
SENDER = "plant-1.example.com"
SHARED = (":443", "127.0.0.1:9443")
"""Two ways to write one port: "the port may be the ingress' own"."""


def recipes() -> dict[str, Any]:
    """Both configs, with everything that the page adds to them."""
    whole: dict[str, Any] = {}
    for block in blocks(PAGE):
        title, content = block.text.splitlines()[0], yaml.safe_load(block.text)
        if title in ("# relay.yaml", "# connector.yaml"):
            assert title not in whole
            whole[title] = content
        elif title.startswith("# in relay.yaml, under a tenant"):
            assert list(content) == ["tcp_routes"]
            whole["# relay.yaml"]["tenants"]["acme"]["tcp_routes"] += content["tcp_routes"]
        else:
            assert (title, list(content)) == ("# in connector.yaml", ["targets"])
            whole["# connector.yaml"]["targets"] += content["targets"]
    return whole


class Lab:
    """The folder `lab` of the recipes: the development PKI, and a certificate for the sender."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        spec = importlib.util.spec_from_file_location("generate", ROOT / "certs" / "generate.py")
        assert spec is not None
        assert spec.loader is not None
        generate = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(generate)
        generate.main(
            ["--out", str(folder), "--host", "localhost", "--host", "otlp.acme.example.com", "--host",
             "syslog.acme.example.com", "--connector", "acme/walldorf/c1"]
        )  # fmt: skip
        root = issue.create_root(datetime.now(UTC))  # a company's own, whose senders' certificates come from it
        with (folder / "ca.pem").open("ab") as bundle:
            bundle.write(issue.certificate_pem(root.certificate))
        key = issue.new_key()
        leaf = issue._leaf(
            root, "sender", [x509.DNSName(SENDER)], (issue._CLIENT,), key.public_key(), datetime.now(UTC),
            issue.LEAF_LIFETIME,
        )  # fmt: skip
        files.write_public(folder / "sender.pem", issue.certificate_pem(leaf))
        files.write_private(folder / "sender.key", issue.key_pem(key))

    def client(self, *, shows_certificate: bool = False) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=str(self.folder / "ca.pem"))
        if shows_certificate:
            context.load_cert_chain(self.folder / "sender.pem", self.folder / "sender.key")
        return context

    def server(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.folder / "ingress.pem", self.folder / "ingress.key")
        return context


@contextlib.asynccontextmanager
async def target(got: list[bytes], tls: ssl.SSLContext | None) -> AsyncIterator[int]:
    """Keeps what each connection brought, save those of probes, which bring nothing; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if data := await reader.read():
            got.append(data)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    yield server.sockets[0].getsockname()[1]
    server.close()


async def send(port: int, data: bytes, tls: ssl.SSLContext | None = None, name: str | None = None) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    writer.write(data)
    await writer.drain()
    if writer.can_write_eof():
        writer.write_eof()
        await reader.read()
    writer.close()
    with contextlib.suppress(ConnectionError, ssl.SSLError):
        await writer.wait_closed()


@pytest.mark.system
async def test_all_recipes_in_one_relay(tmp_path_factory):
    folder = tmp_path_factory.mktemp("routes")
    lab = Lab(folder / "lab")
    found = recipes()
    relay, connector = found["# relay.yaml"], found["# connector.yaml"]
    routes, targets = relay["tenants"]["acme"]["tcp_routes"], connector["targets"]
    ports: dict[str, int] = {}

    def own(listen: str) -> int:
        key = SHARED[-1] if listen in SHARED else listen
        return ports.setdefault(key, free_port())

    got: dict[str, list[bytes]] = {one["name"]: [] for one in targets}
    async with contextlib.AsyncExitStack() as stack:
        for one in targets:
            is_sealed = one["name"] in ("otlp", "syslog-tls")
            port = await stack.enter_async_context(target(got[one["name"]], lab.server() if is_sealed else None))
            one |= {"tcp": f"127.0.0.1:{port}", "networks": LOOPBACK}
        for route in routes:
            route["listen"] = f"127.0.0.1:{own(route['listen'])}"
            route |= {key: LOOPBACK for key in ("networks", "proxy_from") if key in route}
        balanced = next(route for route in routes if "proxy_from" in route)
        balanced["networks"] = ["192.0.2.0/24"]  # of whom its PROXY header tells
        for listener in (relay["tunnel"], *relay["ingress"]):
            listener["listen"] = f"127.0.0.1:{own(listener['listen'])}"
        connector["relays"] = [f"wss://localhost:{own('127.0.0.1:8443')}"]
        at = {route["name"]: int(route["listen"].rpartition(":")[2]) for route in routes}
        programs = []
        for name, config, said in (
            ("cloud-relay", relay, "relay started"), ("connector-agent", connector, "tunnel open")
        ):  # fmt: skip
            path = folder / f"{name}.yaml"
            path.write_text(yaml.safe_dump(config))
            what = "serve" if name == "cloud-relay" else "run"
            program = Program(name, [command(name), what, "--config", str(path)], folder, environment())
            programs.append(program)
            stack.push_async_callback(program.kill)
            await until(lambda: said in program.err or not program.is_running, said)  # noqa: B023 - at once
            assert program.is_running, program.err

        await send(at["syslog"], b"<14>ended\n", lab.client(shows_certificate=True), "localhost")
        await send(at["syslog-sealed"], b"<14>sealed\n", lab.client(), "syslog.acme.example.com")
        await send(at["graphite"], b"plant.1 42 1\n")
        await send(at["otlp"], b"PRI * HTTP/2.0\r\n", lab.client(), "otlp.acme.example.com")
        await send(at["postgres"], b"SELECT 1")
        told = Ends("192.0.2.7", 4711, "198.51.100.1", 2013)
        await send(at["balanced"], encode(told) + b"plant.2 43 1\n")
        await until(lambda: sum(map(len, got.values())) == 6, "what was sent")
        (query,) = got.pop("postgres")
        size = size_of(query[:16])
        ends = decode(query[:size]).ends
        assert ends is not None
        assert (ends.source, ends.destination_port, query[size:]) == ("127.0.0.1", at["postgres"], b"SELECT 1")
        assert got == {
            "syslog": [b"<14>ended\n"],
            "syslog-tls": [b"<14>sealed\n"],
            "graphite": [b"plant.1 42 1\n", b"plant.2 43 1\n"],
            "otlp": [b"PRI * HTTP/2.0\r\n"],
        }
        await refusals(lab, at)
        url = f"tls://otlp.acme.example.com:{at['otlp']}"
        argv = [command("cloud-relay"), "routes", "test", "CONNECT", url, "--config", str(folder / "cloud-relay.yaml")]
        asked = Program("test", argv, folder, environment())
        assert await asked.ended() == 0, asked.err
        assert "otlp" in asked.out


async def refusals(lab: Lab, at: dict[str, int]) -> None:
    """What the page says is refused."""
    with pytest.raises(ssl.SSLError, match=r"(?i)missing.extension"):
        await send(at["syslog-sealed"], b"x", nobody(lab))
    with pytest.raises(ConnectionResetError):
        await ask(at["syslog"], b"without a certificate\n", lab.client(), "localhost")
    with pytest.raises(ConnectionResetError):
        await ask(at["balanced"], b"plant.3 44 1\n")


async def ask(port: int, data: bytes, tls: ssl.SSLContext | None = None, name: str | None = None) -> bytes:
    """In TLS 1.3 a client learns only when it reads that it was refused."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    writer.write(data)
    try:
        return await reader.read()
    finally:
        writer.transport.abort()


def nobody(lab: Lab) -> ssl.SSLContext:
    """Of a client that names no server."""
    context = lab.client()
    context.check_hostname = False
    return context
