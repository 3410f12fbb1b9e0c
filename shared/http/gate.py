"""The gates of both edges: what a raw HTTP/1.1 head must look like before anything is made of it.

One regular expression goes over the whole raw head. What passes has exactly one reading: a request line or status
line, then lines of `name:value` out of a narrow alphabet, each ended by CRLF. What does not pass takes the slow way:
`explain_request_line` says what is wrong, or `without_odd_fields` drops the lines that are odd but frame nothing.

Sizes are in bytes. Sources: RFC 9112 (messages), RFC 9110 §5 (fields); docs/http.md lists what is refused and why.
"""

from __future__ import annotations

import re
from typing import Final

import httptools

from shared.errors import LocalFault

MAX_REQUEST_HEAD: Final = 32 * 1024
"""A request's head, the empty line included. Precedents: nginx 4 × 8 KiB, Node 16 KiB; long JWTs need room."""

MAX_REQUEST_LINE: Final = 8 * 1024
"""The request line without its CRLF. Precedents: nginx and Apache 8 KiB; RFC 9112 §3 asks for 8,000 at least."""

MAX_RESPONSE_HEAD: Final = 32 * 1024
"""An answer's head, the empty line included."""

MAX_FIELDS: Final = 128
"""Header lines in a head: 32 KiB of `a:` lines would be 8,000 objects. Precedent: Apache's 100."""

MAX_FIELD_NAME: Final = 128
"""A longer name is odd, so the line is dropped."""


class BadRequest(LocalFault):
    """A request head that is refused; `fault` says with which status. Its framing is unknown: close the connection."""


class BadResponse(LocalFault):
    """A target's answer head that is refused. Its framing is unknown: close the connection."""

    def __init__(self, detail: str = "") -> None:
        super().__init__("target-malformed-answer", detail)


# The pieces. `++` and `*+` are possessive: nothing can backtrack, so a hostile head costs no more than an honest one.
METHOD: Final = rb"(?!(?:CONNECT|TRACE)[ \0])[A-Z-]{1,20}+"
"""A method that may cross, as a piece of a larger expression; a space or a NUL follows it."""

_SEGMENT: Final = rb"[A-Za-z0-9_~!$&'()*+,=:@-][A-Za-z0-9_~!$&'()*+,=:@.-]*+"
_PLAIN_PATH: Final = rb"/(?:" + _SEGMENT + rb"(?:/" + _SEGMENT + rb")*+/?+)?+"
_ANY_PATH: Final = rb"/[A-Za-z0-9_~!$&'()*+,=:@.%/-]*+"
_QUERY: Final = rb'(?:\?[!-"$-~]*+)?+'
_NAME: Final = rb"[A-Za-z0-9-]{1,128}+"
_VALUE: Final = rb"[\t -~]*+"
_BLOCK: Final = rb"(?:" + _NAME + rb":" + _VALUE + rb"(?<![\t ])\r\n){0,128}+"

PLAIN_TARGET: Final = rb"(" + _PLAIN_PATH + rb")" + _QUERY
"""Origin-form whose path is plain at first sight, as a piece of a larger expression; its one group is the path."""

ANY_TARGET: Final = rb"(" + _ANY_PATH + rb")" + _QUERY
"""Origin-form out of our alphabet; its path is still to be judged by `is_plain_path`."""

_HEAD_OF_REQUEST: Final = rb"(?:\r\n)?+(" + METHOD + rb") (%b) HTTP/1\.([01])\r\n(" + _BLOCK + rb")\r\n"

REQUEST: Final = re.compile(_HEAD_OF_REQUEST % PLAIN_TARGET)
"""A whole request head: method, target, path, minor version, header lines. One empty line before it passes (§2.2)."""

REQUEST_ANY_PATH: Final = re.compile(_HEAD_OF_REQUEST % ANY_TARGET)
"""The same, for the slow way."""

