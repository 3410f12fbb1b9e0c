"""The deadline, and trying again."""

from __future__ import annotations

import pytest

from tests.cloud_relay.ingress.judge import judge
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import code_of, post


def test_the_deadline_ends_at_the_status_line():
    relay = Relay(timeout=5.0)
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.sleep(5.1)
    assert relay.stream.was_reset == (164, False)
    assert code_of(judge(relay, sender)) == "deadline-exceeded"
    assert not sender.is_closed


def test_the_deadline_counts_from_the_head_and_includes_holding():
    relay = Relay(connectors=0, timeout=5.0)
    sender = relay.connect()
    sender.send(post(b"x"))
    relay.sleep(2.5)
    relay.attach()
    relay.sleep(2.4)
    assert sender.answers() == []
    relay.sleep(0.2)
    assert code_of(sender.last) == "deadline-exceeded"


def test_an_upload_that_moves_is_not_the_targets_fault():
    relay = Relay(timeout=5.0)
    sender = relay.connect()
    sender.send(post(b"", content_length="200000"))
    assert relay.stream.deadline > relay.clock.now + 190
    for _ in range(20):
        relay.sleep(1)
        sender.send(b"x" * 10000)
    assert relay.stream.ended
    relay.sleep(4)
    assert sender.answers() == []
    relay.sleep(1.1)
    assert code_of(sender.last) == "deadline-exceeded"


def test_a_target_that_does_not_read_is_too_slow():
    relay = Relay(timeout=5.0)
    relay.registry.sessions[0].link.new_streams_have_room = False
    sender = relay.connect()
    sender.send(post(b"", content_length="200000") + b"x" * 1000)
    assert sender.transport.is_paused
    relay.sleep(5.1)
    assert code_of(sender.last) == "deadline-exceeded"
    assert not sender.transport.is_paused
    relay.assert_nothing_left()


# Trying again.


def test_who_had_no_connector_is_doubted_before_another_one_is_chosen():
    relay = Relay(connectors=1)
    sender = relay.connect()
    sender.send(post(b"abc"))
    session = relay.registry.sessions[0]
    session.is_usable = False
    relay.streams[0].fail("no-connector", refused=True)
    assert relay.registry.doubted == [session]
    assert sender.answers() == []
    session.is_usable = True
    relay.registry.wake()
    relay.streams[1].answer(200)
    assert sender.last.status == 200


def test_where_another_worker_had_no_connector_no_try_is_spent_until_hold_is_over():
    relay = Relay(connectors=1)
    relay.registry.is_old_news = True
    sender = relay.connect()
    sender.send(post(b"abc"))
    (session,) = relay.registry.sessions
    for number in range(12):
        session.is_usable = False
        relay.streams[number].fail("no-connector", refused=True)
        assert sender.answers() == [], number
        session.is_usable = True
        relay.registry.wake()
    assert len(relay.streams) == 13
    relay.streams[12].answer(200)
    assert sender.last.status == 200


def test_and_then_the_sender_is_told():
    relay = Relay(connectors=1)
    relay.registry.is_old_news = True
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.registry.sessions[0].is_usable = False
    relay.streams[0].fail("no-connector", refused=True)
    relay.clock.sleep(3.1)
    assert sender.last.status == 503
    assert b"no-connector" in sender.last.body


def test_refused_goes_to_another_connector():
    relay = Relay(connectors=2)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.streams[0].fail("connector-overloaded", refused=True)
    first, second = relay.streams
    assert second.link is not first.link
    assert (first.head.attempt, second.head.attempt) == (1, 2)
    assert first.head.request_id == second.head.request_id
    assert second.first == (b"abc", True)
    second.answer(200)
    tried, pushed = relay.access_log.lines
    assert (tried["kind"], tried["connector"], tried["code"], tried["then"]) == (
        "try", "c1", "connector-overloaded", "again",
    )  # fmt: skip
    assert (pushed["attempt"], pushed["connector"]) == (2, "c2")
    ids = [(line["request_id"], line["attempt"]) for line in (tried, pushed)]
    assert ids == [(stream.head.request_id, stream.head.attempt) for stream in (first, second)]
    assert relay.route_metrics.retries == relay.route_metrics.mended == 1
    assert relay.route_metrics.failed_tries == {("connector-overloaded", "again"): 1}
    relay.assert_nothing_left()


@pytest.mark.parametrize(("sent", "again"), [(False, True), (True, False)])
def test_a_lost_tunnel(sent, again):
    relay = Relay(connectors=2)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.registry.detach(relay.registry.sessions[0], sent=sent)
    assert (len(relay.streams) == 2) is again
    if again:
        relay.stream.answer(200)
        assert sender.answers() == [(200, b"")]
    else:
        assert code_of(judge(relay, sender)) == "tunnel-lost"
    relay.assert_nothing_left()


