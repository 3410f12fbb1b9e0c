"""Bugs of ours, and odds and ends."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

import orjson
import pytest

from cloud_relay.ingress.context import IngressSettings
from shared.errors import FAULTS, Origin
from shared.http import push_head, responses
from tests.cloud_relay.ingress.judge import NEVER_OURS, begun, judge
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import code_of, get, post, request


@pytest.mark.parametrize("where", ["authenticate", "choose", "limits", "lookup", "open", "log"])
def test_a_bug_is_a_503_and_leaks_nothing(where, monkeypatch):
    relay = Relay()

    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    if where == "authenticate":
        relay.authenticator.verdict = ZeroDivisionError()
    elif where == "choose":
        monkeypatch.setattr(relay.registry, "choose", broken)
    elif where == "limits":  # whoever asks these gets an AttributeError (compiled: a TypeError)
        relay.ingress.context = replace(relay.context, limits=cast(Any, object()))
    elif where == "lookup":
        relay.ingress.context = replace(relay.context, routing=cast(Any, object()))
    elif where == "open":
        monkeypatch.setattr(relay.registry.sessions[0].link, "open_stream", broken)
    else:
        monkeypatch.setattr(relay.access_log, "text", broken)
    sender = relay.connect()
    sender.send(post(b"x"))
    if where == "log":
        relay.stream.answer(200, b"ok")
        assert sender.is_closed
        assert sender.answers() == [(200, b"ok")]
        relay.assert_nothing_left(bugs=1)
        return
    answer = judge(relay, sender, bugs=1)
    assert code_of(answer) == "internal-error"
    assert sender.is_closed


class BrokenNames(set[bytes]):
    def issuperset(self, *_: Any) -> bool:
        raise ZeroDivisionError


@pytest.mark.parametrize("where", ["decode_answer", "serialize_response_head"])
def test_a_bug_on_the_way_back(where, monkeypatch):
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    if where == "decode_answer":
        monkeypatch.setattr(push_head._TO_SENDER, "_known", BrokenNames())
    else:
        monkeypatch.delitem(responses._STATUS_LINES, 200)
    relay.stream.answer(200, b"ok")
    assert code_of(judge(relay, sender, bugs=1)) == "internal-error"


def test_a_bug_in_the_middle_of_an_answer_cuts_it_off(monkeypatch):
    relay, sender = begun()

    def broken_once() -> float:
        monkeypatch.undo()
        raise ZeroDivisionError

    monkeypatch.setattr(relay.ingress, "time", broken_once)
    relay.stream.data(b"c")
    assert sender.transport.how_ended == "reset"
    relay.assert_nothing_left(bugs=1)
    relay.assert_all_closed()


def test_a_bug_in_writing_the_problem_itself(monkeypatch):
    def broken(*_: Any, **__: Any) -> None:
        raise ZeroDivisionError

    relay = Relay()
    monkeypatch.setattr(orjson, "dumps", broken)
    sender = relay.connect()
    sender.send(get("/nowhere"))
    assert sender.is_closed
    relay.assert_nothing_left(bugs=2)
    relay.assert_all_closed()


# Odds and ends.


def test_a_reload_counts_from_the_next_push_on():
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x"))
    other = Relay(connectors=0, hold=0.0, clock=relay.clock)
    relay.ingress.context = other.context
    relay.stream.answer(200, b"old")
    sender.send(post(b"x"))
    assert [status for status, _ in sender.answers()] == [200, 503]
    relay.assert_nothing_left()
    other.assert_nothing_left()


def test_a_head_request_gets_a_problem_without_a_body():
    relay = Relay()
    sender = relay.connect()
    sender.send(request("HEAD", "/nowhere", None) + request("HEAD", "/nowhere", None))
    assert sender.received.count(b"HTTP/1.1 404") == 2
    assert sender.received.endswith(b"\r\n\r\n")
    assert b'"code"' not in sender.received


def test_http10_gets_its_problem_and_the_end():
    relay = Relay()
    sender = relay.connect()
    sender.send(request(path="/nowhere", version="1.0", connection="keep-alive"))
    assert sender.last.headers["connection"] == "close"
    assert sender.is_closed


def test_request_ids_are_unique_and_ours():
    relay = Relay()
    other = Relay()
    ids = {relay.ingress.new_request_id() for _ in range(1000)} | {other.ingress.new_request_id() for _ in range(1000)}
    assert len(ids) == 2000


def test_every_fault_that_the_ingress_may_answer_has_a_status_it_may_use():
    ours = [entry for entry in FAULTS.values() if entry.wire < 300 and entry.status is not None]
    assert len(ours) > 30
    assert not {entry.status for entry in ours} & NEVER_OURS
    assert {entry.origin for entry in ours} == set(Origin)


def test_settings_are_the_designs():
    settings = IngressSettings()
    assert (settings.head_timeout, settings.slow_body_rate, settings.slow_body_window) == (5.0, 1024, 10.0)
    assert (settings.replay_buffer, settings.max_tries) == (65536, 3)
