"""From a tenant's config to its realm: every kind of credential that its senders have, and their token endpoints."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import jwt
from cryptography import x509

from cloud_relay.certificates import CertificateOwner, SenderCertificates
from cloud_relay.credentials import (
    Basic,
    Bearer,
    BearerToken,
    KnownPassword,
    Passwords,
    PasswordUser,
    Verifier,
)
from cloud_relay.hashing import HashingPool
from cloud_relay.oauth.fetch import KeyBook
from cloud_relay.oauth.foreign import Claimant, ForeignTokens, Issuer
from cloud_relay.oauth.keyset import FileKeys, KeySource
from cloud_relay.oauth.tokens import AccessTokens, Client, OwnTokens
from cloud_relay.senders import CredentialKind, Realm, Sender
from cloud_relay.throttle import FailureThrottle

if TYPE_CHECKING:
    from cloud_relay.config.credentials import IssuerConfig, PinConfig
    from cloud_relay.config.models import SenderConfig, TenantConfig
    from cloud_relay.trust import SenderTrust
    from shared.secrets import StoredSecret


class SenderServices(NamedTuple):
    """What judging credentials needs that outlives a config."""

    pool: HashingPool
    throttle: FailureThrottle
    keys: KeyBook
    tokens: AccessTokens


class RealmMaker:
    """Makes one tenant's realm under one config, and what its token endpoints need."""

    def __init__(
        self,
        name: str,
        tenant: TenantConfig,
        senders: Mapping[str, Sender],
        services: SenderServices,
        trust: SenderTrust,
    ) -> None:
        self._name = name
        self._tenant = tenant
        self._senders = senders
        self._services = services
        self._trust = trust

    def realm(self, old: Realm | None, before: TenantConfig | None) -> Realm:
        """The realm; what `old` remembers is kept for senders whose credentials are the same as `before`."""
        kinds: list[CredentialKind] = []
        if users := [
            PasswordUser(
                one.basic.username.encode(),
                [KnownPassword(known, self._senders[one.name]) for known in one.basic.password_hash],
            )
            for one in self._tenant.senders
            if one.basic
        ]:
            kinds.append(Basic(Passwords(self._name, users, self._services.pool, self._services.throttle)))
        tokens = [
            BearerToken(known.digest, self._senders[one.name])
            for one in self._tenant.senders
            for known in (one.bearer.token_hash if one.bearer else ())
        ]
        verifiers = self._verifiers()
        if tokens or verifiers:
            kinds.append(Bearer(tokens, verifiers))
        same = {} if before is None else self._unchanged(before)
        return Realm(self._name, kinds, old, same, self._certificates())

    def clients(self) -> Passwords[Client]:
        """Who may get tokens."""
        users = [
            PasswordUser(
                one.oauth.client_id.encode(),
                [
                    KnownPassword(known, Client(self._senders[one.name], credential_id(known)))
                    for known in one.oauth.client_secret_hash
                ],
            )
            for one in self._tenant.senders
            if one.oauth
        ]
        return Passwords(self._name, users, self._services.pool, self._services.throttle)

    def _verifiers(self) -> list[Verifier]:
        verifiers: list[Verifier] = []
        clients = {
            (one.name, credential_id(known)): self._senders[one.name]
            for one in self._tenant.senders
            for known in (one.oauth.client_secret_hash if one.oauth else ())
        }
        if clients:
            verifiers.append(OwnTokens(self._services.tokens, self._name, clients))
        issuers = [self._issuer(issuer) for issuer in self._tenant.issuers]
        if issuers:
            verifiers.append(ForeignTokens(issuers))
        return verifiers

    def _issuer(self, config: IssuerConfig) -> Issuer:
        claimants = [
            Claimant(self._senders[one.name], one.jwt.claims)
            for one in self._tenant.senders
            if one.jwt is not None and one.jwt.issuer == config.name
        ]
        return Issuer(
            config.issuer,
            config.audience,
            config.algorithms,
            config.required_claims,
            self._keys(config),
            claimants,
        )

    def _keys(self, config: IssuerConfig) -> KeySource:
        if config.jwks_url is not None:
            return self._services.keys.source(config.jwks_url, config.jwks_ca)
        known = self._trust.keys.get(config.jwks_file or Path())
        return NoKeys() if known is None else FileKeys(known)

    def _certificates(self) -> SenderCertificates | None:
        owners = owners_of(self._tenant.senders, self._senders)
        return SenderCertificates(self._trust.authorities.get(self._name, ()), owners) if owners else None

    def _unchanged(self, before: TenantConfig) -> dict[str, Sender]:
        """The senders whose credentials are what they were, by name."""
        known = {sender.name: _credentials(sender) for sender in before.senders}
        has_same_issuers = before.issuers == self._tenant.issuers
        return {
            sender.name: self._senders[sender.name]
            for sender in self._tenant.senders
            if known.get(sender.name) == _credentials(sender) and (sender.jwt is None or has_same_issuers)
        }


class NoKeys:
    """Of an issuer whose keys were not read: its tokens are never judged, rather than refused."""

    def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """None is known."""
        return []

    def refresh(self) -> bool:
        """Nobody to ask."""
        return False


def credential_id(secret: StoredSecret) -> str:
    """A short name of a secret: it tells two of them apart, and nothing else about them."""
    return hashlib.sha256(b"credential\0" + secret.salt + b"\0" + secret.digest).hexdigest()[:16]


def owners_of(known: Iterable[SenderConfig], senders: Mapping[str, Sender]) -> list[CertificateOwner]:
    """Those of `known` that are known by a certificate, with what is pinned of it."""
    return [
        CertificateOwner(senders[one.name], pins_of(one.certificate)) for one in known if one.certificate is not None
    ]


def pins_of(config: PinConfig) -> list[x509.Name | str]:
    """What is pinned, as it is compared."""
    return [*map(x509.Name.from_rfc4514_string, config.subject), *config.san]


def schemes_of(sender: SenderConfig) -> set[bytes]:
    """The schemes of `Authorization` that the sender can use."""
    bearer = sender.bearer or sender.oauth or sender.jwt
    return ({Basic.scheme} if sender.basic else set()) | ({Bearer.scheme} if bearer else set())


def _credentials(sender: SenderConfig) -> tuple[object, ...]:
    return sender.basic, sender.bearer, sender.oauth, sender.jwt
