"""The token endpoint on the ingress's own parser: whole and in single bytes, its limits, its log, and who hangs up."""

from __future__ import annotations

import asyncio
import json
from typing import Any, cast

import pytest

from cloud_relay.gates import Gate
from cloud_relay.metrics import RelayMetrics
from cloud_relay.oauth.endpoint import LocalAnswer
from cloud_relay.routing import Route, RoutingTable
from shared.errors import FAULTS
from tests.cloud_relay.ingress.kit import Relay

BODY = b"grant_type=client_credentials"


class Endpoint:
    """Records what it is asked."""

    def __init__(self) -> None:
        self.asked: list[bytes] = []
        self.outcome: Any = LocalAnswer(200, ((b"Content-Type", b"application/json"),), b'{"a":1}', None)

    def respond(self, head: Any, body: bytes, source: str) -> Any:
        assert source == "192.0.2.7"
        self.asked.append(body)
        return self.outcome


@pytest.fixture
def relay():
    import dataclasses

    relay = Relay()
    endpoint = Endpoint()
    route = Route(
        tenant="acme", name="oauth/token", host=b"push.example.com", path=b"/oauth/token", sub_paths=False, location="",
        target="", senders=frozenset(), realm=relay.route.realm, gate=Gate(),
        metrics=RelayMetrics().route("acme", "oauth/token"), quota_fault=FAULTS["quota-exceeded"], max_body=8192,
        hold=0.0, timeout=10.0, endpoint=cast(Any, endpoint),
    )  # fmt: skip
    relay.context = dataclasses.replace(relay.context, routing=RoutingTable([relay.route], [route]))
    relay.ingress.context = relay.context
    relay.authenticator.verdict = AssertionError("nobody asks for a sender here")
    return relay, endpoint


def request(body: bytes = BODY, method: str = "POST", path: str = "/oauth/token", *more: str) -> bytes:
    lines = [f"{method} {path} HTTP/1.1", "Host: push.example.com", f"Content-Length: {len(body)}", *more]
    return "\r\n".join([*lines, "", ""]).encode() + body


@pytest.mark.parametrize("by", [0, 1])
def test_a_request_is_answered_here_and_the_connection_kept(relay, by):
    relay, endpoint = relay
    sender = relay.connect()
    sender.send(request() + request(), by=by)
    assert sender.answers() == [(200, b'{"a":1}')] * 2
    assert endpoint.asked == [BODY] * 2
    assert relay.streams == []
    assert not sender.is_closed
    line = relay.access_log.lines[-1]
    assert (line["route"], line["status"], line["bytes_in"], line["path"]) == (
        "oauth/token",
        200,
        len(BODY),
        "/oauth/token",
    )
    assert relay.sender.metrics.pushes == 0, "a token is no push"
    relay.assert_nothing_left()


def test_a_chunked_form(relay):
    relay, endpoint = relay
    sender = relay.connect()
    head = b"POST /oauth/token HTTP/1.1\r\nHost: push.example.com\r\nTransfer-Encoding: chunked\r\n\r\n"
    sender.send(head + b"5\r\ngrant\r\n")
    sender.send(b"3\r\n_ty\r\n0\r\n\r\n")
    assert endpoint.asked == [b"grant_ty"]
    assert sender.answers() == [(200, b'{"a":1}')]
    relay.assert_nothing_left()


@pytest.mark.parametrize("chunked", [False, True])
def test_a_form_is_bounded(relay, chunked):
    relay, endpoint = relay
    sender = relay.connect()
    if chunked:
        sender.send(b"POST /oauth/token HTTP/1.1\r\nHost: push.example.com\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(9):
            sender.send(b"400\r\n" + b"a" * 1024 + b"\r\n")
    else:
        sender.send(request(b"a" * 8193))
    assert sender.last.status == 413
    assert endpoint.asked == []
    relay.assert_nothing_left()


def test_expect_continue(relay):
    relay, _ = relay
    sender = relay.connect()
    whole = request(BODY, "POST", "/oauth/token", "Expect: 100-continue")
    sender.send(whole[: -len(BODY)])
    assert sender.received == b"HTTP/1.1 100 Continue\r\n\r\n"
    sender.send(BODY)
    assert b"HTTP/1.1 200" in sender.received
    relay.assert_nothing_left()


def test_a_fault_is_a_problem_document(relay):
    relay, endpoint = relay
    endpoint.outcome = FAULTS["overloaded"]
    sender = relay.connect()
    sender.send(request())
    assert sender.last.status == 503
    assert json.loads(sender.last.body)["code"] == "overloaded"
    relay.assert_nothing_left()


async def test_an_answer_that_comes_later(relay):
    relay, endpoint = relay
    for outcome, status in ((endpoint.outcome, 200), (FAULTS["too-many-failures"], 503), (RuntimeError("bug"), 503)):
        future = endpoint.outcome = asyncio.get_running_loop().create_future()
        sender = relay.connect()
        sender.send(request())
        assert sender.received == b""
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        await asyncio.sleep(0)
        assert sender.last.status == status
        relay.assert_nothing_left()


async def test_who_hangs_up_leaves_nothing(relay):
    relay, endpoint = relay
    future = endpoint.outcome = asyncio.get_running_loop().create_future()
    sender = relay.connect()
    sender.send(request())
    sender.hang_up()
    assert future.cancelled()
    half = relay.connect()
    half.send(request()[:-5])
    half.vanish()
    await asyncio.sleep(0)
    relay.assert_nothing_left()


async def test_an_answer_that_never_comes(relay):
    relay, endpoint = relay
    endpoint.outcome = asyncio.get_running_loop().create_future()
    sender = relay.connect()
    sender.send(request())
    relay.sleep(11)
    assert sender.last.status == 503
    relay.assert_nothing_left()


def test_a_path_beside_it_is_none(relay):
    relay, endpoint = relay
    sender = relay.connect()
    sender.send(request(path="/oauth/token/"))
    assert sender.last.status == 404
    assert endpoint.asked == []
