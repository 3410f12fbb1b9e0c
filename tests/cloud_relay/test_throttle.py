"""Failures are slowed down by pair, in bounded memory, and nobody else is."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cloud_relay.throttle import FailureThrottle


class World:
    def __init__(self, max_pairs: int = 100) -> None:
        self.now = 0.0
        self.throttle = FailureThrottle(burst=5, interval=2.0, max_pairs=max_pairs, clock=lambda: self.now)

    def attempts(self, seconds: float, per_second: int, source: str = "192.0.2.1", user: bytes = b"s4") -> int:
        """How many wrong passwords are judged if so many come."""
        judged = 0
        for _ in range(int(seconds * per_second)):
            self.now += 1 / per_second
            if not self.throttle.is_shut(source, "acme", user):
                self.throttle.failed(source, "acme", user)
                judged += 1
        return judged


def test_a_flood_is_judged_at_the_rate_and_no_faster():
    world = World()
    assert world.attempts(60, 100) in range(5 + 28, 5 + 32)


def test_a_pause_restores_the_burst():
    world = World()
    world.attempts(1, 100)
    assert world.throttle.is_shut("192.0.2.1", "acme", b"s4")
    world.now += 2.1
    assert not world.throttle.is_shut("192.0.2.1", "acme", b"s4")
    world.now += 10
    assert world.attempts(0.1, 100) == 5


def test_only_the_pair_is_shut():
    world = World()
    world.attempts(1, 100)
    for source, tenant, user in [
        ("192.0.2.2", "acme", b"s4"), ("192.0.2.1", "globex", b"s4"), ("192.0.2.1", "acme", b"ibp"),
    ]:  # fmt: skip
        assert not world.throttle.is_shut(source, tenant, user)


def test_a_host_has_one_network_of_addresses():
    world = World()
    world.attempts(1, 100, "2001:db8::1")
    assert world.throttle.is_shut("2001:db8::ffff", "acme", b"s4")
    assert not world.throttle.is_shut("2001:db8:0:1::1", "acme", b"s4")


@given(st.lists(st.tuples(st.integers(0, 300), st.floats(0, 5), st.booleans()), max_size=200))
def test_memory_is_bounded_and_no_pair_is_shut_for_long(events):
    world = World(max_pairs=20)
    for number, pause, is_flood in events:
        source = f"192.0.2.{number}"
        world.now += pause
        for _ in range(30 if is_flood else 1):
            world.throttle.failed(source, "acme", b"s4")
        assert len(world.throttle) <= 20
        world.now += 2.01
        assert not world.throttle.is_shut(source, "acme", b"s4"), "however many failures there were"
