"""Where a target sends the sender: through the route, or nowhere."""

from __future__ import annotations

import pytest

from shared.http.location import rewrite_location

TARGET = b"https://frun.corp.local:44300"


@pytest.mark.parametrize(
    ("value", "target", "expected"),
    [
        (b"https://frun.corp.local:44300/sap/x?y#z", TARGET, b"/sap/x?y#z"),
        (b"HTTPS://Frun.Corp.Local:44300/a", TARGET, b"/a"),
        (b"https://frun.corp.local:44300", TARGET, b"/"),
        (b"https://frun.corp.local:44300?a", TARGET, b"/?a"),
        (b"//frun.corp.local:44300/a", TARGET, b"/a"),
        (b"https://frun.corp.local/a", b"https://frun.corp.local:443", b"/a"),
        (b"https://frun.corp.local:443/a", b"https://frun.corp.local/", b"/a"),
        (b"http://h/a", b"http://h:80", b"/a"),
        (b"/a/b", TARGET, b"/a/b"),
        (b"next?page=2", TARGET, b"next?page=2"),
        (b"?page=2", TARGET, b"?page=2"),
        (b"../up", TARGET, b"../up"),
        (b"/base/a", TARGET + b"/base", b"/a"),
        (b"/base", TARGET + b"/base/", b"/"),
        (b"/based/a", TARGET + b"/base", None),
        (b"/other", TARGET + b"/base", None),
        (b"https://frun.corp.local/a", TARGET, None),
        (b"http://frun.corp.local:44300/a", TARGET, None),
        (b"https://evil.example/a", TARGET, None),
        (b"https://frun.corp.local:44300@evil.example/", TARGET, None),
        (b"https://frun.corp.local:44300.evil.example/", TARGET, None),
        (b"//evil.example/a", TARGET, None),
        (b"/\\evil.example/a", TARGET, None),
        (b"https://frun.corp.local:44300//evil.example/", TARGET, None),
        (b"javascript:alert(1)", TARGET, None),
        (b"ftp://frun.corp.local:44300/", TARGET, None),
        (b"/a b", TARGET, None),
        (b"/a\r\nX: y", TARGET, None),
        (b"/\xff", TARGET, None),
        (b"/base//evil.example", TARGET + b"/base", None),
        (b"/a", b"nonsense", None),
    ],
)
def test_rewrite(value: bytes, target: bytes, expected: bytes | None) -> None:
    assert rewrite_location(value, target) == expected


def test_the_routes_prefix_is_put_before() -> None:
    assert rewrite_location(b"/a?b", TARGET, b"/route") == b"/route/a?b"
