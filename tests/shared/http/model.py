"""A slow, second reading of RFC 9112 with our refusals, written without regular expressions: the oracle of the tests.

It goes over a head byte by byte, and shares no code and no table with `shared.http`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

UPPER = set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
DIGIT = set(b"0123456789")
HEX = set(b"0123456789abcdefABCDEF")
ALNUM = UPPER | {c + 32 for c in UPPER} | DIGIT
PATH_BYTES = ALNUM | set(b"-._~!$&'()*+,=:@/%")
VALUE_BYTES = set(range(0x20, 0x7F)) | {9}
MAX_HEAD = 32768
MAX_LINE = 8192
KNOWN_METHODS = {b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"PROPFIND", b"M-SEARCH"}


class Refused(Exception):
    """The model refuses."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.code = code


@dataclass
class Reading:
    """What the model makes of a request head."""

    method: bytes
    target: bytes
    minor: int
    host: bytes
    length: int | None  # -1: chunked
    headers: list[tuple[bytes, bytes]] = field(default_factory=list)
    dropped: int = 0


def lines_of(raw: bytes) -> list[bytes]:
    """Cut a head into its lines; every CR must have its LF and the other way round."""
    lines, line, index = [], bytearray(), 0
    while index < len(raw):
        byte = raw[index]
        if byte == 13:
            if raw[index + 1 : index + 2] != b"\n":
                raise Refused("malformed-request")
            lines.append(bytes(line))
            line.clear()
            index += 2
            continue
        if byte == 10:
            raise Refused("malformed-request")
        line.append(byte)
        index += 1
    if line or not lines or lines[-1] or any(not line for line in lines[:-1]):
        raise Refused("malformed-request")
    return lines[:-1]


def letters(name: bytes) -> bytes:
    return bytes(c for c in name if c in ALNUM and c not in DIGIT).lower()


def field_of(line: bytes, framing: set[bytes]) -> tuple[bytes, bytes] | None:
    """Read a header line; None if it is odd but frames nothing."""
    if line[0] in b" \t":
        raise Refused("malformed-request")
    colon = line.find(b":")
    if colon < 1 or line[colon - 1] in b" \t":
        raise Refused("malformed-request")
    name, value = line[:colon], line[colon + 1 :]
    is_odd_name = len(name) > 128 or any(c not in ALNUM and c != 45 for c in name)
    if is_odd_name or any(c not in VALUE_BYTES for c in value):
        if letters(name) in framing:
            raise Refused("malformed-request")
        return None
    return name, value.strip(b" \t")


def fields_of(lines: list[bytes], framing: set[bytes], limit: int) -> tuple[list[tuple[bytes, bytes]], int]:
    fields = [field_of(line, framing) for line in lines]
    kept = [pair for pair in fields if pair is not None]
    if len(kept) > limit:
        raise Refused("headers-too-large")
    return kept, len(fields) - len(kept)


def values(headers: list[tuple[bytes, bytes]], name: bytes) -> list[bytes]:
    return [value for key, value in headers if key.lower() == name]


def length_of(headers: list[tuple[bytes, bytes]], minor: int) -> int | None:
    """The body's length: -1 chunked, None nothing said."""
    lengths, codings = values(headers, b"content-length"), values(headers, b"transfer-encoding")
    if codings:
        if lengths or minor == 0 or len(codings) > 1 or codings[0].lower() != b"chunked":
            raise Refused("malformed-request")
        return -1
    if not lengths:
        return None
    value = lengths[0]
    if len(lengths) > 1 or not 1 <= len(value) <= 16 or any(c not in DIGIT for c in value):
        raise Refused("malformed-request")
    if len(value) > 1 and value[0] == 48:
        raise Refused("malformed-request")
    return int(value)


def check_path(path: bytes) -> None:
    if not path or path[0] != 47 or any(c not in PATH_BYTES for c in path):
        raise Refused("bad-path")
    decoded, index = bytearray(), 0
    while index < len(path):
        byte = path[index]
        if byte == 37:
            pair = path[index + 1 : index + 3]
            if len(pair) != 2 or any(c not in HEX for c in pair):
                raise Refused("bad-path")
            byte = int(pair, 16)
            if byte < 32 or byte == 127 or byte in b"%./;\\":
                raise Refused("bad-path")
            index += 2
        decoded.append(byte)
        index += 1
    try:
        text = decoded.decode("utf-8")
    except UnicodeDecodeError:
        raise Refused("bad-path") from None
    if any("\x80" <= c <= "\x9f" for c in text):
        raise Refused("bad-path")
    segments = path.split(b"/")[1:]
    if any(not segment for segment in segments[:-1]):
        raise Refused("bad-path")
    for segment in segments:
        if segment == b"." or segment.startswith((b"..", b".%")):
            raise Refused("bad-path")


