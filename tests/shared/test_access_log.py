from __future__ import annotations

import asyncio
import errno
import json
import os
import socket
from collections.abc import Callable
from typing import Any

import pytest

from shared.access_log import AccessLog


class StepLoop:
    """An event loop that only remembers what was scheduled, and runs it when told."""

    def __init__(self) -> None:
        self.soon: list[Callable[[], None]] = []
        self.later: list[Callable[[], None]] = []

    def call_soon(self, callback):
        self.soon.append(callback)

    def call_later(self, _delay, callback):
        self.later.append(callback)

    def tick(self) -> None:
        callbacks, self.soon = self.soon, []
        for callback in callbacks:
            callback()

    def wait(self) -> None:
        callbacks, self.later = self.later, []
        for callback in callbacks:
            callback()
        self.tick()


@pytest.fixture
def loop():
    return StepLoop()


@pytest.fixture
def pipe():
    read, write = os.pipe()
    os.set_blocking(read, False)
    yield read, write
    os.close(read)
    os.close(write)


@pytest.fixture
def writes(monkeypatch):
    """The size of each write."""
    sizes: list[int] = []
    real = os.write

    def write(fd, data):
        sizes.append(len(data))
        return real(fd, data)

    monkeypatch.setattr("shared.access_log.os.write", write)
    return sizes


def read_all(fd: int) -> bytes:
    data = b""
    try:
        while block := os.read(fd, 1 << 20):
            data += block
    except BlockingIOError:
        pass
    return data


def records(data: bytes) -> list[dict[str, Any]]:
    assert data == b"" or data.endswith(b"\n")
    return [json.loads(line) for line in data.splitlines()]


def test_the_lines_of_a_tick_are_one_write(loop, tmp_path, writes):
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = AccessLog(loop, file.fileno(), gather=0)
        for n in range(100):
            log.line({"n": n})
        assert writes == []
        loop.tick()
        assert len(writes) == 1
        log.line({"n": 100})
        loop.tick()
    assert [record["n"] for record in records((tmp_path / "log").read_bytes())] == list(range(101))
    assert (log.dropped, log.pending) == (0, 0)
    assert not loop.later


def test_a_pipe_gets_whole_lines_in_small_writes(loop, pipe, writes):
    read, write = pipe
    log = AccessLog(loop, write, gather=0)
    for n in range(300):
        log.line({"n": n, "text": "x" * 50})
    loop.tick()
    assert len(writes) > 1
    assert max(writes) <= 4096
    assert len(records(read_all(read))) == 300


def test_a_reader_that_sleeps_blocks_nothing_and_loses_nothing_that_fits(loop, pipe):
    read, write = pipe
    log = AccessLog(loop, write, gather=0)
    for n in range(5000):
        log.line({"n": n, "text": "x" * 50})
    loop.tick()
    assert log.pending > 0
    assert len(loop.later) == 1
    data = read_all(read)
    while loop.later:
        loop.wait()
        data += read_all(read)
    assert [record["n"] for record in records(data)] == list(range(5000))
    assert (log.dropped, log.pending) == (0, 0)


def test_beyond_the_bound_lines_are_dropped_counted_and_told(loop, pipe):
    read, write = pipe
    log = AccessLog(loop, write, max_pending=100_000, gather=0)
    for n in range(10_000):
        log.line({"n": n, "text": "x" * 50})
    assert log.pending < 100_000 + 100
    dropped = log.dropped
    assert dropped > 0
    data = b""
    for _ in range(10):
        loop.tick()
        loop.wait()
        data += read_all(read)
    told = records(data)[-1]
    assert (told["event"], told["count"]) == ("access lines were dropped", dropped)
    assert not loop.soon
    assert not loop.later


def test_a_line_larger_than_a_write_arrives_whole(loop, pipe):
    read, write = pipe
    log = AccessLog(loop, write, gather=0)
    log.line({"text": "x" * 20_000})
    log.line({"n": 1})
    loop.tick()
    assert [len(str(record)) > 100 for record in records(read_all(read))] == [True, False]


def test_a_reader_that_is_gone_costs_lines_only(loop):
    read, write = os.pipe()
    log = AccessLog(loop, write, gather=0)
    log.line({"n": 1})
    os.close(read)
    loop.tick()
    assert log.dropped == 1
    assert log.pending == 0
    assert not loop.soon
    log.line({"n": 2})
    loop.tick()
    assert log.dropped == 2
    os.close(write)


