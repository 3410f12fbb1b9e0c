"""How a command ends: exit codes that scripts may rely on, and the exception that carries one."""

from __future__ import annotations

import enum
from typing import Any, Final


class ExitCode(enum.IntEnum):
    """What both commands exit with."""

    OK = 0
    FAILED = 1
    USAGE = 2
    CONFIG = 3
    NOT_FOUND = 4
    REFUSED = 5
    """Refused by a rule, or in conflict with what is there."""
    UNREACHABLE = 6
    """The daemon does not answer on its control socket."""
    CREDENTIAL = 7
    """The other side refused our certificate, token or password."""


_CODES: Final = {
    ExitCode.OK: "ok",
    ExitCode.FAILED: "failed",
    ExitCode.USAGE: "usage",
    ExitCode.CONFIG: "config-invalid",
    ExitCode.NOT_FOUND: "not-found",
    ExitCode.REFUSED: "refused",
    ExitCode.UNREACHABLE: "daemon-unreachable",
    ExitCode.CREDENTIAL: "credential-refused",
}


class CommandError(Exception):
    """A fault that a command ends with: no traceback, a message with its cause, and a remedy.

    `code` is a word for scripts; the exit code's own unless given. `extra` goes into the problem object of --json.
    """

    def __init__(self, exit_code: ExitCode, message: str, remedy: str = "", code: str = "", **extra: Any) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.message = message
        self.remedy = remedy
        self.code = code or _CODES[exit_code]
        self.extra = extra

    def problem(self) -> dict[str, Any]:
        """As an RFC 9457 problem object."""
        members: dict[str, Any] = {
            "schema": "qanat.problem.v1",
            "type": f"urn:qanat:error:{self.code}",
            "title": self.message,
            "code": self.code,
            "exit_code": int(self.exit_code),
        }
        if self.remedy:
            members["remedy"] = self.remedy
        return members | self.extra
