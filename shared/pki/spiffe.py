"""SPIFFE ids: the identities of connectors and relays, as they stand in a certificate's URI SAN.

    spiffe://<trust domain>/tenant/<tenant>/location/<location>/connector/<connector>
    spiffe://<trust domain>/relay/<relay>

The SPIFFE ID specification (sections 2.1 and 2.2) allows more than we write: only what we write is read. Nothing is
normalised, folded or percent-decoded, so that two different strings are never one identity.
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from shared.names import check_name

_TRUST_DOMAIN: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}(?:\.[a-z0-9][a-z0-9_-]{0,62})*", re.ASCII)
_NAME: Final = r"([a-z0-9][a-z0-9-]{0,62})"
_CONNECTOR: Final = re.compile(rf"spiffe://([a-z0-9._-]+)/tenant/{_NAME}/location/{_NAME}/connector/{_NAME}", re.ASCII)
_RELAY: Final = re.compile(rf"spiffe://([a-z0-9._-]+)/relay/{_NAME}", re.ASCII)

MAX_TRUST_DOMAIN: Final = 255
"""Characters (SPIFFE ID, section 2.1)."""


def check_trust_domain(text: str) -> str:
    """Give `text` back if it is a trust domain, a DNS name in lower case without a dot at its end; else ValueError."""
    if len(text) > MAX_TRUST_DOMAIN or _TRUST_DOMAIN.fullmatch(text) is None:
        shown = text if len(text) <= MAX_TRUST_DOMAIN else text[:MAX_TRUST_DOMAIN] + "…"
        msg = f"{shown!r} is not a trust domain: use a DNS name in lower case, such as qanat.example.com"
        raise ValueError(msg)
    return text


class ConnectorId(NamedTuple):
    """The identity of a connector. Make it with `connector_id` or `parse_spiffe_id`, which check the parts."""

    trust_domain: str
    tenant: str
    location: str
    connector: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/tenant/{self.tenant}/location/{self.location}/connector/{self.connector}"


class RelayId(NamedTuple):
    """The identity of a relay. Make it with `relay_id` or `parse_spiffe_id`, which check the parts."""

    trust_domain: str
    relay: str

    def __str__(self) -> str:
        return f"spiffe://{self.trust_domain}/relay/{self.relay}"


SpiffeId = ConnectorId | RelayId


def connector_id(trust_domain: str, tenant: str, location: str, connector: str) -> ConnectorId:
    """The identity with these parts, or ValueError naming the part that cannot stand in one."""
    return ConnectorId(
        check_trust_domain(trust_domain), check_name(tenant), check_name(location), check_name(connector)
    )


def relay_id(trust_domain: str, relay: str) -> RelayId:
    """The identity with these parts, or ValueError naming the part that cannot stand in one."""
    return RelayId(check_trust_domain(trust_domain), check_name(relay))


def parse_spiffe_id(uri: str) -> SpiffeId:
    """Read what `str` of an id writes, and nothing else; else ValueError. `str(parse_spiffe_id(uri)) == uri` always."""
    match = _CONNECTOR.fullmatch(uri)
    if match is not None:
        return ConnectorId(check_trust_domain(match[1]), match[2], match[3], match[4])
    match = _RELAY.fullmatch(uri)
    if match is not None:
        return RelayId(check_trust_domain(match[1]), match[2])
    msg = "not the SPIFFE id of a connector or a relay"
    raise ValueError(msg)
