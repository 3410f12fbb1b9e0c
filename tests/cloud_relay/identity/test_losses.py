"""What a restore names as lost."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.identity.events import Event, Kind, Step, new_event
from cloud_relay.identity.losses import distrusted, events_since, losses
from tests.cloud_relay.identity.kit import NOW

C1 = {"tenant": "acme", "location": "walldorf", "connector": "c1"}
INITIALISED = new_event(Kind.INITIALISED, NOW, trust_domain="qanat.test", relay="relay-1")
CREATED = new_event(Kind.TOKEN_CREATED, NOW, token="t1", targets=["metrics", "logs"], **C1)
USED = new_event(Kind.TOKEN_USED, NOW, token="t1", key="k", fingerprint="f")
COMPROMISED = new_event(Kind.ROLL_OVER, NOW, step=Step.COMPROMISED.value, generation=2)


def numbered(*events: Event) -> list[Event]:
    return [event._replace(number=number) for number, event in enumerate(events, 1)]


def told(old: Sequence[Event], backup: Sequence[Event]) -> list[str]:
    return [line.rpartition(" (")[0] for line in losses(old, backup)]


def test_a_connector_that_joined_is_named_with_its_limit():
    old = numbered(INITIALISED, CREATED, USED)
    assert told(old, old[:2]) == ["token-used t1: acme/walldorf/c1 joined, and may announce only logs, metrics"]
    free = CREATED._replace(data=dict(CREATED.data) | {"targets": None})
    old = numbered(INITIALISED, free, USED)
    assert told(old, old[:1]) == [
        "token-created t1 for acme/walldorf/c1", "token-used t1: acme/walldorf/c1 joined, and may announce any target",
    ]  # fmt: skip


def test_another_ca_is_lost_as_a_whole():
    other = INITIALISED._replace(data=dict(INITIALISED.data) | {"relay": "relay-2"})
    assert told(numbered(INITIALISED), numbered(other)) == [
        "initialised the CA of qanat.test, relay relay-1: all of it"
    ]


def test_a_ca_that_was_given_up_is_found_only_if_the_backup_does_not_know():
    old = numbered(INITIALISED, COMPROMISED, CREATED)
    assert distrusted(old, old[:1]) == old[1]
    assert distrusted(old, old[:2]) is None
    assert told(old, old[:1])[0] == "roll-over compromised, generation 2 of the CA"


def test_the_same_number_at_another_time_is_another_event():
    later = CREATED._replace(at=NOW + timedelta(seconds=1))
    assert (
        events_since(numbered(INITIALISED, CREATED), numbered(INITIALISED, later)) == numbered(INITIALISED, CREATED)[1:]
    )


histories = st.lists(st.sampled_from([INITIALISED, CREATED, USED, COMPROMISED]), max_size=6)


@given(histories, histories, histories)
def test_what_is_common_is_never_lost_and_nothing_else_is_kept(common, mine, others):
    old, backup = numbered(*common, *mine), numbered(*common, *others)
    since = events_since(old, backup)
    kept = old[: len(old) - len(since)]
    assert kept == backup[: len(kept)]
    assert not since or len(kept) == len(backup) or since[0] != backup[len(kept)]
