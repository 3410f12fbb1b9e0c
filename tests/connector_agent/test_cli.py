"""The command line: what it prints, and how it exits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from connector_agent.cli import app
from shared.cli import invoke
from tests.support.development import Pki


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.delenv("https_proxy", raising=False)
    monkeypatch.delenv("HTTPS_PROXY", raising=False)
    pki = Pki(tmp_path)
    pair = pki.connector()
    (tmp_path / "secret").write_text("Basic hunter2\n")
    (tmp_path / "secret").chmod(0o600)
    path = tmp_path / "connector.yaml"
    path.write_text(
        "relays: [wss://localhost:1]\nstate_dir: s\n"
        f"tls: {{certificate: {pair.certificate}, key: {pair.key}, ca: {pki.ca}}}\n"
        "targets:\n"
        "  - name: t\n"
        "    url: http://t.test\n"
        "    allow: [{methods: [POST], path: /x}]\n"
        "    headers: {set_from_files: {Authorization: secret}}\n"
    )
    return path


def test_check(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["check", "--offline", "--config", str(config)]) == 0
    out = capsys.readouterr().out
    assert "is good: 1 target\n" in out
    assert "warning: targets[0].url: the injected credential" in out
    assert invoke(app, ["check", "--offline", "-c", str(config), "--json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["targets"]) == ("qanat.connector.check.v1", ["t"])
    assert (answer["offline"], answer["good"], answer["checks"]) == (True, True, [])


def test_check_dials(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["check", "--config", str(config), "--push", "GET", "t", "/x"]) == 1
    out = capsys.readouterr().out
    assert out.isascii() or "→" in out
    assert "\x1b" not in out  # no colours in a pipe
    lines = out.splitlines()
    assert "relay localhost:1" in lines
    (tcp,) = [line for line in lines if line.startswith("failed") and "connection" not in line and " TCP " in line]
    assert "Nothing listens at localhost:1. → Look" in tcp  # one line, with the remedy beside the failure
    assert any(line.startswith("warning") and "the injected credential" in line for line in lines)
    assert any(line.startswith("failed") and "method" in line for line in lines)
    assert "hunter2" not in out


def test_check_as_an_object(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["check", "--config", str(config), "--json"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert (answer["schema"], answer["offline"], answer["good"]) == ("qanat.connector.check.v1", False, False)
    assert sum(answer["counts"].values()) == len(answer["checks"])
    failed = [one for one in answer["checks"] if one["result"] == "failed"]
    assert [one["code"] for one in failed] == ["connection-refused", "target-unreachable"]
    assert all(one["remedy"] for one in failed)


def test_a_push_can_be_judged_offline(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["check", "--offline", "--config", str(config), "--push"]
    assert invoke(app, [*asked, "POST", "t", "/x"]) == 0
    assert "would go to http://t.test/x" in capsys.readouterr().out
    assert invoke(app, [*asked, "POST", "t", "/y"]) == 5
    assert invoke(app, [*asked, "POST", "nope", "/x"]) == 4


@pytest.mark.parametrize(
    "change", [("POST", "post"), ("Authorization: secret", "Authorization: nope"), ("s\n", "s\nx: 1\n")]
)
def test_check_of_a_bad_config(config: Path, change: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    config.write_text(config.read_text().replace(*change))
    assert invoke(app, ["check", "--offline", "--config", str(config)]) == 3
    assert "connector.yaml:" in capsys.readouterr().err
    assert invoke(app, ["check", "--offline", "--config", str(config), "--json"]) == 3
    assert json.loads(capsys.readouterr().err)["problems"]


@pytest.mark.parametrize("content", ["a\nb\n", "", "\xe4"])
def test_check_of_a_secret_that_cannot_be_sent(config: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "secret").write_text(content)
    assert invoke(app, ["check", "--offline", "--config", str(config)]) == 3
    assert "secret: cannot be the value of Authorization" in capsys.readouterr().err


def test_check_of_a_secret_that_others_may_read(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (config.parent / "secret").chmod(0o644)
    assert invoke(app, ["check", "--offline", "--config", str(config)]) == 3
    err = capsys.readouterr().err
    assert "secret" in err
    assert "hunter2" not in err


def test_check_of_a_proxy_that_cannot_be_used(
    config: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("https_proxy", "http://user:hunter2@proxy:1")
    assert invoke(app, ["check", "--offline", "--config", str(config)]) == 3
    assert "hunter2" not in capsys.readouterr().err


def test_schema(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["schema"]) == 0
    assert "relays" in json.loads(capsys.readouterr().out)["properties"]


def test_explain(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["explain", "target-tls-failed"]) == 0
    assert "origin: connector" in capsys.readouterr().out
    assert invoke(app, ["explain", "target-tls"]) == 4
    assert "target-tls-failed" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, ["version"]) == 0
    assert capsys.readouterr().out.startswith("connector-agent ")


@pytest.mark.parametrize("command", ["status", "reload", "drain"])
def test_no_daemon(config: Path, command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(app, [command, "--config", str(config)]) == 6
    assert "does not answer" in capsys.readouterr().err


def test_usage() -> None:
    assert invoke(app, ["nonsense"]) == 2


def test_status_tables(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    from connector_agent.show import status_tables
    from shared.cli import emit

    monkeypatch.setenv("COLUMNS", "250")
    status = {
        "state": "serving", "started_at": "now", "version": "1", "in_flight": 0, "standby": True,
        "reload": {"taken": False, "at": "then", "lines": ["bad"]},
        "tunnels": [{"relay": "r:1", "state": "open", "age_s": 1.0, "rtt_ms": None, "in_flight": 0, "error": None}],
        "targets": [
            {
                "target": "t", "url": "http://t", "state": "failing", "pushes": 3, "answers": {"2xx": 2},
                "last": {"at": "x", "status": None, "code": "target-lost"},
                "connect_fault": {"code": "target-unreachable", "detail": "refused"}, "probe": probe,
            }
            for probe in (
                {"state": "unknown", "does": "tcp"}, {"state": "none", "does": "none"},
                {"state": "ok", "does": "tcp", "took_ms": 1.5, "age_s": 3.0},
                {"state": "failing", "code": "target-too-slow", "detail": "h:1: no result", "age_s": 70.0},
            )
        ],
    }  # fmt: skip
    emit(status, schema="x", json=False, table=lambda: status_tables(status))
    shown = " ".join(capsys.readouterr().out.split())
    for told in ("on standby", "not asked for yet", "ok in 1.5 ms, 3s ago", "target-too-slow, 1m10s ago"):
        assert told in shown
