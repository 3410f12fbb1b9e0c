"""A connector that was stopped past a push's deadline delivers nothing of it when it wakes."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.system.kit import assert_honest
from tests.system.programs import until

pytestmark = [pytest.mark.system, pytest.mark.timeout(90)]


@pytest.mark.parametrize("frozen", [3.0, 7.0], ids=["tunnel-survives", "tunnel-is-given-up"])
async def test_nothing_is_delivered_late(site, target, frozen):
    site.expose(target)
    site.route.update(timeout="2s", hold="500ms")
    await site.start()
    assert (await site.push("/push?id=before")).status == 200

    site.connector.signal(signal.SIGSTOP)
    bodies = [b"small"] * 10 + [b"x" * 3_000_000] * 5
    pushes = [asyncio.Task(site.push(f"/push?id=late-{number}", body)) for number, body in enumerate(bodies)]
    await asyncio.sleep(frozen)
    assert all(push.done() for push in pushes)
    for push in pushes:
        answer = push.result()
        assert (answer.status, answer.fault) in {
            (504, "deadline-exceeded"), (502, "tunnel-lost"), (503, "tunnel-refused"), (503, "no-connector"),
        }  # fmt: skip
        assert_honest(answer)

    site.connector.signal(signal.SIGCONT)

    async def flows() -> bool:
        return bool((await site.push("/push?id=after")).status == 200)

    await until(flows, "pushes after the freeze", 10)
    await asyncio.sleep(0.5)
    assert {one for one in target.ids if one.startswith("late")} == set()
    assert target.begun == len(target.received)


async def test_a_push_that_is_not_late_survives_a_freeze(site, target):
    site.expose(target)
    await site.start()
    site.connector.signal(signal.SIGSTOP)
    push = asyncio.Task(site.push("/push?id=in-time"))
    await asyncio.sleep(1.5)
    site.connector.signal(signal.SIGCONT)
    answer = await push
    assert answer.status == 200
    assert [one.id for one in target.received] == ["in-time"]


async def test_a_relay_that_was_frozen(site, target):
    """Its timers are all overdue when it wakes: what a target answered meanwhile is passed on, or honestly lost."""
    site.expose(target)
    await site.start()
    push = asyncio.Task(site.push("/slow/1?id=slow"))
    await until(lambda: target.received, "the push at the target")
    site.relay.signal(signal.SIGSTOP)
    await asyncio.sleep(2.5)
    site.relay.signal(signal.SIGCONT)
    answer = await push
    assert answer.status == 200

    async def flows() -> bool:
        return bool((await site.push("/push?id=after")).status == 200)

    await until(flows, "pushes after the freeze", 10)
