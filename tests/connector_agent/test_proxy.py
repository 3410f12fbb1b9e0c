"""The proxy: which one, for whom, and what its answers mean."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
from collections.abc import AsyncIterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connector_agent import dialer, proxy
from connector_agent.dialer import ProxyChoice
from connector_agent.proxy import (
    Proxy,
    ProxyError,
    basic_authorization,
    connect_through,
    is_exempt,
    no_proxy_from_environment,
    parse_proxy,
    proxy_from_environment,
)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("http://proxy.corp:3128", Proxy("http", "proxy.corp", 3128)),
        ("http://Proxy.Corp:8080/", Proxy("http", "proxy.corp", 8080)),
        ("proxy.corp:8080", Proxy("http", "proxy.corp", 8080)),
        ("http://proxy.corp", Proxy("http", "proxy.corp", 3128)),
        ("https://proxy.corp", Proxy("https", "proxy.corp", 443)),
        ("http://[fd00::1]:3128", Proxy("http", "fd00::1", 3128)),
    ],
)
def test_urls(url, expected):
    assert parse_proxy(url) == expected


@pytest.mark.parametrize(
    "url",
    ["socks5://p:1080", "http://", "http://p:0", "http://p:99999", "http://p:3128/x", "http://u:secret@p:3128", "a b"],
)
def test_what_is_no_proxy(url):
    with pytest.raises(ProxyError) as caught:
        parse_proxy(url)
    assert caught.value.code == "proxy-bad-url"
    assert "secret" not in str(caught.value)


def test_lower_case_counts_before_upper_case():
    environ = {"https_proxy": "http://a:1", "HTTPS_PROXY": "http://b:2", "NO_PROXY": "x, y.z  10.0.0.0/8,"}
    assert proxy_from_environment(environ) == Proxy("http", "a", 1)
    assert no_proxy_from_environment(environ) == ("x", "y.z", "10.0.0.0/8")
    assert proxy_from_environment({"HTTPS_PROXY": " "}) is None
    assert proxy_from_environment({"HTTP_PROXY": "http://a:1"}) is None


@pytest.mark.parametrize(
    ("entry", "exempt", "not_exempt"),
    [
        ("*", ["relay.corp", "10.0.0.1"], []),
        ("corp.local", ["corp.local", "a.corp.local", "CORP.local."], ["xcorp.local", "local", "corp.local.evil"]),
        (".corp.local", ["a.corp.local", "corp.local"], ["xcorp.local"]),
        ("*.corp.local", ["a.corp.local"], ["xcorp.local"]),
        ("relay.corp:443", ["relay.corp"], []),
        ("relay.corp:8443", [], ["relay.corp"]),
        ("10.0.0.0/8", ["10.1.2.3"], ["11.0.0.1", "ten.corp"]),
        ("10.0.0.1", ["10.0.0.1"], ["10.0.0.10", "110.0.0.1"]),
        ("fd00::/8", ["fd00::1"], ["fe80::1", "10.0.0.1"]),
        ("[fd00::1]:443", ["fd00::1"], ["fd00::2"]),
        ("", [], ["relay.corp"]),
        ("..", [], ["relay.corp"]),
        ("not a network/8", [], ["10.0.0.1"]),
    ],
)
def test_exemptions(entry, exempt, not_exempt):
    assert exempt + not_exempt
    assert all(is_exempt(host, 443, [entry]) for host in exempt)
    assert not any(is_exempt(host, 443, [entry]) for host in not_exempt)


@given(st.text(max_size=40), st.ip_addresses() | st.sampled_from(["relay.corp", "a.b.c"]))
def test_no_entry_raises(entry, host):
    assert is_exempt(str(host), 443, [entry]) in (True, False)


@given(st.ip_addresses(v=4), st.integers(0, 32))
def test_a_network_exempts_its_members(address, prefix):
    network = ipaddress.ip_network(f"{address}/{prefix}", strict=False)
    assert is_exempt(str(address), 443, [str(network)])


def test_loopback_needs_no_proxy_unless_the_config_says_so():
    some = Proxy("http", "p", 1)
    assert ProxyChoice(some).for_host("127.0.0.1", 443) is None
    assert ProxyChoice(some).for_host("localhost", 443) is None
    assert ProxyChoice(some, skips_loopback=False).for_host("localhost", 443) is some
    assert ProxyChoice(some, ("corp",)).for_host("relay.corp", 443) is None
    assert ProxyChoice(some, ("corp",)).for_host("relay.test", 443) is some
    assert ProxyChoice().for_host("relay.test", 443) is None


def test_credentials_come_from_a_file_and_are_not_shown():
    value = basic_authorization(b"Aladdin:open sesame\n")
    assert value == "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="
    shown = repr(Proxy("http", "p", 1, value))
    assert shown == "<Proxy http://p:1 with credentials>"
    assert str(Proxy("http", "fd00::1", 1, value)) == "http://[fd00::1]:1"


@pytest.mark.parametrize("content", [b"", b"nocolon", b"a:b\nc:d", b"a:b\r\nX: y", "ü:b".encode(), b":b", b"a\x00:b"])
def test_bad_credentials_are_not_repeated(content):
    with pytest.raises(ProxyError) as caught:
        basic_authorization(content)
    assert str(caught.value) == "proxy.auth_file must hold one line in ASCII: user:password"


@contextlib.asynccontextmanager
async def scripted(answer: bytes, *, stays: bool = True) -> AsyncIterator[tuple[Proxy, list[bytes]]]:
    """A proxy that gives one answer."""
    heard: list[bytes] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            heard.append(await reader.readuntil(b"\r\n\r\n"))
            writer.write(answer)
            if stays:
                await reader.read()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Proxy("http", "127.0.0.1", server.sockets[0].getsockname()[1], "Basic eDp5"), heard
    finally:
        server.close()
        await asyncio.sleep(0.01)


async def ask(through: Proxy) -> asyncio.Transport:
    raw = await dialer.connect(through.host, through.port)
    return await connect_through(raw, through, "relay.test", 443)


@pytest.mark.parametrize(
    "answer", [b"HTTP/1.1 200 OK\r\n\r\n", b"HTTP/1.0 200\r\nVia: x\r\n\r\n", b"HTTP/1.1 299 x\r\n\r\n"]
)
async def test_a_way_is_opened(answer):
    async with scripted(answer) as (through, heard):
        transport = await ask(through)
        assert heard == [
            b"CONNECT relay.test:443 HTTP/1.1\r\nHost: relay.test:443\r\nProxy-Authorization: Basic eDp5\r\n\r\n"
        ]
        transport.abort()


ANSWERS = {
    "407": (b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n", "proxy-credentials-refused"),
    "403": (b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno", "proxy-denied"),
    "502": (b"HTTP/1.1 502 Bad Gateway\r\n\r\n", "proxy-cannot-connect"),
    "redirect": (b"HTTP/1.1 302 Found\r\nLocation: http://login\r\n\r\n", "proxy-denied"),
    "garbage": (b"\x00\x01\r\n\r\n", "proxy-bad-answer"),
    "HTTP/2": (b"HTTP/2 200\r\n\r\n", "proxy-bad-answer"),
    "endless": (b"HTTP/1.1 200 OK\r\n" + b"A: b\r\n" * 9000, "proxy-bad-answer"),
    "talkative": (b"HTTP/1.1 200 OK\r\n\r\nhello", "proxy-bad-answer"),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_refusals(name):
    answer, code = ANSWERS[name]
    async with scripted(answer) as (through, _):
        with pytest.raises(ProxyError) as caught:
            await ask(through)
    assert caught.value.code == code
    assert "eDp5" not in str(caught.value)


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 200 OK\r\nVia"])
async def test_a_proxy_that_hangs_up(answer):
    async with scripted(answer, stays=False) as (through, _):
        with pytest.raises(ProxyError) as caught:
            await ask(through)
    assert caught.value.code == "proxy-closed"


async def test_cancelled_it_leaves_nothing_open():
    async with scripted(b"") as (through, _):
        raw = await dialer.connect(through.host, through.port)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await connect_through(raw, through, "relay.test", 443)
        assert raw.is_closing()


def test_defaults():
    assert proxy.DEFAULT_PORTS == {"http": 3128, "https": 443}
