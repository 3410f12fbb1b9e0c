"""Identity in the running relay: the state is held open, its certificate kept alive, tunnels are told of changes."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final

from cloud_relay.attached import attached, hint
from cloud_relay.expiries import Expiry, near
from cloud_relay.identity import describe
from cloud_relay.identity.desk import Desk
from cloud_relay.identity.events import Event, Kind
from cloud_relay.identity.office import Office, open_office
from cloud_relay.identity.reissue import Reissue
from cloud_relay.identity.upkeep import Upkeep
from cloud_relay.policy import ConfigPolicy
from shared.exits import CommandError, ExitCode
from shared.pki.files import Stamp, stamp

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.identity.records import ConnectorKey

MAKING: Final = 10.0
"""Seconds that the first process may take to make the relay's certificate."""

LOOK: Final = 0.05

_ABOUT_TRUST: Final = frozenset({Kind.ROOT_CREATED, Kind.CROSS_SIGNED, Kind.ROLL_OVER, Kind.RESTORED})
_ABOUT_ACCESS: Final = frozenset({Kind.REVOKED, Kind.BLOCKED, Kind.ROLL_OVER})


class IdentityService:
    """Made by `open_identity`; `run` it as a task, `close` it once."""

    def __init__(self, app: RelayApp, office: Office) -> None:
        self._app = app
        self._own_seen: Stamp = None
        self.office = office
        office.roll_over.in_use = self._in_use
        self.upkeep = Upkeep(
            office.registrar, office.roll_over, office.own,
            lambda: [address.host for address in app.config.tunnel.advertise], self._renew_context,
            lambda: self.is_authority,
        )  # fmt: skip
        self.upkeep.all_expiries = self.expiries
        self.upkeep.reissue = Reissue(
            lambda: office.book, lambda: [one[:2] for one in attached(app)], self._hint, app.loop.time
        ).look
        self._add_metrics()
        self.desk = Desk(office, lambda: app.config, self.upkeep, self._attached, self._hint)
        office.registrar.on_change(self._on_change)

    @property
    def is_authority(self) -> bool:
        """Whether the relay is its own CA."""
        return self._app.config.tunnel.tls is None

    def context(self) -> ssl.SSLContext:
        """The tunnel listener's side of TLS where the relay is its own CA. Raises PkiError."""
        seen = stamp(self.office.own.path)
        context = self.office.own.context(self._app.clock.now())
        self._own_seen = seen  # no sooner: what cannot be read now is tried again
        return context

    async def follow(self) -> None:
        """Take in what another process has written: events, and the relay's own certificate, of which there is none.
        Raises StateError, PkiError."""
        await self.office.registrar.follow()
        if self.is_authority and stamp(self.office.own.path) != self._own_seen:
            self._renew_context()

    async def run(self) -> None:
        """Keep the identity alive, until cancelled."""
        await self.upkeep.run()

    async def let_go(self) -> None:
        """Write nothing any more: the next process of this relay is to have the state."""
        await self.upkeep.pause()
        try:
            await self.office.let_go()
        except BaseException:
            self.upkeep.resume()
            raise

    async def take_back(self) -> None:
        """The next process came to nothing. CommandError, StateError: the state cannot be had yet."""
        await self.office.take_back()
        self.upkeep.resume()

    async def close(self) -> None:
        """Let go of the state."""
        await self.office.close()

    def expiries(self) -> list[Expiry]:
        """All certificates of this relay: those of its own CA, and those that the config names."""
        named = self._app.doors.expiries if self._app.doors is not None else ()
        now = self._app.clock.now()
        own = self.upkeep.expiries() if self.is_authority else []
        return [*own, *(one._replace(warning=near(one, now)) for one in named)]

    def status(self) -> dict[str, Any]:
        """What `cloud-relay status` shows of it."""
        book, clock = self.office.book, self._app.clock
        return {
            "is_authority": self.is_authority,
            "generation": book.active or None,
            "roll_over": book.stage.value,
            "waits_for": len(book.waits_for(clock.now())),
            "clock_error_s": round(clock.error_seconds, 1),
            "clock_is_doubtful": clock.is_doubtful,
            "certificates": [describe.expiry(one) for one in self.expiries()],
        }

    def _add_metrics(self) -> None:
        metrics, clock = self._app.metrics, self._app.clock
        outcomes = metrics.counter(
            "qanat_relay_certificates_asked", "Certificates that connectors asked for, by outcome.", ("via", "outcome")
        )

        def count(via: str, outcome: str) -> None:
            outcomes.labels(via, outcome).value += 1

        self.office.registrar.count = count
        metrics.gauge(
            "qanat_relay_certificate_not_after_seconds", "When a certificate in use ends, Unix time.",
            lambda: {(one.kind, one.name): one.not_after.timestamp() for one in self.expiries()}, ("kind", "name"),
        )  # fmt: skip
        metrics.gauge(
            "qanat_relay_certificate_ends_soon", "1 when it should have been renewed by now.",
            lambda: {(one.kind, one.name): float(bool(one.warning)) for one in self.expiries()}, ("kind", "name"),
        )  # fmt: skip
        metrics.gauge("qanat_relay_clock_error_seconds", "How far the wall clock has jumped.",
                      lambda: clock.error_seconds if clock.is_doubtful else 0.0)  # fmt: skip
        metrics.gauge("qanat_relay_ca_roll_over_waits_for", "Connectors that the roll-over of the CA waits for.",
                      lambda: float(len(self.office.book.waits_for(clock.now()))))  # fmt: skip
        metrics.gauge("qanat_relay_own_renewals_failed", "Upkeep of the relay's own identity that failed.",
                      lambda: float(self.upkeep.failures))  # fmt: skip

    # --- what changes lead to

    def _on_change(self, events: Sequence[Event]) -> None:
        kinds = {event.kind for event in events}
        doors = self._app.doors
        if doors is None:
            return
        if kinds & _ABOUT_ACCESS:
            doors.tunnel.recheck()
        if kinds & _ABOUT_TRUST:
            doors.tunnel.retell_trust()
            self._renew_context()

    def _renew_context(self) -> None:
        if self._app.doors is not None and self.is_authority:
            self._app.doors.tunnel.tls = self.context()

    # --- what the tunnels are asked

    def _attached(self, key: ConnectorKey) -> list[tuple[str, float]]:
        now = self._app.loop.time()
        return [(one.fingerprint, now - one.since) for one in attached(self._app) if one.connector == key]

    def _in_use(self, generation: int) -> int:
        certificates = self.office.book.certificates
        return sum(
            1 for one in attached(self._app)
            if (record := certificates.get(one.fingerprint)) and record.generation == generation
        )  # fmt: skip

    def _hint(self, key: ConnectorKey, within: float) -> int:
        return hint(self._app, key, within)


