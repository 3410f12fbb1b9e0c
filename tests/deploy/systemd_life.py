"""Steps of the trial: from the wheel to the first push, and on to the end. Each leaves the site well."""

from __future__ import annotations

import json
import shutil
import time
from pathlib import Path
from typing import Any, Final

from tests.deploy.host import until
from tests.deploy.systemd_site import CONNECTOR, RELAY, VERSIONS, Site

IN_MACHINE: Final = Path(__file__).with_name("in_machine.py")
TARGET_UNIT: Final = """
[Service]
ExecStart=/usr/bin/python3 /opt/trial/in_machine.py target
[Install]
WantedBy=multi-user.target
"""


def install(site: Site) -> str:
    """The wheel, the units, and a target to push to."""
    machine = site.machine
    machine.run("mkdir -p /opt/trial /opt/wheels")
    for file in site.wheels.iterdir():
        shutil.copy(file, machine.path / "opt" / "wheels")
    for version in VERSIONS:
        machine.run(f"cp /opt/wheels/qanat-{version}-py3-none-any.whl .")
    shutil.copy(IN_MACHINE, machine.path / "opt" / "trial")
    machine.set(PIP_NO_INDEX="1", PIP_FIND_LINKS="/opt/wheels")
    machine.run(site.docs["install"])
    machine.run("systemd-analyze verify /etc/systemd/system/qanat-*.service")
    units = ["qanat-relay", "qanat-connector", "qanat-connector@berlin"]
    machine.run(f"systemd-analyze security --threshold=20 {' '.join(units)}")  # which counts tenths
    machine.write("/etc/systemd/system/target.service", TARGET_UNIT)
    machine.run("systemctl enable --now target")
    version = machine.run("systemctl --version").split()[1]
    python = machine.run("/opt/qanat/current/bin/python --version").strip()
    return f"systemd {version}, {python}"


def start_relay(site: Site) -> str:
    """A CA, and a relay that starts at boot."""
    shown = site.machine.run(site.docs["relay"])
    assert "Active: active (running)" in shown, shown
    assert 'Status: "0 tunnels of 0 connectors attached, 0 routes green"' in shown, shown
    assert site.machine.run("stat -c %U:%a /var/lib/qanat-relay /var/lib/qanat-relay/state.db").split() == [
        "qanat:700", "qanat:600",
    ]  # fmt: skip
    return "READY, and its sentence in systemctl status"


def join(site: Site) -> str:
    """A token goes over, and the connector is there."""
    machine = site.machine
    machine.run(site.docs["token"])
    assert machine.run("stat -c %a c1.token").strip() == "600"
    machine.run(site.docs["connector"])
    site.status("qanat-connector", "^2 tunnels up, 0 targets$")
    shown = machine.run("systemctl status qanat-connector")
    assert "Active: active (running)" in shown, shown
    assert 'Status: "2 tunnels up, 0 targets"' in shown, shown
    site.status("qanat-relay", "^2 tunnels of 1 connector attached, 0 routes green$")
    return "by a token, enrolled by root, run by qanat"


def push(site: Site) -> str:
    """A sender, a route, a target with a credential, by a reload."""
    machine = site.machine
    secret = json.loads(machine.run("cloud-relay secrets new --json"))
    site.token = secret["secret"]
    machine.run("install -d -m 700 /etc/credstore")
    machine.run("umask 077; printf 'Bearer of-the-target' > /etc/credstore/frun.authorization")
    machine.drop_in("qanat-connector", "credentials", site.docs["credential"])

    def add_target(config: dict[str, Any]) -> None:
        config["targets"] = [{
            "name": "metrics", "url": "http://127.0.0.1:8428",
            "allow": [{"methods": ["POST"], "path": "/", "sub_paths": True}],
            "headers": {"set_from_files": {"Authorization": "$CREDENTIALS_DIRECTORY/frun.authorization"}},
        }]  # fmt: skip

    def add_route(config: dict[str, Any]) -> None:
        config["tenants"]["acme"] |= {
            "senders": [{"name": "s4", "bearer": {"token_hash": secret["hash"]}}],
            "routes": [{
                "name": "metrics", "match": {"host": "localhost", "path": "/"}, "senders": ["s4"],
                "to": {"location": "walldorf", "target": "metrics"},
            }],
        }  # fmt: skip

    site.edit(CONNECTOR, add_target)
    site.edit(RELAY, add_route)
    machine.run("systemctl restart qanat-connector")
    machine.run(f"export CREDENTIALS_DIRECTORY=/run/credentials/qanat-connector.service\n{site.docs['reload']}")
    site.whole()
    machine.run(site.docs["check"])
    site.whole()
    assert "204 whole" in machine.run("cat /run/target.got")
    return "with a credential of systemd's, which only root's files hold"


