"""Several processes write to one state: each decides by what the others have stored, and nobody gets what was not."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest

from cloud_relay.identity.events import Event, Kind
from cloud_relay.identity.ledger import IdentityFault
from cloud_relay.identity.records import Standing
from cloud_relay.identity.registrar import Registrar
from cloud_relay.identity.revocation import block
from cloud_relay.identity.rollover import RollOver
from cloud_relay.identity.tokens import create_token
from shared.pki import issue
from shared.pki.requests import make_request
from tests.cloud_relay.identity.kit import KEY, OTHER, RELAYS, MemoryStore, Office, leaf


class SlowStore(MemoryStore):
    """A list that is read and written as slowly as a disk is: the others have their turn meanwhile."""

    async def read(self, after: int = 0, most: int = -1) -> list[Event]:
        await asyncio.sleep(0)
        return await super().read(after, most)

    async def append(self, after: int, new: Sequence[Event], leaves: Mapping[str, bytes] | None = None) -> list[Event]:
        await asyncio.sleep(0)
        return await super().append(after, new, leaves)


class Workers(Office):
    """Registrars of several processes, over one list."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.store = SlowStore()
        self.registrar = self._registrar()
        self.several: list[Registrar] = []

    async def open(self) -> Workers:
        await super().open()
        for _ in range(4):
            self.restart()
            self.registrar.is_shared = True
            self.several.append(self.registrar)
        return self

    async def ask(self, registrar: Registrar, token, key: issue.PrivateKey | None = None):
        return await registrar.redeem(token.token, token.secret, make_request(key or issue.new_key()), "192.0.2.7")


@pytest.fixture
async def workers(tmp_path):
    return await Workers(tmp_path).open()


async def test_a_token_that_was_just_made_is_known_to_all(workers):
    token, _ = await create_token(workers.several[0], KEY, RELAYS)
    issued = await workers.ask(workers.several[3], token)
    assert workers.several[3].book.standing(issued.record.fingerprint, KEY, workers.now) is Standing.GOOD
    await workers.several[1].follow()
    assert workers.several[1].book.standing(issued.record.fingerprint, KEY, workers.now) is Standing.GOOD


async def test_a_token_is_good_once_wherever_it_is_shown(workers):
    token, _ = await create_token(workers.several[0], KEY, RELAYS)
    asked = [workers.ask(one, token) for one in workers.several for _ in range(3)]
    results = await asyncio.gather(*asked, return_exceptions=True)
    won = [one for one in results if not isinstance(one, BaseException)]
    assert len(won) == 1
    assert [one.fault.code for one in results if isinstance(one, IdentityFault)] == ["token-used"] * 11
    assert sum(event.kind is Kind.ISSUED for event in workers.store.events) == 1


async def test_who_asks_while_others_write_gets_the_certificate_that_was_stored(workers):
    keys = [("acme", "walldorf", f"c{number}") for number in range(16)]
    tokens = [(await create_token(workers.several[0], key, RELAYS))[0] for key in keys]
    issued = await asyncio.gather(
        *(workers.ask(workers.several[number % 4], token) for number, token in enumerate(tokens))
    )
    stored = {event.text("fingerprint") for event in workers.store.events if event.kind is Kind.ISSUED}
    assert {one.record.fingerprint for one in issued} == stored
    assert all(issue.fingerprint(leaf(one)) == one.record.fingerprint for one in issued)
    assert [one.record.connector for one in issued] == keys


async def test_what_connectors_trust_is_noted_at_each_of_them(workers):
    keys = [("acme", "walldorf", f"c{number}") for number in range(8)]
    for key in keys:
        await workers.ask(workers.several[0], (await create_token(workers.several[0], key, RELAYS))[0])
    await RollOver(workers.several[0]).begin()
    for one in workers.several:
        await one.follow()
    pins = [one.pin for one in workers.several[0].book.generations.values()]
    await asyncio.gather(*(workers.several[number % 4].note_trust(key, pins) for number, key in enumerate(keys)))
    await workers.several[0].follow()
    assert not workers.several[0].book.waits_for(workers.now)


async def test_a_step_that_another_has_taken_is_not_taken_again(workers):
    await RollOver(workers.several[0]).begin()
    for one in workers.several:
        await one.follow()
    taken = await asyncio.gather(*(RollOver(one).advance() for one in workers.several))
    assert sum(taken) == 1
    assert [await block(one, OTHER) for one in workers.several] == [True, False, False, False]


async def test_who_is_told_of_what_this_process_has_stored(workers):
    told: list[int] = []
    workers.several[1].on_stored = told.append
    await create_token(workers.several[0], KEY, RELAYS)
    await workers.several[1].follow()
    assert not told
    await create_token(workers.several[1], OTHER, RELAYS)
    assert told == [workers.several[1].book.number]
