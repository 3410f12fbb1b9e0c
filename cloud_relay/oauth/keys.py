"""The keys that the relay signs its tokens with: Ed25519, in one file of the state, readable by its owner only.

A sender that got a token uses it until it expires, and some never ask for another one before (Prometheus does not,
whatever it is answered). So a key that is replaced goes on judging what it has signed: for the longest lifetime that a
token can have, and a minute. A file that cannot be read ends the start: a new key would refuse every token given out.

    {"version": 1, "keys": [{"id": "…", "made_at": 1764150000, "retired_at": null, "key": "<base64url, 32 bytes>"}]}
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import orjson
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from shared.pki.files import PkiError, read_private, write_private

FILE: Final = "token-keys.json"
"""Its name in the relay's state_dir."""

LONGEST_LIFETIME: Final = 86_400.0
"""Seconds that a token may count at most; the config cannot ask for more."""

LEEWAY: Final = 60.0
"""Seconds after its expiry in which a token is still taken: clocks differ, and pushes take a while."""


class SigningKey(NamedTuple):
    """One key. Times are Unix seconds; `retired_at` is when the next one took over."""

    id: str
    made_at: float
    retired_at: float | None
    private: Ed25519PrivateKey

    @property
    def public(self) -> Ed25519PublicKey:
        """What judges its signatures."""
        return self.private.public_key()

    def __repr__(self) -> str:
        return f"<SigningKey {self.id}>"


class SigningKeys:
    """All keys that still count. Nothing is read or written before `open`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._keys: list[SigningKey] = []
        self._public: dict[str, Ed25519PublicKey] = {}

    def open(self, now: float) -> None:
        """Read the keys, or make the first one where there is no file. PkiError for a file that cannot be used.

        Does nothing when they are open already.
        """
        if self._keys:
            return
        if self.path.exists():
            self._use(_parse(read_private(self.path, "token key"), self.path))
        else:
            self._write([_new_key(now)])

    def reread(self) -> None:
        """Take what another process has written. PkiError for a file that cannot be used; then all stays as it was."""
        self._use(_parse(read_private(self.path, "token key"), self.path))

    @property
    def is_open(self) -> bool:
        """Whether there is a key to sign with."""
        return bool(self._keys)

    @property
    def current(self) -> SigningKey:
        """The key to sign with."""
        return self._keys[-1]

    def public(self, key_id: str) -> Ed25519PublicKey | None:
        """The key that judges what `key_id` has signed."""
        return self._public.get(key_id)

    def rotate_if_due(self, now: float, period: float) -> bool:
        """Sign with a new key from now on if the current one has served `period` seconds; drop what has had its time.

        The file is written before anything is signed. Raises OSError; then everything is as it was.
        """
        keys = [key for key in self._keys if key.retired_at is None or now < key.retired_at + LONGEST_LIFETIME + LEEWAY]
        is_due = now >= self.current.made_at + period
        if is_due:
            keys[-1] = keys[-1]._replace(retired_at=now)
            keys.append(_new_key(now))
        if len(keys) != len(self._keys) or is_due:
            self._write(keys)
        return is_due

    def _write(self, keys: list[SigningKey]) -> None:
        document = {"version": 1, "keys": [_as_json(key) for key in keys]}
        write_private(self.path, orjson.dumps(document, option=orjson.OPT_INDENT_2))
        self._use(keys)

    def _use(self, keys: list[SigningKey]) -> None:
        self._keys = keys
        self._public = {key.id: key.public for key in keys}

    def __repr__(self) -> str:
        return f"<SigningKeys {', '.join(key.id for key in self._keys) or 'not open'}>"


def _new_key(now: float) -> SigningKey:
    return SigningKey(secrets.token_hex(8), now, None, Ed25519PrivateKey.generate())


def _as_json(key: SigningKey) -> dict[str, Any]:
    raw = base64.urlsafe_b64encode(key.private.private_bytes_raw()).decode()
    return {"id": key.id, "made_at": key.made_at, "retired_at": key.retired_at, "key": raw}


def _parse(data: bytes, path: Path) -> list[SigningKey]:
    try:
        document = orjson.loads(data)
        if document["version"] != 1:
            msg = f"{path}: the token keys are of a newer version ({document['version']}): upgrade the relay"
            raise PkiError(msg)
        keys = [_from_json(entry) for entry in document["keys"]]
        if not keys or keys[-1].retired_at is not None:
            raise ValueError("no key is in use")
    except PkiError:
        raise
    except (orjson.JSONDecodeError, binascii.Error, KeyError, TypeError, ValueError) as error:
        msg = (
            f"{path}: the token keys cannot be read ({type(error).__name__}): restore the file from a backup, or "
            "remove it; then every token given out gets 503 until its sender fetches a new one"
        )
        raise PkiError(msg) from error
    return keys


def _from_json(entry: Mapping[str, Any]) -> SigningKey:
    private = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(entry["key"]))
    retired_at = entry["retired_at"]
    return SigningKey(
        str(entry["id"]), float(entry["made_at"]), None if retired_at is None else float(retired_at), private
    )
