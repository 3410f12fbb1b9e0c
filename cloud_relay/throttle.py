"""Failures to prove who one is: slowed down by the pair of where they come from and whom they claim to be.

Never by the claim alone, or else anybody could lock a sender out; never by the address alone, since a whole cloud
region may push from one. Nothing good is ever slowed down: a credential that is remembered is not asked about here, and
a hash that is judged at once is judged however many failures there were. What the throttle guards is the pool of slow
hashes.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from cloud_relay.sources import source_key

BURST: Final = 10
"""Wrong passwords in a row before a pair has to wait: a few senders that share an address and a new, wrong password."""

INTERVAL: Final = 2.0
"""Seconds for each further one: 43,200 guesses a day, and at most a tenth of one worker's time for one pair."""

MAX_PAIRS: Final = 8192
"""Pairs that are kept, about 2 MiB. The one whose last failure is longest ago is forgotten first."""

Pair = tuple[str, str, bytes]
"""Source, tenant and claimed id."""


class FailureThrottle:
    """Counts failures by pair, each in a bucket that is kept as the time at which it will be full again (GCRA).

    One object for the whole process, kept over reloads. Times are seconds of `clock`.
    """

    __slots__ = ("_burst", "_clock", "_full_at", "_interval", "_max_pairs", "failures")

    def __init__(
        self,
        burst: int = BURST,
        interval: float = INTERVAL,
        max_pairs: int = MAX_PAIRS,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._burst = burst
        self._interval = interval
        self._max_pairs = max_pairs
        self._clock = clock
        self._full_at: OrderedDict[Pair, float] = OrderedDict()
        self.failures = 0

    def is_shut(self, source: str, tenant: str, claimed: bytes) -> bool:
        """Whether this pair has failed so often that it is not worth a slow hash now. Asking counts nothing."""
        full_at = self._full_at.get((source_key(source), tenant, claimed))
        return full_at is not None and full_at - self._clock() > (self._burst - 1) * self._interval

    def has_failed(self, source: str, tenant: str, claimed: bytes) -> bool:
        """Whether a failure of this pair is not yet made up for by time: it can wait behind others."""
        full_at = self._full_at.get((source_key(source), tenant, claimed))
        return full_at is not None and full_at > self._clock()

    def failed(self, source: str, tenant: str, claimed: bytes) -> None:
        """Count a failure. `claimed` is an id that there is: what is unknown costs nothing, and is not kept."""
        self.failures += 1
        pair = (source_key(source), tenant, claimed)
        now = self._clock()
        full_at = self._full_at.pop(pair, now)
        while len(self._full_at) >= self._max_pairs:
            self._full_at.popitem(last=False)
        # Beyond a full burst nothing is added: a flood of failures must not shut a pair for longer than its next token.
        highest = now + self._burst * self._interval
        self._full_at[pair] = min(max(full_at, now) + self._interval, highest)

    def __len__(self) -> int:
        return len(self._full_at)

    def __repr__(self) -> str:
        return f"<FailureThrottle {self.failures} failures, {len(self)} pairs>"
