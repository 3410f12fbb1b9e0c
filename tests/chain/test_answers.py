"""A hostile target behind the whole chain: each answer is one of its own or a 502, and never another push's."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from shared.errors import FAULTS
from tests.chain.answers import Case, Read, cases, may_pass, read_answer
from tests.chain.corpus import AUTH
from tests.chain.oracle import HOST, Arrival
from tests.chain.site import RawConnection, Site, exchange, site
from tests.shared.http.model import BadBody, Refused, values

pytestmark = pytest.mark.timeout(180)

SENDERS = 12
MAX_IN_BYTES = 500
"""Bytes of the longest answer that is written byte by byte."""

OF_THE_TARGET = {"target-malformed-answer", "connection-closed", "target-lost"}
OURS = {b"content-length", b"transfer-encoding", b"connection"}


def request(method: bytes, path: bytes) -> bytes:
    return method + b" " + path + b" HTTP/1.1\r\nHost: " + HOST + b"\r\n" + AUTH + b"\r\n"


class Run:
    """One pass over all cases; what was wrong is collected."""

    def __init__(self, made: Site, step: int) -> None:
        self.site = made
        self.step = step
        self.cases = [case for case in cases() if len(case.data) <= MAX_IN_BYTES][::3] if step else list(cases())
        self.wrong: list[str] = []
        self.spoiled: dict[RawConnection, str] = {}
        self.passed = self.refused = 0
        made.target.answer = self.answer
        self._writing: set[asyncio.Task[None]] = set()

    async def all(self) -> None:
        waiting = list(range(len(self.cases)))

        async def sender() -> None:
            while waiting:
                await self.one(waiting.pop())

        await asyncio.gather(*[sender() for _ in range(SENDERS)])
        await self.site.until_quiet()

    def answer(self, arrival: Arrival, connection: RawConnection) -> None:
        """The target: hostile to /bad/<number>, honest to /good/<number>, which it repeats."""
        _, kind, number = arrival.target.split(b"/")
        if connection in self.spoiled:
            self.wrong.append(f"a connection is used again after {self.spoiled[connection]}")
        if kind == b"good":
            connection.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(number), number))
            return
        case = self.cases[int(number)]
        wanted = model(case)
        if wanted is None or wanted.stop < len(case.data):
            self.spoiled[connection] = case.name
        if self.step:
            task = asyncio.Task(self._write_slowly(case, connection.transport))
            self._writing.add(task)
            task.add_done_callback(self._writing.discard)
            return
        connection.transport.write(case.data)
        if case.closes:
            connection.transport.close()

    async def _write_slowly(self, case: Case, transport: asyncio.Transport) -> None:
        """Byte by byte, but what stands behind the answer together with its last byte.

        What comes later could be the target's answer to another push: it may say to each what it likes.
        """
        wanted = model(case)
        last = (wanted.stop if wanted is not None else len(case.data)) - 1
        for start in range(last):
            transport.write(case.data[start : start + 1])
            for _ in range(2):
                await asyncio.sleep(0)
        transport.write(case.data[max(last, 0) :])
        if case.closes:
            transport.close()

    async def one(self, number: int) -> None:
        case = self.cases[number]
        follow_up = request(b"GET", b"/good/%d" % number)
        sent = request(case.method, b"/bad/%d" % number) + follow_up

        def is_enough(raw: bytes) -> bool:
            try:
                first = read_answer(raw, case.method, has_closed=False, max_fields=200)
                second = first and first.is_whole and read_answer(raw[first.stop :], b"GET", has_closed=False)
            except (Refused, BadBody):
                return True
            return bool(second and second.is_whole)

        raw = await exchange(self.site.port, sent, 0, is_enough)
        try:
            self.judge(case, number, raw)
        except (Refused, BadBody) as fault:
            self.blame(case, f"the sender cannot read {raw[:500]!r}: {fault!r}")

    def judge(self, case: Case, number: int, raw: bytes) -> None:
        got = read_answer(raw, case.method, has_closed=False, max_fields=200)
        wanted = model(case)
        if got is None:
            self.blame(case, f"no answer: {raw[:300]!r}")
            return
        if values(got.headers, b"qanat-error"):
            self.judge_refusal(case, got, wanted)
        elif b"poison" in raw[got.stop :]:
            self.blame(case, f"poisoned: {raw[:500]!r}")
        elif wanted is None or not wanted.is_whole:
            # The head was passed on before the body was seen to be broken: it must not look whole.
            if got.is_whole and (wanted is not None or case.method != b"HEAD"):
                self.blame(case, f"a broken answer looks whole: {raw[:300]!r}")
        else:
            self.judge_passed(case, got, wanted)
        if got.is_whole:
            self.judge_next(case, number, raw[got.stop :], got)

    def judge_refusal(self, case: Case, got: Read, wanted: Read | None) -> None:
        self.refused += 1
        code = values(got.headers, b"qanat-error")[0].decode()
        if wanted is not None and wanted.is_whole:
            self.blame(case, f"refused by {code}, although the model reads {wanted}")
        if code not in OF_THE_TARGET or got.status != FAULTS[code].status:
            self.blame(case, f"{got.status} {code}")
        if case.method != b"HEAD" and got.is_whole and json.loads(got.body)["code"] != code:
            self.blame(case, "no problem document")

    def judge_passed(self, case: Case, got: Read, wanted: Read) -> None:
        self.passed += 1
        if (got.status, got.body, got.is_whole) != (wanted.status, wanted.body, True):
            self.blame(case, f"got {got}, not {wanted}")
        others = [(name, value) for name, value in got.headers if name.lower() not in OURS | {b"location"}]
        if others != may_pass(wanted.headers):
            self.blame(case, f"headers {others}, not {may_pass(wanted.headers)}")
        if set(values(got.headers, b"location")) - {b"/next"}:
            self.blame(case, f"leads inside: {values(got.headers, b'location')}")

    def judge_next(self, case: Case, number: int, rest: bytes, got: Read) -> None:
        if b"close" in values(got.headers, b"connection"):
            if rest:
                self.blame(case, f"more after the last answer: {rest[:200]!r}")
            return
        following = read_answer(rest, b"GET", has_closed=False)
        if following is None or (following.status, following.body) != (200, b"%d" % number):
            self.blame(case, f"the next push got {rest[:300]!r}")
        elif rest[following.stop :]:
            self.blame(case, f"more after the next answer: {rest[following.stop :]!r}")

    def blame(self, case: Case, fault: str) -> None:
        self.wrong.append(f"{case.name}: {fault} of {case.data[:200]!r}")


def model(case: Case) -> Read | None:
    """What the model makes of the target's answer; None: it refuses."""
    try:
        return read_answer(case.data, case.method, has_closed=case.closes)
    except (Refused, BadBody):
        return None


def run(folder: Path, step: int, loop_factory: Callable[[], asyncio.AbstractEventLoop]) -> tuple[Run, str]:
    async def main() -> tuple[Run, str]:
        async with site(folder) as made:
            passed = Run(made, step)
            await passed.all()
        return passed, made.logs.getvalue()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


@pytest.mark.parametrize(
    ("step", "loop_factory"),
    [(0, uvloop.new_event_loop), (1, asyncio.new_event_loop)],
    ids=["whole", "in segments of one byte"],
)
def test_hostile_answers(tmp_path, capfd, quiet_logs, step, loop_factory):
    passed, logs = run(tmp_path, step, loop_factory)
    assert not passed.wrong, f"{len(passed.wrong)} wrong\n" + "\n".join(passed.wrong[:20])
    assert len(passed.cases) >= (500 if step else 1500)
    assert passed.passed > 100
    assert passed.refused > 100
    for text in (logs, capfd.readouterr().out):
        for line in text.splitlines():
            assert isinstance(json.loads(line), dict), line
    assert "a bug of ours" not in logs
