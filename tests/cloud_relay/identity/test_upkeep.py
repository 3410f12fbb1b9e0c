"""What time brings: the relay's own certificates are renewed, a roll-over goes on, whoever should know is warned."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from cryptography import x509

from cloud_relay.expiries import Expiry
from cloud_relay.identity import upkeep
from cloud_relay.identity.ledger import IdentityFault
from cloud_relay.identity.own import OwnCertificate
from cloud_relay.identity.records import Stage
from cloud_relay.identity.rollover import RollOver
from cloud_relay.identity.upkeep import Upkeep
from shared.pki.files import write_private
from tests.cloud_relay.identity.kit import Office


class House:
    """A relay's upkeep, and how often it asked for a new TLS context."""

    def __init__(self, office: Office, folder) -> None:
        self.office = office
        self.names = ["relay.test", "192.0.2.1"]
        self.contexts = 0
        self.own = OwnCertificate(folder, office.registrar)
        self.upkeep = Upkeep(
            office.registrar, RollOver(office.registrar), self.own, lambda: self.names, self._count
        )  # fmt: skip

    def _count(self) -> None:
        self.contexts += 1

    @property
    def leaf(self) -> x509.Certificate:
        return self.own.chain()[0]


@pytest.fixture
async def house(tmp_path):
    office = await Office(tmp_path).open()
    made = House(office, tmp_path)
    await made.upkeep.look()
    return made


async def test_the_first_look_makes_a_certificate_that_openssl_takes(house):
    names = house.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["relay.test"]
    assert names.get_values_for_type(x509.UniformResourceIdentifier) == ["spiffe://qanat.test/relay/r1"]
    assert house.own.context(house.office.now)
    assert house.contexts == 1


async def test_it_is_renewed_at_half_of_its_time_with_a_new_key(house):
    first = house.leaf
    house.office.times.pass_by(timedelta(days=3, hours=11))
    await house.upkeep.look()
    assert house.leaf == first
    house.office.times.pass_by(timedelta(hours=2))
    await house.upkeep.look()
    assert house.leaf.public_key() != first.public_key()
    assert house.contexts == 2


async def test_new_names_and_a_lost_file_are_mended(house):
    house.names = ["other.test"]
    await house.upkeep.look()
    names = house.leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert names.get_values_for_type(x509.DNSName) == ["other.test"]
    house.own.path.write_bytes(b"torn")
    await house.upkeep.look()
    assert house.own.context(house.office.now)


async def test_the_issuing_ca_is_renewed_under_the_same_root(house):
    book = house.office.book
    first, root = book.generation.issuing, book.generation.root
    house.office.times.pass_by(timedelta(days=183))
    await house.upkeep.look()
    assert book.generation.issuing != first
    assert book.generation.root == root
    assert house.own.chain()[1] == book.generation.issuing
    assert not [one for one in house.upkeep.expiries() if one.warning]


async def test_a_root_whose_key_was_taken_away_is_missed_in_time(house):
    house.office.keys.root_path(house.office.book.generation.root).unlink()
    house.office.times.pass_by(timedelta(days=183))
    await house.upkeep.look()
    assert not [one for one in house.upkeep.expiries() if one.warning]
    house.office.times.pass_by(timedelta(days=95))
    await house.upkeep.look()
    (warning,) = [one for one in house.upkeep.expiries() if one.warning]
    assert (warning.kind, "/root-" in warning.warning) == ("issuing", True)


async def test_a_root_that_ends_is_named_half_a_year_before(house):
    house.office.times.pass_by(timedelta(days=3650 - 181))
    await house.upkeep.look()
    assert not [one for one in house.upkeep.expiries() if one.kind == "root" and one.warning]
    house.office.times.pass_by(timedelta(days=2))
    (warning,) = [one for one in house.upkeep.expiries() if one.kind == "root"]
    assert "ca rotate" in warning.warning


async def test_a_roll_over_goes_on_by_itself(house):
    await house.upkeep.roll_over.begin()
    stages = [house.office.book.stage]
    for _ in range(2):
        await house.upkeep.look()
        stages.append(house.office.book.stage)
    assert stages == [Stage.PUBLISHED, Stage.SWITCHED, Stage.STEADY]
    await house.upkeep.look()
    assert house.own.chain()[1] == house.office.book.generation.issuing


