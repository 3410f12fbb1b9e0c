"""Answers relays that ask how a target is, from a result that is young enough, or else by a probe.

The relay is not trusted. It can name a target, and no more; however often it asks, and from however many relays, a
target is probed once at a time and no more often than its config says.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal

from connector_agent.probe.resolver import Resolver
from connector_agent.probe.run import ProbeResult, probe_target
from connector_agent.probe.spec import ProbeKind
from shared.errors import FAULTS, LocalFault
from shared.logs import get_logger, log_limited
from shared.probe import NONE, Verdict, decode_question, encode_answer
from shared.status import timestamp
from shared.tasks import spawn

if TYPE_CHECKING:
    from connector_agent.targets import Target
    from connector_agent.tcp.target import TcpTarget
    from shared.protocol import StreamEnd

    AnyTarget = Target | TcpTarget

BAD_INTERVAL: Final = 1.0
"""Seconds after which a target may be probed again that was not well, or that a push could not reach since."""

MAX_RUNNING: Final = 64
"""Probes at once. Relays spread theirs; who asks for more at once is told to come later."""

log = get_logger("connector.probes")


class ProbeService:
    """The last result of each target, and those that are being found out. `find` gives the target with a name."""

    def __init__(
        self,
        find: Callable[[str], AnyTarget | None],
        loop: asyncio.AbstractEventLoop,
        probe: Callable[[AnyTarget], Awaitable[ProbeResult]] | None = None,
    ) -> None:
        self._find = find
        self._loop = loop
        self._probe = probe or partial(probe_target, look_up=Resolver())
        self._results: dict[str, _Known] = {}
        self._running: dict[str, _Running] = {}
        self._is_closed = False

    def on_stream(self, stream: StreamEnd, head: bytes, body: bytes, end: bool) -> None:
        """A question from a relay: answer it now, or when the probe is done."""
        stream.consumed(len(body))
        try:
            if body or not end:
                raise LocalFault("bad-push", "a probe has no body")
            target = self._find(decode_question(head))
        except LocalFault as error:
            _refuse(stream, error.fault.code)
            return
        if target is None:
            _refuse(stream, "unknown-target")
        elif self._is_closed:
            _refuse(stream, "connector-draining")
        elif target.probe.kind is ProbeKind.NONE:
            stream.answer(encode_answer(Verdict(NONE)), end=True)
        else:
            self._answer(stream, target)

    def doubt(self, name: str) -> None:
        """A push could not reach this target: what was found out before counts no more."""
        known = self._results.get(name)
        if known is not None:
            known.is_doubted = True

    def result(self, target: AnyTarget) -> ProbeResult | None:
        """What the last probe of this target, in its present config, found."""
        known = self._results.get(target.name)
        return known.result if known is not None and known.target is target else None

    def standing(self, target: AnyTarget) -> ProbeResult | None:
        """The same, unless something spoke against it since."""
        known = self._results.get(target.name)
        return known.result if known is not None and known.target is target and not known.is_doubted else None

    def measured(self, what: Literal["good", "seconds", "at"]) -> dict[tuple[str, ...], float]:
        """One figure of each result that there is, by the target's name."""
        results = {name: known.result for name, known in self._results.items()}
        if what == "good":
            return {(name,): float(result.is_good) for name, result in results.items()}
        return {(name,): getattr(result, what) for name, result in results.items()}

    def describe(self, target: AnyTarget) -> dict[str, Any]:
        """For `status`, JSON-able; it names internal addresses."""
        result, spec = self.result(target), target.probe
        row: dict[str, Any] = {"does": spec.describe(), "state": "none" if spec.kind is ProbeKind.NONE else "unknown"}
        if result is not None:
            row |= {
                "state": "ok" if result.is_good else "failing",
                "at": timestamp(result.at),
                "age_s": round(max(time.time() - result.at, 0.0), 1),
                "took_ms": round(result.seconds * 1e3, 1),
                "status": result.status or None,
                "code": result.code or None,
                "detail": result.detail or None,
            }
        return row

    def keep_only(self, targets: Mapping[str, AnyTarget]) -> None:
        """A reload: forget what was found out of targets that are gone, or are others now."""
        for name, known in list(self._results.items()):
            if targets.get(name) is not known.target:
                del self._results[name]
        for name, running in list(self._running.items()):
            if targets.get(name) is not running.target:
                self._give_up(name, "unknown-target")

    def close(self) -> None:
        """Answer no more; who waits is told so."""
        self._is_closed = True
        for name in list(self._running):
            self._give_up(name, "connector-draining")

    # --- within

    def _answer(self, stream: StreamEnd, target: AnyTarget) -> None:
        running = self._running.get(target.name)
        if running is not None:
            running.add(stream)
            return
        known = self._results.get(target.name)
        now = self._loop.time()
        if known is not None and known.target is target and now < known.holds_until:
            stream.answer(known.answer(now), end=True)
        elif len(self._running) >= MAX_RUNNING:
            _refuse(stream, "connector-overloaded")
        else:
            running = self._running[target.name] = _Running(target)
            running.add(stream)
            running.task = spawn(self._find_out(running), f"probe of {target.name}")

    async def _find_out(self, running: _Running) -> None:
        target = running.target
        try:
            result = await self._probe(target)
        except BaseException:
            if self._running.get(target.name) is running:  # cancelled from elsewhere, or a bug: it is reported
                self._give_up(target.name, "connector-error")
            raise
        if self._running.get(target.name) is not running:
            return
        del self._running[target.name]
        before = self._results.get(target.name)
        known = self._results[target.name] = _Known(target, result, self._loop.time())
        _tell(target, before.result if before is not None else None, result)
        head = known.answer(known.since)
        for stream in running.take():
            stream.answer(head, end=True)

    def _give_up(self, name: str, code: str) -> None:
        running = self._running.pop(name)
        if running.task is not None:
            running.task.cancel()
        for stream in running.take():
            _refuse(stream, code)


