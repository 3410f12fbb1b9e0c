"""Secrets: made, hashed and compared. Only hashes ever stand in a config or in the state.

A secret that we made has 256 bits; one SHA-256 of it is enough, and cheap enough for every push. What a person chose is
guessed at, so it is hashed with scrypt, which costs a tenth of a second and 32 MiB: the caller verifies it in a thread
of a bounded pool, and remembers the outcome.

    sha256:<64 hexadecimal digits>
    scrypt:<N>:<r>:<p>:<salt, base64url>:<hash, base64url>
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
import secrets
from dataclasses import dataclass, field
from typing import Annotated, Final, Literal

from pydantic import PlainValidator, WithJsonSchema

SECRET_BYTES: Final = 33
"""264 bits, 44 characters. One character is drawn again where it would look like an option of a command."""

MAX_PRESENTED: Final = 1024
"""Bytes of the longest secret that is looked at."""

_N, _R, _P = 1 << 15, 8, 1  # twice the interactive setting of the scrypt paper: 32 MiB, a tenth of a second
_SALT_BYTES: Final = 16
_HASH_BYTES: Final = 32
_MAX_MEMORY: Final = 64 << 20

_SHA256: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_SCRYPT: Final = re.compile(
    r"scrypt:([1-9][0-9]{0,7}):([1-9][0-9]?):([1-9][0-9]?):([A-Za-z0-9_-]{16,64}):([A-Za-z0-9_-]{22,86})", re.ASCII
)
_COST_FORM: Final = "scrypt's N must be a power of two from 4096, N × r × 128 at most 32 MiB, N × r × p at most 2^21"
_FORM: Final = "write what 'cloud-relay secrets hash' prints: sha256:… or scrypt:…"


@dataclass(frozen=True, slots=True)
class StoredSecret:
    """A parsed hash. `kind` tells what verifying costs: sha256 about a microsecond, scrypt a tenth of a second."""

    kind: Literal["sha256", "scrypt"]
    digest: bytes = field(repr=False)
    salt: bytes = field(default=b"", repr=False)
    cost: tuple[int, int, int] = (0, 0, 0)
    """scrypt's N, r and p."""

    @property
    def is_slow(self) -> bool:
        """Verify it in a thread."""
        return self.kind == "scrypt"

    def verify(self, presented: bytes | str) -> bool:
        """Whether `presented` is the secret. Takes the same time wherever the two differ."""
        raw = presented.encode("utf-8", "surrogatepass") if isinstance(presented, str) else presented
        if len(raw) > MAX_PRESENTED:
            return False
        if self.kind == "sha256":
            return hmac.compare_digest(hashlib.sha256(raw).digest(), self.digest)
        return hmac.compare_digest(_scrypt(raw, self.salt, self.cost, len(self.digest)), self.digest)

    def __str__(self) -> str:
        return f"{self.kind}:***"


def new_secret() -> str:
    """A new secret: at least 256 bits, 44 URL-safe characters, the first a letter or a digit."""
    while True:
        secret = secrets.token_urlsafe(SECRET_BYTES)
        if secret[0].isalnum():
            return secret


def hash_secret(secret: str) -> str:
    """For a secret of `new_secret` only: "sha256:…". Anything that a person chose needs `hash_password`."""
    return f"sha256:{hashlib.sha256(secret.encode()).hexdigest()}"


def hash_password(password: str) -> str:
    """For a password: "scrypt:N:r:p:salt:hash" with a new salt. ValueError if it is empty or longer than 1024 bytes."""
    raw = password.encode()
    if not raw or len(raw) > MAX_PRESENTED:
        raise ValueError(f"a password must have 1 to {MAX_PRESENTED} bytes")
    salt = secrets.token_bytes(_SALT_BYTES)
    digest = _scrypt(raw, salt, (_N, _R, _P), _HASH_BYTES)
    return f"scrypt:{_N}:{_R}:{_P}:{_base64(salt)}:{_base64(digest)}"


def parse_stored(text: object) -> StoredSecret:
    """A hash as it stands in a config. ValueError says what is wrong, never the text: it may be a password."""
    if isinstance(text, StoredSecret):
        return text
    if not isinstance(text, str):
        raise ValueError(f"this is no hash of a secret; {_FORM}")
    if match := _SHA256.fullmatch(text):
        return StoredSecret("sha256", bytes.fromhex(match[1]))
    if match := _SCRYPT.fullmatch(text):
        n, r, p = int(match[1]), int(match[2]), int(match[3])
        if n < 1 << 12 or n & (n - 1) or 128 * n * r > _MAX_MEMORY // 2 or n * r * p > 1 << 21:
            raise ValueError(_COST_FORM)
        try:
            return StoredSecret("scrypt", _unbase64(match[5]), _unbase64(match[4]), (n, r, p))
        except binascii.Error as error:
            raise ValueError(f"the salt or the hash is not base64url; {_FORM}") from error
    if text.startswith(("sha256:", "scrypt:")):
        raise ValueError(f"this hash is damaged or cut off; {_FORM}")
    raise ValueError(f"this is no hash of a secret, perhaps the secret itself; {_FORM}")


def verify(stored: str | StoredSecret, presented: bytes | str) -> bool:
    """Whether `presented` is the secret of this hash. ValueError if `stored` is no hash."""
    return parse_stored(stored).verify(presented)


def _scrypt(secret: bytes, salt: bytes, cost: tuple[int, int, int], size: int) -> bytes:
    n, r, p = cost
    return hashlib.scrypt(secret, salt=salt, n=n, r=r, p=p, maxmem=_MAX_MEMORY, dklen=size)


def _base64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _unbase64(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


SecretHash = Annotated[
    StoredSecret,
    PlainValidator(parse_stored),
    WithJsonSchema({"type": "string", "pattern": "^(sha256|scrypt):", "description": _FORM}),
]
"""A pydantic field that reads a hash; its repr shows only the kind."""
