"""The part of the config that says by which credentials senders are known."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Final, Literal
from urllib.parse import urlsplit

from cryptography import x509
from pydantic import AfterValidator, BeforeValidator, Field

from cloud_relay.config.fields import Hashes, Host, UrlPath, Username, as_list, some
from shared.config import PRIVATE, ConfigFile, ConfigModel
from shared.names import Name
from shared.units import Duration

_SAN: Final = re.compile(r"(dns|uri|email):([\x21-\x7e]{1,1024})", re.ASCII)
_URL_FORM: Final = "write https://issuer.example.com/path, without user, query and fragment"


def _https_url(text: str) -> str:
    try:
        parts = urlsplit(text)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ValueError(f"this is no URL; {_URL_FORM}") from error
    if not host or parts.username is not None or parts.fragment or not text.isascii() or " " in text:
        raise ValueError(f"this is no URL of a key set; {_URL_FORM}")
    if parts.scheme != "https" and not (parts.scheme == "http" and _is_loopback(host)):
        raise ValueError(f"whoever can change the keys on their way can push; {_URL_FORM}")
    return text


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _subject(text: str) -> str:
    try:
        name = x509.Name.from_rfc4514_string(text)
    except ValueError as error:
        raise ValueError('this is no subject; write it as "CN=push,O=Example,C=DE" (RFC 4514)') from error
    if not list(name):
        raise ValueError("an empty subject fits too many certificates")
    return text


def _san(text: str) -> str:
    match = _SAN.fullmatch(text)
    if match is None:
        raise ValueError('write an alternative name with its kind: "dns:push.example.com", "uri:…" or "email:…"')
    return f"dns:{match[2].lower()}" if match[1] == "dns" else text


def _some_claims(claims: dict[str, str]) -> dict[str, str]:
    if not claims:
        raise ValueError("without a claim every token of the issuer would be this sender's")
    return claims


Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
"""Signatures by a private key only: with a shared secret, whoever can judge a token can make one."""

Claim = Annotated[str, Field(min_length=1, max_length=1024)]
Texts = Annotated[tuple[Claim, ...], BeforeValidator(as_list)]


class BasicConfig(ConfigModel):
    """HTTP Basic authentication."""

    username: Username
    """What the sender sends as its user name. Unique within the tenant."""
    password_hash: Hashes
    """What `cloud-relay secrets hash` printed; two while the password is being changed."""


class BearerConfig(ConfigModel):
    """A bearer token."""

    token_hash: Hashes
    """What `cloud-relay secrets new` printed; two while the token is being changed. SHA-256 only."""


class ClientConfig(ConfigModel):
    """A client of the relay's own token endpoint (OAuth 2.0 client credentials, RFC 6749 section 4.4)."""

    client_id: Username
    """What the sender sends as client_id. Unique within the tenant."""
    client_secret_hash: Hashes
    """What `cloud-relay secrets new` printed; two while the secret is being changed. A token counts no longer than the
    secret that it was got with."""


class JwtConfig(ConfigModel):
    """Tokens of a foreign issuer that are this sender's."""

    issuer: Name
    """The name of one of the tenant's issuers."""
    claims: Annotated[dict[str, Claim], Field(max_length=16), AfterValidator(_some_claims), PRIVATE]
    """Claims that a token must have, all of them, with these values: {client_id: s4-prod}. A claim that is a list must
    hold the value, and so must the words of `scope`. No token may fit two senders."""


class PinConfig(ConfigModel):
    """A client certificate. One of the pinned names is enough, and it must be the whole name."""

    subject: Annotated[tuple[Annotated[str, AfterValidator(_subject)], ...], BeforeValidator(as_list)] = ()
    """Whole subjects, as `openssl x509 -noout -subject -nameopt RFC2253` prints them."""
    san: Annotated[tuple[Annotated[str, AfterValidator(_san)], ...], BeforeValidator(as_list)] = ()
    """Alternative names with their kind: "dns:…", "uri:…" or "email:…"."""


class IssuerConfig(ConfigModel):
    """Somebody else who signs tokens (JWT) for this tenant's senders."""

    name: Name
    """Its name in this config."""
    issuer: Annotated[str, Field(min_length=1, max_length=1024)]
    """The exact value of the token's claim `iss`."""
    audience: Annotated[Texts, some("name the audience that the issuer writes for this relay")]
    """One of these must be in the token's claim `aud`: what the issuer writes into tokens for this relay, and for
    nobody else. A token made for another service must not be good here."""
    jwks_url: Annotated[str, AfterValidator(_https_url)] | None = None
    """Where its public keys are fetched; renewed every ten minutes, and when a token names an unknown one."""
    jwks_ca: ConfigFile | None = None
    """PEM file: the CAs that the URL's server is verified against. Without it those of the system."""
    jwks_file: ConfigFile | None = None
    """Its public keys as a file, in place of a URL."""
    algorithms: Annotated[tuple[Algorithm, ...], BeforeValidator(as_list), Field(min_length=1)] = ("RS256", "ES256")
    """The signatures that count."""
    required_claims: Texts = ()
    """Claims that every token must have, besides exp, iss and aud."""


class TokenEndpointConfig(ConfigModel):
    """A place where senders with `oauth` get tokens: POST https://<host><path>."""

    host: Host
    """The host name, in any case and without a port."""
    path: UrlPath = "/oauth/token"
    """The exact path. It must not be a route's, nor lie within another tenant's."""
    lifetime: Annotated[Duration, Field(ge=60, le=86400)] = 3600.0
    """How long a token counts. Senders fetch a new one when it is over."""
