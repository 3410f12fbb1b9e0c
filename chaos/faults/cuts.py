"""Ways that are cut: packets dropped one way, connections that only one end still knows, sockets that are destroyed."""

from __future__ import annotations

import contextlib
import random
import subprocess
from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.side import Side
from chaos.configs import ACME, CONNECTORS, GLOBEX
from chaos.fault import Fault, Parameters, seconds_of, span
from chaos.faults.processes import AWAY, LOST, REFUSED
from chaos.network import INTERNET, RELAY_ADDRESSES, Network, why_loopback
from chaos.pushes import TENANTS
from chaos.stage import Stage
from chaos.terms import NOTICED, Terms

ALL: Final = frozenset(TENANTS)
TO_RELAY, FROM_RELAY = "to-relay", "from-relay"
DIRECTIONS: Final = (TO_RELAY, FROM_RELAY)
REDIAL: Final = 4.0
"""Seconds until pushes flow when a network heals: a SYN of before is sent again 1, 3 and 7 s after the first."""


def rule_of(network: Network, connector: str, direction: str) -> tuple[Side, tuple[str, ...]]:
    """Where the packets of a connector's tunnels come in, and how to know them."""
    ours, relays = network.premises.address, RELAY_ADDRESSES[connector]
    if direction == TO_RELAY:
        return network.cloud, ("-s", ours, "-d", relays)
    return network.premises, ("-s", relays, "-d", ours)


async def drop_one_way(stage: Stage, parameters: Parameters) -> None:
    network, victim, direction = stage.site.network, str(parameters["victim"]), str(parameters["direction"])
    side, rule = rule_of(network, victim, direction)
    stage.begins(f"packets of {victim}'s tunnels are dropped {direction}")
    with network.dropped(side, *rule):
        await stage.lasts(seconds_of(parameters))
    stage.ends("packets pass again")


async def lose_relay_unseen(stage: Stage, parameters: Parameters) -> None:
    """The relay is killed and started again while no packet passes: connectors believe in connections that are gone."""
    site = stage.site
    rules = [rule_of(site.network, name, direction) for name in CONNECTORS for direction in DIRECTIONS]
    stage.begins("no packet of any tunnel passes, and SIGKILL to the relay")
    with _all_dropped(site.network, rules):
        await site.relay.kill()
        site.launch_relay()
        await site.relay_listens()
        await stage.lasts(seconds_of(parameters))
    stage.ends("packets pass again")


async def lose_connector_unseen(stage: Stage, parameters: Parameters) -> None:
    """A connector is killed while no packet passes, and started again: the relay believes in tunnels that are gone."""
    site, victim = stage.site, str(parameters["victim"])
    rules = [rule_of(site.network, victim, direction) for direction in DIRECTIONS]
    stage.begins(f"no packet of {victim}'s tunnels passes, and SIGKILL to it")
    with _all_dropped(site.network, rules):
        await site.programs[victim].kill()
        await stage.lasts(seconds_of(parameters))
    site.launch_connector(victim)
    stage.ends(f"packets pass, and {victim} is up again", await site.connector_is_up(victim))


def _all_dropped(network: Network, rules: list[tuple[Side, tuple[str, ...]]]) -> contextlib.ExitStack:
    """All of these packets are dropped from now until the end of the block."""
    with contextlib.ExitStack() as opened:
        for side, rule in rules:
            opened.enter_context(network.dropped(side, *rule))
        return opened.pop_all()


def destroy(network: Network, connector: str, end: str, addresses: Mapping[str, str] = RELAY_ADDRESSES) -> None:
    """`ss -K` of all a connector's tunnels, at the end of the "relay" or of the "connector"."""
    side, which = (network.cloud, "src") if end == "relay" else (network.premises, "dst")
    argv = side.command(["ss", "-K", "-t", which, addresses[connector]])
    subprocess.run(argv, check=True, capture_output=True, timeout=10)


