"""Who is attached to this relay, at whichever of its processes, and how a connector is asked to renew."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from cloud_relay.app import RelayApp
    from cloud_relay.identity.records import ConnectorKey


class Attached(NamedTuple):
    """A session: whose, by which certificate, and since when (the loop's time)."""

    connector: ConnectorKey
    fingerprint: str
    since: float


def attached(app: RelayApp) -> list[Attached]:
    """All sessions of the relay, at whichever worker."""
    here = [Attached(one.identity.key, one.identity.fingerprint, one.attached_at) for one in app.registry.sessions()]
    rivals = app.team.wide.rivals() if app.team is not None else []
    return here + [Attached(one.connector, one.fingerprint, one.since) for one in rivals]


def hint(app: RelayApp, connector: ConnectorKey, within: float) -> int:
    """Ask a connector for a renewal within so many seconds; 0 where it has no tunnel that could carry the hint."""
    here = app.doors.tunnel.hint(connector, within) if app.doors is not None else 0
    if here or app.team is None:
        return here
    app.team.host.tell({"hint": connector, "within": within})
    return int(any(one.connector == connector for one in app.team.wide.rivals()))
