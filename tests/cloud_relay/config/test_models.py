"""The relay's config: what is accepted, and what each mistake is told."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cloud_relay.config import RelayConfig, find_warnings
from shared.config import ConfigError, json_schema, read_config
from shared.config.problems import dotted

Edit = Callable[[dict[str, Any]], object]


CLIENT = {"client_id": "c", "client_secret_hash": "sha256:" + "0" * 64}


def issuer(**more: Any) -> dict[str, Any]:
    made = {"name": "btp", "issuer": "https://i.example.com", "audience": "q", "jwks_url": "https://i.example.com/keys"}
    return {key: value for key, value in (made | more).items() if value is not None}


def problems_of(path: Path) -> list[str]:
    """Every problem as `key: message`."""
    with pytest.raises(ConfigError) as caught:
        read_config(path, RelayConfig)
    assert all(problem.path == path and problem.line for problem in caught.value.problems)
    return [f"{problem.key}: {problem.message}" for problem in caught.value.problems]


def test_a_good_config(relay_document: dict[str, Any], write_config: Callable[..., Path]) -> None:
    path = write_config(relay_document)
    loaded = read_config(path, RelayConfig)
    config = loaded.config
    assert config.state_dir == path.parent / "state"
    route = config.tenants["acme"].routes[0]
    assert (route.limits.body, route.limits.rate, route.limits.in_flight) == (1 << 20, 10.0, 4)
    assert (route.hold, route.timeout, route.quota_status, route.match.sub_paths) == (3.0, 30.0, 429, True)
    assert len(config.tenants["acme"].senders[1].bearer.token_hash) == 2  # type: ignore[union-attr]  # it has one
    assert find_warnings(config) == []
    assert path.parent / "relay.key" in loaded.files


def test_no_hash_is_shown(relay_document: dict[str, Any], write_config: Callable[..., Path]) -> None:
    config = read_config(write_config(relay_document), RelayConfig).config
    digest = relay_document["tenants"]["acme"]["senders"][0]["basic"]["password_hash"].removeprefix("sha256:")
    assert digest not in repr(config)
    assert digest not in str(config)


def acme(document: dict[str, Any]) -> Any:
    return document["tenants"]["acme"]


def route(document: dict[str, Any], index: int = 0) -> Any:
    return acme(document)["routes"][index]


CASES: dict[str, tuple[Edit, str]] = {
    "unknown key": (
        lambda d: route(d).update(tieout="5s"),
        "tenants.acme.routes[0].tieout: this key is not known; did you mean 'timeout'?",
    ),
    "missing key": (lambda d: d.pop("trust_domain"), "trust_domain: this key is missing"),
    "wrong type": (lambda d: d.update(ingress="x"), "ingress: must be a list"),
    "no ingress": (
        lambda d: d.update(ingress=[]),
        "ingress: a relay needs at least one listener for senders",
    ),
    "missing file": (
        lambda d: d["tunnel"]["tls"].update(key="nowhere.key"),
        "tunnel.tls.key: {dir}/nowhere.key cannot be read: No such file or directory",
    ),
    "missing certificate": (
        lambda d: d["ingress"][0].update(tls={"certificate": "no.pem", "key": "relay.key"}),
        "ingress[0].tls.certificate: {dir}/no.pem cannot be read: No such file or directory",
    ),
    "a password in place of its hash": (
        lambda d: acme(d)["senders"][0]["basic"].update(password_hash="hunter2"),
        (
            "tenants.acme.senders[0].basic.password_hash: this is no hash of a secret, perhaps the secret itself; "
            "write what 'cloud-relay secrets hash' prints: sha256:… or scrypt:…"
        ),
    ),
    "unknown sender": (
        lambda d: route(d).update(senders=["s44"]),
        "tenants.acme.routes[0].senders[0]: tenant 'acme' has no sender 's44'; did you mean 's4'?",
    ),
    "another tenant's location": (
        lambda d: d["tenants"]["globex"]["routes"][0]["to"].update(location="newtown"),
        "tenants.globex.routes[0].to.location: tenant 'globex' has no location 'newtown'; it has walldorf",
    ),
    "a route for nobody": (
        lambda d: route(d).update(senders=[]),
        "tenants.acme.routes[0].senders: a route that nobody may use is an error; name its senders",
    ),
    "a route that says nothing of senders": (
        lambda d: route(d).pop("senders"),
        "tenants.acme.routes[0].senders: this key is missing",
    ),
    "an upgrade to something else": (
        lambda d: route(d).update(upgrade=["h2c"]),
        "tenants.acme.routes[0].upgrade[0]: should be 'websocket'",
    ),
    "a certificate without a CA": (
        lambda d: acme(d)["senders"][1].update(certificate={"subject": "CN=x"}),
        "tenants.acme: senders with a certificate need sender_ca: the CA that their certificates must come from",
    ),
    "a certificate without a listener that asks": (
        lambda d: (acme(d)["senders"][1].update(certificate={"san": "dns:x"}), acme(d).update(sender_ca="ca.pem")),
        (
            "tenants.acme.senders[1].certificate: no ingress asks for client certificates; it needs one with tls where "
            "client_certificates is not false"
        ),
    ),
    "any certificate": (
        lambda d: acme(d)["senders"][1].update(certificate={}),
        "tenants.acme.senders[1].certificate: pin a subject or a san; any certificate of the CA would do otherwise",
    ),
    "no subject": (
        lambda d: acme(d)["senders"][1].update(certificate={"subject": "push.example.com"}),
        (
            "tenants.acme.senders[1].certificate.subject: this is no subject; "
            'write it as "CN=push,O=Example,C=DE" (RFC 4514)'
        ),
    ),
    "oauth without an endpoint": (
        lambda d: acme(d)["senders"][1].update(oauth=CLIENT),
        "tenants.acme: senders with oauth need token_endpoints: the host and path where they get their tokens",
    ),
    "one client id for two": (
        lambda d: [one.update(oauth=CLIENT) for one in acme(d)["senders"]],
        "tenants.acme.senders[1].oauth.client_id: the client id already belongs to sender 's4'",
    ),
    "a token endpoint that collides with a route": (
        lambda d: acme(d).update(token_endpoints=[{"host": "push.example.com", "path": "/write"}]),
        (
            "tenants.acme.token_endpoints[0].path: collides with route acme/exact (push.example.com/write); "
            "choose another path for the token endpoint"
        ),
    ),
    "a token endpoint within another tenant's route": (
        lambda d: acme(d).update(token_endpoints=[{"host": "globex.example.com"}]),
        (
            "tenants.acme.token_endpoints[0]: lies within route globex/all (globex.example.com/) of another tenant; "
            "choose a host or path of this tenant's own"
        ),
    ),
    "one token endpoint for two": (
        lambda d: [t.update(token_endpoints=[{"host": "auth.example.com"}]) for t in d["tenants"].values()],
        (
            "tenants.globex.token_endpoints[0]: auth.example.com/oauth/token already is the token endpoint of "
            "tenant 'acme'"
        ),
    ),
    "an unknown issuer": (
        lambda d: acme(d)["senders"][1].update(jwt={"issuer": "btp", "claims": {"sub": "x"}}),
        "tenants.acme.senders[1].jwt.issuer: this tenant has no issuer 'btp'; it has none",
    ),
    "any token of an issuer": (
        lambda d: acme(d)["senders"][1].update(jwt={"issuer": "btp", "claims": {}}),
        "tenants.acme.senders[1].jwt.claims: without a claim every token of the issuer would be this sender's",
    ),
    "an issuer without keys": (
        lambda d: acme(d).update(issuers=[issuer(jwks_url=None)]),
        "tenants.acme.issuers[0]: an issuer's keys come from jwks_url or from jwks_file: give one of them",
    ),
    "an issuer by plain HTTP": (
        lambda d: acme(d).update(issuers=[issuer(jwks_url="http://issuer.example.com/keys")]),
        (
            "tenants.acme.issuers[0].jwks_url: whoever can change the keys on their way can push; "
            "write https://issuer.example.com/path, without user, query and fragment"
        ),
    ),
    "a symmetric algorithm": (
        lambda d: acme(d).update(issuers=[issuer(algorithms=["HS256"])]),
        (
            "tenants.acme.issuers[0].algorithms[0]: should be 'RS256', 'RS384', 'RS512', 'PS256', 'PS384', 'PS512', "
            "'ES256', 'ES384', 'ES512' or 'EdDSA'"
        ),
    ),
    "an issuer for every audience": (
        lambda d: acme(d).update(issuers=[issuer(audience=[])]),
        "tenants.acme.issuers[0].audience: name the audience that the issuer writes for this relay",
    ),
    "two routes that collide": (
        lambda d: route(d, 1)["match"].update(path="/sap/frun"),
        "tenants.acme.routes[1].match.path: push.example.com/sap/frun already belongs to route acme/frun",
    ),
    "two tenants that collide": (
        lambda d: d["tenants"]["globex"]["routes"][0].update(match={"host": "PUSH.example.com", "path": "/sap/frun"}),
        "tenants.globex.routes[0].match.path: push.example.com/sap/frun already belongs to route acme/frun",
    ),
    "two routes of one name": (
        lambda d: route(d, 1).update(name="frun"),
        "tenants.acme.routes[1].name: there is already a route called 'frun' in this tenant",
    ),
    "two senders of one name": (
        lambda d: acme(d)["senders"][1].update(name="s4"),
        "tenants.acme.senders[1].name: there is already a sender called 's4' in this tenant",
    ),
    "one user name for two": (
        lambda d: acme(d)["senders"][1].update(basic={"username": "s4", "password_hash": "sha256:" + "0" * 64}),
        "tenants.acme.senders[1].basic.username: the user name already belongs to sender 's4'",
    ),
    "one token for two": (
        lambda d: acme(d)["senders"][0].update(bearer=acme(d)["senders"][1]["bearer"]),
        "tenants.acme.senders[1].bearer.token_hash[0]: the token already belongs to sender 's4'",
    ),
    "a sender without a credential": (
        lambda d: acme(d)["senders"][1].pop("bearer"),
        "tenants.acme.senders[1]: sender 'ibp' has no credential; give it basic, bearer, oauth, jwt or certificate",
    ),
    "a slow hash for a token": (
        lambda d: acme(d)["senders"][1]["bearer"].update(token_hash="scrypt:16384:8:5:" + "A" * 22 + ":" + "A" * 43),
        (
            "tenants.acme.senders[1].bearer.token_hash: a token is kept as sha256; "
            "make a new one with 'cloud-relay secrets new'"
        ),
    ),
    "listeners that collide": (
        lambda d: (d["tunnel"].update(listen=":8443"), d["ingress"][0].update(listen="127.0.0.1:8443")),
        "ingress[0].listen: 127.0.0.1:8443 collides with tunnel.listen, which listens on :8443",
    ),
    "a prefix that ends in a slash": (
        lambda d: route(d)["match"].update(path="/sap/frun/"),
        (
            "tenants.acme.routes[0].match.path: drop the '/' at the end: the path and all below it match without it; "
            "or say sub_paths: false for exactly this path"
        ),
    ),
    "a wildcard": (
        lambda d: route(d)["match"].update(host="*.example.com"),
        (
            "tenants.acme.routes[0].match.host: not a host name; write it without scheme, port and wildcard: "
            "push.example.com"
        ),
    ),
    "an encoded path": (
        lambda d: route(d)["match"].update(path="/a%2fb"),
        (
            "tenants.acme.routes[0].match.path: not a path; "
            "it starts with '/' and holds no blanks, '%', ';', '?', '#', '*' or '\\'"
        ),
    ),
    "dot segments": (
        lambda d: route(d)["match"].update(path="/a/../b"),
        "tenants.acme.routes[0].match.path: a path with '//', '/./' or '/../' is never forwarded",
    ),
    "no time for the target": (
        lambda d: route(d).update(hold="30s"),
        "tenants.acme.routes[0].hold: hold must be shorter than timeout, or no time is left for the target",
    ),
    "a status that makes senders drop": (
        lambda d: route(d).update(quota_status=500),
        "tenants.acme.routes[0].quota_status: should be 429 or 503",
    ),
    "a tenant that is nowhere": (
        lambda d: d["tenants"].update(initech={"locations": []}),
        "tenants.initech.locations: a tenant needs at least one location",
    ),
    "a name in capitals": (
        lambda d: acme(d).update(locations=["Walldorf", "walldorf", "newtown"]),
        (
            "tenants.acme.locations[0]: 'Walldorf' is not a name: use 1 to 63 characters of a-z, 0-9 and '-', "
            "the first of them no '-'"
        ),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_mistake_is_told_where_it_stands(
    case: str, relay_document: dict[str, Any], write_config: Callable[..., Path]
) -> None:
    edit, expected = CASES[case]
    edit(relay_document)
    path = write_config(relay_document)
    assert expected.format(dir=path.parent) in problems_of(path)


def test_plain_http_for_all_is_doubtful(relay_document: dict[str, Any], write_config: Callable[..., Path]) -> None:
    relay_document["ingress"][0]["listen"] = ":8080"
    relay_document["tenants"]["acme"]["routes"].pop()
    relay_document["tenants"]["acme"]["routes"][0]["senders"] = ["s4"]
    warnings = find_warnings(read_config(write_config(relay_document), RelayConfig).config)
    assert [dotted(warning.key) for warning in warnings] == ["ingress[0]", "tenants.acme.senders[1]"]
    assert warnings[0].message.startswith("without tls, passwords and tokens and payloads cross the network readable")


def test_one_certificate_or_several(relay_document: dict[str, Any], write_config: Callable[..., Path]) -> None:
    pair = {"certificate": "relay.pem", "key": "relay.key"}
    for tls in (pair, [pair, pair]):
        relay_document["ingress"][0]["tls"] = tls
        config = read_config(write_config(relay_document), RelayConfig).config
        assert len(config.ingress[0].tls or ()) == (1 if tls is pair else 2)


def test_every_key_says_what_it_means() -> None:
    schema = json_schema(RelayConfig)
    silent = {
        f"{name}.{key}"
        for name, model in schema["$defs"].items()
        for key, value in model.get("properties", {}).items()
        if not value.get("description") and "$ref" not in str(value)
    }
    assert len(schema["$defs"]) > 10
    assert silent == set()
