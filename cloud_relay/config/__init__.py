"""The relay's config: the models, what must hold between them, and what a reload may change."""

from cloud_relay.config.changes import Change, find_changes, restart_keys
from cloud_relay.config.checks import find_flaws, find_warnings
from cloud_relay.config.models import IngressConfig, RelayConfig, RouteConfig, SenderConfig, TenantConfig

__all__ = [
    "Change",
    "IngressConfig",
    "RelayConfig",
    "RouteConfig",
    "SenderConfig",
    "TenantConfig",
    "find_changes",
    "find_flaws",
    "find_warnings",
    "restart_keys",
]
