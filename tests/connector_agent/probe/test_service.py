"""Questions of relays, and how often they make a connector probe. In virtual time, with targets that are made up."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from connector_agent.metrics import ConnectorMetrics
from connector_agent.probe.run import ProbeResult
from connector_agent.probe.service import BAD_INTERVAL, MAX_RUNNING, ProbeService
from connector_agent.probe.spec import ProbeKind, ProbeSpec
from connector_agent.tcp.target import TcpTarget
from connector_agent.upstream.connect import Endpoint
from shared.errors import BY_WIRE
from shared.probe import NONE, Verdict, decode_answer, encode_question
from shared.protocol.stream import NO_HANDLER, StreamHandler
from tests.connector_agent.kit import scenario

GOOD = ProbeResult("", "", 0.002, 200, 1.7e9)
BAD = ProbeResult("target-unreachable", "10.1.2.3:80: refused", 0.001, 0, 1.7e9)


class Question:
    """The tunnel's side of a probe."""

    def __init__(self) -> None:
        self.handler: StreamHandler = NO_HANDLER
        self.deadline = 0.0
        self.was_sent = self.is_writable = self.is_sent = True
        self.verdict: Verdict | None = None
        self.code = ""

    def answer(self, head: bytes, body: bytes = b"", end: bool = False, interim: bool = False) -> None:
        assert self.verdict is None
        assert not self.code
        assert end
        self.verdict = decode_answer(head)

    def send(self, data: bytes, end: bool = False) -> None:
        raise AssertionError

    def reset(self, wire_code: int, refused: bool = False) -> None:
        assert self.verdict is None
        assert not self.code
        assert refused
        self.code = BY_WIRE[wire_code].code

    def consumed(self, n: int) -> None: ...

    def leave(self) -> None:
        self.handler.on_reset(161, False)


class World:
    """Targets by name, probes that last `lasts` seconds and find `finds`, and how many there were."""

    def __init__(self, *names: str, **spec: Any) -> None:
        self.loop = asyncio.get_running_loop()
        self.targets = {name: self.target(name, **spec) for name in names or ("t",)}
        self.finds: ProbeResult | Exception = GOOD
        self.lasts = 0.5
        self.probes = 0
        self.service = ProbeService(self.targets.get, self.loop, self.probe)

    def target(self, name: str, kind: ProbeKind = ProbeKind.TCP, interval: float = 5.0) -> TcpTarget:
        counts = ConnectorMetrics().tcp.target(name)
        spec = ProbeSpec(kind, interval=interval)
        return TcpTarget(name, Endpoint("10.1.2.3", 80), counts, max_connections=1, idle=1.0, probe=spec)

    async def probe(self, target: object) -> ProbeResult:
        self.probes += 1
        await asyncio.sleep(self.lasts)
        if isinstance(self.finds, Exception):
            raise self.finds
        return self.finds

    def ask(self, name: str = "t", body: bytes = b"", end: bool = True) -> Question:
        question = Question()
        self.service.on_stream(question, encode_question(name), body, end)
        return question


@scenario
async def test_one_probe_for_all_who_ask_and_then_its_result_for_a_while() -> None:
    world = World(interval=5.0)
    first, second = world.ask(), world.ask()
    await asyncio.sleep(0.6)
    assert first.verdict == second.verdict == Verdict("", 0.0, 0.002, 200)
    later = world.ask()
    assert later.verdict == Verdict("", 0.1, 0.002, 200)
    assert world.probes == 1
    await asyncio.sleep(5.0)
    assert world.ask().verdict is None
    await asyncio.sleep(1)
    assert world.probes == 2


@scenario
async def test_a_bad_result_is_looked_at_again_soon_and_holds_no_address() -> None:
    world = World(interval=60.0)
    world.finds = BAD
    question = world.ask()
    await asyncio.sleep(0.6)
    assert question.verdict == Verdict("target-unreachable", 0.0, 0.001, 0)
    asked = [world.ask() for _ in range(1000)]
    assert world.probes == 1
    assert all(one.verdict is not None for one in asked)
    await asyncio.sleep(BAD_INTERVAL)
    world.finds = GOOD
    question = world.ask()
    await asyncio.sleep(0.6)
    assert question.verdict is not None
    assert question.verdict.code == ""
    assert world.probes == 2


