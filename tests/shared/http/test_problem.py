"""Answers of our own: each fault of the catalogue makes one whole, well-formed answer."""

from __future__ import annotations

import email.utils
import json

import pytest

from shared.errors import FAULTS
from shared.http.gate import find_head_end
from shared.http.problem import http_date, problem_response
from shared.http.responses import ResponseHead, parse_response_head

ANSWERED = [fault for fault in FAULTS.values() if fault.status is not None]


def read(raw: bytes, method: bytes = b"POST") -> tuple[ResponseHead, bytes]:
    end = find_head_end(raw)
    return parse_response_head(raw[:end], method), raw[end:]


@pytest.mark.parametrize("code", [fault.code for fault in ANSWERED])
def test_every_fault_makes_a_whole_answer(code: str) -> None:
    fault = FAULTS[code]
    head, body = read(problem_response(fault, "r-1", keep_alive=True, now=1e9))
    assert head.status == fault.status
    assert head.content_length == len(body)
    assert head.fields[b"content-type"] == b"application/problem+json"
    assert head.fields[b"qanat-error"] == code.encode()
    assert head.fields[b"qanat-error-origin"] == fault.origin.encode()
    assert head.fields[b"date"] == b"Sun, 09 Sep 2001 01:46:40 GMT"
    assert (b"retry-after" in head.fields) is fault.retry_after
    assert (b"www-authenticate" in head.fields) is (fault.status == 401)
    assert head.keep_alive is not fault.closes
    problem = json.loads(body)
    assert problem["detail"] == fault.remedy
    assert (problem["status"], problem["code"], problem["origin"], problem["request_id"], problem["title"]) == (
        fault.status,
        code,
        fault.origin,
        "r-1",
        fault.title,
    )


def test_there_are_faults_and_none_has_a_status_that_makes_senders_drop() -> None:
    assert len(ANSWERED) > 30
    assert not {fault.status for fault in ANSWERED} & {500, 501, 405, 408, 415}


def test_options() -> None:
    fault = FAULTS["quota-exceeded"]
    head, body = read(
        problem_response(fault, "", keep_alive=False, retry_after=7, detail="Too fast.", extra_headers=[(b"X", b"y")])
    )
    assert head.fields[b"retry-after"] == b"7"
    assert head.fields[b"connection"] == b"close"
    assert head.fields[b"x"] == b"y"
    assert b"x-request-id" not in head.fields
    assert json.loads(body)["detail"] == f"Too fast. {fault.remedy}"


def test_head_gets_no_body() -> None:
    head, body = read(problem_response(FAULTS["no-such-route"], "r", keep_alive=True, head_only=True), b"HEAD")
    assert body == b""
    assert head.content_length


def test_a_challenge_of_the_route_replaces_the_default() -> None:
    raw = problem_response(
        FAULTS["unauthenticated"], "r", keep_alive=True, extra_headers=[(b"WWW-Authenticate", b"Bearer")]
    )
    assert read(raw)[0].fields[b"www-authenticate"] == b"Bearer"


def test_what_has_no_status_is_never_answered() -> None:
    with pytest.raises(ValueError, match="never answered"):
        problem_response(FAULTS["sender-too-slow"], "r", keep_alive=True)


@pytest.mark.parametrize("now", [0.0, 1.5, 951_782_400.0, 1_735_689_599.9, 4_102_444_800.0])
def test_dates(now: float) -> None:
    assert http_date(now).decode() == email.utils.formatdate(int(now), usegmt=True)
    assert http_date(now) is http_date(now)