async def destroy_sockets(stage: Stage, parameters: Parameters) -> None:
    network, victim, end = stage.site.network, str(parameters["victim"]), str(parameters["end"])
    stage.begins(f"ss -K of {victim}'s tunnels at the {end}")
    for _ in range(3):
        destroy(network, victim, end)
        await stage.lasts(seconds_of(parameters) / 3)
    stage.ends("no more sockets are destroyed")


async def cut_senders(stage: Stage, parameters: Parameters) -> None:
    """Packets between senders and relay are dropped, one way."""
    network, direction = stage.site.network, str(parameters["direction"])
    side = network.cloud if direction == TO_RELAY else network.senders
    stage.begins(f"packets of senders are dropped {direction}")
    with network.dropped(side, "-i", f"qanat-{INTERNET}"):
        await stage.lasts(seconds_of(parameters))
    stage.ends("packets pass again")


def _with_another(_: Parameters) -> Terms:
    return Terms(hurts=frozenset({ACME}), spares_others=True, codes=LOST | REFUSED, slowest=NOTICED)


def _without(parameters: Parameters) -> Terms:
    return Terms(hurts=frozenset({GLOBEX}), codes=AWAY | {"deadline-exceeded"}, recovery=REDIAL, aftermath=REDIAL)


def _relay_gone(_: Parameters) -> Terms:
    return Terms(hurts=ALL, is_silent=True, holds_up=True, recovery=REDIAL, aftermath=REDIAL)


def _senders_gone(_: Parameters) -> Terms:
    """Nobody can answer. What TCP sends again after the end arrives late, and is late nowhere else."""
    return Terms(hurts=ALL, is_silent=True, holds_up=True, recovery=REDIAL, aftermath=16.0)


def _drawn(victim: str) -> Callable[[random.Random], dict[str, float | str]]:
    return span(1.0, 8.0, victim=(victim,), direction=DIRECTIONS)


FAULTS: Final = (
    Fault(
        "drop-one-way", "packets of one connector's tunnels are dropped one way; another connector is there",
        drop_one_way, _with_another, _drawn("c1"), why_loopback,
        seen="As where it stops: either side alone finds out.",
    ),
    Fault(
        "drop-one-way-only", "the same where it is the only connector", drop_one_way, _without, _drawn("x1"),
        why_loopback,
        seen="As where it stops. When packets pass again the connector's next dial finds through.",
    ),
    Fault(
        "half-open-relay", "the relay is killed and back while no packet passes: connectors' ends stay open",
        lose_relay_unseen, _relay_gone, span(0.0, 3.0), why_loopback,
        seen="As where the relay is killed; connectors learn by their next ping that it does not know them.",
    ),
    Fault(
        "half-open-connector", "a connector is killed while no packet passes: the relay's ends stay open",
        lose_connector_unseen, _without, span(0.0, 3.0, victim=("x1",)), why_loopback,
        seen=(
            "502 `tunnel-lost` after 5 s of silence, then 503 `no-connector`. The new process takes the old "
            "one's place at once: the old tunnels get 1 s to answer."
        ),
    ),
    Fault(
        "destroyed-sockets", "ss -K of a connector's tunnels three times, at one end", destroy_sockets,
        _with_another, span(0.1, 2.0, victim=("c1", "c2"), end=("relay", "connector")), why_loopback,
        seen="Pushes under way get 502 `tunnel-lost`, unless their route is idempotent. All others go on.",
    ),
    Fault(
        "destroyed-sockets-only", "the same where it is the only connector", destroy_sockets,
        _without, span(0.1, 2.0, victim=("x1",), end=("relay", "connector")), why_loopback,
        seen="The same; new pushes are held until the connector is back, within a second.",
    ),
    Fault(
        "cut-senders", "packets between senders and the relay are dropped one way", cut_senders, _senders_gone,
        span(0.5, 4.0, direction=DIRECTIONS), why_loopback,
        seen="TCP sends again what was lost; nothing fails that the sender waits for.",
    ),
)  # fmt: skip
