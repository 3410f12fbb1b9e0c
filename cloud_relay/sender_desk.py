"""The senders of a relay that runs: who they are, and who is switched off, here or by another process of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cloud_relay.sender_control import senders_view
from shared.logs import get_logger

if TYPE_CHECKING:
    from cloud_relay.metrics import SenderMetrics
    from cloud_relay.sender_service import SenderService
    from cloud_relay.snapshot import Snapshot

_log = get_logger("relay.senders")


class SenderDesk:
    """What `sender_routes` asks. `recheck` ends what a sender that was switched off has open."""

    def __init__(
        self,
        service: SenderService,
        snapshot: Callable[[], Snapshot],
        counted: Mapping[tuple[str, str], SenderMetrics],
        recheck: Callable[[], None],
    ) -> None:
        self._service = service
        self._snapshot = snapshot
        self._counted = counted
        self._recheck = recheck

    def __repr__(self) -> str:
        return f"<SenderDesk disabled={len(self._service.state.disabled())}>"

    def listed(self) -> list[dict[str, Any]]:
        """What `cloud-relay senders list` shows."""
        return senders_view(self._snapshot().config, self._service.state.disabled(), self._counted)

    def set_disabled(self, tenant: str, name: str, *, is_disabled: bool) -> bool:
        """Switch a sender off or on, from its next push on; False if it was so already. LookupError if there is none.
        OSError, and nothing is changed, if it cannot be written down."""
        sender = self._snapshot().senders[tenant, name]
        has_changed = self._service.state.set_disabled((tenant, name), time.time() if is_disabled else None)
        sender.is_disabled = is_disabled
        self._recheck()
        if has_changed:
            _log.warning("sender switched off" if is_disabled else "sender switched on", tenant=tenant, sender=name)
        return has_changed

    def follow(self) -> None:
        """Take in who was switched off or on by another process. PkiError, OSError."""
        senders = self._snapshot().senders
        changed = self._service.follow()
        for key in changed & senders.keys():
            senders[key].is_disabled = key in self._service.state.disabled()
        if changed:
            self._recheck()
