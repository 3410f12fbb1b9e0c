"""Rolling the CA over: publish, switch, re-issue, retire; each step waits for every connector that is alive.

    publish   a new root is made, and the old one vouches for it: all trust both
    switch    the relay serves and signs with the new one, once every living connector trusts it
    re-issue  the connectors renew
    retire    the old one counts no more, once every living connector has a certificate of the new

Living means: with a certificate that is neither expired nor revoked, attached or not. Each step is one event (or a few
in one transaction), so that a crash leaves the roll-over at a step, and the next look goes on from there.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

from cloud_relay.identity.events import Event, Kind, Step, new_event
from cloud_relay.identity.records import ConnectorKey, Stage, TokenRecord, TokenState
from cloud_relay.identity.registrar import Registrar
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


class NewGeneration:
    """Root and issuing CA, with their keys on the disk: before anything says that they count. May block."""

    def __init__(self, registrar: Registrar) -> None:
        now, lifetimes = registrar.now(), registrar.lifetimes
        self._keys = registrar.keys
        self.root = issue.create_root(now, lifetimes.root)
        self.issuing = issue.create_issuing(self.root, registrar.book.relay, now, lifetimes.issuing)
        self._paths: list[Path] = []
        try:
            self._paths.append(self._keys.write_root(self.root))
            self._paths.append(self._keys.write_issuing(self.issuing))
        except BaseException:
            self.discard()
            raise

    def discard(self) -> None:
        """They came to nothing."""
        self._keys.remove(self._paths)


class RollOver:
    """The roll-over of one relay. `in_use(generation)` counts attached tunnels whose certificate is of it."""

    def __init__(self, registrar: Registrar, in_use: Callable[[int], int] = lambda _generation: 0) -> None:
        self.registrar = registrar
        self.in_use = in_use

    # --- what the operator asks

    async def begin(self, by: str = "") -> None:
        """Publish a new root. WrongStage while another roll-over is under way, or when the old root can vouch for
        nobody any more; PkiError if its key is away."""
        registrar, book = self.registrar, self.registrar.book
        self._check_steady()
        if registrar.now() >= book.generation.root.not_valid_after_utc:
            raise WrongStage("the root has ended and can vouch for no other: 'ca rotate --compromised', and new tokens")
        old = registrar.keys.root(book.generation)
        new = await asyncio.to_thread(NewGeneration, registrar)
        try:
            await registrar.change(lambda: (self._published(old, new, by), {}), is_urgent=True)
        except BaseException:
            new.discard()
            raise

    def _check_steady(self) -> None:
        book = self.registrar.book
        if book.stage is not Stage.STEADY:
            raise WrongStage(f"a roll-over is under way ({book.stage}): wait, or 'ca rollback'")

    async def roll_back(self, by: str = "") -> list[TokenRecord]:
        """Go back to the CA of before; the open tokens that end with the newer one. WrongStage where there is nothing
        to go back to."""
        book = self.registrar.book
        was_switched = book.stage is Stage.SWITCHED
        if book.stage is Stage.STEADY:
            raise WrongStage("no roll-over is under way; the last one can no longer be rolled back")
        # Before the switch the new one simply goes; after it the two change places, and connectors renew once more.
        open_before = self._open_tokens()
        await self._step(Step.ROLLED_BACK, book.other, by)
        if not was_switched:
            self.clear_keys()
        return [one for one in open_before if one.revoked_at is not None]

    async def skip(self, key: ConnectorKey, by: str = "") -> None:
        """Do not wait for this connector. LookupError if it is not known, WrongStage outside a roll-over."""
        if self.registrar.book.stage is Stage.STEADY:
            raise WrongStage("no roll-over is under way, so nobody is waited for")
        if key not in self.registrar.book.connectors:
            raise LookupError("/".join(key))
        tenant, location, connector = key
        now = self.registrar.note_time()
        await self.registrar.commit([
            new_event(Kind.SKIPPED, now, tenant=tenant, location=location, connector=connector, by=by)
        ])  # fmt: skip

    async def compromised(self, by: str = "") -> list[TokenRecord]:
        """The CA's keys are in other hands: a new CA at once, nothing of the old one counts. The open tokens that end.

        Every connector has to join again, with a new token.
        """
        registrar = self.registrar
        ended = self._open_tokens()
        new = await asyncio.to_thread(NewGeneration, registrar)

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            number, now = max(registrar.book.generations) + 1, registrar.now()
            step = new_event(Kind.ROLL_OVER, now, step=Step.COMPROMISED.value, generation=number, by=by)
            return [*creation_events(number, new.root, new.issuing, now), step], {}

        try:
            await registrar.change(decide, is_urgent=True)
        except BaseException:
            new.discard()
            raise
        self.clear_keys()
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
        self.clear_keys()
        return True

    # --- within

    async def _step(self, step: Step, generation: int, by: str = "") -> bool:
        """One step, unless another was taken meanwhile."""
        registrar, book = self.registrar, self.registrar.book
        stage = book.stage
        taken: list[Step] = []

        def decide() -> tuple[list[Event], dict[str, bytes]]:
            taken.clear()
            if book.stage is not stage or book.other != generation:
                return [], {}
            taken.append(step)
            now = registrar.note_time()
            return [new_event(Kind.ROLL_OVER, now, step=step.value, generation=generation, by=by)], {}

        await registrar.change(decide, is_urgent=True)
        if taken:
            log.warning("a step of the CA's roll-over", step=step.value, generation=generation, stage=book.stage.value)
        return bool(taken)

    def _published(self, old: Authority, new: NewGeneration, by: str) -> list[Event]:
        registrar, book = self.registrar, self.registrar.book
        self._check_steady()
        if book.generation.root != old.certificate:
            raise WrongStage("another roll-over has just ended; see 'ca status'")
        number, now, root = max(book.generations) + 1, registrar.now(), new.root
        # Both ways, so that a connector which joined after the switch finds back after a roll-back.
        forth = issue.cross_sign(old, root.certificate, now)
        back = issue.cross_sign(root, old.certificate, now)
        return [
            *creation_events(number, root, new.issuing, now),
            new_event(Kind.CROSS_SIGNED, now, generation=number, by=book.active, certificate=pem_text(forth)),
            new_event(Kind.CROSS_SIGNED, now, generation=book.active, by=number, certificate=pem_text(back)),
            new_event(Kind.ROLL_OVER, now, step=Step.PUBLISHED.value, generation=number, by=by),
        ]

    def _open_tokens(self) -> list[TokenRecord]:
        now = self.registrar.clock.now()
        return [one for one in self.registrar.book.tokens.values() if one.state(now) is TokenState.OPEN]

    def clear_keys(self) -> None:
        """Remove the keys of CAs that count no more, those included that a crash has left."""
        book = self.registrar.book
        current = [book.generations[number] for number in (book.active, book.other) if number]
        for path in self.registrar.keys.keep_only(current):
            log.warning("removed a key of a CA that counts no more", key_file=path.name)
