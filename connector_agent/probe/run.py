"""One probe of one target: the addresses, checks and certificates of its pushes, over a connection of its own.

A connection of its own, so that a probe finds out whether a new one can be had, takes no push's place in the pool, and
cannot disturb one. It needs no relay: `connector-agent check` may call it too.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Final, NamedTuple

from connector_agent.probe.spec import ProbeKind, ProbeSpec
from connector_agent.tcp.target import TcpTarget
from connector_agent.upstream.answer import AnswerReader
from connector_agent.upstream.connect import Endpoint, LookUp, connect
from shared.errors import LocalFault
from shared.http.requests import serialize_request_start

if TYPE_CHECKING:
    from connector_agent.targets import Target
    from shared.http.responses import ResponseHead

TLS_VERDICT: Final = 0.15
"""Seconds for which a target may still end a handshake that we took for done: in TLS 1.3 a server refuses a client's
certificate, or its absence, only afterwards. One that is further away than this gets the benefit of the doubt."""

AGENT: Final = b"qanat-probe"

Headers = list[tuple[bytes, bytes]]


class ProbeResult(NamedTuple):
    """`code` is empty where all is well, else an entry of `shared.errors`; `detail` names addresses, and is for this
    host only. `seconds` is how long it took, `status` what an http target answered (0: nothing), `at` Unix time."""

    code: str
    detail: str = ""
    seconds: float = 0.0
    status: int = 0
    at: float = 0.0

    @property
    def is_good(self) -> bool:
        """Whether the target is as it should be."""
        return not self.code


async def probe_target(
    target: Target | TcpTarget, spec: ProbeSpec | None = None, look_up: LookUp | None = None
) -> ProbeResult:
    """Probe an exposed target now, as its config says, or as `spec` does. See `run_probe`."""
    spec = spec or target.probe
    if isinstance(target, TcpTarget):
        return await run_probe(target.endpoint, spec, [], look_up)
    return await run_probe(target.pool.endpoint, spec, target.headers.apply([]), look_up)


async def run_probe(
    endpoint: Endpoint, spec: ProbeSpec, headers: Headers, look_up: LookUp | None = None
) -> ProbeResult:
    """Probe now, within `spec.timeout`. `headers`, Host first, are for kind http; an https target gets TLS with either
    of kind tls and http, and none with kind tcp. `look_up` is as for `connect`.

    Never raises for what a target does, ValueError for kind none. Cancelled, it leaves nothing open.
    """
    if spec.kind is ProbeKind.NONE:
        raise ValueError("there is nothing to do for a probe of kind none")
    loop = asyncio.get_running_loop()
    began, at = loop.time(), time.time()
    status = 0
    try:
        async with asyncio.timeout(spec.timeout):
            status = await _probe(_reach(endpoint, spec), spec, headers, look_up)
    except TimeoutError:
        code, detail = "target-too-slow", f"{endpoint}: no result within {spec.timeout:g} s"
    except LocalFault as fault:
        code, detail = fault.fault.code, fault.detail
    else:
        code, detail = _judge(endpoint, spec, status)
    return ProbeResult(code, detail, loop.time() - began, status, at)


def _reach(endpoint: Endpoint, spec: ProbeSpec) -> Endpoint:
    """The endpoint as far as the probe goes; what is left of its time is for the answer."""
    context = None if spec.kind is ProbeKind.TCP else endpoint.context
    return endpoint._replace(context=context, timeout=min(endpoint.timeout, spec.timeout))


def _judge(endpoint: Endpoint, spec: ProbeSpec, status: int) -> tuple[str, str]:
    if spec.kind is not ProbeKind.HTTP or spec.expects(status):
        return "", ""
    return "target-unexpected-status", f"{endpoint}: {status} to {spec.describe()}"


async def _probe(endpoint: Endpoint, spec: ProbeSpec, headers: Headers, look_up: LookUp | None) -> int:
    loop = asyncio.get_running_loop()
    connection = await connect(endpoint, lambda: _Connection(loop), loop, look_up)
    try:
        if spec.kind is ProbeKind.HTTP:
            return await connection.ask(spec.method, _request(spec, headers))
        if spec.kind is ProbeKind.TLS and await connection.is_ended_within(TLS_VERDICT):
            raise LocalFault(
                "target-tls-failed",
                f"{endpoint}: the target ended the connection right after the handshake: does it ask for a client "
                "certificate, or another one? See tls.certificate",
            )
        return 0
    finally:
        connection.close()


def _request(spec: ProbeSpec, headers: Headers) -> bytes:
    known = {name.lower() for name, _value in headers}
    ours = [(b"User-Agent", AGENT), (b"Accept", b"*/*")]
    fields = headers + [pair for pair in ours if pair[0].lower() not in known]
    return serialize_request_start(spec.method, spec.path, fields) + b"Connection: close\r\n\r\n"


class _Connection(asyncio.Protocol):
    """The probe's end of a connection. Whatever comes that was not asked for is let be."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._transport: asyncio.Transport | None = None
        self._reader = AnswerReader()
        self._status: asyncio.Future[int] = loop.create_future()
        self._ended: asyncio.Future[None] = loop.create_future()

    async def ask(self, method: bytes, request: bytes) -> int:
        """Send a request, and give its answer's status. LocalFault when there is none."""
        self._reader.begin(method, self)
        if self._transport is not None:
            self._transport.write(request)
        return await self._status

    async def is_ended_within(self, seconds: float) -> bool:
        """Whether the other side ends the connection in that time."""
        await asyncio.wait((self._ended,), timeout=seconds)
        return self._ended.done()

    def close(self) -> None:
        """End it in good order."""
        self._status.cancel()
        if self._transport is not None:
            self._transport.close()

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no asyncio.Transport, but have all of its methods.
        self._transport = transport  # type: ignore[assignment]

    def data_received(self, data: bytes) -> None:
        if self._reader.is_done:
            return
        try:
            self._reader.feed(data)
        except LocalFault as fault:
            self._fail(fault)

    def eof_received(self) -> None:
        self._end("connection-closed", "the target closed the connection")

    def connection_lost(self, exc: Exception | None) -> None:
        self._end("target-reset", f"the connection was lost: {exc or 'no goodbye'}")

    # AnswerSink

    def on_interim(self, head: ResponseHead) -> None:
        """The final one is what counts."""

    def on_head(self, head: ResponseHead, body: bytes, end: bool) -> None:
        if not self._status.done():
            self._status.set_result(head.status)
        self._reader.stop()

    def on_body(self, data: bytes, end: bool) -> None:
        """Not read."""

    def on_upgrade(self, head: ResponseHead, data: bytes) -> None:
        """Never asked for."""

    def _end(self, code: str, why: str) -> None:
        if not self._ended.done():
            self._ended.set_result(None)
        self._fail(LocalFault(code, why))

    def _fail(self, fault: LocalFault) -> None:
        if not self._status.done():
            self._status.set_exception(fault)
            self._status.exception()  # a probe that asks nothing does not fetch it
