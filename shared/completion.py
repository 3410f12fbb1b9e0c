"""Completion of both commands by bash, zsh and fish.

A shell loads a script once, and with it asks the command itself at each TAB, by a variable in its environment. Script
and answers are typer's; its own options for them would write into people's start-up files, and guess the shell.
"""

from __future__ import annotations

import re
from enum import StrEnum

from typer._completion_classes import completion_init
from typer._completion_shared import get_completion_script


class Shell(StrEnum):
    """Those that are likely where such programs run."""

    BASH = "bash"
    ZSH = "zsh"
    FISH = "fish"


def completion_script(program: str, shell: Shell) -> str:
    """What `shell` loads, to complete the command called `program`."""
    return get_completion_script(prog_name=program, complete_var=completion_variable(program), shell=shell)


def completion_variable(program: str) -> str:
    """The variable by which a shell asks: click's, who looks for it before a command is run."""
    return f"_{re.sub(r'[^a-zA-Z0-9]', '_', program).upper()}_COMPLETE"


def prepare_answers() -> None:
    """Make typer able to answer; without it, it knows no shell."""
    completion_init()
