"""Joining: what is asked of whom, what is believed, and who never sees the token."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from connector_agent.dialer import Contexts, Dialer
from connector_agent.handshake import DialError
from connector_agent.identity.join import Joined, Joiner
from connector_agent.identity.store import IdentityStore, StoreError
from shared.clock import TrustedClock
from shared.pki import issue
from shared.pki.join_token import JoinToken
from shared.pki.requests import read_request
from shared.pki.spiffe import connector_id
from shared.pki.trust import pin_of
from tests.support.relay_double import SECRET, Ca, RelayDouble, relay_double


def no_contexts() -> Contexts:
    raise AssertionError("a join takes no context of the tunnels")


async def join(
    folder: Path, token: JoinToken, clock: TrustedClock | None = None, store: IdentityStore | None = None
) -> Joined:
    joiner = Joiner(Dialer(no_contexts), store or IdentityStore(folder / "state"), clock or TrustedClock())
    return await joiner.join(token, token.relays)


async def refusal(folder: Path, token: JoinToken, clock: TrustedClock | None = None) -> DialError:
    with pytest.raises(DialError) as caught:
        await join(folder, token, clock)
    assert not (folder / "state" / "identity.pem").exists()
    assert not (folder / "state" / "roots.pem").exists()
    assert SECRET not in str(caught.value)
    return caught.value


async def test_a_token_becomes_an_identity(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        joined = await join(tmp_path, relay.token())
        store = IdentityStore(tmp_path / "state")
        loaded = store.load_identity()
        assert loaded is not None
        assert loaded.id == joined.identity.id == relay.identity
        assert store.load_roots() == relay.ca.certificates
        assert store.load_relays() == list(relay.token().relays)
        assert [question["want"] for question in relay.questions] == ["authorities", "certificate"]
        assert not list((tmp_path / "state").glob("join-*"))


async def test_the_secret_is_told_once_and_only_on_the_verified_connection(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        await join(tmp_path, relay.token())
        first, second = relay.questions
        assert first == {"want": "authorities"}
        assert second["secret"] == SECRET
        assert read_request(second["request"].encode()).identity == relay.identity


async def test_a_man_in_the_middle_never_sees_the_token(tmp_path: Path) -> None:
    """Another CA, and it says so: no root of it has the pin."""
    async with relay_double(tmp_path) as middle:
        honest = Ca()
        error = await refusal(tmp_path, middle.token(pin=pin_of(honest.roots[0].certificate)))
        assert (error.code, error.is_refusal) == ("relay-untrusted", True)
        assert middle.questions == [{"want": "authorities"}]


async def test_a_man_in_the_middle_that_shows_the_honest_roots_never_sees_the_token(tmp_path: Path) -> None:
    """It fetched the pinned root from the real relay, but has no certificate of it."""
    async with relay_double(tmp_path) as middle:
        honest = Ca()
        middle.answer = lambda question: honest.trust
        error = await refusal(tmp_path, middle.token(pin=pin_of(honest.roots[0].certificate)))
        assert error.code == "relay-untrusted"
        assert middle.questions == [{"want": "authorities"}]
        assert middle.secrets_seen() == []


async def test_a_relay_with_another_name_never_sees_the_token(tmp_path: Path) -> None:
    async with relay_double(tmp_path, serve=False) as relay:
        await relay.serve(relay.ca.server_identity(tmp_path, "other.example.com"))
        error = await refusal(tmp_path, relay.token())
        assert error.code == "relay-wrong-name"
        assert relay.secrets_seen() == []


@pytest.mark.parametrize(("age", "code"), [(30, "relay-expired"), (-30, "relay-not-yet-valid")])
async def test_a_relay_whose_certificate_is_not_valid_now_never_sees_the_token(
    tmp_path: Path, age: int, code: str
) -> None:
    ca = Ca()
    async with relay_double(tmp_path, ca, serve=False) as relay:
        await relay.serve(ca.server_identity(tmp_path, now=ca.now - timedelta(days=age)))
        error = await refusal(tmp_path, relay.token())
        assert error.code == code
        assert "clock" in error.remedy
        assert relay.secrets_seen() == []


async def test_a_token_of_another_relay_is_refused_before_anything_is_told(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        other = RelayDouble(tmp_path)
        error = await refusal(tmp_path, other.token(relays=relay.token().relays))
        assert error.code == "relay-untrusted"
        assert "not the relay that made the token" in error.text
        assert relay.secrets_seen() == []


@pytest.mark.parametrize("code", ["token-unknown", "token-expired", "token-revoked", "token-used", "connector-blocked"])
async def test_what_the_relay_refuses_is_said_with_what_to_do(tmp_path: Path, code: str) -> None:
    async with relay_double(tmp_path) as relay:
        relay.refusal = {"error": code, "detail": "see\x1b[31m the log"}
        error = await refusal(tmp_path, relay.token())
        assert (error.code, error.is_refusal) == (code, True)
        assert error.remedy
        assert "\x1b" not in str(error)


async def test_a_tampered_secret_is_the_relays_to_refuse(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        error = await refusal(tmp_path, relay.token(secret="00" * 32))
        assert error.code == "token-unknown"


async def test_what_passes_by_itself_is_no_refusal_and_the_key_stays(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        relay.refusal = {"error": "cannot-issue", "detail": "the disk is full"}
        error = await refusal(tmp_path, relay.token())
        assert not error.is_refusal
        relay.refusal = None
        await join(tmp_path, relay.token())
        asked = [question["request"] for question in relay.questions if "request" in question]
        assert len({read_request(request.encode()).key_id for request in asked}) == 1


Forgery = Callable[[RelayDouble, bytes], str]


def expired(relay: RelayDouble, request: bytes) -> str:
    return relay.ca.sign(relay.identity, request, now=datetime.now(UTC) - timedelta(days=30))


def for_another_key(relay: RelayDouble, request: bytes) -> str:
    leaf = issue.issue_connector(relay.ca.issuing, relay.identity, issue.new_key().public_key(), datetime.now(UTC))
    return relay.ca.chain_pem(leaf)


def for_another_name(relay: RelayDouble, request: bytes) -> str:
    return relay.ca.sign(connector_id("qanat.test", "acme", "walldorf", "other"), request)


def of_a_foreign_ca(relay: RelayDouble, request: bytes) -> str:
    return Ca().sign(relay.identity, request)


def for_a_server(relay: RelayDouble, request: bytes) -> str:
    key = read_request(request).public_key
    return relay.ca.chain_pem(issue.issue_server(relay.ca.issuing, ["localhost"], key, datetime.now(UTC)))


FORGERIES = [expired, for_another_key, for_another_name, of_a_foreign_ca, for_a_server]


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
async def test_a_certificate_that_is_not_ours_to_have_is_not_stored(tmp_path: Path, forge: Forgery) -> None:
    async with relay_double(tmp_path) as relay:
        honest = relay.honest_answer

        def answer(question: dict[str, Any]) -> dict[str, Any]:
            made = honest(question)
            return made | {"certificate": forge(relay, question["request"].encode())} if "certificate" in made else made

        relay.answer = answer
        error = await refusal(tmp_path, relay.token())
        assert error.code == "bad-certificate"


@pytest.mark.parametrize(
    "answer",
    [
        [],
        {"roots": 1},
        {"roots": ["x"]},
        {"roots": ["x"] * 100},
        {"roots": []},
        {"roots": ["\ud800"]},
        {"x": "y" * 20_000},
    ],
    ids=lambda answer: json.dumps(answer)[:20],
)
async def test_nonsense_on_the_first_connection_ends_the_try(tmp_path: Path, answer: Any) -> None:
    async with relay_double(tmp_path) as relay:
        relay.answer = lambda question: answer
        error = await refusal(tmp_path, relay.token())
        assert error.code in ("not-a-relay", "relay-untrusted")
        assert relay.secrets_seen() == []


async def test_a_relay_that_rolled_over_is_joined_by_an_older_token(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        token = relay.token()
        relay.ca.roll_over()
        await relay.serve()
        joined = await join(tmp_path, token)
        assert joined.roots == relay.ca.certificates


async def test_the_relays_clock_is_taken_from_a_relay_that_is_verified(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        relay.wall = lambda: datetime.now(UTC).timestamp() + 300.0
        clock = TrustedClock()
        await join(tmp_path, relay.token(), clock)
        assert clock.is_doubtful
        assert -301.0 < clock.error_seconds < -299.0


async def test_nobody_there_is_no_refusal(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        token = relay.token()
    error = await refusal(tmp_path, token)
    assert (error.code, error.is_refusal) == ("connection-refused", False)


async def test_a_relay_that_says_nothing_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("connector_agent.identity.join.ANSWER_TIMEOUT", 0.05)
    async with relay_double(tmp_path) as relay:
        relay.answer = lambda question: None
        assert (await refusal(tmp_path, relay.token())).code == "timeout"


async def test_the_second_relay_of_a_token_is_tried(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        (here,) = relay.token().relays
        token = relay.token(relays=(here._replace(port=1), here))
        assert (await join(tmp_path, token)).relay == here


async def test_a_full_disk_stops_the_join_before_the_token_is_told(tmp_path: Path) -> None:
    def full(path: Path, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    async with relay_double(tmp_path) as relay:
        with pytest.raises(StoreError, match="free some space"):
            await join(tmp_path, relay.token(), store=IdentityStore(tmp_path / "state", write=full))
        assert relay.questions == []
