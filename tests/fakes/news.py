"""Waits of tests for something that tells them when it changed."""

import asyncio
from collections.abc import Callable, Sequence
from typing import TypeVar

from tests.peers import BOUND

T = TypeVar("T")


class News:
    """The changes of something: `tell` at each, and conditions on it can be waited for."""

    def __init__(self) -> None:
        self._came = asyncio.Event()

    def __repr__(self) -> str:
        return f"<News {'came' if self._came.is_set() else 'awaited'}>"

    def tell(self) -> None:
        """Something changed."""
        self._came.set()

    async def until(self, found: Callable[[], T | None]) -> T:
        """The first true value of `found`, which is evaluated after each change."""
        async with asyncio.timeout(BOUND):
            while not (value := found()):
                self._came.clear()
                await self._came.wait()
        return value

    async def nth(self, count: int, found: Callable[[], Sequence[T]]) -> T:
        """The `count`-th item of what `found` gives, once there are so many."""
        return (await self.until(lambda: found()[count - 1 :]))[0]
