"""What is tried under Docker: a machine, the commands of docs/install.md, a sender, and what containers have said."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from tests.deploy.docker_logs import Line, Logs
from tests.deploy.docker_machine import DockerMachine
from tests.deploy.docker_stand_ins import STAND_INS, image_of
from tests.deploy.host import INSTALL, ROOT, TrialError, copy_checkout, documented, until

TRIAL: Final = "/opt/trial"
"""What the trial itself has on the machine."""

CHECKOUT: Final = f"{TRIAL}/qanat"
CA: Final = f"{CHECKOUT}/ca.pem"
TOKEN: Final = f"{CHECKOUT}/token"
SENDER: Final = Path(__file__).with_name("in_docker_machine.py")
IMAGE: Final = "qanat"
NEXT: Final = "0.1.1"
"""The version that an upgrade goes to."""

HEALTHY: Final = 60.0


class Site:
    """`url` is where the sender pushes, `target` the container of the VictoriaMetrics where it should arrive."""

    def __init__(self, machine: DockerMachine) -> None:
        self.machine = machine
        self.docs = documented()
        self.text = INSTALL.read_text(encoding="utf-8")
        self.url = self.target = ""
        self.heard: list[tuple[str, Line]] = []
        self._names = itertools.count(1)
        copy_checkout(machine.path / CHECKOUT.lstrip("/"))
        shutil.copy(SENDER, machine.path / TRIAL.lstrip("/"))
        images = {IMAGE, *(image_of(one.service) for one in STAND_INS)}
        self.logs = Logs(machine.path / "var" / "lib" / "docker" / "containers", images)

    # --- commands

    def run(self, script: str, timeout: float = 300.0) -> str:
        """In the checkout."""
        return self.machine.run(f"cd {CHECKOUT}\n{script}", timeout)

    def said(self, command: str) -> str:
        """Run a command that stands in the document in just these words."""
        assert f"`{command}`" in self.text, f"docs/install.md does not say {command}"
        return self.run(command)

    def inspect(self, container: str) -> dict[str, Any]:
        found: list[dict[str, Any]] = json.loads(self.run(f"docker inspect {container}"))
        return found[0]

    def service(self, name: str) -> str:
        """The id of the scenario's container."""
        return self.run(f"docker-compose ps --quiet {name}").strip()

    def until_healthy(self, container: str) -> None:
        def is_healthy() -> bool:
            state = self.inspect(container)["State"]
            return bool(state["Running"]) and state.get("Health", {}).get("Status") == "healthy"

        until(is_healthy, f"{container} is healthy", HEALTHY)

    # --- logs

    def read_logs(self, step: str, expected: str) -> None:
        """All lines since the last step; none may be a warning or worse unless it is expected."""
        lines = self.logs.take()
        self.heard += [(step, line) for line in lines]
        loud = [str(line) for line in lines if line.is_loud]
        strange = [line for line in loud if not expected or re.search(expected, line) is None]
        assert not strange, f"{step}: " + "\n".join(strange)

    # --- pushes

    def pushes(self, seconds: float = 0.0, name: str = "one") -> int:
        """The status of one push."""
        script = f"python3 ../{SENDER.name} push {self.url} {CA} $(cat {TOKEN}) {name} {seconds}"
        return int(self.run(script))

    def query(self, expression: str) -> list[Any]:
        """PromQL, asked inside the target's container."""
        url = f"http://127.0.0.1:8428/api/v1/query?query={quote(expression)}"
        answer = json.loads(self.run(f"docker exec {self.target} wget -qO- '{url}'"))
        found: list[Any] = answer["data"]["result"]
        return found

    def whole(self) -> float:
        """Until a push arrives; the seconds that it took."""
        began, name = time.monotonic(), f"whole_{next(self._names)}"
        until(lambda: self.pushes(name=name) == 204, "a push is acknowledged", HEALTHY)
        took = time.monotonic() - began
        until(lambda: self.query(name), "it is at the target")
        return took

    def while_sending(self, change: Callable[[], object], loses: bool = False) -> dict[str, Any]:
        """What became of the pushes of a sender that goes on while something changes. What was acknowledged is at the
        target, unless it is the target that loses it."""
        name, file = f"sent_{next(self._names)}", f"{TRIAL}/sent.json"
        self.run(f"rm -f {file}; python3 ../{SENDER.name} sender {self.url} {CA} $(cat {TOKEN}) {name} {file} "
                 f"> /dev/null 2>&1 & echo $! > {TRIAL}/sender.pid; sleep 2")  # fmt: skip
        try:
            change()
            self.whole()
        finally:
            self.run(f"kill $(cat {TRIAL}/sender.pid)")
        until(lambda: self.machine.try_(f"test -s {file}").returncode == 0, "the sender has ended")
        sent: dict[str, Any] = json.loads(self.machine.read(file))
        assert sent["acknowledged"] > 20, sent
        if not loses:
            until(lambda: not self._missing(name, sent["acknowledged"]), "all that was acknowledged is at the target")
        return sent

    def _missing(self, name: str, acknowledged: int) -> list[int]:
        there = {one["metric"]["n"] for one in self.query(f"last_over_time({name}[15m])")}
        return [number for number in range(acknowledged) if str(number) not in there]

    def outlived(self, stop: Callable[[], object]) -> float:
        """A push of 4 s begins, then `stop` runs: the push gets the target's answer, and is there. The seconds that
        `stop` took."""
        name, file = f"outlived_{next(self._names)}", f"{TRIAL}/slow"
        self.run(f"python3 ../{SENDER.name} push {self.url} {CA} $(cat {TOKEN}) {name} 4 > {file} 2>&1 &")
        time.sleep(1)
        began = time.monotonic()
        stop()
        took = time.monotonic() - began
        until(lambda: self.machine.read(file).strip(), "the push has an answer")
        status = self.machine.read(file).strip()
        if status != "204":
            raise TrialError(f"the push that was under way got {status}")
        until(lambda: self.query(name), "it is at the target")
        return took

    # --- the image

    def files_of_image(self) -> str:
        """Names and hashes of all that we put into it."""
        script = "cd /opt/qanat && find . -type f -exec sha256sum {} + | sort -k 2; find . -type l | sort"
        return self.run(f"docker run --rm --network none --log-driver none {IMAGE} sh -c '{script}'")

    def renumber(self, old: str, new: str) -> None:
        """As `git pull` would bring a new version."""
        path = f"{CHECKOUT}/pyproject.toml"
        text = self.machine.read(path)
        assert f'version = "{old}"' in text
        self.machine.write(path, text.replace(f'version = "{old}"', f'version = "{new}"', 1))


def own_version() -> str:
    """Of this checkout."""
    (found,) = re.findall(r'(?m)^version = "(.*)"$', (ROOT / "pyproject.toml").read_text())
    return str(found)
