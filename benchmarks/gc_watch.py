"""The relay with a witness: each pause of the garbage collector goes to a file, and SIGUSR2 brings a full collection.

    python -m benchmarks.gc_watch PAUSES_FILE serve --config relay.yaml

What is written costs about a microsecond for each collection, of which there are few; nothing else is changed.
"""

from __future__ import annotations

import gc
import os
import signal
import struct
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

_RECORD = struct.Struct("<ddd")


class Pause(NamedTuple):
    """One collection: when it began (CLOCK_MONOTONIC, which is the same in all processes), seconds, generation."""

    at: float
    seconds: float
    generation: int


def read_pauses(path: Path, begin: float = 0.0, end: float = float("inf")) -> list[Pause]:
    """Those that began within a time."""
    content = path.read_bytes()
    whole = content[: len(content) // _RECORD.size * _RECORD.size]
    pauses = (Pause(at, seconds, int(generation)) for at, seconds, generation in _RECORD.iter_unpack(whole))
    return [pause for pause in pauses if begin <= pause.at < end]


def watch(path: Path) -> None:
    """From here on every collection of this process is written down."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    began = 0.0

    def note(phase: str, info: dict[str, Any]) -> None:
        nonlocal began
        now = time.monotonic()
        if phase == "start":
            began = now
        else:
            os.write(descriptor, _RECORD.pack(began, now - began, info["generation"]))

    gc.callbacks.append(note)
    signal.signal(signal.SIGUSR2, lambda number, frame: gc.collect() and None)


def main() -> None:
    watch(Path(sys.argv[1]))
    from cloud_relay.cli import main as relay

    sys.argv = ["cloud-relay", *sys.argv[2:]]
    relay()


if __name__ == "__main__":
    main()
