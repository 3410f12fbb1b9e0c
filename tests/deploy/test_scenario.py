"""What docker-compose.yml starts, started as processes: Prometheus' samples come out at VictoriaMetrics."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from tests.deploy.scenario import Scenario, services
from tests.system.programs import until

pytestmark = pytest.mark.system


@pytest_asyncio.fixture
async def scenario(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Scenario]:
    made = Scenario(tmp_path_factory.mktemp("compose"))
    yield made
    await made.close()


def start_victoria_metrics(scenario: Scenario, peer: Any) -> None:
    arguments = map(scenario.adapt, services()["victoria-metrics"]["command"])
    listen = f"-httpListenAddr=127.0.0.1:{scenario.ports['8428']}"
    program = peer("victoria-metrics")
    scenario.run(
        "victoria-metrics", [program.path, listen, "-memory.allowedPercent=5", *arguments], program.environment
    )


def start_prometheus(scenario: Scenario, peer: Any) -> None:
    arguments = map(scenario.adapt, services()["prometheus"]["command"])
    listen = f"--web.listen-address=127.0.0.1:{scenario.ports['9090']}"
    program = peer("prometheus")
    scenario.run("prometheus", [program.path, listen, *arguments], program.environment)


async def query(scenario: Scenario, text: str) -> list[Any]:
    """PromQL, as docs/install.md asks by `docker-compose exec`."""
    url = f"http://127.0.0.1:{scenario.ports['8428']}/api/v1/query"
    async with aiohttp.ClientSession() as http, http.get(url, params={"query": text}) as answer:
        found: list[Any] = (await answer.json())["data"]["result"]
        return found


async def test_samples_cross_into_a_data_center_that_joined_by_token(scenario, peer):
    assert "setup: done" in scenario.setup()
    start_victoria_metrics(scenario, peer)
    relay = scenario.start("relay")
    await until(lambda: scenario.is_ready("relay"), "a relay that is ready")
    connector = scenario.start("connector")
    await until(lambda: scenario.is_ready("connector"), "a connector that is ready")
    start_prometheus(scenario, peer)
    await until(lambda: query(scenario, "up"), "samples", 40)
    assert [line["event"] for line in connector.log_lines].count("joined") == 1
    assert not any(line["level"] == "error" for line in relay.log_lines + connector.log_lines)

    # As `docker-compose up` does once more, beside the running relay.
    before = {path: path.read_bytes() for path in scenario.folder.glob("*/*.yaml")}
    token = scenario.path("/run/join/token").read_bytes()
    assert "There is a CA" in scenario.setup()
    assert {path: path.read_bytes() for path in before} == before
    assert scenario.path("/run/join/token").read_bytes() == token

    assert await connector.stop() == 0
    assert not scenario.is_ready("connector")
    assert scenario.is_ready("relay")  # which waits for a connector, and can work
