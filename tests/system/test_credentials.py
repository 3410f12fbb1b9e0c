"""Every kind of credential by the real programs that use it, across a restart of the relay, and switched off."""

from __future__ import annotations

import asyncio
import contextlib
import json
import ssl
import subprocess
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from oauthlib.oauth2 import BackendApplicationClient, InvalidClientError
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from requests_oauthlib import OAuth2Session

from shared.secrets import hash_secret, new_secret
from tests.cloud_relay.oauth.kit import AUDIENCE, ISSUER, Signer, key_set
from tests.support.ports import free_port
from tests.system.kit import LOCATION, TENANT, TRUST_DOMAIN, USER, Answer, Site, assert_honest
from tests.system.programs import command, environment, until
from tests.system.test_prometheus import Exporter, VictoriaMetrics, start_prometheus

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

SIGNER = Signer("RS256")
SECRET = new_secret()


def use_all_kinds(site: Site) -> None:
    """Give the tenant a sender of each kind beside the two that it has."""
    tenant = site.relay_config["tenants"][TENANT]
    (site.folder / "keys.json").write_bytes(key_set(SIGNER))
    tenant["sender_ca"] = str(site.pki / "ca.pem")
    tenant["token_endpoints"] = [{"host": "localhost"}]
    tenant["issuers"] = [
        {"name": "btp", "issuer": ISSUER, "audience": AUDIENCE, "jwks_file": "keys.json", "algorithms": "RS256"}
    ]
    tenant["senders"] += [
        {"name": "oauth", "oauth": {"client_id": "client-1", "client_secret_hash": hash_secret(SECRET)}},
        {"name": "jwt", "jwt": {"issuer": "btp", "claims": {"sub": "jwt"}}},
        {
            "name": "mtls",
            "certificate": {"san": f"uri:spiffe://{TRUST_DOMAIN}/tenant/acme/location/{LOCATION}/connector/c2"},
        },
    ]
    site.route["senders"] = ["s4", "ibp", "oauth", "jwt", "mtls"]


def client_certificate(site: Site) -> tuple[str, str]:
    leaf = site.pki / f"connector.{TENANT}.{LOCATION}.c2"
    return f"{leaf}.pem", f"{leaf}.key"


def cli(site: Site, *arguments: str) -> dict[str, Any]:
    done = subprocess.run(
        [command("cloud-relay"), *arguments, "--config", str(site.folder / "relay.yaml"), "--json"],
        capture_output=True, text=True, timeout=30, env=environment(), check=True,
    )  # fmt: skip
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def fetch_token(site: Site, secret: str = SECRET) -> OAuth2Session:
    """By requests-oauthlib: a session that sends its token along."""
    session = OAuth2Session(client=BackendApplicationClient("client-1"))
    session.trust_env = False
    ca = str(site.pki / "ca.pem")
    session.fetch_token(site.url("/oauth/token"), client_id="client-1", client_secret=secret, verify=ca)
    return session


def export(site: Site, session: OAuth2Session) -> bool:
    exporter = OTLPMetricExporter(
        endpoint=site.url("/v1/metrics"), certificate_file=str(site.pki / "ca.pem"), session=session, timeout=10
    )
    reader = PeriodicExportingMetricReader(exporter, export_interval_millis=3_600_000)
    provider = MeterProvider([reader], shutdown_on_exit=False)
    provider.get_meter("test").create_counter("orders").add(42)
    flushed = provider.force_flush()
    provider.shutdown()
    return flushed


async def push_with_certificate(site: Site, host: str | None = None) -> tuple[int, str]:
    """Status and code of a push that has no other credential."""
    trust = ssl.create_default_context(cafile=str(site.pki / "ca.pem"))
    trust.load_cert_chain(*client_certificate(site))
    headers = {} if host is None else {"Host": host}
    async with site.http.post(site.url(), data=b"42", ssl=trust, headers=headers) as answer:
        return answer.status, answer.headers.get("Qanat-Error", "")


