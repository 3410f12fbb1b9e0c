"""The targets that this connector exposes: each a name, rules, a header policy, limits, and a pool of connections.

The relay only ever sends a name. What stands behind it is decided here, and what has no name here cannot be reached.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Final, NamedTuple

from connector_agent.access import AccessRules
from connector_agent.headers_policy import HeaderPolicy
from connector_agent.metrics import TargetMetrics
from connector_agent.probe.spec import DEFAULT, ProbeSpec
from connector_agent.upstream.pool import UpstreamPool

REMOVAL_GRACE: Final = 0.9
"""Seconds that pushes to a removed target may still take: within one second nothing of it is left."""


class Timeouts(NamedTuple):
    """Seconds: for the target's status line once it has the whole push, and between two bytes of its answer."""

    first_byte: float = 25.0
    idle: float = 60.0


DEFAULT_TIMEOUTS: Final = Timeouts()


class Target:
    """One exposed target. `url` is `scheme://host[:port]`, for judging Location; `max_body` in bytes, 0: no limit;
    `upgrades`: whether pushes may become WebSockets."""

    __slots__ = (
        "access",
        "fingerprint",
        "headers",
        "max_body",
        "metrics",
        "name",
        "pool",
        "probe",
        "timeouts",
        "upgrades",
        "url",
    )

    def __init__(
        self,
        name: str,
        url: str,
        access: AccessRules,
        headers: HeaderPolicy,
        pool: UpstreamPool,
        metrics: TargetMetrics,
        *,
        max_body: int = 0,
        timeouts: Timeouts = DEFAULT_TIMEOUTS,
        upgrades: bool = False,
        probe: ProbeSpec = DEFAULT,
        fingerprint: object = None,
    ) -> None:
        """`fingerprint` compares equal as long as nothing of the target's config has changed."""
        self.name = name
        self.url = url.encode("ascii")
        self.access = access
        self.headers = headers
        self.pool = pool
        self.metrics = metrics
        self.max_body = max_body
        self.timeouts = timeouts
        self.upgrades = upgrades
        self.probe = probe
        self.fingerprint = fingerprint

    def __repr__(self) -> str:
        return f"<Target {self.name} {self.access!r} {self.pool!r}>"


class Changes(NamedTuple):
    """Names of targets, by what a reload did to them."""

    added: list[str]
    removed: list[str]
    changed: list[str]
    secrets: list[str]
    """Only the header values of its files are others."""

    def joined(self, other: Changes) -> Changes:
        """Both tables' changes. A target that became one of another kind is a changed one."""
        moved = [name for name in self.added + other.added if name in self.removed + other.removed]
        return Changes(
            [name for name in self.added + other.added if name not in moved],
            [name for name in self.removed + other.removed if name not in moved],
            self.changed + other.changed + moved,
            self.secrets + other.secrets,
        )


class TargetTable:
    """The targets by name. `replace` swaps all of them at once: a push sees the old table or the new one."""

    def __init__(self, targets: Iterable[Target] = ()) -> None:
        self._targets = {target.name: target for target in targets}
        self.get = self._targets.get
        """The target with this name, or None."""

    @property
    def by_name(self) -> Mapping[str, Target]:
        """All targets."""
        return MappingProxyType(self._targets)

    def announcement(self) -> dict[str, str]:
        """Kind by name, as HELLO and TARGETS carry them."""
        return dict.fromkeys(self._targets, "http")

    def replace(self, targets: Iterable[Target]) -> Changes:
        """Put `targets` in place of all. One whose fingerprint is the same as before stays, with its connections.

        A changed target's pushes in flight end under the old config, a removed one's within REMOVAL_GRACE.
        """
        old = self._targets
        new = {target.name: target for target in targets}
        changed: list[str] = []
        renewed: list[str] = []
        for name, target in new.items():
            before = old.get(name)
            if before is None:
                continue
            if before.fingerprint == target.fingerprint:
                if before.headers.take_secrets(target.headers):
                    renewed.append(name)
                new[name] = before
                continue
            changed.append(name)
            before.pool.retire()
        removed = [name for name in old if name not in new]
        self._targets = new
        self.get = new.get
        for name in removed:
            old[name].pool.retire(REMOVAL_GRACE)
        return Changes([name for name in new if name not in old], removed, changed, renewed)

    def close(self) -> None:
        """End all connections at once."""
        for target in self._targets.values():
            target.pool.abort()

    def __repr__(self) -> str:
        return f"<TargetTable {', '.join(self._targets) or 'empty'}>"
