"""Hostile answers of a target, and the model of what may become of them.

A target's answer is read with the same byte-wise model as requests are. What it says is one answer goes to the sender;
what it refuses becomes a 502 of ours, or, once the head has gone, a connection that is cut so that nobody takes the
answer for whole. Bytes behind an answer (`POISON`) belong to nobody, and must never come to anybody.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Final, NamedTuple

from tests.shared.http.model import BadBody, Refused, fields_of, length_of, lines_of, read_chunked, values

POISON: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison"
MAX_HEAD: Final = 32 * 1024
FRAMING: Final = {b"contentlength", b"transferencoding"}
MAX_INTERIM: Final = 32


class Read(NamedTuple):
    """One answer as the model reads it. `is_whole` False: what there is of its body is not all of it."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    is_whole: bool
    stop: int


class Case(NamedTuple):
    """What the target writes to one request; then it closes, or stays and waits."""

    name: str
    method: bytes
    data: bytes
    closes: bool


def status_of(line: bytes) -> int:
    version, _, rest = line.partition(b" ")
    digits, space, reason = rest[:3], rest[3:4], rest[4:]
    if version not in (b"HTTP/1.0", b"HTTP/1.1") or space not in (b"", b" "):
        raise Refused("status line")
    if len(digits) != 3 or any(c not in b"0123456789" for c in digits) or digits[0] not in b"12345":
        raise Refused("status")
    if any((c < 32 and c != 9) or c == 127 for c in reason):
        raise Refused("reason")
    return int(digits)


def read_answer(data: bytes, method: bytes, *, has_closed: bool, max_fields: int = 128) -> Read | None:
    """The final answer in `data`; None if its head is not whole. Raises Refused and BadBody."""
    position = 0
    for _ in range(MAX_INTERIM + 1):
        end = data.find(b"\r\n\r\n", position)
        if end < 0 or end + 4 - position > MAX_HEAD:
            if end >= 0 or len(data) - position >= MAX_HEAD:
                raise Refused("head too large")
            return None
        line, *lines = lines_of(data[position : end + 4])
        status = status_of(line)
        headers, _ = fields_of(lines, FRAMING, max_fields)
        length = length_of(headers, int(line[7:8]))
        position = end + 4
        if status == 101:
            raise Refused("nobody asked for an upgrade")
        if status >= 200:
            return _with_body(data, position, method, status, headers, length, has_closed)
    raise Refused("too many interim answers")


def _with_body(
    data: bytes,
    position: int,
    method: bytes,
    status: int,
    headers: list[tuple[bytes, bytes]],
    length: int | None,
    has_closed: bool,
) -> Read:
    if method == b"HEAD" or status in (204, 304):
        return Read(status, headers, b"", True, position)
    if length == -1:
        found = read_chunked(data[position:])
        if found is None:
            return Read(status, headers, b"", False, len(data))
        return Read(status, headers, found[0], True, position + found[1])
    if length is None:
        return Read(status, headers, data[position:], has_closed, len(data))
    stop = position + length
    return Read(status, headers, data[position:stop], len(data) >= stop, stop)


