"""All live prechecks of one relay."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, NamedTuple

from cloud_relay.prechecks.certificates import check_certificates
from cloud_relay.prechecks.doors import check_doors
from cloud_relay.prechecks.host import check_host
from cloud_relay.prechecks.reach import check_names
from cloud_relay.prechecks.tenants import check_tenants
from shared.owner import as_owner
from shared.prechecks import Precheck

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from cloud_relay.config import RelayConfig


class Facts(NamedTuple):
    """What the running relay says of itself: None where none runs, or none that answers here (`silence` says why).

    `disabled`: senders that are switched off, and since when. `own`: the CA's certificates where no relay runs.
    """

    status: Mapping[str, Any] | None = None
    process: Mapping[str, Any] | None = None
    disabled: Mapping[tuple[str, str], str] = {}
    own: Sequence[Mapping[str, Any]] = ()
    silence: str = ""


def run_prechecks(config: RelayConfig, warnings: list[str], facts: Facts) -> list[Precheck]:
    """Every line, in the order in which they are best read. As root the state is looked at with its owner's rights."""
    with as_owner(config.state_dir):
        rows = check_host(config, warnings, facts.status, facts.process, facts.silence)
    rows += check_certificates(config, facts.status["identity"]["certificates"] if facts.status else facts.own)
    return rows + asyncio.run(_dial(config, facts))


async def _dial(config: RelayConfig, facts: Facts) -> list[Precheck]:
    found = await asyncio.gather(
        check_doors(config, facts.status),
        check_names(config, is_running=facts.status is not None),
        check_tenants(config, facts.status, facts.disabled),
    )
    return [row for rows in found for row in rows]
