"""Hostile request heads, by families: what the gates, and the whole chain, are held against."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

HOST = b"Host: push.example.com\r\n"


def head(line: bytes = b"POST /a HTTP/1.1", *fields: bytes, host: bytes = HOST) -> bytes:
    return line + b"\r\n" + host + b"".join([f + b"\r\n" for f in fields]) + b"\r\n"


def codings() -> Iterator[bytes]:
    names = [
        b"Transfer-Encoding", b"transfer-encoding", b"Transfer_Encoding", b"Transfer-Encoding ",
        b"Transfer-Encoding\t", b"Transfer-Encoding\x0b", b"\x0bTransfer-Encoding", b" Transfer-Encoding",
        b"Transfer-Encoding\x00", b"Transfer Encoding", b"Transfer-Encoding\xff", b"TransferEncoding",
        b"X: y\rTransfer-Encoding", b"X: y\nTransfer-Encoding", b"X\r\n Transfer-Encoding",
    ]  # fmt: skip
    coded = [
        b"chunked", b" chunked", b"\tchunked\t ", b"CHUNKED", b"cHuNkEd", b"xchunked", b"chunked, chunked",
        b"gzip, chunked", b"chunked, gzip", b"identity", b"", b"\x0bchunked", b"chunked\x00", b"'chunked'",
        b'"chunked"', b"chunked;q=1", b"chunk", b"chunked,", b",chunked", b"\xffchunked", b"chun\r\n ked",
        b"\r\n chunked", b"chun\x00ked",
    ]  # fmt: skip
    for name, value in itertools.product(names, coded):
        yield head(b"POST /a HTTP/1.1", name + b":" + value)
    for value, version in itertools.product(coded, (b"1.0", b"1.1")):
        yield head(b"POST /a HTTP/" + version, b"Transfer-Encoding: " + value, b"Content-Length: 5")
        yield head(b"POST /a HTTP/" + version, b"Content-Length: 5", b"Transfer-Encoding: " + value)
        yield head(b"POST /a HTTP/" + version, b"Transfer-Encoding: chunked", b"transfer-encoding: " + value)
        yield head(b"POST /a HTTP/" + version, b"Transfer-Encoding: " + value)


def lengths() -> Iterator[bytes]:
    sizes = [
        b"5", b"0", b"00", b"005", b"+5", b"-5", b"5_0", b"0x5", b"5 5", b"5,5", b"5, 5", b"", b" ", b"5.0", b"1e3",
        b"\xb25", b"9" * 16, b"9" * 17, b"1" + b"0" * 40, b"5\x00", b"\x0b5", b"5\x0b", b"5;", b"\xd9\xa5", b"5\t",
        b"5\r\n 5",
    ]  # fmt: skip
    names = [
        b"Content-Length", b"content-length", b"Content_Length", b"Content-Length ", b"Content-Length\x00",
        b"Content Length", b"Content-Length\x85", b"ContentLength", b"CONTENT-LENGTH", b"Content--Length",
    ]  # fmt: skip
    for name, size in itertools.product(names, sizes):
        yield head(b"POST /a HTTP/1.1", name + b": " + size)
    for one, two in itertools.product(sizes[:8], repeat=2):
        yield head(b"POST /a HTTP/1.1", b"Content-Length: " + one, b"content-length: " + two)


def hosts() -> Iterator[bytes]:
    values = [
        b"a", b"A.Example", b"a.b.c.", b"a:80", b"a:", b"a:123456", b"a:8x", b"[::1]", b"[::1]:443", b"[::1", b"::1",
        b"[]", b"", b" ", b"a b", b"a,b", b"a/b", b"a@b", b"a?b", b"a#b", b"a\\b", b"a..b", b".a", b"a%2e", b"a\x00",
        b"a\xff", b"x" * 64, b"x." * 130, b"x." * 140, b"user:pw@a", b"http://a", b"127.0.0.1", b"a:0", b"a_b", b"-a",
        b"[::1]x", b"[v1.a]", b"a:80:80", b"a\x0b", b"*", b"a;b",
    ]  # fmt: skip
    for value in values:
        for name in (b"Host", b"hOST"):
            yield head(b"GET / HTTP/1.1", host=name + b": " + value + b"\r\n")
        yield head(b"GET / HTTP/1.1", b"Host: " + value)
        yield head(b"GET / HTTP/1.0", host=b"Host:" + value + b"\r\n")
        yield head(b"GET / HTTP/1.1", b"Host\x00: " + value)
        yield head(b"GET / HTTP/1.1", b"X-Host: " + value)
    yield head(b"GET / HTTP/1.1", host=b"")
    yield head(b"GET / HTTP/1.0", host=b"")


PATHS = [
    b"/", b"/a", b"/a/", b"/a/b.c", b"/a//b", b"//", b"//a", b"/a/.", b"/a/./b", b"/a/..", b"/a/../b", b"/..", b"/.",
    b"/...", b"/a/.b", b"/.well-known/x", b"/a/..b", b"/a/b..", b"/a;b", b"/;", b"/a\\b", b"/a%2fb", b"/a%2Fb",
    b"/a%5cb", b"/a%5C", b"/a%2e", b"/%2E%2e/", b"/a%25", b"/a%252f", b"/a%00", b"/a%0d%0a", b"/a%7f", b"/a%1f",
    b"/a%20b", b"/a%41", b"/a%", b"/a%4", b"/a%zz", b"/a%u002f", b"/%c3%a9", b"/%C0%AF", b"/%c0%ae%c0%ae",
    b"/%e0%80%af", b"/%f0%80%80%af", b"/%e2%82%ac", b"/%f0%9f%98%80", b"/%ff", b"/%c3", b"/%a9", b"/%c2%85",
    b"/%c2%a0", b"/%ed%a0%80", b"/%ed%9f%bf", b"/%f4%8f%bf%bf", b"/%f4%90%80%80", b"/%e9", b"/%3b", b"/%3B", b"/%3f",
    b"/%23", b"/a/.%20", b"/a/..%20", b"/a/.%2e", b"/\xc3\xa9", b"/a\x00", b"/a\x7f", b'/a"b', b"/a<b>", b"/a^b",
    b"/a`b", b"/a{b}", b"/a|b", b"/a[b]", b"/a~b!$&'()*+,=:@", b"/*", b"*", b"", b"a", b"http://a/b",
    b"https://push.example.com/a", b"a:443", b"?a", b"\\a", b"/a#b", b"/a b",
]  # fmt: skip


def targets() -> Iterator[bytes]:
    queries = [b"", b"?", b"?a=b", b"?a=%2f..//;\\", b"?#", b"?a b", b"?\xff", b"?\x7f", b'?"<^`{|}[]', b"??", b"?\t"]
    for path, query in itertools.product(PATHS, queries):
        yield head(b"GET " + path + query + b" HTTP/1.1")
    for path in PATHS:
        yield head(b"POST " + path + b" HTTP/1.0", b"Content-Length: 1")
    yield head(b"GET /" + b"a" * 8173 + b" HTTP/1.1")
    yield head(b"GET /" + b"a" * 8178 + b" HTTP/1.1")
    yield head(b"GET /" + b"a" * 8179 + b" HTTP/1.1")
    yield head(b"GET /" + b"a" * 40000 + b" HTTP/1.1")


def lines() -> Iterator[bytes]:
    methods = [
        b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"PATCH", b"get", b"Get", b"CONNECT", b"TRACE", b"PRI",
        b"FOO", b"", b"G\x00ET", b"GET\t", b"X" * 21, b"PROPFIND", b"M-SEARCH", b"DESCRIBE", b"POST,", b"\xffGET",
        b"CONNECTS",
    ]  # fmt: skip
    versions = [
        b"HTTP/1.1", b"HTTP/1.0", b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"HTTP/3", b"HTTP/11", b"HTTP/1.10",
        b"HTTP/01.1", b"http/1.1", b"Http/1.1", b"RTSP/1.0", b"ICE/1.0", b"HTTP /1.1", b"HTTP/1,1", b"", b"HTTP/1.1 ",
        b"HTTP/1.\xb1", b"HTTP/1.1\x00", b"HTTPS/1.1", b"HTTP/9.9",
    ]  # fmt: skip
    for method, version in itertools.product(methods, versions):
        yield head(method + b" /a " + version)
    whole = [
        b"GET  /a HTTP/1.1", b"GET /a  HTTP/1.1", b" GET /a HTTP/1.1", b"GET\t/a HTTP/1.1", b"GET /a\tHTTP/1.1",
        b"GET /a", b"GET", b"PRI * HTTP/2.0", b"GET /a HTTP/1.1\x0b", b"\r\nGET /a HTTP/1.1",
        b"\r\n\r\nGET /a HTTP/1.1",
        b"\nGET /a HTTP/1.1", b"GET /a\rX HTTP/1.1", b"GET /a\nX HTTP/1.1",
    ]  # fmt: skip
    for line in whole:
        yield head(line)
        yield head(line, host=b"")


def odd_fields() -> Iterator[bytes]:
    for byte in range(256):
        char = bytes([byte])
        yield head(b"GET / HTTP/1.1", b"X" + char + b"Y: 1")
        yield head(b"GET / HTTP/1.1", b"X-Y: a" + char + b"b")
        yield head(b"GET / HTTP/1.1", b"Connection: close" + char)
        yield head(b"GET / HTTP/1.1", char + b"Host: other")
        yield head(b"GET / HTTP/1.1", b"Host" + char + b": other")
    odd = [
        b": x", b"X", b"X x", b" X: y", b"\tX: y", b"X : y", b"X\t: y", b"X:", b"X: ", b"X:y", b"X:\ty\t", b"", b":",
        b"X" * 128 + b": 1", b"X" * 129 + b": 1", b"X: y\r\n z", b"X: y\n", b"X: y\r", b"X: \r\r\n",
    ]  # fmt: skip
    for line in odd:
        yield head(b"GET / HTTP/1.1", line)
        yield head(b"GET / HTTP/1.1", b"A: b", line, b"C: d")
        yield head(b"GET / HTTP/1.1", host=line + b"\r\n" + HOST)
    yield head(b"GET / HTTP/1.1", *[b"A%d: 1" % n for n in range(127)])
    yield head(b"GET / HTTP/1.1", *[b"A%d: 1" % n for n in range(128)])
    yield head(b"GET / HTTP/1.1", *[b"A_%d: 1" % n for n in range(300)])
    yield head(b"GET / HTTP/1.1", b"A: " + b"x" * 20000)
    yield head(b"GET / HTTP/1.1", b"A: " + b"x" * 40000)
    yield head(b"GET / HTTP/1.1", b"A:" + b" " * 20000)


def upgrades() -> Iterator[bytes]:
    for upgrade, connection, method, framing in itertools.product(
        (b"websocket", b"WebSocket", b"h2c", b"websocket, h2c", b"TLS/1.0"),
        (b"upgrade", b"Upgrade", b"keep-alive, Upgrade", b"close", b"upgrade, close"),
        (b"GET", b"POST"),
        (b"Content-Length: 0", b"Content-Length: 5", b"Transfer-Encoding: chunked", b"X: y"),
    ):
        yield head(method + b" /ws HTTP/1.1", b"Upgrade: " + upgrade, b"Connection: " + connection, framing)


FAMILIES = {
    "codings": list(codings()),
    "lengths": list(lengths()),
    "hosts": list(hosts()),
    "targets": list(targets()),
    "lines": list(lines()),
    "odd fields": list(odd_fields()),
    "upgrades": list(upgrades()),
}
