"""Parts of the relay's config that more than one kind of route uses."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field

from cloud_relay.config.fields import as_list
from shared.config import ConfigFile, ConfigModel
from shared.names import Name
from shared.units import ByteRate, Rate


class CertificateConfig(ConfigModel):
    """A certificate chain and its key."""

    certificate: ConfigFile
    """PEM file: the leaf first, then the intermediate certificates."""
    key: ConfigFile
    """PEM file, not encrypted, readable by the relay only."""


Certificates = Annotated[tuple[CertificateConfig, ...], BeforeValidator(as_list), Field(min_length=1, max_length=1000)]


class SenderLimitsConfig(ConfigModel):
    """How much one sender may push. What is over a limit for a moment waits (limits.queue), what is over it for longer
    gets the route's `quota_status`."""

    rate: Rate | None = None
    """Pushes a second on average. Without it there is no limit."""
    burst: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Pushes that may come at once after a pause. Without it ten seconds' worth: senders love the full minute."""
    in_flight: Annotated[int, Field(ge=1, le=10_000_000)] | None = None
    """Pushes at once. Without it there is no limit."""
    bytes: ByteRate | None = None
    """Bytes of bodies a second on average, over ten seconds: 10MiB/s. They are counted while they arrive; once they are
    used up, the next push has to wait. Without it there is no limit."""


class ToConfig(ConfigModel):
    """Where a route leads."""

    location: Name
    """One of the tenant's locations."""
    target: Name
    """The target's name as that location's connectors expose it."""
