"""What OPEN and ANSWER carry for HTTP: the heads of a push and of its answer, as they cross the tunnel.

Both are NUL-separated fields, each ended by a NUL:

    push:    "1" request-id attempt content-length  target sender route method path[?query]  extra… ""  (name value)…
    answer:  "1" status content-length  extra… ""  (name value)…

What differs from push to push stands first. The rest, the *template*, a sender repeats on a kept connection byte by
byte, so each side makes and reads it once and remembers it.

`content-length` is empty where the length is not known. An extra is `key=value`; unknown ones are skipped, so that a
newer side may say more. Each decoder takes the other side for hostile: one expression goes over the whole block,
headers that frame a message or steer a connection are dropped, and no CR, LF or NUL comes out.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple

from shared.errors import LocalFault
from shared.http.gate import ANY_TARGET, METHOD, PLAIN_TARGET, is_plain_path
from shared.http.headers import Headers, passes_to_sender, passes_to_target

MAX_HEAD: Final = 40 * 1024
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
_VARYING: Final = re.compile(rb"1\0([A-Za-z0-9._-]{1,64}+)\0([1-9][0-9]{0,2}+)\0" + _LENGTH + rb"\0")
_TEMPLATE_FIELDS: Final = (
    rb"(" + _NAME + rb"\0(?:" + _NAME + rb")?+\0" + _NAME + rb")\0(" + METHOD + rb")\0(%b)\0" + _REST
)

_TEMPLATE: Final = re.compile(_TEMPLATE_FIELDS % PLAIN_TARGET)
_TEMPLATE_ANY_PATH: Final = re.compile(_TEMPLATE_FIELDS % ANY_TARGET)
_ANSWER: Final = re.compile(rb"1\0([1-5][0-9][0-9])\0" + _LENGTH + rb"\0" + _REST)

_UPGRADE: Final = b"upgrade=websocket\0"
_NULS: Final = 6  # in a template without headers
_nul: Final = b"\0".join


class _Filter:
    """Keeps the headers whose names may pass, by one set operation where all of them are known to.

    `known` grows to at most 1,024 names of at most 128 bytes; with more than that, names are judged one by one.
    """

    __slots__ = ("_known", "_passes")

    def __init__(self, passes: Callable[[bytes], bool]) -> None:
        self._passes = passes
        self._known: set[bytes] = {b""}

    def headers(self, block: bytes) -> list[tuple[bytes, bytes]]:
        """Split a block of `name NUL value NUL`, already matched, into the headers that pass."""
        fields = block.split(b"\0")
        names = fields[::2]
        pairs = zip(names, fields[1::2], strict=False)  # the last name is what stands behind the last NUL: nothing
        if self._known.issuperset(names):
            return list(pairs)
        kept = [pair for pair in pairs if self._passes(pair[0])]
        if len(self._known) + len(kept) <= 1024:
            self._known.update([name for name, _ in kept])
        return kept


_TO_TARGET: Final = _Filter(passes_to_target)
_TO_SENDER: Final = _Filter(passes_to_sender)


class PushTemplate:
    """The part of a push's head that repeats. `plan` is the connector's own: what it made of this template."""

    __slots__ = ("headers", "method", "path", "plan", "route", "sender", "target", "upgrade")

    def __init__(
        self, whence: tuple[str, str, str], method: bytes, path: bytes, headers: Headers, upgrade: bytes | None
    ) -> None:
        self.target, self.sender, self.route = whence
        self.method = method
        self.path = path
        self.headers = headers
        self.upgrade = upgrade
        self.plan: object = None

    def __repr__(self) -> str:
        return f"<PushTemplate {self.method.decode()} to {self.target}, {len(self.headers)} headers>"

    def push(self, request_id: str, attempt: int, content_length: int | None) -> PushHead:
        """The head of one push of this kind."""
        return PushHead(
            self.target,
            request_id,
            attempt,
            self.sender,
            self.route,
            self.method,
            self.path,
            content_length,
            self.headers,
            self.upgrade,
        )


def encode_template(
    target: str, sender: str, route: str, method: bytes, path: bytes, headers: Headers, upgrade: bytes | None = None
) -> bytes:
    """Write what repeats of a push's head. Raises ValueError if a field holds a NUL."""
    block = b"%b%b\0%b\0%b\0%b" % (
        f"{target}\0{sender}\0{route}\0".encode("ascii"),
        method,
        path,
        b"" if upgrade is None else _UPGRADE,
        _nul(map(_nul, headers)),
    )
    if headers:
        block += b"\0"
    if block.count(b"\0") != _NULS + 2 * len(headers) + (upgrade is not None):
        raise ValueError("a NUL in a push's head")
    return block