async def test_what_fails_is_tried_again(house):
    house.office.store.fail = True
    house.office.times.pass_by(timedelta(days=183))
    await house.upkeep.look()
    assert house.upkeep.failures == 1
    house.office.store.fail = False
    house.upkeep.request()
    await house.upkeep.look()
    assert house.leaf.not_valid_after_utc > house.office.now


async def test_what_is_long_over_is_forgotten(house):
    await house.office.join()
    house.office.times.pass_by(timedelta(days=38))
    await house.upkeep.look()
    assert not house.office.book.certificates
    assert not house.office.book.tokens


async def test_when_the_issuing_ca_has_ended_it_goes_on_looking_and_comes_back_with_the_roots_key(house):
    office = house.office
    path = office.keys.root_path(office.book.generation.root)
    taken_away = path.read_bytes()
    path.unlink()
    office.times.pass_by(timedelta(days=366))
    for _ in range(3):
        house.upkeep.request()
        await house.upkeep.look()
    with pytest.raises(IdentityFault, match="cannot-issue"):
        await office.join()
    write_private(path, taken_away)
    house.upkeep.request()
    await house.upkeep.look()
    assert house.leaf.not_valid_after_utc > office.now
    assert await office.join()


async def test_a_leaf_that_ends_with_its_ca_is_not_made_anew_each_second(house):
    office = house.office
    office.keys.root_path(office.book.generation.root).unlink()
    office.times.pass_by(timedelta(days=364))
    house.upkeep.request()
    await house.upkeep.look()
    made = house.contexts
    office.times.pass_by(timedelta(hours=20))
    for _ in range(5):
        await house.upkeep.look()
    assert house.contexts == made


async def test_keys_that_came_to_nothing_are_removed(house):
    office = house.office
    office.store.fail = True
    office.times.pass_by(timedelta(days=183))
    for _ in range(5):
        house.upkeep.request()
        await house.upkeep.look()
    assert len(list(office.keys.folder.iterdir())) == 2
    office.store.fail = False
    house.upkeep.request()
    await house.upkeep.look()
    assert len(list(office.keys.folder.iterdir())) == 2  # the replaced one is gone too


async def test_with_another_ca_there_is_nothing_to_renew_and_all_to_warn_of(house, tmp_path):
    told: list[bool] = []

    def tell() -> list[Expiry]:
        told.append(True)
        return []

    other = Upkeep(
        house.office.registrar, house.upkeep.roll_over, OwnCertificate(tmp_path / "elsewhere", house.office.registrar),
        list, lambda: None, lambda: False,
    )  # fmt: skip
    other.all_expiries = tell
    await other.look()
    assert told
    assert other.failures == 0
    assert not (tmp_path / "elsewhere").exists()


async def test_what_was_made_when_the_clock_was_ahead_is_made_anew(house):
    office = house.office
    ahead = office.now + timedelta(days=40)
    house.own.make(house.names, ahead)
    assert house.leaf.not_valid_before_utc > office.now
    await house.upkeep.look()
    assert house.leaf.not_valid_before_utc <= office.now


async def test_what_ends_soon_is_told_once_an_hour(house, monkeypatch):
    told: list[str] = []
    monkeypatch.setattr(upkeep.log, "warning", lambda event, **values: told.append(f"{event} {values['name']}"))
    ends = house.office.now + timedelta(days=1)
    house.upkeep.all_expiries = lambda: [
        Expiry("client-ca", "one", ends, "renew it"), Expiry("client-ca", "two", ends, ""),
    ]  # fmt: skip
    now = asyncio.get_running_loop().time()
    monkeypatch.setattr(asyncio.get_running_loop(), "time", lambda: now)
    for _ in range(3):
        await house.upkeep.look()
    assert told == ["a certificate ends soon one"]
    now += upkeep.REMIND_EVERY
    for _ in range(3):
        await house.upkeep.look()
    assert told == ["a certificate ends soon one"] * 2
