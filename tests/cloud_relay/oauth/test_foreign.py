"""Tokens of foreign issuers: what counts, what does not, and what cannot be judged yet."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from typing import Any

import jwt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.gates import Gate
from cloud_relay.metrics import SenderMetrics
from cloud_relay.oauth.compact import read_outside
from cloud_relay.oauth.foreign import Claimant, ForeignTokens, Issuer
from cloud_relay.oauth.keyset import FIRST_PAUSE, FRESH_FOR, PAUSE, FileKeys, KeySet, KeySource, RemoteKeys
from cloud_relay.senders import CANNOT_JUDGE, UNAUTHENTICATED, Grant, Sender
from tests.cloud_relay.oauth.kit import AUDIENCE, ISSUER, Signer, key_set

SIGNER = Signer()
S4 = Sender("acme", "s4", Gate(), SenderMetrics("acme", "s4"))
IBP = Sender("acme", "ibp", Gate(), SenderMetrics("acme", "ibp"))
ALGORITHMS = ("ES256", "RS256", "PS256", "EdDSA")


def tokens(keys: KeySource | None = None, *claimants: Claimant, required: tuple[str, ...] = ()) -> ForeignTokens:
    source = keys or FileKeys(KeySet(key_set(SIGNER)))
    who = claimants or (Claimant(S4, {"sub": "s4"}),)
    return ForeignTokens([Issuer(ISSUER, [AUDIENCE], ALGORITHMS, required, source, who)])


def judged(token: bytes, judge: ForeignTokens | None = None) -> Any:
    """The sender, or what else it came to."""
    finding = (judge or tokens()).judge(token)
    return finding.sender if isinstance(finding, Grant) else finding


def unsigned(header: dict[str, Any], claims: dict[str, Any]) -> bytes:
    parts = [base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=") for one in (header, claims)]
    return b".".join([*parts, b"AAAA"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
@pytest.mark.parametrize("key_id", ["a", None])
async def test_each_kind_of_signature_counts(algorithm, key_id):
    signer = Signer(algorithm, key_id)
    judge = tokens(FileKeys(KeySet(key_set(Signer("ES256", "other"), signer))))
    assert judged(signer.sign(), judge) is S4
    forged = Signer(algorithm, key_id).sign()
    assert judged(forged, judge) is UNAUTHENTICATED


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "another-service"},
        {"aud": None},
        {"aud": ["x", "y"]},
        {"aud": 7},
        {"exp": 1},
        {"exp": None},
        {"exp": "soon"},
        {"nbf": int(time.time()) + 3600},
        {"iat": int(time.time()) + 3600},
        {"sub": "nobody"},
        {"sub": None},
        {"sub": 7},
    ],
)
def test_claims_that_do_not_count(claims):
    assert judged(SIGNER.sign(**claims)) is UNAUTHENTICATED


def test_times_are_taken_with_a_minutes_grace():
    now = int(time.time())
    assert judged(SIGNER.sign(exp=now - 50, iat=now + 50, nbf=now + 50)) is S4
    assert judged(SIGNER.sign(exp=now - 70)) is UNAUTHENTICATED
    finding = tokens().judge(SIGNER.sign(exp=now + 10))
    assert isinstance(finding, Grant)
    assert finding.until == now + 70
    long = tokens().judge(SIGNER.sign(exp=now + 10**6))
    assert isinstance(long, Grant)
    assert long.until < now + 700, "a withdrawn key must not count until the token expires"


def test_required_claims():
    judge = tokens(None, required=("scope",))
    assert judged(SIGNER.sign(), judge) is UNAUTHENTICATED
    assert judged(SIGNER.sign(scope="push"), judge) is S4


def test_claims_find_the_sender_or_nobody():
    judge = tokens(None, Claimant(S4, {"client_id": "a", "scope": "write"}), Claimant(IBP, {"groups": "ibp"}))
    assert judged(SIGNER.sign(client_id="a", scope="read write"), judge) is S4
    assert judged(SIGNER.sign(client_id="a", scope="rewrite"), judge) is UNAUTHENTICATED
    assert judged(SIGNER.sign(client_id="a write", scope="write"), judge) is UNAUTHENTICATED
    assert judged(SIGNER.sign(groups=["x", "ibp"]), judge) is IBP
    both = SIGNER.sign(client_id="a", scope="write", groups=["ibp"])
    assert judged(both, judge) is UNAUTHENTICATED, "what fits two senders is nobody's"


def test_the_algorithm_is_pinned_and_the_key_is_never_the_tokens_choice():
    public = json.dumps(SIGNER.jwk).encode()
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "s4", "exp": now + 60}
    assert judged(unsigned({"alg": "none"}, claims)) is UNAUTHENTICATED
    with_secret = jwt.encode(claims, base64.urlsafe_b64encode(public), "HS256", {"kid": "k1"}).encode()
    assert judged(with_secret) is UNAUTHENTICATED
    attacker = Signer()
    for header in ({"jwk": attacker.jwk}, {"jku": "https://evil.example/keys"}, {"x5u": "https://evil.example/c"}):
        assert judged(attacker.sign(header)) is UNAUTHENTICATED
        assert judged(SIGNER.sign(header)) is S4, "not looked at"
    assert judged(SIGNER.sign({"crit": ["exp"], "exp": 1})) is UNAUTHENTICATED
    only_rsa = ForeignTokens(
        [Issuer(ISSUER, [AUDIENCE], ["RS256"], (), FileKeys(KeySet(key_set(SIGNER))), [Claimant(S4, {"sub": "s4"})])]
    )
    assert judged(SIGNER.sign(), only_rsa) is UNAUTHENTICATED


def test_another_issuers_token_is_left_to_others():
    assert tokens().judge(SIGNER.sign(iss="https://else.example.com")) is None
    assert tokens().judge(b"opaque") is None
    assert tokens().judge(b"a" * 9000 + b".bb.cc") is None


@given(st.binary(max_size=200) | st.from_regex(rb"[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}\.[A-Za-z0-9_-]{0,40}"))
def test_no_bytes_raise(token):
    read_outside(token)
    assert not isinstance(tokens().judge(token), Grant)


@given(st.integers(0, 10_000), st.integers(0, 255))
def test_no_changed_token_counts(position, byte):
    token = bytearray(SIGNER.sign())
    index = position % len(token)
    if token[index] == byte:
        return
    token[index] = byte
    finding = tokens().judge(bytes(token))
    if isinstance(finding, Grant):  # base64's last character has bits that mean nothing
        assert index == len(token) - 1


# ---------------------------------------------------------------------------------------------------------- key sets


@pytest.mark.parametrize(
    "document",
    [
        b"", b"[]", b"{}", b'{"keys": 7}', b'{"keys": []}', b'{"keys": [7, {}, {"kty": "oct", "k": "AAAA"}]}',
        json.dumps({"keys": [Signer().jwk | {"use": "enc"}]}).encode(),
        json.dumps({"keys": [Signer().jwk | {"key_ops": ["sign"]}]}).encode(),
        json.dumps({"keys": [{}] * 65}).encode(),
    ],
)  # fmt: skip
def test_a_document_without_a_usable_key_is_refused(document):
    with pytest.raises(ValueError, match=r"."):
        KeySet(document)


def test_a_key_bound_to_an_algorithm_judges_no_other():
    signer = Signer("RS256")
    keys = KeySet(json.dumps({"keys": [signer.jwk | {"alg": "PS256"}]}).encode())
    assert keys.find("k1", "RS256") == []
    assert len(keys.find("k1", "PS256")) == 1


class Web:
    """An issuer's JWKS address, in virtual time."""

    def __init__(self, document: bytes | Exception) -> None:
        self.document = document
        self.fetched = 0
        self.now = 1000.0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.keys = RemoteKeys("web", self._fetch, lambda: self.now)

    async def _fetch(self) -> bytes:
        self.fetched += 1
        await self.may_answer.wait()
        if isinstance(self.document, Exception):
            raise self.document
        return self.document

    async def judge(self, token: bytes) -> Any:
        finding = tokens(self.keys).judge(token)
        finding = await finding if isinstance(finding, asyncio.Future) else finding
        return finding.sender if isinstance(finding, Grant) else finding


