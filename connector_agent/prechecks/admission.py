"""Whether a relay takes this connector, asked without becoming a session.

The handshake of `qanat.v1` is a real one, up to the relay's HELLO. Ours is never sent, so the relay attaches nothing:
a connector that runs with the same certificate keeps its tunnels and is not asked for a sign of life.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Final, NamedTuple, Self

from connector_agent.handshake import DialError
from connector_agent.identity.judge import is_plausible
from connector_agent.proxy import ProxyError
from shared.pki.tls import unverified_client_context
from shared.protocol import frames
from shared.protocol.hello import BadHello, Hello
from shared.tunnel.tls import ReadBuffers
from shared.tunnel.websocket_client import (
    ClientTransport,
    Endpoint,
    HandshakeError,
    HandshakeRefused,
    open_websocket,
)

if TYPE_CHECKING:
    from connector_agent.dialer import Dialer
    from shared.config import HostPort
    from shared.tunnel.transport import MessageReceiver

PATIENCE: Final = 5.0
"""Seconds for the relay's HELLO, once it has agreed."""

GOODBYE: Final = 1.0
"""Seconds for the connection's end."""


class RelayTime(NamedTuple):
    """What the relay's clock said, and what ours said then: Unix seconds. `precision`: how coarse the first is."""

    wall: float
    read_at: float
    precision: float = 0.0


class Admission(NamedTuple):
    """What the relay said: its HELLO, if it took us, and its time."""

    hello: Hello | None = None
    clock: RelayTime | None = None

    @classmethod
    def of_refusal(cls, error: DialError) -> Self:
        """A refusal tells the time, too."""
        return cls(clock=_date(error.__cause__))


async def ask_admission(dialer: Dialer, relay: HostPort) -> Admission:
    """Be admitted, and go again. Raises DialError."""
    first = _FirstMessage(asyncio.get_running_loop())
    transport = await dialer.dial(relay.host, relay.port, lambda _: first)
    try:
        async with asyncio.timeout(PATIENCE):
            message = await first.came
        hello = _read_hello(message)
        transport.close(1000, "precheck")
        async with asyncio.timeout(GOODBYE):
            await first.ended.wait()
    except TimeoutError:
        if not first.came.done():
            raise DialError("timeout", f"{relay} agreed, and then said nothing.", "Look at the relay's log.") from None
        hello = _read_hello(first.came.result())
    except (ConnectionError, BadHello, ValueError) as error:
        raise DialError("connection-lost", f"{relay} agreed, and then: {error}.", "Look at the relay's log.") from error
    finally:
        transport.abort()
    clock = RelayTime(hello.wall, first.came_at) if is_plausible(hello.wall) else None
    return Admission(hello, clock)


async def date_of_relay(dialer: Dialer, endpoint: Endpoint) -> RelayTime | None:
    """What time it is where nobody is verified: from the refusal that a client without a certificate gets."""
    try:
        raw = await dialer.route(endpoint.host, endpoint.port)
        transport = await open_websocket(raw, unverified_client_context(), ReadBuffers(), endpoint, _nobody)
        transport.abort()
    except HandshakeRefused as error:
        return _date(error)
    except (HandshakeError, OSError, ssl.SSLError, ProxyError, DialError, UnicodeError):
        pass
    return None


def _date(error: BaseException | None) -> RelayTime | None:
    """The Date of a refusal (RFC 9110, section 6.6.1)."""
    if not isinstance(error, HandshakeRefused):
        return None
    try:
        wall = parsedate_to_datetime(error.headers.get("date", "")).timestamp()
    except (TypeError, ValueError, OverflowError):
        return None
    return RelayTime(wall, time.time(), 1.0) if is_plausible(wall) else None


def _read_hello(message: bytes) -> Hello:
    frame = next(frames.parse(message), None)
    if frame is None or frame.type != frames.HELLO:
        raise BadHello("its first message is no HELLO")
    return Hello.parse(frame.payload)


def _nobody(transport: ClientTransport) -> MessageReceiver:
    return _FirstMessage(asyncio.get_running_loop())


class _FirstMessage:
    """A MessageReceiver that waits for one message, and answers nothing."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.came: asyncio.Future[bytes] = loop.create_future()
        self.came_at = 0.0
        self.ended = asyncio.Event()

    def message_received(self, message: bytes) -> None:
        if not self.came.done():
            self.came_at = time.time()
            self.came.set_result(message)

    def bytes_received(self) -> None:
        """The wait has a limit of its own."""

    def transport_writable(self) -> None:
        """Nothing is sent."""

    def transport_closing(self, code: int | None, reason: str) -> None:
        """`transport_closed` follows."""

    def transport_closed(self, code: int | None, reason: str, error: BaseException | None) -> None:
        self.ended.set()
        if not self.came.done():
            self.came.set_exception(ConnectionResetError("the connection ended"))
            self.came.exception()  # whoever stopped waiting has a better reason to tell