def check_host(host: bytes) -> None:
    if not host or len(host) > 262:
        raise Refused("malformed-request")
    name, port = host, b""
    if host[:1] == b"[":
        close = host.find(b"]")
        if close < 3 or close > 46 or any(c not in HEX | set(b":.") for c in host[1:close]):
            raise Refused("malformed-request")
        name, port = b"v6", host[close + 1 :]
        if port and port[:1] != b":":
            raise Refused("malformed-request")
        port = port[1:] if port else b"0"
    elif b":" in host:
        name, _, port = host.partition(b":")
    else:
        port = b"0"
    if not 1 <= len(port) <= 5 or any(c not in DIGIT for c in port):
        raise Refused("malformed-request")
    labels = name.split(b".")
    if len(labels) > 1 and not labels[-1]:
        labels.pop()
    for label in labels:
        if not 1 <= len(label) <= 63 or any(c not in ALNUM | set(b"-_") for c in label):
            raise Refused("malformed-request")


def read_request_line(line: bytes) -> tuple[bytes, bytes, int]:
    """Read method, target and minor version; the target is checked too."""
    words = line.split(b" ")
    if len(words) != 3 or not all(words) or any(not 0x21 <= c < 0x7F for c in words[0] + words[2]):
        raise Refused("malformed-request")
    method, target, version = words
    if any(c < 0x21 or c == 0x7F for c in target):
        raise Refused("malformed-request")
    major, dot, minor = version[5:6], version[6:7], version[7:]
    if version[:5] != b"HTTP/" or dot != b"." or len(minor) != 1 or not set(major + minor) <= DIGIT:
        raise Refused("malformed-request")
    if version not in (b"HTTP/1.0", b"HTTP/1.1"):
        raise Refused("version-not-supported" if all(c < 0x7F for c in target) else "malformed-request")
    if method not in KNOWN_METHODS:
        raise Refused("malformed-request")
    path, mark, query = target.partition(b"?")
    check_path(path)
    if mark and any(not 0x21 <= c < 0x7F or c == 35 for c in query):
        raise Refused("bad-path")
    return method, target, int(minor)


def asks_for_websocket(headers: list[tuple[bytes, bytes]]) -> bool:
    options = [option.strip(b" \t").lower() for value in values(headers, b"connection") for option in value.split(b",")]
    return b"upgrade" in options and [value.lower() for value in values(headers, b"upgrade")] == [b"websocket"]


def read_request(raw: bytes, max_fields: int = 128) -> Reading:
    """Read a request head, or raise Refused."""
    if raw.startswith(b"\r\n"):
        raw = raw[2:]
    line = raw.split(b"\r\n", 1)[0]
    if b"\r\n" in raw and len(line) > MAX_LINE:
        raise Refused("target-uri-too-long")
    if len(raw) > MAX_HEAD:
        raise Refused("headers-too-large")
    lines = lines_of(raw)
    if not lines:
        raise Refused("malformed-request")
    headers, dropped = fields_of(
        lines[1:], {b"host", b"contentlength", b"transferencoding", b"connection", b"upgrade", b"expect"}, max_fields
    )
    method, target, minor = read_request_line(line)
    hosts = values(headers, b"host")
    if len(hosts) != 1:
        raise Refused("malformed-request")
    check_host(hosts[0])
    length = length_of(headers, minor)
    if length and asks_for_websocket(headers):
        raise Refused("upgrade-with-body")
    return Reading(method, target, minor, hosts[0].lower(), length, headers, dropped)


class BadBody(Exception):
    """The reference decoder refuses."""


def read_chunked(data: bytes) -> tuple[bytes, int] | None:
    """Decode a chunked body; give it and where it ended, or None if it is not whole yet. Raises BadBody."""
    body, index, trailers = bytearray(), 0, 0
    while True:
        size = bytearray()
        while index < len(data) and data[index] in HEX:
            size.append(data[index])
            index += 1
        if len(size) > 16:
            raise BadBody
        if index == len(data):
            return None
        if not size or data[index] != 13:
            raise BadBody
        if index + 1 == len(data):
            return None
        if data[index + 1] != 10:
            raise BadBody
        index += 2
        count = int(size, 16)
        if not count:
            break
        body += data[index : index + count]
        if len(data) < index + count:
            return None
        index += count
        for expected in (13, 10):
            if index == len(data):
                return None
            if data[index] != expected:
                raise BadBody
            index += 1
    start = index
    while True:
        stop = data.find(b"\r\n", index)
        if (stop if stop >= 0 else len(data)) - start > 8192:
            raise BadBody
        if stop < 0:
            partial = data[index:]
            if b"\n" in partial or b"\r" in partial[:-1]:
                raise BadBody
            return None
        line = data[index:stop]
        trailers += len(line) + 2
        if trailers > 8192:
            raise BadBody
        index = stop + 2
        if not line:
            return bytes(body), index
        name, colon, value = line.partition(b":")
        if not colon or not name or any(c not in ALNUM | set(b"!#$%&'*+-.^_`|~") for c in name):
            raise BadBody
        if any((c < 32 and c != 9) or c == 127 for c in value):
            raise BadBody
