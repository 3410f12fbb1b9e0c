"""Tokens are redeemed and certificates renewed: who gets one, who does not, and what a crash leaves."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509

from cloud_relay.identity.events import Kind, Scope, new_event
from cloud_relay.identity.ledger import IdentityFault
from cloud_relay.identity.records import Standing, TokenState
from cloud_relay.identity.registrar import MAX_UNEXPIRED
from cloud_relay.identity.revocation import block, revoke, unblock
from cloud_relay.identity.store import StateError
from cloud_relay.identity.tokens import revoke_token
from shared.pki import issue
from shared.pki.requests import make_request
from shared.pki.spiffe import connector_id, parse_spiffe_id
from shared.pki.trust import pem_text
from shared.tasks import spawn
from tests.cloud_relay.identity.kit import KEY, NOW, OTHER, Holder, Office, holder, leaf


@pytest.fixture
async def office(tmp_path):
    return await Office(tmp_path).open()


def refused(code: str):
    return pytest.raises(IdentityFault, match=code)


async def test_a_token_is_good_for_a_certificate(office):
    issued = await office.redeem(await office.token())
    certificate = leaf(issued)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert parse_spiffe_id(names.get_values_for_type(x509.UniformResourceIdentifier)[0]) == connector_id(
        "qanat.test", *KEY
    )
    assert certificate.not_valid_after_utc == NOW + timedelta(days=7)
    assert office.book.standing(issued.record.fingerprint, KEY, office.now) is Standing.GOOD
    certificate.verify_directly_issued_by(office.book.generation.issuing)


async def test_of_a_hundred_uses_with_different_keys_one_wins(office):
    token = await office.token()
    results = await asyncio.gather(*(office.redeem(token) for _ in range(100)), return_exceptions=True)
    won = [one for one in results if not isinstance(one, BaseException)]
    lost = [one.fault.code for one in results if isinstance(one, IdentityFault)]
    assert len(won) == 1
    assert lost == ["token-used"] * 99
    assert sum(event.kind is Kind.TOKEN_MISUSED for event in office.store.events) == 1


async def test_the_same_token_and_key_get_the_same_certificate_for_a_day(office):
    token, key = await office.token(), issue.new_key()
    first = await office.redeem(token, key)
    office.restart()
    office.times.pass_by(timedelta(hours=23))
    assert (await office.redeem(token, key)).certificate == first.certificate
    office.times.pass_by(timedelta(hours=2))
    with refused("token-used"):
        await office.redeem(token, key)
    assert not any(event.kind is Kind.TOKEN_MISUSED for event in office.store.events)


async def test_tokens_that_count_no_more(office):
    expired, revoked, forged = await office.token(), await office.token(), await office.token()
    await revoke_token(office.registrar, revoked.token)
    office.times.pass_by(timedelta(minutes=59))
    assert office.book.tokens[expired.token].state(office.now) is TokenState.OPEN
    with refused("token-revoked"):
        await office.redeem(revoked)
    with refused("token-unknown"):
        await office.redeem(forged._replace(secret="0" * 64))
    with refused("token-unknown"):
        await office.redeem(forged._replace(token="other"))
    office.times.pass_by(timedelta(minutes=2))
    with refused("token-expired"):
        await office.redeem(expired)
    assert not office.book.certificates


async def test_a_request_for_another_identity(office):
    token = await office.token()
    for stranger in (connector_id("qanat.test", *OTHER), connector_id("elsewhere.test", *KEY)):
        with refused("request-refused"):
            await office.registrar.redeem(
                token.token, token.secret, make_request(issue.new_key(), stranger), "192.0.2.7"
            )
    request = make_request(issue.new_key(), token.identity)
    assert await office.registrar.redeem(token.token, token.secret, request, "192.0.2.7")


async def test_a_request_that_is_none_uses_no_token_up(office):
    token = await office.token()
    with refused("request-refused"):
        await office.registrar.redeem(token.token, token.secret, b"nonsense", "192.0.2.7")
    assert await office.redeem(token)


async def test_renewal(office):
    first = await office.join()
    office.times.pass_by(timedelta(days=3))
    second = await office.renew(first)
    assert second.fingerprint != first.fingerprint
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.GOOD
    office.times.pass_by(timedelta(days=5))
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.RENEW_ONLY
    assert office.book.standing(second.fingerprint, KEY, office.now) is Standing.GOOD


async def test_an_answer_that_was_lost_is_given_again(office):
    first, key = await office.join(), issue.new_key()
    second = await office.renew(first, key)
    office.restart()
    assert await office.renew(first, key) == second
    with refused("request-refused"):  # but a key that has a certificate gets no other
        await office.renew(second, key)


async def test_whoever_slept_for_a_month_renews_and_nothing_else(office):
    first = await office.join()
    office.times.pass_by(timedelta(days=7 + 29))
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.RENEW_ONLY
    second = await office.renew(first)
    assert office.book.standing(second.fingerprint, KEY, office.now) is Standing.GOOD
    office.times.pass_by(timedelta(days=7 + 31))
    assert office.book.standing(second.fingerprint, KEY, office.now) is Standing.EXPIRED
    with refused("certificate-expired"):
        await office.renew(second)


async def test_a_renewal_for_another_connector(office):
    first, other = await office.join(), await office.join(OTHER)
    with refused("request-refused"):
        await office.registrar.renew(first, make_request(issue.new_key(), connector_id("qanat.test", *OTHER)))
    with refused("certificate-unknown"):
        await office.renew(Holder(OTHER, first.fingerprint))
    assert other.fingerprint in office.book.certificates


@pytest.mark.parametrize(
    ("scope", "key"),
    [
        (Scope.CONNECTOR, KEY), (Scope.LOCATION, ("acme", "walldorf", "")), (Scope.TENANT, ("acme", "", "")),
    ],
)  # fmt: skip
async def test_revocation_ends_what_was_issued_until_now(office, scope, key):
    first, stranger = await office.join(), await office.join(("globex", "walldorf", "c1"))
    await revoke(office.registrar, scope, key=key, reason="stolen")
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.REVOKED
    assert office.book.standing(stranger.fingerprint, stranger.key, office.now) is Standing.GOOD
    with refused("certificate-revoked"):
        await office.renew(first)
    office.restart()
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.REVOKED
    again = await office.join()
    assert office.book.standing(again.fingerprint, KEY, office.now) is Standing.GOOD


async def test_one_certificate_is_revoked(office):
    first = await office.join()
    second = await office.renew(first)
    ended = await revoke(office.registrar, Scope.CERTIFICATE, fingerprint=first.fingerprint)
    assert [one.fingerprint for one in ended] == [first.fingerprint]
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.REVOKED
    assert office.book.standing(second.fingerprint, KEY, office.now) is Standing.GOOD


async def test_a_blocked_connector_gets_nothing(office):
    first, token = await office.join(), await office.token()
    await block(office.registrar, KEY, "leaves")
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.BLOCKED
    for asking in (office.redeem(token), office.renew(first), office.token()):
        with refused("connector-blocked"):
            await asking
    assert await unblock(office.registrar, KEY)
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.GOOD
    assert await office.redeem(token)


async def test_a_connector_cannot_fill_the_state(office):
    who = await office.join()
    for _ in range(MAX_UNEXPIRED - 1):
        await office.renew(who)
    with refused("renewed-too-often"):
        await office.renew(who)
    office.times.pass_by(timedelta(days=8))
    await office.renew(who)


async def test_a_full_disk_leaves_nothing_half_done(office):
    first, token, key = await office.join(), await office.token(OTHER), issue.new_key()
    before = office.book.number
    office.store.fail = True
    for asking in (office.redeem(token, key), office.renew(first), revoke(office.registrar, Scope.CONNECTOR, key=KEY)):
        with pytest.raises(StateError, match="full"):
            await asking
    assert office.book.number == before
    office.store.fail = False
    assert holder(await office.redeem(token, key)).key == OTHER


async def test_a_clock_that_goes_back_issues_nothing(office):
    first = await office.join()
    office.times.wall -= 86_400.0
    assert await office.renew(first)  # within the process, it is not believed
    office.restart()
    with refused("cannot-issue"):
        await office.renew(first)
    with refused("cannot-issue"):
        await office.token()
    await revoke(office.registrar, Scope.CONNECTOR, key=KEY)  # what closes doors works with any clock
    assert office.book.standing(first.fingerprint, KEY, office.now) is Standing.REVOKED


async def test_a_clock_that_leaps_forward_is_not_believed(office):
    first = await office.join()
    office.times.wall += 40 * 86_400.0
    second = await office.renew(first)
    assert office.book.certificates[second.fingerprint].not_after == NOW + timedelta(days=7)


async def test_a_token_limits_what_may_be_announced(office):
    await office.redeem(await office.token(targets=["metrics", "logs"]))
    assert office.book.allowed_targets(KEY) == {"metrics", "logs"}
    assert office.book.allowed_targets(OTHER) is None


async def test_no_secret_is_stored(office):
    token = await office.token()
    await office.redeem(token)
    assert token.secret not in repr(office.store.events)


async def test_a_clock_that_was_wrong_once_is_set_right_by_the_operators_word(office):
    office.times.wall += 40 * 86_400.0
    office.restart()  # with the wrong clock, which nothing contradicts
    await office.token()
    office.times.wall -= 40 * 86_400.0
    office.restart()
    with refused("cannot-issue"):
        await office.token()
    await block(office.registrar, OTHER)  # closes a door, and does not move the time either
    with refused("cannot-issue"):
        await office.token()
    await office.registrar.change(lambda: ([new_event(Kind.CLOCK_ACCEPTED, office.now)], {}))
    assert await office.token()


async def test_a_revocation_under_a_clock_set_back_revives_nothing(office):
    made = office.now
    office.times.pass_by(timedelta(hours=2))
    await revoke(office.registrar, Scope.CONNECTOR, key=KEY)
    office.times.wall -= 86_400.0
    office.restart()
    await revoke(office.registrar, Scope.CONNECTOR, key=KEY)
    assert office.book.was_revoked_since("ab" * 32, KEY, made + timedelta(hours=1))


async def test_a_connector_that_says_now_this_and_now_that_writes_no_list(office):
    await office.join()
    pin = office.book.generation.pin
    before = office.book.number
    for pins in ([], [pin], ["ab" * 32], [pin]) * 10:
        await office.registrar.note_trust(KEY, pins)
    assert office.book.number == before
    await office.registrar.note_trust(("no", "such", "one"), [pin])
    assert office.book.number == before


async def test_past_the_half_of_its_newest_a_connector_may_renew_however_many_it_has(office):
    who = await office.join()
    for _ in range(MAX_UNEXPIRED - 1):
        who = await office.renew(who)
    with refused("renewed-too-often"):
        await office.renew(who)
    office.times.pass_by(timedelta(days=3, hours=13))
    assert await office.renew(who)


async def test_what_fails_to_follow_a_change_does_not_undo_it(office):
    told: list[object] = []

    def fail(_events):
        raise RuntimeError("no")

    office.registrar.on_change(fail)
    office.registrar.on_change(told.append)
    assert await block(office.registrar, KEY)
    assert told


async def test_what_an_operator_asks_waits_for_one_thing_at_most(office):
    order = []
    office.registrar.on_change(lambda events: order.append(events[0].kind))
    tokens = [await office.token(("acme", "berlin", f"c{n}")) for n in range(20)]
    order.clear()
    joins = [spawn(office.redeem(token), "join") for token in tokens]
    await asyncio.sleep(0)
    await block(office.registrar, KEY)
    assert order.index(Kind.BLOCKED) <= 2
    await asyncio.gather(*joins)


class TestTakingIn:
    """After a restore: what was issued between the backup and it."""

    @pytest.fixture
    async def lost(self, office):
        """A certificate that the restored state does not know."""
        backup, at = list(office.store.events), office.now
        office.times.pass_by(timedelta(minutes=1))
        issued = await office.redeem(await office.token())
        office.times.pass_by(timedelta(minutes=1))
        office.store.events[:] = backup
        office.restart()
        await office.registrar.commit(
            [new_event(Kind.RESTORED, office.now, backup_at=at.timestamp(), backup_number=len(backup))]
        )
        return leaf(issued)

    async def test_it_is_taken_in_once_and_without_targets_that_nobody_knows(self, office, lost):
        results = await asyncio.gather(*(office.registrar.take_in(lost, KEY) for _ in range(5)))
        assert all(results)
        assert len(office.book.connectors[KEY].certificates) == 1
        assert office.book.standing(issue.fingerprint(lost), KEY, office.now) is Standing.GOOD
        assert office.book.allowed_targets(KEY) == frozenset()

    async def test_not_as_another_connectors(self, office, lost):
        assert await office.registrar.take_in(lost, KEY)
        assert not await office.registrar.take_in(lost, OTHER)

    @pytest.mark.parametrize("how", ["block", "revoke", "revoke it"])
    async def test_not_what_was_ended_meanwhile(self, office, lost, how):
        if how == "block":
            await block(office.registrar, KEY)
        elif how == "revoke":
            await revoke(office.registrar, Scope.CONNECTOR, key=KEY)
        else:
            await revoke(office.registrar, Scope.CERTIFICATE, fingerprint=issue.fingerprint(lost))
        assert not await office.registrar.take_in(lost, KEY)

    async def test_also_when_the_issuing_ca_was_renewed(self, office, lost):
        root = office.keys.root(office.book.generation)
        new = issue.create_issuing(root, "r1", office.now)
        await office.registrar.commit(
            [new_event(Kind.ISSUING_CREATED, office.now, generation=1, certificate=pem_text(new.certificate))]
        )
        assert await office.registrar.take_in(lost, KEY)

    async def test_not_what_is_older_or_newer(self, office, lost):
        authority = office.registrar.authority()
        for when in (office.now - timedelta(hours=1), office.now + timedelta(hours=1)):
            stranger = issue.issue_connector(
                authority, connector_id("qanat.test", *OTHER), issue.new_key().public_key(), when
            )
            assert not await office.registrar.take_in(stranger, OTHER)

    async def test_not_of_another_ca(self, office, lost):
        foreign = issue.create_issuing(issue.create_root(office.now), "r1", office.now)
        stranger = issue.issue_connector(
            foreign, connector_id("qanat.test", *KEY), issue.new_key().public_key(), office.now - timedelta(minutes=1)
        )
        assert not await office.registrar.take_in(stranger, KEY)
