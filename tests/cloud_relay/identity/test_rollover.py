"""The CA's roll-over: who is waited for, what counts at each step, and what a crash leaves."""

from __future__ import annotations

from datetime import timedelta

import pytest

from cloud_relay.identity.events import Kind
from cloud_relay.identity.records import Stage, Standing, TokenState
from cloud_relay.identity.registrar import IdentityFault
from cloud_relay.identity.rollover import RollOver, WrongStage
from shared.pki.trust import accept_roots, load_pems, pin_of
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
    issuing, *cross = office.book.served_chain()
    accepted = accept_roots([root], [office.book.generation.root], cross, now)
    issuing.verify_directly_issued_by(accepted[0])


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
    assert sorted(path.name.partition("-2")[0] for path in office.keys.folder.iterdir()) == ["issuing", "root"]  # new
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
    issued = await office.redeem(token)
    assert office.book.standing(issued.record.fingerprint, KEY, office.now) is Standing.GOOD
    roots, cross = (load_pems(texts) for texts in (issued.roots, issued.cross))
    pinned = [one for one in office.book.generations.values() if one.pin == token.pin]
    assert accept_roots([pinned[0].root], roots, cross, office.now) == roots


async def test_compromised(office):
    first, token = await office.join(), await office.token(OTHER)
    old_root = office.book.generation.root
    ended = await RollOver(office.registrar).compromised()
    assert [one.token for one in ended] == [token.token]
    assert office.book.tokens[token.token].state(office.now) is TokenState.REVOKED
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.REVOKED
    assert old_root not in office.book.trust(office.now).client_roots
    assert office.registrar.root_texts()[1] == []
    assert {path.name.split("-")[1].partition(".")[0] for path in office.keys.folder.iterdir()} == {"2"}
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
