"""A relay in the wrong hands: it speaks the tunnel's protocol, well and badly, and wants what it may not have.

`Script` makes messages from a seed: frames in any order, heads that ask for other targets, methods, paths and headers,
frames that were changed or cut, and floods of one kind. What it sends is all that a relay could: bytes.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from typing import Any, Final

from shared.http.push_head import PushHead, encode_push
from shared.protocol import frames
from shared.protocol.frames import Frame

TARGETS: Final = ("exact", "below", "other", "secret", "127.0.0.1:22", "Exact", "", "exact.", "a" * 64)
METHODS: Final = (b"POST", b"GET", b"PUT", b"DELETE", b"CONNECT", b"TRACE", b"post", b"", b"GET /below HTTP/1.1\r\nX:")
PATHS: Final = (
    b"/exact", b"/exact?q=1", b"/below", b"/below/x", b"/below/x/y?z", b"/", b"/exact/", b"/exact/x", b"/belowx",
    b"/other",
    b"/below/../other", b"/below/..%2fother", b"/below/%2e%2e/other", b"//below/x", b"/below//x", b"/below;/../other",
    b"/below/.", b"\\below", b"/below/\\..\\other", b"http://127.0.0.1:22/", b"//127.0.0.1:22/below", b"*", b"",
    b"below",
    b"/below/x HTTP/1.1\r\nHost: evil\r\n\r\nGET /other", b"/below/%00", b"/below/\x00", b"/%62elow/x", b"/below%2fx",
    b"/EXACT", b"/exact#x", b"file:///etc/passwd", b"/below/\xc3\xa9", b"/below/" + b"x" * 9000, b"/exact\t",
)  # fmt: skip
HEADERS: Final = (
    (b"Host", b"evil.example.com"), (b"Content-Length", b"5"), (b"Transfer-Encoding", b"chunked"), (b"Connection",
    b"close"),
    (b"Authorization", b"Bearer evil"), (b"Cookie", b"a=b"), (b"X-Request-Id", b"evil"), (b"Qanat-Target", b"other"),
    (b"X-Original-URL", b"/other"), (b"X-HTTP-Method-Override", b"DELETE"), (b"Proxy", b"http://evil"), (b"X",
    b"a\r\nY: b"),
    (b"X-Forwarded-For", b"10.0.0.1"), (b"Remote-User", b"root"), (b"X Y", b"1"), (b"Upgrade", b"websocket"),
    (b"Expect", b"100-continue"), (b"Content-Type", b"text/plain"), (b"authorization", b"Bearer evil"), (b"X", b"\x00"),
    (b"Traceparent", b"00-1"), (b"Accept", b"x" * 5000),
)  # fmt: skip


class Script:
    """What the relay says on one tunnel. Not every session begins with a good HELLO."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.stream = 0
        self.open: list[int] = []

    def messages(self, count: int) -> list[bytes]:
        rnd = self.random
        hello = self.hello() if rnd.random() < 0.95 else self.frame()
        return [hello, *[self.message() for _ in range(count)]]

    def message(self) -> bytes:
        rnd = self.random
        if rnd.random() < 0.03:
            return b"".join([self.flood_of(rnd.choice(sorted(frames.NAMES))) for _ in range(50)])[: frames.MAX_MESSAGE]
        data = b"".join([self.frame() for _ in range(rnd.choice((1, 1, 2, 5)))])
        if rnd.random() < 0.02:
            at = rnd.randrange(len(data) + 1)
            data = data[:at] + rnd.randbytes(rnd.randrange(4)) + data[at + rnd.randrange(4) :]
        return data[: frames.MAX_MESSAGE] or b"\0"

    def frame(self) -> bytes:
        rnd = self.random
        makers: list[Callable[[], bytes]] = [self.push] * 8 + [self.body] * 4 + [self.reset, self.credit, self.ping]
        if rnd.random() < 0.02:
            makers = [self.odd, self.drain, self.hello, self.tunnel_json]
        return rnd.choice(makers)()

    def push(self) -> bytes:
        rnd = self.random
        self.stream += rnd.choice((1, 1, 1, 1, 5)) if rnd.random() < 0.999 else 0
        self.open.append(self.stream)
        body = rnd.choice((b"", b"x", b"y" * 100, b"z" * 3000))
        end = rnd.random() < 0.7
        deadline = rnd.choice((0, 0, 0, 1, 1 << 62))
        payload = frames.open_head(deadline, self.head(len(body) if end else None)) + body
        return Frame(frames.OPEN, frames.END if end else rnd.choice((0, 0, 0xF0)), self.stream, payload).serialize()

    def head(self, length: int | None) -> bytes:
        rnd = self.random
        usual = rnd.random() < 0.3
        target = rnd.choice(("exact", "below")) if usual or rnd.random() < 0.6 else rnd.choice(TARGETS)
        method = b"POST" if usual or rnd.random() < 0.4 else rnd.choice(METHODS)
        path = b"/" + target.encode() if usual else rnd.choice(PATHS)
        headers = [] if usual else rnd.sample(HEADERS, rnd.randrange(4))
        announced = rnd.choice((length, length, None, 0, 3, 1 << 40))
        try:
            head = encode_push(
                PushHead(target, f"r-{self.stream}", 1, "s4", "all", method, path, announced, headers,
                         rnd.choice((None, None, b"websocket")))
            )  # fmt: skip
        except ValueError:
            head = (
                b"1\0r\0" + b"1\0\0" + b"\0".join([target.encode(), b"", b"r", method, path, b"", b"X", b"\x00", b""])
            )
        if rnd.random() < 0.1:
            at = rnd.randrange(len(head))
            head = head[:at] + rnd.randbytes(rnd.randrange(3)) + head[at + rnd.randrange(3) :]
        return head[: frames.MAX_HEAD]

    def body(self) -> bytes:
        rnd = self.random
        stream = rnd.choice(self.open) if self.open else 1
        size = rnd.choice((0, 1, 50, 4000))
        return Frame(frames.DATA, rnd.choice((0, 0, frames.END)), stream, bytes(size)).serialize()

    def reset(self) -> bytes:
        stream = self.random.choice(self.open) if self.open else 1
        return frames.reset(stream, self.random.choice((108, 161, 9999)), refused=self.random.random() < 0.5)

    def credit(self) -> bytes:
        rnd = self.random
        return frames.credit(rnd.choice(self.open) if self.open else 1, rnd.choice((0, 1, 65536, 0xFFFF_FFFF)))

    def ping(self) -> bytes:
        return frames.ping(self.random.randrange(1 << 64))

    def drain(self) -> bytes:
        return frames.drain(self.random.choice((0.0, 5.0, 4e6)), ack=self.random.random() < 0.5)

    def hello(self) -> bytes:
        rnd = self.random
        fields: dict[str, Any] = {
            "versions": [1], "instance": "evil", "stream_credit": 1 << 20, "tunnel_credit": 1 << 25, "clock": 1,
        }  # fmt: skip
        if rnd.random() < 0.3:
            key = rnd.choice(("versions", "clock", "targets", "reconnect_spread", "config", "tunnel_credit", "wall"))
            fields[key] = rnd.choice(({"a": {"url": "http://evil"}}, [], "x", -1, 1e400, None, {"secret": "http"}))
        return frames.tunnel_frame(frames.HELLO, json.dumps(fields).encode())

    def tunnel_json(self) -> bytes:
        """What no relay may say, or not unasked: targets, a certificate, roots, or something of its own making."""
        rnd = self.random
        said = rnd.choice(
            (
                {"targets": {"secret": "http"}, "config": {"targets": []}},
                {"roots": ["-----BEGIN CERTIFICATE-----"], "cross": []},
                {"certificate": "-----BEGIN CERTIFICATE-----"},
                {"error": "token-unknown", "detail": "x" * 5000},
                {"roots": ["x"] * 1000, "cross": {}},
                {},
            )
        )
        kinds = (frames.TARGETS, frames.CERTIFICATE, frames.TRUST, frames.HINT, frames.RENEW, 0x40, 0xFF)
        return Frame(rnd.choice(kinds), 0, 0, json.dumps(said).encode()).serialize()

    def odd(self) -> bytes:
        rnd = self.random
        kind = rnd.choice((*frames.NAMES, 0x00, 0x0B, 0xFE))
        stream = rnd.choice((0, 1, self.stream, 0xFFFF_FFFF))
        return Frame(kind, rnd.randrange(256), stream, rnd.randbytes(rnd.randrange(40))).serialize()

    def flood_of(self, kind: int) -> bytes:
        """One more of the same."""
        makers = {
            frames.OPEN: self.push, frames.DATA: self.body, frames.RESET: self.reset, frames.CREDIT: self.credit,
            frames.PING: self.ping, frames.DRAIN: self.drain,
        }  # fmt: skip
        return makers.get(kind, self.odd)()
