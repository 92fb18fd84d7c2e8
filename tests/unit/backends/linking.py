"""A link on a transport that only remembers, and the calls that go over it. Knows no network and no process."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.link.server_requests import ServerNotification, open_link
from mcp_manifold.errors import BackendError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import LATEST_HANDSHAKE, Payload, encode

Answer = Callable[[PendingRequest], bytes | None]
"""The body of an answer without id, `"result":...` or `"error":...`, or None for silence."""


class FakeTransport:
    """Keeps what a link sends. With `answer` it answers, one turn of the loop later, as a server would."""

    def __init__(self, link: Link, answer: Answer | None = None) -> None:
        self.requests: list[tuple[PendingRequest, dict[str, Any]]] = []
        self.notes: list[dict[str, Any]] = []
        self.versions: list[str] = []
        self.refusal: BackendError | None = None
        self._link = link
        self._answer = answer
        self._grown = asyncio.Event()
        link.attach(self)

    def __repr__(self) -> str:
        return f"<FakeTransport requests={len(self.requests)} notes={len(self.notes)}>"

    @property
    def methods(self) -> list[str]:
        return [pending.method for pending, _ in self.requests]

    def send_request(self, pending: PendingRequest, body: bytes) -> None:
        if self.refusal is not None:
            raise self.refusal
        self.requests.append((pending, msgspec.json.decode(body)))
        self._grown.set()
        said = self._answer(pending) if self._answer is not None else None
        if said is not None:
            whole = b'{"jsonrpc":"2.0","id":%d,%b}' % (pending.number, said)
            asyncio.get_running_loop().call_soon(self._link.fed, whole)

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        self.notes.append(msgspec.json.decode(body))
        self._grown.set()
        return None

    def adopt(self, version: str) -> None:
        self.versions.append(version)

    async def aclose(self) -> None:
        pass

    async def sent(self, count: int = 1) -> PendingRequest:
        """The `count`-th request, once it was sent."""
        await within(self._until(lambda: len(self.requests) >= count))
        return self.requests[count - 1][0]

    async def _until(self, found: Callable[[], bool]) -> None:
        while not found():
            self._grown.clear()
            await self._grown.wait()


class Heard:
    """The notifications a link passed on."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, bytes, Call | None]] = []
        self.grown = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Heard {len(self.notes)}>"

    def __call__(self, notice: ServerNotification) -> None:
        self.notes.append((notice.method, bytes(notice.params), notice.call))
        self.grown.set()

    async def first(self, method: str) -> bytes:
        """The params of the first notification of that method, once it came."""
        async with asyncio.timeout(5):
            while True:
                for name, params, _ in self.notes:
                    if name == method:
                        return params
                self.grown.clear()
                await self.grown.wait()


def new_link(heard: Heard | None = None, *, name: str = "notes") -> Link:
    """A fresh link without a transport, on which questions are left unanswered."""
    return open_link(name, on_notification=heard or Heard(), on_question=lambda question: None)


def connected(answer: Answer | None = None, heard: Heard | None = None) -> tuple[Link, FakeTransport]:
    """A fresh link on a transport of this file."""
    link = new_link(heard)
    return link, FakeTransport(link, answer)


def results(found: Mapping[str, bytes]) -> Answer:
    """Answer each of these methods with this result, the others with -32601."""

    def answer(pending: PendingRequest) -> bytes | None:
        result = found.get(pending.method)
        return b'"error":{"code":-32601,"message":"no"}' if result is None else b'"result":' + result

    return answer


def new_session(key: str = "", version: str = LATEST_HANDSHAKE) -> Session:
    """A client's session."""
    return Session(key, ANONYMOUS, "", version)


class Caller:
    """Makes calls for one client, and remembers what they emitted."""

    def __init__(self, key: str = "") -> None:
        self.session = new_session(key)
        self.emitted: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Caller {self.session.key} emitted={len(self.emitted)}>"

    def call(self, method: str = "tools/call", **params: object) -> Call:
        """A call with these params."""
        return Call(method, raw(**params), self.session, self._heard)

    def _heard(self, message: bytes, /, *, needed: bool = False) -> None:
        self.emitted.append(message)


def raw(**params: object) -> dict[str, Payload]:
    """Params as a link takes them."""
    return {name: Payload(encode(value)) for name, value in params.items()}


def tool(name: str, **arguments: object) -> dict[str, Payload]:
    """The params of a `tools/call`."""
    return raw(name=name, arguments=arguments)


def text_of(result: Payload) -> str:
    """The text of the first content block."""
    found: str = msgspec.json.decode(result)["content"][0]["text"]
    return found


@contextmanager
def full_listener() -> Iterator[int]:
    """A port on which connections are neither accepted nor refused: its backlog is full."""
    with ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(listener.getsockname())
        port: int = listener.getsockname()[1]
        yield port


async def eventually(found: Callable[[], object]) -> None:
    """Let the loop run until something is so: what a socket or a process brings has no event here."""
    async with asyncio.timeout(10):
        while not found():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)


async def within(waiting: Any, seconds: float = 10.0) -> Any:
    """Wait, but not for ever."""
    async with asyncio.timeout(seconds):
        return await waiting
