"""docs/install.md: its transcript is followed, its overlays are built, and what it names is there.

What needs an engine or a cluster cannot be followed here; it must name what the files that it stands on hold.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from connector_agent.config import ConnectorConfig
from shared.config import read_config
from tests.deploy.kubernetes import FOLDER, SIDES, build, config, only, pod
from tests.deploy.scenario import services
from tests.deploy.test_image import DOCKERFILE
from tests.docs.test_readme import Walk, set_up
from tests.docs.test_readme import blocks as fenced
from tests.system.programs import ROOT, Program, until
from tests.system.targets import BODY, open_target

PAGE = (ROOT / "docs" / "install.md").read_text(encoding="utf-8")


def chapter(title: str) -> str:
    """The text below one heading."""
    assert PAGE.count(f"\n## {title}\n") == 1
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def steps(title: str) -> list[tuple[str, list[str]]]:
    """The commands of a chapter's transcripts, each with the lines that it prints."""
    found: list[tuple[str, list[str]]] = []
    for block in fenced(chapter(title)):
        if block.language == "console":
            for line in block.text.splitlines():
                if line.startswith("$ "):
                    found.append((line.removeprefix("$ "), []))
                else:
                    found[-1][1].append(line)
    return found


def shell(title: str) -> str:
    """The chapter's commands, continued lines joined."""
    text = "\n".join(block.text for block in fenced(chapter(title)) if block.language == "sh")
    return text.replace("\\\n", " ")


def overlays() -> dict[str, str]:
    """The kustomizations of the page, by their folder."""
    titled = [block.text for block in fenced(chapter("Kubernetes")) if block.language == "yaml"]
    found = {text.splitlines()[0].removeprefix("# ").removesuffix("/kustomization.yaml"): text for text in titled}
    assert set(found) == set(SIDES)
    return found


def prints(said: str, line: str) -> bool:
    """Whether the line is there, `…` standing for anything."""
    pattern = ".*".join(map(re.escape, line.split("…")))
    return any(re.fullmatch(pattern, one.rstrip()) for one in said.splitlines())


@pytest.mark.system
async def test_the_transcript(tmp_path_factory):
    """From nothing to a push, line by line; the configs in between are the README's."""
    async with open_target() as target:
        walk = Walk(tmp_path_factory.mktemp("install"), target.port)
        try:
            for line, lines in steps("pip or pipx"):
                if line.startswith("cloud-relay check"):
                    walk.secret = json.loads(walk.run("cloud-relay secrets new --json"))
                    walk.environment["TOKEN"] = walk.secret["secret"]
                    for block in set_up():
                        if block.language == "yaml":
                            walk.write(block)
                await follow(walk, line, [walk.adapt(one) for one in lines])
        finally:
            for program in walk.programs:
                await program.kill()
        assert [one.body for one in target.received] == [b"answer 42"]


async def follow(walk: Walk, line: str, lines: list[str]) -> None:
    """One command, and what it prints."""
    if line.endswith(" &"):
        program = walk.start(line.removesuffix(" &"))
        await until(lambda: all(prints(program.err, one) for one in lines) or not program.is_running, line)
        assert program.is_running, program.err
        return
    done = Program("step", ["sh", "-c", walk.adapt(line)], walk.folder, walk.environment)
    assert await done.ended() == 0, f"{line}\n{done.err}"
    said = (walk.folder / "step.out").read_text() + (walk.folder / "step.err").read_text()
    for path in walk.folder.glob("step.*"):
        path.unlink()
    assert all(prints(said, one) for one in lines), f"{line}\n{said}"
    if "init" in line:
        walk.written("relay.yaml")
    if line.startswith("curl "):
        assert BODY.decode() in said


def test_the_transcript_is_found():
    assert [line.split()[1] for line, _ in steps("pip or pipx")].count("check") == 2
    assert len(steps("pip or pipx")) >= 10


