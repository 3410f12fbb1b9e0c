"""What must arrive: the model's verdict on a stream of bytes from one sender, and on what a target got.

Built on the byte-wise reference model of RFC 9112 (tests/shared/http/model.py), and like it without a line of the
product's own parsers. It says of a stream which requests may reach the target, in which order, and what the sender is
told; a request that is not in its list may not arrive, and one that is in it must arrive once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, NamedTuple

from shared.errors import FAULTS
from tests.shared.http.model import BadBody, Reading, Refused, asks_for_websocket, read_chunked, read_request, values

HOST: Final = b"push.example.com"
TOKEN: Final = b"t0"
CREDENTIAL: Final = b"Bearer " + TOKEN
MAX_BODY: Final = 10 * 1024 * 1024

ACCESS: Final = ((("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"), "/", True),)
"""The connector's rules: methods, path, sub-paths."""
METHODS: Final = {method.encode() for methods, _, _ in ACCESS for method in methods}

REFUSALS: Final = {400, 414, 431, 505}
"""What a sender gets whose bytes are no request."""

STATUSES: Final = {fault.status for fault in FAULTS.values()} - {None}

NEVER: Final = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authorization", b"proxy-authenticate", b"te", b"trailer",
    b"upgrade", b"http2-settings", b"expect", b"authorization", b"cookie", b"x-http-method", b"x-http-method-override",
    b"x-method-override", b"x-original-url", b"x-rewrite-url", b"x-original-host", b"proxy", b"x-real-ip",
    b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip", b"remote-user", b"x-scope-orgid", b"x-webauth-user",
}  # fmt: skip
"""Header names that no sender gets through to the target."""

OURS: Final = {
    b"host", b"content-length", b"transfer-encoding", b"forwarded", b"via", b"x-request-id", b"x-forwarded-for",
    b"x-forwarded-host", b"x-forwarded-proto",
}  # fmt: skip
"""Header names that the target gets once, with our values whatever was sent."""


class Arrival(NamedTuple):
    """One whole request as the target read it."""

    method: bytes
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes

    @property
    def case(self) -> bytes:
        """Which case of the corpus it came from."""
        return b",".join(values(self.headers, b"x-case"))


def read_stream(data: bytes) -> tuple[list[Arrival], int, str]:
    """What a target makes of its bytes: whole requests, how many bytes they took, and what is wrong with the rest."""
    arrivals: list[Arrival] = []
    position = 0
    while True:
        end = data.find(b"\r\n\r\n", position)
        if end < 0:
            return arrivals, position, ""
        try:
            reading = read_request(data[position : end + 4], max_fields=160)
            body, stop = body_of(reading, data, end + 4)
        except (Refused, BadBody) as fault:
            return arrivals, position, repr(fault)
        if body is None:
            return arrivals, position, ""
        arrivals.append(Arrival(reading.method, reading.target, reading.headers, body))
        position = stop


def body_of(reading: Reading, data: bytes, start: int) -> tuple[bytes | None, int]:
    """A request's body, None if it is not whole, and where it ends. Raises BadBody."""
    if reading.length == -1:
        found = read_chunked(data[start:])
        return (None, start) if found is None else (found[0], start + found[1])
    stop = start + (reading.length or 0)
    return (data[start:stop], stop) if len(data) >= stop else (None, start)


@dataclass
class Expected:
    """The verdict on a stream. `answers`: for each answer the statuses it may have, with its request's method.

    `may_refuse`: one more refusal may come. `optional`: requests that may arrive or not. `is_broken`: a body is not
    whole or malformed, so that the beginning of its request may have gone to the target before that was seen.
    """

    arrivals: list[tuple[Reading, bytes]] = field(default_factory=list)
    optional: list[tuple[Reading, bytes]] = field(default_factory=list)
    answers: list[tuple[bytes, set[int]]] = field(default_factory=list)
    may_refuse: bool = False
    is_broken: bool = False


def expect(data: bytes, *, is_whole: bool) -> Expected:
    """Read a sender's stream as the model does. `is_whole`: it comes in one segment, so a fault is seen at once."""
    verdict = Expected()
    position = 0
    while position < len(data):
        end = data.find(b"\r\n\r\n", position)
        if end < 0:
            verdict.may_refuse = True
            break
        try:
            reading = read_request(data[position : end + 4])
        except Refused as refused:
            status = {FAULTS[refused.code].status or 0}
            verdict.answers.append((b"", status if is_whole else REFUSALS))
            break
        position = _judge(verdict, reading, data, end + 4)
        if position < 0:
            break
    return verdict


