"""The line between two networks: hands IP packets from one TUN device to the other, late, at a bounded rate.

Each direction has a rate, a delay, and a queue in bytes before the rate; what does not fit is dropped, as routers do.

    python -m benchmarks.delay_line READY_FILE CLOUD_PID PREMISES_PID BITS_PER_S DELAY_S QUEUE_BYTES MTU
"""

from __future__ import annotations

import fcntl
import os
import selectors
import struct
import sys
import time
from collections import deque
from pathlib import Path

from benchmarks.side import enter_namespace

_TUNSETIFF = 0x400454CA
_IFF_TUN, _IFF_NO_PI = 0x0001, 0x1000
_MAX_BATCH = 64


def open_tun(pid: int, name: str) -> int:
    """A TUN device in the network namespace of process `pid`; returns its file descriptor."""
    enter_namespace(pid)
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), _IFF_TUN | _IFF_NO_PI))
    return descriptor


class Direction:
    """One way of the line: when each packet leaves, and which are dropped."""

    __slots__ = ("_bytes_per_s", "_delay", "_free_at", "_queue_bytes", "dropped", "waiting")

    def __init__(self, bits_per_s: float, delay_s: float, queue_bytes: int) -> None:
        self._bytes_per_s = bits_per_s / 8
        self._delay = delay_s
        self._queue_bytes = queue_bytes
        self._free_at = 0.0
        self.waiting: deque[tuple[float, bytes]] = deque()
        self.dropped = 0

    def take(self, packet: bytes, now: float) -> None:
        """A packet arrives at `now`."""
        start = max(now, self._free_at)
        if (start - now) * self._bytes_per_s > self._queue_bytes:
            self.dropped += 1
            return
        self._free_at = start + len(packet) / self._bytes_per_s
        self.waiting.append((self._free_at + self._delay, packet))

    def due(self, now: float) -> list[bytes]:
        """The packets that have arrived at the other end by `now`."""
        ready = []
        while self.waiting and self.waiting[0][0] <= now:
            ready.append(self.waiting.popleft()[1])
        return ready

    def next_due(self) -> float | None:
        return self.waiting[0][0] if self.waiting else None


class Line:
    """Both directions between two descriptors."""

    def __init__(self, ends: tuple[int, int], bits_per_s: float, delay_s: float, queue_bytes: int, mtu: int) -> None:
        self._mtu = mtu
        self._routes = [
            (ends[0], ends[1], Direction(bits_per_s, delay_s, queue_bytes)),
            (ends[1], ends[0], Direction(bits_per_s, delay_s, queue_bytes)),
        ]
        self._selector = selectors.DefaultSelector()
        for source, _, direction in self._routes:
            self._selector.register(source, selectors.EVENT_READ, direction)

    def run(self) -> None:
        """Until the process is ended."""
        while True:
            moments = [moment for _, _, way in self._routes if (moment := way.next_due()) is not None]
            # epoll counts in ms: the last one is spun away, so that delays are exact
            pause = max(0.0, min(moments) - time.monotonic() - 0.001) if moments else None
            for key, _ in self._selector.select(pause):
                self._read(key.fd, key.data)
            now = time.monotonic()
            for _, sink, direction in self._routes:
                for packet in direction.due(now):
                    self._write(sink, packet)

    def _read(self, source: int, direction: Direction) -> None:
        now = time.monotonic()
        try:
            for _ in range(_MAX_BATCH):
                direction.take(os.read(source, self._mtu + 64), now)
        except BlockingIOError:
            pass

    def _write(self, sink: int, packet: bytes) -> None:
        try:
            os.write(sink, packet)
        except OSError:
            pass  # the device is not up yet, or its queue is full: the packet is lost, as packets are


def main() -> None:
    ready, cloud, premises, rate, delay, queue, mtu = sys.argv[1:]
    ends = (open_tun(int(cloud), "qanat0"), open_tun(int(premises), "qanat0"))
    line = Line(ends, float(rate), float(delay), int(queue), int(mtu))
    partial = Path(ready).with_suffix(".partial")
    partial.write_text("ready\n")
    os.replace(partial, ready)
    line.run()


if __name__ == "__main__":
    main()
