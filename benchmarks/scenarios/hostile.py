"""Somebody means harm, or is only thoughtless: what becomes of the others' pushes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial

from benchmarks.load.figures import Load
from benchmarks.load.openloop import Spec
from benchmarks.load.run import run_openloop, start
from benchmarks.load.wrk import run_wrk, sender
from benchmarks.scenarios.base import Bench, Figures, Scenario
from benchmarks.scenarios.mixed import steady
from benchmarks.scenarios.small import PUSH_BYTES
from benchmarks.site import HOST
from benchmarks.systems.base import BYSTANDER, Endpoint, Shape

_BESIDE_PER_S = 200
_GUESSES_PER_S = 1000
_GUESSING_CONNECTIONS = 100
_LEAD_S = 1.0
_FLOODERS = 256


def _harm(bench: Bench, attack: Callable[[Endpoint], Callable[[float], Load]], *, is_tls: bool) -> Figures:
    """The latency of one sender's pushes alone, beside an attack on the same relay, and beside one on another relay.

    The last is what the machine itself makes of the load: attacker and attacked take their share of its cores.
    `p99_ratio` has a bar of 2 where there are cores enough that `elsewhere_p99_ratio` is near 1.
    """
    seconds = bench.plan.seconds
    run_openloop(bench.site, steady(bench, 1.0, _BESIDE_PER_S))  # the first push of a sender waits for its slow hash
    alone = run_openloop(bench.site, steady(bench, seconds, _BESIDE_PER_S))
    figures: Figures = {"alone_p50_ms": alone.p50_ms, "alone_p99_ms": alone.p99_ms, "failed": alone.failed}
    for where, target in (("elsewhere_", BYSTANDER), ("", "push")):
        run = attack(bench.running.endpoint(target, is_tls=is_tls))
        attacking = start(partial(run, seconds + 2 * _LEAD_S))
        time.sleep(_LEAD_S)
        pushes = run_openloop(bench.site, steady(bench, seconds, _BESIDE_PER_S))
        was_beside = not attacking.done()
        load = attacking.result()
        figures |= {
            f"{where}p50_ms": pushes.p50_ms,
            f"{where}p99_ms": pushes.p99_ms,
            f"{where}p99_ratio": pushes.p99_ms / alone.p99_ms,
            f"{where}attack_per_s": (load.pushes + load.failed) / load.seconds,
        }
        figures["failed"] += pushes.failed + (0 if was_beside else 1)
    return figures


def wrong_passwords(*, is_tls: bool, renew: bool) -> Callable[[Bench], Figures]:
    """1,000 wrong passwords a second for the very sender that pushes, whose password takes a slow hash."""

    def attack(bench: Bench) -> Callable[[Endpoint], Callable[[float], Load]]:
        def at(door: Endpoint) -> Callable[[float], Load]:
            return lambda seconds: run_openloop(bench.site, Spec(
                door.host, door.port, door.is_tls, "/push", round(_GUESSES_PER_S * seconds), seconds, size=0,
                connections=_GUESSING_CONNECTIONS, renew=renew, headers={"Host": HOST}, guess=sender()[0],
            ))  # fmt: skip

        return at

    return lambda bench: _harm(bench, attack(bench), is_tls=is_tls)


def flood(bench: Bench) -> Figures:
    """Another sender, without a limit in flight, pushes as fast as it can."""

    def at(door: Endpoint) -> Callable[[float], Load]:
        return lambda seconds: run_wrk(
            bench.site, door, "/push", size=PUSH_BYTES, in_flight=_FLOODERS, seconds=seconds, number=1
        )

    return _harm(bench, at, is_tls=False)


def _wrong_passwords(*, is_tls: bool, renew: bool) -> Scenario:
    where = f"{'new' if renew else 'kept'}{'-tls' if is_tls else ''}"
    return Scenario(
        f"wrong-passwords-{where}",
        f"2 KiB pushes beside 1,000 wrong passwords a second, on {where.replace('-tls', ' TLS')} connections",
        wrong_passwords(is_tls=is_tls, renew=renew),
        group="hostile",
        systems=("qanat",),
        is_long=True,
        takes_s=12.0,
        spans=5.0,
        shape=Shape(slow_passwords=True, bystander=True),
    )


SCENARIOS = (
    Scenario(
        "flood",
        "2 KiB pushes of one sender beside another's flood",
        flood,
        group="hostile",
        systems=("qanat",),
        is_long=True,
        takes_s=12.0,
        spans=5.0,
        shape=Shape(senders=2, bystander=True),
    ),
    _wrong_passwords(is_tls=False, renew=False),
    _wrong_passwords(is_tls=True, renew=False),
    _wrong_passwords(is_tls=False, renew=True),
    _wrong_passwords(is_tls=True, renew=True),
)
