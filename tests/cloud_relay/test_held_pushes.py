"""Pushes that are held because every tunnel is full go on as soon as others are over, not at the end of `hold`."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.whole_path import WholePath


@pytest.mark.parametrize("places", [1, 3, 8])
async def test_more_pushes_than_a_tunnel_has_places_for(places: int, tmp_path) -> None:
    path = WholePath(20, tmp_path, max_streams=places)
    await path.settle()
    async with asyncio.timeout(1.0):  # `hold` is 3 s
        answered = await path.push(1)
        while answered < 20:
            await path.settle()
            answered += path.answered()
    assert path.relay.bugs == []
    await path.close()
    assert path.relay.limits.in_flight == 0
    assert path.relay.budget.used == 0
