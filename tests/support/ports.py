"""Ports for programs that are started later, or again: nobody else gets them meanwhile."""

from __future__ import annotations

import random
import socket
from collections import deque
from pathlib import Path
from typing import Final

_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_KEPT: Final = 256
"""Reservations of one process: more than any test asks for, and few enough descriptors."""

_reservations: deque[socket.socket] = deque(maxlen=_KEPT)


def free_port() -> int:
    """A port that nobody listens on, that no other run of the tests is given meanwhile, and that no connection gets as
    its own: it must stay free while a program is dead.

    Somebody who keeps dialling a dead port of the ephemeral range ends up connected to itself.
    """
    low = int(_EPHEMERAL.read_text().split()[0])
    while True:
        port = random.randrange(max(1024, low - 16384), low)
        if _is_free(port) and _reserve(port):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True


def _reserve(port: int) -> bool:
    """Tests run side by side. An abstract name belongs to one process of the machine, and goes with it."""
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0qanat-tests-port-{port}")
    except OSError:
        claim.close()
        return False
    if len(_reservations) == _KEPT:
        _reservations.popleft().close()
    _reservations.append(claim)
    return True
