"""Tunnels of a relay that is its own CA: admission by the book, renewal, trust, hints, and their end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509

from cloud_relay.identity import sessions as module
from cloud_relay.identity.events import Kind, Scope, new_event
from cloud_relay.identity.registrar import Lifetimes
from cloud_relay.identity.revocation import block, revoke, unblock
from cloud_relay.identity.rollover import RollOver
from shared.pki import issue
from shared.pki.requests import make_request
from shared.pki.spiffe import connector_id
from shared.protocol import frames
from tests.cloud_relay.identity.door_kit import Caller, Door, Pass, door
from tests.cloud_relay.identity.kit import KEY, NOW, OTHER

pytestmark = pytest.mark.system
DAY = timedelta(days=1)


async def renew(d: Door, caller: Caller, who: str = "") -> Pass:
    """Over the tunnel, with a new key."""
    private = issue.new_key()
    identity = connector_id("qanat.test", "acme", "walldorf", who) if who else None
    assert caller.link.request_certificate(make_request(private, identity))
    async with asyncio.timeout(5):
        answer = await caller.certificates.get()
    if "error" in answer:
        raise LookupError(answer["error"])
    chain = answer["certificate"].encode()
    return d.write(chain, issue.fingerprint(x509.load_pem_x509_certificates(chain)[0]), private)


# --- who gets in


async def test_only_what_stands_in_the_book_gets_in(tmp_path):
    async with door(tmp_path) as d:
        authority = d.office.registrar.authority()
        assert await d.refusal(await d.join()) == "admitted"
        assert await d.refusal(d.forge(authority)) == "certificate-unknown"
        assert await d.refusal(d.forge(authority, "nobody", "knows", "this")) == "certificate-unknown"


async def test_revoked_and_blocked_do_not_get_in(tmp_path):
    async with door(tmp_path) as d:
        who, other = await d.join(), await d.join(OTHER)
        await revoke(d.office.registrar, Scope.CERTIFICATE, fingerprint=who.fingerprint)
        assert await d.refusal(who) == "certificate-revoked"
        await block(d.office.registrar, OTHER)
        assert await d.refusal(other) == "connector-blocked"
        await unblock(d.office.registrar, OTHER)
        assert await d.refusal(other) == "admitted"


async def test_live_tunnels_of_the_revoked_and_blocked_end_within_a_second(tmp_path):
    async with door(tmp_path) as d:
        one, other = await d.dial(await d.join()), await d.dial(await d.join(OTHER))
        await d.until(lambda: len(d.registry) == 2)
        async with asyncio.timeout(1):
            await revoke(d.office.registrar, Scope.CONNECTOR, key=KEY)
            assert await one.closed == "certificate-revoked"
        assert [session.identity.key for session in d.registry.sessions()] == [OTHER]
        async with asyncio.timeout(1):
            await block(d.office.registrar, OTHER)
            assert await other.closed == "connector-blocked"
        assert len(d.registry) == 0


# --- renewal


async def test_renewal_in_the_tunnel(tmp_path):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join())
        renewed = await renew(d, caller)
        assert await d.refusal(renewed) == "admitted"
        assert d.office.book.certificates[renewed.fingerprint].connector == KEY


async def test_a_renewal_for_another_connector_is_refused(tmp_path):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join())
        with pytest.raises(LookupError, match="request-refused"):
            await renew(d, caller, "c2")
        assert OTHER not in d.office.book.connectors
        await renew(d, caller, "c1")  # the tunnel goes on, and so may the next try


async def test_a_full_disk_is_told_and_can_be_tried_again(tmp_path):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join())
        d.office.store.fail = True
        with pytest.raises(LookupError, match="cannot-issue"):
            await renew(d, caller)
        d.office.store.fail = False
        await renew(d, caller)


async def test_a_connector_that_is_gone_gets_its_certificate_all_the_same_later(tmp_path, monkeypatch):
    async with door(tmp_path) as d:
        who = await d.join()
        caller = await d.dial(who)
        may_go = asyncio.Event()
        original = d.office.registrar.renew

        async def slow(*args):
            await may_go.wait()
            return await original(*args)

        monkeypatch.setattr(d.office.registrar, "renew", slow)
        request = make_request(issue.new_key())
        assert caller.link.request_certificate(request)
        await asyncio.sleep(0.05)
        caller.link.abort()
        await caller.closed
        may_go.set()
        await d.until(lambda: len(d.office.book.certificates) == 2)
        again = await d.dial(who)
        again.link.request_certificate(request)
        assert "certificate" in await again.certificates.get()
        assert len(d.office.book.certificates) == 2


async def test_after_expiry_a_session_may_renew_and_nothing_else(tmp_path):
    async with door(tmp_path) as d:
        who = await d.join()
        d.office.times.pass_by(8 * DAY)
        d.listener.tls = d.context()
        caller = await d.dial(who)
        assert (await caller.hello).renew_only
        assert len(d.registry) == 0
        assert d.registry.choose("acme", "walldorf", "frun") is None
        assert d.listener.recheck() == 0
        renewed = await renew(d, caller)
        fresh = await d.dial(renewed)
        assert not (await fresh.hello).renew_only
        await d.until(lambda: len(d.registry) == 1)
        d.office.times.pass_by(31 * DAY)
        assert await d.refusal(who) == "certificate-expired"


async def test_a_renew_only_session_does_not_last(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RENEW_ONLY_TIME", 0.1)
    async with door(tmp_path) as d:
        who = await d.join()
        d.office.times.pass_by(8 * DAY)
        caller = await d.dial(who)
        async with asyncio.timeout(3):
            assert await caller.closed == "going-away"


async def test_a_renew_only_session_of_the_blocked_ends_too(tmp_path):
    async with door(tmp_path) as d:
        who = await d.join()
        d.office.times.pass_by(8 * DAY)
        caller = await d.dial(who)
        await block(d.office.registrar, KEY)
        async with asyncio.timeout(1):
            assert await caller.closed == "connector-blocked"


WRONG = {
    "a certificate": frames.tunnel_frame(frames.CERTIFICATE, b'{"certificate": "x"}'),
    "a hint": frames.tunnel_frame(frames.HINT, b'{"within": 1}'),
    "two requests": 2 * frames.tunnel_frame(frames.RENEW, b'{"request": "x"}'),
    "no request": frames.tunnel_frame(frames.RENEW, b"{}"),
    "a huge request": frames.tunnel_frame(frames.RENEW, b'{"request": "' + b"x" * 5000 + b'"}'),
    "pins that are none": frames.tunnel_frame(frames.TRUST, b'{"pins": ["x"]}'),
    "too many pins": frames.tunnel_frame(
        frames.TRUST, b'{"pins": [' + b",".join([b'"' + b"a" * 64 + b'"'] * 17) + b"]}"
    ),
}


@pytest.mark.parametrize("name", WRONG)
async def test_frames_in_a_wrong_state_end_the_tunnel(tmp_path, name):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join())
        await d.until(lambda: len(d.registry) == 1)
        assert caller.link._transport is not None
        caller.link._transport.send(WRONG[name])
        assert await caller.closed == "protocol-error"
        await d.until(lambda: len(d.registry) == 0)
        assert len(d.office.book.certificates) == 1


async def test_an_old_connector_is_sent_none_of_them(tmp_path):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join(), is_old=True)
        await d.until(lambda: len(d.registry) == 1)
        assert d.listener.hint(KEY, 10.0) == 0
        caller.link.ping()
        await asyncio.sleep(0.05)
        assert not caller.closed.done()


# --- trust and hints


async def test_trust_both_ways(tmp_path):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join())
        pin = d.office.book.generation.pin
        caller.link.send_trust({"pins": [pin]})
        assert caller.link.send_trust({"pins": []})
        message = await caller.trusts.get()
        assert len(message["roots"]) == 1
        await RollOver(d.office.registrar).begin()
        new = d.office.book.generations[2].pin
        caller.link.send_trust({"pins": [pin, new, "f" * 64]})
        await d.until(lambda: d.office.book.connectors[KEY].pins == {pin, new})
        caller.link.send_trust({"pins": []})  # what it once said stays: it is what the roll-over has waited for
        caller.link.send_trust({"pins": [new]})
        await caller.trusts.get()
        noted = [event for event in d.office.store.events if event.kind is Kind.ROOT_TRUSTED]
        assert len(noted) == 1


async def test_a_flood_of_trust_writes_little(tmp_path):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join())
        pin = d.office.book.generation.pin
        for number in range(200):
            caller.link.send_trust({"pins": [pin] if number % 2 else []})
        caller.link.ping()
        await asyncio.sleep(0.3)
        noted = [event for event in d.office.store.events if event.kind is Kind.ROOT_TRUSTED]
        assert len(noted) <= 2


async def test_a_new_root_is_told_to_all_tunnels(tmp_path):
    async with door(tmp_path) as d:
        callers = [await d.dial(await d.join()), await d.dial(await d.join(OTHER))]
        await d.until(lambda: len(d.registry) == 2)  # before its HELLO a connector cannot be told, and asks by itself
        await RollOver(d.office.registrar).begin()
        for caller in callers:
            async with asyncio.timeout(5):
                message = await caller.trusts.get()
            assert len(message["roots"]) == 2
            assert len(message["cross"]) == 2  # each root vouches for the other: a roll-over may be rolled back


async def test_a_hint_reaches_the_connector_once(tmp_path):
    async with door(tmp_path) as d:
        who = await d.join()
        callers = [await d.dial(who), await d.dial(who)]
        await d.until(lambda: len(d.registry) == 2)
        assert d.listener.hint(KEY, 30.0) == 1
        assert d.listener.hint(OTHER, 30.0) == 0
        await d.until(lambda: sum(caller.hints.qsize() for caller in callers) == 1)


# --- clocks


async def test_no_jump_of_the_wall_clock_ends_a_tunnel(tmp_path):
    async with door(tmp_path) as d:
        who = await d.join()
        caller = await d.dial(who)
        await d.until(lambda: len(d.registry) == 1)
        for jump in (40 * DAY, -DAY):
            d.office.times.wall = NOW.timestamp() + jump.total_seconds()
            assert d.office.registrar.clock.is_doubtful
            assert d.listener.recheck() == 0
            assert await d.refusal(who) == "admitted"
            assert not (await d.callers[-1].hello).renew_only
        assert not caller.closed.done()


async def test_even_a_clock_that_is_believed_ends_no_tunnel_before_its_time(tmp_path):
    async with door(tmp_path) as d:
        caller = await d.dial(await d.join())
        await d.until(lambda: len(d.registry) == 1)
        d.office.times.pass_by(40 * DAY)  # as the trusted clock sees it; the loop knows better
        assert d.listener.recheck() == 0
        assert not caller.closed.done()


async def test_a_session_whose_certificate_expires_ends_in_good_order(tmp_path):
    async with door(tmp_path, lifetimes=Lifetimes(leaf=timedelta(seconds=1))) as d:
        caller = await d.dial(await d.join())
        await d.until(lambda: len(d.registry) == 1)
        assert d.listener.recheck() == 0
        await asyncio.sleep(1.1)
        assert d.listener.recheck() == 1
        assert d.registry.choose("acme", "walldorf", "frun") is None
        await d.until(lambda: bool(caller.drains))
        assert await caller.closed == "going-away"


# --- targets, restores, hosts


async def test_targets_that_the_token_did_not_allow_are_not_exposed(tmp_path):
    async with door(tmp_path) as d:
        who = await d.join(targets=["frun"])
        caller = await d.dial(who, {"frun": "http", "secret": "http"})
        await d.until(lambda: len(d.registry) == 1)
        assert d.registry.sessions()[0].targets == {"frun": "http"}
        assert d.registry.choose("acme", "walldorf", "secret") is None
        assert d.guard.not_allowed == {KEY: ("secret",)}
        caller.link.update_targets({"other": "http"})
        await d.until(lambda: d.registry.sessions()[0].targets == {})
        assert d.guard.refused == 2
        caller.link.update_targets({"frun": "http"})
        await d.until(lambda: d.registry.sessions()[0].targets == {"frun": "http"})
        assert d.guard.not_allowed == {}


async def restored(d: Door, hours: int = 1) -> None:
    """A backup of an hour ago was restored just now."""
    at = (NOW - timedelta(hours=hours)).timestamp()
    await d.office.registrar.commit([new_event(Kind.RESTORED, d.office.now, backup_at=at, backup_number=3)])


async def test_what_was_made_between_backup_and_restore_is_taken_in(tmp_path):
    async with door(tmp_path) as d:
        lost = d.forge(d.office.registrar.authority())
        await restored(d)
        await d.dial(lost)
        await d.until(lambda: len(d.registry) == 1)
        assert d.office.book.certificates[lost.fingerprint].connector == KEY
        d.office.times.pass_by(timedelta(hours=1))
        later = d.forge(d.office.registrar.authority())
        assert await d.refusal(later) == "certificate-unknown"


async def test_what_was_blocked_or_revoked_is_not_taken_in(tmp_path):
    async with door(tmp_path) as d:
        lost = d.forge(d.office.registrar.authority())
        await restored(d)
        await block(d.office.registrar, KEY)
        assert await d.refusal(lost) == "certificate-unknown"
        await unblock(d.office.registrar, KEY)
        await revoke(d.office.registrar, Scope.CERTIFICATE, fingerprint=lost.fingerprint)
        assert await d.refusal(lost) == "certificate-revoked"


async def test_a_stranger_takes_no_pushes_before_it_is_known(tmp_path):
    async with door(tmp_path) as d:
        lost = d.forge(d.office.registrar.authority())
        await restored(d)
        d.office.store.fail = True
        caller = await d.dial(lost)
        assert await caller.closed == "certificate-unknown"
        assert len(d.registry) == 0


async def test_two_hosts_with_one_certificate(tmp_path, monkeypatch):
    monkeypatch.setattr("cloud_relay.attendance.CONTEST_TIME", 0.2)
    async with door(tmp_path) as d:
        who = await d.join()
        first = await d.dial(who, instance="host-1")
        await d.until(lambda: len(d.registry) == 1)
        second = await d.dial(who, instance="host-2")
        assert await second.closed == "duplicate-instance"
        assert not first.closed.done()
