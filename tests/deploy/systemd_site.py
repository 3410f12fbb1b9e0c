"""What is tried under systemd: both programs on one machine, what can be asked of them, and what the journal said."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import yaml

from tests.deploy.host import documented, until
from tests.deploy.machine import Machine

VERSIONS: Final = ("0.1.0", "0.1.1")
RELAY: Final = "/etc/qanat/relay.yaml"
CONNECTOR: Final = "/etc/qanat/connector.yaml"


class Site:
    """A machine, the commands of the document, and a sender's token once there is one."""

    def __init__(self, machine: Machine, wheels: Path) -> None:
        self.machine = machine
        self.wheels = wheels
        self.docs = documented()
        self.token = ""
        self.said: list[dict[str, Any]] = []
        self.cursor = ""

    # --- the journal

    @staticmethod
    def line(entry: dict[str, Any]) -> str:
        """<priority> who: what."""
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

    # --- what can be asked

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

    def outlived(self, script: str) -> None:
        """A push of 4 s begins, then `script` runs: the push gets its answer."""
        push = f"python3 /opt/trial/in_machine.py push {self.token} drained /slow"
        self.machine.run(f"{push} > /run/slow & sleep 1; {script}; wait")
        assert self.machine.run("cat /run/slow").strip() == "204"

    def restarted(self, unit: str, times: int) -> None:
        """Until systemd has started it anew so many times."""
        until(lambda: self.machine.show(unit, "NRestarts") == [str(times)], f"{unit} is started anew")

    @property
    def version(self) -> str:
        """Of the relay that runs."""
        return str(json.loads(self.machine.run("cloud-relay status --json"))["version"])
