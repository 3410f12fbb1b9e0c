"""A small PKI for tests: made in memory by the product's own functions, written to files where a test needs files."""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from shared.pki import files, issue
from shared.pki.spiffe import connector_id, relay_id
from shared.pki.tls import KeyPair

TRUST_DOMAIN = "qanat.test"


@dataclass
class Pki:
    """A root and an issuing CA, and leaves written as files into `folder`. Valid around `now`."""

    folder: Path
    now: datetime = field(default_factory=lambda: datetime.now(UTC))

    def __post_init__(self) -> None:
        self.root = issue.create_root(self.now)
        self.issuing = issue.create_issuing(self.root, "r1", self.now)
        self.ca = self.folder / "ca.pem"
        files.write_public(self.ca, issue.certificate_pem(self.root.certificate))

    def write(self, name: str, certificate: x509.Certificate, key: issue.PrivateKey) -> KeyPair:
        """The leaf with its chain, and its key, as files."""
        pair = KeyPair(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        files.write_public(pair.certificate, issue.certificate_pem(certificate, *self.issuing.chain))
        files.write_private(pair.key, issue.key_pem(key))
        return pair

    def relay(self, *names: str, name: str = "r1") -> KeyPair:
        """A relay's certificate for `names` (default: localhost and 127.0.0.1)."""
        key = issue.new_key()
        identity = relay_id(TRUST_DOMAIN, name)
        sans = names or ("localhost", "127.0.0.1")
        return self.write(
            f"relay-{name}", issue.issue_relay(self.issuing, identity, sans, key.public_key(), self.now), key
        )

    def connector(
        self,
        name: str = "c1",
        tenant: str = "acme",
        location: str = "walldorf",
        now: datetime | None = None,
        lifetime: timedelta = issue.LEAF_LIFETIME,
    ) -> KeyPair:
        """A connector's certificate; `now` and `lifetime` make one that has expired."""
        key = issue.new_key()
        identity = connector_id(TRUST_DOMAIN, tenant, location, name)
        certificate = issue.issue_connector(self.issuing, identity, key.public_key(), now or self.now, lifetime)
        return self.write(f"connector-{name}", certificate, key)

    def server(self, *names: str, file: str = "server") -> KeyPair:
        """An ingress' or a target's certificate."""
        key = issue.new_key()
        return self.write(file, issue.issue_server(self.issuing, names, key.public_key(), self.now), key)


def handshake(
    server: ssl.SSLContext,
    client: ssl.SSLContext,
    host: str | None = "localhost",
    session: ssl.SSLSession | None = None,
) -> tuple[ssl.SSLObject, ssl.SSLObject]:
    """The server's and the client's end after a handshake in memory and a byte each way; raises what either raises."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    ours = server.wrap_bio(to_server, to_client, server_side=True)
    theirs = client.wrap_bio(to_client, to_server, server_hostname=host, session=session)
    for _ in range(4):
        for end in (theirs, ours):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                pass
    theirs.write(b"?")
    assert ours.read(1) == b"?"
    # In TLS 1.3 the client learns only now that its certificate was refused, and sees tickets.
    ours.write(b"!")
    assert theirs.read(1) == b"!"
    return ours, theirs
