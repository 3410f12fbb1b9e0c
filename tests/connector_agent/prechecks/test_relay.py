"""The ladder to a relay, each rung broken for real: one failure, named, with a remedy; what stands on it is skipped."""

from __future__ import annotations

import time
from datetime import timedelta
from pathlib import Path

import pytest

from shared.exits import ExitCode
from shared.pki import issue
from shared.pki.files import write_private
from shared.pki.tls import load_certificates
from shared.prechecks import exit_code_of
from tests.connector_agent.prechecks.kit import Bench
from tests.support.development import Pki
from tests.support.middlebox import inspecting, proxy_that_says
from tests.support.ports import free_port
from tests.support.relay_double import SECRET, relay_double
from tests.support.tunnels import world

pytestmark = pytest.mark.system

HOUR = 3600.0


async def test_all_is_well(bench: Bench) -> None:
    rows = await bench.check()
    assert rows.failures == []
    assert exit_code_of(rows) == ExitCode.OK
    assert rows.results("relay") == {
        "DNS": "ok", "proxy": "skipped", "TCP": "ok", "TLS": "ok", "chain": "ok", "interception": "ok",
        "admission": "ok", "clock": "ok",
    }  # fmt: skip
    figures = {row.check: row.figure for row in rows if row.subject.startswith("relay")}
    assert {check: figure.unit for check, figure in figures.items() if figure is not None} == {
        "DNS": "ms", "TCP": "ms", "TLS": "ms", "chain": "days", "admission": "ms", "clock": "s"
    }  # fmt: skip
    chain = rows.get("relay", "chain")
    assert "Qanat root CA" in chain.detail
    assert chain.figure is not None
    assert 6.9 < chain.figure.value < 7.1
    assert rows.get("this connector", "certificate").result == "ok"


async def test_the_connector_that_runs_is_not_disturbed(bench: Bench) -> None:
    world = bench.world
    pair = world.pki.connector()
    bench.identify(pair)
    world.connect(pair)
    await world.until_open(2)
    sessions = world.registry.sessions()
    for _ in range(3):
        assert (await bench.check()).failures == []
    assert world.registry.sessions() == sessions
    assert all(session.link.is_open and not session.link.is_suspect for session in sessions)
    assert await world.push() == (b"head", b"body")


async def test_nothing_is_left_at_the_relay(bench: Bench) -> None:
    await bench.check()
    await bench.world.until(lambda: bench.listener._links == {})
    assert bench.listener.entrance.gate.in_progress == 0
    assert bench.world.registry.sessions() == []


# --- the way there


async def test_a_name_that_there_is_not(bench: Bench) -> None:
    bench.dial(443, "relay.no-such-name.invalid")
    rows = await bench.check()
    failure = rows.only_failure
    assert (failure.check, failure.code) == ("DNS", "dns-failure")
    assert "relay.no-such-name.invalid" in failure.detail
    assert set(rows.results("relay").values()) == {"failed", "skipped"}


async def test_a_port_where_nobody_listens(bench: Bench) -> None:
    port = free_port()
    bench.dial(port)
    failure = (await bench.check()).only_failure
    assert (failure.check, failure.code) == ("TCP", "connection-refused")
    assert f"localhost:{port}" in failure.detail


@pytest.mark.parametrize(
    ("status", "code", "remedy", "exit_code"),
    [
        (407, "proxy-credentials-refused", "proxy.auth_file", ExitCode.CREDENTIAL),
        (403, "proxy-denied", "CONNECT", ExitCode.FAILED),
        (502, "proxy-cannot-connect", "relay runs", ExitCode.FAILED),
    ],
)
async def test_a_proxy_that_refuses(bench: Bench, status: int, code: str, remedy: str, exit_code: ExitCode) -> None:
    async with proxy_that_says(status) as port:
        bench.config["proxy"] = {"url": f"http://127.0.0.1:{port}"}
        rows = await bench.check()
    failure = rows.only_failure
    assert (failure.check, failure.code) == ("proxy", code)
    assert remedy in failure.remedy
    assert exit_code_of(rows) == exit_code
    assert rows.get("relay", "admission").result == "skipped"


async def test_credentials_that_the_proxy_refuses(bench: Bench) -> None:
    (bench.folder / "auth").touch(mode=0o600)
    (bench.folder / "auth").write_text("corp:planted-secret\n")
    async with proxy_that_says(407) as port:
        bench.config["proxy"] = {"url": f"http://127.0.0.1:{port}", "auth_file": "auth"}
        rows = await bench.check()
    assert "the file that proxy.auth_file names" in rows.only_failure.remedy
    assert "planted-secret" not in str(rows)


async def test_a_proxy_of_the_environment_can_have_no_credentials(bench: Bench) -> None:
    async with proxy_that_says(407) as port:
        bench.environ["https_proxy"] = f"http://127.0.0.1:{port}"
        bench.dial(443, "relay.example.com")  # a loopback relay goes without the environment's proxy
        failure = (await bench.check()).only_failure
    assert "name the proxy in the config" in failure.remedy


async def test_no_proxy_there(bench: Bench) -> None:
    bench.config["proxy"] = {"url": f"http://127.0.0.1:{free_port()}"}
    failure = (await bench.check()).only_failure
    assert (failure.check, failure.code) == ("proxy", "proxy-connection-refused")


# --- who is there


