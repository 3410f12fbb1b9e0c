"""Who is switched off: kept over a restart, written whole or not at all."""

from __future__ import annotations

import stat

import pytest

from cloud_relay.sender_state import SenderFile
from shared.pki.files import PkiError

S4 = ("acme", "s4")


def load(path) -> SenderFile:
    state = SenderFile(path)
    state.load()
    return state


def test_it_survives_a_restart(tmp_path):
    path = tmp_path / "senders.json"
    state = load(path)
    assert state.disabled() == {}
    assert state.set_disabled(S4, 5.0)
    assert not state.set_disabled(S4, 6.0)
    assert load(path).disabled() == {S4: 5.0}
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert load(path).set_disabled(S4, None)
    assert not load(path).set_disabled(S4, None)
    assert load(path).disabled() == {}


def test_what_another_process_wrote_is_kept(tmp_path):
    path = tmp_path / "senders.json"
    one, other = load(path), load(path)
    one.set_disabled(S4, 5.0)
    other.set_disabled(("globex", "ibp"), 6.0)
    assert load(path).disabled() == {S4: 5.0, ("globex", "ibp"): 6.0}


DAMAGED = ["", "[]", "{}", '{"version": 2, "disabled": {}}', '{"version": 1, "disabled": []}',
           '{"version": 1, "disabled": {"s4": 1}}', '{"version": 1, "disabled": {"a/b": "x"}}']  # fmt: skip


@pytest.mark.parametrize("content", DAMAGED)
def test_a_damaged_file_lets_nobody_in(tmp_path, content):
    path = tmp_path / "senders.json"
    path.write_text(content)
    path.chmod(0o600)
    with pytest.raises(PkiError, match="sender state"):
        load(path)


def test_a_full_disk_changes_nothing(tmp_path, monkeypatch):
    state = load(tmp_path / "senders.json")

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cloud_relay.sender_state.write_private", fail)
    with pytest.raises(OSError, match="No space"):
        state.set_disabled(S4, 5.0)
    assert state.disabled() == {}
