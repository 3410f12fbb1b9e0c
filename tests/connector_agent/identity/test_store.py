"""The identity on disk: whole at every moment, readable by its owner only."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from connector_agent.identity.store import IDENTITY, RENEWAL_KEY, ROOTS, IdentityStore, StoreError
from shared.config import HostPort
from shared.pki import issue
from shared.pki.files import PkiError, write_private
from shared.pki.spiffe import connector_id
from shared.pki.tls import managed_client_context
from tests.support.relay_double import Ca

ME = connector_id("qanat.test", "acme", "walldorf", "frun")


def chain(ca: Ca, key: issue.PrivateKey) -> list[object]:
    return [issue.issue_connector(ca.issuing, ME, key.public_key(), datetime.now(UTC)), *ca.issuing.chain]


def store_with_identity(folder: Path, ca: Ca) -> IdentityStore:
    store = IdentityStore(folder)
    key = issue.new_key()
    store.save_roots(ca.certificates)
    store.save_identity(key, chain(ca, key))  # type: ignore[arg-type]  # certificates
    return store


def test_nothing_is_there_before_the_first_join(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path / "state")
    assert store.load_identity() is None
    assert store.load_relays() == []
    with pytest.raises(PkiError, match=r"roots\.pem"):
        store.load_roots()


def test_what_was_saved_is_loaded_and_can_be_used_for_tls(tmp_path: Path) -> None:
    ca = Ca()
    store = store_with_identity(tmp_path, ca)
    loaded = store.load_identity()
    assert loaded is not None
    assert loaded.id == ME
    assert len(loaded.chain) == 2
    assert store.load_roots() == ca.certificates
    assert store.identity_file.stat().st_mode & 0o777 == 0o600
    managed_client_context(store.load_roots(), store.identity_file)
    store.save_relays([HostPort("relay.example.com", 443), HostPort("::1", 8443)])
    assert store.load_relays() == [HostPort("relay.example.com", 443), HostPort("::1", 8443)]


@pytest.mark.parametrize("name", [IDENTITY, "join-t0k3n.key"])
def test_a_key_that_others_may_read_is_refused(tmp_path: Path, name: str) -> None:
    store = store_with_identity(tmp_path, Ca())
    store.join_key("t0k3n")
    (tmp_path / name).chmod(0o644)
    with pytest.raises(PkiError, match="others may read"):
        store.load_identity() if name == IDENTITY else store.join_key("t0k3n")


@pytest.mark.parametrize("spoil", [lambda path: path.chmod(0o644), lambda path: path.write_bytes(b"torn")])
def test_a_renewal_key_that_cannot_be_used_is_made_anew(tmp_path: Path, spoil: Callable[[Path], object]) -> None:
    store = store_with_identity(tmp_path, Ca())
    first = store.renewal_key()
    spoil(tmp_path / RENEWAL_KEY)
    again = store.renewal_key()
    assert again.private_numbers() != first.private_numbers()
    assert (tmp_path / RENEWAL_KEY).stat().st_mode & 0o777 == 0o600


def test_the_roots_of_an_identity_that_is_replaced_stay_until_the_new_one_is_there(tmp_path: Path) -> None:
    store, old, new = IdentityStore(tmp_path), Ca(), Ca()
    assert store.other_roots(new.certificates) == []
    store.save_roots(old.certificates)
    assert store.other_roots(new.certificates) == old.certificates
    assert store.other_roots(old.certificates) == []


def test_a_key_is_on_disk_before_it_is_given_out_and_stays_the_same(tmp_path: Path) -> None:
    store = IdentityStore(tmp_path)
    first = store.join_key("t0k3n")
    assert (tmp_path / "join-t0k3n.key").read_bytes() == issue.key_pem(first)
    assert IdentityStore(tmp_path).join_key("t0k3n").private_numbers() == first.private_numbers()
    assert store.join_key("other").private_numbers() != first.private_numbers()
    renewal = store.renewal_key()
    assert store.renewal_key().private_numbers() == renewal.private_numbers()
    store.forget_renewal_key()
    assert store.renewal_key().private_numbers() != renewal.private_numbers()
    store.forget_join_keys()
    assert not list(tmp_path.glob("join-*.key"))


def test_a_full_disk_leaves_the_old_files_whole_at_every_write(tmp_path: Path) -> None:
    ca = Ca()
    store_with_identity(tmp_path, ca).save_relays([HostPort("a.test", 1)])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def full(path: Path, data: bytes) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path))

    store = IdentityStore(tmp_path, write=full)
    key = issue.new_key()
    writes = [
        lambda: store.save_identity(key, chain(ca, key)),  # type: ignore[arg-type]  # certificates
        lambda: store.save_roots(ca.certificates),
        lambda: store.save_relays([HostPort("b.test", 2)]),
        store.renewal_key,
        lambda: store.join_key("t0k3n"),
    ]
    for write in writes:
        with pytest.raises(StoreError, match=r"No space left.*unchanged.*free some space"):
            write()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_write_that_dies_half_way_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = store_with_identity(tmp_path, Ca())
    before = store.identity_file.read_bytes()

    def dies(descriptor: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "fsync", dies)
    key = issue.new_key()
    with pytest.raises(StoreError):
        store.save_identity(key, chain(Ca(), key))  # type: ignore[arg-type]  # certificates
    assert store.identity_file.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == [IDENTITY, ROOTS]


def test_an_empty_list_of_roots_is_never_stored(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="empty"):
        IdentityStore(tmp_path).save_roots([])


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_a_broken_identity_says_where_and_what_to_do(tmp_path: Path, content: bytes) -> None:
    write_private(tmp_path / IDENTITY, content)
    with pytest.raises(PkiError, match=r"identity\.pem.*enrol this connector anew"):
        IdentityStore(tmp_path).load_identity()


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    ca, key = Ca(), issue.new_key()
    pem = issue.key_pem(issue.new_key()) + issue.certificate_pem(*chain(ca, key))  # type: ignore[arg-type]  # certificates
    write_private(tmp_path / IDENTITY, pem)
    with pytest.raises(PkiError, match="does not belong"):
        IdentityStore(tmp_path).load_identity()
