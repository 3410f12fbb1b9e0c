"""Plays runs on a site, one after the other, and says of each what came of it."""

from __future__ import annotations

import asyncio
import time
from typing import Final

from chaos.configs import timeouts
from chaos.leaks import Leaks
from chaos.ledger import Ledger
from chaos.outcome import Outcome, outcome_of
from chaos.pushes import TENANTS, arrival_of, try_of
from chaos.schedule import Plan
from chaos.site import Site
from chaos.stage import Stage
from chaos.terms import Terms

PATIENCE: Final = 20.0
"""Seconds for pushes to flow again, for senders to settle, and for the site to come to rest: beyond that, it failed."""

AFTER: Final = 0.4
"""Seconds of pushes after all flow again."""

NOTICED_SLACK: Final = 1.1
"""Seconds that a try may take beyond the time in which a dead tunnel is noticed: the target's own half second, before
the last sign of life and again at the next try, and a little more."""


class Run:
    """One run on a site. What goes wrong is a finding; only a site that cannot go on is an exception."""

    def __init__(self, site: Site, plan: Plan, leaks: Leaks) -> None:
        self._site = site
        self._leaks = leaks
        self._plan = plan
        self._ledger = Ledger()
        self._has_settled = 0

    async def play(self) -> Outcome:
        """Push, play the fault, wait until all flows, let all come to rest, and judge."""
        plan, site, stage = self._plan, self._site, Stage(self._site)
        terms = plan.fault.terms(plan.parameters)
        await plan.fault.prepare(site, plan.parameters)
        site.push(f"r{plan.number}", plan.fault.load)
        try:
            await self._flows(TENANTS, time.monotonic())
            await asyncio.sleep(plan.warm_up)
            await plan.fault.play(stage, plan.parameters)
            await self._flows(sorted(terms.hurts), stage.ended)
            await asyncio.sleep(AFTER)
            await self._settle()
        finally:
            stage.after.close()
        try:
            await site.comes_to_rest(PATIENCE)
        except AssertionError as error:
            stage.finds(str(error))
        else:
            stage.findings += await self._leaks.check()
        await plan.fault.restore(site, plan.parameters)
        return self._judge(stage, terms)

    def _judge(self, stage: Stage, terms: Terms) -> Outcome:
        self._read()
        self._ledger.tries_by_relay = self._site.tries_by_relay()
        outcome = outcome_of(self._plan, stage, self._ledger, terms)
        outcome.findings += stage.findings
        outcome.grown_mib = dict(self._leaks.grown_mib)
        outcome.findings += self._ledger.findings(terms, stage.window, timeouts())
        if outcome.recovery is None:
            outcome.findings.append("pushes did not flow again")
        elif outcome.recovery > terms.recovery:
            outcome.findings.append(f"pushes flowed again after {outcome.recovery:.2f} s, not {terms.recovery:g} s")
        if terms.slowest is not None and outcome.slowest > terms.slowest + NOTICED_SLACK:
            outcome.findings.append(f"a try took {outcome.slowest:.2f} s, not {terms.slowest:g} s")
        return outcome

    async def _flows(self, tenants: tuple[str, ...] | list[str], after: float) -> None:
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline:
            self._read()
            if all(self._ledger.first_acknowledged(tenant, after) is not None for tenant in tenants):
                return
            await asyncio.sleep(0.02)

    async def _settle(self) -> None:
        self._site.settle(PATIENCE)
        deadline = time.monotonic() + PATIENCE + 5.0
        while self._has_settled < len(TENANTS):
            if time.monotonic() > deadline:
                raise TimeoutError("the senders did not settle")
            self._read()
            await asyncio.sleep(0.02)

    def _read(self) -> None:
        """Take in what was written down. Of a head that arrived and a whole push, the latter takes the place."""
        for record in self._site.records():
            match record["event"]:
                case "try":
                    self._ledger.tries.append(try_of(record))
                case "begun":
                    self._ledger.arrivals.append(arrival_of({**record, "at": 0.0, "is_intact": True}))
                case "arrived":
                    self._replace(record)
                case "settled":
                    self._has_settled += 1
                    self._ledger.unsettled += record["unsettled"]

    def _replace(self, record: dict[str, object]) -> None:
        arrival = arrival_of(dict(record))
        arrivals = self._ledger.arrivals
        for index in range(len(arrivals) - 1, -1, -1):
            if (arrivals[index].try_id, arrivals[index].begun) == (arrival.try_id, arrival.begun):
                arrivals[index] = arrival
                return
        arrivals.append(arrival)
