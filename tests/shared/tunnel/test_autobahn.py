"""The Autobahn cases, by way of kosoku, against the tunnel's WebSocket: what we speak is spoken as RFC 6455 has it.

Of them the tunnel speaks binary messages in one frame; text, fragments and messages of more than 64 KiB are refused by
docs/protocol.md, with a code that says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from typing import Any

import kosoku

from tests.support.transports import OpenAcceptor, tls_contexts, websocket_server

SPOKEN = ["1.2.*", "2.*", "3.*", "4.*", "7.*"]
NOT_SPOKEN = {
    "1.2.1": "an empty message: a transport sends none",
    "7.1.1": "text",
    "7.1.5": "a fragmented message",
}
REFUSED = ["1.1.*", "5.3", "5.19", "6.1.*", "10.*"]
GOOD = {"OK", "NON-STRICT", "INFORMATIONAL"}


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@contextlib.asynccontextmanager
async def echoing() -> AsyncIterator[str]:
    """A tunnel listener that sends every message back, behind what kosoku cannot do: TLS and our subprotocol."""
    acceptor = OpenAcceptor()

    async def echo() -> None:
        while True:
            recorder = await acceptor.accepted.get()
            recorder.then = recorder.transport.send

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        far_reader, far_writer = await asyncio.open_connection(
            "127.0.0.1", port, ssl=tls_contexts()[1], server_hostname="localhost"
        )
        head = re.sub(rb"^GET \S+", b"GET /", head)
        far_writer.write(head[:-2] + b"Sec-WebSocket-Protocol: qanat.v1\r\n\r\n")
        answer = await far_reader.readuntil(b"\r\n\r\n")
        writer.write(re.sub(rb"Sec-WebSocket-Protocol: [^\r]*\r\n", b"", answer, flags=re.IGNORECASE))
        pumps = [asyncio.Task(_pump(reader, far_writer)), asyncio.Task(_pump(far_reader, writer))]
        await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
        for one in (far_writer, writer):
            one.close()
        await asyncio.gather(*pumps)

    async with websocket_server(acceptor) as port:
        task = asyncio.Task(echo())
        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        async with server:
            yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        task.cancel()


async def run(cases: list[str], exclude: list[str]) -> list[Any]:
    async with echoing() as url:
        try:
            return await kosoku.run_fuzzingclient(url, cases=cases, exclude_cases=exclude, concurrency=8)
        except kosoku.FailureError as failure:
            return list(failure.results)


async def test_what_we_speak() -> None:
    results = await run(SPOKEN, list(NOT_SPOKEN))
    assert len(results) >= 60
    wrong = {one.case_id: one.result for one in results if one.behavior.value not in GOOD}
    assert wrong == {}
    assert sum(one.behavior.value == "OK" for one in results) > len(results) * 0.8


async def test_what_we_do_not_speak_is_closed_with_its_code() -> None:
    results = await run(REFUSED, [])
    assert len(results) >= 10
    assert {one.case_id: one.remote_close_code for one in results if one.remote_close_code not in (1002, 1003)} == {}
