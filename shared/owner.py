"""A command at work in the state directory: as the daemon's user, also if root runs it.

As root, a command does what it does there with the rights of the directory's owner. So its files can be read by the
daemon, and whoever owns the directory cannot lead root to other files by a symbolic link.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shared.exits import CommandError, ExitCode


@contextmanager
def as_owner(state_dir: Path) -> Iterator[None]:
    """Have the rights of the owner of `state_dir` meanwhile, in all threads, if this is root and it is another's.

    A directory that is not there yet belongs to nobody: nothing changes. CommandError if the owner cannot be become.
    """
    owner = _other_owner(state_dir)
    if owner is None:
        yield
        return
    user, group = owner
    before = os.getgroups()
    try:
        os.setgroups(_groups(user, group))
        os.setegid(group)
        os.seteuid(user)
    except OSError as error:
        _become_root(before)
        raise CommandError(
            ExitCode.REFUSED, f"{state_dir} belongs to the user {user}, whose rights cannot be had: {error.strerror}",
            f"Run it as that user: runuser -u {_name(user)} -- …",
        ) from error  # fmt: skip
    try:
        yield
    finally:
        _become_root(before)


def make_state_dir(state_dir: Path) -> None:
    """The directory, for its owner alone, unless it is there."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)


def _other_owner(state_dir: Path) -> tuple[int, int] | None:
    """(user, group) of the directory, if this process is root and the directory is not root's."""
    if os.geteuid() != 0:
        return None
    try:
        status = state_dir.stat()
    except FileNotFoundError:
        return None
    return (status.st_uid, status.st_gid) if status.st_uid else None


def _become_root(groups: list[int]) -> None:
    os.seteuid(0)
    os.setegid(0)
    os.setgroups(groups)


def _groups(user: int, group: int) -> list[int]:
    try:
        return os.getgrouplist(pwd.getpwuid(user).pw_name, group)
    except KeyError:  # a number without a name, as in a container
        return [group]


def _name(user: int) -> str:
    try:
        return pwd.getpwuid(user).pw_name
    except KeyError:
        return f"#{user}"
