"""The README's set-up, run as it stands: its commands and its configs, on free ports, in an empty folder.

What is replaced is only what must be: the ports (those too that `init` writes, and the tunnel's address), the hash that
`secrets new` printed, and programs that run on are put into the background. The commands are those of the environment,
which has the package installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import subprocess
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from cloud_relay.config import RelayConfig
from connector_agent.config import ConnectorConfig
from shared.config import load_config
from tests.support.ports import free_port
from tests.system.programs import ROOT, Program, command, environment, until
from tests.system.targets import BODY, open_target

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAPTER = "## A relay and a connector in five minutes"
PORTS = ("8443", "9443", "9000", "8428")
FILES = {
    "# relay.yaml, from here to the end": "relay.yaml",
    "# connector.yaml, from here to the end": "connector.yaml",
}
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """All fenced blocks, in their order."""
    return [Block(*match) for match in _BLOCK.findall(text)]


def ports_in(text: str) -> set[str]:
    """All that looks like one."""
    return set(re.findall(r"(?<=:)\d{4,5}\b", text))


def set_up() -> list[Block]:
    """The blocks of the chapter."""
    chapter = README.partition(CHAPTER)[2].partition("\n## ")[0]
    return blocks(chapter)


def commands() -> list[str]:
    """The chapter's commands, line by line."""
    return [line for block in set_up() if block.language == "sh" for line in block.text.splitlines() if line]


def yaml_examples() -> list[tuple[str, str]]:
    """Every YAML block of the README and the docs whose first line names a file of ours."""
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "certs" / "README.md"]
    found = [
        (f"{page.name}-{number}", block.text)
        for page in pages
        for number, block in enumerate(blocks(page.read_text(encoding="utf-8")))
        if block.language in ("yaml", "yml")
    ]
    assert found
    return found


class Walk:
    """A folder in which the chapter is followed."""

    def __init__(self, folder: Path, target_port: int) -> None:
        self.folder = folder
        self.ports = {port: str(free_port()) for port in PORTS[:-1]} | {PORTS[-1]: str(target_port)}
        self.secret: dict[str, str] = {}
        self.programs: list[Program] = []
        programs = f"{Path(command('cloud-relay')).parent}:{os.environ['PATH']}"
        self.environment = environment(PATH=programs)

    def adapt(self, text: str) -> str:
        for port, mine in self.ports.items():
            text = re.sub(rf"\b{port}\b", mine, text)
        return text.replace("sha256:…", self.secret.get("hash", "sha256:…"))

    def write(self, block: Block) -> None:
        """A block takes the place of the end of a file, from the line on that it begins with."""
        title, key, *_ = block.text.splitlines()
        path = self.folder / FILES[title]
        written = path.read_text()
        assert key.endswith(":")
        assert written.count(f"\n{key}") == 1, f"{path.name} has no {key}\n{written}"
        path.write_text(written.partition(f"\n{key}")[0] + "\n" + self.adapt(block.text))

    def written(self, name: str) -> None:
        """A command wrote this file with its own ports: ours take their place."""
        path = self.folder / name
        assert ports_in(path.read_text()) <= {*self.ports, *self.ports.values()}
        path.write_text(self.adapt(path.read_text()).replace('listen: ":', 'listen: "127.0.0.1:'))

    def run(self, line: str) -> str:
        """A command that ends; its output."""
        done = subprocess.run(
            ["sh", "-c", self.adapt(line)], cwd=self.folder, env=self.environment, capture_output=True, text=True,
            timeout=60,
        )  # fmt: skip
        assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def start(self, line: str) -> Program:
        """A command that runs on."""
        program = Program(
            line.partition(" ")[0], ["sh", "-c", f"exec {self.adapt(line)}"], self.folder, self.environment
        )
        self.programs.append(program)
        return program


@pytest.mark.system
async def test_the_five_minutes(tmp_path_factory):
    folder = tmp_path_factory.mktemp("readme")
    async with open_target() as target:
        walk = Walk(folder, target.port)
        try:
            for block in set_up():
                if block.language == "yaml":
                    walk.write(block)
                elif block.language == "sh":
                    for line in filter(None, block.text.splitlines()):
                        await follow(walk, line)
        finally:
            for program in walk.programs:
                await program.kill()
        assert [(one.method, one.path, one.body) for one in target.received] == [
            ("POST", "/api/v1/import/prometheus", b"answer 42")
        ]


