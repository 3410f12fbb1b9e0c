"""The course of the demo with real senders and a real receiver, and nothing in between but a door that can be shut."""

from __future__ import annotations

import asyncio
import contextlib
import io
import time
from pathlib import Path

import pytest
from rich.console import Console

from demo.run import play
from demo.settings import SenderSettings

pytestmark = pytest.mark.system


class Door:
    """A passage that forwards TCP to the target while it is open, and cuts all connections when it is shut."""

    def __init__(self) -> None:
        self.port = 0
        self.writers: set[asyncio.StreamWriter] = set()
        self.server: asyncio.Server | None = None
        self.target = 0

    async def start(self, target_port: int) -> None:
        self.target = target_port
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        other_reader, other_writer = await asyncio.open_connection("127.0.0.1", self.target)
        self.writers |= {writer, other_writer}
        with contextlib.suppress(ConnectionError):
            await asyncio.gather(self._pump(reader, other_writer), self._pump(other_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.close()

    def settings(self, path: str, names: list[str], interval_s: float) -> SenderSettings:
        return SenderSettings(f"http://127.0.0.1:{self.port}{path}", None, "Basic eDp5", names, interval_s)

    async def kill_connector(self) -> None:
        await self.stop()

    async def restart_connector(self) -> float:
        await self.start(self.target)
        return time.monotonic()

    async def tunnels(self) -> int | None:
        return 2

    async def stop(self) -> None:
        assert self.server is not None
        self.server.close()
        for writer in self.writers:
            writer.transport.abort()
        self.writers.clear()


@pytest.mark.parametrize("is_terminal", [False, True])
async def test_every_push_is_accounted_for(tmp_path: Path, is_terminal: bool) -> None:
    output = io.StringIO()
    console = Console(file=output, force_terminal=is_terminal, width=120)

    code = await play(Door(), tmp_path, 2.0, console)

    last = output.getvalue().splitlines()[-1]
    assert code == 0, output.getvalue()
    assert last.startswith("demo: sent=")
    fields = dict(part.split("=") for part in last.removeprefix("demo: ").split())
    assert list(fields) == [
        "sent", "acknowledged", "delivered", "lost", "refused", "p50_ms", "p99_ms", "recovery_s",
    ]  # fmt: skip
    assert fields["lost"] == "0"
    assert int(fields["acknowledged"]) > 20
    assert int(fields["sent"]) == int(fields["acknowledged"]) + int(fields["refused"])
    assert float(fields["recovery_s"]) < 5
    assert "SIGKILL" in output.getvalue()
