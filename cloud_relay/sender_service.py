"""What judging senders needs beside a config, for the life of the process: keys, throttle, state, and their files."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from cloud_relay.hashing import HashingPool
from cloud_relay.oauth import keys as token_keys
from cloud_relay.oauth.fetch import KeyBook
from cloud_relay.oauth.keys import SigningKeys
from cloud_relay.oauth.tokens import AccessTokens
from cloud_relay.realms import SenderServices
from cloud_relay.sender_state import FILE, SenderFile, SenderState
from cloud_relay.throttle import FailureThrottle
from shared.exits import CommandError, ExitCode
from shared.logs import get_logger
from shared.pki.files import PkiError, Stamp, stamp

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig

_log = get_logger("relay.senders")


class SenderService:
    """Made once. `require` reads the state before anything is served; `close` ends what runs."""

    def __init__(self, config: RelayConfig, pool: HashingPool) -> None:
        self._file = SenderFile(config.state_dir / FILE)
        self._keys = SigningKeys(config.state_dir / token_keys.FILE)
        tokens = AccessTokens(self._keys, config.trust_domain)
        self._seen: tuple[Stamp, Stamp] = (None, None)
        self.services = SenderServices(pool, FailureThrottle(), KeyBook(), tokens)

    @property
    def state(self) -> SenderState:
        """Who is switched off."""
        return self._file

    def require(self, config: RelayConfig) -> None:
        """Read what the state holds. CommandError for a file that cannot be used."""
        with _required(config):
            self._file.load()
            self.open(config)

    def open(self, config: RelayConfig) -> None:
        """Have a key to sign with, if this config has a token endpoint. PkiError or OSError if that cannot be."""
        if _signs(config):
            self._keys.open(time.time())

    def rotate_keys(self, config: RelayConfig) -> None:
        """Sign with a new key if the current one has served its time."""
        if not self._keys.is_open:
            return
        try:
            if self._keys.rotate_if_due(time.time(), config.oauth.rotate_keys):
                _log.info("tokens are signed with a new key", key=self._keys.current.id)
        except OSError as error:
            _log.error("the token key cannot be renewed; the old one stays in use", cause=error.strerror or str(error))

    def follow(self) -> None:
        """Take in what another process has written since. PkiError, OSError: a file cannot be read, and what was known
        of it stays."""
        seen = (stamp(self._file.path), stamp(self._keys.path))
        if seen == self._seen:
            return
        self._file.load()
        if self._keys.is_open:
            self._keys.reread()
        self._seen = seen

    def close(self) -> None:
        """End what runs."""
        self.services.keys.close()


def rehearse_senders(config: RelayConfig) -> None:
    """Whether `require` would fail, beside a process that has the state: nothing is written. CommandError."""
    keys = SigningKeys(config.state_dir / token_keys.FILE)
    with _required(config):
        SenderFile(config.state_dir / FILE).load()
        if _signs(config) and keys.path.exists():
            keys.reread()


def _signs(config: RelayConfig) -> bool:
    return any(tenant.token_endpoints for tenant in config.tenants.values())


@contextmanager
def _required(config: RelayConfig) -> Iterator[None]:
    """CommandError for a state that cannot be used."""
    try:
        yield
    except PkiError as error:
        raise CommandError(ExitCode.FAILED, str(error), code="state-unusable") from error
    except OSError as error:
        message = f"the state in {config.state_dir} cannot be used: {error.strerror or error}"
        raise CommandError(ExitCode.FAILED, message, code="state-unusable") from error
