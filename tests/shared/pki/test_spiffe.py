"""SPIFFE ids: what we write is read back, and nothing that merely looks like it is."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from shared.pki.spiffe import ConnectorId, RelayId, connector_id, parse_spiffe_id, relay_id

NAMES = st.from_regex(r"[a-z0-9][a-z0-9-]{0,62}", fullmatch=True)
DOMAINS = st.lists(NAMES, min_size=1, max_size=3).map(".".join)
CONNECTOR = "spiffe://qanat.test/tenant/acme/location/walldorf/connector/c1"
RELAY = "spiffe://qanat.test/relay/r1"


@pytest.mark.parametrize(
    ("uri", "identity"),
    [
        (CONNECTOR, ConnectorId("qanat.test", "acme", "walldorf", "c1")),
        (RELAY, RelayId("qanat.test", "r1")),
    ],
)
def test_one_literal_both_ways(uri, identity):
    assert parse_spiffe_id(uri) == identity
    assert str(identity) == uri


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "spiffe://",
        "spiffe://qanat.test",
        "spiffe:///tenant/acme/location/walldorf/connector/c1",
        "SPIFFE://qanat.test/relay/r1",
        "https://qanat.test/relay/r1",
        "spiffe://Qanat.test/relay/r1",
        "spiffe://qanat.test:443/relay/r1",
        "spiffe://user@qanat.test/relay/r1",
        "spiffe://qanat.test./relay/r1",
        "spiffe://qanat..test/relay/r1",
        "spiffe://.test/relay/r1",
        "spiffe://-qanat.test/relay/r1",
        "spiffe://qanat.test//relay/r1",
        "spiffe://qanat.test/relay/",
        "spiffe://qanat.test/relay/r1/",
        "spiffe://qanat.test/relay/r1?x",
        "spiffe://qanat.test/relay/r1#x",
        "spiffe://qanat.test/relay/r1\n",
        "spiffe://qanat.test/relay/r1\x00",
        " spiffe://qanat.test/relay/r1",
        "spiffe://qanat.test/relay/R1",
        "spiffe://qanat.test/relay/r%31",
        "spiffe://qanat.test/relay/../relay/r1",
        "spiffe://qanat.test/relay/" + "a" * 64,
        "spiffe://" + ".".join(["a" * 63] * 5) + "/relay/r1",
        CONNECTOR + "/",
        CONNECTOR + "/x",
        CONNECTOR.replace("/location/walldorf", ""),
        CONNECTOR.replace("acme", ""),
        CONNECTOR.replace("acme", "-acme"),
        CONNECTOR.replace("tenant", "Tenant"),
        CONNECTOR.replace("acme", "aсme"),  # a Cyrillic letter
    ],
)
def test_what_only_looks_like_one(uri):
    with pytest.raises(ValueError, match=r"SPIFFE id|trust domain"):
        parse_spiffe_id(uri)


@given(DOMAINS, NAMES, NAMES, NAMES)
def test_connectors_round_trip(domain, tenant, location, connector):
    identity = connector_id(domain, tenant, location, connector)
    assert parse_spiffe_id(str(identity)) == identity


@given(DOMAINS, NAMES)
def test_relays_round_trip(domain, relay):
    identity = relay_id(domain, relay)
    assert parse_spiffe_id(str(identity)) == identity


@given(st.text(alphabet="spiffe:/tenanlocirdy-.%A\n0", max_size=80))
@example(CONNECTOR)
@example(RELAY)
def test_whatever_is_read_is_written_the_same(uri):
    try:
        identity = parse_spiffe_id(uri)
    except ValueError:
        return
    assert str(identity) == uri


@pytest.mark.parametrize(
    "parts", [("Q", "a", "b", "c"), ("q", "A", "b", "c"), ("q", "a", "", "c"), ("q", "a", "b", "/")]
)
def test_parts_are_checked(parts):
    with pytest.raises(ValueError, match="is not a"):
        connector_id(*parts)
    with pytest.raises(ValueError, match="is not a"):
        relay_id(parts[0], parts[1] + parts[2] + parts[3] + "?")
