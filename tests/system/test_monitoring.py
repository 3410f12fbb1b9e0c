"""A real Prometheus scrapes a real relay and a real connector: every query of the alerts and of the dashboard means
something, and docs/metrics.md names what there is."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any, Final, NamedTuple

import aiohttp
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from shared.errors import FAULTS
from tests.support.ports import free_port
from tests.system.kit import Site
from tests.system.programs import Program, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

ROOT: Final = Path(__file__).parents[2]
MONITORING: Final = ROOT / "deploy" / "monitoring"
RULES: Final = MONITORING / "qanat.rules.yaml"
PAGE: Final = ROOT / "docs" / "metrics.md"

WRONG: Final = {
    "QanatRouteRed", "QanatPushesFail", "QanatNotDelivered",  # the routes to targets that are dead, or nowhere
    "QanatTargetDown", "QanatSenderSilent",
    "QanatCertificateNotRenewed", "QanatCertificateEnds",  # the tests' CA lives for a day
}  # fmt: skip
"""Alerts about what really is wrong in this test, and no other may come."""

ELSEWHERE: Final = {"qanat_relay_targets_not_allowed_total"}
"""What only a relay exposes that is its own CA."""

NAME: Final = re.compile(r"\bqanat_(?:relay|connector)_[a-z_]+\b")
ROW: Final = re.compile(r"^\| `(qanat_[a-z_]+)` \| (\w+) \| ([^|]*) \| (.*) \|$", re.MULTILINE)


def rules() -> dict[str, dict[str, Any]]:
    """The alerts by name."""
    groups = yaml.safe_load(RULES.read_text())["groups"]
    found = {rule["alert"]: rule for group in groups for rule in group["rules"]}
    assert len(found) == sum(len(group["rules"]) for group in groups)
    return found


def dashboard_queries() -> dict[str, str]:
    """As Grafana sends them, by panel and legend."""
    board = json.loads((MONITORING / "qanat.dashboard.json").read_text())
    return {
        f"{panel['title']}: {target['legendFormat']}": target["expr"]
        .replace("$__rate_interval", "30s").replace("$tenant", ".*").replace("$route", ".*")
        for panel in board["panels"] for target in panel.get("targets", ())
    }  # fmt: skip


class Prometheus:
    """It scrapes relay and connector twice a second."""

    def __init__(self, site: Site, program: Any) -> None:
        self._http = site.http
        self._url = f"http://127.0.0.1:{free_port()}"
        interval = "500ms"
        jobs = {"relay": site.ports["observe"], "connector": site.ports["c1"]}
        config = {
            "global": {"scrape_interval": interval, "scrape_timeout": interval, "evaluation_interval": interval},
            "rule_files": [str(RULES)],
            "scrape_configs": [
                {"job_name": job, "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]} for job, port in jobs.items()
            ],
        }
        path = site.folder / "prometheus.yaml"
        path.write_text(yaml.safe_dump(config))
        self.process: Program = site.run(
            "prometheus", program.path, f"--config.file={path}", f"--storage.tsdb.path={site.folder / 'tsdb'}",
            f"--web.listen-address={self._url.removeprefix('http://')}", variables=dict(program.environment),
        )  # fmt: skip

    async def ask(self, path: str, **parameters: str) -> dict[str, Any] | None:
        """The API's answer, None as long as nobody answers; AssertionError where it is an error."""
        assert self.process.is_running, self.process.err
        try:
            async with self._http.get(f"{self._url}/api/v1/{path}", params=parameters) as answer:
                if answer.status == 503:
                    return None
                found: dict[str, Any] = await answer.json()
        except aiohttp.ClientError:
            return None
        assert found["status"] == "success", (parameters, found)
        data: dict[str, Any] = found["data"]
        return data

    async def query(self, text: str) -> list[dict[str, Any]]:
        data = await self.ask("query", query=text)
        return data["result"] if data is not None else []

    async def alerts(self) -> set[str]:
        """Those that fire, or would if it lasted."""
        data = await self.ask("alerts")
        return {alert["labels"]["alertname"] for alert in data["alerts"]} if data is not None else set()


