"""The lines between the networks: every packet passes here, and fares as its line's shape says.

    python -m chaos.line READY_FILE CONTROL_SOCKET NAME=PID,PID …

A line joins a TUN device in the network namespace of each of the two processes. Its shape is changed at any time by a
datagram of JSON to the control socket: {"line": "tunnel", "shape": {…}, "seed": 7}.
"""

from __future__ import annotations

import heapq
import itertools
import json
import os
import random
import selectors
import socket
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.delay_line import open_tun
from chaos.segments import cut

MTU: Final = 1500
_MAX_BATCH: Final = 64
_CUTS: Final = 200
"""Segments that a cut packet becomes at most: its head byte by byte, and the rest."""


@dataclass(frozen=True, slots=True)
class Shape:
    """How packets fare on a line, each way.

    Seconds of delay, and up to so many more (`jitter`, in order); the shares that are lost, and that overtake others
    (`reorder`); the rate, and the queue before it; the bytes that payloads are cut to, 0 for none.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float = 0.0
    reorder: float = 0.0
    bits_per_s: float = 1e9
    queue_bytes: int = 4 * 1024 * 1024
    cut_to: int = 0


PLAIN: Final = Shape()


class Way:
    """One way of a line: when each packet arrives, and which are lost."""

    def __init__(self, shape: Shape = PLAIN, source: random.Random | None = None) -> None:
        self._random = source or random.Random()
        self._waiting: list[tuple[float, int, bytes]] = []
        self._numbers = itertools.count()
        self._free_at = 0.0
        self._last = 0.0
        self.shape = shape

    def become(self, shape: Shape, seed: str) -> None:
        """Another shape for what comes from now on."""
        self.shape = shape
        self._random.seed(seed)

    def take(self, packet: bytes, now: float) -> None:
        """A packet comes in at `now`."""
        shape, source = self.shape, self._random
        if shape.loss and source.random() < shape.loss:
            return
        start = max(now, self._free_at)
        if (start - now) * shape.bits_per_s / 8 > shape.queue_bytes:
            return
        self._free_at = start + len(packet) * 8 / shape.bits_per_s
        due = self._free_at + shape.delay + source.random() * shape.jitter
        if shape.reorder and source.random() < shape.reorder:
            due = self._free_at  # it overtakes those that are on their way
        else:
            due = self._last = max(due, self._last)
        for piece in cut(packet, shape.cut_to, _CUTS) if shape.cut_to else (packet,):
            heapq.heappush(self._waiting, (due, next(self._numbers), piece))

    def due(self, now: float) -> list[bytes]:
        """The packets that have arrived by `now`."""
        ready = []
        while self._waiting and self._waiting[0][0] <= now:
            ready.append(heapq.heappop(self._waiting)[2])
        return ready

    def next_due(self) -> float | None:
        return self._waiting[0][0] if self._waiting else None


class Lines:
    """All lines, by name, each between two descriptors."""

    def __init__(self, ends: dict[str, tuple[int, int]], control: socket.socket) -> None:
        self._ways: dict[str, tuple[Way, Way]] = {}
        self._routes: list[tuple[Way, int]] = []
        self._control = control
        self._selector = selectors.DefaultSelector()
        self._selector.register(control, selectors.EVENT_READ, None)
        for name, (one, other) in ends.items():
            there, back = self._ways[name] = Way(), Way()
            self._routes += [(there, other), (back, one)]
            self._selector.register(one, selectors.EVENT_READ, there)
            self._selector.register(other, selectors.EVENT_READ, back)

    def run(self) -> None:
        """Until the process is ended."""
        while True:
            moments = [moment for way, _ in self._routes if (moment := way.next_due()) is not None]
            pause = max(0.0, min(moments) - time.monotonic()) if moments else None
            for key, _ in self._selector.select(pause):
                if key.data is None:
                    self._obey(json.loads(self._control.recv(4096)))
                else:
                    self._read(key.fd, key.data)
            now = time.monotonic()
            for way, sink in self._routes:
                for packet in way.due(now):
                    self._write(sink, packet)

    def _obey(self, order: dict[str, Any]) -> None:
        for number, way in enumerate(self._ways[order["line"]]):
            way.become(Shape(**order["shape"]), f"{order['seed']} {number}")

    def _read(self, source: int, way: Way) -> None:
        now = time.monotonic()
        try:
            for _ in range(_MAX_BATCH):
                way.take(os.read(source, MTU + 64), now)
        except BlockingIOError:
            pass

    def _write(self, sink: int, packet: bytes) -> None:
        try:
            os.write(sink, packet)
        except OSError:
            pass  # the device's queue is full: the packet is lost, as packets are


def order_of(line: str, shape: Shape, seed: int) -> bytes:
    """The datagram that gives a line its shape."""
    return json.dumps({"line": line, "shape": asdict(shape), "seed": seed}).encode()


def main() -> None:
    ready, control_path, *lines = sys.argv[1:]
    ends = {}
    for line in lines:
        name, _, pids = line.partition("=")
        one, other = (open_tun(int(pid), f"qanat-{name}") for pid in pids.split(","))
        ends[name] = (one, other)
    control = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    control.bind(control_path)
    partial = Path(ready).with_suffix(".partial")
    partial.write_text("ready\n")
    os.replace(partial, ready)
    Lines(ends, control).run()


if __name__ == "__main__":
    main()
