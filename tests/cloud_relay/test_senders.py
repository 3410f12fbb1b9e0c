"""Who pushes: realms, the memory of good credentials, Basic and bearer, and the slow hash's way."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import threading
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.credentials import Basic, Bearer, BearerToken, KnownPassword, Passwords, PasswordUser
from cloud_relay.gates import Gate
from cloud_relay.hashing import HashingPool
from cloud_relay.metrics import RelayMetrics, SenderMetrics
from cloud_relay.routing import Route
from cloud_relay.senders import Authenticator, Realm, Remembered, Sender
from cloud_relay.throttle import FailureThrottle
from shared.errors import FAULTS
from shared.http.requests import RequestHead, parse_request_head

PLAIN = parse_request_head(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
UNAUTHENTICATED, NOT_ALLOWED = FAULTS["unauthenticated"], FAULTS["sender-not-allowed"]


class FakeHash:
    """Counts how often it was asked; a slow one can be held back."""

    def __init__(self, secret: bytes, is_slow: bool = False) -> None:
        self.secret = secret
        self.is_slow = is_slow
        self.asked = 0
        self.may_go = threading.Event()
        self.may_go.set()

    def verify(self, secret: bytes) -> bool:
        assert self.may_go.wait(10)
        self.asked += 1
        return secret == self.secret


def head(value: bytes | None) -> RequestHead:
    """A push's head with this credential; the authenticator reads nothing else of it."""
    fields = {b"host": b"h"} if value is None else {b"host": b"h", b"authorization": value}
    return PLAIN._replace(fields=fields)


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


def sender(name: str, tenant: str = "acme") -> Sender:
    return Sender(tenant, name, Gate(), SenderMetrics(tenant, name))


def route(realm: Realm, *senders: Sender) -> Route:
    return Route(
        tenant=realm.tenant, name="r", host=b"h", path=b"/", sub_paths=True, location="l", target="t",
        senders=frozenset(senders), realm=realm, gate=Gate(), metrics=RelayMetrics(process=False).route("acme", "r"),
        quota_fault=FAULTS["quota-exceeded"], max_body=1, hold=3.0, timeout=30.0,
    )  # fmt: skip


@pytest.fixture
def pool() -> Iterator[HashingPool]:
    pool = HashingPool(workers=1, queue=4)
    yield pool
    pool.close()


S4, IBP = sender("s4"), sender("ibp")


class Caller(NamedTuple):
    source: str = "192.0.2.7"
    peer: Any = None


def AUTHENTICATE(where: Route, what: Any, caller: Caller = Caller()) -> Any:  # noqa: N802, B008 - stands for the method
    return Authenticator().authenticate(where, what, caller)


def basic_kind(pool: HashingPool, *users: tuple[str, Sender, FakeHash], tenant: str = "acme") -> Basic:
    entries = [PasswordUser(user.encode(), [KnownPassword(known, owner)]) for user, owner, known in users]
    return Basic(Passwords(tenant, entries, pool, FailureThrottle()))


def realm_of(
    pool: HashingPool, *users: tuple[str, Sender, FakeHash], tokens: dict[bytes, Sender] | None = None
) -> Realm:
    entries = [BearerToken(hashlib.sha256(token).digest(), owner) for token, owner in (tokens or {}).items()]
    return Realm("acme", [basic_kind(pool, *users), Bearer(entries)])


@pytest.mark.parametrize(
    "value",
    [
        basic("s4", "right"),
        basic("s4", "right").replace(b"Basic", b"bAsIc"),
        basic("s4", "right").replace(b" ", b"   "),
    ],
)
def test_the_right_password_is_the_sender(pool: HashingPool, value: bytes) -> None:
    realm = realm_of(pool, ("s4", S4, FakeHash(b"right")))
    assert AUTHENTICATE(route(realm, S4), head(value)) is S4


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"Basic",
        b"Basic ",
        b"Basic " + base64.b64encode(b"s4"),
        b"Basic " + base64.b64encode(b":right"),
        b"Basic " + base64.b64encode(b"s4:right")[:-1],
        b"Basic " + base64.b64encode(b"s4:right") + b"!",
        b"Basic\t" + base64.b64encode(b"s4:right"),
        b"Digest username=s4",
        b"Bearer right",
        basic("s4", "wrong"),
        basic("S4", "right"),
        basic("nobody", "right"),
        basic("s4", "right\n"),
    ],
)
def test_anything_else_is_nobody(pool: HashingPool, value: bytes | None) -> None:
    realm = realm_of(pool, ("s4", S4, FakeHash(b"right")))
    assert AUTHENTICATE(route(realm, S4), head(value)) is UNAUTHENTICATED


