"""The senders of a relay that runs: who they are, and who is switched off, here or by another process of it."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from cloud_relay.sender_control import senders_view
from shared.logs import get_logger, log_limited
from shared.pki.files import PkiError, UnreadableError

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
        self._taken_in = service.state.disabled()
        self.is_unfit = False
        """Whether the files of the senders' state are there and cannot be used: see `follow`."""

    def __repr__(self) -> str:
        return f"<SenderDesk disabled={len(self._service.state.disabled())}>"

    def listed(self) -> list[dict[str, Any]]:
        """What `cloud-relay senders list` shows."""
        return senders_view(self._snapshot().config, self._service.state.disabled(), self._counted)

    def set_disabled(self, tenant: str, name: str, *, is_disabled: bool) -> bool:
        """Switch a sender off or on, from its next push on; False if it was so already. LookupError if there is none.
        PkiError or OSError, and nothing is changed, if what is written down cannot be used, or written."""
        sender = self._snapshot().senders[tenant, name]
        has_changed = self._service.state.set_disabled((tenant, name), time.time() if is_disabled else None)
        sender.is_disabled = is_disabled
        self._recheck()
        if has_changed:
            _log.warning("sender switched off" if is_disabled else "sender switched on", tenant=tenant, sender=name)
        return has_changed

    def follow(self) -> None:
        """Take in who was switched off or on by another process. UnreadableError, OSError: that is not known now.

        Files that are not fit (damaged, open to others, gone) are another matter: nobody was switched off by them, for
        whoever wants to reads them first, and is refused. So what was known counts on, and the log says so: else one
        wrong mode would stop the whole relay.
        """
        try:
            self._service.follow()
        except UnreadableError:
            raise
        except PkiError as error:
            self.is_unfit = True
            log_limited(_log, "error", "sender state", "the senders' state is not fit: what was known counts on",
                        cause=str(error))  # fmt: skip
        else:
            self.is_unfit = False
        finally:
            self._take_in()

    def _take_in(self) -> None:
        """Whatever was read counts, also where reading went no further than half-way."""
        disabled = self._service.state.disabled()
        if disabled is self._taken_in:
            return
        self._taken_in = disabled
        senders = self._snapshot().senders
        changed = [one for key, one in senders.items() if one.is_disabled is not (key in disabled)]
        for sender in changed:
            sender.is_disabled = not sender.is_disabled
        if changed:
            self._recheck()
