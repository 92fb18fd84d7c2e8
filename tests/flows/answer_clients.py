"""The clients that `answering` plays scenarios with: one per kind of front. They note every message they get."""

import asyncio
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, Final

from tests.peers.http_wire import Body, Events, Headers, HttpHead, compose, read_head
from tests.peers.message import META, MODERN_VERSION
from tests.peers.wire import SocketWire, connect

BOUND: Final = 45.0
"""Seconds that any wait may take."""
Spec = Mapping[str, Any]
_UNSEEN: Final = ("date", "server", "content-length", "transfer-encoding")
"""Response headers that belong to the HTTP server or to one moment."""
_CLIENT: Final = {"name": "t", "version": "1"}
_JSON: Final = {"content-type": "application/json"}
_VARIABLE: Final = (
    (r"127\.0\.0\.1:\d+", "127.0.0.1:PORT"),
    (r'"requestState":"[\w.=+/-]{24,}"', '"requestState":"STATE"'),
    (r'"nextCursor":"[\w=-]{24,}"', '"nextCursor":"CURSOR"'),
    (r'"since":"[^"]+"', '"since":"TIME"'),
    (r'"nextAttemptInSeconds":[\d.]+', '"nextAttemptInSeconds":0'),
    (r"for \d+ s; next attempt in [\d.]+ s", "for 0 s; next attempt in 0 s"),
    (r'"headers":\[\[.*?\]\]', '"headers":[]'),
    (r'"progressToken":\d+', '"progressToken":0'),
    (r'"(\w+)-[0-9a-f]{8}":', r'"\1-KEY":'),
    (r'"([\w.-]*?)[\w-]{32}"', r'"\1KEY"'),
    (r"\bpid \d+", "pid PID"),
    (r'\{"name":"mcp-manifold","version":"[^"]+"\}', '"US"'),
    (META, "mcp:/"),
    (r'^\{"jsonrpc":"2\.0",', "{"),
)
"""What differs from run to run, or is long, and what is noted instead."""


def noted(raw: bytes) -> Any:
    """Bytes as they are noted: as a JSON value where that loses nothing, else as text."""
    text = re.sub("x{99,}", lambda run: f"<{len(run.group())} x>", raw.decode("utf-8", "surrogateescape"))
    for pattern, name in _VARIABLE:
        text = re.sub(pattern, name, text)
    try:
        value = json.loads(text)
    except ValueError:
        return text
    return value if compact(value).decode("utf-8", "surrogateescape") == text else text


def compact(value: Any) -> bytes:
    """A value as JSON without spaces."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "surrogateescape")


def body_of(spec: Spec, *, modern: bool, capabilities: Mapping[str, Any]) -> bytes:
    """The message that a step asks to send."""
    if "raw" in spec:
        return str(spec["raw"]).replace("PAD", "x" * spec.get("pad", 0)).encode("utf-8", "surrogateescape")
    params: dict[str, Any] = {}
    if modern:
        meta = {"protocolVersion": MODERN_VERSION, "clientCapabilities": capabilities, "clientInfo": _CLIENT}
        params["_meta"] = {META + key: value for key, value in meta.items()}
    if "call" in spec:
        params |= {"name": spec["call"], "arguments": {"text": "hi"}}
    params |= {key: value for key, value in spec.get("params", {}).items() if key != "_meta"}
    if "_meta" in spec.get("params", {}):
        given = spec["params"]["_meta"]
        if isinstance(given, dict):
            given = {key: value for key, value in {**params.get("_meta", {}), **given}.items() if value is not None}
        params["_meta"] = given
    message: dict[str, Any] = {"jsonrpc": "2.0"}
    if "notify" not in spec:
        message["id"] = spec.get("id", 1)
    message["method"] = method_of(spec)
    return compact({**message, "params": params} if params or "params" in spec else message)


def method_of(spec: Spec) -> str:
    """The method of the message that a step sends."""
    return "tools/call" if "call" in spec or "raw" in spec else str(spec.get("ask") or spec.get("notify"))


def greeting(revision: str, capabilities: Mapping[str, Any]) -> dict[str, Any]:
    """An `initialize` step."""
    params = {"protocolVersion": revision, "capabilities": capabilities, "clientInfo": _CLIENT}
    return {"ask": "initialize", "id": 0, "params": params}


def reply_to(asked: bytes, step: Spec) -> bytes:
    """The response that a client gives to a server's request."""
    members = {"error": step["error"]} if "error" in step else {"result": step["reply"]}
    return compact({"jsonrpc": "2.0", "id": json.loads(asked)["id"], **members})


