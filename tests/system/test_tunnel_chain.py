"""Whose CA a client's certificate comes from, by real handshakes: what OpenSSL verified is what admission sees."""

from __future__ import annotations

import ssl

import pytest
from cryptography import x509

from cloud_relay.client_cas import load_cas
from shared.pki import issue
from shared.pki.spiffe import connector_id
from shared.pki.tls import tunnel_client_context, tunnel_server_context
from shared.pki.trust import pin_of
from shared.tunnel.tls import verified_chain
from tests.support.development import Pki, handshake

IDENTITY = connector_id("qanat.test", "acme", "walldorf", "c1")
pytestmark = pytest.mark.system


def test_the_chain_is_the_one_that_was_verified(tmp_path):
    for name in ("ours", "theirs"):
        (tmp_path / name).mkdir()
    ours, theirs = Pki(tmp_path / "ours"), Pki(tmp_path / "theirs")
    pair = ours.relay()
    server = tunnel_server_context(pair.certificate, pair.key, ours.ca, theirs.ca)
    cas = load_cas({"": ours.ca, "theirs": theirs.ca})
    for pki, owner in ((ours, ""), (theirs, "theirs")):
        client = pki.connector()
        end, _ = handshake(server, tunnel_client_context(ours.ca, client.certificate, client.key))
        chain = verified_chain(end)
        assert chain[0] == end.getpeercert(binary_form=True)
        assert len(chain) == 3
        issuers = {pin_of(x509.load_der_x509_certificate(one)) for one in chain[1:]}
        assert {name for name, pins in cas.items() if pins & issuers} == {owner}


def test_no_session_is_resumed(tmp_path):
    """A real OpenSSL client that offers its session again shakes hands in full: it is admitted anew, or not."""
    pki = Pki(tmp_path)
    pair, client = pki.relay(), pki.connector()
    server = tunnel_server_context(pair.certificate, pair.key, pki.ca)
    context = tunnel_client_context(pki.ca, client.certificate, client.key)
    _, first = handshake(server, context)
    session = first.session
    ours, theirs = handshake(server, context, session=session if session is not None and session.has_ticket else None)
    assert session is None or not session.has_ticket
    assert not theirs.session_reused
    assert len(verified_chain(ours)) == 3


def test_a_ca_of_nobodys_ends_in_tls(tmp_path):
    pki = Pki(tmp_path)
    pair = pki.relay()
    foreign = issue.create_issuing(issue.create_root(pki.now), "r9", pki.now)
    key = issue.new_key()
    leaf = issue.issue_connector(foreign, IDENTITY, key.public_key(), pki.now)
    files = pki.write("foreign", leaf, key)
    server = tunnel_server_context(pair.certificate, pair.key, pki.ca)
    with pytest.raises(ssl.SSLError):
        handshake(server, tunnel_client_context(pki.ca, files.certificate, files.key))
