"""The command line, without a running relay."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.cli import app
from shared.cli import invoke
from shared.secrets import parse_stored, verify

Document = dict[str, Any]


@pytest.fixture
def config(relay_document: Document, write_config: Callable[[Document], Path]) -> Path:
    return write_config(relay_document)


def test_check_names_every_problem_with_file_and_line(
    relay_document: Document, write_config: Callable[[Document], Path], capsys: pytest.CaptureFixture[str]
) -> None:
    relay_document["tenants"]["acme"]["routes"][0]["senders"] = ["nobody"]
    relay_document["colour"] = "blue"
    path = write_config(relay_document)
    assert invoke(app, ["check", "--config", str(path)]) == 3
    error = capsys.readouterr().err
    assert f"{path}:" in error
    assert "tenants.acme.routes[0].senders[0]: tenant 'acme' has no sender 'nobody'; it has ibp, s4" not in error
    assert "colour: this key is not known" in error


def test_check_of_certificates_that_are_none(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["check", "--config", str(config), "--json"]) == 3
    problem = json.loads(capsys.readouterr().err)
    assert problem["code"] == "certificate-unusable"
    assert "relay.pem" in problem["title"]


def test_schema_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert {"tunnel", "ingress", "tenants", "include"} <= schema["properties"].keys()


def test_a_new_secret_fits_its_hash(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["secrets", "new", "--json"]) == 0
    made = json.loads(capsys.readouterr().out)
    assert len(made["secret"]) <= 64
    assert verify(made["hash"], made["secret"])


@pytest.mark.parametrize(("options", "kind"), [([], "scrypt"), (["--generated"], "sha256")])
def test_a_password_is_read_from_standard_input(
    options: list[str], kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    secret = "correct horse battery staple"
    monkeypatch.setattr("sys.stdin", io.StringIO(secret + "\n"))
    assert invoke(app, ["secrets", "hash", *options]) == 0
    hashed = capsys.readouterr().out.strip()
    assert parse_stored(hashed).kind == kind
    assert verify(hashed, secret)
    assert secret not in hashed


@pytest.mark.parametrize("text", ["", "\n", "two\nlines\n"])
def test_no_password_is_no_hash(text: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO(text))
    assert invoke(app, ["secrets", "hash"]) == 2
    assert capsys.readouterr().out == ""


def test_a_short_secret_was_not_generated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("hunter2\n"))
    assert invoke(app, ["secrets", "hash", "--generated"]) == 5


def test_a_secret_is_never_an_argument() -> None:
    assert invoke(app, ["secrets", "hash", "hunter2"]) == 2


ROUTE_CASES = [
    (["https://push.example.com/sap/frun/x?a=b"], 0, "frun"),
    (["https://PUSH.example.com:8443/sap/frun", "--sender", "ibp"], 0, "frun"),
    (["https://push.example.com/write", "--sender", "ibp"], 5, "sender-not-allowed"),
    (["https://push.example.com/write/x"], 4, "no-such-route"),
    (["https://elsewhere.example.com/"], 4, "unknown-host"),
    (["https://push.example.com/sap/../frun"], 5, "bad-path"),
    (["https://push.example.com/write", "--sender", "ipb"], 4, "unknown-sender"),
    (["push.example.com/write"], 2, "usage"),
    (["https://[push/"], 2, "usage"),
]


TCP_CASES = [
    (["tcp://relay.example.com:2003"], 0, "graphite"),
    (["tls://otlp.example.com:6514"], 0, "otlp"),
    (["tls://x.sealed.example.com:6514"], 0, "otlp"),
    (["tls://other.example.com:6514"], 4, "unknown-server-name"),
    (["tcp://relay.example.com:2004"], 4, "no-such-route"),
    (["tcp://relay.example.com:2003", "--source", "10.1.2.3"], 0, "graphite"),
    (["tcp://relay.example.com:2003", "--source", "192.0.2.1"], 5, "sender-network-refused"),
    (["tcp://relay.example.com"], 2, "usage"),
    (["tcp://relay.example.com:70000"], 2, "usage"),
    (["tcp://[relay:2003"], 2, "usage"),
    (["tcp://relay.example.com:2003", "--source", "somewhere"], 2, "usage"),
]


@pytest.mark.parametrize(("arguments", "exit_code", "expected"), TCP_CASES)
def test_which_way_a_connection_would_take(
    arguments: list[str], exit_code: int, expected: str, relay_document: dict[str, Any],
    write_config: Callable[[Any], Path], capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    common = {"networks": ["10.0.0.0/8"], "to": {"location": "walldorf", "target": "t"}}
    relay_document["tenants"]["acme"]["tcp_routes"] = [
        {"name": "graphite", "listen": ":2003"} | common,
        {"name": "otlp", "listen": ":6514", "sni": ["otlp.example.com", "*.sealed.example.com"]} | common,
    ]
    command = ["routes", "test", "CONNECT", *arguments, "--config", str(write_config(relay_document))]
    assert invoke(app, [*command, "--json"]) == exit_code
    shown = capsys.readouterr()
    told = json.loads(shown.err if exit_code else shown.out)
    assert told["code" if exit_code else "route"] == expected
    if not exit_code:
        assert invoke(app, command) == 0
        assert expected in capsys.readouterr().out


@pytest.mark.parametrize(("arguments", "exit_code", "expected"), ROUTE_CASES)
def test_which_way_a_push_would_take(
    arguments: list[str], exit_code: int, expected: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(app, ["routes", "test", "POST", *arguments, "--config", str(config), "--json"]) == exit_code
    streams = capsys.readouterr()
    if exit_code:
        assert json.loads(streams.err)["code"] == expected
    else:
        shown = json.loads(streams.out)
        assert (shown["route"], shown["target"], shown["limits"]["body"]) == (expected, "focused-run", 1 << 20)


def test_a_route_for_people(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["routes", "test", "POST", "https://push.example.com/sap/frun", "-c", str(config)]) == 0
    shown = capsys.readouterr().out
    assert "acme/frun" in shown
    assert "1MiB a body, 10/s, 4 at once; then 429" in shown


def test_a_method_is_a_word(config: Path) -> None:
    assert invoke(app, ["routes", "test", "post it", "https://push.example.com/", "-c", str(config)]) == 2


@pytest.mark.parametrize(
    ("arguments", "hint"),
    [
        (["https://pusch.example.com/sap/frun"], "Did you mean push.example.com?"),
        (["https://push.example.com/sap/frunn"], "Did you mean /sap/frun?"),
        (["https://push.example.com/write", "--sender", "ipb"], "Did you mean ibp?"),
    ],
)
def test_what_may_have_been_meant(
    arguments: list[str], hint: str, config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert invoke(app, ["routes", "test", "POST", *arguments, "-c", str(config)]) == 4
    assert hint in capsys.readouterr().err


def test_a_config_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["status", "-c", str(tmp_path / "nowhere.yaml")]) == 3
    shown = capsys.readouterr().err
    assert "No such file" in shown
    assert "--config" in shown


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["explain", "no-connector"]) == 0
    assert capsys.readouterr().out.startswith("no-connector (origin: tunnel; answered with 503, with Retry-After)")
    assert invoke(app, ["explain", "no-conector"]) == 4
    assert "no-connector" in capsys.readouterr().err


def test_status_without_a_relay(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["status", "--config", str(config), "--json"]) == 6
    assert json.loads(capsys.readouterr().err)["code"] == "daemon-unreachable"


def test_status_needs_no_more_of_the_config_than_the_state_dir(tmp_path: Path) -> None:
    broken = tmp_path / "relay.yaml"
    broken.write_text("state_dir: state\nno: such key\n")
    assert invoke(app, ["status", "--config", str(broken)]) == 6
    broken.write_text("no: such key\n")
    assert invoke(app, ["status", "--config", str(broken)]) == 3


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["version"]) == 0
    assert capsys.readouterr().out.startswith("cloud-relay ")
