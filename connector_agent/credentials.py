"""The connector's identity from files of the operator's own CA. New ones are used only if all of them are good."""

from __future__ import annotations

import hashlib
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from connector_agent.certificates import InUse, in_use, of_bundle
from connector_agent.dialer import Contexts
from shared.control import ControlFault
from shared.pki.tls import load_certificates, tunnel_client_context

if TYPE_CHECKING:
    from connector_agent.identity.manager import ServedTunnels


class Loaded(NamedTuple):
    """What the files held at one time, with a hash of it."""

    contexts: Contexts
    certificates: tuple[InUse, ...]
    digest: bytes


class Credentials:
    """Certificate, key and CA. The first reading raises PkiError; later a bad file leaves the last good ones in use."""

    def __init__(self, certificate: Path, key: Path, ca: Path) -> None:
        self.certificate = certificate
        self.key = key
        self.ca = ca
        self.version = 0
        self._tunnels: ServedTunnels | None = None
        self._loaded = self.read()

    def bind(self, tunnels: ServedTunnels) -> None:
        """These are dialled with this identity."""
        self._tunnels = tunnels

    def contexts(self) -> Contexts:
        """Those in use."""
        return self._loaded.contexts

    def read(self) -> Loaded:
        """The files as they are now; nothing is changed. PkiError where one is broken, or they do not fit together."""
        contexts = Contexts(tunnel_client_context(self.ca, self.certificate, self.key), tunnel_client_context(self.ca))
        own = load_certificates(self.certificate, "certificate")[0]
        certificates = (
            in_use("identity", self.certificate.name, own),
            of_bundle("ca", self.ca.name, self.ca, datetime.now(UTC)),
        )
        hashed = hashlib.blake2b(digest_size=16)
        for path in (self.certificate, self.key, self.ca):
            hashed.update(hashlib.blake2b(path.read_bytes()).digest())
        return Loaded(contexts, certificates, hashed.digest())

    def use(self, loaded: Loaded | None) -> list[str]:
        """Dial with these from now on, and let new tunnels replace those of before; what has changed, if anything."""
        if loaded is None or loaded.digest == self._loaded.digest:
            return []
        self._loaded = loaded
        self.version += 1
        if self._tunnels is not None:
            self._tunnels.refresh()
        return [f"tls: this connector's certificate is valid until {loaded.certificates[0].not_after:%FT%TZ}"]

    def certificates(self) -> list[InUse]:
        """Those in use."""
        return list(self._loaded.certificates)

    def describe(self) -> dict[str, Any]:
        """For `status` and `certs show`."""
        return {"mode": "own-ca", "state": "joined", "id": None, "next_renewal": None, "error": None, "clock": None}

    def now(self) -> datetime:
        """The wall clock's time: OpenSSL goes by it here too."""
        return datetime.now(UTC)

    def counts(self) -> dict[str, int]:
        """Renewals by result: there are none."""
        return {}

    async def rotate(self) -> dict[str, Any]:
        """Not ours to do."""
        raise ControlFault(
            409, "own-ca", "this connector's certificate comes from your own CA (tls in the config)",
            "Put new files in the place of the old ones: they are read as soon as they change.",
        )  # fmt: skip
