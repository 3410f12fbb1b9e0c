"""`cloud-relay upgrade` where several workers are replaced: it is followed to its end, which takes minutes."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from shared.control import ControlUnreachable
from shared.exits import CommandError, ExitCode

LOOK: Final = 0.5
"""Seconds between looks at how far it is."""

ABSENCE: Final = 60.0
"""Seconds for which nobody may answer: the worker that is asked is replaced, too."""

OVER: Final = frozenset({"done", "failed"})

Answer = dict[str, Any]


def follow(
    answer: Answer, ask: Callable[[], Answer], tell: Callable[[str], None], sleep: Callable[[float], None] = time.sleep
) -> Answer:
    """The last answer about the upgrade that `answer` tells of. `tell` gets each step that is seen, as a
    sentence.

    CommandError if it has failed, or if nobody knows of it any more.
    """
    number, told, absent = answer["upgrade"]["number"], "", 0.0
    while True:
        upgrade = answer["upgrade"]
        if upgrade is not None:
            absent = 0.0
            if upgrade["number"] != number:
                raise _forgotten("it is another upgrade that goes on now")
            if (sentence := progress(upgrade)) != told:
                tell(sentence)
                told = sentence
            if upgrade["stage"] in OVER:
                break
        elif absent >= ABSENCE:
            raise _forgotten("the relay was restarted meanwhile")
        sleep(LOOK)
        absent += LOOK
        try:
            answer = ask()
        except ControlUnreachable:
            if absent >= ABSENCE:
                raise
            answer = {**answer, "upgrade": None}
    if upgrade["stage"] == "failed":
        raise _failure(upgrade)
    return answer


def progress(upgrade: Answer) -> str:
    """How far it is, in a sentence."""
    stage, count = upgrade["stage"], upgrade["workers"]
    if stage == "rehearsing":
        return "a new process finds out whether it could serve"
    if stage == "done":
        return f"all {count} workers are replaced"
    if stage == "failed":
        return f"{upgrade['replaced']} of {count} workers are replaced, and no more will be"
    place = f"worker {upgrade['replaced'] + 1} of {count} (number {upgrade['worker']})"
    return f"{place} serves out its connections" if stage == "leaving" else f"{place}: its new process starts"


def _failure(upgrade: Answer) -> CommandError:
    error = upgrade["error"] or {}
    replaced = f"{upgrade['replaced']} of {upgrade['workers']} workers were replaced"
    return CommandError(
        ExitCode(error.get("exit_code", ExitCode.FAILED)),
        f"the upgrade has failed ({replaced}): {error.get('title', 'its log says why')}",
        error.get("remedy", ""), error.get("code", "upgrade-failed"), detail=error.get("detail", ""),
    )  # fmt: skip


def _forgotten(why: str) -> CommandError:
    return CommandError(
        ExitCode.FAILED, f"what became of the upgrade is not known: {why}", "Look at 'cloud-relay status' and its log.",
        "upgrade-lost",
    )  # fmt: skip
