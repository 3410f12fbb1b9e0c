"""A connector that looks after its identity, against a relay on loopback that is honest, or hostile."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.serialization import Encoding

from connector_agent.dialer import Dialer
from connector_agent.identity.join import Joiner
from connector_agent.identity.judge import judge_relay
from connector_agent.identity.manager import ManagedIdentity
from connector_agent.identity.renewer import RenewalFailed
from connector_agent.identity.store import IdentityStore
from connector_agent.tunnels import Tunnels
from shared.clock import TrustedClock
from shared.pki import issue
from shared.pki.issue import LEAF_LIFETIME
from shared.pki.join_token import JoinToken
from shared.protocol import MemoryBudget, Stream
from shared.protocol.frames import CERTIFICATE, Frame
from shared.tunnel.gaps import GapWatch
from tests.connector_agent.identity.test_join import FORGERIES, Forgery
from tests.support.relay_double import Ca, RelayDouble, Tunnel, relay_double


class Connector:
    """A managed connector, as the app puts it together."""

    def __init__(self, folder: Path, token: JoinToken | None, clock: TrustedClock | None = None) -> None:
        self.clock = clock or TrustedClock()
        self.store = IdentityStore(folder / "state")

        async def join() -> object:
            assert token is not None
            return await self.joiner.join(token, token.relays)

        self.identity = ManagedIdentity(self.store, self.clock, join=join)  # type: ignore[arg-type]  # Joined
        dialer = Dialer(self.identity.contexts, check_peer=self.identity.check_relay)
        self.joiner = Joiner(dialer, self.store, self.clock)
        self.tunnels = Tunnels(
            [], dialer, self._on_stream, lambda: {"t": "http"},
            count=2, budget=MemoryBudget(), gaps=GapWatch(asyncio.get_running_loop()), keeper=self.identity,
        )  # fmt: skip
        self.identity.bind(self.tunnels)
        self.tunnels.start()

    def _on_stream(self, stream: Stream, head: bytes, body: bytes, end: bool) -> None:
        """A push that never ends."""

    @property
    def serial(self) -> int:
        """Of the certificate in use."""
        assert self.identity.identity is not None
        return self.identity.identity.certificate.serial_number

    async def renew(self) -> None:
        assert self.identity.renewer is not None
        await self.identity.renewer.renew()

    async def close(self) -> None:
        await self.tunnels.close()


@contextlib.asynccontextmanager
async def joined(folder: Path, relay: RelayDouble, clock: TrustedClock | None = None) -> AsyncIterator[Connector]:
    """A connector with two tunnels."""
    connector = Connector(folder, relay.token(), clock)
    try:
        await relay.until(lambda: len(relay.open) == 2)
        yield connector
    finally:
        await connector.close()


def fingerprints(relay: RelayDouble) -> set[bytes | None]:
    return {tunnel.certificate for tunnel in relay.open}


async def test_it_waits_for_a_relay_that_is_not_there_yet(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        token = relay.token()
    async with relay_double(tmp_path, relay.ca, serve=False) as later:
        connector = Connector(tmp_path, token)
        await later.until(lambda: connector.identity.join_error is not None)
        later.port = relay.port
        await later.serve()
        await later.until(lambda: len(later.open) == 2)
        assert connector.identity.join_error is None
        await connector.close()


async def test_what_is_there_survives_a_restart_without_the_token(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        async with joined(tmp_path, relay) as first:
            serial = first.serial
        again = Connector(tmp_path, None)
        await relay.until(lambda: len(relay.open) == 2)
        assert again.serial == serial
        await again.close()


async def test_a_renewal_replaces_key_and_tunnels_new_before_old(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        old, key = connector.serial, connector.store.load_identity()
        before = fingerprints(relay)
        fewest = 2

        def look() -> bool:
            nonlocal fewest
            fewest = min(fewest, len(relay.open))
            return len(relay.open) == 2 and not fingerprints(relay) & before

        await connector.renew()
        await relay.until(look)
        assert fewest == 2, "never fewer tunnels than should be"
        after = connector.store.load_identity()
        assert key is not None
        assert after is not None
        assert after.certificate.serial_number == connector.serial != old
        assert after.key.public_key() != key.key.public_key()
        await relay.until(lambda: sum(one.closed is None for one in relay.tunnels) == 2)
        assert {one.closed[0] for one in relay.tunnels if one.closed} == {"going-away"}


async def test_short_lifetimes_are_renewed_for_ever(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        relay.lifetime = timedelta(seconds=3)
        async with joined(tmp_path, relay) as connector:
            await relay.until(lambda: len(relay.issued) >= 4, 12.0)
            assert connector.identity.identity is not None
            assert connector.identity.identity.certificate.not_valid_after_utc > datetime.now(UTC)
            assert len(relay.open) >= 2


async def test_an_expired_certificate_renews_in_a_renew_only_session_and_comes_back(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        async with joined(tmp_path, relay) as connector:
            old = connector.serial
        first = {tunnel.certificate for tunnel in relay.tunnels}
        relay.renew_only = lambda certificate: certificate in first
        again = Connector(tmp_path, None)
        await relay.until(lambda: len(relay.open) == 2)
        assert again.serial != old
        assert sum(tunnel.is_renew_only for tunnel in relay.tunnels) == 1
        assert again.tunnels.open_count == 2
        await again.close()


async def test_a_relay_that_only_ever_lets_us_renew_has_to_wait(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        relay.renew_only = lambda certificate: True
        connector = Connector(tmp_path, relay.token())
        await relay.until(lambda: len(relay.tunnels) >= 2)
        await asyncio.sleep(0.5)
        assert len(relay.tunnels) == 2, "no third dial within a refusal's pace"
        assert connector.tunnels.open_count == 0
        await connector.close()


async def test_a_hint_renews_and_a_flood_of_hints_renews_once(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        identity = connector.identity.identity
        assert identity is not None
        renewer = connector.identity.renewer
        assert renewer is not None
        far = renewer.due
        for _ in range(1000):
            relay.open[0].link.send_hint(0.0)
        await relay.until(lambda: renewer.due < far)
        assert (renewer.due - datetime.now(UTC)).total_seconds() > 50, "a certificate lives for a minute first"
        assert len(relay.issued) == 1


async def test_a_hint_is_followed_at_once_where_the_certificate_has_lived_for_a_while(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        relay.lifetime = timedelta(hours=1)
        async with joined(tmp_path, relay) as first:
            old = first.serial
        relay.ca.now = datetime.now(UTC)
        clock = TrustedClock(wall=lambda: time.time() + 90)
        relay.wall = lambda: time.time() + 90
        connector = Connector(tmp_path, None, clock)
        await relay.until(lambda: len(relay.open) == 2)
        relay.open[0].link.send_hint(0.0)
        await relay.until(lambda: connector.serial != old)
        await connector.close()


# --- a hostile relay


@pytest.mark.parametrize("forge", FORGERIES, ids=lambda forge: forge.__name__)
async def test_a_certificate_that_is_not_ours_is_refused_and_nothing_changes(tmp_path: Path, forge: Forgery) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        serial, content = connector.serial, connector.store.identity_file.read_bytes()

        def renew(tunnel: Tunnel, request: bytes) -> Mapping[str, str]:
            return {"certificate": forge(relay, request)}

        relay.renew = renew
        with pytest.raises(RenewalFailed, match="bad-certificate"):
            await connector.renew()
        assert connector.serial == serial
        assert connector.store.identity_file.read_bytes() == content
        assert len(relay.open) == 2, "live tunnels stay"
        relay.renew = relay.honest_renewal
        await connector.renew()
        assert connector.serial != serial


async def test_a_certificate_unasked_ends_the_tunnel_and_changes_nothing(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        content = connector.store.identity_file.read_bytes()
        victim = relay.open[0]
        frame = Frame(CERTIFICATE, 0, 0, b'{"certificate":"PEM"}').serialize()
        victim.link._connection.control(frame)
        await relay.until(lambda: victim.closed is not None)
        assert victim.closed is not None
        assert victim.closed[0] == "protocol-error"
        assert connector.store.identity_file.read_bytes() == content


@pytest.mark.parametrize(
    "answer", [{"error": "certificate-revoked", "detail": "x"}, {"error": "nonsense", "detail": ""}]
)
async def test_a_refused_renewal_is_told_and_tried_again(tmp_path: Path, answer: dict[str, str]) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        relay.renew = lambda tunnel, request: answer
        with pytest.raises(RenewalFailed):
            await connector.renew()
        renewer = connector.identity.renewer
        assert renewer is not None
        assert renewer.last_error is not None
        assert sum(renewer.results.values()) == 1


async def test_a_tunnel_that_ends_before_the_answer_is_no_end_of_renewals(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:

        def cut(tunnel: Tunnel, request: bytes) -> None:
            tunnel.link.abort()

        relay.renew = cut
        with pytest.raises(RenewalFailed, match="connection-lost"):
            await connector.renew()
        relay.renew = relay.honest_renewal
        await relay.until(lambda: len(relay.open) >= 1)
        await connector.renew()
        assert len(relay.issued) == 2


# --- roots


async def send_trust(relay: RelayDouble, message: Mapping[str, list[str]]) -> None:
    for tunnel in relay.open:
        tunnel.link.send_trust(message)


async def test_a_new_root_that_an_old_one_vouches_for_is_taken_stored_and_confirmed(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        await relay.until(lambda: all(tunnel.pins == [connector.identity.trust.pins] for tunnel in relay.open))
        before = set(relay.tunnels)
        relay.ca.roll_over()
        await send_trust(relay, relay.ca.trust)
        await relay.until(lambda: connector.identity.roots == relay.ca.certificates)
        assert connector.store.load_roots() == relay.ca.certificates
        await relay.until(lambda: len(relay.open) == 2 and not before & set(relay.open))
        await relay.until(lambda: all(tunnel.pins[-1:] == [connector.identity.trust.pins] for tunnel in relay.open))
        del relay.ca.roots[0]  # the old one is retired
        await relay.serve()
        await connector.renew()
        await send_trust(relay, relay.ca.trust)
        await relay.until(lambda: connector.identity.roots == relay.ca.certificates)


async def test_a_connector_that_slept_through_a_roll_over_finds_the_way(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        async with joined(tmp_path, relay):
            pass
        relay.ca.roll_over()
        await relay.serve()  # its certificate leads to the new root, and by the cross certificate to the old one
        again = Connector(tmp_path, None)
        await relay.until(lambda: len(relay.open) == 2)
        await send_trust(relay, relay.ca.trust)
        await relay.until(lambda: again.identity.roots == relay.ca.certificates)
        await again.close()


async def test_foreign_roots_change_nothing(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        foreign = Ca()
        foreign.roll_over()
        content = connector.store.roots_file.read_bytes()
        before = set(relay.open)
        await send_trust(relay, foreign.trust)
        await relay.until(lambda: connector.identity.trust.refused)
        mixed = {"roots": [*relay.ca.trust["roots"], *foreign.trust["roots"]], "cross": foreign.trust["cross"]}
        await send_trust(relay, mixed)
        await asyncio.sleep(1.1)
        assert connector.store.roots_file.read_bytes() == content
        assert connector.identity.roots == relay.ca.certificates
        assert set(relay.open) == before, "live tunnels stay"


async def test_a_root_that_is_not_read_is_refused(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay) as connector:
        await send_trust(relay, {"roots": ["nonsense"], "cross": []})
        await relay.until(lambda: connector.identity.trust.refused)
        assert connector.identity.roots == relay.ca.certificates


async def test_a_relay_of_another_ca_is_not_dialled_into(tmp_path: Path) -> None:
    async with relay_double(tmp_path) as relay:
        async with joined(tmp_path, relay):
            pass
        other = Ca()
        folder = tmp_path / "other"
        folder.mkdir()
        await relay.serve(other.server_identity(folder))
        count = len(relay.tunnels)
        again = Connector(tmp_path, None)
        await relay.until(lambda: again.tunnels.keepers and again.tunnels.keepers[0].error)
        error = again.tunnels.keepers[0].error
        assert error is not None
        assert error.code == "relay-untrusted"
        assert len(relay.tunnels) == count
        await again.close()


# --- clocks


class Wall:
    """A wall clock that somebody sets."""

    def __init__(self) -> None:
        self.offset = 0.0

    def __call__(self) -> float:
        return time.time() + self.offset


@pytest.mark.parametrize("days", [40, -1])
async def test_a_wall_clock_that_is_set_wrong_moves_nothing(tmp_path: Path, days: int) -> None:
    wall = Wall()
    async with relay_double(tmp_path) as relay, joined(tmp_path, relay, TrustedClock(wall=wall)) as connector:
        content = connector.store.identity_file.read_bytes()
        before = set(relay.open)
        wall.offset = days * 86400.0
        assert connector.clock.is_doubtful
        renewer = connector.identity.renewer
        assert renewer is not None
        renewer.on_open()
        await asyncio.sleep(0.2)
        assert set(relay.open) == before, "live tunnels stay"
        assert connector.store.identity_file.read_bytes() == content, "nothing falls due by a wrong clock"
        before.pop().link.abort()
        await relay.until(lambda: len(relay.open) == 2)
        await connector.renew()
        assert connector.identity.identity is not None
        assert abs(connector.identity.identity.certificate.not_valid_after_utc - datetime.now(UTC) - LEAF_LIFETIME) < (
            timedelta(minutes=1)
        )


@pytest.mark.parametrize(("age", "code"), [(30, "relay-expired"), (-30, "relay-not-yet-valid")])
async def test_an_expired_relay_is_told_with_the_clock_in_mind(tmp_path: Path, age: int, code: str) -> None:
    async with relay_double(tmp_path) as relay:
        async with joined(tmp_path, relay):
            pass
        await relay.serve(relay.ca.server_identity(tmp_path, now=relay.ca.now - timedelta(days=age)))
        again = Connector(tmp_path, None)
        await relay.until(lambda: again.tunnels.keepers and again.tunnels.keepers[0].error)
        error = again.tunnels.keepers[0].error
        assert error is not None
        assert error.code == code
        assert "clock" in error.remedy
        await again.close()


def test_a_doubtful_clock_is_named() -> None:
    ca = Ca()
    key = issue.new_key()
    leaf = issue.issue_server(ca.issuing, ["localhost"], key.public_key(), ca.now)
    der = leaf.public_bytes(Encoding.DER)
    late = ca.now + timedelta(days=30)
    rejected = judge_relay(der, late, clock_error=-86400.0)
    assert rejected is not None
    assert "this host's clock is off by -86400 s" in rejected.detail
    assert judge_relay(der, ca.now, clock_error=0.0) is None
    assert judge_relay(b"nonsense", ca.now, clock_error=0.0) is not None
