"""Senders of Prometheus remote write, which do as Prometheus does: in order, and again after 5xx or a lost connection.

python remote_write_sender.py SETTINGS_FILE
"""

from __future__ import annotations

import asyncio
import signal
import ssl
import sys
import time
from pathlib import Path

import aiohttp

from demo.events import emit, emit_acknowledged
from demo.measurements import PUSH_METRIC, measure
from demo.remote_write import HEADERS, Series, encode, labels_of
from demo.settings import SenderSettings, read_settings

_MIN_BACKOFF_S, _MAX_BACKOFF_S = 0.03, 5.0  # Prometheus' own
_REQUEST_TIMEOUT_S = 30.0
_PATIENCE_S = 4.0  # for the push in flight at the end


def is_retryable(status: int) -> bool:
    """What Prometheus sends again (with `retry_on_http_429`); everything else it drops."""
    return status >= 500 or status == 429


class RemoteWriteSender:
    """One Prometheus: measures, pushes, and keeps a push until it is acknowledged or cannot be."""

    def __init__(self, name: str, settings: SenderSettings, session: aiohttp.ClientSession) -> None:
        self.name = name
        self._url = settings.url
        self._interval = settings.interval_s
        self._headers = {**HEADERS, "Authorization": settings.authorization}
        self._session = session
        self._number = 0

    def body(self) -> bytes:
        """What the next push carries."""
        now = time.time_ns() // 1_000_000
        series = [Series(labels_of(PUSH_METRIC, [("sender", self.name)]), float(self._number), now)]
        for name, labels, value in measure():
            series.append(Series(labels_of(name, [*labels, ("sender", self.name)]), value, now))
        return encode(series)

    async def run(self, stopping: asyncio.Event) -> None:
        """Pushes every interval until `stopping`; the last push gets a few seconds more."""
        while not stopping.is_set():
            self._number += 1
            push = f"{self.name}/{self._number}"
            body = self.body()
            emit("sent", id=push)
            if not await self._deliver(push, body, stopping):
                emit("refused", id=push)
            await wait_for(stopping, self._interval)

    async def _deliver(self, push: str, body: bytes, stopping: asyncio.Event) -> bool:
        """Tries until it is acknowledged (True) or given up (False)."""
        backoff = _MIN_BACKOFF_S
        stopped_at: float | None = None
        while True:
            began = time.monotonic()
            status, retry_after = await self._attempt(push, body)
            if 200 <= status < 300:
                emit_acknowledged(push, began)
                return True
            if status and not is_retryable(status):
                return False
            if stopping.is_set():
                stopped_at = stopped_at or time.monotonic()
                if time.monotonic() - stopped_at > _PATIENCE_S:
                    return False
                await asyncio.sleep(max(retry_after, 0.2))
            else:
                await wait_for(stopping, max(retry_after, backoff))
            backoff = min(2 * backoff, _MAX_BACKOFF_S)

    async def _attempt(self, push: str, body: bytes) -> tuple[int, float]:
        """Status and Retry-After in seconds; 0 for no answer."""
        try:
            async with self._session.post(self._url, data=body, headers=self._headers) as answer:
                await answer.read()
                if not answer.ok:
                    emit("attempt", id=push, status=answer.status, code=answer.headers.get("Qanat-Error", ""))
                after = answer.headers.get("Retry-After", "")
                return answer.status, float(after) if after.isdecimal() else 0.0
        except (aiohttp.ClientError, TimeoutError) as error:
            emit("attempt", id=push, status=0, code=type(error).__name__)
            return 0, 0.0


async def wait_for(event: asyncio.Event, seconds: float) -> None:
    """Waits for `event`, at most so long."""
    try:
        await asyncio.wait_for(event.wait(), seconds)
    except TimeoutError:
        pass


async def run(settings: SenderSettings, stopping: asyncio.Event) -> None:
    """All senders of this process, side by side, until `stopping` and until each has settled its last push."""
    tls = ssl.create_default_context(cafile=settings.ca_file) if settings.ca_file else True
    timeout = aiohttp.ClientTimeout(total=_REQUEST_TIMEOUT_S)
    async with (
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=tls), timeout=timeout) as session,
        asyncio.TaskGroup() as senders,
    ):
        for name in settings.names:
            senders.create_task(RemoteWriteSender(name, settings, session).run(stopping), name=name)


async def _main(path: Path) -> None:
    stopping = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopping.set)
    await run(read_settings(path), stopping)


if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the demo's to handle
    asyncio.run(_main(Path(sys.argv[1])))
