"""The routing table against a slow model, and the cases that people get wrong."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from cloud_relay.gates import Gate
from cloud_relay.metrics import RelayMetrics
from cloud_relay.routing import Route, RoutingTable
from cloud_relay.senders import Realm
from shared.errors import FAULTS


def make_route(host: str, path: str, sub_paths: bool = True, **changes: Any) -> Route:
    settings: dict[str, Any] = {
        "tenant": "acme", "name": "r", "host": host.encode(), "path": path.encode(), "sub_paths": sub_paths,
        "location": "walldorf", "target": "t", "senders": frozenset(), "realm": Realm("acme", []), "gate": Gate(),
        "metrics": RelayMetrics(process=False).route("acme", "r"), "quota_fault": FAULTS["quota-exceeded"],
        "max_body": 10, "hold": 3.0, "timeout": 30.0,
    }  # fmt: skip
    return Route(**(settings | changes))


def model_lookup(routes: list[Route], host: bytes, path: bytes) -> Route | None:
    """The rule, said slowly: of all routes that match, the longest; an exact one before a prefix."""
    matching = [
        route
        for route in routes
        if route.host == host
        and (
            path == route.path
            or (route.sub_paths and path.startswith(route.path if route.path == b"/" else route.path + b"/"))
        )
    ]
    return max(matching, key=lambda route: len(route.path), default=None)


paths = st.lists(st.sampled_from(["a", "b", "ab", "", "a-very-long-segment", "%2e"]), max_size=6).map(
    lambda parts: "/" + "/".join(parts)
)


@given(
    st.dictionaries(st.tuples(st.sampled_from(["one", "two"]), paths), st.booleans(), max_size=12),
    st.sampled_from([b"one", b"two", b"three"]),
    paths.map(str.encode) | st.binary(max_size=12),
)
@example({("one", "/a"): True, ("one", "/a/b"): False}, b"one", b"/a/b/")
@example({("one", "/a/"): False, ("one", "/"): True}, b"one", b"/a/")
def test_finds_what_the_model_finds(matches: dict[tuple[str, str], bool], host: bytes, path: bytes) -> None:
    # A prefix that ends in '/' is refused by the config's checks, so it need not work.
    routes = [
        make_route(of, where, below if not where.endswith("/") or where == "/" else False)
        for (of, where), below in matches.items()
    ]
    assert RoutingTable(routes).lookup(host, path) is model_lookup(routes, host, path)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (b"/sap/frun", True),
        (b"/sap/frun/", True),
        (b"/sap/frun/x/y/z", True),
        (b"/sap/frunny", False),
        (b"/sap", False),
        (b"/sap/Frun", False),
        (b"/sap%2ffrun", False),
        (b"//sap/frun", False),
        (b"sap/frun", False),
        (b"*", False),
        (b"", False),
    ],
)
def test_matches_by_segment(path: bytes, found: bool) -> None:
    table = RoutingTable([make_route("push.example.com", "/sap/frun")])
    assert (table.lookup(b"push.example.com", path) is not None) is found


@pytest.mark.parametrize(
    ("host", "found"),
    [
        (b"push.example.com", True),
        (b"push.example.com:443", True),
        (b"push.example.com:", True),
        (b"push.example.com:https", False),
        (b"push.example.com.", False),
        (b"x.push.example.com", False),
        (b":443", False),
        (b"", False),
        (b"push.example.com:443:443", False),
    ],
)
def test_the_port_does_not_count(host: bytes, found: bool) -> None:
    table = RoutingTable([make_route("push.example.com", "/")])
    assert table.has_host(host) is found
    assert (table.lookup(host, b"/") is not None) is found


def test_ipv6_literals_keep_their_brackets() -> None:
    table = RoutingTable([make_route("[::1]", "/")])
    assert table.has_host(b"[::1]")
    assert table.has_host(b"[::1]:8443")
    assert not table.has_host(b"::1")
    assert not table.has_host(b"[::1")


def test_a_path_of_slashes_costs_no_more_than_the_deepest_route() -> None:
    table = RoutingTable([make_route("one", "/a/b/c")])
    assert table.lookup(b"one", b"/" * 8000) is None
    assert table.lookup(b"one", b"/" + b"a" * 8000 + b"/b") is None


def test_the_key_is_what_the_registry_is_keyed_by() -> None:
    route = make_route("one", "/", location="walldorf", target="frun")
    assert route.key == ("acme", "walldorf", "frun")
    assert repr(route) == "<Route acme/r one//… -> walldorf/frun>"