async def test_the_first_token_waits_for_the_keys_and_the_next_ones_do_not():
    web = Web(key_set(SIGNER))
    assert await asyncio.gather(*(web.judge(SIGNER.sign()) for _ in range(5))) == [S4] * 5
    assert isinstance(tokens(web.keys).judge(SIGNER.sign()), Grant)
    assert web.fetched == 1


async def test_a_new_key_is_fetched_and_made_up_ones_cannot_flood_the_issuer():
    web = Web(key_set(SIGNER))
    assert await web.judge(SIGNER.sign()) is S4
    second = Signer(key_id="k2")
    web.document = key_set(SIGNER, second)
    assert await web.judge(second.sign()) is CANNOT_JUDGE, "asked a moment ago; it may be new"
    web.now += PAUSE
    assert await web.judge(second.sign()) is S4
    for number in range(100):
        assert await web.judge(Signer(key_id=f"made-up-{number}").sign()) is CANNOT_JUDGE
    assert web.fetched == 2
    web.now += PAUSE
    assert await web.judge(Signer(key_id="made-up").sign()) is UNAUTHENTICATED, "the issuer does not know it"
    assert web.fetched == 3


async def test_the_last_good_set_is_kept_while_the_issuer_is_away():
    web = Web(key_set(SIGNER))
    assert await web.judge(SIGNER.sign()) is S4
    for broken in (OSError("no route"), TimeoutError(), b"<html>", b'{"keys": []}'):
        web.document = broken
        web.now += FRESH_FOR + 1
        assert await web.judge(SIGNER.sign()) is S4
        await asyncio.sleep(0)
        web.now += PAUSE
        assert await web.judge(Signer(key_id="new").sign()) is CANNOT_JUDGE
    assert web.keys.failures >= 4


async def test_without_any_keys_nobody_is_refused_for_good():
    web = Web(OSError("down"))
    assert await web.judge(SIGNER.sign()) is CANNOT_JUDGE
    assert await web.judge(SIGNER.sign()) is CANNOT_JUDGE
    assert web.fetched == 1
    web.document = key_set(SIGNER)
    web.now += FIRST_PAUSE
    assert await web.judge(SIGNER.sign()) is S4
    assert await web.judge(Signer(key_id="new").sign()) is CANNOT_JUDGE
    web.now += FIRST_PAUSE
    assert await web.judge(Signer(key_id="new").sign()) is CANNOT_JUDGE
    assert web.fetched == 2, "with keys it is less urgent"


async def test_closing_leaves_nobody_waiting():
    web = Web(key_set(SIGNER))
    web.may_answer.clear()
    waiting = tokens(web.keys).judge(SIGNER.sign())
    assert isinstance(waiting, asyncio.Future)
    await asyncio.sleep(0)
    web.keys.close()
    assert await waiting is CANNOT_JUDGE
