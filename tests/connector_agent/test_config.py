"""The config: what is taken, and where and how what is not taken is told."""

from __future__ import annotations

from pathlib import Path

import pytest

from connector_agent.config import ConnectorConfig, Url, parse_url
from connector_agent.config_checks import find_warnings
from shared.config import ConfigError, json_schema, load_config

HEAD = """\
relays: [wss://relay.example.com]
state_dir: state
tls: {certificate: c.pem, key: c.key, ca: ca.pem}
"""
ALLOW = "allow: [{methods: [POST], path: /x}]"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("c.pem", "c.key", "ca.pem", "secret"):
        (tmp_path / name).write_text("x\n")
    return tmp_path


def load(folder: Path, text: str) -> ConnectorConfig:
    path = folder / "connector.yaml"
    path.write_text(text)
    return load_config(path, ConnectorConfig)


def problems(folder: Path, text: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(folder, text)
    return [f"{problem.line}: {problem.key}: {problem.message}" for problem in caught.value.problems]


def test_a_whole_config(folder: Path) -> None:
    config = load(
        folder,
        HEAD
        + """\
tunnels: 3
proxy: {url: "http://proxy.corp:3128", auth_file: secret, no_proxy: [.corp]}
observe: {listen: "127.0.0.1:9001"}
log: {format: console, level: debug, access: "off"}
memory: {budget: 64MiB}
drain: {timeout: 10s}
targets:
  - name: focused-run
    url: https://frun.corp.local:44300
    host: keep
    allow: [{methods: [POST, GET], path: /sap/frun, sub_paths: true}]
    headers: {set: {X-Static: a}, set_from_files: {Authorization: secret}, remove: [X-A], allow: [X-Scope-OrgID]}
    tls: {ca: ca.pem, certificate: c.pem, key: c.key}
    networks: [10.1.0.0/16, "fd00::/8"]
    limits: {body: 10MiB, connections: 8}
    timeouts: {connect: 1s, first_byte: 10s, idle: 2m}
""",
    )
    target = config.targets[0]
    assert target.url == Url("https", "frun.corp.local", 44300)
    assert str(target.url) == "https://frun.corp.local:44300"
    assert target.allow[0].methods == ("POST", "GET")
    assert target.limits.body == 10 << 20
    assert target.timeouts.idle == 120.0
    assert config.relays[0].port == 443
    assert config.drain.timeout == 10.0
    assert find_warnings(config) == []


def test_the_defaults(folder: Path) -> None:
    config = load(folder, HEAD + f"targets: [{{name: t, url: http://t, {ALLOW}}}]\n")
    assert (config.tunnels, config.proxy, config.observe) == (2, None, None)
    target = config.targets[0]
    assert (target.host, target.timeouts.connect, target.timeouts.first_byte, target.timeouts.idle) == (
        "replace", 2.0, 25.0, None,
    )  # fmt: skip
    assert not target.allow[0].sub_paths


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"targets:\n  - {{name: t, url: http://t, {ALLOW}, colour: red}}\n", "5: targets[0].colour: "),
        ("join: {token_file: x}\n", "4: join: "),
        (f"targets:\n  - {{name: T, url: http://t, {ALLOW}}}\n", "5: targets[0].name: 'T' is not a name"),
        (f"targets:\n  - {{name: t, url: 'http://t/x', {ALLOW}}}\n", "5: targets[0].url: write scheme, host and port"),
        (f"targets:\n  - {{name: t, url: 'http://u:p@t', {ALLOW}}}\n", "5: targets[0].url: write scheme"),
        (f"targets:\n  - {{name: t, url: 'ftp://t', {ALLOW}}}\n", "5: targets[0].url: write scheme"),
        (f"targets:\n  - {{name: t, url: 'http://t:99999', {ALLOW}}}\n", "5: targets[0].url: this names no host"),
        ("targets:\n  - {name: t, url: http://t}\n", "5: targets[0]: target 't' allows nothing"),
        ("targets:\n  - {name: t, url: http://t, allow: []}\n", "5: targets[0]: target 't' allows nothing"),
        (f"targets:\n  - {{name: t, {ALLOW}}}\n", "5: targets[0]: target 't' needs a url"),
        (f"targets:\n  - {{name: t, url: http://t, tcp: 'a:1', {ALLOW}}}\n", "5: targets[0]: target 't' needs a url"),
        (f"targets:\n  - {{name: t, tcp: 'a:514', {ALLOW}}}\n", "5: targets[0].allow: allow is for targets with a url"),
        ("targets:\n  - {name: t, tcp: '169.254.1.1:514'}\n", "5: targets[0].tcp: 169.254.1.1 is link-local"),
        (
            f"targets:\n  - {{name: t, url: 'http://t', proxy_protocol: true, {ALLOW}}}\n",
            "5: targets[0].proxy_protocol: the PROXY protocol is for tcp targets",
        ),
        (
            f"targets:\n  - {{name: t, url: http://t, {ALLOW}}}\n  - {{name: t, url: http://u, {ALLOW}}}\n",
            "6: targets[1].name: there is already a target called 't'",
        ),
        ("targets: [{name: t, url: http://t, allow: [{methods: [], path: /x}]}]\n", "methods: must not be empty"),
        ("targets: [{name: t, url: http://t, allow: [{methods: [post], path: /x}]}]\n", "not a method"),
        ("targets: [{name: t, url: http://t, allow: [{methods: [CONNECT], path: /x}]}]\n", "never reaches a target"),
        ("targets: [{name: t, url: http://t, allow: [{methods: ['*'], path: /x}]}]\n", "not a method"),
        (
            "targets: [{name: t, url: http://t, allow: [{methods: [POST], path: /x}], upgrade: [websocket]}]\n",
            "4: targets[0].upgrade: a WebSocket begins with GET, which this target allows nowhere",
        ),
        (f"targets: [{{name: t, url: http://t, {ALLOW}, upgrade: [h2c]}}]\n", "targets[0].upgrade[0]: "),
        ("targets: [{name: t, url: http://t, allow: [{methods: [GET], path: '/x/*'}]}]\n", "there are no patterns"),
        ("targets: [{name: t, url: http://t, allow: [{methods: [GET], path: /x/../y}]}]\n", "not a path"),
        ("targets: [{name: t, url: http://t, allow: [{methods: [GET], path: /%2e}]}]\n", "not a path"),
        ("targets: [{name: t, url: http://t, allow: [{methods: [GET], path: x}]}]\n", "not a path"),
        ("targets: [{name: t, url: http://t, allow: [{methods: [GET], path: /x/, sub_paths: true}]}]\n", "drop the"),
        (f"targets: [{{name: t, url: http://t, {ALLOW}, tls: {{}}}}]\n", "the url is http"),
        (f"targets: [{{name: t, url: https://t, {ALLOW}, tls: {{key: c.key}}}}]\n", "given together"),
        (f"targets: [{{name: t, url: https://t, {ALLOW}, tls: {{ca: nope.pem}}}}]\n", "nope.pem cannot be read"),
        (f"targets: [{{name: t, url: http://169.254.169.254, {ALLOW}}}]\n", "is link-local"),
        (f"targets: [{{name: t, url: http://10.0.0.1, networks: [10.1.0.0/16], {ALLOW}}}]\n", "in none of"),
        (f"targets: [{{name: t, url: http://t, networks: [10.1.0.1/16], {ALLOW}}}]\n", "not a network"),
        (f"targets: [{{name: t, url: http://t, {ALLOW}, headers: {{set: {{Cookie: x}}}}}}]\n", "is a secret"),
        (f"targets: [{{name: t, url: http://t, {ALLOW}, headers: {{set: {{Host: x}}}}}}]\n", "cannot be configured"),
        (f"targets: [{{name: t, url: http://t, {ALLOW}, headers: {{set: {{X-A: ä}}}}}}]\n", "one line of"),
        (
            f"targets: [{{name: t, url: http://t, {ALLOW}, headers: {{set: {{X-A: x}}, remove: [x-a]}}}}]\n",
            "stands in set too",
        ),
        ("tunnels: 0\n", "4: tunnels: "),
        ("proxy: {url: 'http://user:secret@proxy:1'}\n", "4: proxy.url: write scheme, host and port"),
    ],
)
def test_problems(folder: Path, text: str, expected: str) -> None:
    found = problems(folder, HEAD + text)
    assert any(expected in problem for problem in found), found
    assert len(found) == 1, found
    assert "secret@" not in found[0]


