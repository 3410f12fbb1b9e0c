"""How one quota is kept by several workers: each has a share of it, and shares go to where the pushes are.

A share scales all figures of a gate (see `limits.Gate`): the shares of all workers are 1 together, so whatever each of
them lets in, the quota holds. Every INTERVAL each worker says how hard its gates are pressed: from 0, nothing, to
1, used up, or somebody waits. A gate's new shares are in proportion to share x pressure, so that one that is pressed
takes from those that are not, and equally pressed ones stay as they are. What is taken from one is given to another
only when the first has said that it no longer uses it: the sum is never more than 1.

Pure; no clock.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

INTERVAL: Final = 0.1
"""Seconds between two divisions. A push that is over its worker's share waits in the queue meanwhile."""

FLOOR: Final = 0.02
"""The pressure that a worker has at least: its share never becomes nothing, and grows again within a few intervals."""

LEAST: Final = 1e-4
"""The share of one that begins while others have everything: nothing is no share."""

STEP: Final = 0.01
"""Smaller changes of a share are not worth a message."""

GateKey = tuple[str, str, str]
"""(tenant, kind, name), as `Limits` knows its gates."""


class Division:
    """The shares of one gate. `granted` is what each worker may use now, as far as is known."""

    __slots__ = ("_asked", "granted")

    def __init__(self, workers: int) -> None:
        self.granted = [1.0 / workers] * workers
        self._asked: list[float | None] = [None] * workers
        """What a worker has been told to go down to, and has not confirmed."""

    def __repr__(self) -> str:
        return f"<Division {' '.join(f'{share:.2f}' for share in self.granted)}>"

    def divide(self, pressures: Mapping[int, float]) -> dict[int, float]:
        """New shares by the pressure at each worker (none said: no pressure); what to tell to whom now.

        Those that get less are told at once; those that get more are told as others confirm.
        """
        wanted = self._wanted(pressures)
        told: dict[int, float] = {}
        for worker, share in enumerate(wanted):
            if share < self._target(worker) - STEP:
                self._asked[worker] = told[worker] = share
        free = 1.0 - sum(self.granted)
        for worker, share in enumerate(wanted):
            if self._asked[worker] is None and share > self.granted[worker] + STEP and free > STEP:
                grown = min(share - self.granted[worker], free)
                self.granted[worker] += grown
                free -= grown
                told[worker] = self.granted[worker]
        return told

    def confirm(self, worker: int, share: float) -> None:
        """The worker uses no more than this share now."""
        asked = self._asked[worker]
        if asked is not None and share <= asked + 1e-9:
            self.granted[worker] = asked
            self._asked[worker] = None

    def begin(self, worker: int) -> float:
        """A worker that is new, or in a lost one's place: what it may use until it is told more."""
        share = self.granted[worker] or max(LEAST, min(FLOOR / len(self.granted), 1.0 - sum(self.granted)))
        self.granted[worker] = share
        return share

    def lost(self, worker: int) -> None:
        """The worker is gone: it uses nothing."""
        self.granted[worker] = 0.0
        self._asked[worker] = None

    # --- within

    def _target(self, worker: int) -> float:
        asked = self._asked[worker]
        return self.granted[worker] if asked is None else asked

    def _wanted(self, pressures: Mapping[int, float]) -> list[float]:
        count = len(self.granted)
        least = FLOOR / count
        weights = [
            max(self._target(worker), least) * max(FLOOR, min(1.0, pressures.get(worker, 0.0)))
            for worker in range(count)
        ]
        scale = (1.0 - least * count) / sum(weights)
        return [least + weight * scale for weight in weights]