def is_request(raw: bytes) -> bool:
    """Whether a message is a request."""
    message = json.loads(raw) if raw else None
    return isinstance(message, dict) and "method" in message and "id" in message


class Conversation:
    """One client. It sends messages under labels, and notes what comes for each label."""

    def __init__(self, revision: str, house: Mapping[str, Any]) -> None:
        self.revision = revision
        self.modern = revision == MODERN_VERSION
        self.capabilities: Mapping[str, Any] = house.get("capabilities", {})
        self.last: dict[str, bytes] = {}
        """The last message that came for each label."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.revision}>"

    def body(self, spec: Spec) -> bytes:
        """The bytes of a step's message."""
        return body_of(spec, modern=self.modern, capabilities=self.capabilities)


class Exchange:
    """One HTTP request on its connection, and its response as far as it was read."""

    def __init__(self, wire: SocketWire) -> None:
        self.wire = wire
        self.head: HttpHead | None = None
        self.messages: list[Any] = []
        self._body: Body | None = None
        self._events: Events | None = None

    def __repr__(self) -> str:
        return f"<Exchange {self.head.first if self.head else 'waiting'} {len(self.messages)} messages>"

    async def begin(self) -> None:
        """Read the head, if it was not read yet."""
        if self.head is None:
            self.head = await read_head(self.wire)
            bodiless = self.head.first.split(" ")[1] in ("202", "204")
            self._body = Body(self.wire, self.head, has_end=bodiless)
            if (self.head.get("content-type") or "").startswith("text/event-stream"):
                self._events = Events(self._body)

    async def next(self) -> bytes:
        """The next message of the response; nothing at its end."""
        await self.begin()
        assert self._body is not None
        if self._events is None:
            data = await self._body.all()
        else:
            event = await self._events.next()
            while event is not None and event.raw.startswith(b":"):
                event = await self._events.next()
            if event is None:
                return b""
            data = event.data
            if not data:
                self.messages.append("no data, with an id" if event.id else "no data")
                return await self.next()
        if data:
            self.messages.append(noted(data))
        return data

    def record(self, sessions: Mapping[str, str]) -> Any:
        """Status, headers, and messages: a list where it was a stream. The message alone where it is 200 and JSON."""
        assert self.head is not None
        headers = {name.lower(): value for name, value in self.head.headers if name.lower() not in _UNSEEN}
        names = {id_: f"SESSION {name}" for name, id_ in sessions.items()}
        headers = {name: names.get(value, noted(value.encode())) for name, value in sorted(headers.items())}
        status = int(self.head.first.split(" ")[1])
        content = self.messages if self._events is not None else self.messages[0] if self.messages else ""
        if headers != _JSON:
            return [status, headers, content]
        return content if status == 200 else [status, content]

    @property
    def closes(self) -> bool:
        """Whether the connection ends with this response."""
        return self.head is not None and (self.head.get("connection") or "").lower() == "close"


