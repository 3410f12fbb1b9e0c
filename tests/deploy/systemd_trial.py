"""Both programs under a real systemd, by the very commands of docs/install.md: `make try-systemd`, as root.

A machine is made of Debian's packages and booted; in it the wheel is installed, the connector joins, pushes arrive,
configs change, the machine reboots, versions change, certificates are rotated, loops are blocked. The journal is read
line by line: where nothing was broken on purpose, there must be no warning, and no line that nobody knows.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.in_machine import SITECUSTOMIZE
from tests.deploy.machine import Machine, TrialError, make_root, until

ROOT: Final = Path(__file__).resolve().parents[2]
IN_MACHINE: Final = Path(__file__).with_name("in_machine.py")
FOLDER: Final = Path("/var/tmp/qanat-systemd-trial")
VERSIONS: Final = ("0.1.0", "0.1.1")
RELAY: Final = "/etc/qanat/relay.yaml"
CONNECTOR: Final = "/etc/qanat/connector.yaml"
NO_RELAY: Final = r"connector\.tunnels: no tunnel .* code=connection-(refused|lost)"
"""What a connector says while no relay runs."""

TARGET_UNIT: Final = """
[Service]
ExecStart=/usr/bin/python3 /opt/trial/in_machine.py target
[Install]
WantedBy=multi-user.target
"""

_BLOCK: Final = re.compile(r"<!-- trial: ([a-z-]+) -->\n```[a-z]+\n(.*?)```", re.DOTALL)


def documented() -> dict[str, str]:
    """The blocks of docs/install.md that are marked, by their marks."""
    found = dict(_BLOCK.findall((ROOT / "docs" / "install.md").read_text(encoding="utf-8")))
    assert found, "docs/install.md has no block for the trial"
    return found


def build_wheels(folder: Path, python: str) -> Path:
    """Wheels of both versions, which differ in their number alone, and of all that they need, for `python`."""
    wheels = folder / f"wheels-{python}"
    wheels.mkdir(exist_ok=True)
    for old in wheels.glob("qanat-*"):
        old.unlink()
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    for version in VERSIONS:
        source = folder / "source"
        shutil.rmtree(source, ignore_errors=True)
        source.mkdir()
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            check=True, cwd=ROOT, capture_output=True, text=True,
        )  # fmt: skip
        for name in filter(None, listed.stdout.split("\0")):
            if (ROOT / name).is_file():
                (source / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, source / name)
        project = source / "pyproject.toml"
        project.write_text(re.sub(r'(?m)^version = ".*"$', f'version = "{version}"', project.read_text(), count=1))
        subprocess.run([*pip, "wheel", "--no-deps", "--wheel-dir", str(wheels), str(source)], check=True)
    subprocess.run(
        [*pip, "download", "--constraint", str(ROOT / "constraints.txt"), "--only-binary", ":all:",
         "--python-version", python, "--dest", str(wheels), str(wheels / f"qanat-{VERSIONS[0]}-py3-none-any.whl")],
        check=True,
    )  # fmt: skip
    return wheels


class Trial:
    """The steps, in their order; each leaves the site well."""

    def __init__(self, machine: Machine, wheels: Path) -> None:
        self.machine = machine
        self.wheels = wheels
        self.docs = documented()
        self.token = ""
        self.said: list[dict[str, Any]] = []
        self.cursor = ""

    def run(self, only: Sequence[str] = ()) -> None:
        """Every step, or the first ones and `only` these, and what the journal said in each.

        Beside each step stands which warnings and errors belong to it.
        """
        steps: list[tuple[Callable[[], str], str]] = [
            (self.install, ""), (self.start_relay, ""), (self.join, "exposes nothing"), (self.push, ""),
            (self.refused_reload, "config not taken|Reload failed|systemd: .*status=5|<3> cloud-relay: "),
            (self.reboot, NO_RELAY), (self.drain, NO_RELAY), (self.upgrade, ""), (self.roll_back, NO_RELAY),
            (self.rotate, "a step of the CA's roll-over|removed a key of a CA that counts no more"),
            (self.kill, f"{NO_RELAY}|status=9/KILL|Failed with result 'signal'|tunnel ended|tunnel lost"),
            (self.watchdog, f"{NO_RELAY}|[Ww]atchdog|status=6/ABRT|tunnel ended|tunnel lost"),
            (self.crowded_loop, NO_RELAY),
            (self.bad_config, "error: the config has a problem|nonsense|exit-code|status=3|Failed to start"),
            (self.second_connector, "exposes nothing"), (self.secrets, f"exposes nothing|{NO_RELAY}"),
            (self.low_port, NO_RELAY), (self.socket, NO_RELAY), (self.access_log, NO_RELAY), (self.reexec, ""),
            (self.uninstall, NO_RELAY),
        ]  # fmt: skip
        for step, expected in steps:
            started = time.monotonic()
            name = step.__name__.replace("_", " ")
            if only and step.__name__ not in {"install", "start_relay", "join", "push", *only}:
                continue
            try:
                found = step()
                self.read_journal(name, expected)
            except (TrialError, AssertionError, subprocess.SubprocessError):
                sys.stderr.write(f"FAILED: {name}\n")
                lines = [self.line(one) for one in self.machine.journal()]
                sys.stderr.write("".join(f"    {line}\n" for line in [one for one in lines if ": {" not in one][-60:]))
                raise
            sys.stdout.write(f"{time.monotonic() - started:5.1f} s  {name}: {found}\n")
            sys.stdout.flush()

    # --- the journal

    @staticmethod
    def line(entry: dict[str, Any]) -> str:
        text = entry.get("MESSAGE") or ""
        if isinstance(text, list):  # bytes that are no text
            text = bytes(text).decode("utf-8", "replace")
        return f"<{entry.get('PRIORITY', '?')}> {entry.get('SYSLOG_IDENTIFIER', '?')}: {text}"

    def read_journal(self, step: str, expected: str) -> None:
        """All lines since the last step; none may be a warning or worse unless it is expected."""
        entries = self.machine.journal(self.cursor)
        self.said += [{"step": step, "line": self.line(one)} for one in entries]
        if entries:
            self.cursor = entries[-1]["__CURSOR"]
        loud = [self.line(one) for one in entries if int(one.get("PRIORITY", 6)) <= 4]
        strange = [line for line in loud if not expected or re.search(expected, line) is None]
        assert not strange, f"{step}: " + "\n".join(strange)

    # --- helpers

    def edit(self, path: str, change: Callable[[dict[str, Any]], None]) -> None:
        """Change a config in place."""
        config = yaml.safe_load(self.machine.read(path))
        change(config)
        self.machine.write(path, yaml.safe_dump(config, sort_keys=False))

    def pushes(self, body: str, path: str = "/push") -> int:
        """The status of one push."""
        return int(self.machine.run(f"python3 /opt/trial/in_machine.py push {self.token} {body} {path}"))

    def status(self, unit: str, pattern: str) -> None:
        """Until `systemctl status` says so."""
        until(lambda: re.search(pattern, self.machine.show(unit, "StatusText")[0]), f"{unit} says {pattern}")

    def whole(self) -> None:
        """Until everything is up, and a push arrives."""
        until(lambda: self.machine.show("qanat-relay", "ActiveState") == ["active"], "an active relay")
        self.status("qanat-connector", r"^2 tunnels up, 1 target")
        self.status("qanat-relay", r"^2 tunnels of 1 connector attached, 1 route green")
        assert self.pushes("whole") == 204

    def while_sending(self, script: str, then: str = r"^2 tunnels of 1 connector attached") -> dict[str, Any]:
        """Run `script`, wait until the relay's status is `then`; what became of the pushes of a sender that went on
        meanwhile. What was acknowledged is at the target."""
        machine = self.machine
        machine.run("rm -f /run/sent /run/target.got")
        sender = f"python3 /opt/trial/in_machine.py sender {self.token} /run/sent"
        machine.run(f"systemd-run --quiet --unit=sender {sender}; sleep 1")
        machine.run(script)
        self.status("qanat-relay", then)
        machine.run("sleep 1; systemctl stop sender")
        sent: dict[str, Any] = json.loads(machine.run("cat /run/sent"))
        got = {line.split()[1] for line in machine.run("cat /run/target.got").splitlines() if line.startswith("204 n")}
        lost = [number for number in range(sent["acknowledged"]) if f"n{number}" not in got]
        assert sent["acknowledged"] > 20, sent
        assert not lost, f"acknowledged, and not at the target: {lost}"
        return sent

    def restarted(self, unit: str, times: int) -> None:
        """Until systemd has started it anew so many times."""
        until(lambda: self.machine.show(unit, "NRestarts") == [str(times)], f"{unit} is started anew")

    # --- steps

    def install(self) -> str:
        machine = self.machine
        machine.run("mkdir -p /opt/trial /root/wheels")
        for file in self.wheels.iterdir():
            shutil.copy(file, machine.path / "root" / "wheels")
        for version in VERSIONS:
            machine.run(f"cp wheels/qanat-{version}-py3-none-any.whl .")
        shutil.copy(IN_MACHINE, machine.path / "opt" / "trial")
        machine.set(PIP_NO_INDEX="1", PIP_FIND_LINKS="/root/wheels")
        machine.run(self.docs["install"])
        machine.run("systemd-analyze verify /etc/systemd/system/qanat-*.service")
        units = ["qanat-relay", "qanat-connector", "qanat-connector@berlin"]
        machine.run(f"systemd-analyze security --threshold=20 {' '.join(units)}")  # which counts tenths
        machine.write("/etc/systemd/system/target.service", TARGET_UNIT)
        machine.run("systemctl enable --now target")
        version = machine.run("systemctl --version").split()[1]
        python = machine.run("/opt/qanat/current/bin/python --version").strip()
        return f"systemd {version}, {python}"

    def start_relay(self) -> str:
        shown = self.machine.run(self.docs["relay"])
        assert "Active: active (running)" in shown, shown
        assert 'Status: "0 tunnels of 0 connectors attached, 0 routes green"' in shown, shown
        assert self.machine.run("stat -c %U:%a /var/lib/qanat-relay /var/lib/qanat-relay/state.db").split() == [
            "qanat:700", "qanat:600",
        ]  # fmt: skip
        return "READY, and its sentence in systemctl status"

    def join(self) -> str:
        machine = self.machine
        machine.run(self.docs["token"])
        assert machine.run("stat -c %a c1.token").strip() == "600"
        machine.run(self.docs["connector"])
        self.status("qanat-connector", "^2 tunnels up, 0 targets$")
        shown = machine.run("systemctl status qanat-connector")
        assert "Active: active (running)" in shown, shown
        assert 'Status: "2 tunnels up, 0 targets"' in shown, shown
        self.status("qanat-relay", "^2 tunnels of 1 connector attached, 0 routes green$")
        return "by a token, enrolled by root, run by qanat"

    def push(self) -> str:
        machine = self.machine
        secret = json.loads(machine.run("cloud-relay secrets new --json"))
        self.token = secret["secret"]
        machine.run("install -d -m 700 /etc/credstore")
        machine.run("umask 077; printf 'Bearer of-the-target' > /etc/credstore/frun.authorization")
        machine.drop_in("qanat-connector", "credentials", self.docs["credential"])

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

        self.edit(CONNECTOR, add_target)
        self.edit(RELAY, add_route)
        machine.run("systemctl restart qanat-connector")
        machine.run(f"export CREDENTIALS_DIRECTORY=/run/credentials/qanat-connector.service\n{self.docs['reload']}")
        self.whole()
        machine.run(self.docs["check"])
        self.whole()
        assert "204 whole" in machine.run("cat /run/target.got")
        return "with a credential of systemd's, which only root's files hold"

    def refused_reload(self) -> str:
        machine, config = self.machine, self.machine.read(RELAY)
        machine.write(RELAY, config.replace("target: metrics", "target: 7"))
        machine.fails("systemctl reload qanat-relay")
        told = "\n".join(self.line(one) for one in machine.journal(self.cursor))
        assert "<3> cloud-relay: error: " in told, told
        assert "relay.yaml:" in told, told
        machine.write(RELAY, config)
        machine.run("systemctl reload qanat-relay")
        self.whole()
        return "systemctl reload fails, the journal says why, pushes go on"

    def reboot(self) -> str:
        self.machine.reboot()
        started = time.monotonic()
        until(lambda: self.pushes("again") == 204, "a push arrives")
        took = time.monotonic() - started
        self.whole()
        return f"pushes arrive {took:.1f} s after it is up"

    def drain(self) -> str:
        machine = self.machine
        machine.run(
            f"python3 /opt/trial/in_machine.py push {self.token} drained /slow > /run/slow & sleep 1; "
            "systemctl stop qanat-relay; wait"
        )
        assert machine.run("cat /run/slow").strip() == "204"
        assert machine.show("qanat-relay", "Result", "ExecMainStatus") == ["success", "0"]
        machine.run("systemctl start qanat-relay")
        self.whole()
        machine.run(
            f"python3 /opt/trial/in_machine.py push {self.token} drained /slow > /run/slow & sleep 1; "
            "systemctl stop qanat-connector; wait"
        )
        assert machine.run("cat /run/slow").strip() == "204"
        machine.run("systemctl start qanat-connector")
        self.whole()
        return "a push of 4 s outlives systemctl stop on either side"

    def upgrade(self) -> str:
        machine = self.machine
        before = machine.show("qanat-relay", "MainPID", "NRestarts")
        sent = self.while_sending(self.docs["upgrade"])
        assert set(sent["statuses"]) == {"204"}, sent
        after = machine.show("qanat-relay", "MainPID", "NRestarts")
        assert after[0] != before[0]
        assert after[1] == before[1]
        assert self.version == VERSIONS[1]
        machine.run("systemctl restart qanat-connector")
        self.whole()
        processes = "/sys/fs/cgroup/system.slice/qanat-relay.service/cgroup.procs"
        until(lambda: machine.run(f"cat {processes}").split() == [after[0]], "the old process has ended", 90)
        machine.run("sleep 22")  # longer than the watchdog
        assert machine.show("qanat-relay", "MainPID", "NRestarts") == after
        machine.run("systemctl reload qanat-relay")
        return f"by a hand-over: {sent}"

    def roll_back(self) -> str:
        back = self.while_sending("ln -sfn 0.1.0 /opt/qanat/current; systemctl restart qanat-relay")
        assert self.version == VERSIONS[0]
        return f"by a restart: {back}"

    @property
    def version(self) -> str:
        """Of the relay that runs."""
        return str(json.loads(self.machine.run("cloud-relay status --json"))["version"])

    def rotate(self) -> str:
        stage = "timeout 60 bash -c 'until cloud-relay ca status --json | grep -q {}; do sleep 1; done'"
        sent = self.while_sending(
            "connector-agent certs rotate; cloud-relay certs rotate; cloud-relay ca rotate\n"
            f"{stage.format('switched')}\n"
            "connector-agent certs rotate  # of the new CA, which would come by itself within days\n"
            f"{stage.format('steady')}"
        )
        assert set(sent["statuses"]) == {"204"}, sent
        self.whole()
        return f"connector, relay, CA: {sent}"

    def kill(self) -> str:
        machine, gaps = self.machine, []
        for unit in ("qanat-relay", "qanat-connector"):
            before = int(machine.show(unit, "NRestarts")[0])
            sent = self.while_sending(f"systemctl kill -s KILL {unit}; sleep 2")
            self.restarted(unit, before + 1)
            gaps.append(f"{unit} back after {sent['longest_gap']} s")
        return ", ".join(gaps)

    def watchdog(self) -> str:
        machine = self.machine
        machine.write("/opt/trial/sitecustomize.py", SITECUSTOMIZE)
        for unit in ("qanat-relay", "qanat-connector"):
            machine.drop_in(unit, "trial", "[Service]\nEnvironment=PYTHONPATH=/opt/trial\nWatchdogSec=4s\n")
            machine.run(f"systemctl restart {unit}")
        self.whole()
        for unit in ("qanat-relay", "qanat-connector"):
            before = int(machine.show(unit, "NRestarts")[0])
            machine.run(f"systemctl kill -s USR1 --kill-whom=main {unit}")
            self.restarted(unit, before + 1)
            self.whole()
            told = "\n".join(self.line(one) for one in machine.journal(self.cursor))
            for line in (f"{unit}.service: Watchdog timeout", "Fatal Python error: Aborted", "in block", "'watchdog'"):
                assert line in told, f"{line} is not in\n{told}"
        return "a blocked loop is aborted and started anew; the traceback names the function"

    def crowded_loop(self) -> str:
        machine = self.machine
        before = machine.show("qanat-relay", "NRestarts", "MainPID")
        machine.run("systemctl kill -s USR2 --kill-whom=main qanat-relay; sleep 16")
        assert machine.show("qanat-relay", "NRestarts", "MainPID") == before
        for unit in ("qanat-relay", "qanat-connector"):
            machine.no_drop_in(unit, "trial")
            machine.run(f"systemctl restart {unit}")
        self.whole()
        return "half a second a turn for 15 s, a watchdog of 4 s: not killed"

    def bad_config(self) -> str:
        machine, config = self.machine, self.machine.read(CONNECTOR)
        machine.write(CONNECTOR, config + "nonsense: true\n")
        machine.run("systemctl stop qanat-connector")
        machine.fails("systemctl start qanat-connector")
        machine.run("sleep 4")
        assert machine.show("qanat-connector", "ActiveState", "NRestarts", "ExecMainStatus") == ["failed", "0", "3"]
        told = [self.line(one) for one in machine.journal(self.cursor)]
        assert any(line.startswith("<3> connector-agent: ") and "nonsense" in line for line in told), told
        machine.write(CONNECTOR, config)
        machine.run("systemctl start qanat-connector")
        self.whole()
        return "exit code 3, said why, not tried again"

    def second_connector(self) -> str:
        machine = self.machine
        machine.run("umask 077; cloud-relay tokens create acme/walldorf/c2 > c2.token")
        machine.run(self.docs["second"])
        self.status("qanat-connector@berlin", "^2 tunnels up, 0 targets$")
        assert machine.run("stat -c %U:%a /var/lib/qanat-connector-berlin").strip() == "qanat:700"
        targets = yaml.safe_load(machine.read(CONNECTOR))["targets"]
        self.edit("/etc/qanat/connector-berlin.yaml", lambda config: config.update(targets=targets))
        machine.drop_in("qanat-connector@berlin", "credentials", self.docs["credential"])
        machine.run("systemctl restart qanat-connector@berlin")
        self.status("qanat-connector@berlin", "^2 tunnels up, 1 target$")
        self.status("qanat-relay", "^4 tunnels of 2 connectors attached")
        sent = self.while_sending("systemctl restart qanat-connector", r"^4 tunnels of 2 connectors attached")
        assert set(sent["statuses"]) == {"204"}, sent
        machine.run("systemctl disable --now qanat-connector@berlin")
        self.whole()
        return f"qanat-connector@berlin carries on while the other restarts: {sent}"

    def secrets(self) -> str:
        """A join token and the CA's passphrase that are systemd's from the first start on, on a state of their own."""
        machine = self.machine
        machine.run("systemctl stop qanat-relay qanat-connector; mkdir /root/kept")
        machine.run("mv /etc/qanat /var/lib/qanat-relay /var/lib/qanat-connector /root/kept; systemd-tmpfiles --create")
        machine.run(self.docs["passphrase"])
        machine.run("systemctl start qanat-relay")
        machine.run("umask 077; cloud-relay tokens create acme/walldorf/c1 > /etc/credstore/qanat-connector.join-token")
        machine.write(
            CONNECTOR,
            "relays: ['wss://relay.example.com:8443']\nstate_dir: /var/lib/qanat-connector\n"
            "join: {token_file: $CREDENTIALS_DIRECTORY/qanat-connector.join-token}\n",
        )
        machine.run("systemctl start qanat-connector")
        self.status("qanat-connector", "^2 tunnels up, 0 targets$")
        machine.run("rm /etc/credstore/qanat-connector.join-token; systemctl restart qanat-connector")
        self.status("qanat-connector", "^2 tunnels up, 0 targets$")
        seen = machine.run("ls /run/credentials; ls -l /run/credentials/qanat-relay.service")
        machine.run("systemctl stop qanat-relay qanat-connector")
        machine.run("rm -r /etc/qanat /var/lib/qanat-relay /var/lib/qanat-connector /etc/credstore/qanat-*")
        machine.run("mv /root/kept/qanat /etc/; mv /root/kept/qanat-* /var/lib/")
        machine.run("systemctl start qanat-relay qanat-connector")
        self.whole()
        assert "qanat-relay.passphrase" in seen
        return "passphrase and join token from /etc/credstore; the token's file may go"

    def low_port(self) -> str:
        machine = self.machine
        machine.drop_in("qanat-relay", "port", self.docs["low-port"])
        self.edit(RELAY, lambda config: config["ingress"].append({"listen": "127.0.0.1:80"}))
        machine.run("systemctl restart qanat-relay")
        self.whole()
        assert machine.run("curl -s -o /dev/null -w '%{http_code}' http://localhost:80/").strip() == "401"
        machine.run("systemd-analyze security --threshold=20 qanat-relay")
        self.edit(RELAY, lambda config: config["ingress"].pop())
        machine.no_drop_in("qanat-relay", "port")
        machine.run("systemctl restart qanat-relay")
        self.whole()
        return "port 80 by a drop-in"

    def socket(self) -> str:
        machine = self.machine
        machine.write("/etc/systemd/system/qanat-relay.socket.d/ports.conf", self.docs["socket"])
        machine.run("systemctl daemon-reload")
        self.edit(RELAY, lambda config: config["ingress"].append({"listen": "127.0.0.1:80"}))
        machine.run(self.docs["enable-socket"])
        self.whole()
        assert machine.run("curl -s -o /dev/null -w '%{http_code}' http://localhost:80/").strip() == "401"
        sent = self.while_sending("systemctl restart qanat-relay")
        assert set(sent["statuses"]) == {"204"}, sent
        handed = self.while_sending("cloud-relay upgrade")
        assert set(handed["statuses"]) == {"204"}, handed
        self.whole()
        return f"systemd holds the ports; restarted: {sent}; handed over: {handed}"

    def access_log(self) -> str:
        machine = self.machine
        machine.drop_in("qanat-relay", "access", self.docs["access-log"])
        machine.run("systemctl restart qanat-relay")
        self.whole()
        until(lambda: machine.try_("test -s /var/log/qanat/relay-access.log").returncode == 0, "access lines in a file")
        line = json.loads(machine.run("tail -1 /var/log/qanat/relay-access.log"))
        machine.no_drop_in("qanat-relay", "access")
        machine.run("systemctl restart qanat-relay")
        self.whole()
        return f"access lines in a file: {line['method']} {line['path']} {line['status']}"

    def reexec(self) -> str:
        machine = self.machine
        before = machine.show("qanat-relay", "MainPID")
        machine.run("systemctl daemon-reexec; sleep 25")  # longer than the watchdog
        assert machine.show("qanat-relay", "MainPID", "ActiveState") == [*before, "active"]
        self.whole()
        return "systemd itself is replaced, and is still told"

    def uninstall(self) -> str:
        machine = self.machine
        machine.run(self.docs["uninstall"])
        assert machine.run("systemctl list-units --all --no-legend 'qanat-*'").strip() == ""
        left = machine.run("ls -d /opt/qanat /etc/qanat /var/lib/qanat-* /usr/local/bin/* 2>/dev/null || true").split()
        assert {"/etc/qanat", "/var/lib/qanat-relay", "/var/lib/qanat-connector"} <= set(left), left
        assert not [one for one in left if one.startswith(("/opt/", "/usr/"))], left
        return "config, state and secrets are left"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER, help="where roots, wheels and the machine are kept")
    parser.add_argument("--suite", default="bookworm", help="Debian's release")
    parser.add_argument("--only", nargs="*", default=[], help="steps to be tried after a first push")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # the machine, too
    lock = (folder / "lock").open("w")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit(f"another trial is under way in {folder}: choose another --folder")
    root = make_root(folder, arguments.suite)
    python = next(path.name.removeprefix("python") for path in (root / "usr" / "bin").glob("python3.[0-9]*[0-9]"))
    wheels = build_wheels(folder, python)
    with Machine(folder / "machine", root) as machine:
        trial = Trial(machine, wheels)
        try:
            trial.run(arguments.only)
        finally:
            journal = folder / f"journal-{arguments.suite}.txt"
            journal.write_text("".join(f"{one['step']}: {one['line']}\n" for one in trial.said))
            sys.stdout.write(f"the journal is in {journal}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