async def test_opentelemetry_by_an_oauth_library_and_switching_its_sender_off(site, target, monkeypatch):
    for name in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        monkeypatch.delenv(name, raising=False)
    use_all_kinds(site)
    site.expose(target)
    await site.start()
    with pytest.raises(InvalidClientError):
        await asyncio.to_thread(fetch_token, site, "wrong")
    session = await asyncio.to_thread(fetch_token, site)
    assert await asyncio.to_thread(export, site, session)
    assert target.received[0].path == "/v1/metrics"
    assert "authorization" not in target.received[0].headers

    async def push() -> Any:
        return await site.push(authorization=f"Bearer {session.token['access_token']}")

    assert (await push()).status == 200
    assert cli(site, "senders", "disable", "acme/oauth")["changed"] is True
    refused = await push()
    assert (refused.status, refused.fault) == (401, "sender-disabled"), "a token that was given out included"
    assert_honest(refused)
    with pytest.raises(InvalidClientError):
        await asyncio.to_thread(fetch_token, site)
    assert (await site.push()).status == 200, "nobody else is concerned"

    await site.relay.kill()
    (entry,) = [one for one in cli(site, "senders", "list")["senders"] if one["sender"] == "oauth"]
    assert entry["disabled"] is True
    await site.start_relay()
    await until(lambda: _is_back(site), "pushes after the restart")
    assert (await push()).fault == "sender-disabled", "survives a kill"
    assert cli(site, "senders", "enable", "acme/oauth")["changed"] is True
    assert (await push()).status == 200, "the token of before the restart counts"
    assert not any(SECRET in program.out + program.err for program in site.programs)


async def _is_back(site: Site) -> bool:
    return (await site.push()).status == 200


async def test_a_client_certificate_counts_for_the_host_of_its_connection(site, target):
    use_all_kinds(site)
    site.expose(target)
    second = site.make_route("other", "/") | {"senders": ["mtls"]}
    second["match"] = {"host": "other.example.com", "path": "/"}
    site.relay_config["tenants"][TENANT]["routes"].append(second)
    await site.start()
    assert await push_with_certificate(site) == (200, "")
    assert await push_with_certificate(site, "other.example.com") == (421, "server-name-mismatch")
    trust = ssl.create_default_context(cafile=str(site.pki / "ca.pem"))
    trust.maximum_version = ssl.TLSVersion.TLSv1_2
    with pytest.raises(aiohttp.ClientConnectionError):
        await site.http.post(site.url(), data=b"", ssl=trust)
    found = await until(lambda: [one["sender"] for one in site.relay.access_lines if one["status"] == 200], "its line")
    assert found == ["mtls"]
    cli(site, "senders", "disable", "acme/mtls")
    assert await push_with_certificate(site) == (401, "sender-disabled")


@contextlib.asynccontextmanager
async def open_issuer(site: Site, port: int, *signers: Signer) -> AsyncIterator[None]:
    """A foreign issuer's key set, over HTTPS."""

    async def serve(_: web.Request) -> web.Response:
        return web.Response(body=key_set(*signers), content_type="application/json")

    app = web.Application()
    app.router.add_get("/token_keys", serve)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(site.pki / "ingress.pem", site.pki / "ingress.key")
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", port, ssl_context=tls).start()
        yield
    finally:
        await runner.cleanup()


async def test_an_issuer_that_is_away_and_one_that_has_new_keys(site, target):
    use_all_kinds(site)
    port = free_port()
    issuer = site.relay_config["tenants"][TENANT]["issuers"][0]
    del issuer["jwks_file"]
    issuer |= {"jwks_url": f"https://localhost:{port}/token_keys", "jwks_ca": str(site.pki / "ca.pem")}
    site.expose(target)
    await site.start()
    old, new = SIGNER, Signer("RS256", "k2")

    async def push(signer: Signer) -> Answer:
        answer: Answer = await site.push(authorization=f"Bearer {signer.sign(sub='jwt').decode()}")
        return answer

    refused = await push(old)
    assert (refused.status, refused.fault) == (503, "cannot-judge-credential"), "away: nobody is refused for good"
    assert_honest(refused)

    async def gets_through(signer: Signer) -> bool:
        answer = await push(signer)
        assert answer.status in (200, 503), answer
        return answer.status == 200

    async with open_issuer(site, port, old):
        await until(lambda: gets_through(old), "its keys")
    assert (await push(old)).status == 200, "away again: what is known stays in use"
    assert (await push(new)).fault == "cannot-judge-credential", "perhaps it has a new key"
    async with open_issuer(site, port, new):
        await site.relay.kill()
        await site.start_relay()
        await until(lambda: gets_through(new), "its new keys")
        assert (await push(Signer("RS256", "k2"))).status == 401, "signed by somebody else"


