"""Steady pushes by senders that behave like real ones: each push is tried until it is acknowledged."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator
from typing import NamedTuple

import aiohttp

from shared.errors import FAULTS
from tests.system.kit import Site

_TRY_TIMEOUT = 15.0


class Attempt(NamedTuple):
    """One try of one push. `status` is 0 when the connection gave no answer; `fault` our error's code or ""."""

    id: str
    began: float
    ended: float
    status: int
    fault: str
    cause: str = ""


class Load:
    """`senders` senders that push `rate` pushes a second together, and what became of every try."""

    def __init__(self, site: Site, rate: float = 200.0, senders: int = 40, *, keeps: bool = True) -> None:
        """`keeps`: on connections that are kept, else on a new one for each push."""
        self.attempts: list[Attempt] = []
        self.given_up: list[str] = []
        """Pushes that were not acknowledged when the load had to end."""
        self._site = site
        self._interval = senders / rate
        self._count = senders
        self._is_stopping = False
        self._headers = {} if keeps else {"Connection": "close"}
        self._prefix = "" if keeps else "new-"

    @contextlib.asynccontextmanager
    async def running(self, patience: float = 20.0) -> AsyncIterator[None]:
        """Pushes meanwhile; at the end each sender gets `patience` seconds to settle the push that it is at."""
        senders = [asyncio.Task(self._push_on(number)) for number in range(self._count)]
        try:
            yield
            self._is_stopping = True
            await asyncio.wait(senders, timeout=patience)
        finally:
            for sender in senders:
                sender.cancel()
            await asyncio.gather(*senders, return_exceptions=True)

    @property
    def acknowledged(self) -> set[str]:
        return {one.id for one in self.attempts if 200 <= one.status < 300}

    def has_acknowledged(self, count: int) -> bool:
        """Whether so many pushes were."""
        return len(self.acknowledged) >= count

    @property
    def failures(self) -> list[Attempt]:
        """Tries that were not acknowledged."""
        return [one for one in self.attempts if not 200 <= one.status < 300]

    @property
    def failures_by_cause(self) -> dict[str, int]:
        """How many there were, by our error's code or the kind of exception."""
        return dict(Counter(one.fault or one.cause.partition("(")[0] or str(one.status) for one in self.failures))

    def first_acknowledged(self, after: float) -> float | None:
        """When the first try that ended after this moment was acknowledged."""
        return min((one.ended for one in self.attempts if one.ended > after and 200 <= one.status < 300), default=None)

    def assert_honest(self, *, silent: tuple[tuple[float, float], ...] = ()) -> None:
        """Errors are ours, and such that senders try again; only within the spans `silent` may there be no answer."""
        for one in self.failures:
            if one.status:
                assert one.fault in FAULTS, one
                assert one.status == FAULTS[one.fault].status, one
                assert one.status in (502, 503, 504), one
            else:
                assert any(one.began < until and since < one.ended for since, until in silent), one

    async def _push_on(self, number: int) -> None:
        due = time.monotonic() + random.random() * self._interval
        for push in range(1_000_000):
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            # With jitter: what an outage held up must not stay in step for ever.
            due = max(due + self._interval * random.uniform(0.5, 1.5), time.monotonic())
            if self._is_stopping:
                return
            await self._settle(f"{self._prefix}{number}-{push}")

    async def _settle(self, push: str) -> None:
        self.given_up.append(push)
        while True:
            attempt = await self._try(push)
            self.attempts.append(attempt)
            if 200 <= attempt.status < 300:
                self.given_up.remove(push)
                return
            await asyncio.sleep(random.uniform(0.03, 0.1))

    async def _try(self, push: str) -> Attempt:
        began = time.monotonic()
        try:
            answer = await self._site.push(
                f"/push?id={push}", push.encode() * 100, headers=self._headers, timeout=_TRY_TIMEOUT
            )
        except (aiohttp.ClientError, TimeoutError) as error:
            return Attempt(push, began, time.monotonic(), 0, "", repr(error))
        return Attempt(push, began, time.monotonic(), answer.status, answer.fault)
