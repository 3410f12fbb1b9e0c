"""The relay's process and the machine under it."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING, Any, Final

from shared.host_checks import check_files, check_kernel_clock, check_state_dir
from shared.prechecks import Checklist, Figure, Precheck
from shared.process import MAX_OPEN_FILES

if TYPE_CHECKING:
    from collections.abc import Mapping

    from cloud_relay.config import RelayConfig

SUBJECT: Final = "this relay"

OTHER_FILES: Final = 256
"""Descriptors for listeners, state, logs, key sets, the control socket and scrapers."""


def check_host(
    config: RelayConfig,
    warnings: list[str],
    status: Mapping[str, Any] | None,
    process: Mapping[str, Any] | None,
    silence: str = "",
) -> list[Precheck]:
    """`status` and `process` are what the running relay says of itself, None where none answers; `silence` says why."""
    checks = Checklist(SUBJECT)
    checks.ok("config", "good")
    for warning in warnings:
        checks.warning("config", warning, "Change it, if it is not meant.")
    _check_daemon(checks, status, silence)
    check_state_dir(checks, config.state_dir)
    if process is not None:
        check_files(checks, process["file_limit"], wanted_files(config), process["open_files"])
    else:
        check_files(checks, _limit_at_start(), wanted_files(config), None)
    _check_clock(checks, status)
    return checks.rows


def wanted_files(config: RelayConfig) -> int:
    """Descriptors for all connections that the config allows at once."""
    tunnel = config.tunnel.limits
    tcp = sum(route.limits.connections for tenant in config.tenants.values() for route in tenant.tcp_routes)
    return OTHER_FILES + tunnel.tunnels + tunnel.handshakes + config.limits.connections * len(config.ingress) + tcp


def _check_daemon(checks: Checklist, status: Mapping[str, Any] | None, silence: str) -> None:
    if status is None:
        checks.warning("daemon", f"what only a running relay knows is left out: {silence or 'none runs'}",
                       "Start it: 'cloud-relay serve'; its user and root may ask it.")  # fmt: skip
        return
    figure = Figure(status["in_flight"], "pushes")
    if status["state"] == "serving":
        checks.ok("daemon", f"serving since {status['started_at']}, version {status['version']}", figure)
    else:
        checks.failed("daemon", f"it is {status['state']}", "Wait, or look at its log.", figure)
    reload = status["reload"]
    if reload is not None and not reload["taken"]:
        checks.failed("reload", f"the config was not taken at {reload['at']}: {'; '.join(reload['lines'])}",
                      "Mend the config, then 'cloud-relay reload'; the one of before is in force.")  # fmt: skip


def _check_clock(checks: Checklist, status: Mapping[str, Any] | None) -> None:
    identity = status["identity"] if status is not None else None
    if identity is not None and identity["clock_is_doubtful"]:
        checks.failed("clock", "it has jumped since the relay started, and is not believed",
                      "Set it by a time server; then restart the relay.", Figure(identity["clock_error_s"], "s"),
                      code="clock-skew")  # fmt: skip
    else:
        check_kernel_clock(checks)


def _limit_at_start() -> int | None:
    """What a relay that starts here now would raise its limit to."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    return MAX_OPEN_FILES if hard == resource.RLIM_INFINITY else hard
