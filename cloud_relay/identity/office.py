"""Everything of the relay's identity state in one place: opened from the state directory, closed once.

The daemon holds it while it runs; a command opens it for a moment while no daemon runs.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Final

from cloud_relay.identity.book import Book
from cloud_relay.identity.events import Event
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.own import OWN_FILE, OwnCertificate
from cloud_relay.identity.registrar import Lifetimes, Registrar
from cloud_relay.identity.rollover import RollOver
from cloud_relay.identity.store import STATE_FILE, SqliteStore, StateError, StateLock, read_events
from cloud_relay.policy import ConfigPolicy
from shared.clock import TrustedClock
from shared.exits import CommandError, ExitCode
from shared.pki.files import PkiError, read_private
from shared.pki.tls import managed_server_context

if TYPE_CHECKING:
    from cloud_relay.config import RelayConfig
    from cloud_relay.config.models import IdentityConfig


_LOOK: Final = 0.02
"""Seconds between looks at whether the lock is free."""


class Office:
    """The registrar of one state directory, and the lock that makes it the only one."""

    def __init__(self, lock: StateLock, store: SqliteStore, registrar: Registrar, state_dir: Path) -> None:
        self._lock = lock
        self.store = store
        self.registrar = registrar
        self.own = OwnCertificate(state_dir, registrar)
        self.roll_over = RollOver(registrar)

    @property
    def book(self) -> Book:
        """What counts now."""
        return self.registrar.book

    async def events(self, after: int, most: int) -> list[Event]:
        """The audit trail after event number `after`, at most so many."""
        return await self.store.read(after, most)

    async def let_go(self) -> None:
        """Write no more, and let go of the lock; what another process writes then is read by `registrar.follow`."""
        await self.registrar.suspend()
        self._lock.release()

    async def take_back(self) -> None:
        """Be the writer again. CommandError while another process holds the state, StateError if it cannot be read."""
        self._lock.acquire()
        try:
            await self.registrar.resume()
        except BaseException:
            self._lock.release()
            raise

    async def close(self) -> None:
        """Let go of state and lock."""
        await self.store.close()
        self._lock.release()


async def open_office(
    config: RelayConfig,
    clock: TrustedClock,
    knows: Callable[[str, str], bool] | None = None,
    patience: float = 0.0,
    *,
    is_shared: bool = False,
) -> Office:
    """Open the state of the relay with this config, under its lock. CommandError says what is wrong and what to do.

    `knows` says which tenants and locations there are, if not for ever those of this config. `patience` are seconds for
    another process to let go of the lock. `is_shared`: the parent holds the lock, and its children write side by side.
    """
    state_dir = config.state_dir
    passphrase = read_passphrase(config.identity.passphrase_file)
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = StateLock(state_dir)
    if not is_shared:
        await _acquire(lock, patience)
    try:
        store = SqliteStore(state_dir / STATE_FILE)
        try:
            book = Book(timedelta(seconds=config.identity.renewal_grace))
            for event in await store.read():
                book.apply(event)
            book.forget(clock.now())
            check_fits(config, book)
        except BaseException:
            await store.close()
            raise
    except StateError as error:
        lock.release()
        raise CommandError(ExitCode.FAILED, str(error), code="state-unusable") from error
    except BaseException:
        lock.release()
        raise
    known = knows or ConfigPolicy(config).knows
    registrar = Registrar(book, store, KeyFolder(state_dir, passphrase), clock, lifetimes(config.identity), known)
    registrar.is_shared = is_shared
    return Office(lock, store, registrar, state_dir)


async def _acquire(lock: StateLock, patience: float) -> None:
    until = time.monotonic() + patience
    while True:
        try:
            lock.acquire()
        except CommandError:
            if time.monotonic() >= until:
                raise
            await asyncio.sleep(_LOOK)
        else:
            return


def rehearse(config: RelayConfig, clock: TrustedClock) -> ssl.SSLContext:
    """The tunnel listener's side of TLS, from a state that another process holds: nothing is written.

    CommandError or PkiError where `open_office` would fail with this config, or no context could be made.
    """
    state_dir = config.state_dir
    passphrase = read_passphrase(config.identity.passphrase_file)
    book = _looked_at(config)
    if config.tunnel.tls is not None:
        return ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    roots = book.trust(clock.now()).client_roots
    return managed_server_context(state_dir / OWN_FILE, roots, passphrase)


def doubts(config: RelayConfig, passphrase: bytes | None) -> list[str]:
    """What is doubtful in the relay's own CA, in a state that another process may hold: nothing is written.

    CommandError where `open_office` would fail with this config.
    """
    keys = KeyFolder(config.state_dir, passphrase)
    generation = _looked_at(config).generation
    found = []
    for load in (keys.issuing, keys.root) if keys.has_root(generation) else (keys.issuing,):
        try:
            load(generation)
        except PkiError as error:
            found.append(f"no certificate can be signed: {error}" if load == keys.issuing else str(error))
    return found


def _looked_at(config: RelayConfig) -> Book:
    """The book of the state as it is on disk, without a lock. CommandError if it is none for this config."""
    book = Book(timedelta(seconds=config.identity.renewal_grace))
    try:
        for event in read_events(config.state_dir / STATE_FILE):
            book.apply(event)
    except StateError as error:
        raise CommandError(ExitCode.FAILED, str(error), code="state-unusable") from error
    check_fits(config, book)
    return book


def check_fits(config: RelayConfig, book: Book) -> None:
    """CommandError unless the state is one that this config can run on."""
    if config.tunnel.tls is not None:
        return
    if not book.is_initialised:
        raise CommandError(
            ExitCode.CONFIG,
            f"there is no CA in {config.state_dir}, and the config names no certificates (tunnel.tls)",
            "Run 'cloud-relay init' once, or restore a backup: 'cloud-relay restore'.",
            "not-initialised",
        )
    if book.trust_domain != config.trust_domain:
        raise CommandError(
            ExitCode.CONFIG,
            f"trust_domain is {config.trust_domain} in the config and {book.trust_domain} in {config.state_dir}",
            f"The trust domain was fixed by 'cloud-relay init'; write trust_domain: {book.trust_domain}.",
            "trust-domain-changed",
        )


def lifetimes(config: IdentityConfig) -> Lifetimes:
    """The config's lifetimes."""
    return Lifetimes(
        timedelta(seconds=config.leaf_lifetime), timedelta(seconds=config.issuing_lifetime),
        timedelta(seconds=config.root_lifetime),
    )  # fmt: skip


def read_passphrase(path: Path | None) -> bytes | None:
    """The passphrase of the CA's keys: a file's one line. CommandError if it cannot be used."""
    if path is None:
        return None
    try:
        passphrase = read_private(path, "passphrase").removesuffix(b"\n").removesuffix(b"\r")
    except PkiError as error:
        raise CommandError(ExitCode.CONFIG, str(error)) from error
    if not 8 <= len(passphrase) <= 1000 or b"\n" in passphrase:
        raise CommandError(ExitCode.CONFIG, f"{path}: a passphrase is one line of 8 to 1,000 bytes")
    return passphrase
