"""What OPEN and ANSWER carry for HTTP: the heads of a push and of its answer, as they cross the tunnel.

Both are NUL-separated fields, each ended by a NUL:

    push:    "1" target request-id attempt sender route method path[?query] content-length  extra… ""  (name value)…
    answer:  "1" status content-length  extra… ""  (name value)…

`content-length` is empty where the length is not known. An extra is `key=value`; unknown ones are skipped, so that a
newer side may say more. Each decoder takes the other side for hostile: one expression goes over the whole block,
headers that frame a message or steer a connection are dropped, and no CR, LF or NUL comes out.
"""

from __future__ import annotations

import re
from itertools import chain
from typing import Final, NamedTuple

from shared.errors import LocalFault
from shared.http.gate import TARGET, is_plain_path
from shared.http.headers import passes_to_sender, passes_to_target

MAX_HEAD: Final = 48 * 1024
"""Bytes of an encoded head: the 32 KiB of a request's own, and what the relay adds."""


class HeadError(LocalFault):
    """A head from the tunnel that is refused: `bad-push` or `path-refused`; of an answer, `target-malformed-answer`."""


class PushHead(NamedTuple):
    """A push, as the relay hands it to a connector. `path` is the raw path[?query]; no `content_length`: not known yet.

    `sender` is empty where the route asks for none; `attempt` counts from 1; `upgrade` is b"websocket" or None.
    """

    target: str
    request_id: str
    attempt: int
    sender: str
    route: str
    method: bytes
    path: bytes
    content_length: int | None
    headers: list[tuple[bytes, bytes]]
    upgrade: bytes | None = None


class AnswerHead(NamedTuple):
    """A target's answer, as the connector hands it back. `content_length` None: not known beforehand."""

    status: int
    content_length: int | None
    headers: list[tuple[bytes, bytes]]


_NAME: Final = rb"[a-z0-9][a-z0-9-]{0,62}+"
_LENGTH: Final = rb"(0|[1-9][0-9]{0,15}+)?+"
_REST: Final = rb"((?:[a-z][a-z0-9_]{0,31}+=[!-~]*+\0){0,16}+)\0((?:[A-Za-z0-9-]{1,128}+\0[\t -~]*+\0){0,192}+)"

_PUSH: Final = re.compile(
    rb"1\0(" + _NAME + rb")\0([A-Za-z0-9._-]{1,64}+)\0([1-9][0-9]{0,2}+)\0((?:" + _NAME + rb")?+)\0(" + _NAME
    + rb")\0([A-Z-]{1,20}+)\0(" + TARGET + rb")\0" + _LENGTH + rb"\0" + _REST
)  # fmt: skip
_ANSWER: Final = re.compile(rb"1\0([1-5][0-9][0-9])\0" + _LENGTH + rb"\0" + _REST)

_REFUSED_METHODS: Final = frozenset({b"CONNECT", b"TRACE"})
_WEBSOCKET: Final = b"upgrade=websocket\0"


def encode_push(push: PushHead) -> bytes:
    """Write a push's head. Raises ValueError if a field holds a NUL."""
    target, request_id, attempt, sender, route, method, path, length, headers, upgrade = push
    flat = list(chain.from_iterable(headers))
    flat.append(b"")
    block = b"1\0%b\0%d\0%b\0%b\0%b\0%b\0%b\0%b" % (
        f"{target}\0{request_id}".encode("ascii"),
        attempt,
        f"{sender}\0{route}".encode("ascii"),
        method,
        path,
        b"" if length is None else b"%d" % length,
        b"" if upgrade is None else b"upgrade=" + upgrade + b"\0",
        b"\0".join(flat),
    )
    if block.count(b"\0") != 10 + len(flat) - 1 + (upgrade is not None):
        raise ValueError("a NUL in a push's head")
    return block


def decode_push(data: bytes) -> PushHead:
    """Read a push's head from a relay that may be hostile. Raises HeadError."""
    match = _PUSH.fullmatch(data)
    if match is None or len(data) > MAX_HEAD:
        raise HeadError("bad-push")
    target, request_id, attempt, sender, route, method, path, bare_path, length, extras, block = match.groups()
    if (b"/." in bare_path or b"//" in bare_path or b"%" in bare_path) and not is_plain_path(bare_path):
        raise HeadError("path-refused")
    if method in _REFUSED_METHODS:
        raise HeadError("bad-push", "method")
    fields = block.split(b"\0")
    return PushHead(
        target.decode(),
        request_id.decode(),
        int(attempt),
        sender.decode(),
        route.decode(),
        method,
        path,
        None if length is None else int(length),
        [pair for pair in zip(fields[:-1:2], fields[1::2], strict=True) if passes_to_target(pair[0])],
        b"websocket" if extras and _WEBSOCKET in extras else None,
    )


def encode_answer(status: int, content_length: int | None, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Write an answer's head. Raises ValueError if a header holds a NUL."""
    flat = list(chain.from_iterable(headers))
    flat.append(b"")
    length = b"" if content_length is None else b"%d" % content_length
    block = b"1\0%d\0%b\0\0%b" % (status, length, b"\0".join(flat))
    if block.count(b"\0") != 4 + len(flat) - 1:
        raise ValueError("a NUL in an answer's head")
    return block


def decode_answer(data: bytes) -> AnswerHead:
    """Read an answer's head from a connector that may be hostile. Raises HeadError."""
    match = _ANSWER.fullmatch(data)
    if match is None or len(data) > MAX_HEAD:
        raise HeadError("target-malformed-answer", "head from the connector")
    status, length, _extras, block = match.groups()
    fields = block.split(b"\0")
    return AnswerHead(
        int(status),
        None if length is None else int(length),
        [pair for pair in zip(fields[:-1:2], fields[1::2], strict=True) if passes_to_sender(pair[0])],
    )
