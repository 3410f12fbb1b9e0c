"""Targets and senders that misbehave: each gets the documented error, nothing leaks, and no other push is harmed."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct

import aiohttp
import pytest

from tests.system.kit import Site, assert_honest
from tests.system.programs import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

MAX_GROWTH_MIB = 16
CLOSE = {"Connection": "close"}


async def bad_targets(site: Site) -> None:
    """Every kind once."""
    for path, status, code in [
        ("/hang", 504, "target-too-slow"),
        ("/garbage", 502, "target-malformed-answer"),
    ]:
        answer = await site.push(path, headers=CLOSE)
        assert (answer.status, answer.fault) == (status, code)
        assert_honest(answer)
    for path in ("/reset", "/cut"):
        # The status line has passed: what is not whole must not look whole.
        with pytest.raises(aiohttp.ClientError):
            await site.push(path, headers=CLOSE)


async def speak(site: Site, data: bytes, how: str = "read") -> bytes:
    """A sender of raw bytes by TLS; the head of what it gets ("read"), or it hangs up ("fin") or resets ("rst")."""
    context = ssl.create_default_context(cafile=str(site.pki / "ca.pem"))
    reader, writer = await asyncio.open_connection(
        "127.0.0.1", site.ports["tls"], ssl=context, server_hostname="localhost"
    )
    try:
        writer.write(data)
        await writer.drain()
        if how == "read":
            return await _read_head(reader)
        await asyncio.sleep(0.05)
        if how == "rst":
            sock: socket.socket = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            writer.transport.abort()
        return b""
    finally:
        writer.close()


async def _read_head(reader: asyncio.StreamReader) -> bytes:
    try:
        async with asyncio.timeout(25):
            return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError as error:
        return error.partial
    except ConnectionError:
        return b""


def head(site: Site, *lines: str, path: str = "/push?id=bad") -> bytes:
    fields = [f"POST {path} HTTP/1.1", "Host: localhost", f"Authorization: {site.bearer}", *lines, "", ""]
    return "\r\n".join(fields).encode()


async def bad_senders(site: Site) -> None:
    """Every kind once."""
    half = head(site, "Content-Length: 100000") + b"x" * 5000
    chunked = head(site, "Transfer-Encoding: chunked") + b"5\r\nhello\r\n"
    for data in (half, chunked, half[:40]):
        await speak(site, data, "fin")
        await speak(site, data, "rst")
    for data, status in [
        (head(site, "Content-Length: 1", "Transfer-Encoding: chunked") + b"x", b"400"),
        (head(site, "Content-Length: 1", "Content-Length: 2") + b"x", b"400"),
        (head(site, "Host: another"), b"400"),
        (head(site, "Transfer-Encoding: chunked") + b"zz\r\n", b"400"),
        (head(site, f"X-Large: {'x' * 40_000}"), b"431"),
        (head(site, path="/" + "x" * 9000), b"414"),
        (b"POST / HTTP/3.0\r\nHost: localhost\r\n\r\n", b"505"),
        (b"\x00\x01\x02\r\n\r\n", b"400"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"505"),
    ]:
        answer = await speak(site, data)
        assert answer[9:12] == status, (data[:60], answer[:200])
        assert b"\r\nQanat-Error: " in answer


async def test_nothing_is_left_of_them(site, target, record_property):
    site.expose(target)["timeouts"] = {"first_byte": "500ms"}
    await site.start()
    programs = (site.relay, site.connector)

    async def round_of_all() -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(bad_targets(site))
            group.create_task(bad_senders(site))
            for number in range(10):
                group.create_task(good(f"/slow/0.{number % 4}"))

    async def good(path: str) -> None:
        assert (await site.push(path, headers=CLOSE)).status == 200

    # The first rounds allocate what stays.
    for _ in range(3):
        await round_of_all()
    await until(lambda: is_quiet(site, target), "a quiet site", 30)
    files = [program.open_files for program in programs]
    rss = [program.rss_mib for program in programs]

    slow = asyncio.Task(speak(site, head(site, "Content-Length: 100000") + b"x" * 100))
    for _ in range(12):
        await round_of_all()
    assert (await site.push(headers=CLOSE)).status == 200
    assert await slow == b""  # too slow: closed without an answer

    await until(lambda: is_quiet(site, target), "a quiet site", 30)
    await until(lambda: [program.open_files for program in programs] <= files, "files as before")
    growth = [round(program.rss_mib - before, 1) for program, before in zip(programs, rss, strict=True)]
    record_property("growth of relay and connector after 12 rounds of bad peers, MiB", growth)
    assert max(growth) < MAX_GROWTH_MIB
    assert not {one.id for one in target.received} & {"bad"}
    faults = (await site.status())["routes"][0]["faults"]
    assert "internal-error" not in faults
    for program in programs:
        errors = [line for line in program.log_lines if line["level"] == "error"]
        assert not errors, errors


async def is_quiet(site: Site, target) -> bool:
    """Nothing is in flight anywhere, no memory is held, and the connector's idle connections are gone."""
    relay, connector = await site.status(), await site.status("c1")
    (row,) = connector["targets"]
    return bool(
        relay["in_flight"] == connector["in_flight"] == 0
        and relay["memory"]["used"] == connector["memory"]["used"] == 0
        and row["connections"] == {"open": 0, "idle": 0, "waiting": 0}
        and sum(one.get("connections", 0) for one in relay["listeners"]) == 0
        and target.open_connections == 0
    )


async def test_a_sender_that_hangs_up_ends_its_push_at_the_target(site, target):
    site.expose(target)
    await site.start()
    await speak(site, head(site, "Content-Length: 4", path="/hang") + b"full", "fin")
    await until(lambda: target.begun == 1, "the push at the target")
    await until(lambda: target.open_connections == 0, "the end of the connection to the target", 3)
    await until(lambda: any(line.get("code") == "sender-gone" for line in site.relay.access_lines), "its access line")


async def test_a_target_that_is_not_there(site, target):
    site.expose(target)
    await site.start()
    await target.close()
    answer = await site.push()
    assert (answer.status, answer.fault) == (502, "target-unreachable")
    assert_honest(answer)
    assert str(target.port) not in answer.body.decode()
    assert str(target.port) in site.connector.err
    await target.open()
    assert (await site.push()).status == 200
