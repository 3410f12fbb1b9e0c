"""The connector's TLS contexts, made again when their files change, so that a renewed certificate needs no restart."""

from __future__ import annotations

from pathlib import Path

from connector_agent.dialer import Contexts
from shared.logs import get_logger
from shared.pki.files import PkiError
from shared.pki.tls import tunnel_client_context

log = get_logger("connector.tunnels")

Stamp = tuple[tuple[int, int, int] | None, ...]


class Credentials:
    """Certificate, key and CA. The first reading raises PkiError; later a bad file leaves the last good ones in use."""

    def __init__(self, certificate: Path, key: Path, ca: Path) -> None:
        self._files = (certificate, key, ca)
        self._stamp = self._look()
        self._contexts = self._read()

    def contexts(self) -> Contexts:
        """Those of the files as they are now, or as they last were good."""
        stamp = self._look()
        if stamp != self._stamp:
            try:
                self._contexts = self._read()
            except PkiError as error:
                log.warning("the connector's new certificate files are not used", detail=str(error))
            else:
                log.info("the connector's certificate files were read again")
            self._stamp = stamp
        return self._contexts

    def _read(self) -> Contexts:
        certificate, key, ca = self._files
        return Contexts(tunnel_client_context(ca, certificate, key), tunnel_client_context(ca))

    def _look(self) -> Stamp:
        return tuple(_stamp(path) for path in self._files)


def _stamp(path: Path) -> tuple[int, int, int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_ino, status.st_mtime_ns, status.st_size
