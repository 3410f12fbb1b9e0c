"""Configs that cannot be: exit code 3, and a message that says where and what."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from typing import Any

import pytest
import yaml

from tests.system.kit import Site
from tests.system.programs import Program, command

pytestmark = pytest.mark.system

Config = dict[str, Any]


def unknown_key(config: Config) -> str:
    config["listne"] = "127.0.0.1:1"
    return "listne"


def wrong_type(config: Config) -> str:
    config["observe"]["listen"] = ["not", "an", "address"]
    return "observe.listen"


def missing_file(config: Config) -> str:
    tls = config.get("tls") or config["tunnel"]["tls"]
    tls["certificate"] = "not-there.pem"
    return "tls.certificate"


def missing_key(config: Config) -> str:
    del config["state_dir"]
    return "state_dir"


def colliding_routes(config: Config) -> str:
    routes = config["tenants"]["acme"]["routes"]
    routes.append(routes[0] | {"name": "again"})
    return "already belongs to route acme/all"


def colliding_across_tenants(config: Config) -> str:
    config["tenants"]["beta"] = config["tenants"]["acme"]
    return "already belongs to route acme/all"


def unknown_location(config: Config) -> str:
    config["tenants"]["acme"]["routes"][0]["to"]["location"] = "waldorf"
    return "did you mean 'walldorf'?"


def unknown_sender(config: Config) -> str:
    config["tenants"]["acme"]["routes"][0]["senders"] = ["s5"]
    return "has no sender 's5'"


def no_tenant(config: Config) -> str:
    config["tenants"]["ACME"] = config["tenants"].pop("acme")
    return "ACME"


def plain_secret(config: Config) -> str:
    config["tenants"]["acme"]["senders"][1]["bearer"]["token_hash"] = "the-token-itself-by-mistake"
    return "perhaps the secret itself"


def same_listener(config: Config) -> str:
    config["ingress"][1]["listen"] = config["ingress"][0]["listen"]
    return "collides with"


def open_target(config: Config) -> str:
    config["targets"] = [{"name": "main", "url": "http://127.0.0.1:1"}]
    return "allows nothing"


def url_with_path(config: Config) -> str:
    config["targets"][0]["url"] = "http://127.0.0.1:1/with/a/path"
    return "without a path"


def link_local(config: Config) -> str:
    config["targets"][0]["url"] = "http://169.254.169.254"
    return "would never be dialled"


BOTH = [unknown_key, wrong_type, missing_file, missing_key]
RELAY = [
    colliding_routes, colliding_across_tenants, unknown_location, unknown_sender, no_tenant, plain_secret,
    same_listener,
]  # fmt: skip
CONNECTOR = [open_target, url_with_path, link_local]
PROGRAMS = {"relay": ("cloud-relay", "serve"), "c1": ("connector-agent", "run")}
PLACE = re.compile(r"(relay|c1)\.yaml:([1-9][0-9]*): ")


async def run(site: Site, name: str, verb: str) -> Program:
    """A program that should end by itself."""
    program = site.run(
        f"{name}-{verb}", command(PROGRAMS[name][0]), verb, "--config", str(site.folder / f"{name}.yaml")
    )
    await program.ended()
    return program


@pytest.mark.parametrize(
    ("name", "spoil"),
    [("relay", one) for one in BOTH + RELAY] + [("c1", one) for one in BOTH + CONNECTOR],
    ids=lambda one: one if isinstance(one, str) else one.__name__,
)
async def test_what_is_wrong_is_told_with_its_line(site, name: str, spoil: Callable[[Config], str]):
    site.expose("http://127.0.0.1:1")
    config = yaml.safe_load(site.write(name).read_text())
    told = spoil(config)
    (site.folder / f"{name}.yaml").write_text(yaml.safe_dump(config, sort_keys=False))
    # `check` and the start read a config by the same means; the cases take turns.
    verb = "check" if len(spoil.__name__) % 2 else PROGRAMS[name][1]
    program = await run(site, name, verb)
    assert program.exit_code == 3, program.err
    assert told in program.err, program.err
    assert PLACE.search(program.err) or spoil is missing_key, program.err
    assert "Traceback" not in program.err
    assert "by-mistake" not in program.err
    assert program.out == ""
    assert not (site.folder / f"{name}-state").exists()


@pytest.mark.parametrize("text", ["", "[1, 2]", "a: [", "\x00", "a: &a [*a]", "!!python/object:os.system {}"])
async def test_files_that_are_no_config(site, text):
    (site.folder / "relay.yaml").write_text(text)
    checked = await run(site, "relay", "check")
    assert checked.exit_code == 3, checked.err
    assert "relay.yaml" in checked.err
    assert "Traceback" not in checked.err


async def test_a_file_that_is_not_there(site):
    checked = await run(site, "c1", "check")
    assert checked.exit_code == 3
    assert "c1.yaml" in checked.err


async def test_a_key_that_others_may_read(site, target):
    site.expose(target)
    key = site.folder / "open.key"
    key.write_bytes((site.pki / "relay.key").read_bytes())
    os.chmod(key, 0o644)
    site.relay_config["tunnel"]["tls"]["key"] = str(key)
    site.write("relay")
    checked = await run(site, "relay", "check")
    assert checked.exit_code == 3
    assert "open.key" in checked.err


async def test_a_port_that_is_taken(site, target):
    site.expose(target)
    site.relay_config["ingress"][1]["listen"] = f"127.0.0.1:{target.port}"
    program = site.launch_relay()
    assert await program.ended() == 1
    assert f"cannot listen on 127.0.0.1:{target.port} (ingress[1].listen)" in program.err
    assert "Traceback" not in program.err


async def test_a_second_daemon_with_the_same_state(site, target):
    site.expose(target)
    await site.start_relay()
    second = site.run("second", command("cloud-relay"), "serve", "--config", str(site.folder / "relay.yaml"))
    assert await second.ended() == 5
    assert "another daemon" in second.err
    assert await site.status()
