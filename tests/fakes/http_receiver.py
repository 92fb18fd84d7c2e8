"""A Receiver that remembers what it was told, and can be waited for."""

import asyncio
from collections.abc import Awaitable, Callable

from mcp_manifold.backends.http.exchange import HttpFailure, ResponseHeaders
from tests.peers import BOUND


class Recorder:
    """Records one exchange; `then` runs when it has ended."""

    def __init__(self, then: Callable[[], object] | None = None) -> None:
        self.calls: list[str] = []
        self.status = 0
        self.headers: ResponseHeaders | None = None
        self.body = b""
        self.failure: HttpFailure | None = None
        self.answered = asyncio.Event()
        self.finished = asyncio.Event()
        self._then = then

    def __repr__(self) -> str:
        return f"<Recorder {self.status} {self.calls}>"

    def responded(self, status: int, headers: ResponseHeaders) -> None:
        self.calls.append("responded")
        self.status = status
        self.headers = headers
        self.answered.set()

    def received(self, data: bytes) -> None:
        assert data, "a piece of the body is never empty"
        self.calls.append("received")
        self.body += data

    def ended(self) -> None:
        self.calls.append("ended")
        self.finished.set()
        if self._then is not None:
            self._then()

    def failed(self, exc: HttpFailure) -> None:
        self.calls.append("failed")
        self.failure = exc
        self.finished.set()

    async def body_of_success(self) -> bytes:
        """Wait for the end, which must be a good one."""
        await within(self.finished.wait())
        assert self.failure is None, self.failure
        assert self.calls[-1] == "ended"
        return self.body

    async def reason_of_failure(self) -> HttpFailure:
        """Wait for the end, which must be a bad one."""
        await within(self.finished.wait())
        assert self.failure is not None, self.body
        assert self.calls.count("failed") == 1
        assert "ended" not in self.calls
        return self.failure


async def within(waiting: Awaitable[object]) -> None:
    """Wait, but not for ever."""
    async with asyncio.timeout(BOUND):
        await waiting
