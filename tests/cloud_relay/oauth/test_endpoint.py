"""The token endpoint: what it takes, and RFC 6749 §5's answers to everything else."""

from __future__ import annotations

import asyncio
import base64
import time
from collections.abc import Iterator
from typing import Any, NamedTuple, cast
from urllib.parse import quote_plus, urlencode

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.credentials import KnownPassword, Passwords, PasswordUser
from cloud_relay.gates import Gate
from cloud_relay.hashing import Claim, HashingPool
from cloud_relay.metrics import SenderMetrics
from cloud_relay.oauth.endpoint import LocalAnswer, TokenEndpoint
from cloud_relay.oauth.form import TokenError, read_form
from cloud_relay.oauth.keys import SigningKeys
from cloud_relay.oauth.tokens import AccessTokens, Client
from cloud_relay.senders import Grant, Sender
from cloud_relay.throttle import FailureThrottle
from shared.errors import FAULTS
from shared.secrets import hash_password, hash_secret, parse_stored

ID, SECRET = "s4 prod", "p%+ö:x"
FORM = b"application/x-www-form-urlencoded"


class Head(NamedTuple):
    method: bytes
    fields: dict[bytes, bytes]


class World:
    def __init__(self, folder: Any, pool: HashingPool, hashed: str) -> None:
        self.sender = Sender("acme", "s4", Gate(), SenderMetrics("acme", "s4"))
        keys = SigningKeys(folder / "keys.json")
        keys.open(time.time())
        self.tokens = AccessTokens(keys, "qanat.test")
        self.throttle = FailureThrottle()
        users = [PasswordUser(ID.encode(), [KnownPassword(parse_stored(hashed), Client(self.sender, "c1"))])]
        self.endpoint = TokenEndpoint("acme", Passwords("acme", users, pool, self.throttle), self.tokens, 3600.0)

    def ask(self, form: dict[str, str] | bytes, authorization: bytes | None = None, **more: Any) -> Any:
        body = form if isinstance(form, bytes) else urlencode(form).encode()
        fields = {b"content-type": more.get("content_type", FORM)}
        if authorization is not None:
            fields[b"authorization"] = authorization
        return self.endpoint.respond(cast(Any, Head(more.get("method", b"POST"), fields)), body, "192.0.2.7")

    def is_granted(self, answer: Any) -> bool:
        assert isinstance(answer, LocalAnswer), answer
        if answer.status != 200:
            return False
        token = orjson.loads(answer.body)["access_token"].encode()
        return isinstance(self.tokens.judge(token, "acme", {("s4", "c1"): self.sender}), Grant)


@pytest.fixture
def pool() -> Iterator[HashingPool]:
    pool = HashingPool(1, 4)
    yield pool
    pool.close()


@pytest.fixture
def world(tmp_path, pool):
    return World(tmp_path, pool, hash_secret(SECRET))


def basic(user: str, password: str) -> bytes:
    return b"Basic " + base64.b64encode(f"{user}:{password}".encode())


GRANT = {"grant_type": "client_credentials"}
IN_FORM = GRANT | {"client_id": ID, "client_secret": SECRET}


def test_each_way_of_sending_the_secret_gets_a_token(world):
    assert world.is_granted(world.ask(IN_FORM))
    assert world.is_granted(world.ask(GRANT, basic(quote_plus(ID), quote_plus(SECRET))))
    assert world.is_granted(world.ask(GRANT, basic(ID, SECRET))), "as half of the clients do it"
    assert world.is_granted(world.ask(GRANT | {"client_id": ID}, basic(ID, SECRET)))
    content_type = b"Application/X-WWW-Form-urlencoded; charset=utf-8"
    assert world.is_granted(world.ask(IN_FORM | {"resource": "x"}, content_type=content_type))


def test_the_answer_is_that_of_the_rfc(world):
    answer = world.ask(IN_FORM)
    found = orjson.loads(answer.body)
    assert found | {"access_token": ""} == {"access_token": "", "token_type": "Bearer", "expires_in": 3600}
    assert (b"Cache-Control", b"no-store") in answer.headers
    assert (b"Pragma", b"no-cache") in answer.headers
    assert answer.sender is world.sender
    with_scope = world.ask(IN_FORM | {"scope": "a b"})
    assert orjson.loads(with_scope.body)["scope"] == "push", "another one than asked for must be told"