@scenario
async def test_a_relay_that_asks_all_the_time_probes_no_more_often_than_the_config_says() -> None:
    world = World(interval=5.0)
    world.lasts = 0.01
    for _ in range(3000):
        world.ask()
        await asyncio.sleep(0.01)
    assert world.probes == 6


@scenario
async def test_a_push_that_failed_makes_a_good_result_doubtful() -> None:
    world = World(interval=60.0)
    world.ask()
    await asyncio.sleep(2)
    target = world.targets["t"]
    assert world.service.standing(target) == GOOD
    world.service.doubt("t")
    assert world.service.standing(target) is None
    assert world.service.result(target) == GOOD
    assert world.ask().verdict is None
    await asyncio.sleep(1)
    assert world.probes == 2
    assert world.service.standing(target) == GOOD
    world.service.doubt("nobody")


@scenario
async def test_what_is_refused() -> None:
    world = World()
    assert world.ask("other").code == "unknown-target"
    assert world.ask(body=b"x").code == "bad-push"
    assert world.ask(end=False).code == "bad-push"
    question = Question()
    world.service.on_stream(question, b"probe\0../etc\0\0", b"", True)
    assert question.code == "bad-push"
    assert world.probes == 0
    none = World(kind=ProbeKind.NONE)
    assert none.ask().verdict == Verdict(NONE)
    assert none.probes == 0


@scenario
async def test_not_all_at_once() -> None:
    world = World(*(f"t{number}" for number in range(MAX_RUNNING + 1)))
    questions = [world.ask(name) for name in world.targets]
    assert [question.code for question in questions] == [""] * MAX_RUNNING + ["connector-overloaded"]
    await asyncio.sleep(1)
    assert all(question.verdict is not None for question in questions[:-1])


@scenario
async def test_who_leaves_is_not_answered() -> None:
    world = World()
    first, second = world.ask(), world.ask()
    first.leave()
    await asyncio.sleep(1)
    assert first.verdict is None
    assert second.verdict is not None


@scenario
async def test_the_end() -> None:
    world = World()
    question = world.ask()
    world.service.close()
    assert question.code == "connector-draining"
    assert world.ask().code == "connector-draining"
    await asyncio.sleep(1)
    assert question.verdict is None


@scenario
async def test_a_reload_forgets_what_is_another_target_now() -> None:
    world = World("a", "b", "c")
    world.ask("a")
    await asyncio.sleep(1)
    running = [world.ask("b"), world.ask("c")]
    a, b = world.targets["a"], world.targets["b"]
    world.targets.update(a=world.target("a"), c=world.target("c"))
    assert world.service.result(a) == GOOD
    world.service.keep_only(world.targets)
    assert world.service.result(a) is None
    assert world.service.result(world.targets["a"]) is None
    await asyncio.sleep(1)
    assert running[0].verdict is not None
    assert running[1].code == "unknown-target"
    assert world.service.result(b) == GOOD


@scenario
async def test_a_bug_in_a_probe_is_told_and_blocks_nothing() -> None:
    world = World()
    told: list[Any] = []
    world.loop.set_exception_handler(lambda _loop, context: told.append(context["exception"]))
    world.finds = error = RuntimeError("a bug")
    question = world.ask()
    await asyncio.sleep(1)
    assert question.code == "connector-error"
    assert told == [error]
    world.finds = GOOD
    question = world.ask()
    await asyncio.sleep(1)
    assert question.verdict is not None


@scenario
async def test_what_is_shown() -> None:
    world = World("a", "b")
    world.finds = BAD
    world.ask("a")
    await asyncio.sleep(1)
    row = world.service.describe(world.targets["a"])
    assert (row["does"], row["state"], row["code"], row["took_ms"]) == ("tcp", "failing", "target-unreachable", 1.0)
    assert "10.1.2.3" in row["detail"]
    assert world.service.describe(world.targets["b"]) == {"does": "tcp", "state": "unknown"}
    assert world.service.measured("good") == {("a",): 0.0}
    assert world.service.measured("seconds") == {("a",): pytest.approx(0.001)}
