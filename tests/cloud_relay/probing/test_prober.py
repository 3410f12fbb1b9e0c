"""When targets are asked for, how many at once, and what comes of answers that do not come."""

from __future__ import annotations

from itertools import pairwise

import pytest

from cloud_relay.probing.prober import HASTE, WAIT
from shared.probe import NONE, Verdict
from tests.cloud_relay.probing.kit import BAD, GOOD, World, key
from tests.connector_agent.kit import scenario


def gaps(times: list[float]) -> list[float]:
    return [later - sooner for sooner, later in pairwise(times)]


@scenario
async def test_soon_and_then_at_a_jittered_interval() -> None:
    world = World(interval=10.0)
    began = world.now
    world.attach(verdict=GOOD)
    await world.sleep(200)
    assert world.times[0] - began <= 0.55
    found = gaps(world.times)
    assert 7.5 <= min(found) < max(found) <= 12.6
    assert len(set(found)) > 5
    assert world.prober.counts == {"good": len(world.times), "bad": 0, "none": 0, "unanswered": 0}
    world.prober.close()


@scenario
async def test_faster_while_it_fails() -> None:
    world = World(interval=10.0, failing_interval=2.0)
    world.attach(verdict=BAD)
    await world.sleep(60)
    found = gaps(world.times)
    assert 1.5 <= min(found) < max(found) <= 2.6
    world.prober.close()


@scenario
async def test_ten_thousand_targets_make_no_storm() -> None:
    names = [f"t{number}" for number in range(500)]
    world = World(*names, interval=10.0, rate=200.0)
    for connector in range(20):
        world.attach(f"c{connector}", *names, verdict=BAD if connector % 2 else GOOD)
    began = world.now
    await world.sleep(120)
    times = [at - began for at in world.times]
    assert 120 * 190 <= len(times) <= 120 * 200 + 20, "all of the rate is used, and no more"
    for second in range(120):
        assert sum(second <= at < second + 1 for at in times) <= 210
    asked = [record.asked_at for record in world.book.records()]
    assert len(asked) == 10_000
    assert all(world.now - at <= 60 for at in asked), "each has its turn, however many fail"
    world.prober.close()


@scenario
async def test_only_what_routes_lead_to() -> None:
    world = World("t")
    _, link = world.attach("c1", "t", "u", verdict=GOOD)
    await world.sleep(30)
    assert {stream.target for stream in link.asked} == {"t"}
    world.wants("u")
    count = len(link.asked)
    await world.sleep(30)
    assert {stream.target for stream in link.asked[count:]} == {"u"}
    world.prober.close()


@scenario
async def test_any_of_its_tunnels_that_takes_it() -> None:
    world = World(interval=1.0)
    links = [world.attach(verdict=GOOD)[1] for _ in range(3)]
    links[0].can_open = False
    await world.sleep(60)
    assert not links[0].asked
    assert links[1].asked
    assert links[2].asked
    assert len(world.times) < 80, "one question a turn, however many tunnels"
    world.prober.close()


@scenario
async def test_a_tunnel_that_is_lost_says_nothing_about_the_target() -> None:
    world = World()
    _, link = world.attach(verdict=GOOD)
    await world.sleep(1)
    link.verdict = None
    await world.sleep(15)
    for code in ("tunnel-refused", "connector-draining", "connector-overloaded", "unknown-target"):
        link.asked[-1].refuse(code)
        assert world.record().state == "green"
        assert world.record().unanswered_by == code
        await world.sleep(3)
    assert world.prober.counts["unanswered"] == 4
    link.asked[-1].answer(GOOD)
    assert world.record().unanswered_by == ""
    world.prober.close()


@scenario
async def test_a_connector_that_never_answers() -> None:
    world = World()
    _, link = world.attach()
    await world.sleep(WAIT + 2)
    assert link.asked[0].was_reset
    assert (world.record().state, world.record().why) == ("red", "deadline-exceeded")
    link.asked[0].answer(GOOD)
    assert world.record().state == "red", "too late"
    world.prober.close()


@scenario
async def test_answers_of_a_connector_in_other_hands() -> None:
    world = World()
    _, link = world.attach()
    await world.sleep(1)
    stream = link.asked[0]
    stream.handler.on_answer(b"probe\0ok\0not-a-number\0", b"x" * 100, end=False, interim=False)
    assert stream.was_reset
    assert stream.consumed_bytes == 100
    assert world.record().why == "connector-error"
    stream.handler.on_data(b"more", end=True)
    stream.handler.on_reset(161, refused=False)
    await world.sleep(3)
    link.asked[1].handler.on_answer(b"", b"", end=False, interim=True)
    link.asked[1].answer(Verdict("", age=1e6))
    assert world.record().state == "green"
    assert world.record().age(world.now) == pytest.approx(1e6, abs=1)
    world.prober.close()


@scenario
async def test_a_push_that_failed_has_its_target_looked_at_now_but_not_all_the_time() -> None:
    world = World(interval=3600.0)
    _, link = world.attach(verdict=GOOD)
    await world.sleep(60)
    assert len(link.asked) == 1
    for _ in range(1000):
        world.fail()
        await world.sleep(0.01)
    assert 8 <= len(link.asked) <= 12
    assert min(gaps(world.times)) >= HASTE
    world.prober.close()


@scenario
async def test_none_is_asked_again_in_its_turn() -> None:
    world = World(interval=10.0)
    world.attach(verdict=Verdict(NONE))
    await world.sleep(100)
    assert 8 <= world.prober.counts["none"] <= 15
    world.prober.close()


@scenario
async def test_the_end_leaves_nothing() -> None:
    world = World()
    _, link = world.attach()
    await world.sleep(1)
    world.prober.close()
    assert link.asked[0].was_reset
    world.attach("c2")
    await world.sleep(60)
    assert len(world.times) == 1
    assert world.book.find(key(), "c2") is not None


@scenario
async def test_a_tunnel_that_refuses_at_the_last_moment() -> None:
    world = World()
    _, link = world.attach()

    def refuse(*args: object, **kwargs: object) -> None:
        link.can_open = False
        type(link).open_stream(link, *args, **kwargs)  # type: ignore[arg-type]

    link.open_stream = refuse  # type: ignore[method-assign]
    await world.sleep(1)
    assert world.record().unanswered_by == "tunnel-refused"
    assert not world.record().is_asked
    world.prober.close()


@scenario
async def test_a_connector_that_comes_and_goes_all_the_time_is_not_asked_all_the_time() -> None:
    world = World()
    for _ in range(500):
        session, _ = world.attach(verdict=BAD)
        await world.sleep(0.01)
        world.registry.detach(session)
    assert len(world.times) <= 6
    world.prober.close()


@scenario
async def test_what_no_route_leads_to_is_nobodys_business() -> None:
    world = World("t")
    world.attach("c1", "t", *(f"x{number}" for number in range(100)), verdict=GOOD)
    await world.sleep(5)
    assert [record.target for record in world.prober.records()] == ["t"]
    world.prober.close()
