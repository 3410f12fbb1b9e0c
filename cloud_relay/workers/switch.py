"""The tunnel's port when several workers share it: a connection goes to the worker that its ClientHello asks for."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

from shared.tcp.client_hello import MAX_BYTES, BadHello, read_client_hello
from shared.tunnel.websocket import worker_of

if TYPE_CHECKING:
    from cloud_relay.ports.sorting import Destination
    from shared.tcp.head import Ends

PassOn = Callable[[int, socket.socket, "Ends", "str | None"], bool]
"""Gives a socket to a worker; False, and the socket is still the caller's, if that worker is not there."""


class Switch:
    """A Destination before another one. Its port must look at the ClientHello, so that all of it is there."""

    __slots__ = ("_here", "_number", "_pass_on", "passed")

    def __init__(self, number: int, here: Destination, pass_on: PassOn) -> None:
        """This is worker `number`; `here` takes what asks for it, for nobody, or for one that is not there."""
        self.passed = 0
        self._number = number
        self._here = here
        self._pass_on = pass_on

    def take(self, sock: socket.socket, ends: Ends, server_name: str | None) -> None:
        """See Destination."""
        worker = _asked_for(sock)
        if worker is not None and worker != self._number and self._pass_on(worker, sock, ends, server_name):
            self.passed += 1
        else:
            self._here.take(sock, ends, server_name)


def _asked_for(sock: socket.socket) -> int | None:
    try:
        hello = read_client_hello(sock.recv(MAX_BYTES, socket.MSG_PEEK))
    except (OSError, BadHello):  # whoever takes it will find out
        return None
    return None if hello is None else worker_of(hello.protocols)
