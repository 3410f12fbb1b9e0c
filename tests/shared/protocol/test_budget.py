"""At the budget one stream has to go, and it is the right one; the tunnel stays."""

from __future__ import annotations

from shared.errors import FAULTS
from tests.shared.protocol.kit import Pair

KIB = 1024
OUT_OF_CREDIT = FAULTS["out-of-credit"].wire


def test_the_longest_stalled_with_the_most_bytes_goes() -> None:
    pair = Pair(budget=1536 * KIB)
    pair.connector.takes = False
    pair.relay.open(b"old and large", bytes(800 * KIB), end=False)
    pair.roundtrip()
    pair.advance(1.0)
    pair.relay.open(b"young and small", bytes(200 * KIB), end=False)
    pair.roundtrip()
    assert pair.connector.budget.victims == 0
    pair.advance(0.2)
    pair.relay.open(b"young and large", bytes(700 * KIB), end=False)
    pair.roundtrip()
    old_large, young_small, young_large = pair.connector.pushes
    assert old_large.log[-1] == ("reset", OUT_OF_CREDIT, False)
    assert not young_small.is_over
    assert not young_large.is_over
    assert pair.connector.budget.used <= pair.connector.budget.limit
    assert pair.connector.failure is None


def test_what_nobody_read_counts_even_after_the_end() -> None:
    pair = Pair(budget=300 * KIB)
    pair.relay.takes = False
    pushes = []
    for _ in range(4):
        push = pair.relay.open()
        pair.roundtrip()
        stream = pair.connector.pushes[-1].stream
        assert stream is not None
        stream.answer(b"200", bytes(100 * KIB), end=True)
        pair.advance(0.1)
        pair.roundtrip()
        pushes.append(push)
    assert pair.relay.core.in_flight == 0
    assert [push.is_over for push in pushes] == [True, False, False, False]
    for push in pushes[1:]:
        assert push.stream is not None
        push.stream.consumed(100 * KIB)
    assert pair.relay.budget.used == 0
    assert list(pair.relay.core.table) == []


def test_a_lost_tunnel_gives_all_its_memory_back() -> None:
    pair = Pair()
    pair.connector.takes = False
    pushes = [pair.relay.open(body=bytes(100 * KIB), end=False) for _ in range(20)]
    pair.roundtrip()
    unsent = pair.relay.open(b"not sent", bytes(KIB))
    for end in pair.ends:
        end.core.lost(end.now)
        assert end.budget.used == 0
    assert all(push.log[-1] == ("reset", FAULTS["tunnel-lost"].wire, False) for push in pushes)
    assert unsent.log == [("reset", FAULTS["tunnel-lost"].wire, True)], (
        "nothing of it was sent: another tunnel may have it"
    )
