"""The gate: limits, turns among sources, and that each place is given back."""

from __future__ import annotations

from cloud_relay.handshake_gate import WAITING_PER_SLOT, Arrival, HandshakeGate


class Street:
    """Arrivals, and what became of them."""

    def __init__(self, limit: int, per_source: int) -> None:
        self.gate = HandshakeGate(limit, per_source)
        self.log: list[str] = []

    def arrive(self, source: str, name: str = "") -> None:
        name = name or source
        self.gate.enter(Arrival(source, lambda: self.log.append(name), lambda: self.log.append(f"dropped {name}")))


def test_begins_at_once_while_there_is_room():
    street = Street(2, 2)
    street.arrive("a")
    street.arrive("b")
    street.arrive("c")
    assert street.log == ["a", "b"]
    street.gate.leave("a")
    assert street.log == ["a", "b", "c"]


def test_a_flood_waits_behind_itself():
    street = Street(3, 1)
    for number in range(5):
        street.arrive("flood", f"flood{number}")
    street.arrive("good")
    assert street.log == ["flood0", "good"]
    street.gate.leave("flood")
    street.gate.leave("good")
    assert street.log == ["flood0", "good", "flood1"]


def test_sources_take_turns():
    street = Street(1, 1)
    for name in ("a1", "a2", "a3", "b1", "c1", "b2"):
        street.arrive(name[0], name)
    for source in "aabca":
        street.gate.leave(source)
    assert street.log == ["a1", "a2", "b1", "c1", "a3", "b2"]


def test_what_is_too_much_is_dropped():
    street = Street(1, 1)
    for number in range(WAITING_PER_SLOT + 3):
        street.arrive("a", f"a{number}")
    assert street.log == ["a0", "dropped a9", "dropped a10"]
    assert repr(street.gate) == "<HandshakeGate 1 in progress, 8 waiting, 2 dropped>"
    street.gate.drop_waiting()
    assert len([line for line in street.log if line.startswith("dropped")]) == WAITING_PER_SLOT + 2
    street.gate.leave("a")
    assert street.gate.in_progress == 0


def test_one_that_leaves_within_its_start():
    gate = HandshakeGate(1, 1)
    log: list[int] = []

    def start(number: int) -> None:
        log.append(number)
        gate.leave("a")

    for number in range(3):
        gate.enter(Arrival("a", lambda number=number: start(number), lambda: None))  # type: ignore[misc]
    assert log == [0, 1, 2]
    assert gate.in_progress == 0


def test_several_that_leave_within_their_start_after_waiting():
    gate = HandshakeGate(2, 1)
    log: list[str] = []

    def start(name: str) -> None:
        log.append(name)
        gate.leave(name)

    for name in "ab":
        gate.enter(Arrival(name, lambda: None, lambda: None))
    for name in "cdc":
        gate.enter(Arrival(name, lambda name=name: start(name), lambda: None))  # type: ignore[misc]
    gate.leave("a")
    assert log == ["c", "d", "c"]
    gate.leave("b")
    assert repr(gate) == "<HandshakeGate 0 in progress, 0 waiting, 0 dropped>"


def test_a_start_that_fails_gives_its_place_to_the_next():
    gate = HandshakeGate(1, 1)
    log: list[str] = []

    def fail() -> None:
        raise RuntimeError("no context")

    gate.enter(Arrival("a", lambda: None, lambda: None))
    gate.enter(Arrival("b", fail, lambda: log.append("dropped b")))
    gate.enter(Arrival("c", lambda: log.append("c"), lambda: None))
    gate.leave("a")
    assert log == ["dropped b", "c"]
    gate.leave("c")
    gate.enter(Arrival("d", fail, lambda: log.append("dropped d")))
    assert log == ["dropped b", "c", "dropped d"]
    assert gate.in_progress == 0


def test_a_network_with_many_sources_waits_behind_itself_and_is_what_is_dropped():
    street = Street(1, 1)
    for number in range(2 * WAITING_PER_SLOT):
        street.arrive(f"2001:db8:1:{number:x}::/64", f"many{number}")
    street.arrive("192.0.2.7", "one")
    street.arrive("2001:db8:2:1::/64", "another")
    assert not any("one" in line or "another" in line for line in street.log), "neither is dropped"
    for source in ("2001:db8:1:0::/64", "2001:db8:1:1::/64", "192.0.2.7"):
        street.gate.leave(source)
    started = [line for line in street.log if not line.startswith("dropped")]
    assert started == ["many0", "many1", "one", "another"]