@pytest.mark.parametrize(
    ("form", "authorization", "more", "status", "error"),
    [
        ({}, None, {}, 400, "invalid_request"),
        (GRANT, None, {}, 401, "invalid_client"),
        (GRANT | {"client_id": ID}, None, {}, 401, "invalid_client"),
        (GRANT | {"client_id": ID, "client_secret": ""}, None, {}, 401, "invalid_client"),
        (IN_FORM | {"client_secret": "wrong"}, None, {}, 401, "invalid_client"),
        (IN_FORM | {"client_id": "nobody"}, None, {}, 401, "invalid_client"),
        (GRANT, basic(ID, "wrong"), {}, 401, "invalid_client"),
        (GRANT, b"Bearer x", {}, 401, "invalid_client"),
        (GRANT, b"Basic !", {}, 401, "invalid_client"),
        (IN_FORM, basic(ID, SECRET), {}, 400, "invalid_request"),
        (GRANT | {"client_id": "another"}, basic(ID, SECRET), {}, 400, "invalid_request"),
        (IN_FORM | {"grant_type": "password"}, None, {}, 400, "unsupported_grant_type"),
        (IN_FORM | {"grant_type": "Client_Credentials"}, None, {}, 400, "unsupported_grant_type"),
        (IN_FORM | {"scope": 'a"b'}, None, {}, 400, "invalid_scope"),
        (urlencode(IN_FORM).encode() + b"&grant_type=client_credentials", None, {}, 400, "invalid_request"),
        (b"grant_type", None, {}, 400, "invalid_request"),
        (b"grant_type=client_credentials&client_id=%ff&client_secret=x", None, {}, 400, "invalid_request"),
        (b"\xff", None, {}, 400, "invalid_request"),
        (b"&".join(b"p%d=1" % n for n in range(40)), None, {}, 400, "invalid_request"),
        (IN_FORM, None, {"method": b"GET"}, 400, "invalid_request"),
        (IN_FORM, None, {"content_type": b"application/json"}, 400, "invalid_request"),
        (IN_FORM, None, {"content_type": b"multipart/form-data"}, 400, "invalid_request"),
    ],
)
def test_everything_else_gets_an_error_of_the_rfc(world, form, authorization, more, status, error):
    answer = world.ask(form, authorization, **more)
    assert (answer.status, orjson.loads(answer.body)["error"], answer.error) == (status, error, error)
    assert answer.sender is None
    challenge = [value for name, value in answer.headers if name == b"WWW-Authenticate"]
    assert bool(challenge) == (status == 401)
    assert (b"Cache-Control", b"no-store") in answer.headers


@given(st.binary(max_size=300), st.none() | st.binary(max_size=60))
def test_no_bytes_raise_or_get_a_token(body, authorization):
    fields = {b"content-type": FORM} | ({} if authorization is None else {b"authorization": authorization})
    try:
        read_form(b"POST", fields, body)
    except TokenError as error:
        assert error.code in {"invalid_request", "invalid_client", "unsupported_grant_type", "invalid_scope"}


def test_a_sender_that_is_switched_off_gets_none(world):
    world.sender.is_disabled = True
    answer = world.ask(IN_FORM)
    assert (answer.status, answer.error) == (401, "invalid_client")
    world.sender.is_disabled = False
    assert world.is_granted(world.ask(IN_FORM))


async def test_a_slow_secret_comes_later_and_a_flood_of_wrong_ones_is_not_judged(tmp_path, pool):
    world = World(tmp_path, pool, hash_password(SECRET))
    first = world.ask(GRANT, basic(quote_plus(ID), quote_plus(SECRET)))
    assert isinstance(first, asyncio.Future)
    assert world.is_granted(await first), "both ways of reading it are tried"
    for _ in range(20):
        world.throttle.failed("192.0.2.7", "acme", ID.encode())
    assert world.ask(IN_FORM) is FAULTS["too-many-failures"]
    claim = Claim("192.0.2.7", "acme", ID.encode())
    held = [pool.submit(claim, lambda: time.sleep(0.2)) for _ in range(2)]
    assert all(held)
    other = World(tmp_path, pool, hash_password(SECRET))
    assert other.ask(IN_FORM) is FAULTS["overloaded"]
