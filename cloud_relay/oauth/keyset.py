"""Public keys of a foreign issuer (RFC 7517): from a file that is part of the config, or fetched from the issuer.

What was fetched last and was good stays in use until something newer is good, however long the issuer is away. A key
that is not known makes us ask again, at most twice a minute: whoever makes up key ids cannot make us flood the issuer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Protocol

import jwt
import orjson

from shared.logs import get_logger, log_limited
from shared.pki.files import PkiError, read_public
from shared.tasks import spawn

ALGORITHMS: Final = (
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA",
)  # fmt: skip
"""Asymmetric ones only: with a shared secret, whoever can judge a token can also make one."""

MAX_DOCUMENT: Final = 256 * 1024
"""Bytes of the largest key set that is read."""

MAX_KEYS: Final = 64

FRESH_FOR: Final = 600.0
"""Seconds after which a key set is fetched anew, in the background, when a token asks for it."""

PAUSE: Final = 30.0
"""Seconds between two fetches, however they ended."""

FIRST_PAUSE: Final = 2.0
"""The same, as long as there has been no good one: without any keys every push of these senders gets 503."""

_KEY_TYPES: Final = {"RS": "RSA", "PS": "RSA", "ES": "EC", "Ed": "OKP"}
_MIN_RSA_BITS: Final = 2048

_log = get_logger("relay.senders")


class KeySet:
    """The usable keys of one document. What is no public signature key of a known kind is left out."""

    __slots__ = ("_keys",)

    def __init__(self, document: bytes) -> None:
        """ValueError for what is no key set, or holds no usable key."""
        try:
            parsed = orjson.loads(document)
        except orjson.JSONDecodeError as error:
            raise ValueError("it is not JSON") from error
        listed = parsed.get("keys") if isinstance(parsed, dict) else None
        if not isinstance(listed, list):
            raise ValueError('it is no JWK set: there is no list called "keys"')
        if len(listed) > MAX_KEYS:
            raise ValueError(f"it holds more than {MAX_KEYS} keys")
        self._keys: Final = [key for entry in listed if (key := _usable(entry)) is not None]
        if not self._keys:
            raise ValueError("it holds no public key for signatures (RSA from 2048 bits, EC, Ed25519)")

    def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """The keys that a token of this kind can be signed with; all of the right type if it names none."""
        kind = _KEY_TYPES[algorithm[:2]]
        return [
            key
            for key in self._keys
            if key.key_type == kind and (key_id is None or key.key_id == key_id) and _declared(key) in (None, algorithm)
        ]

    def __len__(self) -> int:
        return len(self._keys)


class KeySource(Protocol):
    """Where an issuer's keys come from."""

    def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """The keys that are known and fit."""

    def refresh(self) -> asyncio.Future[bool] | bool:
        """Ask for newer keys. Whether what is known then is newer than this call: if not, an unknown key stays a
        question."""


class FileKeys:
    """Keys from a file. A reload reads it anew, so what it does not hold is not known for good."""

    def __init__(self, keys: KeySet) -> None:
        self._keys = keys

    def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """See KeySource."""
        return self._keys.find(key_id, algorithm)

    def refresh(self) -> bool:
        """The file has said all there is."""
        return True


class RemoteKeys:
    """Keys from a URL. `fetch` gives the document, or raises OSError, ValueError or TimeoutError."""

    def __init__(
        self, name: str, fetch: Callable[[], Awaitable[bytes]], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.name = name
        self._fetch = fetch
        self._clock = clock
        self._keys: KeySet | None = None
        self._task: asyncio.Task[None] | None = None
        self._waiting: list[asyncio.Future[bool]] = []
        self._asked_at = float("-inf")
        self._good_at = float("-inf")
        self.failures = 0

    @property
    def is_known(self) -> bool:
        """Whether any key set was ever had."""
        return self._keys is not None

    def find(self, key_id: str | None, algorithm: str) -> list[jwt.PyJWK]:
        """See KeySource. What is no longer fresh is fetched behind the caller's back."""
        now = self._clock()
        if now - self._good_at > FRESH_FOR and now - self._asked_at >= PAUSE:
            self._ask(now)
        return [] if self._keys is None else self._keys.find(key_id, algorithm)

    def refresh(self) -> asyncio.Future[bool] | bool:
        """See KeySource."""
        now = self._clock()
        if self._task is not None:  # it was sent before this call: its answer may be from before a rotation
            is_new = asyncio.get_running_loop().create_future()
            self._waiting.append(is_new)
            return is_new
        if now - self._asked_at < (PAUSE if self._keys is not None else FIRST_PAUSE):
            return False
        self._ask(now)
        is_new = asyncio.get_running_loop().create_future()
        self._waiting.append(is_new)
        return is_new

    def close(self) -> None:
        """Stop fetching; who waits is told that nothing is known."""
        if self._task is not None:
            self._task.cancel()
        self._tell(is_new=False)

    def _ask(self, now: float) -> None:
        if self._task is None:
            self._asked_at = now
            self._task = spawn(self._run(now), "key set")

    async def _run(self, now: float) -> None:
        try:
            self._keys = KeySet(await self._fetch())
        except (OSError, ValueError, TimeoutError) as error:
            self.failures += 1
            kept = "the last good one stays in use" if self._keys is not None else "its tokens get 503 meanwhile"
            log_limited(
                _log, "warning", f"jwks {self.name}", f"a key set cannot be had; {kept}",
                url=self.name, cause=str(error) or type(error).__name__,
            )  # fmt: skip
        else:
            self._good_at = now
        finally:
            self._task = None
            self._tell(is_new=self._good_at == now)

    def _tell(self, *, is_new: bool) -> None:
        waiting, self._waiting = self._waiting, []
        for future in waiting:
            if not future.done():
                future.set_result(is_new)


def read_key_file(path: Path) -> KeySet:
    """The keys of a file. PkiError names the path and the remedy."""
    try:
        return KeySet(read_public(path, "key set"))
    except PkiError:
        raise
    except ValueError as error:
        msg = f"{path}: the key set cannot be used: {error}; store the issuer's JWK set (RFC 7517) there"
        raise PkiError(msg) from error


def _usable(entry: Any) -> jwt.PyJWK | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig" or "d" in entry or entry.get("kty") == "oct":
        return None
    operations = entry.get("key_ops")
    if isinstance(operations, list) and "verify" not in operations:
        return None
    try:
        key = jwt.PyJWK(entry)
    except (jwt.PyJWTError, ValueError, TypeError, KeyError, AttributeError):
        return None
    if key.algorithm_name not in ALGORITHMS:
        return None
    if key.key_type == "RSA" and key.key.key_size < _MIN_RSA_BITS:
        return None
    return key


def _declared(key: jwt.PyJWK) -> str | None:
    """The algorithm that the set's author bound the key to."""
    declared = key._jwk_data.get("alg")
    return declared if isinstance(declared, str) else None


def key_ids(keys: Iterable[jwt.PyJWK]) -> list[str | None]:
    """For tests and logs."""
    return [key.key_id for key in keys]
