"""TLS at both ends of a TCP route: a blocking client of the standard library, and certificates for it."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

from shared.pki import issue
from shared.pki.tls import KeyPair
from tests.support.development import Pki
from tests.support.ends import EdgeEnd, edge_server


@asynccontextmanager
async def listener() -> AsyncIterator[tuple[int, list[EdgeEnd]]]:
    """A plain target."""
    ends: list[EdgeEnd] = []
    server = await edge_server(ends.append)
    yield server.sockets[0].getsockname()[1], ends
    for end in ends:
        end.reset()
    server.close()


class TlsClient:
    """A TLS client of the standard library, in threads: it cuts and reads alerts as real ones do."""

    def __init__(self, port: int, name: str | None, ca: Path, pair: KeyPair | None = None) -> None:
        self.port = port
        self.name = name
        self.context = ssl.create_default_context(cafile=str(ca))
        self.context.check_hostname = False
        if name is None:
            self.context.verify_mode = ssl.CERT_NONE
        if pair is not None:
            self.context.load_cert_chain(pair.certificate, pair.key)
        self.sock: ssl.SSLSocket | None = None

    async def connect(self) -> TlsClient:
        def blocking() -> ssl.SSLSocket:
            raw = socket.create_connection(("127.0.0.1", self.port), timeout=8)
            try:
                return self.context.wrap_socket(raw, server_hostname=self.name)
            except BaseException:
                raw.close()
                raise

        self.sock = await asyncio.to_thread(blocking)
        return self

    async def read_nothing(self) -> None:
        """Connect and read; in TLS 1.3 a client that is not welcome learns it only now."""
        await self.connect()
        assert self.sock is not None
        with self.sock:
            await self.call(read_all)

    async def call(self, what: Callable[[ssl.SSLSocket], Any]) -> Any:
        assert self.sock is not None
        return await asyncio.to_thread(what, self.sock)


def read_all(sock: ssl.SSLSocket) -> bytes:
    """Until close_notify; SSLEOFError or ConnectionResetError where there is none."""
    sock.suppress_ragged_eofs = False  # type: ignore[attr-defined]  # the stubs do not know it
    data = b""
    while more := sock.recv(65536):
        data += more
    return data


def files(pair: KeyPair) -> dict[str, str]:
    return {"certificate": str(pair.certificate), "key": str(pair.key)}


def client_pair(pki: Pki, name: str, until: datetime | None = None) -> KeyPair:
    """A certificate that a TLS client may show, for some days, or valid until `until`."""
    key = issue.new_key()
    names = issue.server_names([name])
    begin = pki.now if until is None else until - issue.LEAF_LIFETIME
    certificate = issue._leaf(
        pki.issuing, "sender", names, (issue._CLIENT,), key.public_key(), begin, issue.LEAF_LIFETIME
    )  # fmt: skip
    return pki.write(f"client-{name}", certificate, key)
