"""Identity in the running relay: the state is held open, its certificate kept alive, tunnels are told of changes."""

from __future__ import annotations

import ssl
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from cloud_relay.identity.desk import Desk
from cloud_relay.identity.events import Event, Kind
from cloud_relay.identity.office import Office, open_office
from cloud_relay.identity.upkeep import Upkeep
from cloud_relay.policy import ConfigPolicy
from shared.exits import CommandError, ExitCode

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.identity.records import ConnectorKey

_ABOUT_TRUST: Final = frozenset({Kind.ROOT_CREATED, Kind.CROSS_SIGNED, Kind.ROLL_OVER, Kind.RESTORED})
_ABOUT_ACCESS: Final = frozenset({Kind.REVOKED, Kind.BLOCKED, Kind.ROLL_OVER})


class IdentityService:
    """Made by `open_identity`; `run` it as a task, `close` it once."""

    def __init__(self, app: RelayApp, office: Office) -> None:
        self._app = app
        self.office = office
        office.roll_over.in_use = self._in_use
        self.upkeep = Upkeep(
            office.registrar, office.roll_over, office.own,
            lambda: [address.host for address in app.config.tunnel.advertise], self._renew_context,
        )  # fmt: skip
        self.desk = Desk(office, lambda: app.config, self.upkeep, self._attached, self._hint)
        office.registrar.on_change(self._on_change)

    @property
    def is_authority(self) -> bool:
        """Whether the relay is its own CA."""
        return self._app.config.tunnel.tls is None

    def context(self) -> ssl.SSLContext:
        """The tunnel listener's side of TLS where the relay is its own CA. Raises PkiError."""
        return self.office.own.context(self._app.clock.now())

    async def run(self) -> None:
        """Keep the identity alive, until cancelled."""
        if self.is_authority:
            await self.upkeep.run()

    async def close(self) -> None:
        """Let go of the state."""
        await self.office.close()

    # --- what changes lead to

    def _on_change(self, events: Sequence[Event]) -> None:
        kinds = {event.kind for event in events}
        doors = self._app.doors
        if doors is None:
            return
        if kinds & _ABOUT_TRUST:
            self._renew_context()
            doors.tunnel.retell_trust()
        if kinds & _ABOUT_ACCESS:
            doors.tunnel.recheck()

    def _renew_context(self) -> None:
        if self._app.doors is not None and self.is_authority:
            self._app.doors.tunnel.tls = self.context()

    # --- what the tunnels are asked

    def _attached(self, key: ConnectorKey) -> list[tuple[str, float]]:
        sessions = self._app.registry.of_connector(key)
        now = self._app.loop.time()
        return [(session.identity.fingerprint, now - session.attached_at) for session in sessions]

    def _in_use(self, generation: int) -> int:
        certificates = self.office.book.certificates
        return sum(
            1 for session in self._app.registry.sessions()
            if (record := certificates.get(session.identity.fingerprint)) and record.generation == generation
        )  # fmt: skip

    def _hint(self, key: ConnectorKey, within: float) -> int:
        return self._app.doors.tunnel.hint(key, within) if self._app.doors is not None else 0


async def open_identity(app: RelayApp) -> IdentityService:
    """Open the state, and see to it that the relay has a certificate. CommandError says why not."""
    office = await open_office(app.config, app.clock, lambda *place: ConfigPolicy(app.config).knows(*place))
    service = IdentityService(app, office)
    if service.is_authority:
        await service.upkeep.look()
        if not office.own.chain():
            await office.close()
            raise CommandError(
                ExitCode.FAILED, "the relay could not make a certificate for itself; its log says why",
                "Look at the CA's keys, the passphrase and the disk.", "no-own-certificate",
            )  # fmt: skip
    return service