async def exposition(site: Site, port: str) -> str:
    async with site.http.get(f"http://127.0.0.1:{site.ports[port]}/metrics") as answer:
        return await answer.text()


class Described(NamedTuple):
    """A metric as it is exposed. `labels` are those of its samples, none where there are no samples."""

    type: str
    labels: set[str]
    text: str


def described(text: str) -> dict[str, Described]:
    """Those of ours by the name that samples have."""
    return {
        family.name + ("_total" if family.type == "counter" else ""): Described(
            family.type, {label for sample in family.samples for label in sample.labels} - {"le"}, family.documentation
        )
        for family in text_string_to_metric_families(text)
        if family.name.startswith("qanat_")
    }


async def test_alerts_dashboard_and_documentation_fit_what_is_exposed(site, peer, target):
    site.workers = 2
    site.expose(target)
    site.expose(f"http://127.0.0.1:{free_port()}", "dead")
    tenant = site.relay_config["tenants"]["acme"]
    tenant["routes"] += [
        site.make_route("lost", "/lost", target="nowhere", hold="100ms"),
        site.make_route("dead", "/dead", target="dead"),
    ]
    tenant["senders"][1]["expect_every"] = "1s"  # it never pushes
    await site.start()
    prometheus = Prometheus(site, peer("prometheus"))
    await site.connector.kill()
    await site.start_connector()

    async def traffic() -> None:
        while True:
            await site.push()
            await site.push("/lost")
            await site.push("/dead")
            await site.push(authorization="Bearer nobody")
            await site.push(headers={"Host": "elsewhere.example"})
            await asyncio.sleep(0.1)

    pushing = asyncio.create_task(traffic())  # noqa: TID251 - ended below
    try:
        await _compare(site, prometheus)
    finally:
        pushing.cancel()
    await site.connector.kill()

    async def notices() -> bool:
        return {"QanatNoConnector", "QanatRouteRed", "QanatConnectorDown"} <= await prometheus.alerts()

    await until(notices, "alerts about the connector that is gone")


async def _compare(site: Site, prometheus: Prometheus) -> None:
    there = described(await exposition(site, "observe")) | described(await exposition(site, "c1"))
    samples = set(there) | {f"{name}_{part}" for name in there for part in ("bucket", "sum", "count")}
    queries = {**dashboard_queries(), **{name: rule["expr"] for name, rule in rules().items()}}
    assert len(queries) > 50
    for title, query in queries.items():
        missing = set(NAME.findall(query)) - samples
        assert not missing, f"{title}: nobody exposes {missing}"

    for title, query in dashboard_queries().items():

        async def is_found(query: str = query) -> bool:
            return bool(await prometheus.query(query))

        await until(is_found, f"something for {title}: {query}", 15)

    async def are_judged() -> bool:
        data = await prometheus.ask("rules")
        found = [rule for group in data["groups"] for rule in group["rules"]] if data is not None else []
        return len(found) == len(rules()) and all(rule["health"] == "ok" for rule in found)

    await until(are_judged, "every rule to be evaluated without an error")
    await until(lambda: _are(prometheus, WRONG), "just these alerts")

    rows = {name: (kind, labels, text) for name, kind, labels, text in ROW.findall(PAGE.read_text())}
    documented = {name: (kind, text) for name, (kind, _, text) in rows.items()}
    assert documented.keys() - there.keys() == ELSEWHERE
    assert {name: (one.type, one.text) for name, one in there.items()}.items() <= documented.items()
    for name, one in there.items():
        labels = set(re.findall(r"`(\w+)`", rows[name][1]))
        assert not one.labels or one.labels == labels, (name, one.labels)


async def _are(prometheus: Prometheus, names: set[str]) -> bool:
    return await prometheus.alerts() == names


def test_every_code_in_a_query_is_one_of_the_catalogue():
    for query in (*dashboard_queries().values(), *(rule["expr"] for rule in rules().values())):
        for listed in re.findall(r'code!?=~"([^"]*)"', query):
            assert set(listed.split("|")) <= FAULTS.keys()
