"""Hostile streams for the whole chain, by families, each with a request behind it that must not be mistaken.

The heads of tests/shared/http/hostile.py are taken too. Every request carries `X-Case`, so that what reaches the target
is known for what it is; the one behind it (`tail`) says another, and so does one that hides in a body (`hidden`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple

from tests.chain.oracle import CREDENTIAL, HOST
from tests.shared.http import hostile
from tests.shared.http.model import Refused, read_request

NAME: Final = b"cas-0000"
"""Stands for a case's name, which is as long, wherever lengths were counted before it was known."""

AUTH: Final = b"Authorization: " + CREDENTIAL + b"\r\n"


class Case(NamedTuple):
    """A stream of bytes that one sender sends. `name` is its family and number."""

    name: str
    data: bytes


def tail(case: bytes) -> bytes:
    """An honest request that follows."""
    return b"GET /tail HTTP/1.1\r\nHost: " + HOST + b"\r\n" + AUTH + b"X-Case: " + case + b"-tail\r\n\r\n"


def hidden() -> bytes:
    """A request within what may be a body: the model says whether it is one. NAME becomes the case's own."""
    return b"GET /hidden HTTP/1.1\r\nHost: " + HOST + b"\r\n" + AUTH + b"X-Case: " + NAME + b"-hidden\r\n\r\n"


def request(
    *fields: bytes,
    body: bytes = b"",
    line: bytes = b"POST /a HTTP/1.1",
    host: bytes = HOST,
    auth: bytes = AUTH,
) -> Callable[[bytes], bytes]:
    """A request, made once its case is known."""
    lines = b"".join([one + b"\r\n" for one in fields])
    return lambda case: line + b"\r\nHost: " + host + b"\r\n" + lines + auth + b"X-Case: " + case + b"\r\n\r\n" + body


def framings() -> Iterator[Callable[[bytes], bytes]]:
    """Transfer-Encoding and Content-Length at odds, a request hidden in what one of them calls the body."""
    smuggled = hidden()
    bodies = {
        "length": b"0\r\n\r\n" + smuggled,
        "chunks": b"%x\r\n%b\r\n0\r\n\r\n" % (len(smuggled), smuggled),
    }
    codings = [
        b"Transfer-Encoding: chunked", b"transfer-encoding:chunked", b"Transfer-Encoding: \tchunked", b"TE: chunked",
        b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: identity, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", b"Transfer-Encoding : chunked",
        b"Transfer_Encoding: chunked", b"X: x\r\n Transfer-Encoding: chunked", b"Transfer-Encoding:\x0bchunked",
        b"Transfer-Encoding: chunked\x00", b"Transfer-Encoding;x: chunked", b"Transfer-Encoding\xa0: chunked",
        b"X: x\nTransfer-Encoding: chunked", b"X: x\rTransfer-Encoding: chunked", b"Transfer-Encoding: \xffchunked",
        b"Transfer-Encoding: cHUNKED", b"Transfer-Encoding: \"chunked\"", b"Content-Encoding: chunked", b"X: chunked",
    ]  # fmt: skip
    for coding, (kind, body), version in itertools.product(codings, bodies.items(), (b"1.1", b"1.0")):
        line = b"POST /a HTTP/" + version
        sizes = [b"%d" % len(body), b"0", b"5"] if kind == "length" else [b"%d" % len(body), b"6"]
        for size in sizes:
            yield request(coding, b"Content-Length: " + size, body=body, line=line)
        yield request(coding, body=body, line=line)
        yield request(b"Content-Length: %d" % len(body), coding, body=body, line=line)


