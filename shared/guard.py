"""Whether the package `shared` that Python finds is ours: the one beside the program's own package.

`shared` is a common name. Another folder of that name, in the working directory or in PYTHONPATH, can shadow ours, and
what follows would be an ImportError from somewhere deep. Each program's `__init__.py` runs this file first, *by its
path* (`import shared.guard` is just what would fail), and so ends with a sentence instead.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path


def shared_problem(package_file: str) -> str | None:
    """A sentence that says what shadows our `shared`, None if nothing does. Imports nothing.

    `package_file` is the `__file__` of the `__init__.py` of the program's own package.
    """
    ours = Path(package_file).resolve().parent.parent / "shared"
    spec = importlib.util.find_spec("shared")
    if spec is None:
        return f"the package 'shared' is missing; it belongs to {ours}: install qanat again."
    found = [Path(place) for place in spec.submodule_search_locations or [spec.origin or "a built-in module"]]
    if found[0].resolve() == ours:
        return None
    return (
        f"Python finds another 'shared' at {found[0]} in place of {ours}: "
        "start in another directory, and look at PYTHONPATH."
    )


def check_shared(package_file: str) -> None:
    """End the program with the sentence of `shared_problem`, exit code 1, if there is one."""
    problem = shared_problem(package_file)
    if problem is not None:
        sys.exit(f"{Path(package_file).resolve().parent.name.replace('_', '-')}: {problem}")
