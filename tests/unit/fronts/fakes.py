"""A gateway that answers as it is told, and an HTTP client that drives an ASGI application in-process. No sockets."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import unquote

from mcp_manifold.clock import Clock
from mcp_manifold.config.settings import ManifoldSettings
from mcp_manifold.core.dispatcher import InFlightCall
from mcp_manifold.errors import CallCancelled, UnknownMethod
from mcp_manifold.fronts.checks import ParamCheck
from mcp_manifold.fronts.http.front import HttpFront
from mcp_manifold.fronts.http.pages import site
from mcp_manifold.model.budget import MemoryBudget
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import Payload, Pieces

BOUND = 5.0
"""Seconds any test waits for anything."""
META = {
    "io.modelcontextprotocol/protocolVersion": "2026-07-28",
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
}
Script = Callable[[Call], Awaitable[Payload]]


class FakeCall(InFlightCall):
    """A call that a script answers, in a task of its own. Without a script it was answered at once."""

    def __init__(self, call: Call, script: Script | None) -> None:
        self.call = call
        self._script = script
        self._task = None
        if script is not None:
            self._task = asyncio.ensure_future(script(call))
            self._task.add_done_callback(self._on_done)

    def cancel(self) -> None:
        if self._task is not None and not (self.call.is_done or self.call.is_cancelled):
            self.call.is_cancelled = True
            self._task.cancel()

    def end(self) -> None:
        self.call.is_ending = True
        if isinstance(self._script, Held) and self.call.method == "subscriptions/listen":
            self._script.released.set()

    def _on_done(self, task: "asyncio.Future[Payload]") -> None:
        if task.cancelled():
            answer(self.call, None, CallCancelled())
        elif (failure := task.exception()) is not None:
            answer(self.call, None, failure)
        else:
            answer(self.call, task.result())


def answer(call: Call, result: Payload | Pieces | None, failure: BaseException | None = None) -> None:
    """Give a call its answer."""
    call.is_done = True
    call.reply.respond(result, failure)


class FakeGateway:
    """Answers with scripts by method; remembers what it was told."""

    def __init__(self, **settings: Any) -> None:
        self.settings = ManifoldSettings(**settings)
        self.budget = MemoryBudget()
        self.scripts: dict[str, Script] = {
            "initialize": constant(b'{"protocolVersion":"2025-11-25"}'),
            "ping": constant(b"{}"),
            "tools/call": constant(b"{}"),
        }
        self.at_once: dict[str, Payload | Pieces | Exception] = {}
        """What is answered, or refused, before `dispatch` returns."""
        self.calls: list[Call] = []
        self.notes: list[tuple[str, dict[str, Payload]]] = []
        self.ends: list[Session] = []
        self.watchers: list[tuple[str, Callable[[Sequence[str]], None]]] = []
        self.schemas: dict[str, bytes] = {}
        self.scopes = {"", "server:alpha", "group:team", "server:köln"}

    def dispatch(self, call: Call) -> InFlightCall:
        self.calls.append(call)
        found = self.at_once.get(call.method)
        if found is not None:
            result, failure = (None, found) if isinstance(found, Exception) else (found, None)
            answer(call, result, failure)
            return FakeCall(call, None)
        return FakeCall(call, self.scripts.get(call.method, unknown))

    def has_scope(self, scope: str) -> bool:
        return scope in self.scopes

    def notified(self, session: Session, method: str, params: dict[str, Payload]) -> None:
        self.notes.append((method, params))

    def ended(self, session: Session) -> None:
        self.ends.append(session)

    def watch(self, scope: str, changed: Callable[[Sequence[str]], None]) -> Callable[[], None]:
        watcher = (scope, changed)
        self.watchers.append(watcher)
        return lambda: self.watchers.remove(watcher)

    def input_schema(self, scope: str, tool: str) -> bytes | None:
        return self.schemas.get(tool)

    def change(self, *methods: str) -> None:
        for _, changed in list(self.watchers):
            changed(methods)


def constant(result: bytes) -> Script:
    async def script(_: Call) -> Payload:
        return Payload(result)

    return script


def raising(exc: Exception) -> Script:
    async def script(_: Call) -> Payload:
        raise exc

    return script


async def unknown(call: Call) -> Payload:
    raise UnknownMethod(f"Method not found: {call.method}")


class Held:
    """A script that waits until it is released, and hears cancellations."""

    def __init__(self, result: bytes = b"{}", emits: Sequence[bytes] = ()) -> None:
        self.begun = asyncio.Event()
        self.released = asyncio.Event()
        self.cancelled = asyncio.Event()
        self._result = result
        self._emits = emits

    async def __call__(self, call: Call) -> Payload:
        for message in self._emits:
            call.reply.emit(message)
        self.begun.set()
        try:
            await self.released.wait()
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return Payload(self._result)


def scripted(**scripts: Any) -> FakeGateway:
    """A gateway with these scripts by method, `_` for `/`."""
    return prepared(**scripts)[0]


def prepared(
    gateway: FakeGateway | None = None, clock: Clock | None = None, **scripts: Any
) -> tuple[FakeGateway, "Client"]:
    """A gateway with scripts, and a client of the front before it."""
    gateway = gateway or FakeGateway()
    gateway.scripts |= {name.replace("_", "/"): script for name, script in scripts.items()}
    return gateway, Client(front(gateway, clock=clock))


def no_check(schema: object, arguments: object, headers: object) -> None:
    raise AssertionError("no tool here mirrors its arguments")


def front(gateway: FakeGateway, *, check_params: ParamCheck = no_check, clock: Clock | None = None) -> HttpFront:
    status = {"ready": True, "servers": {}}
    app = site(gateway.settings.base_path, health=lambda: status, servers=lambda: status, ready=lambda: status)
    return HttpFront(gateway, app, check_params=check_params, clock=clock)


@dataclass
class Answer:
    """What came back so far."""

    status: int = 0
    headers: list[tuple[str, str]] = field(default_factory=list)
    body: bytes = b""
    complete: bool = False

    def header(self, name: str) -> str | None:
        return dict(self.headers).get(name)

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> int:
        code: int = self.json["error"]["code"]
        return code

    @property
    def events(self) -> list[Any]:
        """The JSON messages of an event stream."""
        found = []
        for block in self.body.decode().split("\n\n"):
            data = [line[6:] for line in block.split("\n") if line.startswith("data: ")]
            if data and data[0].startswith("{"):
                found.append(json.loads("\n".join(data)))
        return found


class Exchange:
    """One HTTP request against the app, running in a task."""

    def __init__(self, app: Any, scope: dict[str, Any], chunks: Sequence[bytes], *, unfinished: bool) -> None:
        self.answer = Answer()
        self._progress = asyncio.Condition()
        self._chunks = list(chunks) or [b""]
        self._unfinished = unfinished
        self._is_gone = False
        self._news = asyncio.Event()
        self.reading = asyncio.Event()
        """Cleared: the client does not read, and sends to it wait."""
        self.reading.set()
        self.received = 0
        self.task = asyncio.create_task(app(scope, self._receive, self._send))

    def leave(self) -> None:
        self._is_gone = True
        self._news.set()

    def finish(self, body: bytes) -> None:
        """Send the rest of an unfinished body."""
        self._chunks.append(body)
        self._unfinished = False
        self._news.set()

    async def done(self) -> Answer:
        async with asyncio.timeout(BOUND):
            await self.task
        return self.answer

    async def until(self, met: Callable[[Answer], bool]) -> Answer:
        async with asyncio.timeout(BOUND), self._progress:
            await self._progress.wait_for(lambda: met(self.answer))
        return self.answer

    async def __aenter__(self) -> "Exchange":
        return self

    async def __aexit__(self, *_: object) -> None:
        self.leave()
        self.reading.set()
        async with asyncio.timeout(BOUND):
            await asyncio.wait({self.task})

    async def _receive(self) -> dict[str, Any]:
        while not (self._chunks or self._is_gone):
            self._news.clear()
            await self._news.wait()
        if self._chunks:
            body = self._chunks.pop(0)
            self.received += len(body)
            return {"type": "http.request", "body": body, "more_body": bool(self._chunks) or self._unfinished}
        return {"type": "http.disconnect"}

    async def _send(self, message: dict[str, Any]) -> None:
        await self.reading.wait()
        if message["type"] == "http.response.start":
            assert not self.answer.status, "an answer started twice"
            self.answer.status = message["status"]
            self.answer.headers = [(name.decode(), value.decode()) for name, value in message["headers"]]
        else:
            assert self.answer.status, "a body before its start"
            assert not self.answer.complete, "a body after its end"
            self.answer.body += message.get("body", b"")
            self.answer.complete = not message.get("more_body", False)
        async with self._progress:
            self._progress.notify_all()


class Client:
    """Sends requests to an app."""

    def __init__(self, app: Any, **headers: str) -> None:
        self.app = app
        self.root_path = ""
        self.headers = {"host": "localhost", **{name.replace("_", "-"): value for name, value in headers.items()}}

    def open(
        self,
        method: str,
        path: str,
        body: bytes | Sequence[bytes] = b"",
        *,
        headers: Sequence[tuple[str, str]] = (),
        query: bytes = b"",
        unfinished: bool = False,
    ) -> Exchange:
        names = {name for name, _ in headers}
        base = {"content-type": "application/json", "accept": "application/json, text/event-stream", **self.headers}
        lines = [item for item in base.items() if item[0] not in names] + [h for h in headers if h[1] != "-"]
        scope = {
            "type": "http",
            "method": method,
            "path": unquote(path),
            "raw_path": path.encode(),
            "root_path": self.root_path,
            "query_string": query,
            "headers": [(name.encode(), value.encode("latin-1")) for name, value in lines],
        }
        chunks = [body] if isinstance(body, bytes) else body
        return Exchange(self.app, scope, chunks, unfinished=unfinished)

    async def send(self, method: str, path: str, body: bytes | Sequence[bytes] = b"", **options: Any) -> Answer:
        return await self.open(method, path, body, **options).done()

    def post(self, message: Any, path: str = "/mcp", *, headers: Sequence[tuple[str, str]] = ()) -> Exchange:
        return self.open("POST", path, encoded(message), headers=headers)

    async def call(self, message: Any, path: str = "/mcp", *, headers: Sequence[tuple[str, str]] = ()) -> Answer:
        return await self.post(message, path, headers=headers).done()

    def modern(self, method: str = "tools/call", **params: Any) -> Exchange:
        message, headers = modern(method, **params)
        return self.post(message, headers=headers)

    async def session(self, path: str = "/mcp", *, version: str = "2025-11-25", ready: bool = True) -> "HttpSession":
        answer = await self.call(initialize(version), path)
        assert answer.status == 200, answer
        id_ = answer.header("mcp-session-id")
        assert id_ is not None
        session = HttpSession(self, path, id_)
        if ready:
            assert (await session.call(note("notifications/initialized"))).status == 202
        return session


@dataclass
class HttpSession:
    """A client's session over HTTP."""

    client: Client
    path: str
    id: str

    @property
    def headers(self) -> list[tuple[str, str]]:
        return [("mcp-session-id", self.id)]

    def post(self, message: Any) -> Exchange:
        return self.client.post(message, self.path, headers=self.headers)

    async def call(self, message: Any) -> Answer:
        return await self.post(message).done()

    def listen(self) -> Exchange:
        return self.client.open("GET", self.path, headers=self.headers)

    async def delete(self) -> Answer:
        return await self.client.send("DELETE", self.path, headers=self.headers)


def encoded(message: Any) -> bytes:
    return message if isinstance(message, bytes) else json.dumps(message).encode()


def request(method: str, id_: Any = 1, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "id": id_, "method": method, "params": params}


def note(method: str, **params: Any) -> dict[str, Any]:
    return {"jsonrpc": "2.0", "method": method, "params": params}


def initialize(version: str = "2025-11-25", id_: Any = 0) -> dict[str, Any]:
    return request(
        "initialize", id_, protocolVersion=version, capabilities={}, clientInfo={"name": "t", "version": "1"}
    )


def modern(method: str = "tools/call", **params: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """A 2026-07-28 request and the headers that mirror it."""
    if method == "tools/call":
        params = {"name": "echo", "arguments": {}, **params}
    message = request(method, **{"_meta": META, **params})
    headers = [("mcp-protocol-version", "2026-07-28"), ("mcp-method", method)]
    name = params.get("uri" if method == "resources/read" else "name")
    if isinstance(name, str) and method in ("tools/call", "prompts/get", "resources/read"):
        headers.append(("mcp-name", name))
    return message, headers


PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":%d}}'
