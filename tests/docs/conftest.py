"""Sites of real programs, as the system tests have them, for the commands that the docs show."""

from tests.system.conftest import pki, site, target

__all__ = ["pki", "site", "target"]
