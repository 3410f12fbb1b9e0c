"""docker-compose.yml's scenario without an engine: its services as processes on this machine, in one folder.

What a container would bring is replaced, and nothing else: a volume is a folder, a service's name is 127.0.0.1, and
each fixed port is a free one. Commands, configs and the setup script are those of the files.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import yaml

from tests.support.ports import free_port
from tests.system.programs import ROOT, Program, command, environment

COMPOSE: Final = ROOT / "docker-compose.yml"
FILES: Final = ROOT / "deploy" / "compose"
PORTS: Final = ("8443", "9443", "9090", "8428")
OBSERVE: Final = "9000"
"""Relay and connector both have it, each in a network of its own."""


def services() -> dict[str, dict[str, Any]]:
    """The services of docker-compose.yml."""
    found: dict[str, dict[str, Any]] = yaml.safe_load(COMPOSE.read_text())["services"]
    return found


def mounts() -> dict[str, str]:
    """Where something is mounted, and what. One place means one thing, whichever service looks."""
    found: dict[str, str] = {}
    for name, service in services().items():
        for volume in service.get("volumes", []):
            source, place, *_options = volume.split(":")
            assert found.setdefault(place, source) == source, place
        for place in service.get("tmpfs", []):
            assert place not in found
            found[place] = f"{name}{place.replace('/', '-')}"
    return found


class Scenario:
    """The services' commands and files, rewritten for one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in PORTS}
        self.observe = {"relay": str(free_port()), "connector": str(free_port())}
        self.programs: list[Program] = []
        self._places = {place: self._place(source) for place, source in mounts().items()}
        assert all(path.is_relative_to(folder) for path in self._places.values())
        for source in FILES.iterdir():
            (self._files / source.name).write_text(self._file(source))

    @property
    def _files(self) -> Path:
        return self.folder / "files"

    def _place(self, source: str) -> Path:
        """A folder for a volume, a rewritten copy for a file of the repository."""
        self._files.mkdir(exist_ok=True)
        if source.startswith("./"):
            return self._files / (ROOT / source).relative_to(FILES)
        (self.folder / source).mkdir(exist_ok=True)
        return self.folder / source

    def path(self, place: str) -> Path:
        """Where what a container sees at `place` is."""
        return Path(self.adapt(place))

    def adapt(self, text: str) -> str:
        """Places of a container, and ports and names of its networks, become ours."""
        places = "|".join(sorted(map(re.escape, self._places), key=len, reverse=True))
        text = re.sub(rf"(?<![\w/.])(?:{places})(?![\w.-])", lambda found: str(self._places[found[0]]), text)
        text = re.sub(r"\b(?:relay|victoria-metrics)(?=:\d)|(?<=host: )relay\b", "localhost", text)
        text = re.sub(r'(?<=listen: ")(?=:)', "127.0.0.1", text)
        for port, ours in self.ports.items():
            text = re.sub(rf"(?<=:){port}\b", ours, text)
        return text.replace("localhost:" + self.ports["8428"], "127.0.0.1:" + self.ports["8428"])

    def _file(self, source: Path) -> str:
        text = self.adapt(source.read_text())
        if source.stem in self.observe:
            text = text.replace(OBSERVE, self.observe[source.stem])
        owner = f"{os.getuid()}:{os.getgid()}"
        return text.replace("65532:65532", owner).replace("65534:65534", owner)

    def setup(self) -> str:
        """Run the one-shot service; what it said."""
        argv = [self.adapt(word) for word in services()["setup"]["command"]]
        done = subprocess.run(argv, env=self._environment(), capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        for place in services()["setup"]["tmpfs"]:  # which go with their container
            for file in self._places[place].iterdir():
                file.unlink()
        return done.stdout + done.stderr

    def start(self, service: str) -> Program:
        """A service of ours, by its own command."""
        program, *arguments = map(self.adapt, services()[service]["command"])
        return self.run(service, [command(program), *arguments], self._environment())

    def run(self, name: str, argv: list[str], variables: Mapping[str, str]) -> Program:
        """Any process of the scenario."""
        started = Program(name, argv, self.folder, variables)
        self.programs.append(started)
        return started

    def is_ready(self, service: str) -> bool:
        """What the service's health check says."""
        how, python, *arguments = services()[service]["healthcheck"]["test"]
        assert (how, python) == ("CMD", "python")
        arguments = [argument.replace(OBSERVE, self.observe[service]) for argument in arguments]
        return subprocess.run([sys.executable, *arguments], capture_output=True, timeout=20).returncode == 0

    def _environment(self) -> dict[str, str]:
        return environment(PATH=f"{Path(command('cloud-relay')).parent}:{os.environ['PATH']}")

    async def close(self) -> None:
        """End whatever runs."""
        for program in self.programs:
            await program.kill()
