"""`cloud-relay init`: from nothing to a relay that is its own CA, and a config that runs."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from cloud_relay.identity.events import Event, Kind, new_event
from cloud_relay.identity.keys import KeyFolder
from cloud_relay.identity.rollover import creation_events
from cloud_relay.identity.store import STATE_FILE, SqliteStore, StateError, held
from shared.config import HostPort, Listen
from shared.exits import CommandError, ExitCode
from shared.owner import as_owner, make_state_dir
from shared.pki import issue
from shared.pki.spiffe import relay_id
from shared.pki.trust import pin_of

_CONFIG = """\
# A relay that is its own CA. 'cloud-relay schema' describes every key, 'cloud-relay check' judges a change.
state_dir: {state_dir}
trust_domain: {trust_domain}  # fixed: it stands in every certificate
tunnel:
  listen: {listen}  # where connectors come in
  advertise: [{advertise}]  # how they reach it from outside
{identity}ingress:
  - listen: "127.0.0.1:9443"  # where senders come in; for other hosts add tls: {{certificate: …, key: …}}
observe: {{listen: "127.0.0.1:9000"}}
tenants:{tenants}
"""


class Founded(NamedTuple):
    """What `init` made. `pin` is the root's, as it stands in join tokens."""

    state_dir: Path
    trust_domain: str
    relay: str
    pin: str
    root_not_after: datetime


class NewConfig(NamedTuple):
    """What a first config says. The values have been checked; `state_dir` is as it shall stand there, and relative to
    the config if it is relative."""

    state_dir: str
    trust_domain: str
    listen: Listen
    advertise: Sequence[HostPort]
    tenant: str | None = None
    locations: Sequence[str] = ()
    passphrase_file: str | None = None


async def found(
    state_dir: Path, trust_domain: str, relay: str, now: datetime, passphrase: bytes | None = None, by: str = ""
) -> Founded:
    """Make root and issuing CA in `state_dir`. CommandError if there is a CA already, or the disk does not take it."""
    relay_id(trust_domain, relay)
    try:
        make_state_dir(state_dir)
        with as_owner(state_dir), held(state_dir):
            return await _found(state_dir, trust_domain, relay, now, passphrase, by)
    except (OSError, StateError) as error:
        raise CommandError(
            ExitCode.FAILED, f"cannot make the CA in {state_dir}: {error}",
            "Mend the cause and run 'cloud-relay init' again; nothing of the CA counts yet.", "not-initialised",
        ) from error  # fmt: skip


async def find_ca(state_dir: Path) -> str | None:
    """The trust domain of the CA in `state_dir`, also while a relay runs on it; None where there is none.

    Changes nothing. CommandError if the state cannot be read.
    """
    if not (state_dir / STATE_FILE).exists():
        return None
    try:
        with as_owner(state_dir):
            store = SqliteStore(state_dir / STATE_FILE)
            try:
                begun = _beginning(await store.read())
            finally:
                await store.close()
    except StateError as error:
        raise CommandError(ExitCode.FAILED, str(error), code="state-unusable") from error
    return None if begun is None else begun.text("trust_domain")


def _beginning(events: Sequence[Event]) -> Event | None:
    return next((event for event in events if event.kind is Kind.INITIALISED), None)


async def _found(
    state_dir: Path, trust_domain: str, relay: str, now: datetime, passphrase: bytes | None, by: str
) -> Founded:
    store = SqliteStore(state_dir / STATE_FILE)
    try:
        events = await store.read()
        begun = _beginning(events)
        if begun is not None:
            raise CommandError(
                ExitCode.REFUSED,
                f"there is a CA in {state_dir} already, of the trust domain {begun.text('trust_domain')}",
                "It is used as it is, by a config with this state_dir and trust_domain. To replace it, roll it over: "
                "'cloud-relay ca rotate'.",
                "already-initialised",
            )  # fmt: skip
        keys = KeyFolder(state_dir, passphrase)
        root = issue.create_root(now)
        issuing = issue.create_issuing(root, relay, now)
        keys.write_root(root)
        keys.write_issuing(issuing)
        begin = new_event(Kind.INITIALISED, now, trust_domain=trust_domain, relay=relay, by=by)
        await store.append(len(events), [begin, *creation_events(1, root, issuing, now)])
    finally:
        await store.close()
    return Founded(state_dir, trust_domain, relay, pin_of(root.certificate), root.certificate.not_valid_after_utc)


def write_config(path: Path, new: NewConfig) -> None:
    """A config that runs. CommandError if the file is there, or cannot be written; then nothing is left of it."""
    text = config_text(new).encode()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = path.open("xb")
    except FileExistsError:
        raise CommandError(
            ExitCode.REFUSED, f"{path} is there already", "Name another file with --config, or move it away."
        ) from None
    except OSError as error:
        raise CommandError(ExitCode.FAILED, f"cannot write {path}: {error.strerror}") from error
    try:
        with file:
            file.write(text)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise CommandError(ExitCode.FAILED, f"cannot write {path}: {error.strerror}") from error


def config_text(new: NewConfig) -> str:
    """The config as YAML. Whatever comes from outside is quoted."""
    tenants = " {}  # acme: {locations: [walldorf], senders: […], routes: […]}"
    if new.tenant is not None:
        tenants = f"\n  {_quoted(new.tenant)}:\n    locations: [{', '.join(map(_quoted, new.locations))}]"
    identity = "" if new.passphrase_file is None else f"identity: {{passphrase_file: {_quoted(new.passphrase_file)}}}\n"
    return _CONFIG.format(
        state_dir=_quoted(new.state_dir), trust_domain=_quoted(new.trust_domain), listen=_quoted(str(new.listen)),
        advertise=", ".join(_quoted(str(one)) for one in new.advertise), tenants=tenants, identity=identity,
    )  # fmt: skip


def _quoted(text: str) -> str:
    """As a double-quoted scalar: YAML 1.2 takes all of JSON's (section 7.3.1)."""
    return json.dumps(text, ensure_ascii=False)
