"""Rolling the CA over: publish, switch, re-issue, retire; each step waits for every connector that is alive.

    publish   a new root is made, and the old one vouches for it: all trust both
    switch    the relay serves and signs with the new one, once every living connector trusts it
    re-issue  the connectors renew
    retire    the old one counts no more, once every living connector has a certificate of the new

Living means: with a certificate that is neither expired nor revoked, attached or not. Each step is one event (or a few
in one transaction), so that a crash leaves the roll-over at a step, and the next look goes on from there.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from cloud_relay.identity.events import Event, Kind, Step, new_event
from cloud_relay.identity.records import ConnectorKey, Stage, TokenRecord, TokenState
from cloud_relay.identity.registrar import IdentityFault, Registrar
from shared.logs import get_logger
from shared.pki import issue
from shared.pki.issue import Authority
from shared.pki.trust import pem_text

log = get_logger("relay.identity")


class WrongStage(Exception):
    """What was asked for does not fit the stage; the message says what does."""


def creation_events(number: int, root: Authority, issuing: Authority, now: datetime) -> list[Event]:
    """A new generation, as events."""
    return [
        new_event(Kind.ROOT_CREATED, now, generation=number, certificate=pem_text(root.certificate)),
        new_event(Kind.ISSUING_CREATED, now, generation=number, certificate=pem_text(issuing.certificate)),
    ]


def new_generation(registrar: Registrar, number: int) -> tuple[Authority, Authority]:
    """Root and issuing CA, their keys on the disk. Raises OSError."""
    now, lifetimes = registrar.now(), registrar.lifetimes
    root = issue.create_root(now, lifetimes.root)
    issuing = issue.create_issuing(root, registrar.book.relay, now, lifetimes.issuing)
    registrar.keys.write_root(number, root)
    registrar.keys.write_issuing(number, issuing)
    return root, issuing


class RollOver:
    """The roll-over of one relay. `in_use(generation)` counts attached tunnels whose certificate is of it."""

    def __init__(self, registrar: Registrar, in_use: Callable[[int], int] = lambda _generation: 0) -> None:
        self.registrar = registrar
        self.in_use = in_use

    # --- what the operator asks

    async def begin(self) -> None:
        """Publish a new root. WrongStage while another roll-over is under way; PkiError if the old root's key is
        away."""
        registrar, book = self.registrar, self.registrar.book
        if book.stage is not Stage.STEADY:
            raise WrongStage(f"a roll-over is under way ({book.stage}): wait, or 'ca rollback'")
        old = registrar.keys.root(book.generation)
        number = max(book.generations) + 1
        root, issuing = new_generation(registrar, number)
        await registrar.change(lambda: (self._published(number, old, root, issuing), {}))

    async def roll_back(self) -> None:
        """Go back to the CA of before. WrongStage where there is nothing to go back to."""
        book = self.registrar.book
        was_switched = book.stage is Stage.SWITCHED
        if book.stage is Stage.STEADY:
            raise WrongStage("no roll-over is under way; the last one can no longer be rolled back")
        # Before the switch the new one simply goes; after it the two change places, and connectors renew once more.
        await self._step(Step.ROLLED_BACK, book.other)
        if not was_switched:
            self._destroy_retired()

    async def skip(self, key: ConnectorKey) -> None:
        """Do not wait for this connector. LookupError if it is not known, WrongStage outside a roll-over."""
        if self.registrar.book.stage is Stage.STEADY:
            raise WrongStage("no roll-over is under way, so nobody is waited for")
        if key not in self.registrar.book.connectors:
            raise LookupError("/".join(key))
        tenant, location, connector = key
        now = self.registrar.clock.now()
        await self.registrar.commit([
            new_event(Kind.SKIPPED, now, tenant=tenant, location=location, connector=connector)
        ])  # fmt: skip

    async def compromised(self) -> list[TokenRecord]:
        """The CA's keys are in other hands: a new CA at once, nothing of the old one counts. The open tokens that end.

        Every connector has to join again, with a new token.
        """
        registrar, book = self.registrar, self.registrar.book
        now = registrar.clock.now()
        ended = [one for one in book.tokens.values() if one.state(now) is TokenState.OPEN]
        number = max(book.generations) + 1
        gone = list(book.generations)
        root, issuing = new_generation(registrar, number)
        events = creation_events(number, root, issuing, registrar.now())
        step = new_event(Kind.ROLL_OVER, registrar.now(), step=Step.COMPROMISED.value, generation=number)
        await registrar.commit([*events, step])
        for old in gone:
            registrar.keys.destroy(old)
        return ended

    # --- what time brings

    async def advance(self) -> bool:
        """Take the next step if nobody has to be waited for; whether one was taken. Safe to ask at any time."""
        book = self.registrar.book
        if book.stage is Stage.STEADY or book.waits_for(self.registrar.clock.now()):
            return False
        if book.stage is Stage.PUBLISHED:
            return await self._step(Step.SWITCHED, book.other)
        if self.in_use(book.other):
            return False
        await self._step(Step.RETIRED, book.other)
        self._destroy_retired()
        return True

    # --- within

    async def _step(self, step: Step, generation: int) -> bool:
        """One step, unless another was taken meanwhile."""
        registrar, book = self.registrar, self.registrar.book
        stage = book.stage
        taken: list[Step] = []

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            if book.stage is not stage or book.other != generation:
                return [], {}
            taken.append(step)
            return [new_event(Kind.ROLL_OVER, registrar.clock.now(), step=step.value, generation=generation)], {}

        await registrar.change(decide)
        if taken:
            log.warning("a step of the CA's roll-over", step=step.value, generation=generation, stage=book.stage.value)
        return bool(taken)

    def _published(self, number: int, old: Authority, root: Authority, issuing: Authority) -> list[Event]:
        registrar, book = self.registrar, self.registrar.book
        if book.stage is not Stage.STEADY or number in book.generations:
            raise IdentityFault("cannot-issue", "another roll-over has begun")
        now = registrar.now()
        # Both ways, so that a connector which joined after the switch finds back after a roll-back.
        forth = issue.cross_sign(old, root.certificate, now)
        back = issue.cross_sign(root, old.certificate, now)
        return [
            *creation_events(number, root, issuing, now),
            new_event(Kind.CROSS_SIGNED, now, generation=number, by=book.active, certificate=pem_text(forth)),
            new_event(Kind.CROSS_SIGNED, now, generation=book.active, by=number, certificate=pem_text(back)),
            new_event(Kind.ROLL_OVER, now, step=Step.PUBLISHED.value, generation=number),
        ]

    def _destroy_retired(self) -> None:
        for number in self.registrar.book.retired:
            for path in self.registrar.keys.destroy(number):
                log.warning("removed a key of a CA that was retired", key_file=path.name)
