"""Asks each connector how each of its targets is: when it is due, in whatever tunnel takes it, at a bounded rate."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
from collections.abc import Callable, Collection, Iterator
from typing import TYPE_CHECKING, Final, NamedTuple

from cloud_relay.ingress.retry import fault_of
from shared.errors import FAULTS, LocalFault
from shared.probe import NONE, Verdict, decode_answer, encode_question
from shared.timers import LazyTimer

if TYPE_CHECKING:
    from cloud_relay.probing.book import HealthBook
    from cloud_relay.probing.record import TargetRecord
    from cloud_relay.session import Key, Session
    from shared.protocol import StreamEnd

WAIT: Final = 13.0
"""Seconds after which a connector owes no answer any more: its own probes have 10 at most."""

SPREAD: Final = 0.5
"""Targets that are new are asked within so many seconds. An interval has this share of jitter, half of it each way."""

HASTE: Final = 1.0
"""Seconds between two looks at a target at least, whatever happens to it."""

STEP: Final = 0.02
"""Seconds between two turns at least, so that what is due then goes together."""

SWEEP: Final = 1.0

_GIVEN_UP: Final = FAULTS["deadline-exceeded"]


class ProbeSettings(NamedTuple):
    """Seconds between two probes of a target that is well, and of one that is not; probes a second of all together."""

    interval: float = 10.0
    failing_interval: float = 2.0
    rate: float = 200.0


class Prober:
    """`counts`: probes that ended, by "good", "bad", "none", or "unanswered" (nothing was found out).

    Only targets in `wanted` are asked for: `use` says which, and how often.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        book: HealthBook,
        settings: ProbeSettings | None = None,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._loop = loop
        self._book = book
        self._settings = settings or ProbeSettings()
        self._draw = draw
        self._wanted: Collection[Key] = ()
        self._heap: list[tuple[float, int, TargetRecord]] = []
        self._numbers = itertools.count()
        self._timer = LazyTimer(loop, self._on_timer)
        self._sweep: asyncio.TimerHandle | None = None
        self._tokens = 0.0
        self._filled_at = 0.0
        self._asking: dict[_Question, None] = {}
        self.counts = dict.fromkeys(("good", "bad", "none", "unanswered"), 0)
        book.on_exposed = self._on_exposed
        book.on_trouble = self._on_trouble

    def use(self, wanted: Collection[Key], settings: ProbeSettings) -> None:
        """Ask for these targets from now on."""
        before, self._wanted, self._settings = self._wanted, wanted, settings
        for record in self.records():
            if record.key not in before:
                self._on_exposed(record)

    def start(self) -> None:
        """Begin to look after time."""
        self._sweep = self._loop.call_later(SWEEP, self._on_sweep)

    def close(self) -> None:
        """Ask no more, and wait for no answer."""
        self._wanted = ()
        self._timer.release()
        if self._sweep is not None:
            self._sweep.cancel()
        for question in list(self._asking):
            question.cancel()
        self._asking.clear()
        self._heap.clear()

    def records(self) -> Iterator[TargetRecord]:
        """Those that are asked for: what else connectors expose, no route leads to."""
        return (record for record in self._book.records() if record.key in self._wanted)

    def __repr__(self) -> str:
        return f"<Prober {len(self._asking)} asked, {len(self._heap)} to come>"

    # --- when

    def _on_exposed(self, record: TargetRecord) -> None:
        """Soon, where nothing is known or what is known is bad; else in its turn."""
        if record.key in self._wanted and not record.is_asked:
            now = self._loop.time()
            if not record.is_calm or record.due <= now:
                self._schedule(record, max(now + SPREAD * self._draw(), record.asked_at + HASTE))

    def _on_trouble(self, record: TargetRecord) -> None:
        """A push failed: look now, rather than in its turn."""
        now = self._loop.time()
        at = max(now + STEP, record.asked_at + HASTE)
        if record.key in self._wanted and not record.is_asked and record.due > at:
            self._schedule(record, at)

    def _schedule(self, record: TargetRecord, due: float) -> None:
        record.due = due
        heapq.heappush(self._heap, (due, next(self._numbers), record))
        if not self._timer.is_set or due < self._timer.deadline:
            self._timer.set(max(due, self._loop.time() + STEP))

    def _again(self, record: TargetRecord, seconds: float) -> None:
        jitter = 1.0 + SPREAD * (self._draw() - 0.5)
        self._schedule(record, self._loop.time() + seconds * jitter)

    def _on_timer(self) -> None:
        now = self._loop.time()
        rate = self._settings.rate
        self._tokens = min(self._tokens + (now - self._filled_at) * rate, max(1.0, rate * STEP * 2))
        self._filled_at = now
        heap = self._heap
        while heap and heap[0][0] <= now and self._tokens >= 1.0:
            due, _, record = heapq.heappop(heap)
            if record.due == due and record.sessions and not record.is_asked:
                self._turn(record, now)
        if heap:
            pause = (1.0 - self._tokens) / rate if self._tokens < 1.0 else 0.0
            self._timer.set(max(heap[0][0], now + max(pause, STEP)))

    def _on_sweep(self) -> None:
        self._sweep = self._loop.call_later(SWEEP, self._on_sweep)
        now = self._loop.time()
        for question in [one for one in self._asking if now - one.record.asked_at >= WAIT]:
            question.cancel()
            self._answered(question, Verdict(_GIVEN_UP.code, took=WAIT))
        self._book.sweep(now)

    # --- asking

    def _turn(self, record: TargetRecord, now: float) -> None:
        if record.key not in self._wanted:
            return  # `use` begins anew if that changes
        able = [session for session in record.sessions if session.answers_probes]
        usable = [session for session in able if session.link.can_open]
        if usable:
            self._tokens -= 1.0
            self._ask(record, usable[int(self._draw() * len(usable))], now)
        elif able:
            self._again(record, self._settings.failing_interval)

    def _ask(self, record: TargetRecord, session: Session, now: float) -> None:
        question, head = _Question(self, record), encode_question(record.target)
        record.asked_at = now
        record.is_asked = True
        self._asking[question] = None
        try:
            question.stream = session.link.open_stream(question, head, end=True, deadline=now + WAIT)
        except LocalFault as error:
            self._unanswered(question, error.fault.code)

    def _answered(self, question: _Question, verdict: Verdict) -> None:
        record, now = question.record, self._loop.time()
        if not self._over(question):
            return
        self.counts["none" if verdict.code == NONE else "bad" if verdict.code else "good"] += 1
        record.took_in_all = now - record.asked_at
        self._book.probed(record, verdict, now)
        settings = self._settings
        self._again(record, settings.interval if record.is_calm else settings.failing_interval)

    def _unanswered(self, question: _Question, code: str) -> None:
        """The tunnel or the connector could not: that says nothing about the target."""
        if self._over(question):
            self.counts["unanswered"] += 1
            question.record.unanswered_by = code
            self._again(question.record, self._settings.failing_interval)

    def _over(self, question: _Question) -> bool:
        question.stream = None
        question.record.is_asked = False
        return self._asking.pop(question, question) is None


class _Question:
    """The StreamHandler of one probe."""

    def __init__(self, prober: Prober, record: TargetRecord) -> None:
        self._prober = prober
        self.record = record
        self.stream: StreamEnd | None = None

    def cancel(self) -> None:
        """Nobody waits for the answer any more."""
        stream, self.stream = self.stream, None
        if stream is not None:
            stream.reset(_GIVEN_UP.wire)

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        stream = self.stream
        if interim or stream is None:
            return
        if body:
            stream.consumed(len(body))
        try:
            verdict = decode_answer(head)
        except LocalFault as error:
            verdict = Verdict(error.fault.code)
        if not end:
            self.cancel()
        self._prober._answered(self, verdict)

    def on_data(self, data: bytes, end: bool) -> None:
        """Not asked for."""
        if self.stream is not None:
            self.stream.consumed(len(data))

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self._prober._unanswered(self, fault_of(wire_code, refused).code)

    def on_writable(self) -> None:
        """A question is one frame."""
