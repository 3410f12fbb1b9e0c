"""IP addresses among names of hosts."""

from __future__ import annotations

import ipaddress


def is_address(host: str) -> bool:
    """Whether this is an IP address rather than a name."""
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
