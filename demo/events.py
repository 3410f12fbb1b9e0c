"""What senders and the receiver tell the demo: one JSON object a line on their standard output.

Each has an `event`, and the push's `id`, such as "prometheus-1/17":

    sent            a push is about to be sent for the first time
    attempt         a try that ended without a 2xx: `status` and `code`, the answer's Qanat-Error; 0 and an exception
    acknowledged    a 2xx: the try's latency `ms`, and `at`, when that was (monotonic clock)
    refused         given up, after what the attempts said
    delivered       arrived whole at the target: its `kind`, and how many `series` it held
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

_lock = threading.Lock()


def emit(event: str, **fields: Any) -> None:
    """Writes one event; threads may call it at once."""
    line = json.dumps({"event": event, **fields}) + "\n"
    with _lock:
        sys.stdout.write(line)
        sys.stdout.flush()


def emit_acknowledged(push: str, began: float) -> None:
    """A push of this process got its 2xx; `began` is the monotonic time at which that attempt started."""
    now = time.monotonic()
    emit("acknowledged", id=push, ms=round((now - began) * 1e3, 3), at=now)


def parse(line: bytes) -> dict[str, Any] | None:
    """One event; None if the line is something else that the process wrote."""
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None
