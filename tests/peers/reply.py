"""One request of a raw client: what came back as slices, and the wait for it. Knows no transport."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from tests.peers import BOUND, jsontext
from tests.peers.http_wire import Headers, header


@dataclass(frozen=True, slots=True)
class Reply:
    """What came back: `result` and `error` are slices of `raw`, the message (or body) as it was on the wire."""

    raw: bytes
    result: bytes | None = None
    error: bytes | None = None
    notifications: list[bytes] = field(default_factory=list)
    """Raw notifications that came on the request's channel before its answer."""
    status: int = 200
    headers: Headers = ()

    @property
    def value(self) -> Any:
        """The result as plain values.

        Raises:
            AssertionError: there is none.
        """
        assert self.result is not None, f"no result but {self.status} {self.raw[:500]!r}"
        return jsontext.value(self.result)

    @property
    def code(self) -> int | None:
        """The error's code; None for a result."""
        found = jsontext.value(jsontext.member(self.error, "code"))
        return None if found is None else int(found)

    @property
    def text(self) -> Any:
        """The text of the first content block."""
        return self.value["content"][0]["text"]

    def slice(self, *path: str) -> bytes | None:
        """A raw slice of the result."""
        return jsontext.member(self.result, *path)

    def entries(self, name: str) -> list[bytes]:
        """The raw elements of an array in the result."""
        return jsontext.elements(jsontext.member(self.result, name) or b"[]")

    def get(self, name: str) -> str | None:
        """An HTTP header of the reply."""
        return header(self.headers, name)


class PendingRequest:
    """One request in flight."""

    def __init__(self, id_: bytes, method: str, params: bytes | None, hear: Callable[[bytes], None] | None) -> None:
        self.id = id_
        self.method = method
        self.params = params
        self.token = jsontext.member(params, "_meta", "progressToken")
        self.notifications: list[bytes] = []
        self.work: asyncio.Task[None] | None = None
        self._hear = hear
        self._heard = asyncio.Event()
        self._reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()

    def __repr__(self) -> str:
        return f"<PendingRequest {self.method} id={self.id!r} {'done' if self._reply.done() else 'waiting'}>"

    @property
    def is_done(self) -> bool:
        """Whether it was answered or failed."""
        return self._reply.done()

    async def reply(self, *, timeout: float = BOUND) -> Reply:
        """The answer.

        Raises:
            ConnectionError: the connection ended without one.
        """
        async with asyncio.timeout(timeout):
            return await asyncio.shield(self._reply)

    async def heard(self, count: int = 1, *, timeout: float = BOUND) -> list[bytes]:
        """The notifications so far, once there are that many."""
        async with asyncio.timeout(timeout):
            while len(self.notifications) < count:
                self._heard.clear()
                await self._heard.wait()
        return self.notifications

    def hear(self, raw: bytes) -> None:
        """A notification came for it."""
        self.notifications.append(raw)
        self._heard.set()
        if self._hear is not None:
            self._hear(raw)

    def answer(self, reply: Reply) -> None:
        """The answer came."""
        if not self._reply.done():
            self._reply.set_result(reply)

    def fail(self, why: Exception) -> None:
        """No answer will come."""
        if not self._reply.done():
            self._reply.set_exception(why)
            self._reply.exception()
