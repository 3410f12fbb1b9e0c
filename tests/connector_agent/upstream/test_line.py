"""The line before a target's connections, against a model of one list."""

from __future__ import annotations

from typing import Any, cast

from hypothesis import given
from hypothesis import strategies as st

from connector_agent.upstream.line import WaitingLine

STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.sampled_from("abc")),
        st.tuples(st.just("next"), st.just("")),
        st.tuples(st.just("remove"), st.sampled_from("0123456789")),
    ),
    max_size=60,
)


@given(STEPS)
def test_each_sender_in_turn_and_its_pushes_in_order(steps):
    line = WaitingLine()
    model: dict[str, list[Any]] = {}  # senders in the order of their turns
    number = 0
    for what, detail in steps:
        if what == "add":
            waiter = cast(Any, (detail, number))
            number += 1
            line.add(waiter, detail, float(number))
            model.setdefault(detail, []).append(waiter)
        elif what == "next" and model:
            sender = next(iter(model))
            waiting = model.pop(sender)
            assert line.next() == waiting.pop(0)
            if waiting:
                model[sender] = waiting
        elif what == "remove":
            known = [waiter for waiting in model.values() for waiter in waiting if waiter[1] == int(detail)]
            assert line.remove(known[0] if known else cast(Any, ("x", -1))) is bool(known)
            for waiter in known:
                model[waiter[0]].remove(waiter)
                if not model[waiter[0]]:
                    del model[waiter[0]]
        assert [waiter for waiter, _ in line.all()] == [waiter for waiting in model.values() for waiter in waiting]
        assert line.size == sum(map(len, model.values()))
