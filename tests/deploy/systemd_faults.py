"""Steps of the trial: what happens to a site that runs. Each leaves it well."""

from __future__ import annotations

from tests.deploy.in_machine import SITECUSTOMIZE
from tests.deploy.systemd_site import CONNECTOR, Site


def rotate(site: Site) -> str:
    """Every certificate that there is becomes a new one, and no push fails."""
    stage = "timeout 60 bash -c 'until cloud-relay ca status --json | grep -q {}; do sleep 1; done'"
    sent = site.while_sending(
        "connector-agent certs rotate; cloud-relay certs rotate; cloud-relay ca rotate\n"
        f"{stage.format('switched')}\n"
        "connector-agent certs rotate  # of the new CA, which would come by itself within days\n"
        f"{stage.format('steady')}"
    )
    assert set(sent["statuses"]) == {"204"}, sent
    site.whole()
    return f"connector, relay, CA: {sent}"


def kill(site: Site) -> str:
    """SIGKILL to each main process."""
    machine, gaps = site.machine, []
    for unit in ("qanat-relay", "qanat-connector"):
        before = int(machine.show(unit, "NRestarts")[0])
        sent = site.while_sending(f"systemctl kill -s KILL {unit}; sleep 2")
        site.restarted(unit, before + 1)
        gaps.append(f"{unit} back after {sent['longest_gap']} s")
    return ", ".join(gaps)


def watchdog(site: Site) -> str:
    """A loop that is blocked in each of them."""
    machine = site.machine
    machine.write("/opt/trial/sitecustomize.py", SITECUSTOMIZE)
    for unit in ("qanat-relay", "qanat-connector"):
        machine.drop_in(unit, "trial", "[Service]\nEnvironment=PYTHONPATH=/opt/trial\nWatchdogSec=4s\n")
        machine.run(f"systemctl restart {unit}")
    site.whole()
    for unit in ("qanat-relay", "qanat-connector"):
        before = int(machine.show(unit, "NRestarts")[0])
        machine.run(f"systemctl kill -s USR1 --kill-whom=main {unit}")
        site.restarted(unit, before + 1)
        site.whole()
        told = "\n".join(site.line(one) for one in machine.journal(site.cursor))
        for line in (f"{unit}.service: Watchdog timeout", "Fatal Python error: Aborted", "in block", "'watchdog'"):
            assert line in told, f"{line} is not in\n{told}"
    return "a blocked loop is aborted and started anew; the traceback names the function"


def crowded_loop(site: Site) -> str:
    """A loop that is slow, which is no reason to kill it."""
    machine = site.machine
    before = machine.show("qanat-relay", "NRestarts", "MainPID")
    machine.run("systemctl kill -s USR2 --kill-whom=main qanat-relay; sleep 16")
    assert machine.show("qanat-relay", "NRestarts", "MainPID") == before
    for unit in ("qanat-relay", "qanat-connector"):
        machine.no_drop_in(unit, "trial")
        machine.run(f"systemctl restart {unit}")
    site.whole()
    return "half a second a turn for 15 s, a watchdog of 4 s: not killed"


def bad_config(site: Site) -> str:
    """A config that cannot be used."""
    machine, config = site.machine, site.machine.read(CONNECTOR)
    machine.write(CONNECTOR, config + "nonsense: true\n")
    machine.run("systemctl stop qanat-connector")
    machine.fails("systemctl start qanat-connector")
    machine.run("sleep 4")
    assert machine.show("qanat-connector", "ActiveState", "NRestarts", "ExecMainStatus") == ["failed", "0", "3"]
    told = [site.line(one) for one in machine.journal(site.cursor)]
    assert any(line.startswith("<3> connector-agent: ") and "nonsense" in line for line in told), told
    machine.write(CONNECTOR, config)
    machine.run("systemctl start qanat-connector")
    site.whole()
    return "exit code 3, said why, not tried again"
