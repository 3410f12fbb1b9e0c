"""Fetching a key set from its issuer: over HTTPS, no redirect, bounded in time and size."""

from __future__ import annotations

import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Final

import aiohttp

from cloud_relay.oauth.keyset import MAX_DOCUMENT, RemoteKeys

TIMEOUT: Final = 4.0
"""Seconds for the whole fetch: below the 5 s at which senders give up that wait for it."""


async def fetch_document(url: str, ca: Path | None) -> bytes:
    """What the URL holds. OSError, TimeoutError or ValueError says why it cannot be had."""
    trust = ssl.create_default_context(cafile=None if ca is None else str(ca))
    try:
        async with (
            aiohttp.ClientSession(
                timeout=aiohttp.ClientTimeout(total=TIMEOUT), cookie_jar=aiohttp.DummyCookieJar(), trust_env=True
            ) as session,
            session.get(url, allow_redirects=False, ssl=trust, headers={"Accept": "application/json"}) as answer,
        ):
            if answer.status != 200:
                raise ValueError(f"the issuer answered {answer.status}")
            document = bytearray()
            async for piece in answer.content.iter_any():
                document += piece
                if len(document) > MAX_DOCUMENT:
                    raise ValueError(f"the key set has more than {MAX_DOCUMENT} bytes")
            return bytes(document)
    except aiohttp.ClientError as error:
        cause = getattr(error, "certificate_error", None) or getattr(error, "os_error", None) or error
        raise OSError(str(cause) or type(cause).__name__) from error


class KeyBook:
    """The key sets of all issuers, one for each URL, kept over reloads."""

    def __init__(self, make: Callable[[str, Path | None], RemoteKeys] | None = None) -> None:
        self._make = make or _remote
        self._sources: dict[tuple[str, Path | None], RemoteKeys] = {}

    def source(self, url: str, ca: Path | None) -> RemoteKeys:
        """The keys of `url`, whose server's certificate `ca` vouches for, or else the system's CAs."""
        key = (url, ca)
        source = self._sources.get(key)
        if source is None:
            source = self._sources[key] = self._make(url, ca)
        return source

    def prefetch(self) -> None:
        """Ask for everything that was never had, so that no push has to wait for it."""
        for source in self._sources.values():
            if not source.is_known:
                source.refresh()

    def keep_only(self, wanted: set[tuple[str, Path | None]]) -> None:
        """Forget what the config no longer names."""
        for key in self._sources.keys() - wanted:
            self._sources.pop(key).close()

    def close(self) -> None:
        """Stop all fetches."""
        for source in self._sources.values():
            source.close()


def _remote(url: str, ca: Path | None) -> RemoteKeys:
    return RemoteKeys(url, lambda: fetch_document(url, ca))
