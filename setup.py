"""The optional build: with QANAT_COMPILE=1, mypyc makes C of the modules that every push goes through.

Without it, and by default, Qanat is pure Python, and the same source is the reference either way: nothing but speed
differs. pyproject.toml holds everything else. See docs/performance.md, "The compiled build".
"""

from __future__ import annotations

import os
import shlex
import shutil
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup

ROOT = Path(__file__).parent

WHOLE = ("shared/protocol", "shared/http", "cloud_relay/ingress", "connector_agent/upstream")
"""Packages of which everything is compiled, …"""

EXCEPT = (
    "cloud_relay/ingress/context.py",  # mypyc does not take a dataclass with kw_only
    "cloud_relay/ingress/listener.py",  # once a connection, not once a push
    "connector_agent/upstream/attempt.py",
    "connector_agent/upstream/connect.py",
)
"""… save these, and …"""

SINGLE = (
    "shared/access_log.py",
    "shared/metric_cells.py",
    "shared/timers.py",
    "shared/tunnel/gaps.py",
    "shared/tunnel/link.py",
    "shared/tunnel/websocket_frames.py",
    "cloud_relay/gates.py",
    "cloud_relay/limits.py",
    "cloud_relay/metrics.py",
    "cloud_relay/places.py",
    "cloud_relay/registry.py",
    "cloud_relay/routing.py",
    "cloud_relay/senders.py",
    "cloud_relay/session.py",
    "connector_agent/delivery.py",
    "connector_agent/delivery_end.py",
    "connector_agent/dispatch.py",
    "connector_agent/metrics.py",
    "connector_agent/plan.py",
    "connector_agent/tunnel.py",
    "connector_agent/upgraded.py",
)
"""… single modules of others."""

BUILDS = frozenset({"build", "build_ext", "bdist_wheel", "editable_wheel", "install"})
"""Commands of setuptools that make something."""

MYPY = (
    "--config-file=",  # pyproject.toml's wants plugins; `make check` has judged the types already
    "--python-version=3.11",
    "--explicit-package-bases",
    "--namespace-packages",
    "--follow-imports=silent",
    "--ignore-missing-imports",
)


def modules() -> list[str]:
    """What is compiled, as paths from the root."""
    found = [path.relative_to(ROOT).as_posix() for folder in WHOLE for path in sorted((ROOT / folder).glob("*.py"))]
    return [path for path in found if path not in EXCEPT and not path.endswith("__init__.py")] + list(SINGLE)


def lacking() -> str | None:
    """What this machine has not got for making C of anything; asked before mypyc works for a minute."""
    named = os.environ.get("CC") or sysconfig.get_config_var("CC")
    if named and shutil.which(shlex.split(named)[0]) is None:  # without a name setuptools looks by itself (Windows)
        return f"a C compiler, and there is no {shlex.split(named)[0]}: apt-get install gcc libc6-dev"
    if not Path(sysconfig.get_path("include"), "Python.h").is_file():
        return "Python's headers, and there is no Python.h: apt-get install python3-dev"
    return None


def extensions() -> list[Extension]:
    """None while only the metadata are asked for, mypy among the build's requirements."""
    if not BUILDS.intersection(sys.argv):
        return []
    if missing := lacking():
        raise SystemExit(f"QANAT_COMPILE=1 needs {missing} (without the variable Qanat is pure Python)")
    try:
        from mypyc.build import mypycify
    except ImportError:
        raise SystemExit("QANAT_COMPILE=1 needs mypy beside setuptools: pip install mypy") from None
    built: list[Extension] = mypycify([*MYPY, *modules()], opt_level="3", group_name="qanat")
    return built


if os.environ.get("QANAT_COMPILE", "") not in ("", "0"):
    setup(ext_modules=extensions(), setup_requires=["mypy>=2.4", "types-setuptools"])
else:
    setup()
