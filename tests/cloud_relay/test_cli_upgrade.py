"""What `cloud-relay upgrade` says while workers are replaced, and how it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cloud_relay.cli_upgrade import ABSENCE, LOOK, follow
from shared.control import ControlUnreachable
from shared.exits import CommandError

ERROR = {"title": "its libraries do not fit", "code": "no-fit", "exit_code": 3, "remedy": "Mend it."}


def at(stage: str, worker: int | None = None, replaced: int = 0, **more: Any) -> dict[str, Any]:
    upgrade = {"number": 1, "stage": stage, "workers": 2, "worker": worker, "replaced": replaced, "error": None}
    return {"workers": 2, "upgrade": {**upgrade, **more}}


class Asked:
    """The running relay: it gives these answers, one after the other, and the last one for ever."""

    def __init__(self, *answers: dict[str, Any] | None) -> None:
        self.answers = list(answers)
        self.said: list[str] = []
        self.slept = 0.0

    def __call__(self) -> dict[str, Any]:
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if answer is None:
            raise ControlUnreachable(Path("control.sock"), "nobody listens")
        return answer

    def sleep(self, seconds: float) -> None:
        self.slept += seconds

    def follow(self) -> dict[str, Any]:
        return follow(at("rehearsing"), self, self.said.append, self.sleep)


def test_each_step_is_told_once_and_the_last_answer_is_the_result() -> None:
    unknown = {"workers": 2, "upgrade": None}
    asked = Asked(at("leaving", 1), at("leaving", 1), at("starting", 1), at("leaving", 0, 1), None, None, unknown,
                  at("done", None, 2))  # fmt: skip
    assert asked.follow() == at("done", None, 2)
    assert asked.said == [
        "a new process finds out whether it could serve",
        "worker 1 of 2 (number 1) serves out its connections",
        "worker 1 of 2 (number 1): its new process starts",
        "worker 2 of 2 (number 0) serves out its connections",
        "all 2 workers are replaced",
    ]


def test_one_that_fails_ends_with_its_cause_and_exit_code() -> None:
    asked = Asked(at("failed", 0, 1, error=ERROR))
    with pytest.raises(CommandError) as caught:
        asked.follow()
    assert str(caught.value) == "the upgrade has failed (1 of 2 workers were replaced): its libraries do not fit"
    assert (caught.value.exit_code, caught.value.code, caught.value.remedy) == (3, "no-fit", "Mend it.")


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        (None, "nobody listens"),
        ({"workers": 2, "upgrade": None}, "the relay was restarted"),
        (at("leaving", 1, number=2), "another upgrade"),
    ],
)
def test_one_of_which_nobody_knows_any_more_is_not_waited_for_for_ever(answer: Any, why: str) -> None:
    asked = Asked(answer)
    with pytest.raises(CommandError, match=why):
        asked.follow()
    assert asked.slept <= ABSENCE + LOOK
