"""What every task and thread of this process waits for: names, files and lines, never a value."""

from __future__ import annotations

import asyncio
import sys
import threading
import traceback
from collections import Counter
from pathlib import PurePath
from types import CodeType
from typing import Any, Final

MAX_TASKS: Final = 20_000
"""Tasks that are looked at; it takes the event loop some 10 µs for each."""

MAX_DEPTH: Final = 64


def task_dump() -> dict[str, Any]:
    """Tasks by what they wait for, alike ones counted together; threads. Call it in the event loop. JSON-able."""
    tasks = list(asyncio.all_tasks())
    alike = Counter((task.get_name(), tuple(_stack(task))) for task in tasks[:MAX_TASKS])
    return {
        "count": len(tasks),
        "tasks": [{"name": name, "count": count, "stack": list(stack)} for (name, stack), count in alike.most_common()],
        "threads": _threads(),
    }


def render_dump(dump: dict[str, Any]) -> str:
    """For people: the task that waits at the end of its stack, as a traceback has it."""
    parts = [f"{dump['count']} tasks"]
    for task in dump["tasks"]:
        times = f" × {task['count']}" if task["count"] > 1 else ""
        parts.append("\n".join([f"task {task['name']}{times}", *(f"    {line}" for line in task["stack"])]))
    parts += [
        "\n".join([f"thread {thread['name']}", *(f"    {line}" for line in thread["stack"])])
        for thread in dump["threads"]
    ]
    return "\n\n".join(parts) + "\n"


def _stack(task: asyncio.Task[Any]) -> list[str]:
    """The coroutine, what it awaits, what that awaits, …; a task's own get_stack tells the first alone."""
    lines: list[str] = []
    waiting: Any = task.get_coro()
    while waiting is not None and len(lines) < MAX_DEPTH:
        found = next((kind for kind in ("cr", "gi", "ag") if hasattr(waiting, f"{kind}_frame")), None)
        if found is None:
            lines.append(f"waits for {type(waiting).__qualname__}")
            break
        frame = getattr(waiting, f"{found}_frame")
        if frame is None:
            break
        lines.append(_place(frame.f_code, frame.f_lineno))
        waiting = getattr(waiting, "gi_yieldfrom" if found == "gi" else f"{found}_await")
    return lines


def _threads() -> list[dict[str, Any]]:
    names = {thread.ident: thread.name for thread in threading.enumerate()}
    return [
        {
            "name": names.get(number, str(number)),
            "stack": [_place(frame.f_code, line) for frame, line in list(traceback.walk_stack(top))[:MAX_DEPTH][::-1]],
        }
        for number, top in sys._current_frames().items()
    ]


def _place(code: CodeType, line: int | None) -> str:
    path = "/".join(PurePath(code.co_filename).parts[-3:])
    return f"{path}:{line} {code.co_qualname}"
