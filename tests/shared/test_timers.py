"""LazyTimer, on a loop of our own whose time stands still until it is moved."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import cast

from hypothesis import given
from hypothesis import strategies as st

from shared.timers import LazyTimer


class Handle:
    def __init__(self, when: float, callback) -> None:
        self.when, self.callback, self.cancelled = when, callback, False

    def cancel(self) -> None:
        self.cancelled = True


class Clock:
    """As much of an event loop as a timer needs, and a record of every handle."""

    def __init__(self) -> None:
        self.now = 0.0
        self.handles: list[Handle] = []

    def call_at(self, when: float, callback) -> Handle:
        self.handles.append(Handle(when, callback))
        return self.handles[-1]

    def armed(self) -> list[float]:
        return [handle.when for handle in self.handles if not handle.cancelled]

    def advance(self, to: float) -> None:
        while due := [handle for handle in self.handles if not handle.cancelled and handle.when <= to]:
            handle = min(due, key=lambda each: each.when)
            self.handles.remove(handle)
            self.now = max(self.now, handle.when)
            handle.callback()
        self.now = to


def make_timer() -> tuple[Clock, LazyTimer, list[float]]:
    clock = Clock()
    fired: list[float] = []
    return clock, LazyTimer(cast("asyncio.AbstractEventLoop", clock), lambda: fired.append(clock.now)), fired


def test_it_fires_once():
    clock, timer, fired = make_timer()
    timer.set(5.0)
    assert timer.is_set
    clock.advance(100.0)
    assert fired == [5.0]
    assert not timer.is_set
    assert clock.armed() == []


def test_moving_the_deadline_later_costs_no_handle():
    clock, timer, fired = make_timer()
    for when in range(5, 1000):
        timer.set(float(when))
    assert len(clock.handles) == 1
    clock.advance(998.0)
    assert fired == []
    clock.advance(999.0)
    assert fired == [999.0]


def test_an_earlier_deadline_counts():
    clock, timer, fired = make_timer()
    timer.set(60.0)
    timer.set(5.0)
    clock.advance(5.0)
    assert fired == [5.0]
    clock.advance(100.0)
    assert fired == [5.0]


def test_cancel_and_set_again_uses_the_armed_handle():
    clock, timer, fired = make_timer()
    timer.set(5.0)
    timer.cancel()
    assert not timer.is_set
    timer.set(7.0)
    assert clock.armed() == [5.0]
    clock.advance(6.0)
    assert fired == []
    clock.advance(8.0)
    assert fired == [7.0]


def test_cancelled_it_fires_into_nothing():
    clock, timer, fired = make_timer()
    timer.set(5.0)
    timer.cancel()
    clock.advance(10.0)
    assert fired == []
    assert clock.armed() == []


def test_the_callback_may_set_it_again():
    clock = Clock()
    fired = []

    def callback() -> None:
        fired.append(clock.now)
        timer.set(clock.now + 10.0)

    timer = LazyTimer(cast("asyncio.AbstractEventLoop", clock), callback)
    timer.set(10.0)
    clock.advance(35.0)
    assert fired == [10.0, 20.0, 30.0]


def test_close_leaves_nothing_armed_and_frees_the_owner():
    class Owner:
        def __init__(self, clock) -> None:
            self.timer = LazyTimer(clock, self.on_time)

        def on_time(self) -> None:
            pass

    clock = Clock()
    owner = Owner(clock)
    owner.timer.set(5.0)
    owner.timer.close()
    assert clock.armed() == []
    gone = weakref.ref(owner)
    clock.handles.clear()
    del owner
    gc.collect()
    assert gone() is None


def test_it_can_be_used_again_after_close():
    clock, timer, fired = make_timer()
    timer.set(5.0)
    timer.close()
    timer.set(6.0)
    clock.advance(7.0)
    assert fired == [6.0]


def test_a_handle_that_fires_early_by_the_clocks_resolution_counts():
    clock, timer, fired = make_timer()
    timer.set(5.0)
    clock.now = 4.9999
    clock.handles.pop().callback()
    assert fired == [4.9999]


async def test_on_a_real_loop():
    loop = asyncio.get_running_loop()
    done = asyncio.Event()
    timer = LazyTimer(loop, done.set)
    timer.set(loop.time() + 0.005)
    timer.set(loop.time() + 0.010)
    await asyncio.wait_for(done.wait(), 5)


@given(st.lists(st.tuples(st.sampled_from(["set", "cancel", "wait"]), st.floats(0.1, 50.0)), max_size=30))
def test_it_agrees_with_a_timer_that_arms_every_time(steps):
    clock, timer, fired = make_timer()
    expected: list[float] = []
    deadline = 0.0
    for step, amount in steps:
        if step == "set":
            deadline = clock.now + amount
            timer.set(deadline)
        elif step == "cancel":
            deadline = 0.0
            timer.cancel()
        else:
            clock.advance(clock.now + amount)
            if deadline and deadline <= clock.now:
                expected.append(deadline)
                deadline = 0.0
        assert len(clock.armed()) <= 1
    assert fired == expected
