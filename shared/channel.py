"""Messages between two processes of ours, sockets among them: a Unix socket of type SEQPACKET that both inherited.

A message is one JSON object of at most MAX_MESSAGE bytes, and perhaps a socket that goes along (SCM_RIGHTS). Whoever
dies closes its end, and the other one hears of it at once, after all that was said before.
"""

from __future__ import annotations

import array
import asyncio
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from itertools import islice
from typing import Any, Final, Self, TypeVar

import orjson

MAX_MESSAGE: Final = 128 * 1024
"""Bytes; less than Linux takes in one packet with its smallest buffers (net.core.wmem_default)."""

_FD: Final = array.array("i").itemsize
_NOTHING: Final = b""

Message = dict[str, Any]
OnMessage = Callable[[Message, socket.socket | None], None]
"""Gets what came; the socket, if there is one, is its own from then on."""
Item = TypeVar("Item")


class Channel:
    """One end. `start` it inside a running loop to hear anything; it can be spoken to before and after."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(0.0)
        self._socket: socket.socket | None = sock
        self._loop: asyncio.AbstractEventLoop | None = None
        self._on_message: OnMessage = _ignore
        self._on_closed: Callable[[], None] = _nobody
        self._waiting: deque[tuple[bytes, socket.socket | None]] = deque()

    def __repr__(self) -> str:
        return f"<Channel {'open' if self.is_open else 'closed'} {len(self._waiting)} waiting>"

    @classmethod
    def pair(cls) -> tuple[Self, socket.socket]:
        """Our end, and the one to pass on and to close then."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        return cls(ours), theirs

    @property
    def is_open(self) -> bool:
        """Whether the other side could still hear us."""
        return self._socket is not None

    @property
    def waiting(self) -> int:
        """Messages that the other side has not made room for yet."""
        return len(self._waiting)

    def start(self, loop: asyncio.AbstractEventLoop, on_message: OnMessage, on_closed: Callable[[], None]) -> None:
        """Tell of what comes from now on; `on_closed` once, when the other side is gone."""
        self._loop, self._on_message, self._on_closed = loop, on_message, on_closed
        if self._socket is not None:
            loop.add_reader(self._socket, self._read)
            self._write()

    def send(self, message: Message, passed: socket.socket | None = None) -> None:
        """Say this; `passed` is the other side's from now on. Dropped if nobody can hear it. ValueError: too large."""
        data = orjson.dumps(message)
        if len(data) > MAX_MESSAGE:
            raise ValueError(f"a message of {len(data)} bytes")
        if self._socket is None:
            _close(passed)
            return
        self._waiting.append((data, passed))
        if len(self._waiting) == 1:
            self._write()

    def stop(self) -> None:
        """Hear nothing more. The other side can still be told something: the last words of a program without a loop."""
        loop, self._loop = self._loop, None
        if loop is not None and self._socket is not None:
            loop.remove_reader(self._socket)
            loop.remove_writer(self._socket)

    def close(self) -> None:
        """Hear and say nothing more; what waits is dropped. `on_closed` is not called."""
        self.stop()
        sock, self._socket = self._socket, None
        while self._waiting:
            _close(self._waiting.popleft()[1])
        if sock is not None:
            sock.close()

    # --- within

    def _read(self) -> None:
        while (sock := self._socket) is not None:
            try:
                data, ancillary, _, _ = sock.recvmsg(MAX_MESSAGE, socket.CMSG_SPACE(_FD), socket.MSG_CMSG_CLOEXEC)
            except (BlockingIOError, InterruptedError):
                return
            except ConnectionResetError:
                # It went without having read all of ours, and the kernel says so once, ahead of what it had said.
                continue
            except OSError:
                data, ancillary = _NOTHING, []
            passed = _passed(ancillary)
            if not data:
                _close(passed)
                self.close()
                self._on_closed()
                return
            self._on_message(orjson.loads(data), passed)

    def _write(self) -> None:
        while self._waiting and (sock := self._socket) is not None:
            data, passed = self._waiting[0]
            rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [passed.fileno()]))] if passed else []
            try:
                sock.sendmsg([data], rights, socket.MSG_NOSIGNAL)
            except (BlockingIOError, InterruptedError):
                if self._loop is not None:
                    self._loop.add_writer(sock, self._write)
                return
            except OSError:  # nobody is there; reading says so, too
                pass
            self._waiting.popleft()
            _close(passed)
        if self._loop is not None and self._socket is not None:
            self._loop.remove_writer(self._socket)


def batches(items: Sequence[Item], size: int) -> Iterator[list[Item]]:
    """The items, so many at a time: what is too long for one message."""
    left = iter(items)
    while batch := list(islice(left, size)):
        yield batch


def _passed(ancillary: list[tuple[int, int, bytes]]) -> socket.socket | None:
    for level, kind, data in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(data) >= _FD:
            numbers = array.array("i")
            numbers.frombytes(data[:_FD])
            return socket.socket(fileno=numbers[0])
    return None


def _close(sock: socket.socket | None) -> None:
    if sock is not None:
        sock.close()


def _ignore(_message: Message, passed: socket.socket | None) -> None:
    _close(passed)


def _nobody() -> None:
    """Nobody wants to know."""
