"""What a worker does for its siblings: it takes their pushes for its own tunnels, and tells which ones it has.

Each sibling has a link to here, on which it is the relay and this worker the connector. The first stream on it carries
the news (`lines`), both ways:

    from here    {"key": [tenant, location, target], "by": {connector: [rank, state, why]}}
                 "by" is empty: none any more. Else in which order they come, and how the target is behind each
                 {"attached": number, "connector": [tenant, location, connector], "instance": …, "certificate": …,
                  "since": the loop's time}
                 {"detached": number}
                 {"hint": [tenant, location, connector], "within": seconds}    ask it for a renewal, if it is there
                 {"heard": number, "at": the loop's time}                      after a ping: when its last byte came
                 {"share": [tenant, kind, name], "of": share}                  of a quota: see `shares`
                 {"stored": number}                                            events were written, up to this one
                 {"active": [[tenant, sender], …]}                             two at most of those who push here
                 {"blind": bool}                                               it serves nobody: see `blindness`
    from there   {"worker": number}                                            the first line: who this is
                 {"pressed": [[tenant, kind, name, pressure], …]}              its quotas
                 {"shared": [tenant, kind, name], "of": share}                 this is what it uses now
                 {"ping": number}                                              does this session live?
                 {"replace": number}                                           it does not, and another took its place
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.probing.book import HealthBook
from cloud_relay.session import exposed_as
from cloud_relay.workers.crossing import cross
from cloud_relay.workers.lines import HEAD, Lines, line
from cloud_relay.workers.quiet import QuietHandler
from shared.errors import FAULTS
from shared.logs import get_logger
from shared.protocol import Hello, MemoryBudget, Role, Settings
from shared.tunnel.link import Link

if TYPE_CHECKING:
    from cloud_relay.registry import Registry
    from cloud_relay.session import Key, Session
    from shared.protocol import StreamEnd
    from shared.protocol.stream import Stream
    from shared.tunnel.gaps import GapWatch
    from shared.tunnel.local import LocalTransport

ANSWER_AFTER: Final = (0.2, 0.7)
"""Seconds after which a sibling that has asked is told what was heard of a session: it waits for one second."""

log = get_logger("relay.workers")


class Host:
    """All links from siblings. `crossed` counts pushes that came from them and found a tunnel here."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        registry: Registry,
        budget: MemoryBudget,
        gaps: GapWatch,
        settings: Settings | None = None,
        book: HealthBook | None = None,
    ) -> None:
        """`book` knows how targets are, and is told what becomes of pushes that cross."""
        self._book = book or HealthBook(registry, loop.time)
        self.crossed = 0
        self.on_said: Callable[[int, Mapping[str, Any]], None] = _ignore
        """Told of what a worker says of its quotas."""
        self.on_joined: Callable[[int], None] = _nobody
        self.on_left: Callable[[int], None] = _nobody
        """Told of a worker that listens, and of one that is gone."""
        self.loop = loop
        self._registry = registry
        self._budget = budget
        self._gaps = gaps
        self._settings = settings or Settings()
        self._links: set[Link] = set()
        self._is_closed = self._is_blind = False
        self._active: list[tuple[str, str]] = []
        self._is_empty = asyncio.Event()
        self._listeners: set[_Listener] = set()
        self._told: dict[Key, dict[str, list[Any]]] = {}
        self._changed: dict[Key, None] = {}
        registry.on_change = self._on_change
        self._book.on_change = self._on_health

    def __repr__(self) -> str:
        return f"<Host of {len(self._links)} siblings, {self.crossed} pushes crossed>"

    def connected(self, transport: LocalTransport) -> None:
        """A sibling has connected."""
        if self._is_closed:
            transport.abort()
            return
        link = Link(
            Role.CONNECTOR, _Visitor(self), Hello(software="worker", instance="worker"), settings=self._settings,
            budget=self._budget, gaps=self._gaps, loop=self.loop,
        )  # fmt: skip
        transport.receiver = link
        self._links.add(link)
        link.start(transport)

    def close(self) -> None:
        """Let go of all siblings, in good order. None comes any more."""
        self._is_closed = True
        for link in list(self._links):
            link.close()
        self._look_whether_empty()

    def abort(self) -> None:
        """End at once what has not ended yet."""
        for link in list(self._links):
            link.abort()

    async def ended(self) -> None:
        """Once it was closed: when all links have ended."""
        await self._is_empty.wait()

    # --- what visitors call

    def arrived(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """A push, or the stream for news."""
        if head == HEAD:
            listener = _Listener(self, stream)
            stream.handler = listener
            stream.answer(b"news")
            self._listeners.add(listener)
            if self._is_blind:
                listener.tell({"blind": True})
            if self._active:
                listener.tell({"active": self._active})
            for session in self._registry.sessions():
                listener.tell(_attached(session))
            for key, how in self._told.items():
                listener.tell({"key": key, "by": how})
        elif cross(self._choose, stream, head, body, end, self._witness):
            self.crossed += 1

    def left(self, link: Link) -> None:
        """A sibling's link is over."""
        self._links.discard(link)
        self._look_whether_empty()

    def unlisten(self, listener: _Listener) -> None:
        """A stream of news is over."""
        self._listeners.discard(listener)
        if listener.worker is not None:
            self.on_left(listener.worker)

    def find(self, number: int) -> Session | None:
        """A session that may still be given pushes."""
        for session in self._registry.sessions():
            if session.number == number and not session.link.is_draining:
                return session
        return None

    def replace(self, session: Session) -> None:
        """A sibling has asked it for a sign of life in vain, and has another instance of this connector."""
        log.warning("session replaced: it did not answer", connector=str(session.identity), session=session.number)
        self._registry.detach(session)
        session.link.close("replaced")

    # --- within

    def _look_whether_empty(self) -> None:
        if self._is_closed and not self._links:
            self._is_empty.set()

    def _choose(self, key: Key, avoid: Sequence[str]) -> Session | None:
        registry = self._registry
        exclude = [one for one in registry.exposing(key) if one.identity.connector in avoid] if avoid else []
        return registry.choose(*key, exclude)

    def _on_change(self, session: Session, targets: Mapping[str, str]) -> None:
        is_here = session in self._registry
        identity = session.identity
        self.tell(_attached(session) if is_here else {"detached": session.number})
        if not self._changed and targets:
            self.loop.call_soon(self._tell_keys)
        for target, kind in targets.items():
            self._changed[identity.tenant, identity.location, exposed_as(target, kind)] = None

    def _on_health(self, key: Key) -> None:
        if not self._changed:
            self.loop.call_soon(self._tell_keys)
        self._changed[key] = None

    def _witness(self, key: Key, connector: str, code: str) -> None:
        """A push that crossed came to this; "": the target's answer."""
        if code:
            self._book.failed(key, connector, code, self.loop.time())
        elif self._book.doubts:
            self._book.delivered(key, connector, self.loop.time())

    def _how(self, key: Key) -> dict[str, list[Any]]:
        """Rank, state and why, by connector."""
        how: dict[str, list[Any]] = {}
        for session in self._registry.exposing(key):
            name = session.identity.connector
            record = self._book.find(key, name)
            state = [record.state.value, record.why] if record is not None else ["unknown", ""]
            rank = self._registry.rank(key, session)
            how[name] = [min(rank, how[name][0]) if name in how else rank, *state]
        return how

    def _tell_keys(self) -> None:
        changed, self._changed = self._changed, {}
        for key in changed:
            how = self._how(key)
            if how == self._told.get(key, {}):
                continue
            if how:
                self._told[key] = how
            else:
                del self._told[key]
            self.tell({"key": key, "by": how})

    def tell_blind(self, *, is_blind: bool) -> None:
        """Tell all siblings, those that come later, too, that this worker serves nobody; or that it does again."""
        self._is_blind = is_blind
        self.tell({"blind": is_blind})

    def tell_active(self, senders: list[tuple[str, str]]) -> None:
        """Tell all siblings, those that come later, too, of some who push here; none: nobody does."""
        self._active = senders
        self.tell({"active": senders})

    def tell(self, record: Mapping[str, Any]) -> None:
        """Tell all siblings."""
        for listener in list(self._listeners):
            listener.tell(record)

    def tell_one(self, worker: int, record: Mapping[str, Any]) -> None:
        """Tell one worker, if it is there."""
        for listener in list(self._listeners):
            if listener.worker == worker:
                listener.tell(record)


def _attached(session: Session) -> dict[str, Any]:
    identity = session.identity
    return {
        "attached": session.number, "connector": identity.key, "instance": session.instance,
        "certificate": identity.fingerprint, "since": session.attached_at,
    }  # fmt: skip


def _ignore(_worker: int, _record: Mapping[str, Any]) -> None:
    """No quotas are shared."""


def _nobody(_worker: int) -> None:
    """Nobody wants to know."""


class _Listener:
    """The handler of one stream of news, at the end that tells them."""

    def __init__(self, host: Host, stream: StreamEnd) -> None:
        self.worker: int | None = None
        self._host = host
        self._stream = stream
        self._lines = Lines()

    def tell(self, record: Mapping[str, Any]) -> None:
        """Queue one line. News are few, and a worker that does not read them is soon dead."""
        self._stream.send(line(record))

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """Never comes: only an opener gets an answer."""

    def on_data(self, data: bytes, end: bool) -> None:
        self._stream.consumed(len(data))
        try:
            for record in self._lines.feed(data):
                self._obey(record)
        except (ValueError, KeyError, TypeError) as error:
            log.error("a worker says what is not understood", cause=str(error))
            self._stream.reset(FAULTS["protocol-error"].wire)

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self._host.unlisten(self)

    def on_writable(self) -> None: ...

    def _obey(self, record: Mapping[str, Any]) -> None:
        if "worker" in record:
            self.worker = record["worker"]
            self._host.on_joined(record["worker"])
        elif "pressed" in record or "shared" in record:
            if self.worker is not None:
                self._host.on_said(self.worker, record)
        elif "ping" in record:
            session = self._host.find(record["ping"])
            if session is None:
                self.tell({"detached": record["ping"]})
            else:
                session.link.ping()
                for delay in ANSWER_AFTER:
                    self._host.loop.call_later(delay, self._tell_heard, session)
        elif "replace" in record:
            session = self._host.find(record["replace"])
            if session is not None:
                self._host.replace(session)

    def _tell_heard(self, session: Session) -> None:
        self.tell({"heard": session.number, "at": session.link.last_received})


class _Visitor(QuietHandler):
    """The LinkHandler of one sibling's link, at the end that hosts."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        self._host.arrived(stream, head, body, end)

    def on_closed(self, link: Link, code: str, detail: str) -> None:
        self._host.left(link)
