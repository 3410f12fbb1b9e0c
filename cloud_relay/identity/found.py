"""`cloud-relay init`: from nothing to a relay that is its own CA, and a config that runs."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cloud_relay.identity.events import Kind, new_event
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.rollover import creation_events
from cloud_relay.identity.store import STATE_FILE, SqliteStore, StateError, StateLock
from shared.config import HostPort
from shared.exits import CommandError, ExitCode
from shared.pki import issue
from shared.pki.spiffe import relay_id
from shared.pki.trust import pin_of

_CONFIG = """\
# A relay that is its own CA. 'cloud-relay schema' describes every key, 'cloud-relay check' judges a change.
state_dir: {state_dir}
trust_domain: {trust_domain}        # fixed: it stands in every certificate
tunnel:
  listen: "{listen}"                # where connectors come in
  advertise: [{advertise}]          # how they reach it from outside
{identity}ingress:
  - listen: "127.0.0.1:9443"        # where senders come in; for other hosts add tls: {{certificate: …, key: …}}
observe: {{listen: "127.0.0.1:9000"}}
tenants:{tenants}
"""


class Founded(NamedTuple):
    """What `init` made. `pin` is the root's, as it stands in join tokens."""

    config: Path | None
    state_dir: Path
    trust_domain: str
    relay: str
    pin: str
    root_not_after: datetime


async def found(
    state_dir: Path, trust_domain: str, relay: str, now: datetime, passphrase: bytes | None = None
) -> Founded:
    """Make root and issuing CA in `state_dir`. CommandError if there is a CA already, or the disk does not take it."""
    relay_id(trust_domain, relay)
    try:
        lock = _locked(state_dir)
    except OSError as error:
        raise CommandError(ExitCode.FAILED, f"cannot use {state_dir}: {error.strerror}") from error
    try:
        return await _found(state_dir, trust_domain, relay, now, passphrase)
    except (OSError, StateError) as error:
        raise CommandError(
            ExitCode.FAILED, f"cannot make the CA in {state_dir}: {error}",
            "Mend the cause and run 'cloud-relay init' again; nothing of the CA counts yet.", "not-initialised",
        ) from error  # fmt: skip
    finally:
        lock.release()


def _locked(state_dir: Path) -> StateLock:
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = StateLock(state_dir)
    lock.acquire()
    return lock


async def _found(state_dir: Path, trust_domain: str, relay: str, now: datetime, passphrase: bytes | None) -> Founded:
    store = SqliteStore(state_dir / STATE_FILE)
    try:
        events = await store.read()
        if any(event.kind is Kind.INITIALISED for event in events):
            raise CommandError(
                ExitCode.REFUSED, f"there is a CA in {state_dir} already",
                "It is used as it is. To replace it, roll it over: 'cloud-relay ca rotate'.", "already-initialised",
            )  # fmt: skip
        keys = KeyFolder(state_dir, passphrase)
        root = issue.create_root(now)
        issuing = issue.create_issuing(root, relay, now)
        keys.write_root(root)
        keys.write_issuing(issuing)
        begin = new_event(Kind.INITIALISED, now, trust_domain=trust_domain, relay=relay)
        await store.append(len(events), [begin, *creation_events(1, root, issuing, now)])
    finally:
        await store.close()
    return Founded(None, state_dir, trust_domain, relay, pin_of(root.certificate), root.certificate.not_valid_after_utc)


def write_config(
    path: Path,
    *,
    state_dir: str,
    trust_domain: str,
    listen: str,
    advertise: Sequence[HostPort],
    tenant: str | None,
    locations: Sequence[str],
    passphrase_file: str | None,
) -> None:
    """A config that runs. CommandError if the file is there, or cannot be written."""
    tenants = " {}                         # acme: {locations: [walldorf], senders: […], routes: […]}"
    if tenant is not None:
        tenants = f"\n  {tenant}:\n    locations: [{', '.join(locations)}]"
    text = _CONFIG.format(
        state_dir=state_dir, trust_domain=trust_domain, listen=listen, tenants=tenants,
        advertise=", ".join(f'"{address}"' for address in advertise),
        identity=f"identity: {{passphrase_file: {passphrase_file}}}\n" if passphrase_file else "",
    )  # fmt: skip
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("x") as file:
            file.write(text)
    except FileExistsError:
        raise CommandError(
            ExitCode.REFUSED, f"{path} is there already", "Name another file with --config, or move it away."
        ) from None
    except OSError as error:
        raise CommandError(ExitCode.FAILED, f"cannot write {path}: {error.strerror}") from error
