"""How a process starts the next one: by which command, with what around it, and who stays for it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shared import launch
from shared.launch import Launcher, own_command

ROOT = Path(launch.__file__).parent.parent


def test_a_script_is_started_by_itself_and_whatever_else_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    script = tmp_path / "relay"
    script.write_text("#!/bin/sh\n")
    monkeypatch.setattr(sys, "argv", [str(script), "serve"])
    monkeypatch.setattr(sys, "orig_argv", ["python", "-X", "dev", str(script), "serve"])
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", None)
    assert own_command() == [sys.executable, "-X", "dev", str(script), "serve"], "it cannot be run"
    script.chmod(0o755)
    assert own_command() == [str(script), "serve"]
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["./relay", "serve"])
    assert own_command() == [str(script), "serve"], "also from another directory"
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["relay", "serve"])
    assert own_command() == [str(script), "serve"]
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", object())
    monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "relay", "serve"])
    assert own_command() == [sys.executable, "-m", "relay", "serve"]


def test_what_is_passed_arrives_and_what_was_for_this_process_alone_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch, "become_subreaper", lambda: None)  # it is for good, and the tests' process is no parent
    out = tmp_path / "out"
    read, write = os.pipe()
    script = (
        "import json, os, sys; os.write(int(sys.argv[1]), b'here'); json.dump(dict(os.environ), open(sys.argv[2], 'w'))"
    )
    environ = {"PATH": os.environ["PATH"], "LISTEN_FDS": "1", "LISTEN_PID": "1", "WATCHDOG_PID": "1", "KEPT": "yes"}
    for is_detached in (False, True):
        command = [sys.executable, "-c", script, str(write), str(out)]
        launcher = Launcher(command, environ, is_detached=is_detached)
        launcher.launch({"MORE": "too"}, [write]).wait(30)
        assert os.read(read, 100) == b"here"
        deadline = time.monotonic() + 30
        while not out.exists() or not out.read_text().endswith("}"):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        found = json.loads(out.read_text())
        assert (found["KEPT"], found["MORE"]) == ("yes", "too")
        assert not {"LISTEN_FDS", "LISTEN_PID", "WATCHDOG_PID"} & found.keys()
        assert launcher.has_children is not is_detached
        out.unlink()
    os.close(read)
    os.close(write)


_PARENT = """
import os, sys
from shared.launch import Launcher, stay_for_children
launcher = Launcher([sys.executable, "-c", sys.argv[1]], os.environ)
launcher.launch({}, [])
sys.exit(stay_for_children())
"""

_GENERATIONS = """
import subprocess, sys
subprocess.Popen([sys.executable, "-c", sys.argv[1]] if len(sys.argv) > 1 else [sys.executable, "-c", '''
import signal, sys, time
signal.signal(signal.SIGTERM, lambda *_: sys.exit(7))
print("ready", flush=True)
time.sleep(60)
'''])
"""


def run_parent(child: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", _PARENT, child], stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip


def test_the_first_process_stays_for_the_children_of_its_children_and_ends_as_the_last_one() -> None:
    parent = run_parent(_GENERATIONS)
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    time.sleep(0.2)  # so that the one in between has ended
    assert parent.poll() is None
    parent.send_signal(signal.SIGTERM)
    assert parent.wait(30) == 7
    parent.stdout.close()


def test_an_end_by_a_signal_is_told_as_a_shell_tells_it() -> None:
    parent = run_parent("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    assert parent.wait(30) == 128 + signal.SIGKILL
    assert parent.stdout is not None
    parent.stdout.close()


_HOLDING = """
import os, signal, sys
from shared.launch import Launcher, stay_for_children
child = "import signal, sys, time; signal.signal(signal.SIGTERM, lambda *_: sys.exit(9)); print('ready', flush=True); "
launcher = Launcher([sys.executable, "-c", child + "time.sleep(60)"], os.environ)
launcher.launch({}, [])
launcher.hold_signals()
sys.stdin.readline()
sys.exit(stay_for_children())
"""


def test_a_signal_that_comes_between_the_programs_end_and_the_waiting_is_passed_on() -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", _HOLDING], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert parent.stdout is not None
    assert parent.stdout.readline() == "ready\n"
    time.sleep(0.1)
    parent.send_signal(signal.SIGTERM)
    time.sleep(0.1)
    assert parent.poll() is None
    parent.communicate("go on\n", timeout=30)
    assert parent.returncode == 9