async def open_identity(app: RelayApp, patience: float = 0.0, *, is_shared: bool = False) -> IdentityService:
    """Open the state, and see to it that the relay has a certificate. CommandError says why not.

    `patience` are seconds for another process to let go of the state; see `open_office`.
    """
    office = await open_office(
        app.config, app.clock, lambda *place: ConfigPolicy(app.config).knows(*place), patience, is_shared=is_shared
    )
    try:
        service = IdentityService(app, office)
        if service.is_authority:
            if app.is_first:
                office.roll_over.clear_keys()
                await service.upkeep.look()
            else:
                await _until_made(office)
            _require_own_certificate(office)
    except BaseException:
        await office.close()
        raise
    return service


async def _until_made(office: Office) -> None:
    """The relay's certificate is made by the first of its processes: two would each make one, and remove keys of CAs
    that the other is just making."""
    until = time.monotonic() + MAKING
    while not office.own.chain() and time.monotonic() < until:  # noqa: ASYNC110 - a file that another process writes
        await asyncio.sleep(LOOK)


def _require_own_certificate(office: Office) -> None:
    if not office.own.chain():
        raise CommandError(
            ExitCode.FAILED, "the relay could not make a certificate for itself; its log says why",
            "Look at the CA's keys, the passphrase and the disk.", "no-own-certificate",
        )  # fmt: skip
