"""tinyproxy between connector and relay; and a middlebox that opens TLS."""

from __future__ import annotations

import time
from typing import Any

import pytest

from tests.support.middlebox import inspecting
from tests.support.ports import free_port
from tests.system.kit import Site
from tests.system.programs import listens, until

pytestmark = pytest.mark.system

TINYPROXY = """
Port {port}
Listen 127.0.0.1
Allow 127.0.0.1
Timeout 600
LogFile "{folder}/tinyproxy.log"
LogLevel Connect
MaxClients 100
{more}
"""


class Tinyproxy:
    """The proxy; its log tells who came through."""

    def __init__(self, site: Site, program: Any, more: str = "") -> None:
        self.port = free_port()
        self._log = site.folder / "tinyproxy.log"
        config = site.folder / "tinyproxy.conf"
        config.write_text(TINYPROXY.format(port=self.port, folder=site.folder, more=more))
        site.run("tinyproxy", program.path, "-d", "-c", str(config), variables=dict(program.environment))

    async def is_ready(self) -> None:
        await until(lambda: listens(self.port), "tinyproxy")

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tunnels(self) -> int:
        """CONNECTs that it established."""
        return self._log.read_text().count("Established connection to host") if self._log.exists() else 0


def secret_file(site: Site, text: str) -> str:
    path = site.folder / "proxy-auth"
    path.touch(mode=0o600)
    path.write_text(text)
    return path.name


async def test_with_credentials_from_the_config(site, target, peer):
    site.expose(target)
    proxy = Tinyproxy(site, peer("tinyproxy"), "BasicAuth corp proxy-password-0815")
    auth_file = secret_file(site, "corp:proxy-password-0815\n")
    site.connector_config()["proxy"] = {"url": proxy.url, "auth_file": auth_file}
    await proxy.is_ready()
    await site.start_relay()
    await site.start_connector()
    assert (await site.push()).status == 200
    assert proxy.tunnels >= 2
    assert "proxy-password-0815" not in site.connector.err
    opened = [line for line in site.connector.log_lines if line["event"] == "tunnel open"]
    assert opened[0]["proxy"] == proxy.url


@pytest.mark.parametrize(("presented", "status"), [("", "407"), ("corp:wrong-4711\n", "401")], ids=["none", "wrong"])
async def test_with_wrong_credentials(site, target, peer, presented, status):
    """tinyproxy asks for credentials with 407, and refuses wrong ones with 401 (RFC 9110 would have it 407)."""
    site.expose(target)
    proxy = Tinyproxy(site, peer("tinyproxy"), "BasicAuth corp proxy-password-0815")
    await proxy.is_ready()
    config = site.connector_config()["proxy"] = {"url": proxy.url}
    if presented:
        config["auth_file"] = secret_file(site, presented)
    connector = site.launch_connector()
    await until(lambda: "proxy-credentials-refused" in connector.err, "the reason in the log")
    (told, *_) = [line for line in connector.log_lines if line.get("code") == "proxy-credentials-refused"]
    assert status in told["detail"]
    assert proxy.url in told["detail"]
    (row, *_) = (await site.status("c1"))["tunnels"]
    assert row["code"] == "proxy-credentials-refused"
    assert "wrong-4711" not in connector.err
    assert proxy.tunnels == 0


async def test_a_proxy_that_is_not_there(site, target):
    site.expose(target)
    site.connector_config()["proxy"] = {"url": f"http://127.0.0.1:{free_port()}"}
    connector = site.launch_connector()
    await until(lambda: "proxy-connection-refused" in connector.err, "the reason in the log")


async def test_a_relay_that_comes_later(site, target, peer):
    """The proxy says that it cannot reach the relay: that is an outage like any other, not a refusal."""
    site.expose(target)
    proxy = Tinyproxy(site, peer("tinyproxy"))
    await proxy.is_ready()
    site.connector_config()["proxy"] = {"url": proxy.url}
    connector = site.launch_connector()
    await until(lambda: any(line["event"] == "no tunnel" for line in connector.log_lines), "a try in vain")
    await site.start_relay()
    began = time.monotonic()
    await site.connector_is_ready()
    assert time.monotonic() - began < 3.0
    assert (await site.push()).status == 200


async def test_from_the_environment(site, target, peer):
    site.expose(target)
    proxy = Tinyproxy(site, peer("tinyproxy"))
    # A proxy of the environment is never used for a loopback address, and 0.0.0.0 is none by its name.
    site.connector_config()["relays"] = [f"wss://0.0.0.0:{site.ports['tunnel']}"]
    await proxy.is_ready()
    await site.start_relay()
    await site.start_connector(https_proxy=proxy.url)
    assert (await site.push()).status == 200
    assert proxy.tunnels == 2
    await site.connector.kill()
    await site.start_connector(https_proxy=proxy.url, no_proxy="example.com, 0.0.0.0")
    assert (await site.push()).status == 200
    assert proxy.tunnels == 2


async def test_no_proxy_of_the_config(site, target, peer):
    site.expose(target)
    proxy = Tinyproxy(site, peer("tinyproxy"))
    site.connector_config()["proxy"] = {"url": proxy.url, "no_proxy": ["localhost"]}
    await proxy.is_ready()
    await site.start_relay()
    await site.start_connector()
    assert (await site.push()).status == 200
    assert proxy.tunnels == 0


async def test_a_middlebox_is_named_with_its_issuer(site, target):
    site.expose(target)
    await site.start_relay()
    async with inspecting(site.ports["tunnel"]) as port:
        site.connector_config()["relays"] = [f"wss://localhost:{port}"]
        connector = site.launch_connector()
        await until(lambda: "relay-untrusted" in connector.err, "the reason in the log")
        (told, *_) = [line for line in connector.log_lines if line.get("code") == "relay-untrusted"]
        assert "Corp Inspection" in told["detail"]
        assert "TLS-intercepting middlebox" in told["detail"]
        (row, *_) = (await site.status("c1"))["tunnels"]
        assert row["code"] == "relay-untrusted"
        assert "Corp Inspection" in row["error"]
        assert row["next_try_s"] > 5
        await connector.kill()
