"""Targets that a connector announces although its join token did not allow them: no push goes there by its word."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from cloud_relay.identity.records import ConnectorKey
from shared.logs import get_logger, log_limited

if TYPE_CHECKING:
    from cloud_relay.admit import Identity
    from cloud_relay.identity.book import Book

log = get_logger("relay.tunnels")


class TargetGuard:
    """Takes out what is not allowed. `refused` counts announcements with such targets since the start; `not_allowed`
    holds, by connector, those of its latest one."""

    def __init__(self, book: Book) -> None:
        self.refused = 0
        self.not_allowed: dict[ConnectorKey, tuple[str, ...]] = {}
        self._book = book

    def __repr__(self) -> str:
        return f"<TargetGuard refused={self.refused} connectors={len(self.not_allowed)}>"

    def allowed(self, identity: Identity, targets: Mapping[str, str]) -> Mapping[str, str]:
        """What is left of `targets`."""
        key = identity.key
        may = self._book.allowed_targets(key)
        wrong = () if may is None else tuple(sorted(targets.keys() - may))
        if not wrong:
            self.not_allowed.pop(key, None)
            return targets
        self.refused += 1
        if self.not_allowed.get(key) != wrong:
            self.not_allowed[key] = wrong
            log_limited(
                log, "warning", f"not allowed {identity}", "targets announced that the join token did not allow",
                connector=str(identity), targets=wrong[:20], count=len(wrong),
            )  # fmt: skip
        return {name: kind for name, kind in targets.items() if name not in wrong}