async def test_a_box_that_opens_tls_is_named(bench: Bench) -> None:
    async with inspecting(bench.world.port) as port:
        bench.dial(port)
        rows = await bench.check()
    failure = rows.only_failure
    assert failure.check == "interception"
    assert "Corp Inspection" in failure.detail
    assert f"have localhost:{port} excepted" in failure.remedy
    assert rows.get("relay", "admission").result == "skipped"


async def test_a_relay_of_another_ca_is_no_middlebox(bench: Bench) -> None:
    other = bench.folder / "other"
    other.mkdir()
    bench.identify(bench.world.pki.connector(), Pki(other).ca)
    rows = await bench.check()
    assert rows.only_failure.check == "chain"
    assert "a relay is there" in rows.only_failure.detail
    assert rows.get("relay", "interception").result == "ok"


async def test_what_is_no_tls(bench: Bench) -> None:
    async with proxy_that_says(200) as port:
        bench.dial(port)
        failure = (await bench.check()).only_failure
    assert failure.check == "TLS"


async def test_a_certificate_for_another_name(bench: Bench) -> None:
    bench.dial(bench.world.port, "127.0.0.1")
    pair = bench.world.pki.relay("relay.example.com", name="r2")
    await bench.world.serve_again(pair)
    failure = (await bench.check()).only_failure
    assert (failure.check, failure.code) == ("chain", "relay-wrong-name")
    assert "tunnel.advertise" in failure.remedy


# --- whether we may come in


@pytest.mark.parametrize("code", ["certificate-revoked", "connector-blocked"])
async def test_a_connector_that_the_relay_bars(bench: Bench, code: str) -> None:
    if code == "connector-blocked":
        bench.world.policy.blocked.add(("acme", "walldorf", "c1"))
    else:
        pair = bench.world.pki.connector()
        bench.identify(pair)
        bench.world.policy.revoked.add(issue.fingerprint(load_certificates(pair.certificate)[0]))
    rows = await bench.check()
    assert (rows.only_failure.check, rows.only_failure.code) == ("admission", code)
    assert exit_code_of(rows) == ExitCode.CREDENTIAL
    assert rows.get("relay", "clock").result == "ok"  # a refusal tells the time, too


async def test_an_expired_certificate(bench: Bench) -> None:
    pki = bench.world.pki
    bench.identify(pki.connector("old", now=pki.now - timedelta(days=3), lifetime=timedelta(days=1)))
    rows = await bench.check()
    own, admission = rows.failures
    assert own.check == "certificate"
    assert own.figure is not None
    assert own.figure.value < 0
    assert (admission.check, admission.code) == ("admission", "certificate-expired")
    assert exit_code_of(rows) == ExitCode.CREDENTIAL


async def test_a_certificate_of_a_foreign_ca(bench: Bench) -> None:
    other = bench.folder / "other"
    other.mkdir()
    bench.identify(Pki(other).connector())
    rows = await bench.check()
    assert rows.only_failure.code == "certificate-foreign"
    assert exit_code_of(rows) == ExitCode.CREDENTIAL


@pytest.mark.parametrize(("off", "result", "told"), [
    (HOUR, "failed", "behind"), (-HOUR, "failed", "ahead of"), (30, "warning", "behind"), (2, "ok", "agree"),
])  # fmt: skip
async def test_a_clock_that_is_off(bench: Bench, off: float, result: str, told: str) -> None:
    bench.world.clock.observe(time.time() + off)
    bench.world.wall_clock = lambda: time.time() + off
    rows = await bench.check()
    clock = rows.get("relay", "clock")
    assert clock.result == result
    assert told in clock.detail
    assert clock.figure is not None
    assert abs(clock.figure.value + off) < 1.5
    assert [row.check for row in rows.failures] in ([], ["clock"], ["admission", "clock"])
    if result == "failed":
        assert "time server" in clock.remedy  # a certificate that was just made is not valid yet an hour ago


# --- without an identity


async def test_files_that_cannot_be_used(bench: Bench) -> None:
    (bench.folder / "connector-c1.key").chmod(0o644)
    rows = await bench.check()
    assert rows.only_failure.subject == "this connector"
    assert "chmod 600" in rows.only_failure.detail
    assert exit_code_of(rows) == ExitCode.CONFIG
    assert rows.get("relay", "TLS").result == "ok"  # the way there can be tried all the same
    assert rows.get("relay", "admission").result == "skipped"


async def test_before_joining_the_tokens_pin_counts(tmp_path: Path) -> None:
    """The way is tried, and whose CA it is, without the token being told to anybody."""
    async with world(tmp_path) as made, relay_double(tmp_path) as relay:
        bench = Bench(made, tmp_path)
        write_private(tmp_path / "token", f"{relay.token()}\n".encode())
        bench.config |= {"join": {"token_file": "token"}}
        bench.dial(relay.port)
        rows = await bench.check()
        assert rows.failures == []
        assert rows.get("this connector", "identity").result == "skipped"
        assert rows.get("relay", "chain").result == rows.get("relay", "interception").result == "ok"
        assert rows.get("relay", "admission").result == "skipped"
        async with inspecting(relay.port) as port:
            bench.dial(port)
            rows = await bench.check()
        assert rows.only_failure.check == "interception"
        assert "Corp Inspection" in rows.only_failure.detail
        assert not (tmp_path / "state").exists()
        assert SECRET not in str(rows)


async def test_nobody_has_joined(bench: Bench) -> None:
    del bench.config["tls"]
    rows = await bench.check()
    assert rows.only_failure.code == "not-joined"
    assert "connector-agent enroll" in rows.only_failure.remedy
    assert rows.get("relay", "TLS").result == "ok"
