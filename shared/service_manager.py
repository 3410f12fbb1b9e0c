"""What started this process, told how it is: systemd's notify protocol, sd_notify(3), which others speak too.

    manager = ServiceManager.from_environment(os.environ)     # and no child inherits it
    manager.ready(describe)             # it serves; from now on the event loop itself feeds the watchdog
    with manager.reloading(): ...
    manager.stopping(30.0)              # it drains, and may take so many seconds
    manager.close()

Started by nothing that wants to know, all of it does nothing.

The protocol is a datagram of `NAME=value` lines, declared stable by systemd, whose manual shows how to speak it without
its library. The packages for it either block, swallow every error, or need libsystemd to build; so it is done here, and
never blocks: what the socket does not take is kept, in order, and sent a little later.
"""

from __future__ import annotations

import asyncio
import os
import re
import socket
import time
from collections import deque
from collections.abc import Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Final

from shared.logs import get_logger, log_limited

STATUS_EVERY: Final = 5.0
"""Seconds between looks at whether the status has changed; …"""

STATUS_SOON: Final = 1.0
"""… while it does, as after the start, these."""

NAMING: Final = 4.0
"""Seconds for the manager to take which process is the service from now on. It is told again and again after that."""

MAX_KEPT: Final = 16
"""Messages that wait for the socket. Of more, which only many reloads at once make, the oldest go."""

MAX_STATUS: Final = 500
"""Characters of the status, for which there is one line."""

_RETRY: Final = 0.1
_VARIABLES: Final = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
_COUNT: Final = re.compile(r"[1-9][0-9]{0,15}", re.ASCII)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]+")

log = get_logger("service-manager")


class ServiceManager:
    """One per process, used from its event loop's thread. Nothing here blocks or raises.

    `address` is NOTIFY_SOCKET: a path, or @name in the abstract namespace; "" if nobody listens. `watchdog` is the
    time in seconds without a word after which the manager kills this process; 0 without a watchdog.
    """

    def __init__(self, address: str = "", watchdog: float = 0.0) -> None:
        self._address = address
        self._watchdog = watchdog
        self._socket: socket.socket | None = None
        self._kept: deque[bytes] = deque(maxlen=MAX_KEPT)
        self._all_sent = asyncio.Event()
        self._retry: asyncio.TimerHandle | None = None
        self._beat: asyncio.TimerHandle | None = None
        self._describe: Callable[[], str] = str
        self._status = ""
        self._is_changing = True
        self._is_ready = False
        if address.startswith(("/", "@")) and len(address) > 1:
            self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        elif address:
            log.warning("NOTIFY_SOCKET is of no kind that is known here; the service manager is told nothing")

    def __repr__(self) -> str:
        return f"<ServiceManager {self._address or 'none'} watchdog={self._watchdog:g}s kept={len(self._kept)}>"

    @classmethod
    def from_environment(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """The one that the environment names, which is taken out of it: it is this process's, not its children's."""
        address, usec, pid = (environ.pop(name, "") for name in _VARIABLES)
        is_mine = not pid or pid == str(os.getpid())
        return cls(address, int(usec) / 1e6 if is_mine and _COUNT.fullmatch(usec) else 0.0)

    def for_successor(self) -> dict[str, str]:
        """The environment in which a process that takes this one's place finds the manager."""
        if self._socket is None:
            return {}
        watchdog = {"WATCHDOG_USEC": str(round(self._watchdog * 1e6))} if self._watchdog else {}
        return {"NOTIFY_SOCKET": self._address} | watchdog

    # --- what there is to tell

    def ready(self, describe: Callable[[], str]) -> None:
        """It serves. From now on `describe` is asked every few seconds, and what it says told when it has changed; the
        watchdog hears from the loop twice in its time or more often: a loop that is blocked is silent, a busy one not.
        """
        if self._socket is None:
            return
        self._is_ready = True
        self._describe = describe
        self._send("READY=1", *self._changed_status())
        self._arm()

    @contextmanager
    def reloading(self) -> Iterator[None]:
        """It reads its config again meanwhile, whatever that comes to."""
        if self._is_ready:
            # Type=notify-reload of systemd 253 wants the moment at which the reload began, by this very clock.
            self._send("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        try:
            yield
        finally:
            if self._is_ready:
                self._send("READY=1", *self._changed_status())

    def stopping(self, seconds: float) -> None:
        """It ends, and may take so long, even if the manager's own patience (TimeoutStopSec) is shorter."""
        self._is_ready = False
        self._status = "draining"  # until `describe` says more
        self._send("STOPPING=1", f"EXTEND_TIMEOUT_USEC={round(seconds * 1e6)}", f"STATUS={self._status}")

    async def hand_over(self, pid: int) -> None:
        """`pid` is the service from now on, and this process falls silent. `pid` must not speak before this returns: it
        would not be believed. Returns after NAMING at the latest.

        The manager must see `pid` in the service's control group, and as no child of this process, or it will complain.
        """
        if self._socket is None:
            return
        self._is_ready = False
        self._stop_beating()
        self._all_sent.clear()
        self._send(f"MAINPID={pid}")
        try:
            async with asyncio.timeout(NAMING):
                await self._all_sent.wait()
        except TimeoutError:  # it hangs; this process has things to do, and tells it as soon as it takes something
            log.warning("the service manager does not take which process is the service now", pid=pid, seconds=NAMING)
            return
        self.close()

    def close(self) -> None:
        """Say nothing more."""
        if self._socket is None:
            return
        self._flush()
        self._socket.close()
        self._socket = None
        self._all_sent.set()  # or it never will be
        self._is_ready = False
        self._stop_beating()
        if self._retry is not None:
            self._retry.cancel()

    # --- parts

    def _stop_beating(self) -> None:
        if self._beat is not None:
            self._beat.cancel()

    def _arm(self) -> None:
        interval = STATUS_SOON if self._is_changing else STATUS_EVERY
        if self._watchdog:
            interval = min(interval, self._watchdog / 2)
        self._beat = asyncio.get_running_loop().call_later(interval, self._tell)

    def _tell(self) -> None:
        if not self._kept:  # else they are tried for ten times a second; this one would only be one more
            lines = [*(["WATCHDOG=1"] if self._watchdog else []), *self._changed_status()]
            if lines:
                self._send(*lines)
        self._arm()

    def _changed_status(self) -> list[str]:
        try:
            status = _CONTROL.sub(" ", self._describe())[:MAX_STATUS]
        except Exception as error:  # noqa: BLE001 — a bug in how it is told must not make the watchdog end what works
            log_limited(log, "error", "describe", "a bug: how this program is cannot be told", exc_info=error)
            return []
        self._is_changing = status != self._status
        if not self._is_changing:
            return []
        self._status = status
        return [f"STATUS={status}"]

    def _send(self, *lines: str) -> None:
        if self._socket is not None:
            self._kept.append("\n".join(lines).encode("utf-8", "replace"))
            self._flush()

    def _flush(self) -> None:
        address = f"\0{self._address[1:]}" if self._address.startswith("@") else self._address
        while self._socket is not None and self._kept:
            try:
                self._socket.sendto(self._kept[0], address)
            except BlockingIOError:  # the manager is busy, and its queue full
                self._try_again()
                return
            except OSError as error:
                cause = error.strerror or str(error)
                log_limited(log, "warning", "notify", "the service manager cannot be told", error=cause)
            self._kept.popleft()
        self._all_sent.set()

    def _try_again(self) -> None:
        if self._retry is None:
            self._retry = asyncio.get_running_loop().call_later(_RETRY, self._retried)

    def _retried(self) -> None:
        self._retry = None
        self._flush()
