"""One connection between accept and being handed on: perhaps a PROXY header, perhaps a look at its ClientHello.

A PROXY header is taken off, byte for byte; a ClientHello is only peeked at, so that whoever gets the socket finds all
of it there. The kernel is told to wake us only when more has come than was seen (SO_RCVLOWAT), or else it would wake
us all the time. No task: a reader and a timer.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Final, Protocol

from shared.errors import FAULTS, Fault
from shared.tcp.client_hello import (
    DECODE_ERROR,
    MAX_BYTES,
    MISSING_EXTENSION,
    UNRECOGNIZED_NAME,
    BadHello,
    alert_record,
    read_client_hello,
)
from shared.tcp.head import Ends
from shared.tcp.proxy_v2 import FIXED, BadProxyHeader, decode, size_of
from shared.tunnel.endings import let_reset

if TYPE_CHECKING:
    from cloud_relay.ports.sorting import Destination, Sorting

DEADLINE: Final = 5.0
"""Seconds from accept to the whole ClientHello."""

LINGER: Final = 1.0
"""Seconds that a refused client gets to read its alert before the connection is reset."""

_LINGER_READS: Final = 64
_BAD_HELLO: Final = FAULTS["bad-client-hello"]
_UNKNOWN_NAME: Final = FAULTS["unknown-server-name"]
_BAD_PROXY: Final = FAULTS["bad-proxy-header"]


class ArrivalOwner(Protocol):
    """Who keeps count of them."""

    def told(self, arrival: Arrival, ends: Ends) -> None:
        """The PROXY header has named another source; not called where it names none."""

    def pushed_out(self) -> None:
        """It had to make way. `left` follows."""

    def refused(self, ends: Ends, fault: Fault, detail: str) -> None:
        """It is refused: why, and a detail for the log. `left` follows."""

    def left(self, arrival: Arrival) -> None:
        """The last call: it was handed on, or is closed."""


class Arrival:
    """One connection, of which `owner` is told."""

    __slots__ = (
        "_ends",
        "_header",
        "_loop",
        "_owner",
        "_reads",
        "_sock",
        "_sorting",
        "_timer",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        sock: socket.socket,
        ends: Ends,
        sorting: Sorting,
        owner: ArrivalOwner,
    ) -> None:
        self._loop = loop
        self._sock = sock
        self._ends = ends
        self._sorting = sorting
        self._owner = owner
        self._header: bytearray | None = bytearray() if sorting.proxy_from else None
        self._reads = 0
        self._timer = loop.call_later(DEADLINE, self._on_deadline)
        loop.add_reader(sock, self._on_readable)

    def abort(self) -> None:
        """Reset it."""
        self._leave()
        let_reset(self._sock)
        self._sock.close()

    def make_way(self) -> None:
        """Reset it: others have waited less."""
        self._owner.pushed_out()
        self.abort()

    def sort_by(self, sorting: Sorting) -> None:
        """A reload: these rules count from now on. One that began under other rules for PROXY headers is reset."""
        if sorting.proxy_from != self._sorting.proxy_from:
            self.abort()
        else:
            self._sorting = sorting

    def _on_readable(self) -> None:
        try:
            if self._header is not None and not self._read_header(self._header):
                return
            self._look()
        except (BlockingIOError, InterruptedError):
            pass
        except OSError:  # reset by the client
            self.abort()
        except BadProxyHeader as error:
            self._refuse(_BAD_PROXY, str(error))
        except BadHello as error:
            self._refuse(_BAD_HELLO, str(error), error.alert)

    # --- the PROXY header

    def _read_header(self, header: bytearray) -> bool:
        """Take the header off the socket, never a byte more; whether it is whole."""
        size = size_of(bytes(header[:FIXED]))
        while len(header) < size:
            data = self._sock.recv(size - len(header))
            if not data:
                raise BadProxyHeader("the connection ended in the header")
            header += data
            size = size_of(bytes(header[:FIXED]))
        told = decode(bytes(header))
        if told.ends is not None:
            self._ends = told.ends
            self._owner.told(self, told.ends)
        self._header = None
        return True

    # --- the ClientHello

    def _look(self) -> None:
        sorting = self._sorting
        if not sorting.looks:
            self._hand_on(sorting.default, None)
            return
        seen = self._sock.recv(MAX_BYTES, socket.MSG_PEEK)
        hello = read_client_hello(seen)
        if hello is None:
            if not self._wait_for_more(len(seen)):
                raise BadHello(DECODE_ERROR, "the connection ended in the ClientHello")
            return
        name = hello.server_name
        found = None if name is None else sorting.names.get(name)
        destination = found or sorting.default
        if destination is not None:
            self._hand_on(destination, name)
        elif name is None:
            self._refuse(_UNKNOWN_NAME, "no server name", MISSING_EXTENSION)
        else:
            self._refuse(_UNKNOWN_NAME, name, UNRECOGNIZED_NAME)

    def _wait_for_more(self, seen: int) -> bool:
        """Be woken by the next byte; False where none will come, for the client has ended its direction."""
        # At the end of the stream the socket stays readable whatever the mark: two looks that see the same mean that.
        if seen == self._reads or not seen:
            return False
        self._reads = seen
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, seen + 1)
        return True

    def _hand_on(self, destination: Destination | None, name: str | None) -> None:
        sock = self._sock
        self._leave()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        if destination is None:
            sock.close()
        else:
            destination.take(sock, self._ends, name)

    # --- the end

    def _on_deadline(self) -> None:
        if self._header is not None:
            self._refuse(_BAD_PROXY, "not in time")
        elif self._sorting.looks:
            self._refuse(_BAD_HELLO, "not in time", DECODE_ERROR if self._reads else None)
        else:
            self._hand_on(self._sorting.default, None)

    def _refuse(self, fault: Fault, detail: str, alert: int | None = None) -> None:
        self._owner.refused(self._ends, fault, detail)
        self._timer.cancel()
        if alert is None:
            self.abort()
            return
        try:
            self._sock.send(alert_record(alert))
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        except OSError:
            self.abort()
            return
        # With input unread the kernel would send a RST, which can overtake the alert.
        self._reads = 0
        self._loop.add_reader(self._sock, self._throw_away)
        self._timer = self._loop.call_later(LINGER, self.abort)

    def _throw_away(self) -> None:
        try:
            self._reads += 1
            if self._sock.recv(MAX_BYTES) and self._reads < _LINGER_READS:
                return
        except (BlockingIOError, InterruptedError):
            return
        except OSError:
            pass
        self._leave()
        self._sock.close()

    def _leave(self) -> None:
        self._timer.cancel()
        self._loop.remove_reader(self._sock)
        self._owner.left(self)