def test_idempotent_routes_try_again_in_any_case():
    relay = Relay(connectors=2, idempotent=True)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.registry.detach(relay.registry.sessions[0], sent=True)
    relay.stream.answer(200)
    assert sender.answers() == [(200, b"")]
    relay.assert_nothing_left()


def test_at_most_two_more_tries_never_the_same_while_there_is_another():
    relay = Relay(connectors=5)
    sender = relay.connect()
    sender.send(post(b"abc"))
    for _ in range(5):
        relay.stream.fail("target-unreachable", refused=True)
    assert len({id(stream.link) for stream in relay.streams}) == 3
    assert len(relay.streams) == 3
    assert code_of(judge(relay, sender)) == "target-unreachable"


def test_not_at_the_only_connector_unless_the_route_is_idempotent():
    for idempotent, tries in ((False, 1), (True, 3)):
        relay = Relay(idempotent=idempotent)
        sender = relay.connect()
        sender.send(post(b"abc"))
        for _ in range(3):
            relay.stream.fail("target-unreachable", refused=True)
        assert len(relay.streams) == tries
        assert code_of(judge(relay, sender)) == "target-unreachable"


def test_another_connector_is_another_identity():
    relay = Relay(connectors=1)
    relay.attach("c1")
    relay.attach("c2")
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.stream.fail("target-unreachable", refused=True)
    assert relay.stream.link is relay.registry.sessions[2].link
    relay.stream.fail("target-unreachable", refused=True)
    assert code_of(judge(relay, sender)) == "target-unreachable", "c1 was asked already, by whichever tunnel"
    assert len(relay.streams) == 2


@pytest.mark.parametrize(("code", "tries"), [("connector-overloaded", 1), ("tunnel-refused", 2)])
def test_another_tunnel_of_the_only_connector_mends_only_the_tunnels_failing(code, tries):
    relay = Relay(connectors=1)
    relay.attach("c1")
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.stream.fail(code, refused=True)
    assert len(relay.streams) == tries
    relay.stream.answer(200)
    relay.assert_nothing_left()


def test_a_draining_connector_is_waited_for():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"abc"))
    session = relay.registry.sessions.pop()
    session.link.streams[0].fail("connector-draining", refused=True)
    assert sender.answers() == []
    relay.sleep(0.5)
    relay.attach("c1-again")
    assert relay.stream.head.attempt == 2
    relay.stream.answer(200)
    assert sender.answers() == [(200, b"")]
    relay.assert_nothing_left()


def test_and_if_none_comes_the_first_cause_is_told():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"abc"))
    session = relay.registry.sessions.pop()
    relay.sleep(1)
    session.link.streams[0].fail("connector-draining", refused=True)
    relay.sleep(2.1)
    assert code_of(judge(relay, sender)) == "no-connector"


def test_a_tunnel_that_closed_since_it_was_chosen():
    relay = Relay(connectors=2)
    relay.registry.sessions[0].link.can_open = False
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.stream.answer(200)
    assert sender.answers() == [(200, b"")]
    relay.assert_nothing_left()


def test_policy_is_final():
    relay = Relay(connectors=2, idempotent=True)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.stream.fail("path-not-allowed", refused=True)
    assert code_of(judge(relay, sender)) == "path-not-allowed"
    assert len(relay.streams) == 1


def test_a_long_body_cannot_be_sent_again():
    relay = Relay(connectors=2)
    sender = relay.connect()
    sender.send(post(b"x" * 70_000), by=30_000)
    relay.stream.fail("connector-overloaded", refused=True)
    assert code_of(judge(relay, sender)) == "connector-overloaded"


def test_what_is_kept_for_another_try_counts_as_memory():
    relay = Relay(connectors=2, budget=1000)
    first, second = relay.connect(), relay.connect()
    first.send(post(b"", content_length="310") + b"x" * 200)
    assert relay.budget.used == 200
    first.send(b"x" * 100)
    assert relay.budget.used == 300
    second.send(post(b"y" * 250))
    assert relay.budget.used == 300, "more than half would be used: it is not kept"
    relay.stream.fail("connector-overloaded", refused=True)
    assert code_of(second.last) == "connector-overloaded"
    relay.streams[0].fail("connector-overloaded", refused=True)
    assert relay.stream.first == (b"x" * 300, False)
    assert relay.budget.used == 300
    relay.budget.used += 200
    first.send(b"x" * 10)
    assert relay.budget.used == 200, "nor is what was kept until then"
    relay.budget.used -= 200
    relay.stream.answer(200)
    relay.assert_nothing_left()


