"""What a connector that runs says of its tunnels."""

from __future__ import annotations

from typing import Any

import pytest

from connector_agent.prechecks.route import exit_code_for
from shared.control import CONTROL_SOCKET, ControlServer
from shared.exits import ExitCode
from tests.connector_agent.prechecks.kit import Bench

pytestmark = pytest.mark.system

OPEN: dict[str, Any] = {"state": "open", "error": None}
LOST: dict[str, Any] = {"state": "waiting", "error": "nothing listens", "code": "connection-refused"}
BARRED: dict[str, Any] = {"state": "waiting", "error": "revoked", "code": "certificate-revoked"}
OLD: dict[str, Any] = {"state": "draining", "error": None}
PENDING: dict[str, Any] = {"state": "pending", "error": None}


@pytest.mark.parametrize(
    ("tunnels", "result", "exit_code"),
    [
        ([OPEN, OPEN], "ok", ExitCode.OK),
        ([OPEN, OPEN, OLD], "ok", ExitCode.OK),
        ([OPEN, LOST], "warning", ExitCode.OK),
        ([LOST, PENDING], "failed", ExitCode.FAILED),
        ([BARRED, PENDING], "failed", ExitCode.CREDENTIAL),
        ([BARRED, PENDING, LOST], "failed", ExitCode.FAILED),
        ([PENDING], "failed", ExitCode.FAILED),
    ],
)
async def test_its_tunnels(bench: Bench, tunnels: list[dict[str, Any]], result: str, exit_code: ExitCode) -> None:
    async def status(_: object) -> dict[str, Any]:
        return {"state": "serving", "started_at": "now", "tunnels": tunnels}

    server = ControlServer(bench.folder / "state" / CONTROL_SOCKET, {("GET", "/v1/status"): status})
    await server.start()
    try:
        row = (await bench.check()).get("this connector", "daemon")
    finally:
        await server.close()
    assert row.result == result
    if result == "failed":
        assert row.exit_code == exit_code
        assert row.remedy


def test_what_is_about_credentials() -> None:
    assert exit_code_for("certificate-expired", "connector-blocked") == ExitCode.CREDENTIAL
    assert exit_code_for("proxy-credentials-refused") == ExitCode.CREDENTIAL
    assert exit_code_for("proxy-denied") == ExitCode.FAILED
    assert exit_code_for() == ExitCode.FAILED
