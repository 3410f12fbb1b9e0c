"""Which headers cross, and which the relay sets."""

from __future__ import annotations

import pytest

from shared.http.headers import (
    HOP_BY_HOP,
    OVERRIDES,
    PROTECTED,
    SPOOFABLE,
    Headers,
    prepare_answer_headers,
    prepare_request_headers,
    strip_hop_by_hop,
)
from shared.http.requests import parse_request_head

OURS = [
    (b"Forwarded", b"for=192.0.2.7;host=a;proto=https"),
    (b"X-Forwarded-For", b"192.0.2.7"),
    (b"X-Forwarded-Host", b"a"),
    (b"X-Forwarded-Proto", b"https"),
    (b"Via", b"1.1 qanat"),
]


def prepared(*fields: bytes, pass_authorization: bool = False, peer: str = "192.0.2.7", host: bytes = b"a") -> Headers:
    raw = b"POST / HTTP/1.1\r\nHost: " + host + b"\r\n" + b"".join([f + b"\r\n" for f in fields]) + b"\r\n"
    return prepare_request_headers(
        parse_request_head(raw), peer=peer, scheme="https", pass_authorization=pass_authorization
    )


def test_what_belongs_to_the_push_passes_in_order_and_spelling() -> None:
    kept = [
        (b"Host", b"a"),
        (b"content-TYPE", b"application/x-protobuf"),
        (b"Content-Encoding", b"snappy"),
        (b"traceparent", b"00-aa-bb-01"),
        (b"Idempotency-Key", b"k"),
        (b"Accept", b"x"),
        (b"Accept", b"y"),
    ]
    assert prepared(*[name + b": " + value for name, value in kept[1:]]) == kept + OURS


@pytest.mark.parametrize("name", sorted(HOP_BY_HOP - {b"transfer-encoding", b"content-length"} | SPOOFABLE | OVERRIDES))
def test_hop_by_hop_spoofed_and_overriding_headers_do_not_cross_in_any_spelling(name: bytes) -> None:
    for spelling in (name, name.upper(), name.title()):
        assert prepared(spelling + b": 6.6.6.6") == [(b"Host", b"a"), *OURS]


@pytest.mark.parametrize(
    "field",
    [
        b"X-Forwarded-For: 6.6.6.6",
        b"x-forwarded-user: root",
        b"X-FORWARDED-PORT: 1",
        b"Qanat-Error: x",
        b"qanat-anything: x",
    ],
)
def test_control_headers_and_everything_forwarded_are_the_relays_alone(field: bytes) -> None:
    assert prepared(field) == [(b"Host", b"a"), *OURS]


def test_credentials_end_at_the_relay_unless_the_route_says_otherwise() -> None:
    fields = (b"Authorization: Basic eDp5", b"Cookie: a=b")
    assert prepared(*fields) == [(b"Host", b"a"), *OURS]
    passed = prepared(*fields, pass_authorization=True)
    assert passed[1:3] == [(b"Authorization", b"Basic eDp5"), (b"Cookie", b"a=b")]
    assert prepared(b"Proxy-Authorization: x", pass_authorization=True) == [(b"Host", b"a"), *OURS]


def test_what_connection_names_goes_with_it() -> None:
    assert prepared(b"Connection: close, X-Mine", b"x-mine: 1", b"X-Other: 2")[1] == (b"X-Other", b"2")
    assert prepared(b"Connection: x-a", b"Connection: x-b", b"X-A: 1", b"X-B: 1") == [(b"Host", b"a"), *OURS]


@pytest.mark.parametrize("name", sorted(PROTECTED - {b"host", b"authorization", b"cookie"}))
def test_connection_cannot_make_what_matters_vanish(name: bytes) -> None:
    assert (name, b"v") in prepared(b"Connection: close, " + name, name + b": v")


def test_connection_cannot_touch_what_the_relay_sets() -> None:
    named = b"Connection: host, via, forwarded, x-forwarded-for, x-forwarded-host, x-forwarded-proto, x-request-id"
    assert prepared(named) == [(b"Host", b"a"), *OURS]


def test_addresses_and_hosts_are_quoted_where_rfc_7239_asks_for_it() -> None:
    headers = dict(prepared(peer="2001:db8::1%eth0", host=b"Push.example.com:8443"))
    assert headers[b"Forwarded"] == b'for="[2001:db8::1]";host="push.example.com:8443";proto=https'
    assert headers[b"X-Forwarded-For"] == b"2001:db8::1"
    assert headers[b"X-Forwarded-Host"] == b"push.example.com:8443"


def test_an_old_senders_version_stands_in_via() -> None:
    head = parse_request_head(b"GET / HTTP/1.0\r\nHost: a\r\n\r\n")
    assert (b"Via", b"1.0 qanat") in prepare_request_headers(head, peer="::1", scheme="http")


def test_answers_lose_what_is_of_one_hop_or_ours_and_keep_the_rest() -> None:
    kept = [
        (b"Date", b"Sun, 22 Nov 2026 16:00:00 GMT"),
        (b"Set-Cookie", b"a=b"),
        (b"Set-Cookie", b"c=d"),
        (b"Retry-After", b"30"),
        (b"X-Prometheus-Remote-Write-Samples-Written", b"7"),
    ]
    dropped = [
        (b"Connection", b"close, X-Hop"),
        (b"X-HOP", b"1"),
        (b"Keep-Alive", b"timeout=5"),
        (b"Content-Length", b"5"),
        (b"transfer-encoding", b"chunked"),
        (b"Trailer", b"X"),
        (b"Qanat-Error", b"no-connector"),
        (b"QANAT-ERROR-ORIGIN", b"relay"),
        (b"Alt-Svc", b'h3=":443"'),
    ]
    assert prepare_answer_headers(dropped + kept) == kept
    assert prepare_answer_headers([(b"Connection", b"set-cookie, date"), *kept]) == kept[1:]
    assert prepare_answer_headers(kept) == kept


def test_strip_hop_by_hop() -> None:
    headers = [(b"Connection", b"X-A"), (b"x-a", b"1"), (b"TE", b"trailers"), (b"X-B", b"2")]
    assert strip_hop_by_hop(headers) == [(b"X-B", b"2")]
