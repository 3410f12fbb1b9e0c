"""What comes to the token endpoint: a form, and a client's credentials in it or in `Authorization` (RFC 6749 §2.3.1).

Whatever is not exactly that is refused with the error code of RFC 6749 §5.2; nothing that was sent is repeated.
"""

from __future__ import annotations

from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote_to_bytes

from cloud_relay.credentials import read_basic

MAX_FORM: Final = 8192
"""Bytes of the largest form that is taken."""

MAX_FIELDS: Final = 32

_CONTENT_TYPE: Final = b"application/x-www-form-urlencoded"
_SCOPE: Final = frozenset(map(chr, range(0x20, 0x7F))) - set('"\\')


class TokenError(Exception):
    """A request that gets no token: an error code of RFC 6749 §5.2, and a sentence for whoever sets the sender up."""

    def __init__(self, code: str, description: str) -> None:
        super().__init__(code)
        self.code = code
        self.description = description


class TokenForm(NamedTuple):
    """A well-formed request. `secrets` are the ways in which the secret can be meant, the plainest first."""

    client_id: bytes
    secrets: tuple[bytes, ...]
    has_scope: bool


def read_form(method: bytes, fields: dict[bytes, bytes], body: bytes) -> TokenForm:
    """Read a request by its method, its header fields (lower-case names) and its whole body. Raises TokenError."""
    if method != b"POST":
        raise TokenError("invalid_request", "Use POST.")
    kind = fields.get(b"content-type", b"").partition(b";")[0].strip().lower()
    if kind != _CONTENT_TYPE or fields.get(b"content-encoding", b"identity").lower() != b"identity":
        raise TokenError("invalid_request", "Send the parameters as application/x-www-form-urlencoded.")
    values = _parameters(body)
    grant = values.get("grant_type")
    if grant is None:
        raise TokenError("invalid_request", "The parameter grant_type is missing.")
    if grant != "client_credentials":
        raise TokenError("unsupported_grant_type", "Only client_credentials is known here.")
    scope = values.get("scope", "")
    if not set(scope) <= _SCOPE:
        raise TokenError("invalid_scope", "The scope is malformed; none is needed.")
    client_id, secrets = _credentials(fields.get(b"authorization"), values)
    return TokenForm(client_id, secrets, bool(scope))


def _parameters(body: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            body.decode("ascii"), keep_blank_values=True, strict_parsing=bool(body), errors="strict",
            max_num_fields=MAX_FIELDS,
        )  # fmt: skip
    except ValueError:  # UnicodeDecodeError too
        raise TokenError("invalid_request", "The form is malformed.") from None
    values = dict(pairs)
    if len(values) != len(pairs):
        raise TokenError("invalid_request", "A parameter came twice.")
    return {name: value for name, value in values.items() if value}  # RFC 6749 §3.2: without a value it is as if absent


def _credentials(authorization: bytes | None, values: dict[str, str]) -> tuple[bytes, tuple[bytes, ...]]:
    if authorization is None:
        client_id, secret = values.get("client_id"), values.get("client_secret")
        if client_id is None or secret is None:
            raise TokenError("invalid_client", "Send client id and secret by HTTP Basic, or in the form.")
        return client_id.encode(), (secret.encode(),)
    if "client_secret" in values:
        raise TokenError("invalid_request", "Send the client's credentials once: by HTTP Basic, or in the form.")
    scheme, _, rest = authorization.partition(b" ")
    pair = read_basic(rest.strip(b" ")) if scheme.lower() == b"basic" else None
    if pair is None:
        raise TokenError("invalid_client", "Send client id and secret by HTTP Basic, or in the form.")
    sent_id, sent_secret = pair
    named = values.get("client_id")
    decoded = _form_decoded(sent_id)
    if named is not None and named.encode() not in (sent_id, decoded):
        raise TokenError("invalid_request", "Two client ids were sent.")
    # RFC 6749 §2.3.1 has both encoded as in a form; half of the clients do not. Where it makes a difference both count.
    return decoded, tuple(dict.fromkeys((sent_secret, _form_decoded(sent_secret))))


def _form_decoded(text: bytes) -> bytes:
    return unquote_to_bytes(text.replace(b"+", b" ")) if b"%" in text or b"+" in text else text
