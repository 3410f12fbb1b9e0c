"""What a reload may change, and what it changed. Names of keys are told, never values."""

from __future__ import annotations

from typing import Final

from connector_agent.config import ConnectorConfig
from connector_agent.targets import Changes

RESTART_KEYS: Final = ("relays", "state_dir", "tls", "join", "tunnels", "standby", "proxy", "observe", "log", "memory")
"""What is used once, at the start."""


def restart_keys(old: ConnectorConfig, new: ConnectorConfig) -> list[str]:
    """The keys that differ and cannot change while the connector runs."""
    return [key for key in RESTART_KEYS if getattr(old, key) != getattr(new, key)]


def describe_changes(old: ConnectorConfig, new: ConnectorConfig, changes: Changes) -> list[str]:
    """One line for each thing that a reload changed. `changes` are those of the table of targets."""
    lines = ["drain changed"] if old.drain != new.drain else []
    lines += [f"target {name} added" for name in changes.added]
    lines += [f"target {name} removed" for name in changes.removed]
    before = {target.name: target for target in old.targets}
    after = {target.name: target for target in new.targets}
    for name in changes.changed:
        one, other = before[name], after[name]
        keys = [key for key in type(one).model_fields if getattr(one, key) != getattr(other, key)]
        lines.append(f"target {name} changed: {', '.join(keys) or 'its certificate files'}")
    lines += [f"target {name} changed: the header values of its files" for name in changes.secrets]
    return lines
