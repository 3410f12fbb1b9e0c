"""Which roots are believed: a chain of cross certificates, and nothing else, can add one."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shared.pki import issue
from shared.pki.trust import TrustError, accept_roots, choose_pinned, load_pems, pem_text, pin_of

NOW = datetime(2026, 3, 1, 12, 0, 0, tzinfo=UTC)
OLD, NEW, NEWER, FOREIGN = (issue.create_root(NOW) for _ in range(4))
NEW_BY_OLD = issue.cross_sign(OLD, NEW.certificate, NOW)
NEWER_BY_NEW = issue.cross_sign(NEW, NEWER.certificate, NOW)


def accept(trusted, offered, cross, now=NOW):
    return accept_roots([one.certificate for one in trusted], [one.certificate for one in offered], list(cross), now)


def test_what_is_trusted_stays():
    assert accept([OLD], [OLD], []) == [OLD.certificate]


def test_a_root_that_an_old_one_vouches_for_is_taken():
    assert accept([OLD], [OLD, NEW], [NEW_BY_OLD]) == [OLD.certificate, NEW.certificate]


@pytest.mark.parametrize("cross", [[NEW_BY_OLD, NEWER_BY_NEW], [NEWER_BY_NEW, NEW_BY_OLD]])
def test_whoever_slept_through_two_roll_overs_finds_the_way(cross):
    assert accept([OLD], [NEWER], cross) == [NEWER.certificate]


@pytest.mark.parametrize(
    "cross",
    [
        [],
        [NEWER_BY_NEW],  # a gap in the chain
        [issue.cross_sign(FOREIGN, NEW.certificate, NOW)],
        [issue.cross_sign(OLD, FOREIGN.certificate, NOW)],  # vouches for another
    ],
)
def test_a_root_that_nobody_vouches_for_is_not(cross):
    with pytest.raises(TrustError):
        accept([OLD], [NEW], cross)


def test_a_leaf_vouches_for_nobody():
    issuing = issue.create_issuing(OLD, "r1", NOW)
    leaf_key = issue.new_key()
    leaf = issue.issue_server(issuing, ["relay.test"], leaf_key.public_key(), NOW)
    false = issue.cross_sign(issue.Authority(leaf, leaf_key), NEW.certificate, NOW)
    with pytest.raises(TrustError):
        accept([OLD], [NEW], [leaf, issuing.certificate, false])


def test_an_expired_root_vouches_for_nobody_and_an_expired_one_is_not_taken():
    late = NOW + timedelta(days=3651)
    with pytest.raises(TrustError):
        accept([OLD], [NEW], [NEW_BY_OLD], late)


def test_an_old_root_that_is_no_longer_offered_is_dropped():
    assert accept([OLD, NEW], [NEW], [NEW_BY_OLD]) == [NEW.certificate]


def test_the_pin_chooses():
    offered = [FOREIGN.certificate, OLD.certificate, NEW_BY_OLD]
    assert choose_pinned(offered, [pin_of(OLD.certificate)], NOW) == [OLD.certificate]
    with pytest.raises(TrustError, match="another relay"):
        choose_pinned(offered, [pin_of(NEWER.certificate)], NOW)
    with pytest.raises(TrustError):  # the cross certificate has the new root's key, but is not that root
        choose_pinned(offered, [pin_of(NEW.certificate)], NOW)


def test_pems():
    assert load_pems([pem_text(OLD.certificate)]) == [OLD.certificate]
    with pytest.raises(ValueError, match="certificates"):
        load_pems(["x"] * 17)


def test_the_issuing_ca_whose_key_is_online_makes_no_roots():
    issuing = issue.create_issuing(OLD, "r1", NOW)
    by_issuing = issue.cross_sign(issuing, FOREIGN.certificate, NOW)
    with pytest.raises(TrustError):
        accept([OLD], [FOREIGN], [issuing.certificate, by_issuing])
    with pytest.raises(TrustError):
        choose_pinned([issuing.certificate], [pin_of(issuing.certificate)], NOW)


def test_a_version_that_is_none():
    """The library raises no ValueError for it."""
    der = OLD.certificate.public_bytes(serialization.Encoding.DER)
    at = der.index(b"\xa0\x03\x02\x01\x02")
    body = base64.encodebytes(der[: at + 4] + b"\x07" + der[at + 5 :]).decode()
    with pytest.raises(ValueError, match="version"):
        load_pems([f"-----BEGIN CERTIFICATE-----\n{body}-----END CERTIFICATE-----\n"])


def test_a_strangers_key_that_nobody_can_read_is_no_pin():
    der = FOREIGN.certificate.public_bytes(serialization.Encoding.DER)
    curve = bytes.fromhex("06082a8648ce3d030107")  # prime256v1, made into a curve that there is not
    odd = x509.load_der_x509_certificate(der.replace(curve, curve[:-1] + b"\x7f"))
    assert choose_pinned([odd, OLD.certificate], [pin_of(OLD.certificate)], NOW) == [OLD.certificate]
