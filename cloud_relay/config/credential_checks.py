"""What must hold between the credentials of a config: each has one owner, and everything that it needs is there."""

from __future__ import annotations

from collections.abc import Iterator

from cryptography import x509

from cloud_relay.config.models import RelayConfig, SenderConfig, TenantConfig
from shared.config import Flaw
from shared.config.problems import Key


def credential_flaws(name: str, tenant: TenantConfig) -> Iterator[Flaw]:
    """What is wrong within one tenant."""
    where: Key = ("tenants", name)
    for index, sender in enumerate(tenant.senders):
        yield from _sender(sender, tenant, (*where, "senders", index))
    yield from _owners(tenant, where)
    yield from _issuers(tenant, where)
    if any(pushes_by_certificate(sender, tenant) for sender in tenant.senders) and tenant.sender_ca is None:
        yield Flaw(where, "senders with a certificate need sender_ca: the CA that their certificates must come from")
    if any(sender.oauth for sender in tenant.senders) and not tenant.token_endpoints:
        yield Flaw(where, "senders with oauth need token_endpoints: the host and path where they get their tokens")


def endpoint_flaws(config: RelayConfig) -> Iterator[Flaw]:
    """Token endpoints that collide with routes, or with each other."""
    routes = [(name, route) for name, tenant in config.tenants.items() for route in tenant.routes]
    owners: dict[tuple[str, str], str] = {}
    for name, tenant in config.tenants.items():
        for index, endpoint in enumerate(tenant.token_endpoints):
            at = ("tenants", name, "token_endpoints", index, "path")
            if owner := owners.get((endpoint.host, endpoint.path)):
                yield Flaw(at, f"{endpoint.host}{endpoint.path} already is the token endpoint of tenant {owner!r}")
            owners.setdefault((endpoint.host, endpoint.path), name)
            for other, route in routes:
                if route.match.host != endpoint.host:
                    continue
                shown = f"route {other}/{route.name} ({route.match.host}{route.match.path})"
                if route.match.path == endpoint.path:
                    yield Flaw(at, f"collides with {shown}; choose another path for the token endpoint")
                elif other != name and route.match.sub_paths and _is_below(endpoint.path, route.match.path):
                    yield Flaw(at, f"lies within {shown} of another tenant; choose a host or path of this tenant's own")


def certificate_flaws(config: RelayConfig) -> Iterator[Flaw]:
    """Client certificates that no listener asks for."""
    for name, tenant in config.tenants.items():
        for index, sender in enumerate(tenant.senders):
            asks = any(ingress.tls is not None and ingress.client_certificates for ingress in config.ingress)
            if pushes_by_certificate(sender, tenant) and not asks:
                yield Flaw(
                    ("tenants", name, "senders", index, "certificate"),
                    "no ingress asks for client certificates; it needs one with tls where client_certificates is not "
                    "false",
                )


def pushes_by_certificate(sender: SenderConfig, tenant: TenantConfig) -> bool:
    """Whether a sender's certificate counts on an HTTP route: TCP routes name a CA of their own."""
    return sender.certificate is not None and any(sender.name in route.senders for route in tenant.routes)


def _sender(sender: SenderConfig, tenant: TenantConfig, where: Key) -> Iterator[Flaw]:
    if not any((sender.basic, sender.bearer, sender.oauth, sender.jwt, sender.certificate)):
        yield Flaw(
            where, f"sender {sender.name!r} has no credential; give it basic, bearer, oauth, jwt or certificate"
        )  # fmt: skip
    for index, known in enumerate(sender.bearer.token_hash if sender.bearer else ()):
        if known.is_slow:
            yield Flaw(
                (*where, "bearer", "token_hash", index),
                "a token is kept as sha256; make a new one with 'cloud-relay secrets new'",
            )
    if sender.jwt is not None and sender.jwt.issuer not in {one.name for one in tenant.issuers}:
        known_names = ", ".join(one.name for one in tenant.issuers) or "none"
        yield Flaw(
            (*where, "jwt", "issuer"), f"this tenant has no issuer {sender.jwt.issuer!r}; it has {known_names}"
        )  # fmt: skip
    if sender.certificate is not None and not (sender.certificate.subject or sender.certificate.san):
        yield Flaw((*where, "certificate"), "pin a subject or a san; any certificate of the CA would do otherwise")


def _owners(tenant: TenantConfig, where: Key) -> Iterator[Flaw]:
    """One user name, client id, token, pin or set of claims has one owner."""
    owners: dict[tuple[str, object], str] = {}
    for index, sender in enumerate(tenant.senders):
        for kind, what, value, at in _claims(sender):
            owner = owners.setdefault((kind, value), sender.name)
            if owner != sender.name:
                yield Flaw((*where, "senders", index, *at), f"the {what} already belongs to sender {owner!r}")


def _claims(sender: SenderConfig) -> Iterator[tuple[str, str, object, Key]]:
    """What the sender is known by: (kind, its name for people, the value, where it stands)."""
    if sender.basic:
        yield "user", "user name", sender.basic.username, ("basic", "username")
    if sender.oauth:
        yield "client", "client id", sender.oauth.client_id, ("oauth", "client_id")
    for index, known in enumerate(sender.bearer.token_hash if sender.bearer else ()):
        yield "token", "token", known.digest, ("bearer", "token_hash", index)
    if sender.jwt:
        yield "jwt", "issuer with these claims", (sender.jwt.issuer, frozenset(sender.jwt.claims.items())), ("jwt",)
    if sender.certificate:
        for index, subject in enumerate(sender.certificate.subject):
            yield "pin", "subject", x509.Name.from_rfc4514_string(subject), ("certificate", "subject", index)
        for index, san in enumerate(sender.certificate.san):
            yield "pin", "alternative name", san, ("certificate", "san", index)


def _issuers(tenant: TenantConfig, where: Key) -> Iterator[Flaw]:
    names: set[str] = set()
    values: set[str] = set()
    for index, issuer in enumerate(tenant.issuers):
        at = (*where, "issuers", index)
        if issuer.name in names:
            yield Flaw((*at, "name"), f"there is already an issuer called {issuer.name!r} in this tenant")
        if issuer.issuer in values:
            yield Flaw((*at, "issuer"), "there is already an issuer with this iss in this tenant")
        names.add(issuer.name)
        values.add(issuer.issuer)
        if (issuer.jwks_url is None) == (issuer.jwks_file is None):
            yield Flaw(at, "an issuer's keys come from jwks_url or from jwks_file: give one of them")
        if issuer.jwks_ca is not None and issuer.jwks_url is None:
            yield Flaw((*at, "jwks_ca"), "jwks_ca is for jwks_url")


def _is_below(path: str, prefix: str) -> bool:
    return prefix == "/" or path.startswith(f"{prefix.rstrip('/')}/")
