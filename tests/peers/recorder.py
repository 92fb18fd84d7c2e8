"""The record of everything a scripted backend received, raw and in order, and waits for it."""

import asyncio
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any, Literal, TypeVar

from tests.peers import BOUND

T = TypeVar("T")

Kind = Literal["request", "notification", "response", "garbage", "http", "cancelled", "closed"]


@dataclass(frozen=True, slots=True)
class Received:
    """One thing that arrived.

    `http`: one HTTP request of any kind (`method` is POST/GET/DELETE, `raw` its body). `cancelled`: an in-flight
    request was given up (`id` says which, `method` which method; `raw` is why: the notification, or b"disconnected").
    `closed`: the connection or the child's stdin ended.
    """

    kind: Kind
    raw: bytes = b""
    method: str = ""
    id: bytes | None = None
    params: bytes | None = None
    headers: tuple[tuple[str, str], ...] = ()
    session: str | None = None
    connection: int = 0

    def header(self, name: str) -> str | None:
        """The first header of that name, whatever its case."""
        return next((value for key, value in self.headers if key.lower() == name.lower()), None)

    def to_json(self) -> str:
        """One line of text that `received_from` reads."""
        plain = asdict(self)
        for key in ("raw", "id", "params"):
            plain[key] = None if plain[key] is None else plain[key].decode("latin-1")
        return json.dumps(plain)


def received_from(line: bytes, connection: int) -> Received:
    """What one recorded line says, on that connection."""
    plain: dict[str, Any] = json.loads(line)
    for key in ("raw", "id", "params"):
        plain[key] = None if plain[key] is None else plain[key].encode("latin-1")
    plain["headers"] = tuple((key, value) for key, value in plain["headers"])
    plain["connection"] = connection
    return Received(**plain)


class PeerRecorder:
    """Everything received, in order, and waits for more of it. With `keeps` false nothing is kept, for long runs."""

    def __init__(self, also: Callable[[Received], None] | None = None, *, keeps: bool = True) -> None:
        self.received: list[Received] = []
        self._keeps = keeps
        self._also = also
        self._grown = asyncio.Event()

    def __repr__(self) -> str:
        return f"<PeerRecorder {len(self.received)} received>"

    def add(self, item: Received) -> None:
        """Record one item and wake the waiting tests."""
        if self._keeps:
            self.received.append(item)
        if self._also is not None:
            self._also(item)
        self.wake()

    def wake(self) -> None:
        """Evaluate the waiting conditions again."""
        self._grown.set()

    def of(self, kind: Kind) -> list[Received]:
        """Everything of one kind so far."""
        return [item for item in self.received if item.kind == kind]

    async def wait_for(self, what: str | Callable[[Received], bool], *, count: int = 1) -> Received:
        """The `count`-th thing received that is a request or notification of method `what`, or satisfies it."""
        matches = _of_method(what) if isinstance(what, str) else what

        def found() -> Received | None:
            hits = [item for item in self.received if matches(item)]
            return hits[count - 1] if len(hits) >= count else None

        return await self.wait_until(found, f"{count} x {what}")

    async def wait_until(self, found: Callable[[], T | None], what: str, *, timeout: float = BOUND) -> T:
        """The first true value of `found()`, evaluated after each event."""
        try:
            async with asyncio.timeout(timeout):
                while not (value := found()):
                    self._grown.clear()
                    await self._grown.wait()
        except TimeoutError:
            seen = [f"{item.kind} {item.method}" for item in self.received]
            raise AssertionError(f"waited in vain for {what}; received: {seen}") from None
        return value


def _of_method(method: str) -> Callable[[Received], bool]:
    return lambda item: item.kind in ("request", "notification") and item.method == method
