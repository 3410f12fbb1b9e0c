"""Join tokens: one line of text that brings a new connector to its relay, and proves that it may come.

    qanat-join-1_<base64url of a JSON object>.<checksum>

It holds where the relays are, the pin of the root CA's key (so that the first connection, to whom it knows nobody, can
be judged), whom the token is for, and a secret of 256 bits that counts once. The checksum is against slips of the hand;
whoever changes a token on purpose gains nothing, for the relay knows what it made.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
import zlib
from typing import Final, NamedTuple

from shared.config import HostPort
from shared.names import check_name
from shared.pki.spiffe import ConnectorId, check_trust_domain, connector_id

PREFIX: Final = "qanat-join-1_"
MAX_TOKEN: Final = 4096
"""Characters. With one relay a token has about 420."""

_FORM: Final = re.compile(r"qanat-join-1_([A-Za-z0-9_-]{1,4000})\.([0-9a-f]{8})", re.ASCII)
_HEX: Final = re.compile(r"[0-9a-f]{64}", re.ASCII)
_ID: Final = re.compile(r"[a-z0-9]{4,32}", re.ASCII)
_HOST: Final = re.compile(r"[A-Za-z0-9._:-]{1,253}", re.ASCII)
MAX_RELAYS: Final = 16


class JoinToken(NamedTuple):
    """What a token says. `pin` is SHA-256 of the root's SubjectPublicKeyInfo in hex, `token` its public name,
    `secret` 64 hex digits. Only `str` shows the secret."""

    trust_domain: str
    relays: tuple[HostPort, ...]
    pin: str
    tenant: str
    location: str
    connector: str
    token: str
    secret: str

    @property
    def identity(self) -> ConnectorId:
        """Whom the connector will be."""
        return connector_id(self.trust_domain, self.tenant, self.location, self.connector)

    def __str__(self) -> str:
        fields = {
            "d": self.trust_domain, "r": [[relay.host, relay.port] for relay in self.relays], "p": self.pin,
            "c": [self.tenant, self.location, self.connector], "i": self.token, "s": self.secret,
        }  # fmt: skip
        payload = base64.urlsafe_b64encode(json.dumps(fields, separators=(",", ":")).encode()).rstrip(b"=").decode()
        return f"{PREFIX}{payload}.{_checksum(payload)}"

    def __repr__(self) -> str:
        return f"<JoinToken {self.token} for {self.tenant}/{self.location}/{self.connector}>"


def parse_join_token(text: str) -> JoinToken:
    """Read what `str` of a token wrote, blanks around it aside. ValueError says what is wrong, never the secret."""
    text = text.strip()
    if len(text) > MAX_TOKEN:
        msg = "this is no join token: it is too long"
        raise ValueError(msg)
    match = _FORM.fullmatch(text)
    if match is None:
        hint = "a part of it is missing or was changed" if text.startswith("qanat-join-") else "it begins otherwise"
        msg = f"this is no join token of this version ({hint}); it is one line that begins with {PREFIX}"
        raise ValueError(msg)
    payload, checksum = match.groups()
    if _checksum(payload) != checksum:
        msg = "the join token is damaged: its checksum does not fit; copy it once more, whole"
        raise ValueError(msg)
    try:
        return _read(json.loads(base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4))))
    except (binascii.Error, ValueError, KeyError, TypeError, RecursionError):
        msg = "the join token holds something that no relay writes"
        raise ValueError(msg) from None


def _read(fields: dict[str, object]) -> JoinToken:
    relays, connector = fields["r"], fields["c"]
    if not isinstance(relays, list) or not 1 <= len(relays) <= MAX_RELAYS or not isinstance(connector, list):
        raise ValueError
    tenant, location, name = (check_name(_text(part)) for part in connector)
    return JoinToken(
        check_trust_domain(_text(fields["d"])), tuple(_relay(*one) for one in relays), _matched(_HEX, fields["p"]),
        tenant, location, name, _matched(_ID, fields["i"]), _matched(_HEX, fields["s"]),
    )  # fmt: skip


def _relay(host: object, port: object) -> HostPort:
    if type(port) is not int or not 1 <= port <= 65535:
        raise ValueError
    return HostPort(_matched(_HOST, host), port)


def _matched(form: re.Pattern[str], value: object) -> str:
    text = _text(value)
    if form.fullmatch(text) is None:
        raise ValueError
    return text


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _checksum(payload: str) -> str:
    return f"{zlib.crc32(payload.encode()):08x}"
