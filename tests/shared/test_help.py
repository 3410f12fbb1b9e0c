"""Every command, option and argument of both programs says what it is for."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
import typer.main

import cloud_relay.cli
import connector_agent.cli
from shared.cli import invoke
from shared.status import version

APPS = {"cloud-relay": cloud_relay.cli.app, "connector-agent": connector_agent.cli.app}


def walk(found: Any, path: str) -> Iterator[tuple[str, Any]]:
    """A command and all below it."""
    yield path, found
    for name, inner in getattr(found, "commands", {}).items():
        yield from walk(inner, f"{path} {name}")


COMMANDS = [each for name, app in APPS.items() for each in walk(typer.main.get_command(app), name)]


def test_there_are_commands() -> None:
    assert len(COMMANDS) > 40


@pytest.mark.parametrize(("path", "found"), COMMANDS, ids=[path for path, _ in COMMANDS])
def test_it_says_what_it_is_for(path: str, found: Any) -> None:
    first = (found.help or "").strip().split("\n\n")[0]
    assert re.fullmatch(r"[A-Z].*[.)]", first, re.DOTALL), path
    assert len(first) < 240, path
    for parameter in found.params:
        assert getattr(parameter, "help", None), f"{path} {parameter.name}"


@pytest.mark.parametrize("asked", ["--version", "version"])
@pytest.mark.parametrize("name", APPS)
def test_the_version_is_told_by_option_and_command(name: str, asked: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(APPS[name], [asked]) == 0
    assert capsys.readouterr().out == f"{name} {version()}\n"


@pytest.mark.parametrize("name", APPS)
def test_exit_codes_are_told(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert invoke(APPS[name], ["--help"]) == 0
    assert "7 the other side refuses" in " ".join(capsys.readouterr().out.split())
