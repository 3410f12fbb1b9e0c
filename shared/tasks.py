"""The one place that starts a task outside a TaskGroup: named, held, and never failing in silence.

asyncio holds a running task only weakly, and reports an exception that nobody fetched when the garbage collector comes
by, if ever. Here both are taken care of. Where the lifetime of the work is a block of code, an `asyncio.TaskGroup` is
better.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final, TypeVar

Result = TypeVar("Result")
OnError = Callable[[str, BaseException], None]
"""Takes the task's name and the exception that ended it."""

_RUNNING: Final[set[asyncio.Task[Any]]] = set()


def spawn(coroutine: Coroutine[Any, Any, Result], name: str, on_error: OnError | None = None) -> asyncio.Task[Result]:
    """Run `coroutine` as a task called `name` on the running loop.

    An exception other than cancellation goes to `on_error`, else to the loop's exception handler, even when the task is
    awaited too. The task is held until it is done.
    """
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _RUNNING.add(task)
    task.add_done_callback(_RUNNING.discard)
    task.add_done_callback(lambda done: _report(done, on_error))
    return task


def running() -> list[str]:
    """The names of the tasks that `spawn` started and that still run, for status and for tests about leaks."""
    return sorted(task.get_name() for task in _RUNNING)


async def cancel(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancel `tasks` and wait until they have ended, however they do. None stands for a task that never started.

    When this call is itself cancelled, all tasks have been asked to end, but may not have done so yet.
    """
    alive = [task for task in tasks if task is not None and not task.done()]
    for task in alive:
        task.cancel()
    if alive:
        await asyncio.wait(alive)


def _report(task: asyncio.Task[Any], on_error: OnError | None) -> None:
    if task.cancelled():
        return
    error = task.exception()
    if error is None:
        return
    if on_error is not None:
        on_error(task.get_name(), error)
        return
    task.get_loop().call_exception_handler(
        {"message": f"task {task.get_name()!r} failed", "exception": error, "task": task}
    )
