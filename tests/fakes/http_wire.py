"""A transport and a pool that only remember: what a connection is tested against without a network."""

import asyncio
from collections import deque
from collections.abc import Callable

from mcp_manifold.backends.http.client_connection import ClientConnection
from mcp_manifold.backends.http.exchange import Exchange, ResponseHeaders
from mcp_manifold.paced_reader import Pacer
from tests.fakes.clock import FakeClock


class FakeTransport(asyncio.Transport):
    """Keeps what is written; `unsent` is what it claims to have buffered."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes] = []
        self.aborted = False
        self.unsent = 0
        self.pauses = 0
        self.is_paused = False

    def __repr__(self) -> str:
        return f"<FakeTransport {'aborted' if self.aborted else 'open'}>"

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert isinstance(data, bytes)
        self.written.append(data)

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def pause_reading(self) -> None:
        assert not self.is_paused
        self.is_paused = True
        self.pauses += 1

    def resume_reading(self) -> None:
        assert self.is_paused
        self.is_paused = False

    def is_closing(self) -> bool:
        return self.aborted

    def abort(self) -> None:
        self.aborted = True


class FakeKeeper:
    """Counts what a connection reports."""

    where = "fake:80"
    hint = ""

    def __init__(self, *, max_head: int, max_body: int) -> None:
        self.clock = FakeClock()
        self.turns: deque[Callable[[], None]] = deque()
        """What the event loop would do in its next turns."""
        self.pacer = Pacer(self.clock, self.turns.append)
        self.max_head = max_head
        self.max_body = max_body
        self.released: list[ClientConnection] = []

    def __repr__(self) -> str:
        return f"<FakeKeeper released={len(self.released)}>"

    def run(self) -> int:
        """Take turns until nothing is left to do; returns their number."""
        taken = 0
        while self.turns:
            self.turns.popleft()()
            taken += 1
        return taken

    def opened(self, connection: ClientConnection) -> None:
        pass

    def release(self, connection: ClientConnection) -> None:
        self.released.append(connection)

    def forget(self, connection: ClientConnection) -> None:
        pass

    def redirect(self, exchange: Exchange, headers: ResponseHeaders) -> None:
        pass

    def closed_idle(self, connection: ClientConnection) -> None:
        pass

    def send_again(self, exchange: Exchange) -> None:
        pass

    def lost(self, connection: ClientConnection) -> None:
        pass
