"""Processes that are killed, or stop for a while: relay, connectors, targets."""

from __future__ import annotations

import signal
from typing import Final

from chaos.configs import ACME, CONNECTORS, GLOBEX
from chaos.fault import Fault, Parameters, seconds_of, span
from chaos.pushes import TENANTS
from chaos.stage import Stage
from chaos.terms import NOTICED, Terms

ALL: Final = frozenset(TENANTS)
LOST: Final = frozenset({"tunnel-lost"})
"""How a push ends that may have been delivered when its tunnel was lost."""

REFUSED: Final = frozenset({"tunnel-refused"})
"""How one ends that surely was not, and is too large to be tried elsewhere."""

AWAY: Final = frozenset({"tunnel-lost", "tunnel-refused", "no-connector"})
"""How pushes end while a location has no connector."""

NO_TARGET: Final = frozenset({"target-unreachable", "target-lost"})


_TOO_SLOW: Final = frozenset({"deadline-exceeded", "target-too-slow", "connector-overloaded"})
"""How pushes end at a target that stands still: by their time, or where too many wait for it already."""


async def kill_relay(stage: Stage, parameters: Parameters) -> None:
    site = stage.site
    stage.begins("SIGKILL to the relay")
    await site.relay.kill()
    await stage.lasts(seconds_of(parameters))
    site.launch_relay()
    stage.ends("the relay listens again", await site.relay_listens())


async def kill_connector(stage: Stage, parameters: Parameters) -> None:
    site, name = stage.site, str(parameters["victim"])
    stage.begins(f"SIGKILL to connector {name}")
    await site.programs[name].kill()
    await stage.lasts(seconds_of(parameters))
    site.launch_connector(name)
    stage.ends(f"connector {name} is up again", await site.connector_is_up(name))


async def kill_target(stage: Stage, parameters: Parameters) -> None:
    site, tenant = stage.site, str(parameters["victim"])
    stage.begins(f"SIGKILL to the target of {tenant}")
    await site.programs[f"{tenant}-target"].kill()
    await stage.lasts(seconds_of(parameters))
    site.start_target(tenant)
    stage.ends("the target listens again", await site.target_listens(tenant))


async def stop_process(stage: Stage, parameters: Parameters) -> None:
    """SIGSTOP, and SIGCONT after a while."""
    program = stage.site.programs[str(parameters["victim"])]
    stage.begins(f"SIGSTOP to {program.name}")
    program.signal(signal.SIGSTOP)
    try:
        await stage.lasts(seconds_of(parameters))
    finally:
        program.signal(signal.SIGCONT)
    stage.ends(f"SIGCONT to {program.name}")


def _of_victim(parameters: Parameters) -> frozenset[str]:
    victim = str(parameters["victim"])
    return frozenset({CONNECTORS.get(victim, victim.removesuffix("-target"))})


def _relay_away(_: Parameters) -> Terms:
    return Terms(hurts=ALL, is_silent=True, holds_up=True)


def _connector_lost(_: Parameters) -> Terms:
    return Terms(hurts=frozenset({ACME}), spares_others=True, codes=LOST | REFUSED, slowest=NOTICED)


def _only_connector_lost(_: Parameters) -> Terms:
    return Terms(hurts=frozenset({GLOBEX}), codes=AWAY, slowest=NOTICED)


def _relay_stopped(_: Parameters) -> Terms:
    """What waited in its sockets meanwhile is late through no fault of anybody's."""
    return Terms(hurts=ALL, codes=AWAY | {"deadline-exceeded"}, holds_up=True)


def _connector_stopped(_: Parameters) -> Terms:
    return Terms(hurts=frozenset({ACME}), spares_others=True, codes=LOST | REFUSED, slowest=NOTICED)


def _only_connector_stopped(_: Parameters) -> Terms:
    return Terms(hurts=frozenset({GLOBEX}), codes=AWAY | {"deadline-exceeded"})


def _target_stopped(parameters: Parameters) -> Terms:
    return Terms(hurts=_of_victim(parameters), codes=_TOO_SLOW)


def _target_away(parameters: Parameters) -> Terms:
    return Terms(hurts=_of_victim(parameters), codes=NO_TARGET)


FAULTS: Final = (
    Fault(
        "kill-relay", "SIGKILL of the relay, and a new start", kill_relay, _relay_away, span(0.05, 2.5),
        seen=(
            "Connections are cut, then refused. Pushes that were under way may have been delivered; all others were "
            "not."
        ),
    ),
    Fault(
        "kill-connector", "SIGKILL of one connector of two, and a new start", kill_connector, _connector_lost,
        span(0.05, 2.0, victim=("c1", "c2")),
        seen=(
            "Pushes that were under way there get 502 `tunnel-lost`, unless their route is idempotent: then "
            "the other connector takes them. All others go on."
        ),
    ),
    Fault(
        "kill-only-connector", "SIGKILL of a location's only connector, and a new start", kill_connector,
        _only_connector_lost, span(0.05, 2.0, victim=("x1",)),
        seen=(
            "Pushes under way get 502 `tunnel-lost`, unless their route is idempotent; new ones are held up "
            "to `hold` (3 s), then get 503 `no-connector`."
        ),
    ),
    Fault(
        "kill-target", "SIGKILL of a target, and a new start", kill_target, _target_away,
        span(0.05, 2.0, victim=TENANTS),
        seen=(
            "502 `target-unreachable`; those that were under way 502 `target-lost`. The other tenant notices "
            "nothing."
        ),
    ),
    Fault(
        "stop-relay", "SIGSTOP of the relay, and SIGCONT", stop_process, _relay_stopped,
        span(0.2, 7.0, victim=("relay",)),
        seen="Nothing answers until it goes on; then all that waited is answered.",
    ),
    Fault(
        "stop-connector", "SIGSTOP of one connector of two, and SIGCONT", stop_process, _connector_stopped,
        span(0.2, 8.0, victim=("c1", "c2")),
        seen=(
            "Pushes under way there wait, up to 5 s, and then get 502 `tunnel-lost`, or go to the other "
            "connector where the route is idempotent. From the second second on no new ones go there."
        ),
    ),
    Fault(
        "stop-only-connector", "SIGSTOP of a location's only connector, and SIGCONT", stop_process,
        _only_connector_stopped, span(0.2, 8.0, victim=("x1",)),
        seen=(
            "Pushes wait, up to 5 s; then as above. What the connector finds when it wakes is delivered only "
            "if its deadline has not passed."
        ),
    ),
    Fault(
        "stop-target", "SIGSTOP of a target, and SIGCONT", stop_process, _target_stopped,
        span(0.2, 9.0, victim=tuple(f"{tenant}-target" for tenant in TENANTS)),
        seen=(
            "Answers come late, or 504 `deadline-exceeded` or `target-too-slow`; beyond the target's "
            "`limits.connections` 503 `connector-overloaded` after 5 s."
        ),
    ),
)  # fmt: skip
