"""A real Prometheus pushes to a real VictoriaMetrics by remote write: what arrives is what was scraped, all of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import yaml
from aiohttp import web

from tests.support.ports import free_port
from tests.system.kit import USER, Site
from tests.system.programs import Program, until

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]


class Exporter:
    """What Prometheus scrapes: each scrape gets other values, and all that were served are kept."""

    def __init__(self) -> None:
        self.served: list[int] = []
        self.port = free_port()

    @contextlib.asynccontextmanager
    async def serving(self) -> AsyncIterator[None]:
        app = web.Application()
        app.router.add_get("/metrics", self._serve)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", self.port).start()
        try:
            yield
        finally:
            await runner.cleanup()

    async def _serve(self, request: web.Request) -> web.Response:
        number = len(self.served) + 1
        self.served.append(number)
        return web.Response(text=expose(number))


SERIES = {
    'test_scrapes_total{kind="counter"}': float,
    'test_temperature{place="hall 7",unit="°C"}': lambda n: 20.0 - n / 8,
    'test_seconds{kind="float"}': lambda n: n / 1000,
}


def expose(number: int) -> str:
    """The exposition of one scrape. The values have few digits: VictoriaMetrics keeps decimals, not floats."""
    return "".join(f"{series} {value(number)!r}\n" for series, value in SERIES.items())


def prometheus_config(site: Site, exporter: Exporter) -> dict[str, Any]:
    return {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "scrape_configs": [
            {"job_name": "exporter", "static_configs": [{"targets": [f"127.0.0.1:{exporter.port}"]}]},
        ],
        "remote_write": [
            {
                "url": site.url("/api/v1/write"),
                "basic_auth": {"username": USER, "password": site.password},
                "tls_config": {"ca_file": str(site.pki / "ca.pem")},
                "queue_config": {"batch_send_deadline": "250ms", "min_backoff": "30ms", "max_backoff": "500ms"},
            }
        ],
    }


def start_prometheus(site: Site, program: Any, settings: dict[str, Any]) -> Program:
    """As an agent, which keeps nothing but what it has yet to push."""
    config = site.folder / "prometheus.yaml"
    config.write_text(yaml.safe_dump(settings))
    return site.run(
        "prometheus", program.path, "--enable-feature=agent", f"--config.file={config}",
        f"--storage.agent.path={site.folder / 'agent'}", f"--web.listen-address=127.0.0.1:{free_port()}",
        variables=dict(program.environment),
    )  # fmt: skip


class VictoriaMetrics:
    """The target, and its query API."""

    def __init__(self, site: Site, program: Any) -> None:
        self.port = free_port()
        self._site = site
        self._program = site.run(
            "victoria-metrics", program.path, f"-httpListenAddr=127.0.0.1:{self.port}", "-retentionPeriod=100y",
            f"-storageDataPath={site.folder / 'victoria'}", "-search.latencyOffset=0s", "-memory.allowedPercent=5",
            variables=dict(program.environment),
        )  # fmt: skip

    async def query(self, text: str) -> list[dict[str, Any]] | None:
        """PromQL: the result of an instant query, None as long as nobody answers."""
        assert self._program.is_running, self._program.err
        try:
            async with self._site.http.get(
                f"http://127.0.0.1:{self.port}/api/v1/query", params={"query": text}
            ) as answer:
                found: list[dict[str, Any]] = (await answer.json())["data"]["result"]
                return found
        except aiohttp.ClientConnectionError:
            return None

    async def values(self, series: str) -> list[float]:
        """All samples of one series, in the order of time."""
        result = await self.query(f"{series}[10m]")
        return [float(value) for _, value in result[0]["values"]] if result else []


async def test_what_prometheus_scraped_is_what_can_be_queried(site, peer):
    exporter = Exporter()
    async with exporter.serving():
        victoria = VictoriaMetrics(site, peer("victoria-metrics"))
        site.expose(f"http://127.0.0.1:{victoria.port}", allow=[{"methods": ["POST"], "path": "/api/v1/write"}])
        await site.start()
        await until(lambda: _is_there(victoria), "the target")
        prometheus = start_prometheus(site, peer("prometheus"), prometheus_config(site, exporter))
        counter = next(iter(SERIES))

        async def has(count: int) -> bool:
            return len(await victoria.values(counter)) >= count

        await until(lambda: has(8), "the first samples at the target", 40)
        await site.connector.kill()
        at_kill = len(exporter.served)
        await until(lambda: len(exporter.served) >= at_kill + 8, "scrapes while the connector is away")
        await site.start_connector()
        wanted = len(exporter.served) + 4
        await until(lambda: has(wanted), "the samples of before, meanwhile and after", 40)
        assert prometheus.is_running

        served = len(exporter.served)
        for series, value in SERIES.items():
            found = await victoria.values(series)
            # The last scrapes may still be under way; of all the others none is missing, twice, or another.
            assert len(found) >= wanted - 1
            assert found == [value(n) for n in range(1, served + 10)][: len(found)]
            (result,) = await victoria.query(series) or []
            assert result["metric"]["job"] == "exporter"
            assert result["metric"]["instance"] == f"127.0.0.1:{exporter.port}"
        (up,) = await victoria.query("min_over_time(up[10m])") or []
        assert up["value"][1] == "1"
    await prometheus.kill()


async def _is_there(victoria: VictoriaMetrics) -> bool:
    await asyncio.sleep(0)
    return await victoria.query("1") is not None