@given(st.binary(max_size=60))
def test_no_bytes_let_anybody_in(value: bytes) -> None:
    realm = Realm("acme", [Bearer([BearerToken(hashlib.sha256(b"token").digest(), S4)])])
    expected = S4 if value.strip(b" ") == b"token" else UNAUTHENTICATED
    assert AUTHENTICATE(route(realm, S4), head(b"Bearer " + value)) is expected


def test_two_credentials_are_none(pool: HashingPool) -> None:
    realm = realm_of(pool, ("s4", S4, FakeHash(b"right")), tokens={b"token": S4})
    for one in (basic("s4", "right"), b"Bearer token"):
        assert AUTHENTICATE(route(realm, S4), head(one)) is S4
        assert AUTHENTICATE(route(realm, S4), head(one + b", " + one)) is UNAUTHENTICATED


def test_a_sender_of_the_tenant_that_the_route_does_not_take(pool: HashingPool) -> None:
    realm = realm_of(pool, ("s4", S4, FakeHash(b"a")), ("ibp", IBP, FakeHash(b"b")))
    assert AUTHENTICATE(route(realm, S4), head(basic("ibp", "b"))) is NOT_ALLOWED
    # Also when it is remembered.
    assert AUTHENTICATE(route(realm, S4), head(basic("ibp", "b"))) is NOT_ALLOWED
    assert AUTHENTICATE(route(realm, S4, IBP), head(basic("ibp", "b"))) is IBP


def test_another_tenants_credential_is_nobodys_here(pool: HashingPool) -> None:
    ours = realm_of(pool, ("s4", S4, FakeHash(b"ours")))
    theirs = realm_of(pool, ("s4", sender("s4", "globex"), FakeHash(b"theirs")))
    assert AUTHENTICATE(route(theirs), head(basic("s4", "theirs"))) is NOT_ALLOWED
    assert AUTHENTICATE(route(ours, S4), head(basic("s4", "theirs"))) is UNAUTHENTICATED


def test_a_success_is_remembered_and_a_failure_is_not(pool: HashingPool) -> None:
    known = FakeHash(b"right")
    realm = realm_of(pool, ("s4", S4, known))
    for _ in range(5):
        realm.judge(basic("s4", "right"))
    assert known.asked == 1
    for _ in range(5):
        realm.judge(basic("s4", "wrong"))
    assert known.asked == 6
    assert len(realm.remembered) == 1


def test_tokens(pool: HashingPool) -> None:
    realm = realm_of(pool, tokens={b"token-1": S4, b"token-2": S4})
    assert realm.judge(b"Bearer token-1") is S4
    assert realm.judge(b"bearer token-2") is S4
    assert realm.judge(b"Bearer token-3") is UNAUTHENTICATED
    assert realm.challenges([b"bearer", b"basic"]) == b'Basic realm="qanat", charset="UTF-8", Bearer realm="qanat"'


# ------------------------------------------------------------------------------------------------------ slow passwords


async def test_a_slow_hash_comes_as_a_future_once(pool: HashingPool) -> None:
    known = FakeHash(b"right", is_slow=True)
    realm = realm_of(pool, ("s4", S4, known))
    waiting = [AUTHENTICATE(route(realm, S4), head(basic("s4", "right"))) for _ in range(3)]
    assert all(isinstance(verdict, asyncio.Future) for verdict in waiting)
    assert [await verdict for verdict in waiting] == [S4] * 3
    assert known.asked == 1
    assert AUTHENTICATE(route(realm, S4), head(basic("s4", "right"))) is S4
    assert AUTHENTICATE(route(realm), head(basic("s4", "right"))) is NOT_ALLOWED


