"""Many runs on as few sites as it takes: one, until a run fails; then another, so that no failure causes the next."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from chaos.leaks import Leaks
from chaos.network import Network
from chaos.outcome import Outcome
from chaos.runner import Run
from chaos.schedule import Plan
from chaos.site import Site

_HOPELESS: Final = 3
"""Runs in a row without a single push, after which the site is given up: it does not start."""


class Session:
    """Plays plans. `network` is where the sites stand; what a failed run leaves behind goes to `kept`."""

    def __init__(self, network: Network, kept: Path, tell: Callable[[Outcome], None]) -> None:
        self.outcomes: list[Outcome] = []
        self._network = network
        self._kept = kept
        self._tell = tell
        self._stand: tuple[Site, Leaks] | None = None

    async def play(self, plans: Iterable[Plan], until: float) -> None:
        """Play them one after the other; none is begun after `until` (monotonic seconds)."""
        try:
            for plan in plans:
                if time.monotonic() >= until and self.outcomes:
                    break
                outcome = await self._play(plan)
                self.outcomes.append(outcome)
                self._tell(outcome)
                if not any(one.pushes for one in self.outcomes[-_HOPELESS:]) and len(self.outcomes) >= _HOPELESS:
                    break
        finally:
            await self._leave(None)

    async def _play(self, plan: Plan) -> Outcome:
        try:
            site, leaks = await self._enter(plan.fault.site)
            outcome = await Run(site, plan, leaks).play()
        except Exception:  # noqa: BLE001 - whatever broke is this run's finding, and the next one gets another site
            outcome = Outcome(plan.number, plan.fault.name, plan.text, [traceback.format_exc(limit=-4)])
        if not outcome.is_good:
            await self._leave(plan)
        return outcome

    async def _enter(self, kind: type[Site]) -> tuple[Site, Leaks]:
        if self._stand is not None and type(self._stand[0]) is kind:
            return self._stand
        await self._leave(None)
        site = kind(Path(tempfile.mkdtemp(prefix="qanat-chaos-")), self._network)
        self._stand = site, Leaks(site)
        await site.start()
        await self._stand[1].check()
        return self._stand

    async def _leave(self, failed: Plan | None) -> None:
        if self._stand is None:
            return
        site, self._stand = self._stand[0], None
        await site.stop()
        if failed is not None:
            kept = self._kept / f"run-{failed.number}-{failed.fault.name}"
            shutil.rmtree(kept, ignore_errors=True)
            with contextlib.suppress(shutil.Error):  # sockets cannot be copied
                shutil.copytree(site.folder, kept)
        site.leave()
        shutil.rmtree(site.folder, ignore_errors=True)