class HttpConversation(Conversation):
    """Streamable HTTP. What has no label takes one kept connection; each label has a connection of its own."""

    def __init__(self, revision: str, house: Mapping[str, Any], port: int) -> None:
        super().__init__(revision, house)
        self.sessions: dict[str, str] = {}
        self._port = port
        self._token = house.get("token")
        self._exchanges: dict[str, Exchange] = {}

    async def connect(self) -> None:
        if not self.modern:
            await self.open("main", {})

    async def open(self, name: str, step: Spec) -> Any:
        """Open a session of that name."""
        greet = greeting(step.get("version", self.revision), step.get("capabilities", self.capabilities))
        await self.send("open", {**greet, **step, "session": ""})
        while await self._exchanges["open"].next():
            pass
        head = self._exchanges["open"].head
        assert head is not None
        self.sessions[name] = head.get("mcp-session-id") or ""
        record = self._exchanges.pop("open").record(self.sessions)
        await self.send("open", {**step, "notify": "notifications/initialized", "session": name})
        await self.end("open")
        return record

    async def send(self, label: str, spec: Spec) -> None:
        body = self.body(spec) if spec.get("verb", "POST") == "POST" else b""
        before = self._exchanges.get(label)
        is_usable = before is not None and not before.wire.ended.is_set() and not before.closes
        wire = before.wire if before is not None and is_usable else await connect("127.0.0.1", self._port)
        self._exchanges[label] = Exchange(wire)
        await wire.write(
            compose(f"{spec.get('verb', 'POST')} {spec.get('path', '/mcp')} HTTP/1.1", self._head(spec), body)
        )

    def _head(self, spec: Spec) -> Headers:
        token = spec.get("token", self._token)
        headers: dict[str, str | None] = {
            "host": "localhost",
            "content-type": "application/json",
            "accept": "application/json, text/event-stream",
            "authorization": f"Bearer {token}" if token else None,
        }
        if self.modern:
            named = spec.get("call") or spec.get("params", {}).get("name") or spec.get("params", {}).get("uri")
            headers |= {"mcp-protocol-version": MODERN_VERSION, "mcp-method": method_of(spec), "mcp-name": named}
        else:
            name = spec.get("session", "main")
            headers["mcp-session-id"] = self.sessions.get(name, name) or None
        headers |= spec.get("headers", {})
        twice = spec.get("twice", ())
        lines = [(name, value) for name, value in headers.items() if isinstance(value, str)] + [tuple(twice)] * bool(
            twice
        )
        return tuple((name, self.sessions.get(value.removeprefix("$"), value)) for name, value in lines)

    async def next(self, label: str) -> bytes:
        async with asyncio.timeout(BOUND):
            self.last[label] = await self._exchanges[label].next()
        return self.last[label]

    async def end(self, label: str) -> Any:
        exchange = self._exchanges[label]
        async with asyncio.timeout(BOUND):
            while data := await exchange.next():
                self.last[label] = data
        record = exchange.record(self.sessions)
        exchange.messages = []
        return record

    async def respond(self, body: bytes) -> None:
        await self.send("respond", {"raw": body.decode()})
        status, *_ = await self.end("respond")
        assert status == 202, status

    async def leave(self, label: str) -> None:
        self._exchanges.pop(label).wire.close()

    async def head(self, label: str) -> None:
        """Wait until the response to a label has begun."""
        await asyncio.wait_for(self._exchanges[label].begin(), BOUND)

    async def pipeline(self, specs: Sequence[Spec]) -> list[Any]:
        """Send several requests at once on one connection; the answers in the order in which they come."""
        wire = await connect("127.0.0.1", self._port)
        whole = (
            compose(f"POST {spec.get('path', '/mcp')} HTTP/1.1", self._head(spec), self.body(spec)) for spec in specs
        )
        await wire.write(b"".join(whole))
        records = []
        for _ in specs:
            self._exchanges["pipeline"] = Exchange(wire)
            records.append(await self.end("pipeline"))
        return records

    async def close(self) -> None:
        for exchange in self._exchanges.values():
            exchange.wire.close()