RESPONSE: Final = re.compile(rb"HTTP/1\.([01]) ([1-5][0-9][0-9])(?: [\t -~\x80-\xff]*+)?+\r\n(" + _BLOCK + rb")\r\n")
"""A whole answer head: minor version, status, header lines. The reason phrase is let pass and forgotten."""

FIELD: Final = re.compile(rb"([^:]+):[ \t]*([^\r]*)\r\n")
"""Splits header lines that passed the gate into names and values."""

_LABEL: Final = rb"[a-z0-9_-]{1,63}+"
HOST: Final = re.compile(
    rb"(?:" + _LABEL + rb"(?:\." + _LABEL + rb")*+\.?+|\[[0-9a-f:.]{2,45}\])(?::[0-9]{1,5}+)?+", re.IGNORECASE
)
"""host[:port], or a bracketed IPv6 address: what may stand in Host."""

_PERCENT_OK: Final = re.compile(
    rb"""(?x) (?: [^%]++ | %(?:
          2[0-46-9a-d]  | 3[0-9ac-f] | [46][0-9a-f] | 5[0-9abd-f] | 7[0-9a-e]           # ASCII but % . / ; \ and DEL
        | c2%[ab][0-9a-f] | (?:c[3-9a-f]|d[0-9a-f])%[89ab][0-9a-f]                      # UTF-8, shortest form only,
        | e0%[ab][0-9a-f]%[89ab][0-9a-f] | ed%[89][0-9a-f]%[89ab][0-9a-f]               # without C1 control characters
        | e[1-9a-cef]%[89ab][0-9a-f]%[89ab][0-9a-f]                                     # and surrogates
        | f0%[9ab][0-9a-f]%[89ab][0-9a-f]%[89ab][0-9a-f] | f[1-3](?:%[89ab][0-9a-f]){3}
        | f4%8[0-9a-f]%[89ab][0-9a-f]%[89ab][0-9a-f]
    ))*+""",
    re.IGNORECASE,
)
_DOT_SEGMENT: Final = re.compile(rb"/\.(?:[.%/]|\Z)")


def is_plain_path(path: bytes) -> bool:
    """Tell whether `path`, already out of the path alphabet, means the same to every server.

    Not plain: `//`; a segment `.`, or one that begins with `..` or `.%` (some servers take `..%20` for `..`);
    an encoded slash, backslash, dot, percent sign, semicolon or control byte; encoded bytes that are no shortest-form
    UTF-8.
    """
    return not (
        (b"//" in path)
        or (b"/." in path and _DOT_SEGMENT.search(path) is not None)
        or (b"%" in path and _PERCENT_OK.fullmatch(path) is None)
    )


def find_head_end(buffer: bytes | bytearray, start: int = 0) -> int:
    """Give the index just behind the empty line that ends a head, or -1.

    `start` is where earlier bytes have been searched already; the search steps back over a CRLFCRLF cut in two.
    """
    index = buffer.find(b"\r\n\r\n", start - 3 if start > 3 else 0)
    return index + 4 if index >= 0 else -1


_BEGINNING: Final = re.compile(rb"\r?\Z|(?:\r\n)?(?:[A-Z-]{1,20}(?: |\Z)|\Z)")
"""How a request may begin. TLS on a plain port, for one, begins otherwise and would wait for its time-out."""

_BARE: Final = re.compile(rb"(?<!\r)\n|\r[^\n]")


def check_unfinished_request_head(buffer: bytes | bytearray, start: int = 0) -> None:
    """Refuse a request head early whose end has not been found: too large already, or with a bare CR or LF in it.

    `start` is as in find_head_end. Raises BadRequest. Without it, a head that never ends right would wait for its
    time-out.
    """
    size = len(buffer)
    if size > MAX_REQUEST_LINE + 3 and buffer.find(b"\r\n", 2, MAX_REQUEST_LINE + 4) < 0:
        raise BadRequest("target-uri-too-long")
    if size >= MAX_REQUEST_HEAD:
        raise BadRequest("headers-too-large")
    if _BARE.search(buffer, start - 1 if start > 1 else 0) is not None or _BEGINNING.match(buffer) is None:
        raise BadRequest("malformed-request", "bare CR or LF, or no method")


