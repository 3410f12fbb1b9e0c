"""Makes a development PKI: root, issuing CA, a relay, its ingress, connectors. For trying things out, never for real.

    python certs/generate.py                                   # localhost; tenant demo, location here, connector c1
    python certs/generate.py --host relay.lab --connector acme/walldorf/c1 --connector acme/walldorf/c2

Everything is made anew with each run, the CA included, and lives for a few days. Nobody can sign with the CA later: its
keys are thrown away, unless --keep-ca-keys says otherwise.
"""

from __future__ import annotations

import argparse
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from shared.pki import files, issue
from shared.pki.issue import Authority, PrivateKey
from shared.pki.spiffe import ConnectorId, connector_id, relay_id

HERE = Path(__file__).resolve().parent
DEFAULT_HOSTS = ["localhost", "127.0.0.1", "::1"]
DEFAULT_CONNECTORS = ["demo/here/c1"]
IGNORE = "# Keys are never committed.\n*\n"


def parse_arguments(arguments: list[str]) -> argparse.Namespace:
    """What stands on the command line."""
    parser = argparse.ArgumentParser(description="make a development PKI: root, issuing CA, relay, ingress, connectors")
    parser.add_argument("--out", type=Path, default=HERE / "dev", metavar="FOLDER", help="default: certs/dev")
    parser.add_argument("--days", type=int, default=7, help="lifetime of every certificate (default: 7)")
    parser.add_argument("--trust-domain", default="qanat.localhost", metavar="NAME")
    parser.add_argument("--relay", default="r1", metavar="NAME", help="the relay's name (default: r1)")
    parser.add_argument(
        "--host", action="append", metavar="NAME", help="DNS name or address of relay and ingress; repeatable"
    )
    parser.add_argument(
        "--connector", action="append", metavar="TENANT/LOCATION/NAME", help="repeatable (default: demo/here/c1)"
    )
    parser.add_argument("--keep-ca-keys", action="store_true", help="write the keys of root and issuing CA too")
    return parser.parse_args(arguments)


def parse_connector(trust_domain: str, text: str) -> ConnectorId:
    """TENANT/LOCATION/NAME, or ValueError."""
    parts = text.split("/")
    if len(parts) != 3:
        msg = f"{text!r} is not a connector: use TENANT/LOCATION/NAME"
        raise ValueError(msg)
    return connector_id(trust_domain, *parts)


def generate(options: argparse.Namespace, now: datetime) -> list[Path]:
    """Write all files and give their paths. Raises ValueError for names that are none, OSError when writing fails."""
    lifetime = timedelta(days=options.days)
    if options.days < 1:
        msg = "--days: a certificate lives for at least one day"
        raise ValueError(msg)
    relay = relay_id(options.trust_domain, options.relay)
    connectors = [parse_connector(options.trust_domain, text) for text in options.connector or DEFAULT_CONNECTORS]
    hosts = options.host or DEFAULT_HOSTS
    issue.server_names(hosts)  # all names are judged before the first file is written

    out: Path = options.out
    out.mkdir(mode=0o700, parents=True, exist_ok=True)
    files.write_public(out / ".gitignore", IGNORE.encode())
    root = issue.create_root(now, lifetime)
    issuing = issue.create_issuing(root, options.relay, now, lifetime)
    written = [out / "ca.pem"]
    files.write_public(out / "ca.pem", issue.certificate_pem(root.certificate))
    if options.keep_ca_keys:
        written += _write_authority(out, root, issuing)

    key = issue.new_key()
    written += _write_leaf(
        out, "relay", issuing, issue.issue_relay(issuing, relay, hosts, key.public_key(), now, lifetime), key
    )
    key = issue.new_key()
    written += _write_leaf(
        out, "ingress", issuing, issue.issue_server(issuing, hosts, key.public_key(), now, lifetime), key
    )
    for identity in connectors:
        key = issue.new_key()
        leaf = issue.issue_connector(issuing, identity, key.public_key(), now, lifetime)
        # Names hold no dots, so that no two connectors share a file.
        name = f"connector.{identity.tenant}.{identity.location}.{identity.connector}"
        written += _write_leaf(out, name, issuing, leaf, key)
    return written


def _write_leaf(out: Path, name: str, issuing: Authority, certificate: x509.Certificate, key: PrivateKey) -> list[Path]:
    chain_path, key_path = out / f"{name}.pem", out / f"{name}.key"
    files.write_private(key_path, issue.key_pem(key))
    files.write_public(chain_path, issue.certificate_pem(certificate, *issuing.chain))
    return [chain_path, key_path]


def _write_authority(out: Path, root: Authority, issuing: Authority) -> list[Path]:
    files.write_private(out / "ca.key", issue.key_pem(root.key))
    files.write_private(out / "issuing.key", issue.key_pem(issuing.key))
    files.write_public(out / "issuing.pem", issue.certificate_pem(issuing.certificate))
    return [out / "ca.key", out / "issuing.key", out / "issuing.pem"]


def main(arguments: list[str]) -> int:
    """Make the PKI and say what was made. Exit code 0, or 1 with a sentence, or 2 for wrong usage."""
    options = parse_arguments(arguments)
    try:
        written = generate(options, datetime.now(UTC))
    except (ValueError, OSError) as error:
        print(f"certs: {error}", file=sys.stderr)
        return 1
    for path in written:
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