@pytest.mark.parametrize("relays", ["[]", "[ws://relay]", "[wss://relay/path]", "[wss://a, wss://a]", "relay"])
def test_relays(folder: Path, relays: str) -> None:
    assert len(problems(folder, HEAD.replace("[wss://relay.example.com]", relays))) == 1


def test_warnings(folder: Path) -> None:
    headers = "headers: {set_from_files: {Authorization: secret}, allow: [X-Harmless]}"
    config = load(folder, HEAD + f"targets: [{{name: t, url: http://t, {ALLOW}, {headers}}}]\n")
    told = [flaw.message for flaw in find_warnings(config)]
    assert len(told) == 2
    assert "readable" in told[0]
    assert "x-harmless would pass anyway" in told[1]
    assert "exposes nothing" in find_warnings(load(folder, HEAD))[0].message


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("https://Frun.Corp", Url("https", "frun.corp", 443)),
        ("http://[::1]:80/", Url("http", "::1", 80)),
        ("http://[::1]", Url("http", "::1", 80)),
        ("http://127.0.0.1:1", Url("http", "127.0.0.1", 1)),
    ],
)
def test_urls(text: str, url: Url) -> None:
    assert parse_url(text, ("http", "https"), "") == url


def test_authority() -> None:
    assert Url("https", "::1", 443).authority == "[::1]"
    assert Url("https", "a", 80).authority == "a:80"


