"""Joining as an operator does it, and crashes at every named point between a token and its certificate."""

from __future__ import annotations

import asyncio
import shutil
import signal
import stat

import pytest
import pytest_asyncio

from connector_agent.identity.store import IdentityStore
from shared.crash_points import CONNECTOR_POINTS, RELAY_POINTS
from shared.exits import CommandError
from shared.pki.issue import fingerprint
from tests.system.managed import ManagedSite, connector_name
from tests.system.programs import command, until
from tests.system.targets import Target

pytestmark = pytest.mark.system


@pytest_asyncio.fixture
async def site(pki, tmp_path_factory, target: Target):
    async with ManagedSite(tmp_path_factory.mktemp("site"), pki) as made:
        made.expose(target)
        await made.init()
        yield made


async def test_from_nothing_to_a_push(site, target):
    await site.start_relay()
    token = await site.invite("c1", ["main"])
    await site.start_connector()
    answer = await site.push(body=b"42")
    assert (answer.status, target.received[-1].body) == (200, b"42")
    shown = await site.connector_says("c1", "certs", "show")
    assert shown["identity"]["id"].endswith("/tenant/acme/location/walldorf/connector/c1")
    secrets = [path for path in site.folder.rglob("*") if path.is_file() and path.suffix in {".key", ".db"}]
    assert secrets
    assert {stat.S_IMODE(path.stat().st_mode) for path in secrets} == {0o600}
    for program in site.programs:  # neither the token nor its secret is told to anybody
        assert token[20:60] not in program.err + program.out


async def test_a_connector_that_starts_before_its_relay_joins_when_that_is_there(site):
    await site.invite()
    site.launch_connector()
    await asyncio.sleep(0.5)
    await site.start_relay()
    await site.fully_connected()


async def test_what_the_token_did_not_allow_is_not_attached(site):
    await site.start_relay()
    await site.invite("c1", ["another"])
    site.launch_connector()
    await until(lambda: "main" in site.relay.err and "allow" in site.relay.err, "a warning in the relay's log")
    assert (await site.push()).fault == "no-connector"
    (connector,) = (await site.relay_says("status"))["tenants"][0]["locations"][0]["connectors"]
    assert connector["not_allowed"] == ["main"]
    assert connector["tunnels"][0]["targets"] == {}
    shown = site.run("shown", command("cloud-relay"), "status", "--config", "relay.yaml")
    assert await shown.ended() == 0
    assert "acme/walldorf/c1 announces what its join token did not allow: main" in " ".join(shown.out.split())


def test_there_are_points_to_crash_at():
    assert len(RELAY_POINTS) >= 5
    assert len(CONNECTOR_POINTS) >= 5


@pytest.mark.parametrize("point", RELAY_POINTS)
async def test_a_relay_that_dies_while_a_connector_joins(site, point):
    await site.invite()
    site.write("c1")
    dying = site.launch_dying("cloud-relay", "relay", point, "serve")
    await until(lambda: "relay started" in dying.err, "the relay that dies")
    joining = site.run(
        "joining", command("connector-agent"), "enroll", "--token-file", "c1.token", "--config", "c1.yaml"
    )
    assert await dying.ended() == -signal.SIGKILL
    code = await joining.ended()
    assert code == 1 or point == RELAY_POINTS[-1]  # after the last, the answer may have arrived
    await site.start_relay()
    await _joins_and_nobody_else_does(site)


@pytest.mark.parametrize("point", CONNECTOR_POINTS)
async def test_a_connector_that_dies_while_it_joins(site, point):
    await site.start_relay()
    await site.invite()
    dying = site.launch_dying("connector-agent", "c1", point, "enroll", "--token-file", "c1.token")
    assert await dying.ended() == -signal.SIGKILL
    await _joins_and_nobody_else_does(site)


async def _joins_and_nobody_else_does(site: ManagedSite) -> None:
    """The same key gets a certificate by the same token; a thief with a copy of it does not."""
    if IdentityStore(site.folder / "c1-state").load_identity() is None:
        await site.connector_says("c1", "enroll", "--token-file", "c1.token")
    thief = site.folder / "thief.yaml"
    thief.write_text((site.folder / "c1.yaml").read_text().replace("c1-state", "thief-state"))
    problem = await site.connector_says("thief", "enroll", "--token-file", "c1.token", exit_code=7)
    assert problem["code"] == "token-used"
    (token,) = [one for one in (await site.ask("tokens-list"))["tokens"] if one["connector"] == connector_name("c1")]
    with pytest.raises(CommandError, match="used already") as refused:  # nobody should believe that this ended anything
        await site.ask("tokens-revoke", token=token["token"])
    assert "certs revoke" in refused.value.remedy
    (known,) = (await site.ask("connectors-show", connector=connector_name("c1")))["certificates"]
    identity = IdentityStore(site.folder / "c1-state").load_identity()
    assert identity is not None
    assert known["fingerprint"] == fingerprint(identity.certificate)
    assert known["standing"] == "good"
    await until(lambda: "ALARM" in site.relay.err, "an alarm")


async def test_restored_on_another_host_the_connectors_come_back(site, target):
    """What was renewed after the backup comes back too; the relay that was lost is not asked."""
    await site.start_relay()
    await site.invite()
    await site.start_connector()
    secret = site.folder / "passphrase"
    secret.touch(mode=0o600)
    secret.write_text("a long passphrase\n")
    await site.relay_says("backup", "relay.backup", "--passphrase-file", "passphrase")
    await site.connector_says("c1", "certs", "rotate")
    await site.relay.kill()
    shutil.rmtree(site.folder / "relay-state")
    await site.relay_says("restore", "relay.backup", "--passphrase-file", "passphrase")
    await site.start_relay()
    await site.fully_connected()
    assert (await site.push(body=b"after")).status == 200
    assert target.received[-1].body == b"after"