def head(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK") -> bytes:
    return line + b"\r\n" + b"".join([one + b"\r\n" for one in fields]) + b"\r\n"


def status_lines() -> Iterator[bytes]:
    for line in (
        b"HTTP/1.1 200 OK", b"HTTP/1.1 200", b"HTTP/1.1 200 ", b"HTTP/1.0 200 OK", b"HTTP/1.1  200 OK",
        b"HTTP/1.1 2000",
        b"HTTP/1.1 20 OK", b"HTTP/1.1 600 x", b"HTTP/1.1 099 x", b"HTTP/1.1 000 x", b"HTTP/1.1 -20 x", b"HTTP/2 200 OK",
        b"HTTP/2.0 200 OK", b"HTTP/0.9 200 OK", b"HTTP/1.2 200 OK", b"http/1.1 200 OK", b"ICY 200 OK", b"200 OK", b"",
        b"HTTP/1.1 200 O\x00K", b"HTTP/1.1 200 O\rK", b"HTTP/1.1 200 O\nK", b"HTTP/1.1 200 <script>",
        b"HTTP/1.1 200\tOK",
        b"HTTP/1.1 200 caf\xe9", b"HTTP/1.1 \xb2\xb0\xb0 OK", b"HTTP/1.1 2_0 OK", b"HTTP/1.1\x0b200 OK",
        b" HTTP/1.1 200 OK",
        b"\r\nHTTP/1.1 200 OK", b"HTTP/1.1 299 odd", b"HTTP/1.1 418 x", b"HTTP/1.1 500 x", b"HTTP/1.1 599 x",
        b"HTTP/1.1 200 " + b"x" * 40_000, b"SSH-2.0-OpenSSH", b"\x16\x03\x03\x00\x02\x02\x28", b"GET / HTTP/1.1",
        b"HTTP/1.1 101 Switching Protocols", b"HTTP/1.1 204 No", b"HTTP/1.1 304 No", b"HTTP/1.1 205 Reset",
    ):  # fmt: skip
        yield head(b"Content-Length: 2", line=line) + b"ok"
        yield head(b"Transfer-Encoding: chunked", line=line) + b"2\r\nok\r\n0\r\n\r\n"


def framings() -> Iterator[bytes]:
    names = [
        b"Content-Length", b"content-length", b"Content_Length", b"Content-Length ", b"Content-Length\x00",
        b"Content Length",
        b"Content-Length\x0b", b" Content-Length",
    ]  # fmt: skip
    sizes = [
        b"2", b"02", b"+2", b"-2", b"2, 2", b"2;", b"", b"0x2", b"2 2", b"9" * 17, b"\xb2", b"2\x00", b"0", b"1", b"3",
        b"1e0",
    ]  # fmt: skip
    for name, size in itertools.product(names, sizes):
        yield head(name + b": " + size) + b"ok"
    codings = [
        b"chunked", b"CHUNKED", b"xchunked", b"gzip, chunked", b"chunked, gzip", b"identity", b"chunked, chunked", b"",
        b"\x0bchunked", b"chunked\x00", b"'chunked'", b"chunked;q=1",
    ]  # fmt: skip
    chunked = b"2\r\nok\r\n0\r\n\r\n"
    for coding, version in itertools.product(codings, (b"1.1", b"1.0")):
        line = b"HTTP/" + version + b" 200 OK"
        yield head(b"Transfer-Encoding: " + coding, line=line) + chunked
        yield head(b"Transfer-Encoding: " + coding, b"Content-Length: 2", line=line) + chunked
        yield head(b"Content-Length: 12", b"Transfer-Encoding: " + coding, line=line) + chunked
        yield head(b"Transfer-Encoding : " + coding, line=line) + chunked
        yield head(b"Transfer_Encoding: " + coding, b"Content-Length: 2", line=line) + chunked
    yield head(b"Content-Length: 2", b"Content-Length: 2") + b"ok"
    yield head(b"Content-Length: 2", b"Content-Length: 3") + b"oke"
    yield head() + b"until the end"
    yield head(line=b"HTTP/1.0 200 OK") + b"until the end"


def chunks() -> Iterator[bytes]:
    for size in (
        b"2",
        b"02",
        b"2;a=b",
        b" 2",
        b"2 ",
        b"+2",
        b"0x2",
        b"",
        b"g",
        b"f" * 16,
        b"1" * 17,
        b"2\r",
        b"-2",
        b"2\n",
    ):
        yield head(b"Transfer-Encoding: chunked") + size + b"\r\nok\r\n0\r\n\r\n"
        yield head(b"Transfer-Encoding: chunked") + b"1\r\no\r\n" + size + b"\r\nok\r\n0\r\n\r\n"
    for ending in (b"0\r\n\r\n", b"0\n\n", b"0\r\nX: y\r\n\r\n", b"0\r\nX: y\nZ: 1\r\n\r\n", b"0;x\r\n\r\n", b"",
    b"0\r\n",
                   b"0\r\nContent-Length: 3\r\n\r\n", b"0\r\nQanat-Error: x\r\n\r\n", b"00000\r\n\r\n",
                   b"0\r\n : x\r\n\r\n"):  # fmt: skip
        yield head(b"Transfer-Encoding: chunked") + b"2\r\nok\r\n" + ending


def headers() -> Iterator[bytes]:
    for byte in range(256):
        char = bytes([byte])
        yield head(b"X" + char + b"Y: 1", b"Content-Length: 2") + b"ok"
        yield head(b"X-Y: a" + char + b"b", b"Content-Length: 2") + b"ok"
    for line in (
        b"Qanat-Error: overloaded", b"qanat-error-origin: relay", b"QANAT-X: y", b"Alt-Svc: h2=\":443\"",
        b"Upgrade: h2c",
        b"Connection: close", b"Connection: X-Keep", b"Connection: Set-Cookie", b"Keep-Alive: timeout=0",
        b"Keep-Alive: timeout=99999999999", b"Proxy-Authenticate: Basic", b"Trailer: X", b"TE: trailers",
        b"Connection: \x00",
        b"Set-Cookie: a=b; Path=/", b"Content-Encoding: gzip", b"Location: http://169.254.169.254/", b"Location: /next",
        b"Location: //evil", b"Location: http://127.0.0.1:1/x", b"X: y\r\n z", b": y", b"X", b"X: y\rZ: 1",
        b"X: y\nZ: 1",
        b"X" * 129 + b": 1", b"X: " + b"y" * 20_000, b"X: " + b"y" * 40_000, b"HTTP/1.1 200 OK",
        b"Expect: 100-continue",
        b"Content-Type: text/html", b"Refresh: 0; url=http://169.254.169.254/",
    ):  # fmt: skip
        yield head(line, b"X-Keep: 1", b"Content-Length: 2") + b"ok"
        yield head(b"Content-Length: 2", b"X-Keep: 1", line, line) + b"ok"
    for count in (127, 128, 129, 2000):
        yield head(b"Content-Length: 2", *[b"A%d: 1" % n for n in range(count - 1)]) + b"ok"


def interims() -> Iterator[bytes]:
    final = head(b"Content-Length: 2") + b"ok"
    for count, line in itertools.product((1, 2, 8, 9, 32, 33, 200), (b"100 Continue", b"103 Early Hints", b"199 x")):
        yield head(b"Link: </a>", line=b"HTTP/1.1 " + line) * count + final
    for one in (
        head(line=b"HTTP/1.1 101 Switching Protocols"), head(b"Upgrade: websocket", line=b"HTTP/1.1 101 x"),
        head(b"Content-Length: 5", line=b"HTTP/1.1 103 x"), head(b"Transfer-Encoding: chunked", line=b"HTTP/1.1 103 x"),
        head(b"Qanat-Error: x", line=b"HTTP/1.1 103 x"), head(b"X: " + b"y" * 8000, line=b"HTTP/1.1 103 x"),
        head(b"X: y\nZ: 1", line=b"HTTP/1.1 103 x"), head(line=b"HTTP/1.0 100 x"), b"\r\n", b"x",
    ):  # fmt: skip
        yield one + final


def pieces() -> Iterator[bytes]:
    """Good answers, cut off anywhere."""
    for whole in (
        head(b"Content-Length: 2") + b"ok",
        head(b"Transfer-Encoding: chunked") + b"2\r\nok\r\n0\r\n\r\n",
        head(line=b"HTTP/1.1 103 x") + head(b"Content-Length: 2") + b"ok",
    ):
        yield from [whole[:size] for size in range(len(whole) + 1)]


def cases() -> Iterator[Case]:
    """Each answer alone, and with another behind it; to GET, and where it might matter to HEAD."""
    for make in (status_lines, framings, chunks, headers, interims, pieces):
        for number, data in enumerate(make()):
            name = f"{make.__name__}-{number}"
            yield Case(f"{name}-alone", b"GET", data, _needs_end(data, b"GET"))
            if make is not pieces:
                yield Case(f"{name}-poison", b"GET", data + POISON, _needs_end(data + POISON, b"GET"))
            if make in (status_lines, framings, pieces):
                yield Case(f"{name}-head", b"HEAD", data, _needs_end(data, b"HEAD"))


def _needs_end(data: bytes, method: bytes) -> bool:
    """Whether only the end of the connection ends this answer."""
    try:
        read = read_answer(data, method, has_closed=False)
    except (Refused, BadBody):
        return True
    return read is None or not read.is_whole


DROPPED: Final = {
    b"connection", b"keep-alive", b"proxy-connection", b"proxy-authenticate", b"proxy-authorization",
    b"proxy-authentication-info", b"te", b"trailer", b"transfer-encoding", b"upgrade", b"http2-settings", b"expect",
    b"content-length", b"alt-svc", b"location",
}  # fmt: skip


def may_pass(headers: list[tuple[bytes, bytes]]) -> list[tuple[bytes, bytes]]:
    """The headers that the sender must get, in order; where Location leads is judged apart."""
    named = {one.strip(b" \t").lower() for value in values(headers, b"connection") for one in value.split(b",")}
    named -= {b"set-cookie", b"content-type", b"content-encoding"}
    return [
        (name, value)
        for name, value in headers
        if name.lower() not in DROPPED | named and not name.lower().startswith(b"qanat-")
    ]
