"""Another worker, as this one sees it: which tunnels it has, and pushes for them.

run() ─▶ connect ─▶ HELLO ─▶ news ─▶ keys, rivals … ─▶ lost: all of it is forgotten, and connected anew
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn, Protocol

from cloud_relay.workers.hop import Hop, HopIdentity, HopLink
from cloud_relay.workers.lines import HEAD, Lines, line
from cloud_relay.workers.quiet import QuietHandler
from cloud_relay.workers.rival import Rival
from shared.logs import get_logger, log_limited
from shared.protocol import Hello, MemoryBudget, Role, Settings
from shared.tunnel.link import Link
from shared.tunnel.local import LocalTransport

if TYPE_CHECKING:
    from cloud_relay.identity.records import ConnectorKey
    from cloud_relay.session import Key
    from cloud_relay.workers.shares import GateKey
    from shared.protocol.stream import Stream
    from shared.tunnel.gaps import GapWatch

RETRY: Final = (0.05, 1.0)
"""Seconds until the next try to connect: at first, and at most. A worker that died is back within a second."""

DOUBT: Final = (0.05, 0.8)
"""Seconds for which no push goes to a sibling that had no tunnel for the last one: by then its news are here. If there
are none, its tunnels are full, and each doubt lasts twice as long as the one before, at most so long."""

log = get_logger("relay.workers")


class Owner(Protocol):
    """Who is told of a sibling's tunnels."""

    def on_key(self, key: Key) -> None:
        """The sibling has a tunnel for this key, which it had not."""

    def on_rival(self, rival: Rival) -> None:
        """It has a session that is not known yet."""

    def on_rival_gone(self, rival: Rival) -> None:
        """One of its sessions has ended, or is about to."""

    def on_hint(self, connector: ConnectorKey, within: float) -> None:
        """The connector is to be asked for a renewal, if it is here."""

    def on_share(self, key: GateKey, share: float) -> None:
        """Of this quota, this share is this worker's from now on."""

    def on_stored(self, number: int) -> None:
        """It has written events, up to this one."""


