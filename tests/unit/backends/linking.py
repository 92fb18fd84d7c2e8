"""A link on a fake transport, and calls that go over it. Uses no network and no process."""

import asyncio
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.link.server_requests import Inbox, ServerNotification, ServerRequest
from mcp_manifold.clock import Clock
from mcp_manifold.errors import BackendError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import LATEST_HANDSHAKE, Payload, Pieces, encode
from tests.fakes.news import News
from tests.peers import BOUND

Answer = Callable[[PendingRequest], bytes | None]
"""The body of an answer without id, `"result":...` or `"error":...`, or None for silence."""


class FakeTransport:
    """Records what a link sends. With `answer` it answers, one turn of the loop later, as a server would."""

    def __init__(self, link: Link, answer: Answer | None = None) -> None:
        self.requests: list[tuple[PendingRequest, dict[str, Any]]] = []
        self.notes: list[dict[str, Any]] = []
        self.versions: list[str] = []
        self.refusal: BackendError | None = None
        self._link = link
        self._answer = answer
        self._news = News()
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
        self._news.tell()
        said = self._answer(pending) if self._answer is not None else None
        if said is not None:
            whole = b'{"jsonrpc":"2.0","id":%d,%b}' % (pending.number, said)
            asyncio.get_running_loop().call_soon(self._link.fed, whole)

    def send_note(self, body: bytes) -> asyncio.Future[None] | None:
        self.notes.append(msgspec.json.decode(body))
        return None

    def adopt(self, version: str) -> None:
        self.versions.append(version)

    async def aclose(self) -> None:
        pass

    async def sent(self, count: int = 1) -> PendingRequest:
        """The `count`-th request, once it was sent."""
        pending, _ = await self._news.nth(count, lambda: self.requests)
        return pending


class Heard:
    """The notifications a link passed on."""

    def __init__(self) -> None:
        self.notes: list[tuple[str, bytes, Call | None]] = []
        self._news = News()

    def __repr__(self) -> str:
        return f"<Heard {len(self.notes)}>"

    def __call__(self, notice: ServerNotification) -> None:
        self.notes.append((notice.method, bytes(notice.params), notice.call))
        self._news.tell()

    async def first(self, method: str) -> bytes:
        """The params of the first notification of that method, once it came."""
        return await self._news.nth(1, lambda: [params for name, params, _ in self.notes if name == method])


def new_link(
    heard: Heard | None = None,
    *,
    name: str = "notes",
    on_request: Callable[[ServerRequest], None] = lambda request: None,
    holder: Session | None = None,
    key: str = "",
    clock: Clock | None = None,
) -> Link:
    """A new link without a transport. Server requests stay unanswered unless `on_request` answers them."""
    link = Link(name, holder=holder, key=key, clock=clock)
    Inbox(link, on_notification=heard or Heard(), on_request=on_request)
    return link


def connected(
    answer: Answer | None = None, heard: Heard | None = None, *, clock: Clock | None = None
) -> tuple[Link, FakeTransport]:
    """A new link on a fake transport."""
    link = new_link(heard, clock=clock)
    return link, FakeTransport(link, answer)


class Sent:
    """A request that was sent over a link, and its outcome, which is reported once."""

    def __init__(self) -> None:
        self.pending: PendingRequest | None = None
        self.result: bytes | None = None
        self.failure: Exception | None = None

    def __repr__(self) -> str:
        return f"<Sent {self.pending!r} {'done' if self.is_done else 'waiting'}>"

    @property
    def is_done(self) -> bool:
        return self.result is not None or self.failure is not None

    def on_result(self, pending: PendingRequest, result: Payload | None, failure: Exception | None) -> None:
        assert not self.is_done, "reported twice"
        assert (result is None) != (failure is None)
        self.pending, self.failure = pending, failure
        self.result = None if result is None else bytes(result)


def send(link: Link, call: Call | None = None, *, method: str = "tools/call", **limits: float) -> Sent:
    """Send a request, for a call or of our own; `limits`: timeout (30 by default), ceiling, waited."""
    sent = Sent()
    params = tool("echo") if call is None else call.params
    sent.pending = link.send(method, params, sent.on_result, call=call, **{"timeout": 30.0, **limits})
    return sent


def results(found: Mapping[str, bytes]) -> Answer:
    """Answer each of these methods with this result, the others with -32601."""

    def answer(pending: PendingRequest) -> bytes | None:
        result = found.get(pending.method)
        return b'"error":{"code":-32601,"message":"no"}' if result is None else b'"result":' + result

    return answer


def new_session(key: str = "", version: str = LATEST_HANDSHAKE) -> Session:
    """A client's session."""
    return Session(key, ANONYMOUS, "", version)


class FakeReply:
    """The reply to one call: the messages emitted, and the answer, which is given once."""

    def __init__(self, emitted: list[bytes] | None = None) -> None:
        self.emitted = [] if emitted is None else emitted
        self.is_answered = False
        self.failure: BaseException | None = None
        """The failure it was answered with; None for a result, or before the answer."""
        self._result = Payload(b"null")
        self._grown = asyncio.Event()

    def __repr__(self) -> str:
        return f"<FakeReply {'answered' if self.is_answered else 'waiting'}>"

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        self.emitted.append(message)

    def stream(self) -> None:
        pass

    def disconnected(self) -> None:
        pass

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        assert not self.is_answered, "answered twice"
        assert (result is None) != (failure is None)
        self.is_answered, self.failure = True, failure
        if result is not None:
            self._result = Payload(b"".join(result)) if isinstance(result, tuple) else result
        self._grown.set()

    @property
    def result(self) -> Any:
        """The result it was answered with, as a value; None for a failure, or before the answer."""
        return msgspec.json.decode(self._result)

    async def outcome(self) -> Payload:
        """The result, once it was answered; raises the failure."""
        await self._grown.wait()
        if self.failure is not None:
            raise self.failure
        return self._result


class Caller:
    """Makes calls for one client, and records the messages emitted for them."""

    def __init__(self, key: str = "", *, version: str = LATEST_HANDSHAKE, principal: Principal = ANONYMOUS) -> None:
        self.session = Session(key, principal, "", version)
        self.emitted: list[bytes] = []

    def __repr__(self) -> str:
        return f"<Caller {self.session.key} emitted={len(self.emitted)}>"

    def call(self, method: str = "tools/call", **params: object) -> Call:
        """A call with these params."""
        return Call(method, raw(**params), self.session, FakeReply(self.emitted))


def reply_of(call: Call) -> FakeReply:
    """The reply of a Caller's call."""
    assert isinstance(call.reply, FakeReply)
    return call.reply


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
    """Let the loop run until a condition holds, for input of sockets and processes, which has no event here."""
    async with asyncio.timeout(BOUND):
        while not found():  # noqa: ASYNC110 - see above
            await asyncio.sleep(0)


async def within(waiting: Any) -> Any:
    """Wait with a bound."""
    async with asyncio.timeout(BOUND):
        return await waiting
