"""The target that reads every body to its end before it answers, counts, and misbehaves where the path says so.

POST /sink…?id=7            204; the id is counted once, the bytes are counted as they come
POST /sink/stall            never reads the body and never answers
POST /sink/flood?bytes=N    200 with N bytes, written as fast as the reader takes them
GET  /count                 {"pushes": …, "ids": …, "bytes": …}

python -m benchmarks.sink PORT_FILE HOST
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import sys
from pathlib import Path
from typing import cast
from urllib.parse import parse_qs, urlsplit

_LENGTH = re.compile(rb"\r\ncontent-length:[ \t]*([0-9]{1,15})[ \t]*\r\n", re.IGNORECASE)
_NO_CONTENT = b"HTTP/1.1 204 No Content\r\n\r\n"
_LENGTH_REQUIRED = b"HTTP/1.1 411 Length Required\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
_PIECE = bytes(64 * 1024)
_READ_SIZE = 256 * 1024
_MAX_HEAD = 64 * 1024


class Counts:
    """What arrived whole."""

    __slots__ = ("connections", "ids", "pushes", "size")

    def __init__(self) -> None:
        self.connections: set[SinkConnection] = set()  # uvloop keeps no connection that neither reads nor writes
        self.pushes = 0
        self.size = 0
        self.ids: set[str] = set()

    def as_json(self) -> bytes:
        return json.dumps({"pushes": self.pushes, "ids": len(self.ids), "bytes": self.size}).encode()


class SinkConnection(asyncio.BufferedProtocol):
    """One connection; pushes one after the other."""

    __slots__ = (
        "_buffer",
        "_counts",
        "_flood",
        "_head",
        "_is_writable",
        "_length",
        "_missing",
        "_target",
        "_transport",
    )

    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._buffer = memoryview(bytearray(_READ_SIZE))
        self._head = b""
        self._target = ""
        self._length = 0
        self._missing = 0
        self._flood = 0
        self._is_writable = True
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are none by their type
        self._counts.connections.add(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._counts.connections.discard(self)

    def abort(self) -> None:
        """Cuts the connection."""
        assert self._transport is not None
        self._transport.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        if self._missing > nbytes:  # the common case of a large body: nothing to look at
            self._missing -= nbytes
            self._counts.size += nbytes
            return
        self._feed(bytes(self._buffer[:nbytes]))

    def _feed(self, data: bytes) -> None:
        while data:
            if self._missing:
                taken = min(self._missing, len(data))
                data = data[taken:]
                self._missing -= taken
                self._counts.size += taken
                if not self._missing:
                    self._answer()
                continue
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                self._close_if(len(self._head) > _MAX_HEAD)
                return
            head, data, self._head = self._head[: end + 4], self._head[end + 4 :], b""
            self._begin(head)

    def _begin(self, head: bytes) -> None:
        method, self._target, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        length = _LENGTH.search(head)
        if method == "GET":
            self._write(
                b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body := self._counts.as_json()), body)
            )
        elif length is None:
            self._write(_LENGTH_REQUIRED)
            self._close_if(condition=True)
        elif "/stall" in self._target:
            assert self._transport is not None
            self._missing = int(length[1])  # what came with the head is taken, nothing more
            self._transport.pause_reading()
        else:
            self._missing = int(length[1])
            if not self._missing:
                self._answer()

    def _answer(self) -> None:
        self._counts.pushes += 1
        parts = urlsplit(self._target)
        query = parse_qs(parts.query)
        if "id" in query:
            self._counts.ids.add(query["id"][0])
        if parts.path.endswith("/flood"):
            self._flood = int(query["bytes"][0])
            self._write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self._flood)
            self._pump()
        else:
            self._write(_NO_CONTENT)

    def _pump(self) -> None:
        while self._flood and self._is_writable:
            piece = _PIECE[: self._flood]
            self._flood -= len(piece)
            self._write(piece)

    def pause_writing(self) -> None:
        self._is_writable = False

    def resume_writing(self) -> None:
        self._is_writable = True
        self._pump()

    def _write(self, data: bytes) -> None:
        assert self._transport is not None
        self._transport.write(data)

    def _close_if(self, condition: bool) -> None:
        if condition and self._transport is not None:
            self._transport.close()


async def serve(port_file: Path, host: str) -> None:
    """Listens on a free port of `host`, writes it to `port_file`, and serves until SIGTERM."""
    loop = asyncio.get_running_loop()
    counts = Counts()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    server = await loop.create_server(lambda: SinkConnection(counts), host, 0, backlog=4096)
    partial = port_file.with_suffix(".partial")
    partial.write_text(str(server.sockets[0].getsockname()[1]))
    os.replace(partial, port_file)
    await stopped.wait()
    server.close()


def main() -> None:
    import resource

    import uvloop

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    uvloop.run(serve(Path(sys.argv[1]), sys.argv[2]))


if __name__ == "__main__":
    main()
