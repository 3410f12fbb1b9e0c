"""A process that follows what another one writes takes the relay's new certificate."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from cloud_relay.identity.service import IdentityService
from shared.pki.files import PkiError


async def test_a_certificate_that_cannot_be_read_once_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "relay.pem"
    path.write_text("new")
    results: list[Any] = [PkiError("too many open files"), "context"]

    def context(_now: object) -> Any:
        if isinstance(results[0], PkiError):
            raise results.pop(0)
        return results[0]

    async def follow() -> None: ...

    service = IdentityService.__new__(IdentityService)
    tunnel = SimpleNamespace(tls="old")
    clock = SimpleNamespace(now=lambda: None)
    own = SimpleNamespace(path=path, context=context)
    service._app = cast(Any, SimpleNamespace(
        clock=clock, doors=SimpleNamespace(tunnel=tunnel),
        config=SimpleNamespace(tunnel=SimpleNamespace(tls=None)),
    ))  # fmt: skip
    service._own_seen = None
    service.office = cast(Any, SimpleNamespace(own=own, registrar=SimpleNamespace(follow=follow)))
    with pytest.raises(PkiError):
        await service.follow()
    await service.follow()
    assert tunnel.tls == "context"
