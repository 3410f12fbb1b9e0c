"""An open-loop load generator: pushes are due at fixed times, whatever became of the earlier ones.

A closed loop waits for each answer before it sends the next push, so a stall of one second costs it one slow push.
Here the pushes that were due meanwhile are late too: each latency counts from the time at which the schedule let the
push go, whether or not there was a connection free for it. How late the schedule itself was (timers, a busy machine)
is reported aside.

    python -m benchmarks.load.openloop < spec.json > load.json
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import time
from collections import Counter, deque
from dataclasses import asdict, dataclass, field
from typing import cast

from benchmarks.load.figures import Load, percentile

_MAX_STEP = 256  # pushes sent in one go before the loop gets to read again


@dataclass(frozen=True, slots=True)
class Spec:
    """What to push: `pushes` of `size` bytes, evenly over `seconds`; with `renew`, each on a connection of its own.

    A `%d` in `path` becomes the push's number. `connections` bounds the pool; with `warm`, all are opened first. With
    `guess`, a user name, each push brings another wrong password of that user; what is answered is in the failures.
    """

    host: str
    port: int
    is_tls: bool
    path: str
    pushes: int
    seconds: float
    size: int = 2048
    connections: int = 64
    renew: bool = False
    warm: bool = True
    timeout: float = 30.0
    headers: dict[str, str] = field(default_factory=dict)
    guess: str = ""

    def as_json(self) -> str:
        return json.dumps(asdict(self))


class Generator:
    """Keeps the schedule, the pool and the results."""

    def __init__(self, spec: Spec, loop: asyncio.AbstractEventLoop) -> None:
        self.spec = spec
        self.loop = loop
        self.latencies: list[float] = []
        self.failures: Counter[str] = Counter()
        self.finished = loop.create_future()
        self._idle: deque[Connection] = deque()
        self._open_ones: set[Connection] = set()  # uvloop keeps no connection that nobody else does
        self._waiting: deque[tuple[int, float]] = deque()
        self._opening: set[asyncio.Task[None]] = set()
        self._next = 0
        self._start = 0.0
        self._slips: list[float] = []
        self._tls = _client_context() if spec.is_tls else None
        headers = "".join(f"{name}: {value}\r\n" for name, value in spec.headers.items())
        self._rest = f"{headers}Content-Length: {spec.size}\r\n\r\n".encode() + b"q" * spec.size

    async def run(self) -> Load:
        """Pushes all, waits until each is answered or has failed."""
        if self.spec.warm and not self.spec.renew:
            await self._warm_up()
        self._start = time.perf_counter()
        self._step()
        deadline = self.spec.seconds + self.spec.timeout
        try:
            await asyncio.wait_for(self.finished, deadline)
        except TimeoutError:
            self.failures["unanswered"] += self.spec.pushes - len(self.latencies) - sum(self.failures.values())
        seconds = time.perf_counter() - self._start
        failures = dict(self.failures)  # closing makes no more of them
        for connection in list(self._open_ones):
            connection.abort()
        slip = percentile(sorted(self._slips), 0.99) * 1e3
        return Load.from_latencies(self.latencies, seconds, failures, {"generator_p99_late_ms": slip})

    async def _warm_up(self) -> None:
        for begin in range(0, self.spec.connections, 64):
            await asyncio.gather(*(self._open() for _ in range(begin, min(begin + 64, self.spec.connections))))

    def _step(self) -> None:
        """Sends what is due and comes back when the next is."""
        gap = self.spec.seconds / self.spec.pushes
        now = time.perf_counter()  # the loop's own clock counts whole milliseconds
        for _ in range(_MAX_STEP):
            due = self._start + self._next * gap
            if self._next == self.spec.pushes or due > now:
                break
            self._slips.append(now - due)
            self._dispatch(self._next, now)
            self._next += 1
        if self._next < self.spec.pushes:
            self.loop.call_later(max(0.0, self._start + self._next * gap - time.perf_counter()), self._step)

    def _dispatch(self, number: int, released: float) -> None:
        if self._idle and not self.spec.renew:
            self._idle.pop().push(number, released)
            return
        self._waiting.append((number, released))
        self._open_one_more()

    def _open_one_more(self) -> None:
        if self.spec.renew or len(self._open_ones) + len(self._opening) < self.spec.connections:
            task = self.loop.create_task(self._open(), name="open")
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        host = "localhost" if self._tls else None
        try:
            await self.loop.create_connection(
                lambda: Connection(self), self.spec.host, self.spec.port, ssl=self._tls, server_hostname=host
            )
        except OSError as error:
            if self._waiting:
                self._waiting.popleft()
                self.fail(f"connect-{type(error).__name__}")

    def request(self, number: int) -> bytes:
        spec = self.spec
        line = f"POST {spec.path.replace('%d', str(number))} HTTP/1.1\r\n"
        if spec.guess:
            line += f"Authorization: Basic {base64.b64encode(f'{spec.guess}:wrong-{number}'.encode()).decode()}\r\n"
        return line.encode() + self._rest

    def opened(self, connection: Connection) -> None:
        self._open_ones.add(connection)
        self.idle(connection)

    def idle(self, connection: Connection) -> None:
        """`connection` can take a push."""
        if self._waiting:
            connection.push(*self._waiting.popleft())
        else:
            self._idle.append(connection)

    def lost(self, connection: Connection) -> None:
        self._open_ones.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if self._waiting and not self.spec.renew:
            self._open_one_more()

    def succeed(self, released: float) -> None:
        self.latencies.append(time.perf_counter() - released)
        self._check()

    def fail(self, kind: str) -> None:
        self.failures[kind] += 1
        self._check()

    def _check(self) -> None:
        if len(self.latencies) + sum(self.failures.values()) >= self.spec.pushes and not self.finished.done():
            self.finished.set_result(None)


class Connection(asyncio.Protocol):
    """One connection of the generator: a push, its answer, the next push."""

    __slots__ = ("_buffer", "_generator", "_is_busy", "_released", "_transport")

    def __init__(self, generator: Generator) -> None:
        self._generator = generator
        self._transport: asyncio.Transport | None = None
        self._buffer = b""
        self._released = 0.0
        self._is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's TLS transport is none by its type
        self._generator.opened(self)

    def push(self, number: int, released: float) -> None:
        assert self._transport is not None
        self._is_busy, self._released = True, released
        self._transport.write(self._generator.request(number))

    def abort(self) -> None:
        assert self._transport is not None
        self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self._buffer[:end].lower()
        status = head[9:12].decode("latin-1")
        _, found, rest = head.partition(b"content-length:")
        length = int(rest.split(b"\r\n", 1)[0]) if found else 0
        if len(self._buffer) < end + 4 + length:
            return
        self._buffer = b""
        self._is_busy = False
        if status.startswith("2"):
            self._generator.succeed(self._released)
        else:
            self._generator.fail(status)
        self._after(is_closing=b"connection: close" in head)

    def _after(self, *, is_closing: bool) -> None:
        assert self._transport is not None
        if is_closing or self._generator.spec.renew:
            self._transport.close()
        else:
            self._generator.idle(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._generator.lost(self)
        if self._is_busy:
            self._generator.fail("connection-lost")


def _client_context() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE  # as wrk: what is measured is the system, on this machine
    return context


async def generate(spec: Spec) -> Load:
    """Runs one spec."""
    return await Generator(spec, asyncio.get_running_loop()).run()


def main() -> None:
    import resource

    import uvloop

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    load = uvloop.run(generate(Spec(**json.load(sys.stdin))))
    json.dump(load.as_json(), sys.stdout)


if __name__ == "__main__":
    main()
