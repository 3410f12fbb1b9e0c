"""Joining through the real listener: who gets a certificate, who does not, and what nobody can use up."""

from __future__ import annotations

import asyncio
import json
from datetime import timedelta

import pytest
from cryptography import x509

from cloud_relay.identity import enrolment as module
from cloud_relay.identity.enrolment import EnrolmentLimits, Tries, parse_want
from cloud_relay.identity.tokens import revoke_token
from shared.pki import issue
from shared.pki.join_token import JoinToken
from shared.pki.requests import make_request
from shared.pki.spiffe import connector_id
from shared.pki.trust import pin_of
from shared.tunnel.websocket_client import HandshakeRefused
from tests.cloud_relay.identity.door_kit import Door, door
from tests.cloud_relay.identity.kit import KEY, OTHER

pytestmark = pytest.mark.system


async def test_from_a_token_to_a_tunnel(tmp_path):
    async with door(tmp_path) as d:
        token = await d.office.token()
        answer = await d.ask({"want": "authorities"})
        roots = [x509.load_pem_x509_certificate(one.encode()) for one in answer["roots"]]
        assert [pin_of(one) for one in roots] == [token.pin]
        assert answer["cross"] == []

        key = issue.new_key()
        answer = await d.redeem(token, key)
        assert answer["wall"] == d.office.now.timestamp()
        leaf = x509.load_pem_x509_certificates(answer["certificate"].encode())[0]
        who = d.write(answer["certificate"].encode(), issue.fingerprint(leaf), key)
        caller = await d.dial(who)
        assert not (await caller.hello).renew_only
        await d.until(lambda: len(d.registry) == 1)
        assert d.registry.sessions()[0].identity.key == KEY
        assert d.enrolment.counts == {"authorities": 1, "ok": 1}
        assert d.enrolment.in_progress == 0


async def test_the_same_key_gets_the_same_again_and_another_none(tmp_path):
    async with door(tmp_path) as d:
        token, key = await d.office.token(), issue.new_key()
        first = await d.redeem(token, key)
        assert (await d.redeem(token, key))["certificate"] == first["certificate"]
        refused = await d.redeem(token, issue.new_key())
        assert refused["error"] == "token-used"
        assert "certificate" not in refused
        assert d.enrolment.counts == {"ok": 2, "token-used": 1}


async def test_of_many_at_once_one_wins(tmp_path):
    async with door(tmp_path) as d:
        token = await d.office.token()
        answers = await asyncio.gather(*(d.redeem(token, issue.new_key()) for _ in range(40)))
        assert sorted(one.get("error", "ok") for one in answers) == ["ok", *["token-used"] * 39]


async def test_tokens_that_are_none(tmp_path):
    async with door(tmp_path) as d, door(tmp_path / "other") as other:
        key = issue.new_key()

        async def error(d: Door, of: JoinToken, **fields: str) -> str:
            return str((await d.redeem(of, key, **fields))["error"])

        token = await d.office.token()
        assert await error(other, token) == "token-unknown"
        flipped = token.secret[:-1] + ("0" if token.secret[-1] != "0" else "1")
        assert await error(d, token, secret=flipped) == "token-unknown"
        assert await error(d, token, token="nothing") == "token-unknown"
        await revoke_token(d.office.registrar, token.token)
        assert await error(d, token) == "token-revoked"
        late = await d.office.token(OTHER)
        d.office.times.pass_by(timedelta(hours=2))
        assert await error(d, late) == "token-expired"
        assert d.office.book.certificates == {}


async def test_a_request_for_somebody_else(tmp_path):
    async with door(tmp_path) as d:
        token, key = await d.office.token(), issue.new_key()
        wanted = connector_id("qanat.test", "acme", "walldorf", "c2")
        answer = await d.redeem(token, key, request=make_request(key, wanted).decode())
        assert answer["error"] == "request-refused"
        assert (await d.redeem(token, key, request="-----BEGIN NOTHING-----"))["error"] == "request-refused"
        assert "certificate" in await d.redeem(token, key)


NONSENSE = [
    b"",
    b"{",
    b"[" * 10_000,
    b"[]",
    b"null",
    b"\xff",
    b"{}",
    b'{"want": "everything"}',
    b'{"want": ["authorities"]}',
    b'{"want": "certificate"}',
    b'{"want": "certificate", "token": 1, "secret": "s", "request": "r"}',
    b'{"want": "certificate", "token": "", "secret": "s", "request": "r"}',
    '{"want": "certificate", "token": "é", "secret": "s", "request": "r"}'.encode(),
    json.dumps({"want": "certificate", "token": "t", "secret": "s" * 129, "request": "r"}).encode(),
    json.dumps({"want": "certificate", "token": "t", "secret": "s", "request": "r" * 4097}).encode(),
]


@pytest.mark.parametrize("message", NONSENSE, ids=range(len(NONSENSE)))
def test_nonsense_is_told_so(message):
    with pytest.raises(ValueError, match=r"^(it is not|'[a-z]+' is n)"):
        parse_want(message)


