"""The README's set-up, run as it stands: its commands and its configs, on free ports, in an empty folder.

What is replaced is only what must be: the ports, the hash that `secrets new` printed, and programs that run on are put
into the background. `python` and the two commands are those of the environment, which has the package installed.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import shlex
import shutil
import ssl
import subprocess
import urllib.request
from pathlib import Path
from typing import NamedTuple

import pytest
import yaml

from tests.system.programs import ROOT, Program, command, environment, free_port, until
from tests.system.targets import BODY, open_target

README = (ROOT / "README.md").read_text(encoding="utf-8")
CHAPTER = "## A relay and a connector in five minutes"
PORTS = ("8443", "9443", "9000", "8428")
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """One fenced block."""

    language: str
    text: str


def blocks(text: str) -> list[Block]:
    """All fenced blocks, in their order."""
    return [Block(*match) for match in _BLOCK.findall(text)]


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
        (folder / "certs").symlink_to(ROOT / "certs")
        programs = f"{Path(command('cloud-relay')).parent}:{os.environ['PATH']}"
        self.environment = environment(PATH=programs)

    def adapt(self, text: str) -> str:
        for port, mine in self.ports.items():
            text = re.sub(rf"\b{port}\b", mine, text)
        return text.replace("sha256:…", self.secret.get("hash", "sha256:…"))

    def write(self, block: Block) -> None:
        """A YAML block goes into the file that its first line names."""
        name = block.text.splitlines()[0].removeprefix("# ")
        assert name in ("relay.yaml", "connector.yaml")
        (self.folder / name).write_text(self.adapt(block.text))

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
    """curl's --cacert, -H and --data-binary, and a URL."""
    url = arguments.pop()
    options = dict(zip(arguments[::2], arguments[1::2], strict=True))
    assert set(options) == {"--cacert", "-H", "--data-binary"}
    name, _, value = options["-H"].replace("$TOKEN", walk.secret["secret"]).partition(": ")
    request = urllib.request.Request(url, options["--data-binary"].encode(), {name: value})
    context = ssl.create_default_context(cafile=str(walk.folder / options["--cacert"]))
    with urllib.request.urlopen(request, timeout=20, context=context) as answer:
        text: str = answer.read().decode()
        return text


def test_the_chapter_is_found():
    found = commands()
    for wanted in ("cloud-relay serve", "connector-agent run", "curl", "python certs/generate.py", "status"):
        assert any(wanted in line for line in found), wanted
    names = [block.text.splitlines()[0] for block in set_up() if block.language == "yaml"]
    assert names == ["# relay.yaml", "# connector.yaml"]


def test_all_ports_are_replaced():
    text = "".join(block.text for block in set_up())
    assert set(re.findall(r"(?<=:)\d{4,5}\b", text)) == set(PORTS)


@pytest.mark.parametrize(("name", "text"), yaml_examples(), ids=[name for name, _ in yaml_examples()])
def test_yaml_examples_are_yaml(name, text):
    assert yaml.safe_load(text)


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
