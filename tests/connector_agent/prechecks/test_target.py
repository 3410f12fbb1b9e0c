"""Each target, found out for real, without a relay; and how a push would be judged."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import trustme

from connector_agent.prechecks import Asked
from shared.exits import ExitCode
from shared.prechecks import exit_code_of
from tests.connector_agent.prechecks.kit import Bench
from tests.support.ports import free_port

pytestmark = pytest.mark.system


@contextlib.asynccontextmanager
async def target(tls: ssl.SSLContext | None = None, answer: bytes = b"") -> AsyncIterator[int]:
    """Somebody who takes connections."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.closing(writer), contextlib.suppress(OSError, asyncio.IncompleteReadError):
            if answer:
                await reader.readuntil(b"\r\n\r\n")
                writer.write(answer)
            await reader.read()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    async with server:
        yield server.sockets[0].getsockname()[1]


def authority(folder: Path, name: str) -> tuple[trustme.CA, str]:
    """A CA, and its certificate's file."""
    made = trustme.CA(organization_name=name)
    path = folder / f"{name}.pem"
    made.cert_pem.write_to_path(str(path))
    return made, str(path)


def served_by(ca: trustme.CA) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost").configure_cert(context)
    return context


async def test_all_is_well(bench: Bench) -> None:
    ca, path = authority(bench.folder, "corp")
    (bench.folder / "secret").touch(mode=0o600)
    (bench.folder / "secret").write_text("Basic planted-secret\n")
    headers = {"set_from_files": {"Authorization": "secret"}}
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
    async with target(served_by(ca), answer) as port:
        probe = {"kind": "http", "path": "/health"}
        bench.expose(f"https://localhost:{port}", tls={"ca": path}, networks=["127.0.0.0/8"], headers=headers,
                     probe=probe)  # fmt: skip
        rows = await bench.check()
    assert rows.failures == []
    assert rows.results("target frun") == {
        "allow": "ok", "files": "ok", "CA": "ok", "DNS": "ok", "networks": "ok", "TCP": "ok", "TLS": "ok",
        "answer": "ok",
    }  # fmt: skip
    assert rows.get("target frun", "allow").detail == "POST /sap/frun and below"
    assert "200 to GET /health" in rows.get("target frun", "answer").detail
    assert "planted-secret" not in str(rows)


async def test_a_target_that_refuses(bench: Bench) -> None:
    port = free_port()
    bench.expose(f"https://localhost:{port}")
    rows = await bench.check()
    assert (rows.only_failure.check, rows.only_failure.code) == ("TCP", "target-unreachable")
    assert str(port) in rows.only_failure.detail
    assert rows.get("target frun", "TLS").result == "skipped"


async def test_a_target_with_the_wrong_ca(bench: Bench) -> None:
    _, path = authority(bench.folder, "corp")
    async with target(served_by(trustme.CA())) as port:
        bench.expose(f"https://localhost:{port}", tls={"ca": path})
        rows = await bench.check()
    assert (rows.only_failure.check, rows.only_failure.code) == ("TLS", "target-tls-failed")
    assert "tls.ca" in rows.only_failure.remedy


async def test_a_target_that_nobody_knows(bench: Bench) -> None:
    bench.expose("http://target.no-such-name.invalid")
    rows = await bench.check()
    assert rows.only_failure.check == "DNS"
    assert rows.get("target frun", "TCP").result == "skipped"


async def test_a_target_outside_its_networks(bench: Bench) -> None:
    async with target() as port:
        bench.expose(f"http://localhost:{port}", networks=["10.0.0.0/8"])
        rows = await bench.check()
    assert (rows.only_failure.check, rows.only_failure.code) == ("networks", "target-address-refused")


async def test_a_target_that_answers_otherwise(bench: Bench) -> None:
    async with target(answer=b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n") as port:
        bench.expose(f"http://127.0.0.1:{port}", probe={"kind": "http"})
        rows = await bench.check()
    assert (rows.only_failure.check, rows.only_failure.code) == ("answer", "target-unexpected-status")


async def test_a_tcp_target(bench: Bench) -> None:
    async with target() as port:
        bench.config["targets"] = [{"name": "syslog", "tcp": f"127.0.0.1:{port}"}]
        rows = await bench.check(Asked("POST", "syslog", "/"))
    assert rows.results("target syslog") == {"DNS": "skipped", "networks": "skipped", "TCP": "ok"}
    assert exit_code_of(rows) == ExitCode.REFUSED


@pytest.mark.parametrize("content", ["planted\nsecret\n", ""])
async def test_a_credential_that_cannot_be_sent(bench: Bench, content: str) -> None:
    (bench.folder / "secret").touch(mode=0o600)
    (bench.folder / "secret").write_text(content)
    async with target() as port:
        bench.expose(f"http://localhost:{port}", headers={"set_from_files": {"Authorization": "secret"}})
        bench.expose(f"http://localhost:{port}", "other")
        rows = await bench.check()
    assert rows.only_failure.check == "files"
    assert "Authorization" in rows.only_failure.detail
    assert "planted" not in str(rows)
    assert exit_code_of(rows) == ExitCode.CONFIG
    assert rows.get("target frun", "TCP").result == "ok"
    assert rows.get("target other", "TCP").result == "ok"


async def test_a_credential_that_others_may_read(bench: Bench) -> None:
    (bench.folder / "secret").write_text("Basic x\n")
    (bench.folder / "secret").chmod(0o644)
    bench.expose(f"http://localhost:{free_port()}", headers={"set_from_files": {"Authorization": "secret"}})
    files, tcp = (await bench.check()).failures
    assert (files.check, tcp.check) == ("files", "TCP")
    assert "chmod 600" in files.detail


@pytest.mark.parametrize(
    ("method", "name", "path", "code", "exit_code"),
    [
        ("POST", "frun", "/sap/frun/x?y=1", "", ExitCode.OK),
        ("GET", "frun", "/sap/frun", "method-not-allowed", ExitCode.REFUSED),
        ("POST", "frun", "/sap/frunny", "path-not-allowed", ExitCode.REFUSED),
        ("POST", "frun", "/sap/frun/../admin", "path-refused", ExitCode.REFUSED),
        ("post it", "frun", "/sap/frun", "bad-push", ExitCode.REFUSED),
        ("POST", "frun", "/sap/frun\udcff", "bad-push", ExitCode.REFUSED),
        ("POST", "gone", "/", "unknown-target", ExitCode.NOT_FOUND),
    ],
)
async def test_how_a_push_would_be_judged(
    bench: Bench, method: str, name: str, path: str, code: str, exit_code: ExitCode
) -> None:
    async with target() as port:
        bench.expose(f"http://127.0.0.1:{port}")
        rows = await bench.check(Asked(method, name, path))
    judged = rows.get("push", "judgement")
    assert judged.code == code
    assert exit_code_of(rows) == exit_code
    if not code:
        assert judged.detail == f"would go to http://127.0.0.1:{port}{path}"
    else:
        assert judged.remedy
