"""TCP routes in the config: who may send, who owns a name, who may share a port."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.config import RelayConfig
from cloud_relay.config.checks_tcp import covers
from shared.config import ConfigError, read_config

Document = dict[str, Any]
TLS = {"certificate": "relay.pem", "key": "relay.key"}
WHERE = "tenants.acme.tcp_routes"


def route(name: str = "logs", listen: str = ":6514", **more: Any) -> Document:
    made = {"name": name, "listen": listen, "networks": ["10.0.0.0/8"], "to": {"location": "walldorf", "target": name}}
    return {key: value for key, value in (made | more).items() if value is not None}


def document(base: Document, *routes: Document, globex: tuple[Document, ...] = (), **keys: Any) -> Document:
    base["tenants"]["acme"]["tcp_routes"] = list(routes)
    base["tenants"]["acme"]["senders"].append({"name": "plant", "certificate": {"san": "dns:plant.example.com"}})
    base["tenants"]["globex"]["tcp_routes"] = list(globex)
    return base | keys


GOOD: dict[str, Callable[[Document], Document]] = {
    "plain": lambda d: document(d, route()),
    "by certificate": lambda d: document(
        d, route(networks=None, tls={**TLS, "client_ca": "ca.pem"}, senders=["plant"])
    ),
    "sealed ones on one port": lambda d: document(
        d, route("a", sni="a.example.com"), route("b", sni=["*.b.example.com"]), globex=(route("c", sni="c.test"),)
    ),
    "a TLS one takes the rest": lambda d: document(d, route("a", sni="a.example.com"), route("b", tls=TLS)),
    "on the ingress' port": lambda d: document(
        d, route("a", ":443", sni="a.example.com"), ingress=[{"listen": ":443", "tls": TLS}]
    ),
    "a wildcard and a whole name of one tenant": lambda d: document(
        d, route("a", sni="*.example.com"), route("b", sni="a.example.com")
    ),
}


@pytest.mark.parametrize("case", GOOD)
def test_what_is_good(case, relay_document, write_config):
    read_config(write_config(GOOD[case](relay_document)), RelayConfig)


BAD: dict[str, tuple[Callable[[Document], Document], str]] = {
    "for anybody": (lambda d: document(d, route(networks=None)), f"{WHERE}[0]: anybody could send here"),
    "senders without a CA": (
        lambda d: document(d, route(senders=["plant"])), f"{WHERE}[0].senders: senders are known by",
    ),
    "a CA without senders": (
        lambda d: document(d, route(tls={**TLS, "client_ca": "ca.pem"})), f"{WHERE}[0]: a CA signs more",
    ),
    "a sender without a certificate": (
        lambda d: document(d, route(tls={**TLS, "client_ca": "ca.pem"}, senders=["s4"])),
        f"{WHERE}[0].senders[0]: sender 's4' has no certificate",
    ),
    "an unknown sender": (
        lambda d: document(d, route(tls={**TLS, "client_ca": "ca.pem"}, senders=["plan"])),
        f"{WHERE}[0].senders[0]: tenant 'acme' has no sender 'plan'; did you mean 'plant'?",
    ),
    "senders of a sealed one": (
        lambda d: document(d, route(sni="a.test", senders=["plant"])),
        "a sealed route's certificates end at the target",
    ),
    "a name twice": (
        lambda d: document(d, route("a", sni="a.test"), route("b", sni="A.TEST")),
        f"{WHERE}[1].sni: a.test already belongs to route acme/a",
    ),
    "another tenant's name": (
        lambda d: document(d, route("a", sni="*.example.com"), globex=(route("b", ":7000", sni="x.example.com"),)),
        "tenants.globex.tcp_routes[0].sni: x.example.com already belongs to route acme/a, as *.example.com",
    ),
    "a host of the ingress": (
        lambda d: document(d, route("a", ":443", sni="push.example.com"), ingress=[{"listen": ":443", "tls": TLS}]),
        f"{WHERE}[0].sni: push.example.com would take the host push.example.com from route acme/frun",
    ),
    "two without a name on one port": (
        lambda d: document(d, route("a", tls=TLS), route("b", tls=TLS)), f"{WHERE}[1].listen: :6514 already goes to",
    ),
    "a plain one on a shared port": (
        lambda d: document(d, route("a", sni="a.test"), route("b")), f"{WHERE}[1].listen: :6514 is shared",
    ),
    "a plain ingress' port": (
        lambda d: document(d, route("a", ":80", sni="a.test"), ingress=[{"listen": ":80"}]),
        f"{WHERE}[0].listen: :80 collides with ingress[0].listen",
    ),
    "the tunnel's port without a name of the tunnel": (
        lambda d: document(d, route("a", ":8443", sni="a.test"), tunnel={**d["tunnel"], "listen": ":8443"}),
        f"{WHERE}[0].listen: :8443 collides with tunnel.listen",
    ),
    "two minds about the proxy": (
        lambda d: document(d, route("a", sni="a.test", proxy_from=["10.0.0.0/8"]), route("b", sni="b.test")),
        f"{WHERE}[1]: all that share :6514",
    ),
    "a name of an HTTP route": (lambda d: document(d, route("frun")), f"{WHERE}[0].name: there is already a route"),
    "bytes, which nobody would count": (
        lambda d: document(d, route(limits={"bytes": "1MiB/s"})), f"{WHERE}[0].limits.bytes: bytes are limited on HTTP",
    ),
    "a wildcard for everything": (lambda d: document(d, route(sni="*.com")), "a wildcard for a whole top-level domain"),
    "an address for a name": (lambda d: document(d, route(sni="10.0.0.1")), "not a server name"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_is_refused(case: str, relay_document: Document, write_config: Callable[[Document], Path]) -> None:
    make, expected = BAD[case]
    with pytest.raises(ConfigError) as caught:
        read_config(write_config(make(relay_document)), RelayConfig)
    told = [str(problem) for problem in caught.value.problems]
    assert any(expected in one for one in told), told


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ("a.test", "a.test", True),
        ("*.a.test", "b.a.test", True),
        ("b.a.test", "*.a.test", True),
        ("*.a.test", "c.b.a.test", False),
        ("*.a.test", "a.test", False),
        ("*.a.test", "*.b.test", False),
    ],
)
def test_what_a_name_covers(one, other, expected):
    assert covers(one, other) is expected