class Sibling(QuietHandler):
    """Worker `number`, at the Unix socket `path`. `run` it as a task."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        number: int,
        path: Path,
        owner: Owner,
        budget: MemoryBudget,
        gaps: GapWatch,
        settings: Settings | None = None,
        own: int = 0,
    ) -> None:
        """`own` is the number of the worker that this one is a sibling of."""
        self.on_joined: Callable[[], object] = _nobody
        """Told when its news are heard, at first or again: it may be another process than before."""
        self._own = own
        self.number = number
        self.path = path
        self.keys: dict[Key, list[str]] = {}
        """What it has tunnels for, and the names of their connectors."""
        self.how: dict[Key, dict[str, tuple[int, str, str]]] = {}
        """Of these the rank in which a push is given to them, how the target is behind them, and why."""
        self.rivals: dict[int, Rival] = {}
        self.is_blind = False
        """Whether it serves nobody, since it cannot read the state."""
        self.active: list[tuple[str, str]] = []
        """Some of those who push there of late, by tenant and name."""
        self._loop = loop
        self._owner = owner
        self._budget = budget
        self._gaps = gaps
        self._settings = settings or Settings()
        self._link: Link | None = None
        self._news: Stream | None = None
        self._lines = Lines()
        self._is_lost = asyncio.Event()
        self._doubted: dict[Key, asyncio.TimerHandle] = {}
        self._lasted: dict[Key, float] = {}
        """How long it was doubted last, since its news."""

    def __repr__(self) -> str:
        return f"<Sibling {self.number} with {len(self.keys)} keys>"

    @property
    def is_connected(self) -> bool:
        """Whether its news are heard."""
        return self._news is not None

    @property
    def in_flight(self) -> int:
        """Pushes that crossed to it."""
        return self._link.in_flight if self._link is not None else 0

    def rank(self, key: Key, avoid: Sequence[str]) -> int:
        """That of the best connector there that is none of `avoid`."""
        how = self.how.get(key, {})
        return min((one[0] for name, one in how.items() if name not in avoid), default=0)

    def hop(self, key: Key, avoid: Sequence[str]) -> Hop | None:
        """The way there for one push, unless it has no tunnel for the key but those of `avoid`."""
        names, link = self.keys.get(key), self._link
        if not names or link is None or not link.can_open or key in self._doubted:
            return None
        if all(name in avoid for name in names):
            return None
        return Hop(HopIdentity(names[0] if len(names) == 1 else ""), HopLink(link, key, avoid), self.number)

    def doubt(self, key: Key) -> None:
        """It had no tunnel for a push, although it said that it has some. Pushes wait for its news, or a moment."""
        if key in self.keys and key not in self._doubted:
            lasts = self._lasted.get(key, DOUBT[0] / 2) * 2
            self._lasted[key] = lasts = min(lasts, DOUBT[1])
            self._doubted[key] = self._loop.call_later(lasts, self._trust, key)

    def _trust(self, key: Key, *, is_news: bool = False) -> None:
        """Whoever waits may ask it again."""
        if is_news:
            self._lasted.pop(key, None)
        doubt = self._doubted.pop(key, None)
        if doubt is not None:
            doubt.cancel()
            if key in self.keys:
                self._owner.on_key(key)

    async def run(self) -> NoReturn:
        """Be connected to it, for ever."""
        pause = RETRY[0]
        while True:
            try:
                await self.connect()
                pause = RETRY[0]
                await self._is_lost.wait()
            except OSError as error:
                if pause == RETRY[1]:  # all of them start at once, and one that has died is soon back
                    log_limited(log, "warning", f"worker {self.number}", "a worker is not there",
                                sibling=self.number, cause=error.strerror or str(error))  # fmt: skip
            await asyncio.sleep(pause)
            pause = min(RETRY[1], 2 * pause)

    async def connect(self) -> None:
        """Connect once. Raises OSError."""
        self._is_lost.clear()
        transport = LocalTransport(self._loop)
        link = Link(
            Role.RELAY, self, Hello(software="worker", instance="worker"), settings=self._settings,
            budget=self._budget, gaps=self._gaps, loop=self._loop,
        )  # fmt: skip
        transport.receiver = link
        await self._loop.create_unix_connection(lambda: transport, str(self.path))
        self._link = link
        link.start(transport)

    def close(self) -> None:
        """Let go of it, in good order. Only when `run` has ended."""
        if self._link is not None:
            self._link.close()

    def abort(self) -> None:
        """End at once what has not ended yet."""
        if self._link is not None:
            self._link.abort()

    async def ended(self) -> None:
        """Once it was closed: when the link has ended."""
        if self._link is not None:
            await self._is_lost.wait()

    def tell(self, record: Mapping[str, Any]) -> None:
        """Say something to it, if it is there."""
        if self._news is not None:
            self._news.send(line(record))

    # --- LinkHandler

    def on_ready(self, link: Link, hello: Hello) -> None:
        self._lines = Lines()
        self._news = link.open_stream(self, HEAD)
        self.tell({"worker": self._own})
        self.on_joined()

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self._link = self._news = None
        self.is_blind = False
        self.active = []
        self.keys.clear()
        self.how.clear()
        for key in list(self._doubted):
            self._trust(key)
        self._lasted.clear()
        rivals = list(self.rivals.values())
        self.rivals.clear()
        for rival in rivals:
            self._owner.on_rival_gone(rival)
        self._is_lost.set()

    def on_usable(self, link: Link) -> None:
        for key in list(self.keys):
            self._owner.on_key(key)

    # --- StreamHandler of the news

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        self.on_data(body, end)

    def on_data(self, data: bytes, end: bool) -> None:
        news = self._news
        if news is None:
            return
        news.consumed(len(data))
        try:
            for record in self._lines.feed(data):
                self._learn(record)
        except (ValueError, KeyError, TypeError) as error:
            log.error("a worker says what is not understood", sibling=self.number, cause=str(error))
            if self._link is not None:
                self._link.close("protocol-error")

    def on_reset(self, wire_code: int, refused: bool) -> None:
        if self._link is not None:
            self._link.close("protocol-error")

    def on_writable(self) -> None: ...

    def _learn(self, record: Mapping[str, Any]) -> None:
        if "key" in record:
            self._learn_key(*record["key"], how=dict(record["by"]))
        elif "hint" in record:
            tenant, location, connector = record["hint"]
            self._owner.on_hint((tenant, location, connector), record["within"])
        elif "share" in record:
            tenant, kind, name = record["share"]
            self._owner.on_share((tenant, kind, name), record["of"])
        elif "stored" in record:
            self._owner.on_stored(record["stored"])
        elif "blind" in record:
            self.is_blind = record["blind"]
        elif "active" in record:
            self.active = [(tenant, name) for tenant, name in record["active"]]
        else:
            self._learn_session(record)

    def _learn_key(self, tenant: str, location: str, target: str, *, how: dict[str, Sequence[Any]]) -> None:
        key = (tenant, location, target)
        if not how:
            self.keys.pop(key, None)
            self.how.pop(key, None)
            self._trust(key, is_news=True)
            return
        self.how[key] = {name: (int(rank), str(state), str(why)) for name, (rank, state, why) in how.items()}
        is_new = key not in self.keys
        self.keys[key] = sorted(how)
        self._trust(key, is_news=True)
        if is_new:
            self._owner.on_key(key)

    def _learn_session(self, record: Mapping[str, Any]) -> None:
        if "attached" in record:
            number, (tenant, location, connector) = record["attached"], record["connector"]
            if number in self.rivals:  # it exposes something else, and a contest that goes on knows it already
                return
            self.rivals[number] = rival = Rival(
                self, number, (tenant, location, connector), record["instance"], record["certificate"], record["since"]
            )
            self._owner.on_rival(rival)
        elif "detached" in record:
            gone = self.rivals.pop(record["detached"], None)
            if gone is not None:
                self._owner.on_rival_gone(gone)
        elif "heard" in record:
            heard = self.rivals.get(record["heard"])
            if heard is not None:
                heard.last_received = record["at"]


def _nobody() -> None:
    """Nobody wants to know."""