async def follow(walk: Walk, line: str) -> None:
    """One command of the chapter."""
    if "pip install" in line or "-m venv" in line or line.startswith("export "):
        return  # the environment has it
    if line == "cloud-relay secrets new":
        walk.run(line)
        walk.secret = json.loads(walk.run(f"{line} --json"))
        walk.environment["TOKEN"] = walk.secret["secret"]
    elif " serve " in line:
        program = walk.start(line)
        await until(lambda: "relay started" in program.err or not program.is_running, "the relay")
        assert program.is_running, program.err
    elif " run " in line:
        program = walk.start(line)
        await until(lambda: "tunnel open" in program.err or not program.is_running, "a tunnel")
        assert program.is_running, program.err
    elif line.startswith("cloud-relay init "):
        assert "cloud-relay serve --config relay.yaml" in walk.run(line), "what to do next"
        walk.written("relay.yaml")
    elif "connector-agent enroll" in line:
        assert "connector-agent run --config connector.yaml" in walk.run(line), "what to do next"
        assert (walk.folder / "state" / "connector" / "identity.pem").exists()
    elif line.startswith("curl "):
        assert (await run_curl(walk, line)).encode() == BODY
    else:
        assert walk.run(line)


async def run_curl(walk: Walk, line: str) -> str:
    """Its standard output; where there is no curl, Python does what the line says.

    The target answers in this very process, so nothing may wait for it here.
    """
    adapted = walk.adapt(line)
    if shutil.which("curl") is None:
        return await asyncio.to_thread(push_like_curl, walk, shlex.split(adapted)[1:])
    curl = Program("curl", ["sh", "-c", f"exec {adapted}"], walk.folder, walk.environment)
    assert await curl.ended() == 0, curl.err
    return curl.out


def push_like_curl(walk: Walk, arguments: list[str]) -> str:
    """curl's -H and --data-binary, and a URL."""
    url = arguments.pop()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert set(options) == {"-H", "--data-binary"}
    name, _, value = options["-H"].replace("$TOKEN", walk.secret["secret"]).partition(": ")
    request = urllib.request.Request(url, options["--data-binary"].encode(), {name: value})
    direct = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with direct.open(request, timeout=20) as answer:
        text: str = answer.read().decode()
        return text


def test_the_chapter_is_found():
    found = commands()
    for wanted in ("connector-agent run", "curl", "status"):
        assert any(wanted in line for line in found), wanted
    assert [block.text.splitlines()[0] for block in set_up() if block.language == "yaml"] == list(FILES)


def test_three_commands_lead_to_a_joined_connector():
    (joining,) = [block for block in set_up() if "enroll" in block.text]
    programs = [re.findall(r"(cloud-relay \w+|connector-agent \w+)", line) for line in joining.text.splitlines()]
    assert programs == [["cloud-relay init"], ["cloud-relay serve"], ["cloud-relay tokens", "connector-agent enroll"]]


def test_all_ports_are_replaced():
    text = "".join(block.text for block in set_up())
    assert ports_in(text) == set(PORTS) - {"9000"}  # which stands only in what `init` writes


@pytest.mark.parametrize(("name", "text"), yaml_examples(), ids=[name for name, _ in yaml_examples()])
def test_yaml_examples_are_yaml(name, text):
    assert yaml.safe_load(text)


def whole_configs() -> list[tuple[str, str]]:
    """The examples of the docs that are configs of their own."""
    titles = ("# relay.yaml", "# connector.yaml")
    found = [(name, text) for name, text in yaml_examples() if text.splitlines()[0] in titles]
    assert found
    return found


@pytest.mark.parametrize(("name", "text"), whole_configs(), ids=[name for name, _ in whole_configs()])
def test_whole_examples_are_good_configs(name, text, tmp_path):
    text = text.replace("/etc/qanat", str(tmp_path))
    for file in re.findall(r"[\w/.-]+\.(?:pem|crt|key)\b", text):  # relative ones are beside the config
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    config = tmp_path / "config.yaml"
    config.write_text(text)
    model: type[RelayConfig | ConnectorConfig] = RelayConfig if text.startswith("# relay") else ConnectorConfig
    assert type(load_config(config, model)) is model


def test_links_lead_somewhere():
    links = re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(links) > 5
    missing = [link for link in links if not (ROOT / link).exists()]
    assert missing == []


def test_make_targets_exist():
    makefile = (ROOT / "Makefile").read_text()
    named = re.findall(r"^make ([a-z-]+)", "\n".join(block.text for block in blocks(README)), re.MULTILINE)
    assert named
    for target in named:
        assert f"\n{target}:" in makefile
