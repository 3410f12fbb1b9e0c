"""Writes deploy/monitoring/qanat.dashboard.json, for Grafana. With --check, says whether it is up to date instead."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

PAGE: Final = Path(__file__).resolve().parent.parent / "deploy" / "monitoring" / "qanat.dashboard.json"

ROUTE: Final = 'tenant=~"$tenant", route=~"$route"'
TENANT: Final = 'tenant=~"$tenant"'
WINDOW: Final = "[$__rate_interval]"


class Panel(NamedTuple):
    """A graph; `queries` gives each one's legend. `unit` is Grafana's word for it."""

    title: str
    unit: str
    queries: dict[str, str]
    text: str = ""
    is_stacked: bool = False
    kind: str = "timeseries"


def rate(metric: str, labels: str, by: str = "") -> str:
    """A summed rate of a counter."""
    return f"sum {f'by ({by}) ' if by else ''}(rate({metric}{{{labels}}}{WINDOW}))"


def mean(metric: str, labels: str) -> str:
    """Seconds that a push took on average, by a histogram."""
    return f"{rate(metric + '_sum', labels)} / {rate(metric + '_count', labels)}"


def quantile(metric: str, labels: str, part: float, by: str = "") -> str:
    """A quantile of a histogram."""
    return f"histogram_quantile({part}, {rate(metric + '_bucket', labels, f'le, {by}' if by else 'le')})"


ROWS: Final[dict[str, list[Panel]]] = {
    "Do pushes arrive?": [
        Panel("Red routes", "none", {"red": f"count(qanat_relay_route_up{{{ROUTE}}} == 0) or vector(0)"}, kind="stat"),
        Panel("Pushes a second", "reqps", {"{{status}}": rate("qanat_relay_pushes_total", ROUTE, "status")},
              "By the class of status that senders got; none: no answer.", is_stacked=True),
        Panel("Accepted and delivered", "reqps", {
            "accepted": rate("qanat_relay_pushes_accepted_total", ROUTE),
            "delivered": rate("qanat_relay_pushes_delivered_total", ROUTE),
        }, "What was let in, and what a target took."),
        Panel("Routes", "none", {"{{tenant}}/{{route}}": f"qanat_relay_route_up{{{ROUTE}}}"},
              "1: a push would arrive.", kind="state-timeline"),
    ],
    "Whose fault is it?": [
        Panel("Faults by origin", "reqps", {"{{origin}}": rate("qanat_relay_push_faults_total", ROUTE, "origin")},
              "relay: also what senders do wrong. tunnel: between relay and connector. docs/errors.md says more.",
              is_stacked=True),
        Panel("Faults by code", "reqps", {
            "{{code}} ({{origin}})": rate("qanat_relay_push_faults_total", ROUTE, "code, origin"),
            "{{code}} at the door": rate("qanat_relay_ingress_faults_total", "", "code"),
        }),
        Panel("Where a push's time goes", "s", {
            "ingress": f"{rate('qanat_relay_push_ingress_seconds_total', ROUTE)} / "
                       f"{rate('qanat_relay_push_seconds_count', ROUTE)}",
            "tunnel, connector, target": f"{rate('qanat_relay_push_beyond_seconds_sum', ROUTE)} / "
                                         f"{rate('qanat_relay_push_seconds_count', ROUTE)}",
            "body and answer": f"({rate('qanat_relay_push_seconds_sum', ROUTE)}"
                               f" - {rate('qanat_relay_push_ingress_seconds_total', ROUTE)}"
                               f" - {rate('qanat_relay_push_beyond_seconds_sum', ROUTE)}) / "
                               f"{rate('qanat_relay_push_seconds_count', ROUTE)}",
        }, "Seconds of an average push, as the relay sees it.", is_stacked=True),
        Panel("Time of a push", "s", {
            "p50": quantile("qanat_relay_push_seconds", ROUTE, 0.5),
            "p99": quantile("qanat_relay_push_seconds", ROUTE, 0.99),
            "p99 beyond the relay": quantile("qanat_relay_push_beyond_seconds", ROUTE, 0.99),
        }),
        Panel("The targets' own time, at the connectors", "s", {
            "{{target}} p50": quantile("qanat_connector_push_target_seconds", "", 0.5, "target"),
            "{{target}} p99": quantile("qanat_connector_push_target_seconds", "", 0.99, "target"),
        }, "From when the target was given the push to its answer's first byte. Where connectors are scraped too."),
        Panel("Probes: path and target", "s", {
            "{{connector}} {{target}}, with the tunnel": f"qanat_relay_probe_path_seconds{{{TENANT}}}",
            "{{connector}} {{target}}, target alone": f"qanat_relay_probe_duration_seconds{{{TENANT}}}",
        }, "The last probe's time as the relay sees it, and as the connector does: the difference is the tunnel's."),
        Panel("The tunnels' part", "s", {
            "all routes": "(" + rate("qanat_relay_push_beyond_seconds_sum", "") + " - "
                          + rate("qanat_connector_push_target_seconds_sum", "") + " - "
                          + rate("qanat_connector_push_connection_wait_seconds_sum", "") + ") / "
                          + rate("qanat_relay_push_beyond_seconds_count", ""),
        }, "Beyond the relay, less what connectors waited for connections and for targets: needs the metrics of both."),
    ],
    "Health": [
        Panel("Targets", "none", {
            "{{connector}} {{target}}": f"qanat_relay_target_up{{{TENANT}}}",
        }, "1: the last probe behind this connector was good.", kind="state-timeline"),
        Panel("Senders' silence", "s", {
            "{{tenant}}/{{sender}}": f"qanat_relay_sender_silence_seconds{{{TENANT}}}",
        }, "Since a target last took a push. Only those with expect_every raise an alert."),
        Panel("Tries that failed", "reqps", {
            "{{code}}, then {{then}}": rate("qanat_relay_push_failed_tries_total", ROUTE, "code, then"),
            "mended": rate("qanat_relay_push_mended_total", ROUTE),
        }, "By cause, and by what came then."),
        Panel("Probes", "reqps", {"{{result}}": rate("qanat_relay_probes_total", "", "result")}),
    ],
    "Waiting": [
        Panel("Waits of those that had to", "s", {
            "queue p99": quantile("qanat_relay_push_queue_seconds", ROUTE, 0.99),
            "no connector p99": quantile("qanat_relay_push_wait_seconds", ROUTE, 0.99),
        }, "Over a quota, or held back for other senders; until a connector came."),
        Panel("Pushes in the queue", "none", {
            "waiting": "sum(qanat_relay_pushes_queued)", "limit": "sum(qanat_relay_pushes_queued_limit)",
        }),
        Panel("Memory of pushes under way", "bytes", {
            "relay": "sum(qanat_relay_memory_used_bytes)", "relay's budget": "sum(qanat_relay_memory_budget_bytes)",
            "connectors": "sum(qanat_connector_memory_used_bytes)",
        }),
        Panel("Pushes in flight", "none", {
            "{{tenant}}/{{route}}": f"sum by (tenant, route) (qanat_relay_pushes_in_flight{{{ROUTE}}})",
        }),
    ],
    "Connectors and tunnels": [
        Panel("Connectors by location", "none", {
            "{{tenant}}/{{location}} {{kind}}": f"qanat_relay_location_connectors{{{TENANT}}}",
        }),
        Panel("Age of the oldest tunnel", "s", {
            "{{tenant}}/{{location}}/{{connector}}": f"qanat_relay_tunnel_age_seconds{{{TENANT}}}",
        }),
        Panel("Round trip", "s", {
            "{{tenant}}/{{location}}/{{connector}}": f"qanat_relay_tunnel_round_trip_seconds{{{TENANT}}}",
        }, "What a ping takes, in each connector's slowest tunnel, at best of the last minute."),
        Panel("Tunnels that ended", "short", {
            "{{connector}} {{code}}": "sum by (connector, code) "
                                      f"(increase(qanat_relay_connector_tunnels_ended_total{{{TENANT}}}{WINDOW}))",
        }, "going-away is a good end."),
        Panel("Waits for credit", "none", {
            "{{connector}} {{kind}}": rate("qanat_relay_credit_stall_seconds_total", TENANT, "connector, kind"),
        }, "tunnel: the part of the time in which the line is full, summed over its tunnels. stream: how many pushes "
           "wait for a slow target, on average."),
        Panel("Pushes that cross workers", "reqps", {"crossed": rate("qanat_relay_pushes_crossed_total", "")},
              "Nothing with a single worker."),
    ],
    "Upkeep": [
        Panel("Days until certificates end", "d", {
            "{{kind}} {{name}}": "(qanat_relay_certificate_not_after_seconds - time()) / 86400",
            "{{kind}} {{name}} (connector)": "(qanat_connector_certificate_not_after_seconds - time()) / 86400",
        }),
        Panel("Configs in force since", "dateTimeAsIso", {
            "relay": "qanat_relay_config_reload_timestamp_seconds * 1000",
            "connector {{instance}}": "qanat_connector_config_reload_timestamp_seconds * 1000",
        }, kind="stat"),
        Panel("CPU", "percentunit", {
            "{{job}} {{instance}} {{worker}}": f"rate(process_cpu_seconds_total{WINDOW})"
                                               " and on (instance) (qanat_relay_memory_budget_bytes"
                                               " or qanat_connector_memory_budget_bytes)",
        }),
    ],
}  # fmt: skip


def render() -> str:
    """The whole file."""
    panels: list[dict[str, Any]] = []
    y = 0
    for title, row in ROWS.items():
        panels.append({"type": "row", "title": title, "collapsed": False, "gridPos": _place(0, y, 24, 1), "panels": []})
        y += 1
        for number, panel in enumerate(row):
            panels.append(_panel(panel, _place(number % 2 * 12, y + number // 2 * 8, 12, 8)))
        y += (len(row) + 1) // 2 * 8
    for number, made in enumerate(panels, 1):
        made["id"] = number
    board = {
        "title": "Qanat",
        "uid": "qanat",
        "tags": ["qanat"],
        "schemaVersion": 39,
        "version": 1,
        "editable": True,
        "refresh": "30s",
        "time": {"from": "now-3h", "to": "now"},
        "templating": {"list": [
            {"name": "source", "label": "Prometheus", "type": "datasource", "query": "prometheus"},
            _variable("tenant", "label_values(qanat_relay_route_up, tenant)"),
            _variable("route", 'label_values(qanat_relay_route_up{tenant=~"$tenant"}, route)'),
        ]},
        "panels": panels,
    }  # fmt: skip
    return json.dumps(board, indent=1, ensure_ascii=False) + "\n"


def _place(x: int, y: int, width: int, height: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": width, "h": height}


def _variable(name: str, query: str) -> dict[str, Any]:
    everything = {"text": "All", "value": "$__all"}
    return {
        "name": name, "type": "query", "datasource": {"type": "prometheus", "uid": "$source"}, "query": query,
        "refresh": 2, "includeAll": True, "allValue": ".*", "multi": True, "sort": 1, "current": everything,
    }  # fmt: skip


def _panel(panel: Panel, place: dict[str, int]) -> dict[str, Any]:
    custom = {"stacking": {"mode": "normal"}, "fillOpacity": 40} if panel.is_stacked else {}
    is_single = panel.kind == "stat"
    source = {"type": "prometheus", "uid": "$source"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.text,
        "datasource": source,
        "gridPos": place,
        "fieldConfig": {"defaults": {"unit": panel.unit, "custom": custom}, "overrides": []},
        "options": {"reduceOptions": {"calcs": ["lastNotNull"]}} if is_single else {},
        "targets": [
            {"refId": chr(ord("A") + number), "expr": query, "legendFormat": legend, "datasource": source}
            for number, (legend, query) in enumerate(panel.queries.items())
        ],
    }


def main(arguments: list[str]) -> int:
    """Write the file, or with `--check` compare it. Exit code 0 if it is up to date now."""
    made = render()
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == made:
            return 0
        print("deploy/monitoring/qanat.dashboard.json is out of date: run `make docs`", file=sys.stderr)
        return 1
    PAGE.write_text(made, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
