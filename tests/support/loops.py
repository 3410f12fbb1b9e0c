"""Both event loops, for tests whose sockets are real."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Final

import pytest
import uvloop

Factories = dict[str, Callable[[], asyncio.AbstractEventLoop]]
BOTH: Final[Factories] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


def both_for(item: pytest.Item, files: Collection[str]) -> Factories:
    """For pytest_asyncio_loop_factories: tests of these files run on both loops, all others on asyncio's alone."""
    return BOTH if item.path.name in files else {"asyncio": asyncio.new_event_loop}
