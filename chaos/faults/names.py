"""Names: the name server fails or is silent while tunnels have to be dialled anew, or the relay's name moves."""

from __future__ import annotations

from typing import Final

from chaos.configs import GLOBEX
from chaos.fault import Fault, Parameters, seconds_of, span
from chaos.faults.cuts import REDIAL, TO_RELAY, destroy, rule_of
from chaos.faults.processes import AWAY
from chaos.names import Mood
from chaos.network import OTHER_ADDRESSES, RELAY_ADDRESSES, why_loopback
from chaos.stage import Stage
from chaos.terms import NOTICED, RECOVERY, Terms

_MOODS: Final = tuple(mood.value for mood in Mood if mood is not Mood.ANSWERS)


async def lose_names(stage: Stage, parameters: Parameters) -> None:
    network, mood = stage.site.network, Mood(str(parameters["mood"]))
    stage.begins(f"the name server {mood.value}, and x1's tunnels are destroyed")
    network.answer(mood)
    try:
        destroy(network, "x1", "connector")
        await stage.lasts(seconds_of(parameters))
    finally:
        network.answer()
    stage.ends("the name server answers again")


async def move_relay(stage: Stage, parameters: Parameters) -> None:
    """The relay's name leads elsewhere, and nothing that is sent to its old address arrives."""
    network = stage.site.network
    side, rule = rule_of(network, "x1", TO_RELAY)

    def move_back() -> None:
        network.answer()
        destroy(network, "x1", "connector", OTHER_ADDRESSES)

    stage.after.enter_context(network.dropped(side, *rule))
    stage.after.callback(move_back)
    stage.begins("x1's relay has another address")
    network.answer(addresses={**RELAY_ADDRESSES, "x1": OTHER_ADDRESSES["x1"]})
    stage.ends("its name leads there")


def _without_names(_: Parameters) -> Terms:
    return Terms(hurts=frozenset({GLOBEX}), codes=AWAY, recovery=REDIAL, aftermath=REDIAL)


def _moved(_: Parameters) -> Terms:
    """First it has to be noticed that the old tunnels are dead."""
    within = NOTICED + RECOVERY
    return Terms(hurts=frozenset({GLOBEX}), codes=AWAY, recovery=within, aftermath=within)


FAULTS: Final = (
    Fault(
        "no-names", "the name server fails, knows nothing or is silent, and tunnels have to be dialled", lose_names,
        _without_names, span(0.5, 5.0, mood=_MOODS), why_loopback,
        seen=(
            "As where the only connector is lost, for as long as names cannot be looked up. Open tunnels need "
            "no names."
        ),
    ),
    Fault(
        "other-address", "the relay's name leads to another address, and the old one is dead", move_relay, _moved,
        lacks=why_loopback, weight=0.5,
        seen=(
            "As where packets are dropped, until the tunnels to the old address are given up; the next dial "
            "looks the name up again."
        ),
    ),
)  # fmt: skip
