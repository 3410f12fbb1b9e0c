"""What is fuzzed: one function a parser. It may refuse what it is fed, and raise nothing else.

Each takes bytes, and checks a property that holds for all of them. Crashes that were found are pinned as tests beside
the parser's own.
"""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from cloud_relay.identity.enrolment import parse_want
from cloud_relay.oauth.compact import read_outside
from cloud_relay.oauth.form import TokenError, read_form
from shared.errors import LocalFault
from shared.http.chunked import ChunkedDecoder
from shared.http.gate import BadRequest, BadResponse, check_unfinished_request_head, find_head_end
from shared.http.push_head import (
    HeadError,
    decode_answer,
    decode_push,
    encode_answer,
    encode_push,
)
from shared.http.requests import parse_request_head, serialize_request_head
from shared.http.responses import parse_response_head
from shared.pki.join_token import PREFIX, parse_join_token
from shared.pki.requests import read_request
from shared.pki.trust import accept_roots, load_pems
from shared.protocol import Hello, MemoryBudget, Role, Settings, Stream
from shared.protocol.connection import Connection
from shared.protocol.frames import MAX_MESSAGE, parse
from shared.protocol.hello import BadHello, parse_targets
from shared.tcp.client_hello import BadHello as BadClientHello
from shared.tcp.client_hello import read_client_hello
from shared.tcp.head import decode_connection, encode_connection
from shared.tcp.proxy_v2 import BadProxyHeader
from shared.tcp.proxy_v2 import decode as decode_proxy
from shared.tcp.proxy_v2 import encode as encode_proxy

_NOW: Final = datetime(2030, 1, 1, tzinfo=UTC)


class _Handler:
    """Takes what a connection hands over, and answers pushes of an even length."""

    def on_ready(self, peer: Hello) -> None: ...
    def on_targets(self, targets: object) -> None: ...
    def on_renew(self, request: bytes) -> None: ...
    def on_certificate(self, answer: object) -> None: ...
    def on_trust(self, message: object) -> None: ...
    def on_hint(self, within: float) -> None: ...
    def on_drain(self, timeout: float) -> None: ...
    def on_replace(self, timeout: float) -> None: ...
    def on_drained(self) -> None: ...
    def on_output(self) -> None: ...
    def on_usable(self) -> None: ...

    def on_room(self) -> bool:
        return False

    def on_failed(self, code: str, detail: str) -> None: ...

    def on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        stream.consumed(len(body))
        if len(head) % 2 == 0:
            stream.answer(b"head", body, end=True)

    def on_error(self, error: Exception) -> None:
        raise error


def frames(data: bytes) -> None:
    """Both ends of a tunnel take any messages: the first byte says how they are cut, whose end it is, and how far."""
    if not data:
        return
    role = Role.RELAY if data[0] & 1 else Role.CONNECTOR
    budget = MemoryBudget()
    connection = Connection(role, _Handler(), Hello(targets={"t": "http"}), Settings(max_streams=8), budget, 1.0)
    if data[0] & 2:
        greeting = Connection(Role.RELAY, _Handler(), Hello(session="s"), Settings(), MemoryBudget(), 1.0)
        message = greeting.next_message(1.0)
        connection.receive_message(message or b"", 1.0)
    now, size, rest = 1.0, 1 + data[0] * 8, data[1:]
    while rest:
        message, rest = rest[:size], rest[size:]
        connection.receive_message(message[:MAX_MESSAGE], now)
        if data[0] & 4 and len(message) % 3 == 0:
            connection.note_gap(now)
        now += 0.2
        if connection.deadline <= now:
            connection.handle_deadline(now)
        while connection.next_message(now) is not None:
            pass
    assert budget.used >= 0
    connection.lost(now)
    assert budget.used == 0
    try:
        assert b"".join([frame.serialize() for frame in parse(data)]) == data
    except ValueError:
        pass


def request_head(data: bytes) -> None:
    """A head that passes is written again as one request that means the same."""
    end = find_head_end(data)
    if end < 0:
        try:
            check_unfinished_request_head(data)
        except BadRequest:
            pass
        return
    try:
        head = parse_request_head(data[:end])
    except BadRequest:
        return
    written = serialize_request_head(
        head.method, head.target, [(b"Host", head.host)], content_length=head.content_length, is_chunked=head.is_chunked
    )
    again = parse_request_head(written)
    assert (again.method, again.target, again.host) == (head.method, head.target, head.host)
    assert (again.content_length, again.is_chunked) == (head.content_length, head.is_chunked)
    assert find_head_end(written) == len(written)


def response_head(data: bytes) -> None:
    """An answer's head passes or is refused."""
    end = find_head_end(data)
    if end < 0:
        return
    try:
        head = parse_response_head(data[:end], b"HEAD" if len(data) % 2 else b"POST")
    except BadResponse:
        return
    assert 100 <= head.status <= 599
    assert not (head.is_chunked and head.content_length is not None)


def chunked(data: bytes) -> None:
    """However a body is cut, it is read the same, or refused the same."""
    if not data:
        return
    step = 1 + data[0] % 16
    assert _decode(data[1:], len(data)) == _decode(data[1:], step)