def check_unfinished_response_head(buffer: bytes | bytearray, start: int = 0) -> None:
    """Refuse an answer's head early whose end has not been found, as for requests. Raises BadResponse."""
    if len(buffer) >= MAX_RESPONSE_HEAD:
        raise BadResponse("head too large")
    if _BARE.search(buffer, start - 1 if start > 1 else 0) is not None:
        raise BadResponse("bare CR or LF")


# ------------------------------------------------------------------------------------------------ the slow way

_CLEAN_LINE: Final = re.compile(_NAME + rb":" + _VALUE)
_VERSION: Final = re.compile(rb"[!-~]+ [!-~]+ HTTP/([0-9]\.[0-9])")
_REQUEST_LINE: Final = re.compile(METHOD + rb" ([^\x00-\x20\x7f]+) HTTP/1\.[01]")
_NOT_LETTERS: Final = bytes(c for c in range(256) if not (65 <= c <= 90 or 97 <= c <= 122))

RESPONSE_FRAMING: Final = frozenset({b"contentlength", b"transferencoding"})
"""Names, reduced to their letters, whose oddly spelt kin may frame a message elsewhere: refused, never dropped."""

REQUEST_FRAMING: Final = RESPONSE_FRAMING | {b"host", b"connection", b"upgrade", b"expect"}
"""Of requests, those too that say what follows the head."""


def explain_request_line(line: bytes) -> BadRequest:
    """Say why a request line did not pass."""
    if len(line) > MAX_REQUEST_LINE:
        return BadRequest("target-uri-too-long")
    version = _VERSION.fullmatch(line)
    if version is not None and version[1] not in (b"1.0", b"1.1"):
        return BadRequest("version-not-supported")
    if _REQUEST_LINE.fullmatch(line) is not None:
        return BadRequest("bad-path")
    return BadRequest("malformed-request", "request line")


def without_odd_fields(block: bytes, framing: frozenset[bytes]) -> tuple[bytes, list[bytes]] | str:
    """Take the odd lines out of a block of header lines.

    Gives what stays, and the lower-case letters of the names that went; of a malformed block, what is wrong with it.

    What stays has no whitespace behind its values, as the gates want it.

    Odd is a name outside [A-Za-z0-9-] and a value outside printable ASCII, space and tab. Such a line is dropped only
    if it frames nothing: with a name whose letters alone spell one of `framing`, the head is malformed.
    """
    kept: list[bytes] = []
    dropped: list[bytes] = []
    lines = block.split(b"\r\n")
    if lines.pop() != b"":
        return "unended header line"
    for line in lines:
        if _CLEAN_LINE.fullmatch(line) is not None:
            kept.append(line.rstrip(b" \t"))
            continue
        if b"\r" in line or b"\n" in line:
            return "bare CR or LF"
        if line[:1] in (b" ", b"\t"):
            return "folded header line"
        name, colon, _value = line.partition(b":")
        if not colon or not name:
            return "header line without a name"
        if name[-1:] in (b" ", b"\t"):
            return "whitespace before the colon"
        letters = name.translate(None, _NOT_LETTERS).lower()
        if letters in framing:
            return "odd framing header"
        dropped.append(letters)
    return b"".join([line + b"\r\n" for line in kept]), dropped


class NoCallbacks:
    """What httptools asks for callbacks; it has none, since only the verdict is wanted."""

    on_message_begin = None
    on_url = None
    on_status = None
    on_header = None
    on_headers_complete = None
    on_body = None
    on_message_complete = None
    on_chunk_header = None
    on_chunk_complete = None


NO_CALLBACKS: Final = NoCallbacks()

ParserError = httptools.HttpParserError
ParserUpgrade = httptools.HttpParserUpgrade
