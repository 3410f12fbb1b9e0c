"""Who is switched off counts in every process of a relay, also while files of the state cannot be used."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloud_relay.oauth.keys import SigningKeys
from cloud_relay.sender_control import sender_routes
from cloud_relay.sender_desk import SenderDesk
from cloud_relay.sender_service import SenderService, rehearse_senders
from cloud_relay.sender_state import SenderFile
from shared.control import ControlFault, ControlRequest
from shared.exits import CommandError
from shared.pki import files
from shared.pki.files import UnreadableError

S4, IBP = ("acme", "s4"), ("globex", "ibp")


class Ground:
    """One process that follows, and the file as another one writes it."""

    def __init__(self, folder: Path) -> None:
        endpoints = {"acme": SimpleNamespace(token_endpoints=["one"])}
        self.config = cast(Any, SimpleNamespace(state_dir=folder, trust_domain="qanat.test", tenants=endpoints))
        self.path, self.keys = folder / "senders.json", folder / "token-keys.json"
        self.service = SenderService(self.config, cast(Any, None))
        self.service.require(self.config)
        self.senders = {key: SimpleNamespace(is_disabled=False) for key in (S4, IBP)}
        self.rechecks = 0
        snapshot = cast(Any, SimpleNamespace(senders=self.senders))
        self.desk = SenderDesk(self.service, lambda: snapshot, {}, self.recheck)
        self.desk.follow()

    def recheck(self) -> None:
        self.rechecks += 1

    def switch(self, key: tuple[str, str], at: float | None = 5.0) -> None:
        other = SenderFile(self.path)
        other.load()
        other.set_disabled(key, at)

    def off(self) -> list[tuple[str, str]]:
        return [key for key, sender in self.senders.items() if sender.is_disabled]


@pytest.fixture
def ground(tmp_path: Path) -> Ground:
    return Ground(tmp_path)


def test_what_another_process_writes_counts_here(ground: Ground) -> None:
    ground.switch(S4)
    ground.desk.follow()
    assert (ground.off(), ground.rechecks) == ([S4], 1)
    ground.desk.follow()
    ground.switch(S4, None)
    ground.switch(IBP)
    ground.desk.follow()
    assert (ground.off(), ground.rechecks) == ([IBP], 2)


def test_who_was_switched_off_while_the_keys_could_not_be_read_is_off(ground: Ground) -> None:
    ground.switch(S4)
    kept = ground.keys.read_bytes()
    ground.keys.unlink()
    ground.keys.symlink_to(ground.keys)  # a loop: the system does not let it be read
    with pytest.raises(UnreadableError):
        ground.desk.follow()
    assert (ground.off(), ground.rechecks) == ([S4], 1)
    ground.keys.unlink()
    files.write_private(ground.keys, kept)
    ground.desk.follow()
    assert ground.off() == [S4]


def open_to_others(path: Path) -> None:
    path.write_text('{"version": 1, "disabled": {}}')
    path.chmod(0o644)


def damaged(path: Path) -> None:
    path.write_text('{"version": 1, "disabled": ')


@pytest.mark.parametrize("spoil", [open_to_others, damaged, Path.unlink])
async def test_a_file_that_is_not_fit_switches_nobody_on_and_stops_nobody(
    ground: Ground, spoil: Callable[[Path], None]
) -> None:
    ground.switch(S4)
    ground.desk.follow()
    good = ground.path.read_bytes()
    spoil(ground.path)
    ground.desk.follow()
    assert ground.desk.is_unfit
    assert ground.off() == [S4]
    disable = sender_routes(ground.desk)["POST", "/v1/senders/{tenant}/{sender}/disable"]
    with pytest.raises(ControlFault, match="sender state") as caught:
        await disable(ControlRequest({"tenant": "globex", "sender": "ibp"}, {}, None))
    assert caught.value.code == "state-unusable", "nobody believes that it was done"
    assert ground.off() == [S4]
    files.write_private(ground.path, good)
    ground.switch(IBP)
    ground.desk.follow()
    assert not ground.desk.is_unfit
    assert ground.off() == [S4, IBP]


def test_one_that_cannot_be_read_is_not_known(ground: Ground, monkeypatch: pytest.MonkeyPatch) -> None:
    ground.switch(S4)

    def fail(*_: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    with monkeypatch.context() as patched:
        patched.setattr(os, "open", fail)
        for _ in range(2):
            with pytest.raises(UnreadableError, match="Too many open files"):
                ground.desk.follow()
    assert not ground.desk.is_unfit
    ground.desk.follow()
    assert ground.off() == [S4]


@pytest.mark.parametrize("name", ["senders.json", "token-keys.json"])
def test_a_rehearsal_finds_what_a_start_would_and_writes_nothing(ground: Ground, name: str) -> None:
    ground.keys.unlink()
    rehearse_senders(ground.config)
    assert not ground.keys.exists()
    SigningKeys(ground.keys).open(time.time())
    rehearse_senders(ground.config)
    damaged(ground.path.parent / name)
    with pytest.raises(CommandError) as caught:
        rehearse_senders(ground.config)
    assert caught.value.code == "state-unusable"
