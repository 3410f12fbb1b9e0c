"""Parts of the config that both programs have."""

from __future__ import annotations

from typing import Literal

from shared.config.model import ConfigModel, ListenField


class ObserveConfig(ConfigModel):
    """The listener for /healthz, /readyz and /metrics, and nothing else. It asks for no credential."""

    listen: ListenField
    """Better not a public address."""


class LogConfig(ConfigModel):
    """What is written to standard error, and whether access lines go to standard output."""

    format: Literal["json", "console"] | None = None
    """One JSON object a line, or lines for people. Without it: for people where systemd's journal reads, else JSON."""
    level: Literal["debug", "info", "warning", "error"] = "info"
    """The least important events that are still written. Access lines do not depend on it."""
    access: Literal["stdout", "off"] = "stdout"
    """One JSON line a push, or none."""