class _Known:
    """A result, since when it is known by the loop's time, and whether something spoke against it."""

    def __init__(self, target: AnyTarget, result: ProbeResult, since: float) -> None:
        self.target = target
        self.result = result
        self.since = since
        self.is_doubted = False

    @property
    def holds_until(self) -> float:
        """The loop's time up to which it is told again."""
        is_firm = self.result.is_good and not self.is_doubted
        return self.since + (self.target.probe.interval if is_firm else BAD_INTERVAL)

    def answer(self, now: float) -> bytes:
        """As it crosses the tunnel."""
        result = self.result
        return encode_answer(Verdict(result.code, now - self.since, result.seconds, result.status))


class _Running:
    """A probe under way, and the streams that wait for it."""

    def __init__(self, target: AnyTarget) -> None:
        self.target = target
        self.task: asyncio.Task[None] | None = None
        self._waiting: dict[_Asker, StreamEnd] = {}

    def add(self, stream: StreamEnd) -> None:
        """One more that waits. If it is reset meanwhile, it does not."""
        asker = _Asker(self._waiting)
        self._waiting[asker] = stream
        stream.handler = asker

    def take(self) -> list[StreamEnd]:
        """Those that still wait."""
        streams = list(self._waiting.values())
        self._waiting.clear()
        return streams


class _Asker:
    """The StreamHandler of a question."""

    def __init__(self, waiting: dict[_Asker, StreamEnd]) -> None:
        self._waiting = waiting

    def on_answer(self, head: bytes, body: bytes, end: bool, interim: bool) -> None:
        """Never comes: only a relay opens streams."""

    def on_data(self, data: bytes, end: bool) -> None:
        """Never comes: the question ended with its head."""

    def on_reset(self, wire_code: int, refused: bool) -> None:
        self._waiting.pop(self, None)

    def on_writable(self) -> None:
        """Nothing was ever queued."""


def _refuse(stream: StreamEnd, code: str) -> None:
    stream.reset(FAULTS[code].wire, refused=True)


def _tell(target: AnyTarget, before: ProbeResult | None, result: ProbeResult) -> None:
    """What changed, in this side's log: the only one that may hold addresses."""
    if result.is_good:
        if before is not None and not before.is_good:
            log_limited(log, "info", f"well {target.name}", "the target is well again", target=target.name)
    elif before is None or before.code != result.code:
        log_limited(
            log, "warning", f"ill {target.name}", "the target's probe failed",
            target=target.name, code=result.code, detail=result.detail,
        )  # fmt: skip
