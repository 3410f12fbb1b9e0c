"""Keeps quotas over all workers: the first one divides them, the others say how pressed theirs are, and obey."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final, NoReturn

from cloud_relay.workers.shares import INTERVAL, Division, GateKey
from shared.channel import batches

if TYPE_CHECKING:
    from cloud_relay.limits import Limits

Tell = Callable[[Mapping[str, Any]], None]


BATCH: Final = 200
"""Quotas in one line: what says more of their names would be longer than lines may be."""


class Obeying:
    """What every worker but the first does. `tell` reaches the first one, while it is there."""

    def __init__(self, limits: Limits, workers: int, tell: Tell, time: Callable[[], float]) -> None:
        self._limits = limits
        self._workers = workers
        self._tell = tell
        self._time = time
        self._said: dict[GateKey, float] = {}
        self._owed: dict[GateKey, float] = {}
        """Shares of which more is still in flight."""
        self._taken: set[GateKey] = set()

    def begin(self) -> None:
        """The first worker is here, perhaps a new one: it knows of no share, nor of what was said before."""
        for key in self._taken:
            self._limits.use_part(key, 1.0 / self._workers)
        self._taken.clear()
        self._owed.clear()
        self._said.clear()

    async def run(self) -> NoReturn:
        """Say how pressed the quotas are, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.say()

    def say(self) -> None:
        """Say what has changed since it was said last."""
        for key, share in list(self._owed.items()):
            self._confirm(key, share)
        pressures = {key: round(one, 2) for key, one in self._limits.pressures(self._time()).items() if one > 0.0}
        eased = self._said.keys() - pressures.keys()
        changed = [[*key, one] for key, one in pressures.items() if self._said.get(key) != one]
        changed += [[*key, 0.0] for key in eased]
        self._said = pressures
        for batch in batches(changed, BATCH):
            self._tell({"pressed": batch})

    def take(self, key: GateKey, share: float) -> None:
        """Use this share from now on, and say so once no more than that is in flight."""
        self._taken.add(key)
        self._limits.use_part(key, share)
        self._confirm(key, share)

    def _confirm(self, key: GateKey, share: float) -> None:
        if self._limits.is_within(key):
            self._owed.pop(key, None)
            self._tell({"shared": key, "of": share})
        else:
            self._owed[key] = share


class Dividing:
    """What the first worker does. `tell(worker, record)` reaches the others."""

    def __init__(
        self, limits: Limits, workers: int, tell: Callable[[int, Mapping[str, Any]], None], time: Callable[[], float]
    ) -> None:
        self._limits = limits
        self._workers = workers
        self._tell = tell
        self._time = time
        self._divisions: dict[GateKey, Division] = {}
        self._pressures: dict[GateKey, dict[int, float]] = {}
        self._owed: dict[GateKey, float] = {}

    async def run(self) -> NoReturn:
        """Divide, until cancelled."""
        while True:
            await asyncio.sleep(INTERVAL)
            self.divide()

    def divide(self) -> None:
        """Divide every quota that is pressed anywhere."""
        for key, share in list(self._owed.items()):
            self._confirm(key, share)
        for key, own in self._limits.pressures(self._time()).items():
            if own > 0.0 or key in self._pressures:
                self._pressures.setdefault(key, {})[0] = own
        for key, pressures in list(self._pressures.items()):
            if not any(pressures.values()):
                del self._pressures[key]
                continue
            division = self._divisions.setdefault(key, Division(self._workers))
            for worker, share in division.divide(pressures).items():
                self._give(key, worker, share)

    def hear(self, worker: int, record: Mapping[str, Any]) -> None:
        """A worker has said something of its quotas."""
        for tenant, kind, name, pressure in record.get("pressed", ()):
            self._pressures.setdefault((tenant, kind, name), {})[worker] = pressure
        if "shared" in record:
            tenant, kind, name = record["shared"]
            division = self._divisions.get((tenant, kind, name))
            if division is not None:
                division.confirm(worker, record["of"])

    def joined(self, worker: int) -> None:
        """A worker is here, perhaps in place of one that was lost: of what is divided it gets little at first."""
        for key, division in self._divisions.items():
            self._tell(worker, {"share": key, "of": division.begin(worker)})

    def lost(self, worker: int) -> None:
        """A worker is gone, and what it had is free."""
        for division in self._divisions.values():
            division.lost(worker)
        for pressures in self._pressures.values():
            pressures.pop(worker, None)

    def _give(self, key: GateKey, worker: int, share: float) -> None:
        if worker:
            self._tell(worker, {"share": key, "of": share})
            return
        self._limits.use_part(key, share)
        self._confirm(key, share)

    def _confirm(self, key: GateKey, share: float) -> None:
        """What this worker may use itself."""
        if self._limits.is_within(key):
            self._owed.pop(key, None)
            self._divisions[key].confirm(0, share)
        else:
            self._owed[key] = share
