"""The relay's config: the models, what must hold between them, and what a reload may change."""

from cloud_relay.config.checks import Problem, find_problems, find_warnings
from cloud_relay.config.listen import Listen
from cloud_relay.config.models import IngressConfig, RelayConfig, RouteConfig, SenderConfig, TenantConfig

__all__ = [
    "IngressConfig",
    "Listen",
    "Problem",
    "RelayConfig",
    "RouteConfig",
    "SenderConfig",
    "TenantConfig",
    "find_problems",
    "find_warnings",
]
