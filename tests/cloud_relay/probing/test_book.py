"""What probes and pushes together make of targets, and where pushes then go."""

from __future__ import annotations

from cloud_relay.probing.book import KEPT
from cloud_relay.probing.doubt import FIRST, IN_A_ROW
from cloud_relay.probing.view import route_health, target_view
from shared.probe import NONE, Verdict
from tests.cloud_relay.probing.kit import BAD, GOOD, World, key
from tests.connector_agent.kit import scenario


def health(world: World) -> tuple[str, str]:
    found = route_health(world.registry, world.book, key(), world.now)
    return str(found.state), found.why


@scenario
async def test_a_route_from_nobody_to_green_to_red_and_back() -> None:
    world = World()
    assert health(world) == ("red", "no-connector")
    session, link = world.attach()
    assert health(world) == ("unknown", "not-probed-yet")
    link.verdict = GOOD
    await world.sleep(1)
    assert health(world) == ("green", "")
    link.verdict = BAD
    await world.sleep(20)
    assert health(world) == ("red", "target-unreachable")
    assert world.chosen() == {"c1"}, "the last one is never taken out"
    link.verdict = GOOD
    await world.sleep(4)
    assert health(world) == ("green", "")
    link.can_open = False
    assert health(world) == ("red", "no-connector")
    world.registry.detach(session)
    assert health(world) == ("red", "no-connector")
    world.prober.close()


@scenario
async def test_what_is_dead_behind_one_connector_is_served_by_the_other() -> None:
    world = World()
    world.attach("a", verdict=BAD)
    _, other = world.attach("b", verdict=GOOD)
    await world.sleep(2)
    assert world.chosen() == {"b"}
    assert health(world) == ("green", "")
    assert target_view(world.record("a"), world.now)["passed_over"] is True
    other.verdict = BAD
    await world.sleep(20)
    assert world.chosen() == {"a", "b"}, "a probe may be wrong"
    assert not world.record("a").is_passed_over, "there is no other"
    assert health(world) == ("red", "target-unreachable")
    world.prober.close()


@scenario
async def test_one_failed_probe_of_a_target_that_was_well_is_an_accident() -> None:
    world = World()
    _, link = world.attach(verdict=GOOD)
    await world.sleep(2)
    link.verdict = None
    await world.sleep(15)
    link.asked[-1].answer(BAD)
    assert health(world) == ("green", "")
    await world.sleep(3)
    link.asked[-1].answer(BAD)
    assert health(world) == ("red", "target-unreachable")
    world.prober.close()


@scenario
async def test_connectors_that_cannot_tell_are_treated_as_well() -> None:
    world = World()
    _, old = world.attach("old", can_probe=False)
    world.attach("none", verdict=Verdict(NONE))
    await world.sleep(30)
    assert not old.asked
    assert world.chosen() == {"old", "none"}
    assert health(world)[0] == "unknown"
    assert world.record("old").why == "connector-cannot-probe"
    assert world.record("none").why == "probe-none"
    world.prober.close()


@scenario
async def test_pushes_that_fail_have_a_target_passed_over_until_a_probe_is_good() -> None:
    world = World()
    _, first = world.attach("a", verdict=GOOD)
    world.attach("b", verdict=GOOD)
    await world.sleep(2)
    world.fail("a", IN_A_ROW - 1)
    assert world.chosen() == {"a", "b"}
    world.fail("a")
    assert world.chosen() == {"b"}
    assert world.record("a").state == "red"
    assert world.book.taken_out == {("acme", "dc1", "a", "t"): 1}
    asked = len(first.asked)
    await world.sleep(FIRST - 0.5)
    assert len(first.asked) > asked, "it is looked at sooner than in its turn"
    assert world.chosen() == {"b"}, "a good probe does not bring it back at once: pushes told otherwise"
    await world.sleep(3)
    assert world.chosen() == {"a", "b"}
    world.prober.close()


@scenario
async def test_without_probes_time_brings_it_back() -> None:
    world = World()
    world.attach("a", can_probe=False)
    world.attach("b", can_probe=False)
    world.fail("a", IN_A_ROW)
    assert world.chosen() == {"b"}
    await world.sleep(FIRST + 1.5)
    assert world.chosen() == {"a", "b"}
    world.prober.close()


@scenario
async def test_of_those_that_only_pushes_speak_against_one_is_left() -> None:
    world = World()
    world.attach("a", verdict=GOOD)
    world.attach("b", verdict=GOOD)
    await world.sleep(2)
    world.fail("a", IN_A_ROW)
    world.fail("b", IN_A_ROW)
    assert health(world) == ("red", "target-unreachable"), "all pushes fail, whatever the probes say"
    assert world.chosen() == {"a", "b"}
    world.prober.close()


@scenario
async def test_what_a_probe_finds_dead_comes_after_what_only_pushes_doubt() -> None:
    world = World()
    world.attach("a", verdict=GOOD)
    world.attach("b", verdict=BAD)
    await world.sleep(2)
    world.fail("a", IN_A_ROW)
    assert world.chosen() == {"a"}
    world.prober.close()


@scenario
async def test_deliveries_are_told_only_while_there_is_a_doubt_and_clear_it() -> None:
    world = World()
    world.attach("a", verdict=GOOD)
    assert not world.book.doubts
    world.fail("a", IN_A_ROW - 1)
    assert world.book.doubts
    world.book.delivered(key(), "a", world.now)
    world.fail("a", IN_A_ROW - 1)
    assert not world.record("a").is_tripped
    await world.sleep(60)
    assert not world.book.doubts
    assert world.record("a").doubt is None
    world.prober.close()


@scenario
async def test_what_says_nothing_about_the_target_does_not_count() -> None:
    world = World()
    world.attach("a")
    for code in ("tunnel-lost", "tunnel-refused", "connector-draining", "connector-overloaded", "path-not-allowed"):
        world.fail("a", 100, code)
    assert not world.book.doubts
    world.fail("nobody", 100)
    world.prober.close()


@scenario
async def test_a_connector_that_is_back_within_a_minute_is_known_still() -> None:
    world = World()
    session, _ = world.attach(verdict=BAD)
    world.attach("b", verdict=GOOD)
    await world.sleep(2)
    world.registry.detach(session)
    assert world.book.of_key(key()) == [world.record("b")]
    await world.sleep(5)
    _, link = world.attach()
    assert world.chosen() == {"b"}
    await world.sleep(1)
    link.asked[-1].answer(GOOD)
    assert world.chosen() == {"c1", "b"}
    world.prober.close()


@scenario
async def test_nothing_is_kept_of_what_is_gone_for_good() -> None:
    world = World("t", "u")
    session, _ = world.attach("a", "t", "u", verdict=BAD)
    await world.sleep(2)
    world.fail("a", 10)
    world.registry.detach(session)
    await world.sleep(KEPT + 2)
    assert repr(world.book) == "<HealthBook 0 records, 0 doubts>"
    assert world.book.taken_out == {}
    assert repr(world.prober) == "<Prober 0 asked, 0 to come>"
    world.prober.close()
