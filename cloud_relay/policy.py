"""What the config says about connectors: which tenants and locations there are."""

from __future__ import annotations

from cloud_relay.config import RelayConfig


class ConfigPolicy:
    """Who may open a tunnel, as far as the config knows. Satisfies `admit.Policy`.

    Certificates are neither withdrawn nor connectors barred here: that needs the relay's state.
    """

    __slots__ = ("_config",)

    def __init__(self, config: RelayConfig) -> None:
        self._config = config

    @property
    def trust_domain(self) -> str:
        """The first part of every SPIFFE id that counts here."""
        return self._config.trust_domain

    def knows(self, tenant: str, location: str) -> bool:
        """Whether the config has them."""
        known = self._config.tenants.get(tenant)
        return known is not None and location in known.locations

    def is_revoked(self, fingerprint: str) -> bool:
        """Never: there is no state yet."""
        return False

    def is_blocked(self, tenant: str, location: str, connector: str) -> bool:
        """Never: there is no state yet."""
        return False

    def __repr__(self) -> str:
        return f"<ConfigPolicy of {len(self._config.tenants)} tenants>"
