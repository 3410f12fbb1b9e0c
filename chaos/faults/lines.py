"""Lines that are slow, narrow, lossy, or cut what passes into single bytes."""

from __future__ import annotations

import random
from typing import Final

from chaos.fault import Draw, Fault, Parameters, seconds_of
from chaos.line import PLAIN, Shape
from chaos.load import Load
from chaos.network import INTERNET, LAN, TUNNEL, why_loopback
from chaos.stage import Stage
from chaos.terms import Terms

_SMALL: Final = Load(rate=10.0, largest=8192)
"""For lines that take little: their queues shall not be what fails."""

_TINY: Final = Load(rate=4.0, largest=4096)

_REALS: Final = ("delay", "jitter", "loss", "reorder", "bits_per_s")
_COUNTS: Final = ("queue_bytes", "cut_to")


def _shape_of(parameters: Parameters) -> Shape:
    values = {name: float(parameters[name]) for name in _REALS if name in parameters}
    counts = {name: int(parameters[name]) for name in _COUNTS if name in parameters}
    return Shape(**values, **counts)  # type: ignore[arg-type]  # mypy does not look into the names


async def shape_line(stage: Stage, parameters: Parameters) -> None:
    network, line, shape = stage.site.network, str(parameters["line"]), _shape_of(parameters)
    stage.begins(f"the {line} line: {' '.join(f'{key}={value}' for key, value in parameters.items())}")
    network.shape(line, shape, int(parameters["seed"]))
    try:
        await stage.lasts(seconds_of(parameters))
    finally:
        network.shape(line, PLAIN)
    stage.ends(f"the {line} line is as before")


def _drawing(lines: tuple[str, ...], **ranges: tuple[float, float]) -> Draw:
    """How long, which line, and a value of each name."""

    def draw(source: random.Random) -> dict[str, float | str]:
        drawn: dict[str, float | str] = {
            "seconds": round(source.uniform(1.0, 3.5), 2),
            "line": source.choice(lines),
            "seed": source.randrange(1_000_000),
        }
        return drawn | {name: round(source.uniform(low, high), 4) for name, (low, high) in ranges.items()}

    return draw


def _nothing_fails(parameters: Parameters) -> Terms:
    """Slow is not broken: every push gets through, later."""
    return Terms(delay=2.0, holds_up=True)


_ALL: Final = (INTERNET, TUNNEL, LAN)

FAULTS: Final = (
    Fault(
        "latency", "up to 300 ms and as much jitter each way, on one of the lines", shape_line, _nothing_fails,
        _drawing(_ALL, delay=(0.02, 0.3), jitter=(0.0, 0.1)), why_loopback, load=_SMALL,
        seen="Pushes take longer.",
    ),
    Fault(
        "loss", "up to 8 % of the packets are lost each way, on one of the lines", shape_line, _nothing_fails,
        _drawing(_ALL, loss=(0.005, 0.08), delay=(0.0, 0.02)), why_loopback, load=_SMALL,
        seen="Pushes take longer.",
    ),
    Fault(
        "reordering", "up to a third of the packets overtake others", shape_line, _nothing_fails,
        _drawing(_ALL, reorder=(0.02, 0.33), delay=(0.005, 0.03)), why_loopback, load=_SMALL,
        seen="Nothing.",
    ),
    Fault(
        "low-rate", "1 to 4 Mbit/s, a queue of 64 KiB", shape_line, _nothing_fails,
        _drawing(_ALL, bits_per_s=(1e6, 4e6), queue_bytes=(65536, 65536), delay=(0.01, 0.03)), why_loopback,
        load=_SMALL,
        seen="Pushes take longer.",
    ),
    Fault(
        "single-bytes", "every segment is cut into single bytes", shape_line, _nothing_fails,
        _drawing(_ALL, cut_to=(1, 1)), why_loopback, load=_TINY,
        seen="Nothing.",
    ),
)  # fmt: skip
