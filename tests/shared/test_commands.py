from __future__ import annotations

import pytest

from shared.cli import CommandError, ExitCode, counted
from shared.commands import ask, explain_fault
from shared.errors import FAULTS


def test_every_code_is_explained():
    for code, fault in FAULTS.items():
        data, text = explain_fault(code)
        assert data["code"] == code
        assert fault.remedy in text


@pytest.mark.parametrize(("code", "hint"), [("no-conector", "no-connector"), ("zzz", "docs/errors.md")])
def test_an_unknown_code_is_named_with_its_neighbours(code, hint):
    with pytest.raises(CommandError) as caught:
        explain_fault(code)
    assert caught.value.exit_code is ExitCode.NOT_FOUND
    assert hint in caught.value.remedy


@pytest.mark.parametrize("text", ["", "log: {level: info}", "state_dir: 5", "state_dir: [a]"])
def test_without_a_state_dir_nobody_can_be_asked(tmp_path, text):
    config = tmp_path / "relay.yaml"
    config.write_text(text)
    with pytest.raises(CommandError, match=r"names no state_dir, where the relay's control socket is"):
        ask(config, "relay", "GET", "/v1/status")


def test_a_broken_config_hides_nobody(tmp_path):
    config = tmp_path / "relay.yaml"
    config.write_text("state_dir: here\nnonsense: true\n")
    with pytest.raises(CommandError) as caught:
        ask(config, "relay", "GET", "/v1/status")
    assert caught.value.exit_code is ExitCode.UNREACHABLE
    assert str(tmp_path / "here" / "control.sock") in caught.value.message


def test_one_is_singular():
    assert [counted(n, "route") for n in (0, 1, 2)] == ["0 routes", "1 route", "2 routes"]
    assert [counted(n, "push", "pushes") for n in (1, 2)] == ["1 push", "2 pushes"]
