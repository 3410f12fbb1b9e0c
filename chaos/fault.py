"""What a fault is: how it is drawn, how it is played, and on what terms."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

from chaos.load import Load
from chaos.site import Site
from chaos.stage import Stage
from chaos.terms import Terms

Parameters = Mapping[str, float | str]
Draw = Callable[[random.Random], dict[str, float | str]]
"""Draws all that is random in a fault. What it returns is the schedule's; nothing else is random but the machine."""


def nothing(_: random.Random) -> dict[str, float | str]:
    """A fault without parameters."""
    return {}


def span(low: float, high: float, **choices: tuple[str, ...]) -> Draw:
    """`seconds` between two bounds, and one of the choices of each name."""

    def draw(source: random.Random) -> dict[str, float | str]:
        drawn: dict[str, float | str] = {"seconds": round(source.uniform(low, high), 2)}
        return drawn | {name: source.choice(values) for name, values in choices.items()}

    return draw


def never_lacking() -> str:
    """A fault that can be played anywhere."""
    return ""


Step = Callable[[Site, Parameters], Awaitable[None]]


async def undisturbed(site: Site, parameters: Parameters) -> None:
    """Nothing to do before, or after."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One kind of fault. `terms` may depend on what was drawn; `lacks` says what this machine has not, or "".

    `about` says what happens, `seen` what senders see of it; both are for operators.

    In each round of a schedule it comes as often as its `weight` says. It is played on a `site` of this kind;
    `prepare` is called before the first push, `restore` after the last.
    """

    name: str
    about: str
    play: Callable[[Stage, Parameters], Awaitable[None]]
    terms: Callable[[Parameters], Terms]
    draw: Draw = nothing
    lacks: Callable[[], str] = never_lacking
    weight: float = 1.0
    load: Load = Load()
    seen: str = ""
    site: type[Site] = Site
    prepare: Step = undisturbed
    restore: Step = undisturbed


def seconds_of(parameters: Parameters) -> float:
    """How long it lasts."""
    return float(parameters["seconds"])