def test_a_disk_that_is_full_in_the_middle_of_a_line(loop, tmp_path, monkeypatch):
    """What was cut off ends there: the next line is a line of its own."""
    real, room = os.write, 30

    def nearly_full(fd, data):
        nonlocal room
        if not room:
            raise OSError(errno.ENOSPC, "No space left on device")
        taken = real(fd, data[:room])
        room -= taken
        return taken

    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = AccessLog(loop, file.fileno(), gather=0)
        monkeypatch.setattr("shared.access_log.os.write", nearly_full)
        for n in range(5):
            log.line({"n": n})
        loop.tick()
        monkeypatch.setattr("shared.access_log.os.write", real)
        log.line({"n": 9})
        for _ in range(3):
            loop.tick()
    lines = (tmp_path / "log").read_bytes().splitlines()
    assert lines[3] == b'{"n":3'
    assert [json.loads(line).get("n") for line in lines[:3]] == [0, 1, 2]
    assert json.loads(lines[4]) == {"n": 9}
    assert json.loads(lines[5])["count"] == 2


def test_a_full_disk_costs_lines_only(loop, tmp_path, monkeypatch):
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = AccessLog(loop, file.fileno(), gather=0)
        real = os.write

        def full(_fd, _data):
            raise OSError(errno.ENOSPC, "No space left on device")

        monkeypatch.setattr("shared.access_log.os.write", full)
        log.line({"n": 1})
        log.line({"n": 2})
        loop.tick()
        assert log.dropped > 0
        monkeypatch.setattr("shared.access_log.os.write", real)
        log.line({"n": 3})
        for _ in range(3):
            loop.tick()
    written = records((tmp_path / "log").read_bytes())
    assert written[0] == {"n": 3}
    assert written[1]["count"] == log.dropped


def test_a_short_write_is_continued(loop, tmp_path, monkeypatch):
    real = os.write
    monkeypatch.setattr("shared.access_log.os.write", lambda fd, data: real(fd, data[:7]))
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = AccessLog(loop, file.fileno(), gather=0)
        for n in range(20):
            log.line({"n": n})
        loop.tick()
    assert [record["n"] for record in records((tmp_path / "log").read_bytes())] == list(range(20))


def test_no_value_is_too_odd(loop, tmp_path):
    with (tmp_path / "log").open("wb", buffering=0) as file:
        log = AccessLog(loop, file.fileno(), gather=0)
        log.line({"path": "/\ud800\n", "odd": object()})
        log.line({"path": "/a\nb\u2028"})
        loop.tick()
    data = (tmp_path / "log").read_bytes()
    assert data.count(b"\n") == 2
    assert json.loads(data.splitlines()[0])["path"] == "/\\ud800\n"


class TestFlush:
    def test_writes_what_waits(self, loop, tmp_path):
        with (tmp_path / "log").open("wb", buffering=0) as file:
            log = AccessLog(loop, file.fileno(), gather=0)
            log.line({"n": 1})
            log.flush()
        assert len(records((tmp_path / "log").read_bytes())) == 1

    def test_does_not_wait_for_ever(self, loop, pipe):
        _, write = pipe
        log = AccessLog(loop, write, gather=0)
        for _ in range(10_000):
            log.line({"text": "x" * 50})
        log.flush(patience=0.01)
        assert log.dropped > 0
        assert log.pending == 0


async def test_on_a_real_loop_and_a_socket():
    ours, theirs = socket.socketpair()
    with ours, theirs:
        log = AccessLog(asyncio.get_running_loop(), ours.fileno(), gather=0)
        log.line({"n": 1})
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert theirs.recv(100) == b'{"n":1}\n'


def test_every_line_says_which_process_wrote_it(loop, tmp_path):
    with (tmp_path / "log").open("wb") as file:
        log = AccessLog(loop, file.fileno(), gather=0, always={"worker": 2})
        log.line({"n": 1})
        log.text(b'{"n":2}\n')
        loop.tick()
    lines = [json.loads(line) for line in (tmp_path / "log").read_text().splitlines()]
    assert lines == [{"n": 1, "worker": 2}, {"n": 2, "worker": 2}]