@pytest.mark.parametrize("side", SIDES)
def test_an_overlay_of_the_page_builds(side, tmp_path, peer):
    overlay = yaml.safe_load(overlays()[side])
    for folder in (*overlay["resources"], *overlay["components"]):
        assert (ROOT / side / folder).resolve().is_dir()
    (generated,) = overlay["configMapGenerator"]
    assert generated["files"] == [config(side).name]
    kubectl = peer("kubectl")
    shutil.copytree(FOLDER, tmp_path / "deploy" / "kubernetes")
    (tmp_path / side).mkdir()
    (tmp_path / side / "kustomization.yaml").write_text(overlays()[side])
    mine = config(side).read_text().replace("example.com", "corp.example")
    (tmp_path / side / f"{side}.yaml").write_text(mine)
    built = build(kubectl, tmp_path / side)
    (made,) = [one for one in built if one["kind"] == "ConfigMap"]
    assert made["data"] == {f"{side}.yaml": mine}
    if side == "connector":
        (policy,) = [one for one in built if "egress" in one.get("spec", {})]
        before = only(side, "NetworkPolicy")["spec"]["egress"]
        assert policy["spec"]["egress"][:2] == before[:2]
        assert policy["spec"]["egress"][2:] == [
            {"to": [{"ipBlock": {"cidr": "10.20.0.0/16"}}], "ports": [{"port": 8428}]}
        ]


def test_kubectl_is_told_of_what_there_is():
    text = shell("Kubernetes")
    namespaces = set(re.findall(r"--namespace (\S+)", text))
    assert namespaces == {only(side, "Namespace")["metadata"]["name"] for side in SIDES}
    pods = {f"{only(side, 'StatefulSet')['metadata']['name']}-0" for side in SIDES}
    assert set(re.findall(r" exec (\S+) --", text)) == pods
    secrets = set(re.findall(r" secret (?:tls|generic) (\S+)", text))
    mounted = {
        volume["secret"]["secretName"] for side in SIDES for volume in pod(side)["volumes"] if "secret" in volume
    }
    assert secrets == mounted
    replicas = only("connector", "StatefulSet")["spec"]["replicas"]
    assert re.findall(r"--from-file=(\S+)", text) == [f"qanat-connector-{number}" for number in range(replicas)]


def test_compose_is_told_of_what_there_is():
    text = chapter("Compose")
    named = set(re.findall(r"(?:exec(?: -T)?|kill|stop) ([a-z-]+)", text.replace("kill -9", "")))
    assert {"victoria-metrics", "prometheus", "relay", "connector"} <= named <= set(services())
    shown = set(re.findall(r"^qanat_([a-z-]+)_1 ", text, re.MULTILINE))
    assert shown == set(services())
    for path in re.findall(r"cat (/run/\S+)", text):
        mounted = [volume.split(":")[1] for volume in services()["prometheus"]["volumes"]]
        assert str(Path(path).parent) in mounted


def test_docker_is_told_of_what_the_image_holds():
    text = shell("The image")
    folders = set(re.findall(r"--volume \S+?:(\S+?):", text))
    assert folders == set(re.findall(r"/(?:etc|var/lib)/qanat\S*", re.sub(r"#.*", "", DOCKERFILE)))
    (user,) = set(re.findall(r"--user (\d+)", text))
    assert f"USER {user}:" in DOCKERFILE
    commands = {" ".join(words) for words in re.findall(r"qanat (cloud-relay|connector-agent) (serve|run)\b", text)}
    assert commands == {" ".join(pod(side)["containers"][0]["command"]) for side in SIDES}


def test_the_proxy_example_loads(tmp_path):
    (block,) = [one for one in fenced(chapter("Behind a corporate proxy")) if one.language == "yaml"]
    (tmp_path / "proxy.auth").touch()
    path = tmp_path / "connector.yaml"
    path.write_text(f"relays: [wss://relay.test:443]\nstate_dir: s\n{block.text.replace('/etc/qanat/', '')}")
    assert read_config(path, ConnectorConfig).config.proxy


def test_links_and_their_anchors_lead_somewhere():
    links = re.findall(r"\]\(([^)]+)\)", PAGE)
    assert len(links) > 10
    for link in links:
        file, _, anchor = link.partition("#")
        text = (ROOT / "docs" / file).read_text(encoding="utf-8") if file else PAGE
        headings = [re.sub(r"[^\w -]", "", one).strip().lower() for one in re.findall(r"^#+ (.*)$", text, re.MULTILINE)]
        assert not anchor or anchor in [one.replace(" ", "-") for one in headings], link
