"""The numbers of the protocol, each with its unit and its reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

KIB: Final = 1024
MIB: Final = 1024 * KIB


@dataclass(frozen=True, slots=True)
class Settings:
    """What one side decides about its tunnels; the peer learns what concerns it from HELLO.

    Sizes are bytes, times seconds.
    """

    stream_credit: int = 1 * MIB
    """What a peer may send on a fresh stream before our reader has taken anything. A typical push never waits a
    round trip."""

    stream_credit_max: int = 16 * MIB
    """How far a stream's credit grows while its reader keeps up: 16 MiB is 1 Gbit/s over 100 ms, and some."""

    tunnel_window_min: int = 256 * KIB
    """What may always be in flight in a tunnel, whatever the measured path. 200 ms of a line of 10 Mbit/s."""

    tunnel_window_max: int = 32 * MIB
    """What may be in flight at most, however long and fat the path looks."""

    bulk_reserve: int = 128 * KIB
    """The last part of the tunnel's window, kept for streams that have sent little yet."""

    bulk_after: int = 64 * KIB
    """A stream that has sent more than this is bulk."""

    fair_chunk: int = 16 * KIB
    """The largest DATA frame while other streams wait."""

    stream_high_water: int = 256 * KIB
    """With more than this queued on a stream, its source should stop reading."""

    max_streams: int = 4096
    """Streams that a peer may have open at once."""

    hello_timeout: float = 5.0
    """How long the peer's HELLO may take."""

    ping_busy: float = 0.75
    """The connector's ping interval with pushes in flight: two may get lost before the relay starts to doubt."""

    ping_idle: float = 8.0
    """The connector's ping interval without. A ping and its answer cost about 85 µs on both sides together."""

    ping_at_least: float = 5.0
    """With traffic both ways a ping tells nothing about liveness; but the clocks are compared this often."""

    suspect_after: float = 2.0
    """Silence with pushes in flight after which a tunnel gets no new ones: senders give up after 5 s."""

    dead_after: float = 5.0
    """Silence with pushes in flight after which a tunnel is given up."""

    dead_after_idle: float = 20.0
    """Silence without pushes after which a tunnel is given up."""