class LineConversation(Conversation, ABC):
    """What the fronts share that have one stream to the client: the answer to a label is found by its id."""

    def __init__(self, revision: str, house: Mapping[str, Any]) -> None:
        super().__init__(revision, house)
        self._ids: dict[str, Any] = {}
        self._inbox: list[bytes] = []

    async def connect(self) -> None:
        if not self.modern:
            await self.send("", greeting(self.revision, self.capabilities))
            await self.end("")
            await self.send("", {"notify": "notifications/initialized"})

    async def send(self, label: str, spec: Spec) -> None:
        body = self.body(spec)
        self._ids[label] = _id_of(body)
        await self.write(body)

    async def next(self, label: str) -> bytes:
        self._inbox.append(await self._read())
        self.last[label] = self._inbox[-1]
        return self._inbox[-1]

    async def end(self, label: str) -> Any:
        wanted = self._ids[label]
        if wanted is _NONE:
            return None
        while not any(_answers(raw, wanted) for raw in self._inbox):
            await self.next(label)
        at = next(at for at, raw in enumerate(self._inbox) if _answers(raw, wanted)) + 1
        self.last[label] = self._inbox[at - 1]
        found, self._inbox = self._inbox[:at], self._inbox[at:]
        lines = [noted(raw) for raw in found if b"/list_changed" not in raw]
        return lines[0] if len(lines) == 1 else lines

    async def respond(self, body: bytes) -> None:
        await self.write(body)

    async def _read(self) -> bytes:
        async with asyncio.timeout(BOUND):
            return await self.read()

    @abstractmethod
    async def write(self, body: bytes) -> None:
        """Send a message."""

    @abstractmethod
    async def read(self) -> bytes:
        """The next message."""


_NONE: Final = object()


def _id_of(body: bytes) -> Any:
    try:
        message = json.loads(body)
    except ValueError:
        return None
    has_answer = isinstance(message, dict) and "id" in message and "method" in message
    return message["id"] if has_answer else _NONE if isinstance(message, dict) else None


def _answers(raw: bytes, wanted: Any) -> bool:
    message = json.loads(raw)
    return "refused" in message or ("method" not in message and message["id"] in (wanted, None))


class StdioConversation(LineConversation):
    """The program, over its stdin and stdout."""

    def __init__(self, revision: str, house: Mapping[str, Any], argv: Sequence[str]) -> None:
        super().__init__(revision, house)
        self._argv = argv
        self._process: Any = None

    async def connect(self) -> None:
        pipe = asyncio.subprocess.PIPE
        self._process = await asyncio.create_subprocess_exec(
            *self._argv, stdin=pipe, stdout=pipe, stderr=asyncio.subprocess.DEVNULL, limit=1 << 26
        )
        await super().connect()

    async def write(self, body: bytes) -> None:
        self._process.stdin.write(body.replace(b"\n", b" ") + b"\n")
        await self._process.stdin.drain()

    async def read(self) -> bytes:
        line: bytes = await self._process.stdout.readuntil(b"\n")
        return line.rstrip(b"\n")

    async def close(self) -> None:
        if self._process is None:
            return
        self._process.stdin.close()
        async with asyncio.timeout(BOUND):
            await self._process.wait()


class SseConversation(LineConversation):
    """The HTTP+SSE transport of 2024-11-05, spoken in a revision that has elicitation."""

    def __init__(self, revision: str, house: Mapping[str, Any], port: int) -> None:
        super().__init__(revision, house)
        self._port = port
        self._http = HttpConversation(revision, house, port)
        self._stream: Exchange | None = None
        self._path = ""

    async def connect(self) -> None:
        await self._http.send("stream", {"verb": "GET", "path": "/sse", "session": ""})
        self._path = (await self._http.next("stream")).decode()
        await super().connect()

    async def write(self, body: bytes) -> None:
        await self._http.send("", {"raw": body.decode("utf-8", "surrogateescape"), "path": self._path, "session": ""})
        status = await self._http.end("")
        if status[0] != 202:
            self._inbox.append(compact({"refused": status}))

    async def read(self) -> bytes:
        return await self._http.next("stream")

    async def close(self) -> None:
        await self._http.close()
