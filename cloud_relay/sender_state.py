"""What an operator decided about senders while the relay runs, and what must survive its restart: who is switched off.

`SenderState` is all that the rest of the relay knows of it. `SenderFile` keeps it in one small file of the state.

    {"version": 1, "disabled": {"acme/s4-prod": 1764150000.0}}
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final, Protocol

import orjson

from shared.pki.files import MissingError, PkiError, read_private, write_private

FILE: Final = "senders.json"
"""Its name in the relay's state_dir."""

SenderKey = tuple[str, str]
"""(tenant, sender)"""


class SenderState(Protocol):
    """Who is switched off."""

    def disabled(self) -> Mapping[SenderKey, float]:
        """The senders that are switched off, and since when (Unix time)."""

    def set_disabled(self, sender: SenderKey, at: float | None) -> bool:
        """Switch a sender off at this time, or on again (None); False if it was so already. It is on the disk when this
        returns, or OSError is raised and nothing is changed."""


class SenderFile:
    """Kept in a file, written whole or not at all, under a lock: the command line may write too when no relay runs."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._disabled: dict[SenderKey, float] = {}

    def load(self) -> None:
        """Read the file; no file means that nobody is switched off. PkiError for one that cannot be used: to go on
        without it would let in whom somebody has shut out. So would one that is gone although somebody was."""
        try:
            data = read_private(self.path, "sender state")
        except MissingError:
            if self._disabled:
                msg = (
                    f"{self.path}: the sender state is gone: restore it from a backup, or restart the relay; then "
                    "every sender that was switched off is on again"
                )
                raise PkiError(msg) from None
        else:
            self._disabled = _parse(data, self.path)

    def disabled(self) -> Mapping[SenderKey, float]:
        """See SenderState."""
        return self._disabled

    def set_disabled(self, sender: SenderKey, at: float | None) -> bool:
        """See SenderState."""
        if (sender in self._disabled) == (at is not None):
            return False
        with _locked(self.path):
            self.load()
            changed = {key: since for key, since in self._disabled.items() if key != sender}
            if at is not None:
                changed[sender] = at
            write_private(self.path, _as_json(changed))
            self._disabled = changed
        return True


def merge_disabled(path: Path, restored: bytes) -> bytes:
    """What to restore at `path` from a backup: whoever is switched off in either stays so. A file that is damaged has
    no say."""
    try:
        present = _parse(read_private(path, "sender state"), path) if path.exists() else {}
    except PkiError:
        return restored
    return _as_json(_parse(restored, path) | present)


def _as_json(disabled: Mapping[SenderKey, float]) -> bytes:
    entries = {f"{tenant}/{name}": since for (tenant, name), since in sorted(disabled.items())}
    return orjson.dumps({"version": 1, "disabled": entries}, option=orjson.OPT_INDENT_2)


def _parse(data: bytes, path: Path) -> dict[SenderKey, float]:
    try:
        document = orjson.loads(data)
        if document["version"] != 1:
            raise ValueError("it is of a newer version")
        found: dict[SenderKey, float] = {}
        for key, since in document["disabled"].items():
            tenant, slash, name = key.partition("/")
            if not slash:
                raise ValueError("an entry names no tenant")
            found[tenant, name] = float(since)
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError, ValueError) as error:
        msg = (
            f"{path}: the sender state cannot be read ({error}): restore it from a backup, or remove it; then every "
            "sender that was switched off is on again"
        )
        raise PkiError(msg) from error
    return found


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    number = os.open(path.with_name(f".{path.name}.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(number, fcntl.LOCK_EX)
        yield
    finally:
        os.close(number)
