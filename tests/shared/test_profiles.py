"""Profiles: what they fill, and that whatever stands in the config wins."""

from __future__ import annotations

import io
import json
from typing import Any, get_args

import pytest
from rich.console import Console
from typer.testing import CliRunner

from cloud_relay.cli import app as relay_app
from cloud_relay.config import RouteConfig
from connector_agent.cli import app as connector_app
from connector_agent.config import TargetConfig
from shared.commands import profile_blocks
from shared.profiles import PROFILES, ProfileName, fill

ROUTE = {"name": "r", "match": {"host": "h"}, "senders": ["s"], "to": {"location": "l", "target": "t"}}
TARGET = {"name": "t", "url": "http://t.local"}


def route(**more: Any) -> RouteConfig:
    return RouteConfig.model_validate(ROUTE | more)


def target(**more: Any) -> TargetConfig:
    return TargetConfig.model_validate(TARGET | more)


def test_there_is_one_for_each_name():
    assert set(PROFILES) == set(get_args(ProfileName))


@pytest.mark.parametrize("name", [name for name, one in PROFILES.items() if one.path])
def test_a_profile_makes_a_route_and_a_target_that_fit_each_other(name):
    profile = PROFILES[name]
    made, exposed = route(profile=name), target(profile=name)
    assert (made.match.path, made.match.sub_paths) == (profile.path, profile.sub_paths)
    assert (made.limits.body, made.idempotent, made.quota_status) == (
        profile.body, profile.idempotent, profile.quota_status,
    )  # fmt: skip
    (rule,) = exposed.allow
    assert (rule.path, rule.sub_paths, rule.methods) == (profile.path, profile.sub_paths, profile.methods)
    assert exposed.limits.body == profile.body
    assert exposed.content_types == profile.content_types
    assert exposed.headers.only == profile.headers


def test_what_stands_in_the_config_wins():
    made = route(
        profile="prometheus-remote-write", match={"host": "h", "path": "/write"}, limits={"rate": "5/s", "body": 7},
        idempotent=False, quota_status=429,
    )  # fmt: skip
    assert (made.match.path, made.match.sub_paths, made.limits.body, made.limits.rate) == ("/write", True, 7, 5.0)
    assert (made.idempotent, made.quota_status) == (False, 429)
    exposed = target(
        profile="otlp-http", allow=[{"methods": ["PUT"], "path": "/x"}], content_types=[],
        headers={"set": {"X-A": "1"}, "only": []}, limits={"connections": 3},
    )  # fmt: skip
    assert [rule.path for rule in exposed.allow] == ["/x"]
    assert (exposed.content_types, exposed.headers.only, exposed.headers.set) == ((), (), {"X-A": "1"})
    assert (exposed.limits.connections, exposed.limits.body) == (3, 20 << 20)


def test_the_generic_one_says_neither_path_nor_method():
    assert target(profile="generic").allow == ()
    with pytest.raises(ValueError, match="path"):
        route(profile="generic")


def test_without_a_profile_nothing_is_filled():
    assert fill(ROUTE, "route") is ROUTE
    assert fill(ROUTE | {"profile": ["x"]}, "route") == ROUTE | {"profile": ["x"]}
    assert fill("x", "route") == "x"
    with pytest.raises(ValueError, match="profile"):
        route(profile="syslog", match={"host": "h", "path": "/"})


@pytest.mark.parametrize("app", [relay_app, connector_app], ids=["cloud-relay", "connector-agent"])
def test_both_commands_show_them(app):
    shown = CliRunner().invoke(app, ["profiles", "--json"])
    found = json.loads(shown.stdout)
    assert found["schema"] == "qanat.profiles.v1"
    assert [one["profile"] for one in found["profiles"]] == list(PROFILES)
    shown = CliRunner().invoke(app, ["profiles"])
    assert shown.exit_code == 0
    assert all(name in shown.stdout for name in PROFILES)


def test_they_fit_a_terminal_and_no_word_is_broken():
    """Rich's own console, as `emit` makes one for a terminal."""
    views = [profile.view() for profile in PROFILES.values()]
    written = io.StringIO()
    console = Console(file=written, width=80, highlight=False, markup=False)
    console.print(profile_blocks(views))
    text = written.getvalue()
    words = text.split()
    for view in views:
        wanted = [*view["methods"], *view["content_types"], *view["headers"], *view["retried"].split()]
        assert {word.rstrip(",") for word in wanted} <= {word.rstrip(",") for word in words}
    assert max(map(len, text.splitlines())) <= 80
