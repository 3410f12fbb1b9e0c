"""The CA's roll-over: who is waited for, what counts at each step, and what a crash leaves."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest

from cloud_relay.identity.events import Kind
from cloud_relay.identity.ledger import IdentityFault
from cloud_relay.identity.records import Stage, Standing, TokenState
from cloud_relay.identity.rollover import NewGeneration, RollOver, WrongStage
from shared.pki.trust import MAX_ROOTS, accept_roots, choose_pinned, load_pems, pin_of
from tests.cloud_relay.identity.kit import KEY, OTHER, Office


@pytest.fixture
async def office(tmp_path):
    return await Office(tmp_path).open()


async def trust(office, key=KEY):
    """The connector says that it trusts all it was told."""
    roots, _ = office.registrar.root_texts()
    await office.registrar.note_trust(key, [pin_of(root) for root in load_pems(roots)])


def chain_leads_to(office, root, now):
    """Whether whoever trusts only `root` can verify what the relay serves: the issuing CA below an accepted root."""
    issuing, *cross = office.book.served_chain(office.now)
    accepted = accept_roots([root], [office.book.generation.root], cross, now)
    issuing.verify_directly_issued_by(accepted[0])


def current_keys(office):
    generation = office.book.generation
    return {office.keys.root_path(generation.root), office.keys.issuing_path(generation.issuing)}


async def test_all_steps_with_one_connector(office):
    old_root = office.book.generation.root
    roll = RollOver(office.registrar)
    first = await office.join()
    await roll.begin()
    assert office.book.stage == Stage.PUBLISHED
    assert [one.key for one in office.book.waits_for(office.now)] == [KEY]
    assert not await roll.advance()
    await trust(office)
    assert await roll.advance()
    assert (office.book.stage, office.book.active) == (Stage.SWITCHED, 2)
    chain_leads_to(office, old_root, office.now)
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.GOOD
    assert not await roll.advance()
    second = await office.renew(first)
    assert await roll.advance()
    assert office.book.stage is Stage.STEADY
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.RENEW_ONLY
    assert office.book.standing(second.fingerprint, KEY, office.now) is Standing.GOOD
    assert set(office.keys.folder.iterdir()) == current_keys(office)
    chain_leads_to(office, old_root, office.now)


async def test_it_waits_for_tunnels_of_the_old_one(office):
    attached = [1]
    roll = RollOver(office.registrar, lambda generation: len(attached) if generation == 1 else 0)
    await roll.begin()
    assert await roll.advance()
    assert not await roll.advance()
    attached.clear()
    assert await roll.advance()


async def test_a_crash_after_any_step(office):
    first = await office.join()
    for stage in (Stage.PUBLISHED, Stage.SWITCHED, Stage.STEADY):
        if stage is Stage.PUBLISHED:
            await RollOver(office.registrar).begin()
        else:
            await RollOver(office.registrar).advance()
        office.restart()
        assert office.book.stage is stage
        await trust(office)
        await office.renew(first)
    assert office.book.active == 2


async def test_who_sleeps_is_waited_for_until_its_certificate_ends(office):
    slept = await office.join()
    old_root = office.book.generation.root
    roll = RollOver(office.registrar)
    await roll.begin()
    office.times.pass_by(timedelta(days=6))
    assert not await roll.advance()
    office.times.pass_by(timedelta(days=2))
    assert await roll.advance()
    assert await roll.advance()
    assert office.book.stage is Stage.STEADY
    # It comes back by itself: the old root leads to the new one, and its certificate may be renewed.
    chain_leads_to(office, old_root, office.now)
    assert old_root in office.book.trust(office.now).client_roots
    assert office.book.standing(slept.fingerprint, KEY, office.now) is Standing.RENEW_ONLY
    renewed = await office.renew(slept)
    assert office.book.standing(renewed.fingerprint, KEY, office.now) is Standing.GOOD


async def test_a_named_one_is_not_waited_for(office):
    await office.join()
    roll = RollOver(office.registrar)
    with pytest.raises(WrongStage):
        await roll.skip(KEY)
    await roll.begin()
    with pytest.raises(LookupError):
        await roll.skip(OTHER)
    await roll.skip(KEY)
    assert await roll.advance()
    assert await roll.advance()
    assert not office.book.connectors[KEY].is_skipped


async def test_rolled_back_before_the_switch(office):
    first = await office.join()
    roll = RollOver(office.registrar)
    await roll.begin()
    await roll.roll_back()
    assert (office.book.stage, office.book.active) == (Stage.STEADY, 1)
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.GOOD
    assert len(office.registrar.root_texts()[0]) == 1
    await roll.begin()  # and once more, with a third one
    assert office.book.other == 3


async def test_rolled_back_after_the_switch(office):
    first = await office.join()
    roll = RollOver(office.registrar)
    await roll.begin()
    await trust(office)
    await roll.advance()
    second = await office.renew(first)
    newcomer = await office.join(OTHER)  # which has been told of both
    new_root = office.book.generation.root
    await roll.roll_back()
    assert (office.book.stage, office.book.active, office.book.other) == (Stage.SWITCHED, 1, 2)
    chain_leads_to(office, new_root, office.now)
    for who in (second, newcomer):
        assert office.book.standing(who.fingerprint, who.key, office.now) is Standing.GOOD
    assert not await roll.advance()
    await office.renew(second)
    await office.renew(newcomer)
    assert await roll.advance()
    assert (office.book.stage, office.book.active) == (Stage.STEADY, 1)
    with pytest.raises(WrongStage):
        await roll.roll_back()


async def test_two_at_once(office):
    roll = RollOver(office.registrar)
    await roll.begin()
    with pytest.raises(WrongStage, match="under way"):
        await roll.begin()


async def test_open_tokens_survive(office):
    token = await office.token(lifetime=timedelta(days=1))
    roll = RollOver(office.registrar)
    await roll.begin()
    await roll.advance()
    await roll.advance()
    assert office.book.active == 2
    pinned = choose_pinned(load_pems(office.registrar.join_texts()[0]), [token.pin], office.now)
    chain_leads_to(office, pinned[0], office.now)
    issued = await office.redeem(token)
    assert office.book.standing(issued.record.fingerprint, KEY, office.now) is Standing.GOOD
    assert accept_roots(pinned, load_pems(issued.roots), load_pems(issued.cross), office.now) == [
        office.book.generation.root
    ]


async def test_compromised(office):
    first, token = await office.join(), await office.token(OTHER)
    old_root = office.book.generation.root
    ended = await RollOver(office.registrar).compromised()
    assert [one.token for one in ended] == [token.token]
    assert office.book.tokens[token.token].state(office.now) is TokenState.REVOKED
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.REVOKED
    assert old_root not in office.book.trust(office.now).client_roots
    assert office.registrar.root_texts()[1] == []
    assert set(office.keys.folder.iterdir()) == current_keys(office)
    with pytest.raises(IdentityFault, match="certificate-revoked"):
        await office.renew(first)
    again = await office.join()
    assert office.book.standing(again.fingerprint, KEY, office.now) is Standing.GOOD


async def test_three_roll_overs_and_who_slept_through_all(office):
    old_root = office.book.generation.root
    roll = RollOver(office.registrar)
    for _ in range(3):
        await roll.begin()
        await roll.advance()
        await roll.advance()
    assert office.book.active == 4
    chain_leads_to(office, old_root, office.now)


async def test_the_list_tells_all(office):
    roll = RollOver(office.registrar)
    await roll.begin()
    await roll.advance()
    await roll.advance()
    steps = [event.text("step") for event in office.store.events if event.kind is Kind.ROLL_OVER]
    assert steps == ["published", "switched", "retired"]


async def test_two_at_the_same_moment(office):
    roll = RollOver(office.registrar)
    results = await asyncio.gather(roll.begin(), roll.begin(), return_exceptions=True)
    assert sorted(type(one).__name__ for one in results) == ["NoneType", "WrongStage"]
    await roll.advance()
    await roll.advance()
    assert set(office.keys.folder.iterdir()) == current_keys(office)
    await roll.begin()  # its root's key is the right one


async def test_tokens_of_a_root_that_is_rolled_back_end_and_are_named(office):
    roll = RollOver(office.registrar)
    older = await office.token()
    await roll.begin()
    await roll.advance()
    newer = await office.token(OTHER)
    assert [one.token for one in await roll.roll_back()] == [newer.token]
    await roll.advance()
    assert office.book.tokens[newer.token].state(office.now) is TokenState.REVOKED
    assert await office.redeem(older)


async def test_any_number_of_roll_overs_can_be_followed(office):
    roll = RollOver(office.registrar)
    for _ in range(20):
        who = await office.join()
        await roll.begin()
        await trust(office)
        await roll.advance()
        await office.renew(who)
        await roll.advance()
        assert office.book.stage is Stage.STEADY
        office.times.pass_by(timedelta(days=8))
    _, cross = office.registrar.root_texts()
    assert len(cross) <= MAX_ROOTS
    assert len(office.book.served_chain(office.now)) <= MAX_ROOTS


async def test_a_retired_root_stays_as_long_as_a_certificate_of_it_may_be_renewed(office):
    old_root = office.book.generation.root
    who = await office.join()
    roll = RollOver(office.registrar)
    await roll.begin()
    await roll.skip(KEY)
    await roll.advance()
    await roll.advance()
    office.times.pass_by(timedelta(days=36))
    office.book.forget(office.now)
    assert old_root in office.book.trust(office.now).client_roots
    assert await office.renew(who)
    office.times.pass_by(timedelta(days=2))
    office.book.forget(office.now)
    assert old_root not in office.book.trust(office.now).client_roots


async def test_a_root_that_has_ended_vouches_for_nobody(office):
    office.times.pass_by(timedelta(days=3651))
    with pytest.raises(WrongStage, match="compromised"):
        await RollOver(office.registrar).begin()


async def test_keys_that_a_crash_left_are_removed_at_the_next_start(office):
    NewGeneration(office.registrar)
    assert len(list(office.keys.folder.iterdir())) == 4
    RollOver(office.registrar).clear_keys()
    assert set(office.keys.folder.iterdir()) == current_keys(office)