def _judge(verdict: Expected, reading: Reading, data: bytes, start: int) -> int:
    """Add one request to the verdict; where the next begins, -1 if there is none."""
    status = _status_of(reading)
    try:
        body, stop = body_of(reading, data, start)
    except BadBody:
        verdict.is_broken = True
        # The head was good: what routes and senders say of it may come before its body is seen to be broken.
        verdict.answers.append((reading.method, {400, status} - {200}))
        return -1
    if reading.length is not None and reading.length > MAX_BODY and status == 200:
        verdict.answers.append((reading.method, {413}))
        return -1
    if body is None:
        verdict.is_broken = True
        # Refused before its body has come, or its sender hangs up in the middle.
        if status != 200 and status != 403:
            verdict.answers.append((reading.method, {status}))
        else:
            verdict.may_refuse = True
        return -1
    verdict.answers.append((reading.method, {status}))
    if status == 200:
        verdict.arrivals.append((reading, body))
    if not is_kept_alive(reading):
        return -1
    if asks_for_websocket(reading.headers):
        _add_optional(verdict, data[stop:])
        return -1
    return stop


def _add_optional(verdict: Expected, rest: bytes) -> None:
    """Behind an upgrade that is not granted: whether it is a request at all may be judged either way."""
    behind = expect(rest, is_whole=False)
    verdict.optional += behind.arrivals + behind.optional
    verdict.may_refuse = True


def _status_of(reading: Reading) -> int:
    host = reading.host.rpartition(b":")[0] or reading.host if b"]" not in reading.host else reading.host
    if host != HOST:
        return 421
    credentials = values(reading.headers, b"authorization")
    scheme, _, token = b",".join(credentials).partition(b" ")
    if len(credentials) != 1 or scheme.lower() != b"bearer" or token != TOKEN:
        return 401
    return 200 if reading.method in METHODS else 403


def is_kept_alive(reading: Reading) -> bool:
    options = [
        one.strip(b" \t").lower() for value in values(reading.headers, b"connection") for one in value.split(b",")
    ]
    return b"close" not in options and (reading.minor == 1 or b"keep-alive" in options)


def complaint(reading: Reading, body: bytes, arrival: Arrival, authority: bytes) -> str:
    """What is wrong with a request that arrived, held against the one that was sent; "" if nothing is."""
    if (arrival.method, arrival.target, arrival.body) != (reading.method, reading.target, body):
        return "another method, target or body"
    named = {one.strip(b" \t").lower() for value in values(reading.headers, b"connection") for one in value.split(b",")}
    got = [(name, value) for name, value in arrival.headers if name.lower() not in OURS]
    sent = [(name, value) for name, value in reading.headers if _passes(name.lower())]
    if got != [pair for pair in sent if pair[0].lower() not in named - _PROTECTED]:
        return f"other headers: {got}"
    ours = {name: values(arrival.headers, name) for name in OURS}
    expected = {
        b"host": [authority],
        b"x-forwarded-for": [b"127.0.0.1"],
        b"x-forwarded-proto": [b"http"],
        b"x-forwarded-host": [reading.host],
        b"via": [b"1.%d qanat" % reading.minor],
    }
    for name, wanted in expected.items():
        if ours[name] != wanted:
            return f"{name!r} is {ours[name]}"
    if len(ours[b"forwarded"]) != 1 or not ours[b"forwarded"][0].startswith(b"for=127.0.0.1;host="):
        return f"Forwarded is {ours[b'forwarded']}"
    if len(ours[b"x-request-id"]) != 1 or b"evil" in ours[b"x-request-id"][0]:
        return f"X-Request-Id is {ours[b'x-request-id']}"
    if ours[b"content-length"] and ours[b"transfer-encoding"]:
        return "framed twice"
    return ""


_PROTECTED: Final = {
    b"host", b"authorization", b"cookie", b"content-type", b"content-encoding", b"content-range", b"range", b"location",
    b"cache-control", b"idempotency-key", b"traceparent", b"tracestate", b"retry-after", b"www-authenticate",
    b"set-cookie",
}  # fmt: skip


def _passes(name: bytes) -> bool:
    return not (name in NEVER or name in OURS or name.startswith((b"qanat-", b"x-forwarded-")))