def _decode(data: bytes, step: int) -> tuple[bytes, bytes] | None:
    decoder, body = ChunkedDecoder(), b""
    for start in range(0, len(data), step):
        try:
            piece, is_done, rest = decoder.feed(data[start : start + step])
        except LocalFault:
            return None
        body += piece
        if is_done:
            return body, rest + data[start + step :]
    return body, b""


def hello(data: bytes) -> None:
    """HELLO and TARGETS are read or refused; what was read is written and read the same."""
    try:
        read = Hello.parse(data)
    except BadHello:
        pass
    else:
        assert Hello.parse(read.serialize()) == read
    try:
        parse_targets(data)
    except BadHello:
        pass


def push_head(data: bytes) -> None:
    """What a decoder lets out of the tunnel is written again and read the same, and holds nothing that splits."""
    try:
        push = decode_push(data)
    except HeadError:
        pass
    else:
        assert decode_push(encode_push(push)) == push
        for text in (push.method, push.path, *[part for pair in push.headers for part in pair]):
            assert not set(text) & set(b"\r\n\0")
    try:
        answer = decode_answer(data)
    except HeadError:
        return
    assert decode_answer(encode_answer(answer.status, answer.content_length, answer.headers)) == answer


def join_token(data: bytes) -> None:
    """A token is read or refused in words that do not repeat it; what was read is written and read the same.

    The checksum is put right, or no change would get past it.
    """
    for text in (data.decode("latin-1"), _with_checksum(data)):
        try:
            token = parse_join_token(text)
        except ValueError:
            continue
        assert parse_join_token(str(token)) == token
        assert token.secret not in repr(token)


def _with_checksum(payload: bytes) -> str:
    text = base64.urlsafe_b64encode(payload).rstrip(b"=").decode()
    return f"{PREFIX}{text}.{zlib.crc32(text.encode()):08x}"


def certificate_request(data: bytes) -> None:
    """A request is read or refused, in PEM and, where the fuzzer need not know base64, as DER."""
    for pem in (data, _pem(data, b"CERTIFICATE REQUEST")):
        try:
            request = read_request(pem)
        except ValueError:
            continue
        assert len(request.key_id) == 64


def certificates(data: bytes) -> None:
    """What the other side says are certificates: read or refused, judged or refused, in PEM and as DER."""
    for text in (data.decode("latin-1"), _pem(data, b"CERTIFICATE").decode()):
        try:
            accept_roots(load_pems([text]), load_pems([text]), load_pems([text]), _NOW)
        except ValueError:
            continue


def _pem(der: bytes, kind: bytes) -> bytes:
    return b"-----BEGIN %b-----\n%b-----END %b-----\n" % (kind, base64.encodebytes(der), kind)


def token_form(data: bytes) -> None:
    """A request for a token is read or refused with a code of RFC 6749, wherever its credentials are."""
    authorization, _, body = data.partition(b"\n")
    fields = {b"content-type": b"application/x-www-form-urlencoded"}
    for given in (fields, fields | {b"authorization": authorization}):
        try:
            form = read_form(b"POST", given, body)
        except TokenError as error:
            assert error.code in _TOKEN_ERRORS  # noqa: PT017  # a property, no test of pytest
            continue
        assert form.client_id
        assert form.secrets


def token_outside(data: bytes) -> None:
    """What a token says of itself is read or it is none."""
    header, _, claims = data.partition(b"\n")
    for token in (data, b".".join(base64.urlsafe_b64encode(part).rstrip(b"=") for part in (header, claims, b"sign"))):
        outside = read_outside(token)
        assert outside is None or outside.issuer is not None


def enrolment(data: bytes) -> None:
    """What somebody without a certificate sends is a question or refused, and bounded."""
    try:
        wanted = parse_want(data)
    except ValueError:
        return
    assert wanted is None or (len(wanted[0]) <= 128 and len(wanted[2]) <= 4096)


def client_hello(data: bytes) -> None:
    """A ClientHello is read, waited for, or refused; more bytes behind it change nothing."""
    try:
        hello = read_client_hello(data)
    except BadClientHello:
        return
    if hello is not None:
        assert read_client_hello(data + b"more") == hello


def tcp_heads(data: bytes) -> None:
    """A PROXY header, and the head of a TCP connection in the tunnel: what was read is written and read the same."""
    try:
        header = decode_proxy(data)
    except BadProxyHeader:
        pass
    else:
        assert header.ends is None or decode_proxy(encode_proxy(header.ends)).ends == header.ends
    try:
        head = decode_connection(data)
    except LocalFault:
        return
    assert decode_connection(encode_connection(head)) == head


_TOKEN_ERRORS: Final = frozenset(
    {"invalid_request", "invalid_client", "invalid_grant", "unauthorized_client", "unsupported_grant_type",
     "invalid_scope"}
)  # fmt: skip
"""RFC 6749 §5.2."""

TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "frames": frames,
    "request-head": request_head,
    "response-head": response_head,
    "chunked": chunked,
    "hello": hello,
    "push-head": push_head,
    "join-token": join_token,
    "certificate-request": certificate_request,
    "certificates": certificates,
    "token-form": token_form,
    "token-outside": token_outside,
    "enrolment": enrolment,
    "client-hello": client_hello,
    "tcp-heads": tcp_heads,
}
