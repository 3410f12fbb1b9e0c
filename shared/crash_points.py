"""Named places at which a process may die in the tests, so that each of them is tried and none is forgotten.

A place calls `reach` with its name. Nothing happens there unless a test has armed a hook, which kills the process.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

RELAY_POINTS: Final = (
    "relay.enrolment.received",
    "relay.certificate.decided",
    "relay.state.before-commit",
    "relay.state.after-commit",
    "relay.certificate.applied",
    "relay.enrolment.answered",
)
"""From a token's arrival to the answer, in the order in which they are reached."""

CONNECTOR_POINTS: Final = (
    "connector.join.key-written",
    "connector.join.asked",
    "connector.join.authorities-known",
    "connector.join.answered",
    "connector.join.roots-written",
    "connector.join.identity-written",
)
"""From the new key to the identity in place."""

LEAVING_POINTS: Final = (
    "relay.leaving.launched",
    "relay.leaving.prepared",
    "relay.leaving.state-released",
    "relay.leaving.tunnels-moved",
    "relay.leaving.attached",
    "relay.leaving.ingress-moved",
    "relay.leaving.drained",
)
"""In a relay process that hands over to the next one, from starting it to its own end."""

ARRIVING_POINTS: Final = (
    "relay.arriving.prepared",
    "relay.arriving.state-taken",
    "relay.arriving.tunnels-open",
    "relay.arriving.serving",
)
"""In the next one."""

POINTS: Final = frozenset({*RELAY_POINTS, *CONNECTOR_POINTS, *LEAVING_POINTS, *ARRIVING_POINTS})
"""All of them."""

_hook: Callable[[str], None] | None = None


def reach(point: str) -> None:
    """This place is reached. ValueError for a name that is not in the lists."""
    if point not in POINTS:
        raise ValueError(point)
    if _hook is not None:
        _hook(point)


def arm(hook: Callable[[str], None] | None) -> None:
    """Call `hook` with the name of every place that is reached; None disarms. For tests."""
    global _hook
    _hook = hook
