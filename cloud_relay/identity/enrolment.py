"""Joining at the tunnel's port, the subprotocol `qanat-enroll.v1`: one JSON object in, one out, then the end.

    {"want": "authorities"}                                    ─▶  {"roots", "cross"}
    {"want": "certificate", "token", "secret", "request"}      ─▶  {"certificate", "roots", "cross", "wall"}
                                                                   or {"error": code, "detail": text}

This is the one thing that anybody may talk to, so everything is bounded: tries per source, those in progress, bytes,
time, lines of the log. What was begun with the registrar is not broken off when the client goes: the token would be
used, and asking again with the same key gives the same certificate.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, Protocol

from cloud_relay.admit import Refusal
from shared.crash_points import reach
from shared.errors import FAULTS, QanatError
from shared.logs import get_logger, log_limited
from shared.tasks import spawn

if TYPE_CHECKING:
    from cloud_relay.entrance import Welcome
    from shared.tunnel.transport import MessageTransport

TIME_LIMIT: Final = 10.0
"""Seconds from the open WebSocket to the answer."""

MAX_TOKEN: Final = 128
"""Characters of a token's id, and of its secret."""

MAX_REQUEST: Final = 4096
"""Characters of a certificate request in PEM form."""

SOURCES: Final = 4096
"""Sources whose tries are remembered. A flood from more of them is bounded by what may be in progress."""

log = get_logger("relay.enrolment")


class EnrolmentLimits(NamedTuple):
    """How much joining is borne: at once, at once from one source, and from one source over time.

    A whole data center may stand behind one source, and a roll-out enrols hundreds of connectors in a minute, each with
    two connections: `burst` tries may come at once, and `rate` a second are given back.
    """

    in_progress: int = 256
    in_progress_per_source: int = 128
    burst: int = 512
    rate: float = 8.0


class Certified(Protocol):
    """What the registrar gives out."""

    @property
    def certificate(self) -> bytes:
        """The chain as PEM, the leaf first."""

    @property
    def roots(self) -> list[str]: ...

    @property
    def cross(self) -> list[str]: ...


class Redeems(Protocol):
    """What joining needs of the registrar."""

    async def redeem(self, token: str, secret: str, request: bytes, peer: str) -> Certified:
        """The certificate that a token is good for, or a QanatError that says why not."""

    def join_texts(self) -> tuple[list[str], list[str]]:
        """(roots, cross certificates) as PEM: all that a token which is good may pin."""


class Enrolment:
    """Serves all who want to join, for one listener. `counts` since the start: by outcome, "ok", "authorities", "gone",
    or a code of the catalogue; `redeems` is None where the CA is the operator's own."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        redeems: Redeems | None,
        now: Callable[[], float],
        limits: EnrolmentLimits | None = None,
    ) -> None:
        self.counts: dict[str, int] = {}
        self.redeems = redeems
        self.now = now
        self._loop = loop
        self._limits = limits or EnrolmentLimits()
        self._tries = Tries(self._limits.burst, self._limits.rate)
        self._held: dict[str, int] = {}
        self._open: set[_Desk] = set()

    def __repr__(self) -> str:
        return f"<Enrolment {sum(self._held.values())} in progress, {self.counts}>"

    @property
    def in_progress(self) -> int:
        """Connections that are open, or whose answer is still being made."""
        return sum(self._held.values())

    def judge(self, source: str) -> Welcome | Refusal:
        """Whether another one may try now."""
        if self.redeems is None:
            return self._refuse("signs-nothing")
        limits = self._limits
        held = self._held.get(source, 0)
        if sum(self._held.values()) >= limits.in_progress or held >= limits.in_progress_per_source:
            return self._refuse("overloaded", "Too many are joining at once.")
        if not self._tries.take(source, self._loop.time()):
            return self._refuse("overloaded", "Too many tries from one address.")
        redeems = self.redeems
        return lambda transport: self._open_desk(redeems, transport, source)

    def close(self) -> None:
        """End all that is open."""
        for desk in list(self._open):
            desk.abort()

    def count(self, outcome: str) -> None:
        """One more came to this."""
        self.counts[outcome] = self.counts.get(outcome, 0) + 1

    def _refuse(self, code: str, detail: str = "") -> Refusal:
        self.count(code)
        return Refusal(FAULTS[code], detail)

    def _open_desk(self, redeems: Redeems, transport: MessageTransport, source: str) -> _Desk:
        self._held[source] = self._held.get(source, 0) + 1
        desk = _Desk(self._loop, self, redeems, transport, source)
        self._open.add(desk)
        return desk

    def left(self, desk: _Desk) -> None:
        """Its connection is over."""
        self._open.discard(desk)

    def released(self, source: str) -> None:
        """Nothing of it is left: neither the connection nor work of the registrar's."""
        if self._held[source] > 1:
            self._held[source] -= 1
        else:
            del self._held[source]


