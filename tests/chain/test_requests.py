"""The corpus through the whole chain, whole and in 1-byte segments: what arrives is what the model says, or nothing."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path

import pytest
import uvloop

from cloud_relay.ingress.connection import SenderConnection
from shared.errors import FAULTS
from tests.chain.corpus import FAMILIES, Case
from tests.chain.oracle import REFUSALS, STATUSES, Arrival, Expected, complaint, expect
from tests.chain.site import Site, exchange, site
from tests.cloud_relay.ingress.wire import Answer, parse_answers
from tests.shared.http.model import read_request, values

pytestmark = pytest.mark.timeout(180)

SENDERS = 12
MAX_IN_BYTES = 900
"""Bytes of the longest case that is sent byte by byte."""

SPARSE = {"gated": 8, "pipelines": 2, "framings": 2}
"""Of these families every so many-th is sent byte by byte: they are tested so elsewhere, head by head."""


def finals(raw: bytes, methods: list[bytes]) -> list[Answer]:
    return [one for one in parse_answers(raw, [method.decode() for method in methods]) if one.status >= 200]


class Run:
    """One pass over cases; what was wrong is collected, so that one failure does not hide others."""

    def __init__(self, made: Site, step: int) -> None:
        self.site = made
        self.step = step
        self.expected: dict[str, Expected] = {}
        self.wrong: list[str] = []

    async def all(self, cases: list[Case]) -> None:
        waiting = list(reversed(cases))

        async def sender() -> None:
            while waiting:
                await self.one(waiting.pop())

        await asyncio.gather(*[sender() for _ in range(SENDERS)])
        await self.site.until_quiet()
        self.judge_arrivals(self.site.target.arrivals)

    async def one(self, case: Case) -> None:
        expected = self.expected[case.name] = expect(case.data, is_whole=not self.step)
        methods = [method for method, _ in expected.answers]

        def is_enough(raw: bytes) -> bool:
            try:
                found = finals(raw, methods)
            except ValueError:
                return False  # a head that is not whole yet
            return len(found) >= len(methods) and all(one.is_complete for one in found)

        raw = await exchange(self.site.port, case.data, self.step, is_enough)
        self.judge_answers(case, expected, finals(raw, methods), raw)

    def judge_answers(self, case: Case, expected: Expected, answers: list[Answer], raw: bytes) -> None:
        for answer, (_, statuses) in zip(answers, expected.answers, strict=False):
            if answer.status not in statuses:
                self.blame(case, f"answered {answer.status}, not one of {sorted(statuses)}: {raw[:600]!r}")
        extra = answers[len(expected.answers) :]
        if len(answers) < len(expected.answers):
            self.blame(case, f"{len(answers)} answers instead of {len(expected.answers)}: {raw[:600]!r}")
        if extra and not expected.may_refuse:
            self.blame(case, f"{len(extra)} answers too many: {raw[-600:]!r}")
        for answer in answers:
            code = answer.headers.get("qanat-error")
            if code is None and (answer.status != 200 or answer.body not in (b"ok", b"")):
                self.blame(case, f"an answer of nobody: {raw[:600]!r}")
            elif code is not None and (answer.status not in STATUSES or FAULTS[code].status != answer.status):
                self.blame(case, f"{answer.status} with {code}")
            if code is not None and (b"evil" in answer.body or b"hidden" in answer.body):
                self.blame(case, "what was sent is repeated")
        if any(answer.keep_alive for answer in answers if answer.status in REFUSALS):
            self.blame(case, "a refusal that keeps the connection")

    def judge_arrivals(self, arrivals: list[Arrival]) -> None:
        by_case: dict[str, list[Arrival]] = defaultdict(list)
        for arrival in arrivals:
            by_case[_root(arrival.case.decode())].append(arrival)
        authority = b"127.0.0.1:%d" % self.site.target.port
        for name in by_case.keys() - self.expected.keys():
            self.wrong.append(f"{name!r}: nobody sent this: {by_case[name]}")
        for name, expected in self.expected.items():
            wanted, got = list(expected.arrivals), by_case[name]
            if expected.optional and len(got) > len(wanted):
                wanted += expected.optional
            if len(got) != len(wanted):
                self.wrong.append(f"{name}: {len(got)} arrived, not {len(wanted)}: {got}")
            for (reading, body), arrival in zip(wanted, got, strict=False):
                if fault := complaint(reading, body, arrival, authority):
                    self.wrong.append(f"{name}: {fault}: {arrival}")
        self.wrong += [f"the target could not read: {fault}" for fault in self.site.target.faults]
        self.wrong += [
            f"half a request arrived: {rest!r}" for rest in self.site.target.remains if not self.is_half(rest)
        ]

    def is_half(self, rest: bytes) -> bool:
        """Whether this is the beginning of a request of which the sender never sent a good end."""
        end = rest.find(b"\r\n\r\n") + 4
        if end < 4:
            return False
        name = b",".join(values(read_request(rest[:end], max_fields=160).headers, b"x-case")).decode()
        expected = self.expected.get(_root(name))
        return expected is not None and expected.is_broken

    def blame(self, case: Case, fault: str) -> None:
        self.wrong.append(f"{case.name}: {fault} to {case.data[:300]!r}")


def _root(case: str) -> str:
    """`family-7-tail` and `family-7-2` are of the case `family-7`."""
    return "-".join(case.split("-")[:2])


def run(
    folder: Path, cases: list[Case], step: int, loop_factory: Callable[[], asyncio.AbstractEventLoop]
) -> tuple[Run, str]:
    """The pass, and what was logged."""

    async def main() -> tuple[Run, str]:
        async with site(folder) as made:
            passed = Run(made, step)
            await passed.all(cases)
        return passed, made.logs.getvalue()

    with asyncio.Runner(loop_factory=loop_factory) as runner:
        return runner.run(main())


def assert_lines(text: str, least: int) -> None:
    """Each line is one JSON object."""
    lines = text.splitlines()
    assert len(lines) >= least
    assert text.count("\n") == len(lines), "a line was broken by something that ends lines"
    for line in lines:
        assert isinstance(json.loads(line), dict), line


def assert_right(passed: Run, logs: str, access: str) -> None:
    assert not passed.wrong, f"{len(passed.wrong)} wrong\n" + "\n".join(passed.wrong[:20])
    arrived = len(passed.site.target.arrivals)
    assert arrived > len(passed.expected) / 4, "a corpus that never passes proves little"
    assert any(not expected.arrivals for expected in passed.expected.values())
    assert_lines(access, arrived)
    assert_lines(logs, 4)
    assert "a bug of ours" not in logs
    assert "internal-error" not in access


def test_whole(tmp_path, capfd, quiet_logs):
    cases = [case for family in FAMILIES.values() for case in family]
    assert len(cases) >= 4000
    passed, logs = run(tmp_path, cases, 0, uvloop.new_event_loop)
    assert len(passed.expected) == len(cases)
    assert_right(passed, logs, capfd.readouterr().out)


def test_in_segments_of_one_byte(tmp_path, capfd, quiet_logs, monkeypatch):
    segments: list[int] = []
    take = SenderConnection.data_received

    def counted(connection: SenderConnection, data: bytes) -> None:
        segments.append(len(data))
        take(connection, data)

    monkeypatch.setattr(SenderConnection, "data_received", counted)
    cases = [
        case
        for name, family in FAMILIES.items()
        for case in [case for case in family if len(case.data) <= MAX_IN_BYTES][:: SPARSE.get(name, 1)]
    ]
    assert len(cases) >= 1000
    passed, logs = run(tmp_path, cases, 1, asyncio.new_event_loop)
    assert sum(segments) < 1.1 * len(segments), "the kernel put segments together"
    assert passed.site.target.remains, "what is broken behind its head has begun to arrive"
    assert_right(passed, logs, capfd.readouterr().out)
