from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from shared import metrics as module
from shared.metrics import Metrics


@pytest.fixture
def metrics():
    return Metrics(process=False)


def samples(metrics: Metrics) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    families = text_string_to_metric_families(metrics.render().decode())
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(metrics: Metrics, name: str, /, **labels: str) -> float:
    return samples(metrics)[name, frozenset(labels.items())]


def test_a_counter_is_a_plain_integer(metrics):
    cell = metrics.counter("qanat_pushes", "Pushes.", ("route", "status")).labels("r", "200")
    cell.value += 1
    cell.value += 2
    assert type(cell.value) is int
    assert value(metrics, "qanat_pushes_total", route="r", status="200") == 3


def test_the_same_labels_give_the_same_cell(metrics):
    family = metrics.counter("c", "C.", ("a",))
    assert family.labels("x") is family.labels("x")
    assert family.labels("x") is not family.labels("y")


def test_without_labels_there_is_one_cell(metrics):
    metrics.counter("c", "C.").labels().value += 1
    assert value(metrics, "c_total") == 1


def test_the_number_of_labels_must_fit(metrics):
    with pytest.raises(ValueError, match="has the labels"):
        metrics.counter("c", "C.", ("a",)).labels("x", "y")


def test_label_sets_are_bounded(metrics, monkeypatch):
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    family = metrics.counter("c", "C.", ("a", "b"))
    for n in range(10):
        family.labels(str(n), "x").value += 1
    assert value(metrics, "c_total", a="0", b="x") == 1
    assert value(metrics, "c_total", a="other", b="other") == 7
    assert len(samples(metrics)) == 4


def test_a_removed_label_set_is_gone(metrics):
    family = metrics.counter("c", "C.", ("a",))
    family.labels("x").value += 1
    family.remove("x")
    family.remove("never there")
    assert samples(metrics) == {}


@pytest.mark.parametrize(
    ("observed", "counts"),
    [
        ([], [0, 0, 0]),
        ([0.05], [1, 1, 1]),
        ([0.1], [1, 1, 1]),
        ([0.100001], [0, 1, 1]),
        ([1.0, 5.0], [0, 1, 2]),
        ([-1.0, 0.0], [2, 2, 2]),
    ],
)
def test_a_bucket_holds_what_is_at_most_its_bound(metrics, observed, counts):
    cell = metrics.histogram("h_seconds", "H.", ("a",), buckets=(0.1, 1.0)).labels("x")
    for number in observed:
        cell.observe(number)
    assert [value(metrics, "h_seconds_bucket", a="x", le=le) for le in ("0.1", "1.0", "+Inf")] == counts
    assert value(metrics, "h_seconds_count", a="x") == len(observed)
    assert value(metrics, "h_seconds_sum", a="x") == pytest.approx(sum(observed))


@pytest.mark.parametrize("buckets", [(), (1.0, 1.0), (2.0, 1.0)])
def test_buckets_must_rise(metrics, buckets):
    with pytest.raises(ValueError, match="do not rise"):
        metrics.histogram("h", "H.", buckets=buckets)


def test_gauges_are_asked_when_somebody_scrapes(metrics):
    state = {"tunnels": 1}
    metrics.gauge("tunnels", "T.", lambda: state["tunnels"])
    metrics.gauge("targets", "T.", lambda: {("a", "up"): 1.0, ("b", "down"): 0.0}, ("name", "state"))
    state["tunnels"] = 5
    assert value(metrics, "tunnels") == 5
    assert value(metrics, "targets", name="b", state="down") == 0


def test_gauges_are_bounded_too(metrics, monkeypatch):
    monkeypatch.setattr(module, "MAX_SERIES", 3)
    metrics.gauge("g", "G.", lambda: {(str(n),): 1.0 for n in range(10)}, ("n",))
    assert len(samples(metrics)) == 3


def test_a_name_is_used_once(metrics):
    metrics.counter("c", "C.")
    with pytest.raises(ValueError, match="made twice"):
        metrics.histogram("c", "C.")


def test_label_values_are_escaped(metrics):
    metrics.counter("c", "C.", ("a",)).labels('x"\n\\y').value += 1
    assert value(metrics, "c_total", a='x"\n\\y') == 1


def test_the_process_is_measured_too():
    assert b"process_resident_memory_bytes" in Metrics().render()