class Tries:
    """How often each source may still try: a bucket of `burst`, filled by `rate` a second, for the latest SOURCES."""

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = float(burst)
        self._rate = rate
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def take(self, source: str, now: float) -> bool:
        """Whether there was one left; `now` in monotonic seconds."""
        left, since = self._buckets.pop(source, (self._burst, now))
        left = min(self._burst, left + (now - since) * self._rate)
        has_one = left >= 1.0
        self._buckets[source] = (left - 1.0 if has_one else left, now)
        while len(self._buckets) > SOURCES:
            self._buckets.popitem(last=False)
        return has_one


class _Desk:
    """One who joins: the MessageReceiver of one connection."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        enrolment: Enrolment,
        redeems: Redeems,
        transport: MessageTransport,
        source: str,
    ) -> None:
        self._enrolment = enrolment
        self._redeems = redeems
        self._transport: MessageTransport | None = transport
        self._source = source
        self._peer = transport.describe()
        self._was_asked = False
        self._is_working = False
        self._is_done = False
        self._timer = loop.call_later(TIME_LIMIT, self._too_late)

    def abort(self) -> None:
        """End it at once."""
        if self._transport is not None:
            self._transport.abort()

    # MessageReceiver

    def bytes_received(self) -> None:
        """Nothing hangs on signs of life: the whole is bounded in time."""

    def message_received(self, message: bytes) -> None:
        if self._was_asked:
            self._done("protocol-error")
            self.abort()
            return
        self._was_asked = True
        try:
            wanted = parse_want(message)
        except ValueError as error:
            self._fail("protocol-error", str(error))
            return
        if wanted is None:
            roots, cross = self._redeems.join_texts()
            self._answer({"roots": roots, "cross": cross}, "authorities")
        else:
            reach("relay.enrolment.received")
            self._is_working = True
            spawn(self._redeem(*wanted), "enrolment")

    def transport_writable(self) -> None:
        """There is one answer, which fits."""

    def transport_closing(self, code: int | None, reason: str) -> None:
        """`transport_closed` follows."""

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        self._timer.cancel()
        self._transport = None
        self._enrolment.left(self)
        if not self._is_working:
            self._done("gone")
            self._enrolment.released(self._source)

    # within

    async def _redeem(self, token: str, secret: str, request: bytes) -> None:
        try:
            issued = await self._redeems.redeem(token, secret, request, self._peer)
        except QanatError as fault:
            self._fail(fault.fault.code, fault.detail, token)
        except Exception as error:  # the disk is full, or a bug of ours: in either case the client may ask again
            log.error("a certificate could not be issued", peer=self._peer, exc_info=error)
            self._fail("cannot-issue", "")
        else:
            log.info("a connector joined", peer=self._peer, token_id=token, delivered=self._transport is not None)
            self._answer(
                {
                    "certificate": issued.certificate.decode("ascii"),
                    "roots": issued.roots,
                    "cross": issued.cross,
                    "wall": self._enrolment.now(),
                },
                "ok",
            )
            reach("relay.enrolment.answered")
        finally:
            self._is_working = False
            if self._transport is None:
                self._enrolment.released(self._source)

    def _too_late(self) -> None:
        if self._is_working:  # it goes on; the client asks again, with the same key
            self._say({"error": "cannot-issue", "detail": "It takes too long. Try again with the same key."})
        else:
            self._done("silent")
            self.abort()

    def _fail(self, code: str, detail: str, token: str = "") -> None:
        log_limited(
            log, "warning", f"enrolment {code}", "enrolment refused",
            code=code, peer=self._peer, token_id=token, detail=detail,
        )  # fmt: skip
        self._answer({"error": code, "detail": detail or FAULTS[code].title}, code)

    def _answer(self, answer: dict[str, object], outcome: str) -> None:
        self._done(outcome)
        self._say(answer)

    def _say(self, answer: dict[str, object]) -> None:
        """Send it, if there is still anybody to send it to."""
        transport = self._transport
        if transport is not None:
            transport.send(json.dumps(answer, separators=(",", ":")).encode("ascii"))
            transport.close()

    def _done(self, outcome: str) -> None:
        """Count what it came to, the first time."""
        if not self._is_done:
            self._is_done = True
            self._enrolment.count(outcome)


def parse_want(message: bytes) -> tuple[str, str, bytes] | None:
    """(token, secret, request) for a certificate, None for the authorities. ValueError says what is wrong with it."""
    fields: object = None
    with contextlib.suppress(ValueError, RecursionError):
        fields = json.loads(message)
    if not isinstance(fields, dict):
        raise ValueError("it is not a JSON object")
    want = fields.get("want")
    if want == "authorities":
        return None
    if want != "certificate":
        raise ValueError("'want' is neither 'authorities' nor 'certificate'")
    token, secret = (_text(fields, key, MAX_TOKEN) for key in ("token", "secret"))
    return token, secret, _text(fields, "request", MAX_REQUEST).encode("ascii")


def _text(fields: dict[str, object], key: str, limit: int) -> str:
    value = fields.get(key)
    if not isinstance(value, str) or not 0 < len(value) <= limit or not value.isascii():
        raise ValueError(f"'{key}' is not a text of at most {limit} ASCII characters")
    return value