async def test_who_hangs_up_disturbs_no_other_that_waits(pool: HashingPool) -> None:
    known = FakeHash(b"right", is_slow=True)
    known.may_go.clear()
    realm = realm_of(pool, ("s4", S4, known))
    gone, stays = (AUTHENTICATE(route(realm, S4), head(basic("s4", "right"))) for _ in range(2))
    assert isinstance(gone, asyncio.Future)
    assert isinstance(stays, asyncio.Future)
    gone.cancel()
    known.may_go.set()
    assert await stays is S4


async def test_a_full_queue_is_the_relays_fault(pool: HashingPool) -> None:
    known = FakeHash(b"right", is_slow=True)
    known.may_go.clear()
    realm = realm_of(pool, ("s4", S4, known), ("ibp", IBP, known))
    waiting = [AUTHENTICATE(route(realm, S4), head(basic("s4", f"wrong-{n}"))) for n in range(2)]
    assert AUTHENTICATE(route(realm, S4), head(basic("s4", "right"))) is FAULTS["overloaded"], "two of one pair"
    waiting += [AUTHENTICATE(route(realm, IBP), head(basic("ibp", f"wrong-{n}"))) for n in range(2)]
    # All four places are taken: the tenant that has them gives one up to another.
    other = Realm("globex", [basic_kind(pool, ("s4", S4, known), tenant="globex")])
    waiting.append(AUTHENTICATE(route(other, S4), head(basic("s4", "right"))))
    known.may_go.set()
    found = [await verdict for verdict in waiting]
    assert found == [UNAUTHENTICATED, UNAUTHENTICATED, UNAUTHENTICATED, FAULTS["overloaded"], S4]
    assert repr(pool) == "<HashingPool 0 of 4 jobs, 2 refused>"


async def test_an_unknown_user_costs_no_slow_hash(pool: HashingPool) -> None:
    known = FakeHash(b"right", is_slow=True)
    realm = realm_of(pool, ("s4", S4, known))
    assert realm.judge(basic("nobody", "right")) is UNAUTHENTICATED
    assert known.asked == 0


async def test_a_hash_that_fails_is_no_verdict(pool: HashingPool) -> None:
    class Broken(FakeHash):
        def verify(self, secret: bytes) -> bool:
            raise MemoryError

    realm = realm_of(pool, ("s4", S4, Broken(b"right", is_slow=True)))
    verdict = AUTHENTICATE(route(realm, S4), head(basic("s4", "right")))
    assert isinstance(verdict, asyncio.Future)
    assert await verdict is FAULTS["cannot-judge-credential"]


# ------------------------------------------------------------------------------------------------------------- memory


def test_what_is_remembered_is_bounded() -> None:
    memory = Remembered(limit=10)
    for number in range(1000):
        memory.add(b"%d" % number, S4)
    assert len(memory) <= 20
    assert memory.get(b"999") is S4
    assert memory.get(b"1") is None


def test_what_is_not_used_is_forgotten() -> None:
    memory = Remembered()
    memory.add(b"used", S4)
    memory.add(b"unused", S4)
    memory.age()
    assert memory.get(b"used") is S4
    memory.age()
    assert memory.get(b"used") is S4
    assert memory.get(b"unused") is None


def test_a_reload_keeps_what_is_still_the_same(pool: HashingPool) -> None:
    realm = realm_of(pool, ("s4", S4, FakeHash(b"a")), ("ibp", IBP, FakeHash(b"b")))
    realm.judge(basic("s4", "a"))
    realm.judge(basic("ibp", "b"))
    new, changed = sender("s4"), FakeHash(b"c")
    after = Realm("acme", [basic_kind(pool, ("ibp", IBP, changed))], succeeds=realm, same={"s4": new})
    assert after.judge(basic("s4", "a")) is new
    assert after.judge(basic("ibp", "b")) is UNAUTHENTICATED