async def test_nonsense_ends_the_connection(tmp_path):
    async with door(tmp_path) as d:
        assert (await d.ask(b"[" * 10_000))["error"] == "protocol-error"
        enquirer = await d.enquire()
        enquirer.transport.send(b"x" * (16 * 1024 + 1))
        assert await enquirer.closed == 1009
        assert enquirer.answers == []
        twice = await d.enquire()
        message = json.dumps({"want": "certificate", "token": "t", "secret": "s", "request": "r"}).encode()
        twice.transport.send(message)
        twice.transport.send(message)
        await twice.closed
        assert len(twice.answers) <= 1
        await d.until(lambda: d.enrolment.in_progress == 0)


async def test_who_says_nothing_is_cut_off(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIME_LIMIT", 0.1)
    async with door(tmp_path) as d:
        enquirer = await d.enquire()
        async with asyncio.timeout(2):
            await enquirer.closed
        await d.until(lambda: d.enrolment.in_progress == 0)
        assert d.enrolment.counts == {"silent": 1}


async def test_the_client_may_be_gone_before_its_certificate_is_made(tmp_path, monkeypatch):
    async with door(tmp_path) as d:
        token, key = await d.office.token(), issue.new_key()
        may_go, has_begun = asyncio.Event(), asyncio.Event()
        redeem = d.office.registrar.redeem

        async def slow(*args):
            has_begun.set()
            await may_go.wait()
            return await redeem(*args)

        monkeypatch.setattr(d.office.registrar, "redeem", slow)
        enquirer = await d.enquire()
        question = {"want": "certificate", "token": token.token, "secret": token.secret,
                    "request": make_request(key).decode()}  # fmt: skip
        enquirer.transport.send(json.dumps(question).encode())
        await has_begun.wait()
        enquirer.transport.abort()
        await enquirer.closed
        await d.until(lambda: not d.enrolment._open)
        assert d.enrolment.in_progress == 1, "what is being made still counts"
        may_go.set()
        await d.until(lambda: d.enrolment.in_progress == 0)
        assert d.enrolment.counts == {"ok": 1}
        assert "certificate" in await d.redeem(token, key)


async def test_a_registrar_that_takes_too_long_is_not_broken_off(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "TIME_LIMIT", 0.1)
    async with door(tmp_path) as d:
        token, key = await d.office.token(), issue.new_key()
        may_go = asyncio.Event()
        redeem = d.office.registrar.redeem

        async def slow(*args):
            await may_go.wait()
            return await redeem(*args)

        monkeypatch.setattr(d.office.registrar, "redeem", slow)
        assert (await d.redeem(token, key))["error"] == "cannot-issue"
        may_go.set()
        await d.until(lambda: d.enrolment.in_progress == 0)
        monkeypatch.undo()
        assert "certificate" in await d.redeem(token, key)


async def test_a_full_disk_loses_no_token(tmp_path):
    async with door(tmp_path) as d:
        token, key = await d.office.token(), issue.new_key()
        d.office.store.fail = True
        assert (await d.redeem(token, key))["error"] == "cannot-issue"
        d.office.store.fail = False
        assert "certificate" in await d.redeem(token, key)


# --- floods


async def refused(d: Door, path: str = "/") -> str:
    with pytest.raises(HandshakeRefused) as caught:
        await d.enquire(path)
    return caught.value.headers["qanat-error"]


async def test_too_many_at_once_are_turned_away(tmp_path):
    async with door(tmp_path, EnrolmentLimits(in_progress=3, in_progress_per_source=2)) as d:
        first = [await d.enquire() for _ in range(2)]
        assert await refused(d) == "overloaded"
        first[0].transport.abort()
        await d.until(lambda: d.enrolment.in_progress == 1)
        await d.enquire()


async def test_too_many_tries_are_turned_away(tmp_path):
    async with door(tmp_path, EnrolmentLimits(burst=2, rate=0.001)) as d:
        for _ in range(2):
            await d.ask({"want": "authorities"})
        assert await refused(d) == "overloaded"
        assert d.listener.counts.refused == {"overloaded": 1}
        who = await d.join()
        await d.dial(who)  # tunnels are not touched by it


async def test_one_path_only(tmp_path):
    async with door(tmp_path) as d:
        assert await refused(d, "/join") == "wrong-path"


async def test_a_relay_with_a_ca_of_the_operators_signs_nothing(tmp_path):
    async with door(tmp_path) as d:
        d.enrolment.redeems = None
        assert await refused(d) == "signs-nothing"


async def test_the_end_of_the_listener_ends_them(tmp_path):
    async with door(tmp_path) as d:
        enquirer = await d.enquire()
        await d.listener.close()
        await enquirer.closed


def test_tries_come_back_with_time_and_are_bounded_in_number(monkeypatch):
    tries = Tries(2, 0.5)
    assert [tries.take("a", now) for now in (0.0, 0.0, 0.0, 1.0, 2.0, 3.0)] == [True, True, False, False, True, False]
    assert tries.take("b", 3.0)
    monkeypatch.setattr(module, "SOURCES", 3)
    for number in range(10):
        tries.take(str(number), 4.0)
    assert len(tries._buckets) == 3
