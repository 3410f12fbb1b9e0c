"""Two tenants never meet: every mixture of Host, SNI and credential, under load, against a ledger of who got what.

Both tenants call everything alike: location, target, sender, user name. What differs is only what may count: the host
of the route, the secrets, and the CA. A model says for each push where it may arrive; each target's record is held
against it, push by push.
"""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import re
import ssl
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlencode

import pytest

from shared.pki import files, issue
from shared.pki.spiffe import connector_id
from shared.secrets import hash_secret, new_secret
from tests.support.development import Pki
from tests.system.kit import LOCATION, TARGET, TRUST_DOMAIN, Site
from tests.system.programs import until
from tests.system.targets import open_target
from tests.system.test_refused_connectors import NOW, issuing_authority

pytestmark = [pytest.mark.system, pytest.mark.timeout(120)]

TENANTS = ("acme", "globex")
AT_ONCE = 40


def host_of(tenant: str) -> str:
    return f"{tenant}.push.test"


class Credential(NamedTuple):
    """`owner` is whose it is by `Authorization`, `certified` by its certificate; "" for nobody."""

    label: str
    owner: str = ""
    certified: str = ""
    authorization: tuple[str, ...] = ()
    files: tuple[Path, Path] | None = None


class Tenant:
    """One tenant's secrets and CA, and its part of the relay's config."""

    def __init__(self, name: str, folder: Path) -> None:
        self.name = name
        folder.mkdir()
        self.pki = Pki(folder)
        self.password, self.token, self.secret = new_secret(), new_secret(), new_secret()
        self.access_token = ""

    @property
    def config(self) -> dict[str, Any]:
        return {
            "locations": [LOCATION],
            "sender_ca": str(self.pki.ca),
            "token_endpoints": [{"host": host_of(self.name)}],
            "limits": {"in_flight": 16},
            "senders": [
                {
                    "name": "s4",
                    "basic": {"username": "s4", "password_hash": hash_secret(self.password)},
                    "bearer": {"token_hash": hash_secret(self.token)},
                    "oauth": {"client_id": "s4", "client_secret_hash": hash_secret(self.secret)},
                    "certificate": {"san": "uri:" + str(connector_id(TRUST_DOMAIN, "any", "any", "s4"))},
                }
            ],
            "routes": [
                {
                    "name": "all",
                    "match": {"host": host_of(self.name), "path": "/"},
                    "senders": ["s4"],
                    "to": {"location": LOCATION, "target": TARGET},
                }
            ],
        }

    def credentials(self) -> list[Credential]:
        basic = base64.b64encode(f"s4:{self.password}".encode()).decode()
        pair = self.pki.connector("s4", tenant="any", location="any")
        certificate = (pair.certificate, pair.key)
        name = self.name
        return [
            Credential(f"basic-{name}", name, "", (f"Basic {basic}",)),
            Credential(f"bearer-{name}", name, "", (f"Bearer {self.token}",)),
            Credential(f"oauth-{name}", name, "", (f"Bearer {self.access_token}",)),
            Credential(f"certificate-{name}", "", name, (), certificate),
        ]


class Push(NamedTuple):
    """One try. `head` are the lines that say where it goes."""

    id: str
    sni: str
    host: str
    head: tuple[str, ...]
    credential: Credential
    tricks: tuple[str, ...] = ()

    @property
    def arrives_at(self) -> str:
        """The model: the tenant at whose target it may arrive, "" for nowhere."""
        named = self.host.lower().removesuffix(":443")
        tenant = next((one for one in TENANTS if host_of(one) == named), "")
        who = self.credential
        if not tenant or len(self.head) > 1 or len(who.authorization) > 1:
            return ""
        if who.certified == tenant:
            return tenant if self.sni == named else ""
        return tenant if who.owner == tenant else ""


def all_pushes(tenants: list[Tenant]) -> list[Push]:
    acme, globex = tenants
    single = [*acme.credentials(), *globex.credentials()]
    by_label = {one.label: one for one in single}
    for_acme, for_globex = by_label["bearer-acme"], by_label["bearer-globex"]
    mixed = [
        Credential("nobody"),
        for_acme._replace(certified="globex", files=by_label["certificate-globex"].files),
        for_globex._replace(certified="acme", files=by_label["certificate-acme"].files),
        Credential("both", "", "", for_acme.authorization + for_globex.authorization),
    ]
    hosts = [host_of("acme"), host_of("globex"), "ACME.push.test:443", "other.test"]
    names = [host_of("acme"), host_of("globex"), "other.test"]
    tricks = [(), ("X-Forwarded-Host: globex.push.test", "X-Original-Host: globex.push.test", "X-Scope-OrgID: globex")]
    pushes = [
        Push(f"{number}", sni, host, (f"Host: {host}",), credential, trick)
        for number, (sni, host, credential, trick) in enumerate(
            itertools.product(names, hosts, [*single, *mixed], tricks)
        )
    ]
    two_hosts = (f"Host: {host_of('acme')}", f"Host: {host_of('globex')}")
    pushes += [
        Push(f"two-{number}", sni, host_of("acme"), head, credential)
        for number, (sni, head, credential) in enumerate(itertools.product(names, [two_hosts, two_hosts[::-1]], single))
    ]
    return pushes