def refused_reload(site: Site) -> str:
    """A config that is no good while another is in force."""
    machine, config = site.machine, site.machine.read(RELAY)
    machine.write(RELAY, config.replace("target: metrics", "target: 7"))
    machine.fails("systemctl reload qanat-relay")
    told = "\n".join(site.line(one) for one in machine.journal(site.cursor))
    assert "<3> cloud-relay: error: " in told, told
    assert "relay.yaml:" in told, told
    machine.write(RELAY, config)
    machine.run("systemctl reload qanat-relay")
    site.whole()
    return "systemctl reload fails, the journal says why, pushes go on"


def reboot(site: Site) -> str:
    """The whole machine."""
    site.machine.reboot()
    started = time.monotonic()
    until(lambda: site.pushes("again") == 204, "a push arrives")
    took = time.monotonic() - started
    site.whole()
    return f"pushes arrive {took:.1f} s after it is up"


def drain(site: Site) -> str:
    """systemctl stop while a push is under way."""
    machine = site.machine
    site.outlived("systemctl stop qanat-relay")
    assert machine.show("qanat-relay", "Result", "ExecMainStatus") == ["success", "0"]
    machine.run("systemctl start qanat-relay")
    site.whole()
    site.outlived("systemctl stop qanat-connector")
    machine.run("systemctl start qanat-connector")
    site.whole()
    return "a push of 4 s outlives systemctl stop on either side"


def upgrade(site: Site) -> str:
    """To a new version, while pushes go on."""
    machine = site.machine
    before = machine.show("qanat-relay", "MainPID", "NRestarts")
    sent = site.while_sending(site.docs["upgrade"])
    assert set(sent["statuses"]) == {"204"}, sent
    after = machine.show("qanat-relay", "MainPID", "NRestarts")
    assert after[0] != before[0]
    assert after[1] == before[1]
    assert site.version == VERSIONS[1]
    machine.run("systemctl restart qanat-connector")
    site.whole()
    processes = "/sys/fs/cgroup/system.slice/qanat-relay.service/cgroup.procs"
    until(lambda: machine.run(f"cat {processes}").split() == [after[0]], "the old process has ended", 90)
    machine.run("sleep 22")  # longer than the watchdog
    assert machine.show("qanat-relay", "MainPID", "NRestarts") == after
    machine.run("systemctl reload qanat-relay")
    return f"by a hand-over: {sent}"


def roll_back(site: Site) -> str:
    """To the old version, by a restart, as systemd alone would do it."""
    back = site.while_sending("ln -sfn 0.1.0 /opt/qanat/current; systemctl restart qanat-relay")
    assert site.version == VERSIONS[0]
    return f"by a restart: {back}"


def reexec(site: Site) -> str:
    """A systemd that replaces itself."""
    machine = site.machine
    before = machine.show("qanat-relay", "MainPID")
    machine.run("systemctl daemon-reexec; sleep 25")  # longer than the watchdog
    assert machine.show("qanat-relay", "MainPID", "ActiveState") == [*before, "active"]
    site.whole()
    return "systemd itself is replaced, and is still told"


def uninstall(site: Site) -> str:
    """All that was installed goes."""
    machine = site.machine
    machine.run(site.docs["uninstall"])
    assert machine.run("systemctl list-units --all --no-legend 'qanat-*'").strip() == ""
    left = machine.run("ls -d /opt/qanat /etc/qanat /var/lib/qanat-* /usr/local/bin/* 2>/dev/null || true").split()
    assert {"/etc/qanat", "/var/lib/qanat-relay", "/var/lib/qanat-connector"} <= set(left), left
    assert not [one for one in left if one.startswith(("/opt/", "/usr/"))], left
    return "config, state and secrets are left"
