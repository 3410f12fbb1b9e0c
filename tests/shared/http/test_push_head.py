"""The heads that cross the tunnel: one literal both ways, newer peers, and hostile ones."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shared.http.headers import HOP_BY_HOP, OVERRIDES
from shared.http.push_head import (
    MAX_HEAD,
    AnswerHead,
    HeadError,
    PushHead,
    decode_answer,
    decode_push,
    encode_answer,
    encode_push,
)

RAW = (
    b"1\0r-0001\0002\0002048\0focused-run\0s4-prod\0frun\0POST\0/sap/frun?a=b\0\0"
    b"Host\0push.example.com\0Content-Type\0application/json\0X-Empty\0\0"
)
PUSH = PushHead(
    target="focused-run",
    request_id="r-0001",
    attempt=2,
    sender="s4-prod",
    route="frun",
    method=b"POST",
    path=b"/sap/frun?a=b",
    content_length=2048,
    headers=[(b"Host", b"push.example.com"), (b"Content-Type", b"application/json"), (b"X-Empty", b"")],
)
ANSWER_RAW = b"1\x00200\x0021\0\0Date\0now\0Set-Cookie\0a=b\0Set-Cookie\0c=d\0"
ANSWER = AnswerHead(200, 21, [(b"Date", b"now"), (b"Set-Cookie", b"a=b"), (b"Set-Cookie", b"c=d")])


def test_one_literal_both_ways() -> None:
    assert encode_push(PUSH) == RAW
    assert decode_push(RAW) == PUSH
    assert encode_answer(*ANSWER) == ANSWER_RAW
    assert decode_answer(ANSWER_RAW) == ANSWER


@pytest.mark.parametrize(
    "push",
    [
        PUSH._replace(headers=[]),
        PUSH._replace(content_length=None),
        PUSH._replace(content_length=0),
        PUSH._replace(sender=""),
        PUSH._replace(upgrade=b"websocket", method=b"GET", content_length=None),
        PUSH._replace(path=b"/"),
        PUSH._replace(path=b"/.well-known/%c3%a9?%2f..//"),
    ],
)
def test_every_form_of_a_push_crosses(push: PushHead) -> None:
    assert decode_push(encode_push(push)) == push


@pytest.mark.parametrize(
    "answer", [AnswerHead(204, None, []), AnswerHead(599, 0, []), AnswerHead(103, None, [(b"Link", b"x")])]
)
def test_every_form_of_an_answer_crosses(answer: AnswerHead) -> None:
    assert decode_answer(encode_answer(*answer)) == answer


def test_what_a_newer_side_adds_is_skipped() -> None:
    assert decode_push(RAW.replace(b"a=b\0\0", b"a=b\0zone=eu-1\0xupgrade=websocket\0\0")) == PUSH
    assert decode_push(RAW.replace(b"a=b\0\0", b"a=b\0a=b\0upgrade=websocket\0\0")).upgrade == b"websocket"
    assert decode_answer(ANSWER_RAW.replace(b"21\0\0", b"21\0cached=no\0\0")) == ANSWER


BAD_PUSHES = {
    "empty": b"",
    "another version": b"2" + RAW[1:],
    "cut short": RAW[:-1],
    "a name without a value": RAW + b"X\0",
    "bytes behind": RAW + b"x",
    "too large": RAW + b"X\0" + b"a" * MAX_HEAD + b"\0",
    "too many headers": RAW + b"X\0y\0" * 200,
    "target": RAW.replace(b"focused-run", b"Focused"),
    "target is a path": RAW.replace(b"focused-run", b"../etc"),
    "target too long": RAW.replace(b"focused-run", b"a" * 64),
    "no target": RAW.replace(b"focused-run", b""),
    "request id": RAW.replace(b"r-0001", b"r 1"),
    "request id with a line end": RAW.replace(b"r-0001", b"r\n1"),
    "request id too long": RAW.replace(b"r-0001", b"r" * 65),
    "attempt zero": RAW.replace(b"\0002\0", b"\x000\0"),
    "attempt": RAW.replace(b"\0002\0", b"\0+2\0"),
    "sender": RAW.replace(b"s4-prod", b"S4"),
    "route": RAW.replace(b"\0frun\0", b"\0\0"),
    "lower-case method": RAW.replace(b"POST", b"post"),
    "method with a space": RAW.replace(b"POST", b"POST /x HTTP/1.1\r\nX:"),
    "CONNECT": RAW.replace(b"POST", b"CONNECT"),
    "TRACE": RAW.replace(b"POST", b"TRACE"),
    "absolute form": RAW.replace(b"/sap/frun?a=b", b"http://10.0.0.1/"),
    "asterisk form": RAW.replace(b"/sap/frun?a=b", b"*"),
    "no path": RAW.replace(b"/sap/frun?a=b", b""),
    "path with a space": RAW.replace(b"/sap/frun?a=b", b"/a b"),
    "path with a line end": RAW.replace(b"/sap/frun?a=b", b"/a\r\nX: y"),
    "query with a fragment": RAW.replace(b"/sap/frun?a=b", b"/a?b#c"),
    "path not ASCII": RAW.replace(b"/sap/frun?a=b", b"/\xc3\xa9"),
    "length": RAW.replace(b"2048", b"02048"),
    "length signed": RAW.replace(b"2048", b"-1"),
    "length too long": RAW.replace(b"2048", b"1" * 17),
    "extra without a value": RAW.replace(b"a=b\0\0", b"a=b\0x\0\0"),
    "extra with a line end": RAW.replace(b"a=b\0\0", b"a=b\0x=\n\0\0"),
    "too many extras": RAW.replace(b"a=b\0\0", b"a=b\0" + b"x=1\0" * 17 + b"\0"),
    "header name": RAW.replace(b"X-Empty", b"X Empty"),
    "header name with a colon": RAW.replace(b"X-Empty", b"X:"),
    "header name with a line end": RAW.replace(b"X-Empty", b"X\r\nTransfer-Encoding"),
    "header value with a line end": RAW.replace(b"application/json", b"x\r\nTransfer-Encoding: chunked"),
    "header value with a bare CR": RAW.replace(b"application/json", b"x\ry"),
    "header value with a bare LF": RAW.replace(b"application/json", b"x\ny"),
    "header value not ASCII": RAW.replace(b"application/json", b"\xff"),
}


@pytest.mark.parametrize("case", BAD_PUSHES)
def test_a_hostile_relay_is_refused(case: str) -> None:
    with pytest.raises(HeadError) as caught:
        decode_push(BAD_PUSHES[case])
    assert caught.value.fault.code == "bad-push"


@pytest.mark.parametrize("path", [b"/a/../b", b"/a//b", b"/a/.", b"/%2e%2e/", b"/a%2fb", b"/a%5cb", b"/a%00", b"/a%25"])
def test_a_path_that_two_programs_read_in_two_ways_is_refused_again(path: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        decode_push(RAW.replace(b"/sap/frun?a=b", path))
    assert caught.value.fault.code == "path-refused"


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | OVERRIDES | {b"qanat-error"}))
def test_headers_that_frame_or_steer_do_not_come_out_at_the_connector(name: bytes) -> None:
    for spelling in (name, name.upper()):
        assert decode_push(RAW + spelling + b"\0chunked\0") == PUSH
        assert decode_push(RAW) == PUSH


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP | {b"qanat-error", b"qanat-error-origin", b"alt-svc"}))
def test_headers_that_frame_or_pretend_do_not_come_out_at_the_relay(name: bytes) -> None:
    for spelling in (name, name.title()):
        assert decode_answer(ANSWER_RAW + spelling + b"\0chunked\0") == ANSWER


def test_more_names_than_are_remembered_are_still_judged() -> None:
    for number in range(3000):
        name = b"X-%d" % number
        raw = b"1\x00200\0\0\0" + name + b"\0a\0transfer-encoding\0chunked\0"
        assert decode_answer(raw).headers == [(name, b"a")]


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        ANSWER_RAW[:-1],
        b"2" + ANSWER_RAW[1:],
        ANSWER_RAW.replace(b"200", b"099"),
        ANSWER_RAW.replace(b"200", b"600"),
        ANSWER_RAW.replace(b"200", b"20"),
        ANSWER_RAW.replace(b"200", b"200 OK\r\nX: y"),
        ANSWER_RAW.replace(b"21", b"021"),
        ANSWER_RAW.replace(b"21", b"21\r\n"),
        ANSWER_RAW.replace(b"now", b"now\r\nX: y"),
        ANSWER_RAW.replace(b"now", b"\x85"),
        ANSWER_RAW.replace(b"Date", b"Da te"),
        ANSWER_RAW.replace(b"Date", b""),
    ],
)
def test_a_hostile_connector_is_refused(raw: bytes) -> None:
    with pytest.raises(HeadError) as caught:
        decode_answer(raw)
    assert caught.value.fault.code == "target-malformed-answer"


@pytest.mark.parametrize("field", ["target", "request_id", "sender", "route", "method", "path"])
def test_no_field_can_hold_a_nul(field: str) -> None:
    value = getattr(PUSH, field)
    with pytest.raises(ValueError, match="NUL"):
        encode_push(PUSH._replace(**{field: value + (b"\0" if isinstance(value, bytes) else "\0")}))


def test_no_header_can_hold_a_nul() -> None:
    for pair in ((b"X", b"\0"), (b"X\0Y", b"")):
        with pytest.raises(ValueError, match="NUL"):
            encode_push(PUSH._replace(headers=[pair]))
        with pytest.raises(ValueError, match="NUL"):
            encode_answer(200, None, [pair])


@settings(max_examples=500)
@given(st.integers(0, len(RAW)), st.integers(0, 4), st.binary(max_size=4))
def test_a_mutated_head_is_refused_or_clean(at: int, removed: int, inserted: bytes) -> None:
    try:
        push = decode_push(RAW[:at] + inserted + RAW[at + removed :])
    except HeadError:
        return
    texts = [push.method, push.path, *[part for pair in push.headers for part in pair]]
    assert not set(b"".join(texts)) & set(b"\r\n\0")
    assert decode_push(encode_push(push)) == push


@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_else(raw: bytes) -> None:
    for decode in (decode_push, decode_answer):
        try:
            decode(raw)
        except HeadError:
            pass
