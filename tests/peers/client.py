"""The common part of raw clients: ids, replies as slices, notifications, answers. Knows no transport."""

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

from tests.peers import BOUND, jsontext, message
from tests.peers.http_wire import Headers, header
from tests.peers.message import LATEST_HANDSHAKE, META, MODERN_VERSION, Message


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

    async def heard(self, count: int = 1) -> list[bytes]:
        """The notifications so far, once there are that many."""
        async with asyncio.timeout(BOUND):
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


Params = bytes | str | Mapping[str, object] | None
Answer = str | Callable[[bytes], str]
"""What a client answers to a server's request: the result's raw text, or `error:` and the error object's."""

C = TypeVar("C", bound="Client")

_CAPABILITY: Final = (
    ("sampling/createMessage", '"sampling":{}'),
    ("elicitation/create", '"elicitation":{}'),
    ("roots/list", '"roots":{"listChanged":true}'),
)


class Client(ABC):
    """A raw client: `async with`, then `connect(version)`, then `request(...)`.

    Args:
        answers: what is answered to a server's request, by method.
        capabilities: the declared ones, raw; None: those that the answers need.
    """

    def __init__(self, *, answers: Mapping[str, Answer] | None = None, capabilities: str | None = None) -> None:
        self.answers = dict(answers or {})
        declared = (text for method, text in _CAPABILITY if method in self.answers)
        self.capabilities = capabilities if capabilities is not None else "{" + ",".join(declared) + "}"
        self.client_info = '{"name":"raw-client","version":"1.0"}'
        self.log_level: str | None = None
        """Modern era: the level asked for in every request's `_meta`."""
        self.version: str | None = None
        self.is_connected = False
        self.received: list[Message] = []
        """Every message that ever arrived, on whatever channel."""
        self.pending: dict[bytes, PendingRequest] = {}
        self._last_id = 0
        self._arrived = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.version or 'not connected'}, {len(self.pending)} pending>"

    async def __aenter__(self: C) -> C:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def is_modern(self) -> bool:
        """Whether requests carry the modern `_meta`."""
        return self.version == MODERN_VERSION

    async def connect(self, version: str = LATEST_HANDSHAKE) -> Reply:
        """Shake hands, or (2026-07-28) discover. A refusal is returned like any reply."""
        self.version = version
        if self.is_modern:
            return await self.request("server/discover")
        hello = b'{"protocolVersion":%b,"capabilities":%b,"clientInfo":%b}'
        fields = (jsontext.text(version), self.capabilities.encode(), self.client_info.encode())
        reply = await self.request("initialize", hello % fields)
        if reply.result is not None:
            self.version = str(jsontext.value(jsontext.member(reply.result, "protocolVersion")))
            self.is_connected = True
            await self.notify("notifications/initialized")
        return reply

    async def request(
        self,
        method: str,
        params: Params = None,
        *,
        id: bytes | int | str | None = None,
        on_notification: Callable[[bytes], None] | None = None,
        timeout: float = BOUND,
    ) -> Reply:
        """Send a request and wait. `id` is raw text if bytes. `input_required` rounds are done if `answers` can."""
        reply = await self._once(method, params, id, on_notification, timeout)
        while (more := self._responses(reply)) is not None:
            again = jsontext.with_members(raw_params(params) or b"{}", more)
            reply = await self._once(method, again, None, on_notification, timeout)
        return reply

    async def _once(
        self, method: str, params: Params, id_: Any, hear: Callable[[bytes], None] | None, timeout: float
    ) -> Reply:
        pending = await self.begin(method, params, id=id_, on_notification=hear)
        return await pending.reply(timeout=timeout)

    async def begin(
        self,
        method: str,
        params: Params = None,
        *,
        id: bytes | int | str | None = None,
        on_notification: Callable[[bytes], None] | None = None,
    ) -> PendingRequest:
        """Send a request without waiting for its answer."""
        self._last_id += 1
        raw_id = id if isinstance(id, bytes) else jsontext.text(self._last_id if id is None else id)
        pending = PendingRequest(raw_id, method, self._stamped(raw_params(params), method), on_notification)
        self.pending[raw_id] = pending
        await self._send(pending)
        return pending

    async def call(self, name: str, arguments: Params = None, **options: Any) -> Reply:
        """`tools/call`."""
        params = b'{"name":%b,"arguments":%b}' % (jsontext.text(name), raw_params(arguments) or b"{}")
        return await self.request("tools/call", params, **options)

    async def list_all(self, method: str) -> list[bytes]:
        """All pages of a list: the raw entries."""
        found: list[bytes] = []
        cursor: bytes | None = None
        while True:
            reply = await self.request(method, None if cursor is None else b'{"cursor":%b}' % cursor)
            assert reply.result is not None, reply
            name = next(key for key, value in jsontext.walk(reply.result) if value[:1] == b"[")
            found.extend(reply.entries(name))
            cursor = reply.slice("nextCursor")
            if cursor is None:
                return found

    async def cancel(self, pending: PendingRequest) -> None:
        """Give a request up, in the way of the era and transport."""
        await self.notify("notifications/cancelled", b'{"requestId":%b,"reason":"no longer needed"}' % pending.id)

    @abstractmethod
    async def notify(self, method: str, params: Params = None) -> None:
        """Send a notification."""

    @abstractmethod
    async def watch(self) -> None:
        """Open the stream for messages outside requests."""

    @abstractmethod
    async def close(self) -> None:
        """End the conversation and everything that belongs to it."""

    @abstractmethod
    async def _send(self, pending: PendingRequest) -> None: ...

    @abstractmethod
    async def _respond(self, response: bytes) -> None: ...

    # --- arriving ---------------------------------------------------------------------------------------------------

    async def wait_for(self, what: str | Callable[[Message], bool], *, count: int = 1) -> Message:
        """The `count`-th message ever received that has this method, or satisfies the predicate."""
        try:
            async with asyncio.timeout(BOUND):
                while len(hits := [each for each in self.received if _is(each, what)]) < count:
                    self._arrived.clear()
                    await self._arrived.wait()
        except TimeoutError:
            raise AssertionError(f"waited in vain for {count} x {what}; received {self.received}") from None
        return hits[count - 1]

    def _take(self, raw: bytes, owner: PendingRequest | None = None) -> None:
        """Handle one message; `owner` is the request whose own channel it came on."""
        try:
            arrived = message.read(raw)
        except ValueError:
            arrived = Message(raw)
        self.received.append(arrived)
        self._arrived.set()
        if arrived.is_request:
            self._start(self._respond(self._answer_to(arrived)))
        elif arrived.method is not None:
            for pending in self._hearers(arrived) if owner is None else [owner]:
                pending.hear(raw)
        elif (waiting := self.pending.pop(arrived.id or b"", None)) is not None:
            waiting.answer(Reply(raw, arrived.result, arrived.error, waiting.notifications))

    def _hearers(self, arrived: Message) -> list[PendingRequest]:
        token = jsontext.member(arrived.params, "progressToken")
        listen = jsontext.member(arrived.params, "_meta", META + "subscriptionId")
        if token is not None:
            return [each for each in self.pending.values() if each.token == token]
        if listen is not None:
            return [each for each in self.pending.values() if each.id == listen]
        return list(self.pending.values())

    def _answer_to(self, asked: Message) -> bytes:
        text = self._answer(asked.method or "", asked.params or b"{}")
        id_ = asked.id or b"null"
        if text is None:
            return message.failure(id_, message.error_text(-32601, "Method not found"))
        if text.startswith(b"error:"):
            return message.failure(id_, text.removeprefix(b"error:"))
        return message.response(id_, text)

    def _answer(self, method: str, params: bytes) -> bytes | None:
        answer = self.answers.get(method, "{}" if method == "ping" else None)
        if answer is None or isinstance(answer, str):
            return None if answer is None else answer.encode()
        return answer(params).encode()

    def _responses(self, reply: Reply) -> bytes | None:
        """The members a retry has to carry; None: no retry."""
        if not self.answers or reply.slice("resultType") != b'"input_required"':
            return None
        answered = []
        for key, asked in jsontext.walk(reply.slice("inputRequests") or b"{}"):
            method = str(jsontext.value(jsontext.member(asked, "method")))
            text = self._answer(method, jsontext.member(asked, "params") or b"{}")
            if text is None or text.startswith(b"error:"):
                return None
            answered.append(jsontext.text(key) + b":" + text)
        state = reply.slice("requestState")
        members = [b'"inputResponses":{%b}' % b",".join(answered)]
        return b",".join(members + ([b'"requestState":%b' % state] if state is not None else []))

    # --- leaving ----------------------------------------------------------------------------------------------------

    def _meta(self) -> dict[str, bytes | None]:
        level = None if self.log_level is None else jsontext.text(self.log_level)
        return {
            "protocolVersion": jsontext.text(self.version),
            "clientInfo": self.client_info.encode(),
            "clientCapabilities": self.capabilities.encode(),
            "logLevel": level,
        }

    def _stamped(self, params: bytes | None, method: str) -> bytes | None:
        if not self.is_modern:
            return params
        members = [b'"%b":%b' % ((META + key).encode(), text) for key, text in self._meta().items() if text is not None]
        stamp, params = b",".join(members), params or b"{}"
        given = jsontext.member(params, "_meta")
        if given is None:
            return jsontext.with_members(params, b'"_meta":{%b}' % stamp)
        return jsontext.with_value(params, "_meta", jsontext.with_members(given, stamp))

    def _start(self, work: Coroutine[Any, Any, None]) -> "asyncio.Task[None]":
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _end(self) -> None:
        """Cancel the running tasks and fail the pending requests."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for pending in list(self.pending.values()):
            pending.fail(ConnectionError("the client was closed"))
        self.pending.clear()


def raw_params(params: Params) -> bytes | None:
    """Params as text."""
    if params is None or isinstance(params, bytes):
        return params
    return params.encode() if isinstance(params, str) else jsontext.text(dict(params))


def _is(each: Message, what: str | Callable[[Message], bool]) -> bool:
    return each.method == what if isinstance(what, str) else what(each)