def test_the_schema_describes_every_field(folder: Path) -> None:
    schema = json_schema(ConnectorConfig)
    assert "relays" in schema["properties"]
    assert schema["$defs"]["AllowConfig"]["properties"]["path"]["description"]


@pytest.mark.parametrize(
    ("written", "described"),
    [
        ("url: https://t, A", "tls"),
        ("url: http://t, A", "tcp"),
        ("tcp: t:514", "tcp"),
        ("url: https://t, A, probe: {kind: tcp, interval: 1m}", "tcp"),
        ("url: https://t, A, probe: {kind: none}", "none"),
        ("url: http://t, A, probe: {kind: http, path: /-/healthy}", "GET /-/healthy, expecting 2xx"),
        (
            "url: http://t, A, probe: {kind: http, method: HEAD, path: '/ping?sap-client=100', status: [200, 4xx]}",
            "HEAD /ping?sap-client=100, expecting 200, 4xx",
        ),
        ("url: http://t, A, probe: {kind: http, status: 401}", "GET /, expecting 401"),
    ],
)
def test_probes(folder: Path, written: str, described: str) -> None:
    written = written.replace("A", ALLOW, 1)
    target = load(folder, HEAD + f"targets: [{{name: t, {written}}}]\n").targets[0]
    assert target.probe.spec(target.url.scheme if target.url is not None else "tcp").describe() == described


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("url: http://t, A, probe: {kind: tls}", "tls is for targets with an https url"),
        ("tcp: t:514, probe: {kind: http}", "http is for targets with a url"),
        ("url: http://t, A, probe: {path: /x}", "path is for probes of kind http; add kind: http"),
        ("url: http://t, A, probe: {kind: http, method: POST}", "'GET', 'HEAD' or 'OPTIONS'"),
        ("url: http://t, A, probe: {kind: http, path: //x}", "not a path"),
        ("url: http://t, A, probe: {kind: http, path: 'x y'}", "not a path"),
        ("url: http://t, A, probe: {kind: http, status: []}", "must not be empty"),
        ("url: http://t, A, probe: {kind: http, status: [20]}", "not a status"),
        ("url: http://t, A, probe: {kind: http, status: [true]}", "not a status"),
        ("url: http://t, A, probe: {interval: 10ms}", "greater than or equal to 1"),
        ("url: http://t, A, probe: {timeout: 11s}", "less than or equal to 10"),
        ("url: http://t, A, probe: {every: 1s}", "this key is not known"),
    ],
)
def test_probes_that_are_not_taken(folder: Path, written: str, told: str) -> None:
    written = written.replace("A", ALLOW, 1)
    found = problems(folder, HEAD + f"targets: [{{name: t, {written}}}]\n")
    assert len(found) == 1
    assert told in found[0]
