"""One exposition out of several."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from cloud_relay.workers.merging import Shown, merge
from shared.metrics import Metrics


def worker(pushes: int, seconds: float, tunnels: int, *, up: float, at: float) -> bytes:
    metrics = Metrics(process=False)
    metrics.counter("qanat_pushes", "Pushes.", ("route",)).labels("a").value += pushes
    metrics.histogram("qanat_push_seconds", "Time.", ("route",)).labels("a").observe(seconds)
    metrics.gauge("qanat_tunnels", "Tunnels.", lambda: tunnels)
    metrics.gauge("qanat_route_up", "Up.", lambda: {("a",): up}, ("route",))
    metrics.gauge("qanat_last_timestamp_seconds", "When.", lambda: at)
    return metrics.render()


def samples(text: bytes) -> dict[str, float]:
    return {
        sample.name + "".join(f" {key}={value}" for key, value in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text.decode())
        for sample in family.samples
    }


def test_counts_and_amounts_are_added_up_times_and_states_are_not() -> None:
    merged = samples(merge({0: worker(3, 0.02, 2, up=0, at=50.0), 1: worker(4, 0.02, 5, up=1, at=40.0)}))
    assert merged["qanat_pushes_total route=a"] == 7
    assert merged["qanat_push_seconds_count route=a"] == 2
    assert merged["qanat_push_seconds_bucket le=0.025 route=a"] == 2
    assert merged["qanat_push_seconds_sum route=a"] == pytest.approx(0.04)
    assert merged["qanat_tunnels"] == 7
    assert merged["qanat_route_up route=a"] == 1
    assert merged["qanat_last_timestamp_seconds"] == 50.0


def test_what_only_one_of_them_knows_is_shown() -> None:
    merged = samples(merge({0: worker(3, 0.02, 2, up=0, at=50.0), 1: b""}))
    assert merged["qanat_pushes_total route=a"] == 3


def test_processes_are_kept_apart() -> None:
    one = b"# TYPE process_open_fds gauge\nprocess_open_fds 7\n"
    assert samples(merge({0: one, 3: one})) == {
        "process_open_fds worker=0": 7,
        "process_open_fds worker=3": 7,
    }


def test_one_alone_stays_as_it_is() -> None:
    text = worker(3, 0.02, 2, up=1, at=50.0)
    assert samples(merge({0: text})) == samples(text)


def test_nonsense_is_an_error() -> None:
    with pytest.raises(ValueError, match=r".+"):
        merge({0: b"what is this?\n"})


def one_gauge(name: str, value: float) -> bytes:
    metrics = Metrics(process=False)
    metrics.gauge(name, "A gauge.", lambda: value)
    return metrics.render()


@pytest.mark.parametrize(
    ("name", "values", "merged"),
    [
        ("qanat_relay_config_reload_success", (1, 0, 1), 0),  # one that refused is one too many
        ("qanat_relay_sender_silence_seconds", (900, 3, 800), 3),  # a sender pushes to any of them
        ("qanat_relay_route_unknown", (1, 1, 0), 1),
        ("qanat_relay_location_connectors", (2, 2, 1), 2),  # each connector has a tunnel to every worker
        ("qanat_relay_tunnel_age_seconds", (10, 30, 20), 30),
        ("qanat_relay_memory_used_bytes", (1, 2, 3), 6),
    ],
)
def test_each_kind_of_gauge_has_its_own_sense(name: str, values: tuple[float, ...], merged: float) -> None:
    assert samples(merge({n: one_gauge(name, value) for n, value in enumerate(values)})) == {name: merged}


def test_no_sum_falls_when_a_worker_is_replaced() -> None:
    shown = Shown()
    shown.take(0, 100, worker(3, 0.02, 2, up=0, at=50.0))
    shown.take(1, 101, worker(4, 0.02, 5, up=1, at=40.0))
    shown.take(1, 102, worker(1, 0.02, 1, up=1, at=60.0))
    shown.take(1, 103, worker(2, 0.02, 1, up=1, at=60.0))
    merged = samples(shown.merged())
    assert merged["qanat_pushes_total route=a"] == 3 + 4 + 1 + 2
    assert merged["qanat_push_seconds_count route=a"] == 4
    assert merged["qanat_tunnels"] == 3
    assert samples(shown.merged()) == merged


def test_who_does_not_answer_is_shown_as_before() -> None:
    shown = Shown()
    shown.take(0, 100, worker(3, 0.02, 2, up=0, at=50.0))
    shown.take(1, 101, worker(4, 0.02, 5, up=1, at=40.0))
    shown.take(0, 100, worker(5, 0.02, 2, up=0, at=50.0))
    assert samples(shown.merged())["qanat_pushes_total route=a"] == 9
