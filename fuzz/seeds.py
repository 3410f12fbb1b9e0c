"""What the fuzzers begin with: a few good inputs of each kind, so that they need not find the grammar by themselves."""

from __future__ import annotations

import base64
import json
import ssl
from datetime import UTC, datetime
from typing import Final

from cryptography.hazmat.primitives.serialization import Encoding

from shared.config import HostPort
from shared.http.push_head import PushHead, encode_answer, encode_push
from shared.pki.issue import certificate_pem, create_root, new_key
from shared.pki.join_token import PREFIX, JoinToken
from shared.pki.requests import make_request
from shared.pki.spiffe import connector_id
from shared.protocol import Hello
from shared.protocol import frames as wire
from shared.protocol.hello import serialize_targets
from shared.tcp.head import ConnectionHead, Ends, encode_connection
from shared.tcp.proxy_v2 import encode as encode_proxy

_PUSH: Final = encode_push(
    PushHead("t", "r-1", 1, "s4", "all", b"POST", b"/a?b=c", 2, [(b"Host", b"a"), (b"X", b"y")], b"websocket")
)
_ANSWER: Final = encode_answer(200, 2, [(b"Content-Type", b"text/plain")])
_FRAMES: Final = (
    wire.tunnel_frame(wire.HELLO, Hello(targets={"t": "http"}).serialize()),
    wire.Frame(wire.OPEN, wire.END, 1, wire.open_head(0, _PUSH) + b"ok").serialize(),
    wire.Frame(wire.ANSWER, 0, 1, wire.answer_head(_ANSWER) + b"ok").serialize(),
    wire.Frame(wire.DATA, wire.END, 1, b"more").serialize(),
    wire.reset(1, 108, refused=True) + wire.credit(0, 65536) + wire.credit(1, 1),
    wire.ping(1) + wire.pong(1, 2) + wire.drain(5.0) + wire.drain(0, ack=True),
    wire.tunnel_frame(wire.TARGETS, serialize_targets({"t": "http"})),
    *[
        wire.tunnel_frame(kind, json.dumps(said).encode())
        for kind, said in (
            (wire.RENEW, {"request": "x"}),
            (wire.CERTIFICATE, {"certificate": "x"}),
            (wire.TRUST, {"roots": ["x"], "cross": [], "pins": ["0" * 64]}),
            (wire.HINT, {"within": 60}),
        )
    ],
)

_ROOT: Final = create_root(datetime(2026, 1, 1, tzinfo=UTC))
_TOKEN: Final = str(JoinToken("q.test", (HostPort("r", 443),), "0" * 64, "t", "l", "c", "abcd", "f" * 64))
_TOKEN_JSON: Final = base64.urlsafe_b64decode(_TOKEN.removeprefix(PREFIX).partition(".")[0] + "==")
_REQUEST: Final = make_request(new_key(), connector_id("q.test", "t", "l", "c"))
_REQUEST_DER: Final = base64.b64decode(b"".join(_REQUEST.splitlines()[1:-1]))


def _client_hello(name: str | None) -> bytes:
    """What OpenSSL says first."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    outgoing = ssl.MemoryBIO()
    try:
        context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname=name).do_handshake()
    except ssl.SSLWantReadError:
        pass
    return outgoing.read()


SEEDS: Final[dict[str, list[bytes]]] = {
    "frames": [
        bytes([flags]) + b"".join(_FRAMES[start:]) for flags in (0xF8, 0xF9, 0xFA, 0xFB, 0xFE) for start in (0, 1)
    ],
    "request-head": [
        b"POST /a/b?c HTTP/1.1\r\nHost: a.example\r\nContent-Length: 5\r\n\r\n",
        b"\r\nGET /%c3%a9 HTTP/1.0\r\nhost: [::1]:80\r\nConnection: close, x\r\nX_Y: 1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nExpect: 100-continue\r\n\r\n",
        b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
    ],
    "response-head": [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nKeep-Alive: timeout=5\r\nX_Y: 1\r\n\r\n",
        b"HTTP/1.0 503\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n",
    ],
    "chunked": [b"\x035\r\nhello\r\n0\r\n\r\nrest", b"\x001\r\nx\r\n0a\r\n0123456789\r\n0\r\nX: y\r\n\r\n"],
    "hello": [Hello(session="s", targets={"t": "http"}).serialize(), serialize_targets({"a": "tcp", "b": "http"})],
    "push-head": [_PUSH, _ANSWER],
    "join-token": [_TOKEN.encode(), _TOKEN_JSON],
    "certificate-request": [_REQUEST, _REQUEST_DER],
    "token-form": [
        b"Basic czQ6c2VjcmV0\ngrant_type=client_credentials&scope=a%20b",
        b"\ngrant_type=client_credentials&client_id=s4&client_secret=a%2Bb+c",
    ],
    "token-outside": [b'{"alg":"ES256","kid":"k1","typ":"JWT"}\n{"iss":"https://i.example","aud":"q","exp":1}'],
    "enrolment": [
        b'{"want":"authorities"}',
        b'{"want":"certificate","token":"abcd","secret":"' + b"0" * 64 + b'","request":"PEM"}',
    ],
    "client-hello": [_client_hello("a.example"), _client_hello(None)],
    "tcp-heads": [
        encode_proxy(Ends("192.0.2.1", 1, "192.0.2.2", 2)),
        encode_proxy(Ends("::1", 1, "::2", 2)),
        encode_proxy(None),
        encode_connection(ConnectionHead("t", "r-1", 1, "s4", "syslog", Ends("192.0.2.1", 1, "192.0.2.2", 2))),
    ],
    "certificates": [certificate_pem(_ROOT.certificate), _ROOT.certificate.public_bytes(Encoding.DER)],
}
