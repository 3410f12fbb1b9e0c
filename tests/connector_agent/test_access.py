"""Access rules: bytes compared as they are, segment by segment."""

from __future__ import annotations

import hypothesis
import pytest
from hypothesis import strategies as st

from connector_agent.access import AccessRules, Rule

RULES = AccessRules(
    [
        Rule(("POST",), "/sap/frun", sub_paths=True),
        Rule(("GET", "POST"), "/exact", sub_paths=False),
        Rule(("GET",), "/folder/", sub_paths=False),
    ]
)


@pytest.mark.parametrize(
    ("method", "target", "code"),
    [
        (b"POST", b"/sap/frun", None),
        (b"POST", b"/sap/frun/", None),
        (b"POST", b"/sap/frun/x/y?z=/../", None),
        (b"POST", b"/sap/frun?x", None),
        (b"POST", b"/sap/frunny", "path-not-allowed"),
        (b"POST", b"/sap/frun%20", "path-not-allowed"),
        (b"POST", b"/SAP/frun", "path-not-allowed"),
        (b"POST", b"/sap", "path-not-allowed"),
        (b"POST", b"/", "path-not-allowed"),
        (b"GET", b"/sap/frun", "method-not-allowed"),
        (b"post", b"/sap/frun", "method-not-allowed"),
        (b"GET", b"/exact", None),
        (b"POST", b"/exact?q", None),
        (b"GET", b"/exact/x", "path-not-allowed"),
        (b"GET", b"/exact/", "path-not-allowed"),
        (b"GET", b"/folder/", None),
        (b"GET", b"/folder", "path-not-allowed"),
        (b"GET", b"/folder/x", "path-not-allowed"),
        (b"DELETE", b"/nowhere", "path-not-allowed"),
    ],
)
def test_rules(method: bytes, target: bytes, code: str | None) -> None:
    assert RULES.check(method, target) == code


def test_everything_below_the_root() -> None:
    rules = AccessRules([Rule(("POST",), "/", sub_paths=True)])
    assert rules.check(b"POST", b"/") is None
    assert rules.check(b"POST", b"/a/b") is None


def test_without_a_rule_nothing_is_allowed() -> None:
    assert AccessRules([]).check(b"POST", b"/") == "path-not-allowed"


@hypothesis.given(st.binary(max_size=40))
def test_a_path_that_passes_is_the_rules_own_or_below(tail: bytes) -> None:
    path = (b"/sap/frun" + tail).partition(b"?")[0]
    allowed = path == b"/sap/frun" or path.startswith(b"/sap/frun/")
    assert (RULES.check(b"POST", b"/sap/frun" + tail) is None) == allowed