def prometheus_config(site: Site, exporter: Exporter) -> dict[str, Any]:
    """One Prometheus that pushes all that it has once with each kind of credential."""
    ca = str(site.pki / "ca.pem")
    certificate, key = client_certificate(site)
    oauth = {
        "client_id": "client-1",
        "client_secret": SECRET,
        "token_url": site.url("/oauth/token"),
        "tls_config": {"ca_file": ca},
    }
    kinds: dict[str, dict[str, Any]] = {
        "basic": {"basic_auth": {"username": USER, "password": site.password}},
        "bearer": {"authorization": {"credentials": site.token}},
        "jwt": {"authorization": {"credentials": SIGNER.sign(sub="jwt").decode()}},
        "oauth": {"oauth2": oauth},
        "mtls": {"tls_config": {"ca_file": ca, "cert_file": certificate, "key_file": key}},
    }
    return {
        "global": {"scrape_interval": "250ms", "scrape_timeout": "250ms"},
        "scrape_configs": [
            {"job_name": "exporter", "static_configs": [{"targets": [f"127.0.0.1:{exporter.port}"]}]},
        ],
        "remote_write": [
            {
                "name": kind,
                "url": site.url("/api/v1/write"),
                "tls_config": {"ca_file": ca},
                "queue_config": {"batch_send_deadline": "250ms", "min_backoff": "30ms", "max_backoff": "500ms"},
                "write_relabel_configs": [{"target_label": "credential", "replacement": kind}],
                **credential,
            }
            for kind, credential in kinds.items()
        ],
    }


async def test_prometheus_loses_nothing_over_a_restart_with_any_credential(site, peer):
    use_all_kinds(site)
    exporter = Exporter()
    async with exporter.serving():
        victoria = VictoriaMetrics(site, peer("victoria-metrics"))
        site.expose(f"http://127.0.0.1:{victoria.port}", allow=[{"methods": ["POST"], "path": "/api/v1/write"}])
        await site.start()
        await until(lambda: victoria.query("1"), "the target")
        prometheus = start_prometheus(site, peer("prometheus"), prometheus_config(site, exporter))
        kinds = ("basic", "bearer", "jwt", "oauth", "mtls")

        async def samples(kind: str) -> list[float]:
            return await victoria.values(f'test_scrapes_total{{credential="{kind}"}}')

        async def have(count: int) -> bool:
            return all([len(await samples(kind)) >= count for kind in kinds])

        await until(lambda: have(4), "samples by each credential", 40)
        await site.relay.kill()
        at_kill = len(exporter.served)
        await until(lambda: len(exporter.served) >= at_kill + 4, "scrapes while the relay is away")
        await site.start_relay()
        wanted = len(exporter.served) + 4
        await until(lambda: have(wanted), "the samples of before, meanwhile and after", 40)
        assert prometheus.is_running
        for kind in kinds:
            found = await samples(kind)
            assert found == [float(n) for n in range(1, len(found) + 1)], f"{kind}: a sample is missing"
        refused = [line for line in site.relay.access_lines if line["status"] in (401, 403)]
        assert refused == []
        senders = {line.get("sender") for line in site.relay.access_lines if line["status"] == 204}
        assert senders == {"s4", "ibp", "jwt", "oauth", "mtls"}
        await prometheus.kill()
