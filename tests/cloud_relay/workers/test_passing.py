"""What a worker is started with."""

from __future__ import annotations

import asyncio
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from cloud_relay.loading import check_state
from cloud_relay.workers.passing import VARIABLE, Assignment, held, outfit
from shared.config import Edition
from shared.exits import CommandError, ExitCode
from shared.listeners import Inherited, Listening, open_sockets


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as made:
        yield made


def test_what_is_given_is_found(listener: socket.socket, tmp_path: Path) -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    edition = Edition()
    edition.read(write(tmp_path / "relay.yaml", "a: ä"))
    with held(edition) as config:
        given = outfit((1, 3), theirs, config, [Listening("ingress[0].listen", listener)], tmp_path)
        assert set(given.descriptors) == {theirs.fileno(), listener.fileno(), config}
        copies = {number: os.dup(number) for number in given.descriptors}
    content = json.loads(given.variables[VARIABLE])
    content["channel"], content["config"] = copies[content["channel"]], copies[content["config"]]
    content["sockets"] = {copies[int(number)]: name for number, name in content["sockets"].items()}
    environ = {VARIABLE: json.dumps(content), "OTHER": "stays"}

    found = Assignment.from_environment(environ)
    assert found is not None
    assert environ == {"OTHER": "stays"}
    assert (found.number, found.workers, found.state_dir, found.is_rehearsal) == (1, 3, tmp_path, False)
    (tmp_path / "relay.yaml").write_text("a: changed since")
    assert found.edition.read(tmp_path / "relay.yaml") == "a: ä".encode()
    taken = found.inherited.take(socket.AF_INET, listener.getsockname())
    assert taken is not None
    assert taken.name == "ingress[0].listen"
    taken.sock.close()
    found.channel.send({"say": "ready"})
    assert json.loads(ours.recv(1000)) == {"say": "ready"}
    found.channel.close()
    ours.close()
    theirs.close()


def write(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


async def test_a_worker_binds_nothing_that_its_supervisor_has_not(listener: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    port = listener.getsockname()[1]
    inherited = Inherited([Listening("ingress[0].listen", listener)], is_complete=True)
    (taken,) = await open_sockets(loop, "127.0.0.1", port, inherited, "ingress[0].listen")
    assert taken is listener
    with pytest.raises(CommandError, match=r"127.0.0.1:0 \(ingress\[1\].listen\) was not passed"):
        await open_sockets(loop, "127.0.0.1", 0, inherited, "ingress[1].listen")


def test_who_is_no_worker_finds_nothing() -> None:
    assert Assignment.from_environment({}) is None


GOOD = {
    "number": 0, "workers": 2, "channel": 0, "config": 1 << 20, "sockets": {}, "state_dir": "/var/lib/relay",
    "rehearsal": False,
}  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        "1", "null", "[]", "{}", "nonsense", '{"number": 0', json.dumps(GOOD | {"number": 2}),
        json.dumps(GOOD | {"number": -1}), json.dumps(GOOD | {"workers": 0}), json.dumps(GOOD | {"channel": 1 << 20}),
        json.dumps(GOOD | {"channel": -1}), json.dumps(GOOD | {"channel": "x"}), json.dumps(GOOD | {"sockets": [3]}),
        json.dumps(GOOD | {"sockets": {"x": "y"}}), json.dumps(GOOD | {"state_dir": None}),
        json.dumps({name: value for name, value in GOOD.items() if name != "state_dir"}), json.dumps(GOOD),
        json.dumps(GOOD | {"config": "x"}),
    ],
)  # fmt: skip
def test_what_somebody_else_has_set_is_refused_with_the_remedy(text: str) -> None:
    with pytest.raises(CommandError, match="only for the relay itself to set") as caught:
        Assignment.from_environment({VARIABLE: text})
    assert caught.value.exit_code == ExitCode.USAGE
    assert "--workers" in caught.value.remedy


def test_the_state_stays_where_it_is(tmp_path: Path) -> None:
    check_state(tmp_path, tmp_path)
    with pytest.raises(CommandError, match="state_dir"):
        check_state(tmp_path / "other", tmp_path)