def encode_varying(request_id: str, attempt: int, content_length: int | None) -> bytes:
    """Write what differs from push to push; the template follows. `request_id` is of our own making."""
    length = "" if content_length is None else content_length
    return f"1\0{request_id}\0{attempt}\0{length}\0".encode("ascii")


def encode_push(push: PushHead) -> bytes:
    """Write a push's head. Raises ValueError if a field holds a NUL."""
    target, request_id, attempt, sender, route, method, path, length, headers, upgrade = push
    varying = encode_varying(request_id, attempt, length)
    if varying.count(b"\0") != 4:
        raise ValueError("a NUL in a push's head")
    return varying + encode_template(target, sender, route, method, path, headers, upgrade)


def decode_varying(data: bytes) -> tuple[str, int, int | None, bytes]:
    """Read request id, attempt and Content-Length; the template as it came. Raises HeadError."""
    match = _VARYING.match(data)
    if match is None or len(data) > MAX_HEAD:
        raise HeadError("bad-push")
    request_id, attempt, length = match.groups()
    return request_id.decode("ascii"), int(attempt), None if length is None else int(length), data[match.end() :]


def decode_template(data: bytes) -> PushTemplate:
    """Read what repeats of a push's head, from a relay that may be hostile. Raises HeadError."""
    match = _TEMPLATE.fullmatch(data) or _TEMPLATE_ANY_PATH.fullmatch(data)
    if match is None:
        raise HeadError("bad-push")
    whence, method, path, bare_path, extras, block = match.groups()
    if match.re is not _TEMPLATE and not is_plain_path(bare_path):
        raise HeadError("path-refused")
    target, sender, route = whence.decode("ascii").split("\0")
    upgrade = b"websocket" if extras and b"\0" + _UPGRADE in b"\0" + extras else None
    return PushTemplate((target, sender, route), method, path, _TO_TARGET.headers(block), upgrade)


def decode_push(data: bytes) -> PushHead:
    """Read a push's head from a relay that may be hostile. Raises HeadError."""
    request_id, attempt, length, template = decode_varying(data)
    return decode_template(template).push(request_id, attempt, length)


class TemplateMemo:
    """Remembers the templates that were read last: at most 256 of at most 4 KiB, so a relay cannot make it grow."""

    __slots__ = ("_known",)

    MAX_COUNT: Final = 256
    MAX_SIZE: Final = 4096

    def __init__(self) -> None:
        self._known: dict[bytes, PushTemplate] = {}

    def read(self, data: bytes) -> PushTemplate:
        """`decode_template`, perhaps from memory. Raises HeadError."""
        template = self._known.get(data)
        if template is None:
            template = decode_template(data)
            if len(data) <= self.MAX_SIZE:
                if len(self._known) >= self.MAX_COUNT:
                    self._known.clear()
                self._known[data] = template
        return template


def encode_answer(status: int, content_length: int | None, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Write an answer's head. Raises ValueError if a header holds a NUL."""
    length = b"" if content_length is None else b"%d" % content_length
    block = b"1\0%d\0%b\0\0" % (status, length)
    if headers:
        block = b"%b%b\0" % (block, _nul(map(_nul, headers)))
    if block.count(b"\0") != 4 + 2 * len(headers):
        raise ValueError("a NUL in an answer's head")
    return block


def decode_answer(data: bytes) -> AnswerHead:
    """Read an answer's head from a connector that may be hostile. Raises HeadError."""
    match = _ANSWER.fullmatch(data)
    if match is None or len(data) > MAX_HEAD:
        raise HeadError("target-malformed-answer", "head from the connector")
    status, length, _extras, block = match.groups()
    return AnswerHead(int(status), None if length is None else int(length), _TO_SENDER.headers(block))
