"""What of a target may be reached: methods and paths, allowed one by one, compared as raw bytes.

Nothing is decoded, folded or normalised, since whatever the target makes of a path may differ from what we would. A
path that two programs could read in two ways has been refused before (`path-refused`, by shared.http.push_head), on
this side, whatever the relay did.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple


class Rule(NamedTuple):
    """One entry of a target's `allow`: these methods, at this path, and with `sub_paths` at all segments below it."""

    methods: tuple[str, ...]
    path: str
    sub_paths: bool


class AccessRules:
    """A target's rules, compiled to bytes. Without a rule nothing is allowed."""

    __slots__ = ("_exact", "_prefixes")

    def __init__(self, rules: Iterable[Rule]) -> None:
        exact: dict[bytes, set[bytes]] = {}
        prefixes: dict[bytes, set[bytes]] = {}
        for rule in rules:
            path = rule.path.encode("ascii")
            for name in rule.methods:
                method = name.encode("ascii")
                exact.setdefault(method, set()).add(path)
                prefixes.setdefault(method, set())
                if rule.sub_paths:
                    # '/sap/frun' also means '/sap/frun/x', never '/sap/frunny'.
                    prefixes[method].add(path if path.endswith(b"/") else path + b"/")
        self._exact = {method: frozenset(paths) for method, paths in exact.items()}
        self._prefixes = {method: tuple(sorted(paths)) for method, paths in prefixes.items()}

    def check(self, method: bytes, target: bytes) -> str | None:
        """The code of why a push with this method and raw request target may not pass; None if it may."""
        path = target.partition(b"?")[0]
        paths = self._exact.get(method)
        # bytes.startswith with an empty tuple is False.
        if paths is not None and (path in paths or path.startswith(self._prefixes[method])):
            return None
        return "method-not-allowed" if self._knows(path) else "path-not-allowed"

    def _knows(self, path: bytes) -> bool:
        """Whether some method is allowed at `path`."""
        return any(path in paths for paths in self._exact.values()) or any(
            path.startswith(prefixes) for prefixes in self._prefixes.values()
        )

    def __repr__(self) -> str:
        return f"<AccessRules {' '.join(sorted(method.decode('ascii') for method in self._exact)) or 'nothing'}>"
