"""What holds for every answer of ours, and for every answer that broke off."""

from __future__ import annotations

from typing import Any

from shared.errors import FAULTS
from tests.cloud_relay.ingress.kit import Relay
from tests.cloud_relay.ingress.wire import code_of, post

NEVER_OURS = {500, 501, 405, 408, 415}


def refused(relay: Relay, raw: bytes = b"") -> Any:
    """The answer of ours to a push; checks what holds for all of them."""
    sender = relay.connect()
    sender.send(raw or post(b"x"))
    return judge(relay, sender)


def judge(relay: Relay, sender: Any, *, bugs: int = 0) -> Any:
    answer = sender.last
    code = code_of(answer)
    of_catalogue = FAULTS[code]
    assert answer.status == of_catalogue.status
    assert answer.status not in NEVER_OURS
    assert answer.headers["qanat-error-origin"] == of_catalogue.origin
    assert answer.headers["content-type"] == "application/problem+json"
    assert ("retry-after" in answer.headers) is of_catalogue.retry_after
    if of_catalogue.retry_after:
        assert 1 <= int(answer.headers["retry-after"]) <= 5
    assert (answer.headers.get("connection") == "close") is of_catalogue.closes
    line = relay.access_log.lines[-1]
    assert (line["status"], line["code"], line["origin"]) == (answer.status, code, of_catalogue.origin)
    assert line["request_id"] in answer.body.decode()
    relay.assert_nothing_left(bugs=bugs)
    return answer


def begun(*, length: int | None = None, version: str = "1.1") -> tuple[Relay, Any]:
    relay = Relay()
    sender = relay.connect()
    sender.send(post(b"x", version=version))
    relay.stream.answer(200, b"ab", end=False, length=length)
    return relay, sender


def assert_cut(relay: Relay, sender: Any, code: str) -> None:
    assert sender.transport.how_ended == "reset"
    assert not sender.last.is_complete
    assert relay.access_log.lines[0]["status"] == 200
    assert relay.access_log.lines[0]["code"] == code
    relay.assert_nothing_left()
    relay.assert_all_closed()