def chunks() -> Iterator[Callable[[bytes], bytes]]:
    """Chunked bodies that two readers could end at two places."""
    smuggled = hidden()
    sizes = [
        b"5", b"05", b"0005", b"0" * 15 + b"5", b"0" * 16 + b"5", b"+5", b"-5", b" 5", b"5 ", b"5\t", b"0x5", b"5;a=b",
        b"5;", b"5 ;a", b"5;a=\"\r\n\"", b"5;\n", b"g", b"", b"5.0", b"5_0", b"\xb25", b"5\x00", b"5\x0b", b"5,5", b"A",
        b"a", b"f" * 16, b"8000000000000000", b"100000000", b"5\r", b"5\n", b"5\r\r", b"\r\n5", b"5\\r\\n",
    ]  # fmt: skip
    ends = [
        b"0\r\n\r\n",
        b"00\r\n\r\n",
        b"0\n\n",
        b"0\r\n\n",
        b"0\r\r\n",
        b"0;x\r\n\r\n",
        b"0 \r\n\r\n",
        b"0\r\nX: y\r\n\r\n",
    ]
    for size in sizes:
        yield request(b"Transfer-Encoding: chunked", body=size + b"\r\nhello\r\n0\r\n\r\n")
        yield request(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n" + size + b"\r\nhello\r\n0\r\n\r\n")
        yield request(b"Transfer-Encoding: chunked", body=size + b"\r\nhello\r\n0\r\n\r\n" + smuggled)
    trailers = [
        b"Content-Length: 5", b"Transfer-Encoding: chunked", b"Host: b", b"X: y", b"X : y", b" X: y", b"X", b": y",
        b"X: y\rZ: 1", b"X: y\nZ: 1", b"X: \x00", b"X\x00: y", b"Authorization: Bearer evil", b"Qanat-Error: x",
        b"GET /hidden HTTP/1.1", b"X: " + b"y" * 500, b"X_Y: 1", b"X: \xff",
    ]  # fmt: skip
    for end, ending in itertools.product(ends, (b"\r\n", b"\n", b"\r", b"", b"\r\n\r\n", b"X\r\n")):
        yield request(b"Transfer-Encoding: chunked", body=b"5\r\nhello" + ending + end)
    for one, two in itertools.product(trailers, trailers[:4]):
        body = b"5\r\nhello\r\n0\r\n" + one + b"\r\n" + two + b"\r\n\r\n"
        yield request(b"Transfer-Encoding: chunked", body=body)
    for count in (1, 30, 200):
        yield request(b"Transfer-Encoding: chunked", body=b"1\r\nx\r\n" * count + b"0\r\n\r\n")
    yield request(b"Transfer-Encoding: chunked", body=b"5\r\nhel")
    yield request(b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n" + b"X: %b\r\n" % (b"y" * 9000) + b"\r\n")


def pipelines() -> Iterator[Callable[[bytes], bytes]]:
    """Several requests at once: all in order up to the first that is refused, and none behind it."""
    good = [
        request(line=b"GET /p HTTP/1.1"),
        request(b"Content-Length: 3", body=b"abc"),
        request(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        request(line=b"HEAD /p HTTP/1.1"),
        request(b"Expect: 100-continue", b"Content-Length: 2", body=b"ab"),
        request(b"Connection: close", line=b"GET /p HTTP/1.1"),
        request(line=b"GET /p HTTP/1.0"),
        request(b"Connection: keep-alive", line=b"GET /p HTTP/1.0"),
        request(b"Content-Length: 0"),
        request(line=b"GET /p HTTP/1.1", host=b"other.example.com"),
        request(line=b"GET /p HTTP/1.1", auth=b""),
        request(line=b"PROPFIND /p HTTP/1.1"),
    ]
    bad = [
        request(b"Content-Length: 3", b"Content-Length: 4", body=b"abc"),
        request(line=b"GET /p/../q HTTP/1.1"),
        request(line=b"GET  /p HTTP/1.1"),
        lambda case: b"\n",
        lambda case: b"\r\n",
        lambda case: b"\r\n\r\n",
        lambda case: b"abc",
        lambda case: b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ]
    for one, two in itertools.product(good, good + bad):
        yield lambda case, one=one, two=two: one(case + b"-1") + two(case + b"-2")  # type: ignore[misc]  # mypy cannot infer a lambda's defaults
    for one, two, three in itertools.product(good[:5], bad, good[:2]):
        yield lambda case, one=one, two=two, three=three: one(case + b"-1") + two(case + b"-2") + three(case + b"-3")  # type: ignore[misc]  # likewise


def headers() -> Iterator[Callable[[bytes], bytes]]:
    """What a sender would like the target to believe, and what it would like us to do."""
    spoofed = [
        b"Forwarded", b"X-Forwarded-For", b"X-Forwarded-Host", b"X-Forwarded-Proto", b"X-Forwarded-User", b"Via",
        b"X-Forwarded-Anything", b"X-Real-IP", b"X-Client-IP", b"True-Client-IP", b"X-Cluster-Client-IP",
        b"X-Request-Id", b"Remote-User", b"X-WebAuth-User", b"X-Scope-OrgID", b"X-HTTP-Method-Override",
        b"X-HTTP-Method", b"X-Method-Override", b"X-Original-URL", b"X-Rewrite-URL", b"X-Original-Host", b"Proxy",
        b"Qanat-Error", b"Qanat-Error-Origin", b"Qanat-Target", b"Qanat-Anything", b"Cookie", b"Proxy-Authorization",
        b"Proxy-Connection", b"Keep-Alive", b"TE", b"Trailer", b"HTTP2-Settings", b"Upgrade",
    ]  # fmt: skip
    for name in spoofed:
        for spelling in (name, name.lower(), name.upper(), name.replace(b"-", b"_")):
            yield request(spelling + b": evil", line=b"GET /h HTTP/1.1")
        yield request(name + b": evil", name + b": evil2", b"Connection: " + name, b"Content-Length: 1", body=b"x")
        yield request(b"Connection: close, " + name, name + b": evil", line=b"GET /h HTTP/1.1")
    for named in (
        b"Host", b"Authorization", b"Content-Length", b"Transfer-Encoding", b"X-Forwarded-For", b"Via", b"Forwarded",
        b"X-Request-Id", b"Content-Type", b"close", b"X-Keep", b"", b",", b"keep-alive, X-Keep", b"\"X-Keep\"", b"*",
    ):  # fmt: skip
        fields = (b"Content-Type: text/plain", b"X-Keep: 1", b"Content-Length: 1")
        yield request(b"Connection: " + named, *fields, body=b"x")
        yield request(*fields, b"cOnnection: " + named, body=b"x")
    for value in (b"100-continue", b"100-Continue", b"100-continue, x", b"x", b"", b"200-ok", b"100-continue\x00"):
        yield request(b"Expect: " + value, b"Content-Length: 5", body=b"hello")
        yield request(b"Expect: " + value, line=b"GET /e HTTP/1.1")
        yield request(b"Expect: " + value, b"Transfer-Encoding: chunked", body=b"5\r\nhello\r\n0\r\n\r\n")
        yield request(b"Expect: " + value, b"Content-Length: 5", body=b"hello", line=b"POST /e HTTP/1.0")
    injected = [
        b"a\rX: evil",
        b"a\nX: evil",
        b"a\r\n\tX: evil",
        b"a%0d%0aX: evil",
        b"a\\r\\nX: evil",
        b"a\x85X: evil",
        b"a\xe2\x80\xa8X: evil",
    ]
    for value in injected:
        yield request(b"X-Note: " + value, line=b"GET /i HTTP/1.1")
        yield request(b'User-Agent: "}" ' + value, line=b"GET /i?q={%22a%22:1} HTTP/1.1")
    for credential in (
        b"", b"Authorization: Bearer t1\r\n", AUTH + AUTH, AUTH + b"Authorization: Bearer t1\r\n",
        b"Authorization: bearer t0\r\n",
        b"Authorization: Basic t0\r\n", b"Authorization: Bearer t0 x\r\n", b"Proxy-Authorization: Bearer t0\r\n",
        b"Authorization : Bearer t0\r\n", b"Authorization: Bearer\r\n", b"Cookie: Authorization=Bearer t0\r\n",
        b"Authorization: Bearer t0, Bearer t0\r\n",
    ):  # fmt: skip
        yield request(line=b"GET /c HTTP/1.1", auth=credential)
    for coding in (b"gzip", b"br", b"gzip, gzip", b"zstd"):  # bombs are passed through unopened
        yield request(b"Content-Encoding: " + coding, b"Content-Length: 20", body=b"\x1f\x8b\x08\x00" + b"\xff" * 16)


def lines() -> Iterator[Callable[[bytes], bytes]]:
    """Forms of the target, versions, and other protocols."""
    for method, target in itertools.product(
        (b"GET", b"POST", b"CONNECT", b"OPTIONS", b"get", b"TRACE"),
        (
            b"http://push.example.com/a", b"http://127.0.0.1:1/a", b"//127.0.0.1/a", b"127.0.0.1:22",
            b"push.example.com:443",
            b"*", b"/a#b", b"file:///etc/passwd", b"/..%2f..%2fetc/passwd", b"/%2e%2e/%2e%2e/etc/passwd",
            b"/a/..;/b", b"@evil/a",
            b"/a\\..\\b", b"/a%00.txt", b"http:///a", b"/a?b=http://c/d", b"/a?%0d%0aX:%20evil",
            b"/%c0%ae%c0%ae/a", b"?a", b"a",
        ),
    ):  # fmt: skip
        yield request(b"Content-Length: 0", line=method + b" " + target + b" HTTP/1.1")
    raw = [
        b"GET /\r\n\r\n", b"GET /\r\n", b"GET / \r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", b"GET / HTTP/2\r\n\r\n",
        b"\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03" + bytes(32), b"SSH-2.0-x\r\n\r\n", b"\x00" * 64 + b"\r\n\r\n",
        b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: push.example.com\r\n\r\n",
        b"\r\n\r\n\x00\r\nQUIT\n" + bytes(8), b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", b"{}\r\n\r\n",
        b"\x80\x2e\x01\x00\x02" + bytes(30),
    ]  # fmt: skip
    for data in raw:
        yield lambda case, data=data: data  # type: ignore[misc]  # likewise
    for upgrade, body in itertools.product(
        (b"websocket", b"h2c", b"WebSocket", b"foo", b"websocket, h2c", b"TLS/1.0"),
        (b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n", b"Content-Length: 0\r\n"),
    ):
        payload = b"5\r\nhello\r\n0\r\n\r\n" if b"chunked" in body else b"hello" if b"5" in body else b""
        fields = body + b"Upgrade: " + upgrade + b"\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
        yield request(fields, line=b"GET /u HTTP/1.1", body=payload)
        yield request(fields, body=payload)
        yield request(fields + b"\r\nHTTP2-Settings: AAMAAABkAAQAAP__", line=b"GET /u HTTP/1.1", body=payload)


def gated() -> Iterator[Callable[[bytes], bytes]]:
    """The hostile heads that the gates are tested with, each with the body that the model says it announces."""
    for family in hostile.FAMILIES.values():
        for raw in family:
            yield lambda case, raw=raw: _with_body(raw, case)  # type: ignore[misc]  # likewise


def _with_body(raw: bytes, case: bytes) -> bytes:
    whole = raw[:-2] + AUTH + b"X-Case: " + case + b"\r\n\r\n"
    try:
        length = read_request(whole).length or 0
    except Refused:
        length = 5
    body = b"5\r\nhello\r\n0\r\n\r\n" if length < 0 else b"x" * min(length, 64)
    return whole + body


def number(family: str, makers: Iterator[Callable[[bytes], bytes]]) -> list[Case]:
    """Cases of a family, each with an honest request behind it."""
    cases = []
    for index, make in enumerate(makers):
        name = f"{family[:3]}-{index:04}"
        data = make(name.encode()) + tail(name.encode())
        cases.append(Case(name, data.replace(NAME, name.encode())))
    return cases


FAMILIES: Final = {
    make.__name__: number(make.__name__, make()) for make in (framings, chunks, pipelines, headers, lines, gated)
}
