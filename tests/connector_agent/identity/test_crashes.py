"""The process dies before or after a write: what is there afterwards is whole, and the way goes on from it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from connector_agent.identity.store import IDENTITY, RELAYS, RENEWAL_KEY, ROOTS, IdentityStore
from shared.pki.files import write_private
from shared.pki.requests import read_request
from tests.connector_agent.identity.test_join import join
from tests.connector_agent.identity.test_managed import Connector
from tests.support.relay_double import relay_double


class Died(BaseException):
    """As `kill -9`, as far as the files can tell: nothing of ours runs after it."""


class Mortal:
    """Writes files, and dies at the write of `name`, before or after it."""

    def __init__(self, name: str, *, after: bool) -> None:
        self.name = name
        self.after = after

    def __call__(self, path: Path, data: bytes) -> None:
        if path.name == self.name and not self.after:
            raise Died
        write_private(path, data)
        if path.name == self.name:
            raise Died


JOIN_WRITES = ["join-t0k3n.key", ROOTS, RELAYS, IDENTITY]
RENEWAL_WRITES = [RENEWAL_KEY, IDENTITY]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", JOIN_WRITES)
async def test_a_join_that_died_goes_on_with_the_same_key(tmp_path: Path, name: str, after: bool) -> None:
    async with relay_double(tmp_path) as relay:
        store = IdentityStore(tmp_path / "state", write=Mortal(name, after=after))
        with pytest.raises(Died):
            await in_a_process(lambda: join(tmp_path, relay.token(), store=store))
        again = IdentityStore(tmp_path / "state")
        if again.load_identity() is None:
            await join(tmp_path, relay.token())
        identity = again.load_identity()
        assert identity is not None
        assert identity.id == relay.identity
        assert again.load_roots() == relay.ca.certificates
        assert again.load_relays()
        asked = {read_request(one["request"].encode()).key_id for one in relay.questions if "request" in one}
        assert len(asked) == 1, "the relay never sees a second key for one token"


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize("name", RENEWAL_WRITES)
async def test_a_renewal_that_died_leaves_one_whole_identity(tmp_path: Path, name: str, after: bool) -> None:
    async with relay_double(tmp_path) as relay:
        await join(tmp_path, relay.token())
        before = IdentityStore(tmp_path / "state").load_identity()
        connector = Connector(tmp_path, None)
        await relay.until(lambda: len(relay.open) == 2)
        connector.store._write_file = Mortal(name, after=after)
        with pytest.raises(Died):
            await in_a_process(connector.renew)
        await connector.close()
        found = IdentityStore(tmp_path / "state").load_identity()
        assert before is not None
        assert found is not None
        is_new = found.certificate.serial_number != before.certificate.serial_number
        assert is_new == (name == IDENTITY and after)
        count = len(relay.tunnels)
        again = Connector(tmp_path, None)
        await relay.until(lambda: len(relay.tunnels) >= count + 2)
        await again.renew()
        await again.close()


async def in_a_process(work: Callable[[], Coroutine[Any, Any, object]]) -> None:
    """Run `work` so that a Died ends it and not the loop: it travels as the value of a future."""
    end: asyncio.Future[BaseException | None] = asyncio.get_running_loop().create_future()

    async def live() -> None:
        try:
            await work()
        except Died as died:
            end.set_result(died)
        else:
            end.set_result(None)

    task = asyncio.create_task(live())  # noqa: TID251  # a bare task: what ends it is what is tested
    died = await end
    await task
    if died is not None:
        raise died


def test_the_lists_of_writes_are_whole() -> None:
    """Whoever adds a file to the state adds it here."""
    assert {IDENTITY, ROOTS, RELAYS, RENEWAL_KEY, "join-t0k3n.key"} == {*JOIN_WRITES, *RENEWAL_WRITES}
