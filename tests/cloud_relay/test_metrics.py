"""What the relay counts, as Prometheus reads it."""

from __future__ import annotations

import re

from cloud_relay.entrance import TunnelCounts
from cloud_relay.metrics import RelayMetrics
from shared.errors import FAULTS


def lines(metrics: RelayMetrics) -> list[str]:
    return [line for line in metrics.render().decode().splitlines() if not line.startswith("#")]


def test_pushes_by_route_class_code_and_origin() -> None:
    metrics = RelayMetrics(process=False)
    route = metrics.route("acme", "frun")
    assert metrics.route("acme", "frun") is route
    route.finished(204, None, 0.02, 0.0, 0.01)
    route.finished(403, FAULTS["path-not-allowed"], 0.02, 0.0, 0.01)
    route.finished(503, FAULTS["no-connector"], 3.0, 3.0, -1.0)
    route.finished(0, FAULTS["sender-gone"], 0.02, 0.0, -1.0)
    route.bytes_in += 2048
    assert route.pushes == 4
    shown = lines(metrics)
    for line in (
        'qanat_relay_pushes_total{route="frun",status="2xx",tenant="acme"} 1.0',
        'qanat_relay_pushes_total{route="frun",status="4xx",tenant="acme"} 1.0',
        'qanat_relay_pushes_total{route="frun",status="none",tenant="acme"} 1.0',
        'qanat_relay_push_faults_total{code="path-not-allowed",origin="connector",route="frun",tenant="acme"} 1.0',
        'qanat_relay_push_faults_total{code="no-connector",origin="tunnel",route="frun",tenant="acme"} 1.0',
        'qanat_relay_push_bytes_in_total{route="frun",tenant="acme"} 2048.0',
        'qanat_relay_push_seconds_count{route="frun",tenant="acme"} 4.0',
        'qanat_relay_push_wait_seconds_count{route="frun",tenant="acme"} 1.0',
        'qanat_relay_push_beyond_seconds_count{route="frun",tenant="acme"} 2.0',
    ):
        assert _normal(line) in map(_normal, shown), line


def test_listeners_tunnels_and_senders() -> None:
    metrics = RelayMetrics(process=False)
    listener = metrics.listener(":443")
    listener.accepted += 2
    listener.failed(FAULTS["unknown-host"])
    metrics.tunnels = TunnelCounts(accepted=3, refused={"certificate-expired": 1})
    sender = metrics.sender("acme", "s4")
    sender.pushes += 1
    shown = list(map(_normal, lines(metrics)))
    for line in (
        'qanat_relay_ingress_connections_total{listener=":443"} 2.0',
        'qanat_relay_ingress_faults_total{listener=":443",code="unknown-host",origin="relay"} 1.0',
        'qanat_relay_tunnels_refused_total{code="certificate-expired"} 1.0',
        'qanat_relay_sender_pushes_total{tenant="acme",sender="s4"} 1.0',
    ):
        assert _normal(line) in shown, line
    assert not any(name.startswith("qanat_relay_sender_last_delivered") for name, _ in shown)


def test_tries_probes_and_silence() -> None:
    metrics = RelayMetrics(process=False)
    route = metrics.route("acme", "frun")
    route.try_failed("target-unreachable", "again")
    route.try_failed("target-unreachable", "again")
    route.try_failed("tunnel-lost", "ambiguous")
    route.mended += 1
    metrics.tcp.route("acme", "syslog").try_failed("target-unreachable", "no-other")
    metrics.probes = {"good": 3}
    metrics.taken_out = {("acme", "walldorf", "c1", "frun"): 2}
    silent, quiet = metrics.sender("acme", "telegraf"), metrics.sender("acme", "s4")
    silent.expect_every = 120.0
    silent.last_delivered = 1.0  # less than since when it is known: a clock that was set
    quiet.known_since -= 50.0
    text = metrics.render().decode()
    shown = list(map(_normal, text.splitlines()))
    for line in (
        (
            'qanat_relay_push_failed_tries_total{tenant="acme",route="frun",code="target-unreachable",'
            'origin="connector",then="again"} 2.0'
        ),
        (
            'qanat_relay_push_failed_tries_total{tenant="acme",route="frun",code="tunnel-lost",origin="tunnel",'
            'then="ambiguous"} 1.0'
        ),
        'qanat_relay_push_mended_total{tenant="acme",route="frun"} 1.0',
        (
            'qanat_relay_tcp_failed_tries_total{tenant="acme",route="syslog",code="target-unreachable",'
            'origin="connector",then="no-other"} 1.0'
        ),
        'qanat_relay_probes_total{result="good"} 3.0',
        'qanat_relay_target_taken_out_total{tenant="acme",location="walldorf",connector="c1",target="frun"} 2.0',
        'qanat_relay_sender_expect_every_seconds{tenant="acme",sender="telegraf"} 120.0',
    ):
        assert _normal(line) in shown, line
    assert text.count("qanat_relay_sender_expect_every_seconds{") == 1, "nothing is expected of the others"
    silences = dict(re.findall(r'silence_seconds\{sender="([^"]+)".*\} (.+)', text))
    assert 0 <= float(silences["telegraf"]) < 5
    assert 50 <= float(silences["s4"]) < 55


def test_a_route_that_left_is_shown_no_more() -> None:
    metrics = RelayMetrics(process=False)
    metrics.route("acme", "old").finished(200, None, 0.1, 0.1, 0.1)
    metrics.route("acme", "new").finished(200, None, 0.1, 0.1, 0.1)
    metrics.keep_only({("acme", "new")}, set())
    shown = metrics.render()
    assert b'route="old"' not in shown
    assert b'route="new"' in shown


def _normal(line: str) -> tuple[str, frozenset[str]]:
    """Labels in any order."""
    name, _, rest = line.partition("{")
    labels, _, value = rest.rpartition("}")
    return name + value, frozenset(labels.split(","))
