"""One status out of several."""

from __future__ import annotations

from typing import Any

import pytest

from cloud_relay import show
from cloud_relay.workers.status import merge_status


def tunnel(age: float) -> dict[str, Any]:
    return {"state": "open", "age_s": age, "in_flight": 1, "targets": {"frun": "http"}}


def status(number: int, *, state: str = "green", connectors: tuple[str, ...] = ("c1",), **route: Any) -> dict[str, Any]:
    """What worker `number` shows: figures differ by the number, so that sums can be told from anything else."""
    rows = [
        {
            "connector": name,
            "tunnels": [tunnel(10.0 * number)],
            "not_allowed": [f"t{number}", "x"],
            "standby": False,
            "targets": [{"target": "frun", "state": state, "age_s": 10.0 - number}],
        }
        for name in connectors
    ]
    figures = {
        "state": state, "why": None if state == "green" else f"w{number}", "age_s": 10.0 - number, "retries": number,
        "tunnels": len(connectors), "in_flight": number, "pushes": 10 + number, "unanswered": number,
        "answers": {"2xx": 5 + number}, "faults": {"timeout": 1} if number else {},
    }  # fmt: skip
    return {
        "pid": 1000 + number,
        "in_flight": 2 + number,
        "probes": {"good": 10, "bad": number},
        "memory": {"used": 100 + number, "budget": 500},
        "listeners": [
            {"kind": "ingress", "listen": ":443", "bound": [":443"], "tls": True, "connections": 3 + number},
            {"kind": "tunnel", "listen": ":8443", "bound": [":8443"], "tls": True},
        ] + ([] if number else [{"kind": "observe", "listen": ":9000", "bound": [":9000"], "tls": False}]),
        "tenants": [
            {"tenant": "acme", "locations": [
                {"location": "walldorf", "connectors": rows}, {"location": "newtown", "connectors": []},
            ]},
        ],
        "routes": [{"tenant": "acme", "route": "all", "host": "push.example.com"} | figures | route],
        "tcp_routes": [{"tenant": "acme", "route": "syslog", "state": state, "why": None, "age_s": None,
                        "tunnels": 1, "open": number, "connections": 4, "bytes_in": 7, "bytes_out": 8, "faults": {}}],
        "senders": [{"tenant": "acme", "sender": "s4", "pushes": 2, "delivered": 1 + number,
                     "silent_s": 10.0 - number,
                     "last_delivered": f"2026-01-01T00:00:0{number}Z" if number else None}],
    }  # fmt: skip


def test_figures_are_added_up_and_the_rest_is_the_first_ones() -> None:
    merged = merge_status({0: status(0), 1: status(1), 2: status(2)}, 3)
    assert merged["workers"] == {"count": 3, "answering": 3, "upgrade": None}
    assert merged["pid"] == 1000
    assert merged["in_flight"] == 2 + 3 + 4
    assert merged["memory"] == {"used": 303, "budget": 1500}
    assert merged["probes"] == {"good": 30, "bad": 3}
    assert merged["senders"][0]["silent_s"] == 8.0, "heard of anywhere"
    (connector,) = merged["tenants"][0]["locations"][0]["connectors"]
    assert connector["targets"] == [{"target": "frun", "state": "green", "age_s": 8.0}], "what was found out last"
    (route,) = merged["routes"]
    assert (route["pushes"], route["in_flight"], route["unanswered"], route["tunnels"]) == (33, 3, 3, 3)
    assert (route["answers"], route["faults"], route["host"]) == ({"2xx": 18}, {"timeout": 2}, "push.example.com")
    (syslog,) = merged["tcp_routes"]
    assert (syslog["open"], syslog["connections"], syslog["bytes_in"], syslog["bytes_out"]) == (3, 12, 21, 24)
    (sender,) = merged["senders"]
    assert (sender["pushes"], sender["delivered"], sender["last_delivered"]) == (6, 6, "2026-01-01T00:00:02Z")
    assert [row.get("connections") for row in merged["listeners"]] == [12, None, None]
    assert [row["bound"] for row in merged["listeners"]] == [[":443"], [":8443"], [":9000"]]


def test_each_connector_is_shown_once_with_the_worker_of_each_tunnel() -> None:
    shown = {0: status(0, connectors=()), 1: status(1, connectors=("c2", "c1")), 2: status(2)}
    (tenant,) = merge_status(shown, 3)["tenants"]
    walldorf, newtown = tenant["locations"]
    assert newtown["connectors"] == []
    assert [row["connector"] for row in walldorf["connectors"]] == ["c1", "c2"]
    assert [[one["worker"] for one in row["tunnels"]] for row in walldorf["connectors"]] == [[1, 2], [1]]
    assert walldorf["connectors"][0]["not_allowed"] == ["t1", "t2", "x"]


def test_a_route_is_as_well_as_where_it_is_best() -> None:
    for states in (("red", "green"), ("green", "red")):
        shown = {number: status(number, state=state) for number, state in enumerate(states)}
        assert merge_status(shown, 2)["routes"][0]["state"] == "green"
    assert merge_status({0: status(0, state="red"), 1: status(1, state="red")}, 2)["routes"][0]["state"] == "red"


def test_who_does_not_answer_is_missing_and_said_to_be() -> None:
    merged = merge_status({0: status(0)}, 4)
    assert merged["workers"] == {"count": 4, "answering": 1, "upgrade": None}
    assert merged["routes"][0]["pushes"] == 10


def test_what_only_a_worker_with_another_config_knows_is_left_out() -> None:
    merged = merge_status({0: status(0), 1: status(1, route="new")}, 2)
    assert [row["route"] for row in merged["routes"]] == ["all"]
    assert merged["routes"][0]["pushes"] == 10


@pytest.mark.parametrize(
    ("workers", "said"),
    [
        (None, ""),
        ({"count": 4, "answering": 4}, "4 workers, "),
        ({"count": 4, "answering": 3}, "3 of 4 workers, "),
        (
            {"count": 4, "answering": 4, "blind_workers": [1, 2]},
            "4 workers (the state cannot be read: 1, 2 serve nobody), ",
        ),
        (
            {"count": 2, "answering": 1, "upgrade": {"stage": "leaving", "worker": 1, "error": None}},
            "1 of 2 workers (upgrade: worker 1 of 2 (number 1) serves out its connections), ",
        ),
        ({"count": 2, "answering": 2, "upgrade": {"stage": "done", "error": None}}, "2 workers, "),
        (
            {"count": 2, "answering": 2, "upgrade": {"stage": "failed", "error": {"title": "it does not fit"}}},
            "2 workers (upgrade: 0 of 2 workers are replaced, and no more will be: it does not fit), ",
        ),
    ],
)
def test_what_people_see_of_the_workers(workers: dict[str, Any] | None, said: str) -> None:
    status: dict[str, Any] = {}
    if workers is not None:
        upgrade = {"workers": 2, "replaced": 0, "worker": None} | (workers.get("upgrade") or {})
        status["workers"] = {"blind_workers": [], **workers, "upgrade": upgrade if "upgrade" in workers else None}
    assert show._workers(status) == said
