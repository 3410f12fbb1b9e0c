"""Which tunnels go to which worker, and which of them are one too many: no choice ever leaves a worker uncovered."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from connector_agent.coverage import doubled, surplus, uncovered

WORKERS = 4


@dataclass(eq=False)
class OpenTunnel:
    """As far as the choice looks at one. `relay_hello` is None until the relay has said where it is."""

    relay_hello: Any


def to(worker: int | None) -> Any:
    return OpenTunnel(None if worker is None else SimpleNamespace(worker=worker))


greeted = st.lists(st.integers(0, WORKERS - 1).map(to), max_size=12)


def covered(tunnels: list[Any]) -> set[int]:
    return set(range(WORKERS)) - set(uncovered(tunnels, WORKERS))


@given(st.lists(st.none() | st.integers(0, WORKERS - 1), max_size=12))
def test_what_is_not_known_covers_nothing(places: list[int | None]) -> None:
    found = uncovered([to(place) for place in places], WORKERS)
    assert found == sorted(set(range(WORKERS)) - set(places))


@given(greeted)
def test_one_tunnel_to_each_worker_is_none_too_many(tunnels: list[Any]) -> None:
    more = doubled(tunnels)
    kept = [tunnel for tunnel in tunnels if tunnel not in more]
    assert covered(kept) == covered(tunnels)
    assert len(kept) == len(covered(tunnels))
    firsts = {tunnel.relay_hello.worker: tunnel for tunnel in reversed(tunnels)}
    assert set(map(id, kept)) == set(map(id, firsts.values())), "the earliest to each"


@given(greeted, st.integers(-2, 14))
def test_what_may_go_covers_nothing_alone_and_the_youngest_goes_first(tunnels: list[Any], too_many: int) -> None:
    leaving = surplus(tunnels, too_many)
    assert len(leaving) == min(max(0, too_many), len(doubled(tunnels)))
    assert covered([tunnel for tunnel in tunnels if tunnel not in leaving]) == covered(tunnels)
    ages = [tunnels.index(tunnel) for tunnel in leaving]
    assert ages == sorted(ages, reverse=True)


@given(greeted)
def test_before_any_hello_all_count_as_one_worker(tunnels: list[Any]) -> None:
    silent = [to(None) for _ in tunnels]
    assert doubled(silent) == silent[1:]
