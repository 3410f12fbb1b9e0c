"""Many idle connectors in one process: each tunnel is real (mTLS, WebSocket, HELLO, pings), with nothing behind it.

    python -m benchmarks.load.tunnels READY_FILE PKI_FOLDER HOST PORT TUNNELS IDENTITY…

An identity is the stem of its files, such as `connector.idle.many.c0`; the tunnels are dealt out among them. The file
gets the number of tunnels that are up, once all are; SIGTERM ends them.
"""

from __future__ import annotations

import asyncio
import os
import signal
import ssl
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import cycle, islice
from pathlib import Path

from connector_agent.dialer import Contexts, Dialer
from connector_agent.handshake import DialError
from shared.errors import FAULTS
from shared.pki.tls import tunnel_client_context
from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.tunnel.gaps import GapWatch
from shared.tunnel.link import Link
from shared.tunnel.transport import MessageReceiver
from shared.tunnel.websocket_client import ClientTransport

_AT_ONCE = 48  # below what the relay takes from one address
_TRIES = 5


class Idle:
    """Holds the links; as their handler, it refuses whatever comes."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._gaps = GapWatch(loop)
        self._gaps.start()
        self._budget = MemoryBudget()
        self._settings = Settings()
        self.links: set[Link] = set()
        self.lost = 0

    def make_link(self, identity: str) -> Link:
        """A link that is not started yet."""
        hello = Hello(software="qanat-benchmark", instance=f"{identity}-{os.getpid()}", targets={"idle": "http"})
        return Link(
            Role.CONNECTOR, self, hello,
            settings=self._settings, budget=self._budget, gaps=self._gaps, loop=self._loop,
        )  # fmt: skip

    def on_ready(self, link: Link, hello: Hello) -> None:
        self.links.add(link)

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        stream.reset(FAULTS["target-not-exposed"].wire, refused=True)

    def on_targets(self, link: Link, targets: Mapping[str, str]) -> None: ...

    def on_renew(self, link: Link, request: bytes) -> None: ...

    def on_certificate(self, link: Link, answer: Mapping[str, str]) -> None: ...

    def on_trust(self, link: Link, message: Mapping[str, Sequence[str]]) -> None: ...

    def on_hint(self, link: Link, within: float) -> None: ...

    def on_drain(self, link: Link, timeout: float) -> None: ...

    def on_replace(self, link: Link, timeout: float) -> None: ...

    def on_usable(self, link: Link) -> None:
        """Only a relay doubts its peers."""

    def on_room(self, link: Link) -> bool:
        """Only a relay opens streams."""
        return False

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self.links.discard(link)
        self.lost += 1

    def on_handler_error(self, link: Link, error: Exception) -> None: ...


async def open_all(idle: Idle, pki: Path, host: str, port: int, identities: Sequence[str], count: int) -> None:
    """Opens `count` tunnels, some at a time.

    Raises:
        DialError: one could not be opened in several tries.
    """
    dialers = {name: Dialer(_contexts(pki, name)) for name in identities}
    names: Iterator[str] = islice(cycle(identities), count)

    async def work() -> None:
        for name in names:
            await _open(idle, dialers[name], host, port, name)

    async with asyncio.TaskGroup() as workers:
        for number in range(_AT_ONCE):
            workers.create_task(work(), name=f"opener-{number}")
    while len(idle.links) < count:
        await asyncio.sleep(0.05)


class _Contexts:
    """The certificates of one identity, loaded once."""

    def __init__(self, contexts: Contexts) -> None:
        self._contexts = contexts

    def __call__(self) -> Contexts:
        return self._contexts


def _contexts(pki: Path, name: str) -> _Contexts:
    own = tunnel_client_context(pki / "ca.pem", pki / f"{name}.pem", pki / f"{name}.key")
    return _Contexts(Contexts(own, own))


async def _open(idle: Idle, dialer: Dialer, host: str, port: int, name: str) -> None:
    link = idle.make_link(name)

    def receive(transport: ClientTransport) -> MessageReceiver:
        return link

    for attempt in range(_TRIES):
        try:
            transport = await dialer.dial(host, port, receive)
        except (DialError, TimeoutError, OSError, ssl.SSLError):
            if attempt == _TRIES - 1:
                raise
            await asyncio.sleep(0.2 * 2**attempt)
        else:
            link.start(transport)
            return


async def run(ready: Path, pki: Path, host: str, port: int, count: int, identities: Sequence[str]) -> None:
    """Opens the tunnels, says so, keeps them until SIGTERM."""
    loop = asyncio.get_running_loop()
    stopped = asyncio.Event()
    loop.add_signal_handler(signal.SIGTERM, stopped.set)
    idle = Idle(loop)
    await open_all(idle, pki, host, port, identities, count)
    partial = ready.with_suffix(".partial")
    partial.write_text(f"{len(idle.links)}\n")
    os.replace(partial, ready)
    await stopped.wait()


def main() -> None:
    import resource

    import uvloop

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    ready, pki, host, port, count, *identities = sys.argv[1:]
    uvloop.run(run(Path(ready), Path(pki), host, int(port), int(count), identities))


if __name__ == "__main__":
    main()
