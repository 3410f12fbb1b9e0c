"""The senders of one tenant: pushes are due at fixed times whatever became of the earlier ones, and each is tried until
it is acknowledged, as real senders do.

    python -m chaos.sender SPEC_FILE

Orders are a journal too:

    {"do": "push", "run": "r7", "rate": 40.0, "largest": 1000000, "idle": 30.0}   begins
    {"do": "flood", "pushes": 24, "size": 4000000}   pushes so many large ones beside them
    {"do": "settle", "patience": S}   stops making new ones, waits for those under way, closes all connections, and
                                      writes {"event": "settled", "unsettled": […]}
"""

from __future__ import annotations

import asyncio
import json
import random
import ssl
import sys
import time
from collections.abc import AsyncIterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp

from chaos.journal import Reader, Writer
from chaos.pushes import PLAIN, ROUTES, Try, body_of
from shared.tasks import cancel, spawn

TRY_TIMEOUT: Final = 15.0
_ALONE: Final = 0.2
_SLOW: Final = 0.3
"""Of the pushes: those that are under way for a while, so that every fault meets some."""
_CHUNK: Final = 32 * 1024
_LOOK: Final = 0.02
_LARGE: Final = 128 * 1024
"""Bytes from which a body is sent in chunks."""


@dataclass(frozen=True, slots=True)
class Spec:
    """Who pushes, where to, and which files the records and the orders are in."""

    tenant: str
    host: str
    address: str
    port: int
    authority: str
    token: str
    journal: str
    orders: str

    def write(self, path: Path) -> None:
        """With mode 0600, since a token is in it."""
        path.touch(mode=0o600)
        path.write_text(json.dumps(asdict(self)))


class Push(NamedTuple):
    """One push that is due: `wait` seconds the target takes for it; `is_alone` wants a connection of its own."""

    id: str
    route: str
    size: int
    wait: float
    is_alone: bool


def draw_size(source: random.Random) -> int:
    """Bytes of a body: small ones mostly, some large."""
    kind = source.random()
    if kind < 0.7:
        return source.randrange(100, 4096)
    if kind < 0.95:
        return source.randrange(4096, 60_000)
    return source.randrange(200_000, 1_000_000)


class Senders:
    """Makes the pushes of one tenant, and writes down every try when it has ended."""

    def __init__(self, spec: Spec, journal: Writer) -> None:
        self._spec = spec
        self._journal = journal
        self._trust = ssl.create_default_context(cafile=spec.authority)
        self._session: aiohttp.ClientSession | None = None
        self._clock: asyncio.Task[None] | None = None
        self._pushes: dict[asyncio.Task[None], str] = {}
        self._floods = 0

    def push(self, run: str, rate: float, largest: int, idle: float) -> None:
        """Begin: `rate` pushes a second with bodies up to `largest` bytes, a fifth on connections of their own.

        `idle` is for how many seconds a connection is kept.
        """
        connector = aiohttp.TCPConnector(limit=0, ssl=self._trust, keepalive_timeout=idle)
        self._session = aiohttp.ClientSession(connector=connector, trust_env=False)
        self._clock = spawn(self._make(run, rate, largest), f"clock of {run}")

    def flood(self, pushes: int, size: int) -> None:
        """So many pushes of this size at once, beside the others."""
        self._floods += 1
        for number in range(pushes):
            name = f"{self._spec.tenant}.flood-{self._floods}.{number}"
            self._begin(Push(name, PLAIN, size, 0.0, is_alone=True))

    def _begin(self, push: Push) -> None:
        task = spawn(self._settle(push), push.id)
        self._pushes[task] = push.id
        task.add_done_callback(self._pushes.pop)

    async def settle(self, patience: float) -> None:
        """Come to an end."""
        await cancel(self._clock)
        if self._pushes:
            await asyncio.wait(self._pushes, timeout=patience)
        unsettled = list(self._pushes.values())
        await cancel(*self._pushes)
        if self._session is not None:
            await self._session.close()
        self._journal.write(event="settled", unsettled=unsettled)

    async def _make(self, run: str, rate: float, largest: int) -> None:
        source = random.Random(f"{self._spec.tenant} {run}")
        due = time.monotonic()
        for number in range(1_000_000):
            due += source.uniform(0.5, 1.5) / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            name, route = f"{self._spec.tenant}.{run}.{number}", ROUTES[number % len(ROUTES)]
            wait = round(source.uniform(0.02, 0.5), 3) if source.random() < _SLOW else 0.0
            size = min(draw_size(source), largest)
            self._begin(Push(name, route, size, wait, is_alone=source.random() < _ALONE))

    async def _settle(self, push: Push) -> None:
        for number in range(1_000_000):
            one = await self._try(push, f"{push.id}.{number}")
            self._journal.write(event="try", **asdict(one))
            if one.is_acknowledged:
                return
            await asyncio.sleep(random.uniform(0.3, 1.0))

    async def _try(self, push: Push, try_id: str) -> Try:
        spec, began = self._spec, time.monotonic()
        status, code, cause, is_honest = 0, "", "", True
        try:
            async with self._open(push, try_id) as answer:
                status, code = answer.status, answer.headers.get("Qanat-Error", "")
                text = await answer.text()
                is_honest = text == try_id if 200 <= status < 300 else _tells_all(answer)
        except (aiohttp.ClientError, TimeoutError) as error:
            status, code, cause = 0, "", type(error).__name__
        ended = time.monotonic()
        return Try(
            spec.tenant, push.route, push.id, try_id, push.size, began, ended, status, code, cause, is_honest
        )  # fmt: skip

    def _open(self, push: Push, try_id: str) -> Any:
        spec, body = self._spec, body_of(push.id, push.size)
        assert self._session is not None
        headers = {"Authorization": f"Bearer {spec.token}", "Host": spec.host, "X-Request-Id": try_id}
        if push.is_alone:
            headers["Connection"] = "close"
        return self._session.post(
            f"https://{spec.address}:{spec.port}/{push.route}",
            params={"tenant": spec.tenant, "push": push.id, "try": try_id, "size": push.size, "wait": push.wait},
            data=_chunks(body) if push.size >= _LARGE else body,
            headers=headers,
            server_hostname=spec.host,
            timeout=aiohttp.ClientTimeout(total=TRY_TIMEOUT),
            allow_redirects=False,
        )


def _tells_all(answer: aiohttp.ClientResponse) -> bool:
    """Whether an error names its origin and when to try again, in the form of RFC 9457."""
    headers = answer.headers
    return (
        headers.get("Content-Type", "").startswith("application/problem+json")
        and "Qanat-Error-Origin" in headers
        and "Retry-After" in headers
    )


async def _chunks(body: bytes) -> AsyncIterator[bytes]:
    for start in range(0, len(body), _CHUNK):
        yield body[start : start + _CHUNK]


async def obey(senders: Senders, orders: Reader) -> None:
    """Until cancelled."""
    while True:
        for order in orders.read():
            if order["do"] == "push":
                senders.push(order["run"], order["rate"], order["largest"], order["idle"])
            elif order["do"] == "flood":
                senders.flood(order["pushes"], order["size"])
            else:
                await senders.settle(order["patience"])
        await asyncio.sleep(_LOOK)


def main() -> None:
    spec = Spec(**json.loads(Path(sys.argv[1]).read_text()))
    asyncio.run(obey(Senders(spec, Writer(Path(spec.journal))), Reader(Path(spec.orders))))


if __name__ == "__main__":
    main()