@pytest.mark.parametrize("by", [0, 50_000])
def test_what_is_too_long_to_be_sent_again_is_not_kept(by):
    relay = Relay(connectors=2)
    sender = relay.connect()
    sender.send(post(b"x" * 70_000), by=by)
    assert relay.budget.used == 0
    relay.stream.fail("connector-overloaded", refused=True)
    assert code_of(judge(relay, sender)) == "connector-overloaded"


def test_the_answers_head_ends_the_keeping():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x" * 1000))
    assert relay.budget.used == 1000
    relay.stream.answer(200, b"a", end=False, length=None)
    assert relay.budget.used == 0
    relay.stream.data(b"b", end=True)
    relay.assert_nothing_left()


def test_the_body_so_far_is_sent_again_and_the_rest_follows():
    relay = Relay(connectors=2)
    sender = relay.connect()
    sender.send(post(b"", content_length="6") + b"ab")
    sender.send(b"cd")
    relay.stream.fail("connector-overloaded", refused=True)
    assert relay.stream.first == (b"abcd", False)
    sender.send(b"ef")
    assert relay.stream.body == b"abcdef"
    assert relay.stream.ended
    relay.stream.answer(200)
    relay.assert_nothing_left()


def test_not_past_the_deadline():
    relay = Relay(connectors=2, timeout=5.0)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.clock.now += 5.0
    relay.stream.fail("connector-overloaded", refused=True)
    assert len(relay.streams) == 1
    assert code_of(judge(relay, sender)) == "connector-overloaded"


def test_within_a_budget():
    relay = Relay(connectors=2, max_in_flight=0)
    for _ in range(100):
        sender = relay.connect()
        sender.send(post(b"abc"))
        relay.stream.fail("connector-overloaded", refused=True)
        if len(sender.answers()) == 0:
            relay.stream.fail("connector-overloaded", refused=True)
    tries = len(relay.streams) - 100
    assert 20 <= tries <= 10 + 20 + 1
    relay.sleep(60)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.stream.fail("connector-overloaded", refused=True)
    assert sender.answers() == []


def test_waiting_for_the_next_tunnel_does_not_evade_the_budget():
    relay = Relay(max_in_flight=0)
    senders = [relay.connect() for _ in range(60)]
    for sender in senders:
        sender.send(post(b"abc"))
    session = relay.registry.sessions.pop()
    for stream in session.link.streams:
        stream.fail("connector-draining", refused=True)
    relay.sleep(0.5)
    relay.attach("c1-again")
    tries = len(relay.streams) - 60
    assert 20 <= tries <= 10 + 12 + 1
    assert relay.route_metrics.retries == tries
    refused = [sender for sender in senders if sender.answers()]
    assert len(refused) == 60 - tries
    assert {code_of(sender.last) for sender in refused} == {"connector-draining"}
    for stream in relay.streams:
        stream.answer(200)
    relay.assert_nothing_left()


def test_what_was_on_a_tunnel_that_is_gone_costs_no_budget():
    """However many they are: all that may be tried again is, at the other connector."""
    relay = Relay(connectors=1, max_in_flight=0, idempotent=True)
    senders = [relay.connect() for _ in range(300)]
    for sender in senders:
        sender.send(post(b"abc"))
    session = relay.registry.sessions.pop()
    relay.attach("c2")
    session.link.is_open = False
    for stream in list(session.link.streams):
        stream.fail("tunnel-lost", refused=False)
    assert relay.route_metrics.retries == 300
    for stream in relay.streams[300:]:
        stream.answer(204)
    assert all(sender.answers()[0][0] == 204 for sender in senders)
    relay.assert_nothing_left()


def test_so_too_where_they_had_to_wait_for_a_tunnel():
    relay = Relay(max_in_flight=0)
    senders = [relay.connect() for _ in range(60)]
    for sender in senders:
        sender.send(post(b"abc"))
    session = relay.registry.sessions.pop()
    session.link.is_draining = True
    for stream in list(session.link.streams):
        stream.fail("tunnel-refused", refused=True)
    relay.sleep(0.5)
    relay.attach("c1-again")
    assert len(relay.streams) == 120
    assert not any(sender.answers() for sender in senders)


def test_what_was_never_tried_is_held_without_the_budget():
    relay = Relay(connectors=0, max_in_flight=0)
    for _ in range(100):
        relay.connect().send(post(b"abc"))
    relay.attach()
    assert len(relay.streams) == 100
    assert relay.route_metrics.retries == 0


def test_nothing_after_the_answers_head():
    relay = Relay(connectors=2, idempotent=True)
    sender = relay.connect()
    sender.send(post(b"abc"))
    relay.stream.answer(200, b"x", end=False)
    relay.stream.fail("target-lost", refused=True)
    assert len(relay.streams) == 1
    assert sender.transport.how_ended == "reset"
