"""What a shell shows at TAB, for both commands; for bash by bash itself."""

from __future__ import annotations

import shutil
import subprocess

import pytest

import cloud_relay.cli
import connector_agent.cli
from shared.cli import invoke
from shared.completion import Shell, completion_script, completion_variable
from tests.system.programs import command, environment

PROGRAMS = {"cloud-relay": cloud_relay.cli.app, "connector-agent": connector_agent.cli.app}


@pytest.mark.system
@pytest.mark.parametrize(
    ("program", "typed", "wanted"),
    [("cloud-relay", "tokens cr", "create"), ("connector-agent", "enroll --rep", "--replace")],
)
def test_bash_completes(program, typed, wanted):
    words = [program, *typed.split()]
    script = f"""
        source <({command(program)} completion bash)
        function=$(complete -p {program}); function=${{function##*-F }}; function=${{function%% *}}
        COMP_WORDS=({" ".join(words)}); COMP_CWORD={len(words) - 1}
        $function {command(program)} {words[-1]} {words[-2]}
        echo "${{COMPREPLY[@]}}"
    """
    done = subprocess.run(["bash", "-c", script], env=environment(), capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{wanted}\n", "")


@pytest.mark.parametrize("shell", list(Shell))
@pytest.mark.parametrize("program", PROGRAMS)
def test_a_script_asks_as_the_command_answers(program, shell, capsys, monkeypatch):
    assert invoke(PROGRAMS[program], ["completion", shell]) == 0
    script = capsys.readouterr().out
    assert script == f"{completion_script(program, shell)}\n"
    assert f"{completion_variable(program)}=complete_{shell}" in script
    monkeypatch.setenv(completion_variable(program), f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", f"{program} ver")
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("COMP_WORDS", f"{program} ver")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit) as ended:
        invoke(PROGRAMS[program], [])
    assert not ended.value.code
    answer = capsys.readouterr().out
    assert "version" in answer
    assert "status" not in answer
    interpreter = shutil.which(shell)
    if interpreter is not None:
        subprocess.run([interpreter, "-n", "-c", script], check=True, timeout=30)  # reads it, and runs nothing


def test_another_shell_is_a_usage_error(capsys):
    assert invoke(PROGRAMS["cloud-relay"], ["completion", "csh"]) == 2
    assert "bash" in capsys.readouterr().err
