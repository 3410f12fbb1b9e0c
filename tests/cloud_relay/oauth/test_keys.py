"""The relay's own signing keys: made, kept, rotated without a token being lost, and refused when damaged."""

from __future__ import annotations

import stat

import pytest

from cloud_relay.gates import Gate
from cloud_relay.metrics import SenderMetrics
from cloud_relay.oauth.keys import LEEWAY, LONGEST_LIFETIME, SigningKeys
from cloud_relay.oauth.tokens import AccessTokens, Client
from cloud_relay.senders import CANNOT_JUDGE, UNAUTHENTICATED, Grant, Sender
from shared.pki.files import PkiError

S4 = Sender("acme", "s4", Gate(), SenderMetrics("acme", "s4"))
CLIENT = Client(S4, "c1")
CLIENTS = {("s4", "c1"): S4}
PERIOD = 30 * 86400.0


class Relay:
    """Keys in a file, and a clock."""

    def __init__(self, path) -> None:
        self.path = path / "token-keys.json"
        self.now = 1_800_000_000.0
        self.restart()

    def restart(self) -> None:
        self.keys = SigningKeys(self.path)
        self.keys.open(self.now)
        self.tokens = AccessTokens(self.keys, "qanat.test", lambda: self.now)

    def judge(self, token: str, tenant: str = "acme", clients=CLIENTS):
        return self.tokens.judge(token.encode(), tenant, clients)

    def is_good(self, token: str) -> bool:
        return isinstance(self.judge(token), Grant)


@pytest.fixture
def relay(tmp_path):
    return Relay(tmp_path)


def test_a_token_survives_a_restart_and_the_file_is_private(relay):
    token = relay.tokens.issue(CLIENT, 3600)
    relay.restart()
    assert relay.is_good(token)
    assert stat.S_IMODE(relay.path.stat().st_mode) == 0o600


def test_a_token_counts_until_a_minute_after_its_expiry(relay):
    token = relay.tokens.issue(CLIENT, 3600)
    relay.now += 3600 + LEEWAY - 1
    grant = relay.judge(token)
    assert isinstance(grant, Grant)
    assert grant.until == relay.now + 1
    relay.now += 1
    assert relay.judge(token) is UNAUTHENTICATED


def test_a_token_is_one_tenants_and_one_credentials(relay):
    token = relay.tokens.issue(CLIENT, 3600)
    assert relay.judge(token, "globex") is UNAUTHENTICATED
    assert relay.judge(token, clients={("s4", "c2"): S4}) is UNAUTHENTICATED
    assert relay.judge(token, clients={("ibp", "c1"): S4}) is UNAUTHENTICATED
    other = AccessTokens(relay.keys, "other.test", lambda: relay.now)
    assert other.judge(token.encode(), "acme", CLIENTS) is None


def test_rotation_overlaps_by_the_longest_lifetime(relay):
    assert not relay.keys.rotate_if_due(relay.now, PERIOD)
    relay.now += PERIOD
    last = relay.tokens.issue(CLIENT, LONGEST_LIFETIME)
    first_key = relay.keys.current.id
    assert relay.keys.rotate_if_due(relay.now, PERIOD)
    assert relay.keys.current.id != first_key
    assert relay.is_good(relay.tokens.issue(CLIENT, 60))
    relay.now += LONGEST_LIFETIME + LEEWAY - 1
    relay.keys.rotate_if_due(relay.now, PERIOD)
    relay.restart()
    assert relay.is_good(last), "the last token of the old key counts to its end"
    relay.now += 2
    relay.keys.rotate_if_due(relay.now, PERIOD)
    assert relay.keys.public(first_key) is None
    assert first_key not in relay.path.read_text()


def test_a_lost_key_is_a_question_and_not_a_refusal(relay):
    token = relay.tokens.issue(CLIENT, 3600)
    relay.path.unlink()
    relay.restart()
    assert relay.judge(token) is CANNOT_JUDGE
    relay.now += 3600 + LEEWAY
    assert relay.judge(token) is UNAUTHENTICATED


def test_a_forged_token_is_refused(relay):
    token = relay.tokens.issue(CLIENT, 3600)
    head, claims, signature = token.split(".")
    assert relay.judge(f"{head}.{claims}.{'A' * len(signature)}") is UNAUTHENTICATED


DAMAGED = ["", "{}", "[]", '{"version": 1, "keys": []}', '{"version": 2, "keys": []}', '{"version": 1, "keys": [{}]}']


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_ends_the_start(relay, content):
    relay.path.write_text(content)
    with pytest.raises(PkiError, match="token-keys"):
        relay.restart()
    assert relay.path.read_text() == content, "never overwritten"


def test_a_file_that_others_may_read_ends_the_start(relay):
    relay.path.chmod(0o644)
    with pytest.raises(PkiError, match="chmod 600"):
        relay.restart()


def test_a_disk_that_cannot_be_written_changes_nothing(relay, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloud_relay.oauth.keys.write_private", fail)
    before = relay.keys.current.id
    relay.now += PERIOD
    with pytest.raises(OSError, match="No space"):
        relay.keys.rotate_if_due(relay.now, PERIOD)
    assert relay.keys.current.id == before
    assert relay.keys.current.retired_at is None
    assert relay.is_good(relay.tokens.issue(CLIENT, 60))
