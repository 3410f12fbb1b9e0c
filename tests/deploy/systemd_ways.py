"""Steps of the trial: other ways to run a site, each undone in the end."""

from __future__ import annotations

import json

import yaml

from tests.deploy.host import until
from tests.deploy.systemd_site import CONNECTOR, RELAY, Site


def second_connector(site: Site) -> str:
    """An instance of the template beside the first."""
    machine = site.machine
    machine.run("umask 077; cloud-relay tokens create acme/walldorf/c2 > c2.token")
    machine.run(site.docs["second"])
    site.status("qanat-connector@berlin", "^2 tunnels up, 0 targets$")
    assert machine.run("stat -c %U:%a /var/lib/qanat-connector-berlin").strip() == "qanat:700"
    targets = yaml.safe_load(machine.read(CONNECTOR))["targets"]
    site.edit("/etc/qanat/connector-berlin.yaml", lambda config: config.update(targets=targets))
    machine.drop_in("qanat-connector@berlin", "credentials", site.docs["credential"])
    machine.run("systemctl restart qanat-connector@berlin")
    site.status("qanat-connector@berlin", "^2 tunnels up, 1 target$")
    site.status("qanat-relay", "^4 tunnels of 2 connectors attached")
    sent = site.while_sending("systemctl restart qanat-connector", r"^4 tunnels of 2 connectors attached")
    assert set(sent["statuses"]) == {"204"}, sent
    machine.run("systemctl disable --now qanat-connector@berlin")
    site.whole()
    return f"qanat-connector@berlin carries on while the other restarts: {sent}"


def secrets(site: Site) -> str:
    """A join token and the CA's passphrase that are systemd's from the first start on, on a state of their own."""
    machine = site.machine
    machine.run("systemctl stop qanat-relay qanat-connector; mkdir kept")
    machine.run("mv /etc/qanat /var/lib/qanat-relay /var/lib/qanat-connector kept; systemd-tmpfiles --create")
    machine.run(site.docs["passphrase"])
    machine.run("systemctl start qanat-relay")
    machine.run("umask 077; cloud-relay tokens create acme/walldorf/c1 > /etc/credstore/qanat-connector.join-token")
    machine.write(
        CONNECTOR,
        "relays: ['wss://relay.example.com:8443']\nstate_dir: /var/lib/qanat-connector\n"
        "join: {token_file: $CREDENTIALS_DIRECTORY/qanat-connector.join-token}\n",
    )
    machine.run("systemctl start qanat-connector")
    site.status("qanat-connector", "^2 tunnels up, 0 targets$")
    machine.run("rm /etc/credstore/qanat-connector.join-token; systemctl restart qanat-connector")
    site.status("qanat-connector", "^2 tunnels up, 0 targets$")
    seen = machine.run("ls /run/credentials; ls -l /run/credentials/qanat-relay.service")
    machine.run("systemctl stop qanat-relay qanat-connector")
    machine.run("rm -r /etc/qanat /var/lib/qanat-relay /var/lib/qanat-connector /etc/credstore/qanat-*")
    machine.run("mv kept/qanat /etc/; mv kept/qanat-* /var/lib/")
    machine.run("systemctl start qanat-relay qanat-connector")
    site.whole()
    assert "qanat-relay.passphrase" in seen
    return "passphrase and join token from /etc/credstore; the token's file may go"


def low_port(site: Site) -> str:
    """A port below 1024 without a socket unit."""
    machine = site.machine
    machine.drop_in("qanat-relay", "port", site.docs["low-port"])
    site.edit(RELAY, lambda config: config["ingress"].append({"listen": "127.0.0.1:80"}))
    machine.run("systemctl restart qanat-relay")
    site.whole()
    assert machine.run("curl -s -o /dev/null -w '%{http_code}' http://localhost:80/").strip() == "401"
    machine.run("systemd-analyze security --threshold=20 qanat-relay")
    site.edit(RELAY, lambda config: config["ingress"].pop())
    machine.no_drop_in("qanat-relay", "port")
    machine.run("systemctl restart qanat-relay")
    site.whole()
    return "port 80 by a drop-in"


def socket(site: Site) -> str:
    """Ports that systemd holds."""
    machine = site.machine
    machine.write("/etc/systemd/system/qanat-relay.socket.d/ports.conf", site.docs["socket"])
    machine.run("systemctl daemon-reload")
    site.edit(RELAY, lambda config: config["ingress"].append({"listen": "127.0.0.1:80"}))
    machine.run(site.docs["enable-socket"])
    site.whole()
    assert machine.run("curl -s -o /dev/null -w '%{http_code}' http://localhost:80/").strip() == "401"
    sent = site.while_sending("systemctl restart qanat-relay")
    assert set(sent["statuses"]) == {"204"}, sent
    handed = site.while_sending("cloud-relay upgrade")
    assert set(handed["statuses"]) == {"204"}, handed
    site.whole()
    return f"systemd holds the ports; restarted: {sent}; handed over: {handed}"


def access_log(site: Site) -> str:
    """Access lines in a file."""
    machine = site.machine
    machine.drop_in("qanat-relay", "access", site.docs["access-log"])
    machine.run("systemctl restart qanat-relay")
    site.whole()
    until(lambda: machine.try_("test -s /var/log/qanat/relay-access.log").returncode == 0, "access lines in a file")
    line = json.loads(machine.run("tail -1 /var/log/qanat/relay-access.log"))
    machine.no_drop_in("qanat-relay", "access")
    machine.run("systemctl restart qanat-relay")
    site.whole()
    return f"access lines in a file: {line['method']} {line['path']} {line['status']}"


def workers(site: Site) -> str:
    """A relay of several processes."""
    machine = site.machine
    machine.drop_in("qanat-relay", "workers", site.docs["workers"])
    machine.run("systemctl restart qanat-relay")
    serving = "^2 of 2 workers serve$"
    site.status("qanat-relay", serving)
    site.status("qanat-connector", "tunnels up, 1 target$")
    until(lambda: site.pushes("again") == 204, "a push arrives")
    before = machine.show("qanat-relay", "MainPID", "NRestarts")
    sent = site.while_sending("systemctl reload qanat-relay; cloud-relay upgrade", serving)
    assert set(sent["statuses"]) == {"204"}, sent
    machine.run("sleep 22")  # longer than the watchdog
    assert machine.show("qanat-relay", "NRestarts", "ActiveState") == [before[1], "active"]
    site.outlived("systemctl restart qanat-relay")
    machine.no_drop_in("qanat-relay", "workers")
    machine.run("systemctl restart qanat-relay")
    site.whole()
    return f"two workers, reloaded and replaced: {sent}; a push of 4 s outlives a restart"