async def ask(port: int, sni: str, raw: bytes, certificate: tuple[Path, Path] | None = None) -> tuple[int, bytes]:
    """Status and body of one request over a connection of its own."""
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # without the system's CAs, which take their time
    trust.check_hostname = False
    trust.verify_mode = ssl.CERT_NONE
    if certificate is not None:
        trust.load_cert_chain(*certificate)
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust, server_hostname=sni)
    try:
        writer.write(raw)
        head = await reader.readuntil(b"\r\n\r\n")
        length = next(int(line[15:]) for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return int(head.split(b" ", 2)[1]), await reader.readexactly(length)
    finally:
        writer.close()


async def fetch_token(site: Site, tenant: Tenant, secret: str) -> tuple[int, dict[str, Any]]:
    form = urlencode({"grant_type": "client_credentials", "client_id": "s4", "client_secret": secret})
    host = host_of(tenant.name)
    head = f"POST /oauth/token HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    head += f"Content-Length: {len(form)}\r\nConnection: close\r\n\r\n"
    status, body = await ask(site.ports["tls"], host, (head + form).encode())
    return status, json.loads(body)


def add_connector(site: Site, tenant: str, url: str) -> str:
    """A connector of this tenant, with a target of its own behind the common name."""
    authority, key = issuing_authority(site.pki), issue.new_key()
    identity = connector_id(TRUST_DOMAIN, tenant, LOCATION, "c1")
    leaf = issue.issue_connector(authority, identity, key.public_key(), NOW)
    base = site.folder / f"{tenant}-leaf"
    files.write_public(base.with_suffix(".pem"), issue.certificate_pem(leaf, *authority.chain))
    files.write_private(base.with_suffix(".key"), issue.key_pem(key))
    config = site.connector_config(tenant)
    config["tls"] |= {"certificate": f"{base}.pem", "key": f"{base}.key"}
    allow = [{"methods": ["POST"], "path": "/", "sub_paths": True}]
    config["targets"] = [{"name": TARGET, "url": url, "allow": allow}]
    return tenant


async def test_two_tenants_never_meet(site):
    tenants = [Tenant(name, site.folder / f"{name}-pki") for name in TENANTS]
    site.relay_config["tenants"] = {one.name: one.config for one in tenants}
    async with open_target() as acme, open_target() as globex:
        targets = dict(zip(TENANTS, (acme, globex), strict=True))
        await site.start_relay()
        for name, target in targets.items():
            await site.start_connector(add_connector(site, name, target.url))
        for one, stranger in zip(tenants, tenants[::-1], strict=True):
            status, answer = await fetch_token(site, one, one.secret)
            assert status == 200, answer
            one.access_token = answer["access_token"]
            assert (await fetch_token(site, one, stranger.secret))[0] == 401

        pushes = all_pushes(tenants)
        statuses = await push_all(site, pushes)
        assert all(target.received for target in targets.values())
        for name, target in targets.items():
            arrived = [got.id for got in target.received]
            assert len(arrived) == len(set(arrived)), "nothing arrives twice"
            expected = {push.id for push in pushes if push.arrives_at == name}
            assert set(arrived) == expected
            assert {got.body for got in target.received} <= {push.id.encode() for push in pushes}
            assert not any("globex" in got.headers.get("x-scope-orgid", "") for got in target.received)
        for push in pushes:
            assert (statuses[push.id] == 200) == bool(push.arrives_at), push
            assert push.arrives_at or statuses[push.id] in (400, 401, 403, 421), push
        await check_logs(site, pushes)


async def push_all(site: Site, pushes: list[Push]) -> dict[str, int]:
    """All of them, AT_ONCE at a time, over connections of their own."""
    room = asyncio.Semaphore(AT_ONCE)
    statuses: dict[str, int] = {}

    async def one(push: Push) -> None:
        lines = [f"POST /push?id={push.id} HTTP/1.1", *push.head, *push.tricks, f"Content-Length: {len(push.id)}"]
        lines += [f"Authorization: {value}" for value in push.credential.authorization]
        raw = "\r\n".join([*lines, "Connection: close", "", push.id]).encode()
        async with room:
            statuses[push.id], _ = await ask(site.ports["tls"], push.sni, raw, push.credential.files)

    async with asyncio.TaskGroup() as group:
        for push in pushes:
            group.create_task(one(push))
    return statuses


async def check_logs(site: Site, pushes: list[Push]) -> None:
    """The relay's lines and metrics name the tenant of the host, and count for it alone."""
    wanted = {tenant: sum(push.arrives_at == tenant for push in pushes) for tenant in TENANTS}
    await until(lambda: delivered(site) == wanted, "the access lines")
    async with site.http.get(f"http://127.0.0.1:{site.ports['observe']}/metrics") as answer:
        metrics = await answer.text()
    found = re.findall(r"^qanat_relay_sender_delivered_total{(.*)} ([0-9.]+)$", metrics, re.MULTILINE)
    assert {tenant: float(n) for labels, n in found for tenant in TENANTS if f'tenant="{tenant}"' in labels} == wanted


def delivered(site: Site) -> dict[str, int]:
    """Pushes with a 200 by tenant, as the access log has it."""
    lines = [one for one in site.relay.access_lines if one["status"] == 200 and one.get("route") == "all"]
    return {tenant: sum(one["tenant"] == tenant for one in lines) for tenant in TENANTS}
