"""The relay as a process: what it says on its way up, and what signals do."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import pytest
import yaml

from tests.support.development import Pki

pytestmark = pytest.mark.system
Document = dict[str, Any]


class Process:
    """A `cloud-relay serve` whose log is read as it comes."""

    def __init__(self, path: Path) -> None:
        self.events: list[dict[str, Any]] = []
        self._process = subprocess.Popen(
            [sys.executable, "-m", "cloud_relay", "serve", "--config", str(path)],
            stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2],
            env={**os.environ, "PYTHONWARNINGS": "error"},
        )  # fmt: skip
        self.ports: dict[str, int] = {}

    def until(self, event: str) -> dict[str, Any]:
        """Read the log until `event`; pytest's time-out is the limit."""
        stream = self._process.stderr
        assert stream is not None
        for line in stream:
            record = cast("dict[str, Any]", json.loads(line))
            self.events.append(record)
            if record["event"] == "listening":
                self.ports[record["kind"]] = int(record["bound"][0].rpartition(":")[2])
            if record["event"] == event:
                return record
        pytest.fail(f"ended with {self._process.wait()} before {event!r}: {self.events}")

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def wait(self) -> int:
        assert self._process.stderr is not None
        self.events += [json.loads(line) for line in self._process.stderr]
        return self._process.wait()

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


@pytest.fixture
def config(tmp_path: Path, relay_document: Document) -> Path:
    pair, path = Pki(tmp_path).relay(), tmp_path / "relay.yaml"
    ca = tmp_path / "ca.pem"
    relay_document["tunnel"]["tls"] = {
        "certificate": str(pair.certificate), "key": str(pair.key), "client_ca": str(ca),
    }  # fmt: skip
    relay_document["tenants"]["acme"]["routes"][0]["hold"] = "10s"
    path.write_text(yaml.safe_dump(relay_document))
    return path


@pytest.fixture
def serve(config: Path) -> Iterator[Callable[[], Process]]:
    started: list[Process] = []

    def start() -> Process:
        process = Process(config)
        started.append(process)
        process.until("relay started")
        return process

    yield start
    for process in started:
        process.kill()


def test_it_says_where_it_listens_and_ends_in_good_order(serve: Callable[[], Process]) -> None:
    relay = serve()
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(f"http://127.0.0.1:{relay.ports['ingress']}/", timeout=5)
    assert caught.value.code == 421
    caught.value.close()
    relay.signal(signal.SIGTERM)
    assert relay.wait() == 0
    assert [record["event"] for record in relay.events][-2:] == ["draining", "relay stopped"]


def test_hangup_reads_the_config_again(serve: Callable[[], Process], config: Path) -> None:
    relay = serve()
    config.write_text(config.read_text().replace("hold: 10s", "hold: 1s"))
    relay.signal(signal.SIGHUP)
    assert relay.until("config reloaded")["changes"] == ["route acme/frun changed: hold"]
    config.write_text("nonsense: true\n")
    relay.signal(signal.SIGHUP)
    problems = relay.until("config not taken; the old one stays in force")["problems"]
    assert any("nonsense: this key is not known" in problem for problem in problems)


def test_a_changed_file_is_enough(serve: Callable[[], Process], config: Path) -> None:
    relay = serve()
    config.write_text(config.read_text().replace("hold: 10s", "hold: 1s"))
    assert relay.until("config reloaded")["changes"] == ["route acme/frun changed: hold"]


def test_a_second_signal_waits_for_nothing(serve: Callable[[], Process]) -> None:
    relay = serve()

    with socket.create_connection(("127.0.0.1", relay.ports["ingress"])) as sender:
        head = "POST /sap/frun HTTP/1.1\r\nHost: push.example.com\r\nAuthorization: Bearer ibp-1\r\n"
        sender.sendall(f"{head}Content-Length: 1\r\n\r\nx".encode())
        time.sleep(0.3)  # it is held for a connector that never comes
        relay.signal(signal.SIGTERM)
        assert relay.until("draining")["in_flight"] == 1
        began = time.monotonic()
        relay.signal(signal.SIGTERM)
        assert relay.wait() == 0
        assert time.monotonic() - began < 3


def test_a_bad_config_ends_with_3(config: Path) -> None:
    config.write_text(config.read_text() + "colour: blue\n")
    done = subprocess.run(
        [sys.executable, "-m", "cloud_relay", "serve", "-c", str(config)],
        capture_output=True, text=True, timeout=30, cwd=Path(__file__).parents[2],
    )  # fmt: skip
    assert done.returncode == 3
    assert "colour: this key is not known" in done.stderr
