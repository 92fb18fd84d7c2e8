"""A scripted backend over Streamable HTTP, both eras on one endpoint. The engine decides the answers."""

import asyncio
import secrets
from typing import Final, Literal

from tests.peers import jsontext, message, modern
from tests.peers.conversation import ScriptedConversation
from tests.peers.http_wire import Headers, chunk, compose, event
from tests.peers.listener import Fault, HttpExchange, Listener
from tests.peers.message import MODERN_VERSION, Message, Refusal
from tests.peers.recorder import Received
from tests.peers.script import Script
from tests.peers.wire import first_of

STREAM: Final = (("Content-Type", "text/event-stream"), ("Cache-Control", "no-cache"), ("Transfer-Encoding", "chunked"))
_BAD_REQUESTS: Final = (-32700, -32600, -32602, -32020, -32021, -32022)


Mode = Literal["json", "sse", "deferred"]


class ReplyChannel:
    """The reply of one POST: JSON, or an event stream from the moment it has to be one."""

    def __init__(self, exchange: HttpExchange, mode: Mode, conversation: ScriptedConversation) -> None:
        self._exchange = exchange
        self._mode = mode
        self._conversation = conversation
        self.headers: Headers = ()
        self.is_modern = False
        self.state: Literal["waiting", "streaming", "done"] = "waiting"

    def __repr__(self) -> str:
        return f"<ReplyChannel {self._mode} {self.state}>"

    async def send(self, message: bytes, *, final: bool = False) -> None:
        """One message of the reply; in JSON mode all but the answer take the standing stream."""
        if self._mode == "json" and not final:
            await self._conversation.emit(message)
        elif self.state == "waiting" and final and self._mode != "sse":
            self.state = "done"
            code = jsontext.value(jsontext.member(message, "error", "code")) if self.is_modern else None
            status = _status(code)
            await self._exchange.respond_json(status, message, self.headers)
        elif self.state != "done" and self._mode != "json":
            await self._stream()
            await self._exchange.wire.write(chunk(event(message)))

    async def write(self, data: bytes) -> None:
        """Bytes inside the body but below the events; in JSON mode they are the body."""
        await self._stream()
        await self._exchange.wire.write(chunk(data))

    async def _stream(self) -> None:
        if self.state == "waiting":
            self.state = "streaming"
            kind = STREAM if self._mode != "json" else (("Content-Type", "application/json"), *STREAM[1:])
            await self._exchange.wire.write(compose("HTTP/1.1 200 OK", (*kind, *self.headers)))

    def drop(self, code: int) -> None:
        """Reset the connection."""
        self.state = "done"
        self._exchange.wire.reset()

    async def finish(self) -> None:
        """End the response; a request without an answer gets an empty stream."""
        if self.state != "done":
            await self._stream()
            self.state = "done"
            await self._exchange.wire.write(chunk(b""))


class StandingChannel:
    """A GET stream."""

    def __init__(self, exchange: HttpExchange) -> None:
        self._exchange = exchange
        self.over = asyncio.Event()

    def __repr__(self) -> str:
        return f"<StandingChannel {'over' if self.over.is_set() else 'open'}>"

    async def send(self, message: bytes, *, final: bool = False) -> None:
        """One event."""
        await self.write(event(message))

    async def write(self, data: bytes) -> None:
        """Bytes below the events."""
        await self._exchange.wire.write(chunk(data))

    def drop(self, code: int) -> None:
        """Reset the connection."""
        self._exchange.wire.reset()


class HttpBackend(Listener):
    """`async with HttpBackend(script) as b: b.url`."""

    def __init__(self, script: Script | None = None, *, token: str | None = None, port: int = 0) -> None:
        super().__init__(script, token=token, port=port)
        self.sessions: dict[str, ScriptedConversation] = {}
        self.deletes: list[str] = []
        """Session ids that clients deleted, known or not."""
        self.unknown_session: Fault | None = None
        """How a request with an unknown session is refused; None for 404 and a JSON-RPC error."""
        self._only = None if self.script.sessions else ScriptedConversation(self.engine)
        self._standing: set[StandingChannel] = set()

    async def __aenter__(self) -> "HttpBackend":
        await self.listen()
        return self

    @property
    def url(self) -> str:
        """The MCP endpoint."""
        return f"{self.origin}/mcp"

    async def wait_get_stream(self, count: int = 1) -> None:
        """Wait until that many GET streams are open."""
        await self.recorder.wait_until(lambda: len(self._standing) >= count, f"{count} GET streams")

    def forget_sessions(self) -> None:
        """Forget all sessions, as a restart does: requests get 404, GET streams end."""
        for conversation in self.sessions.values():
            conversation.close()
        self.sessions.clear()
        self.end_get_streams()

    def end_get_streams(self) -> None:
        """End every GET stream in good order."""
        for channel in self._standing:
            channel.over.set()

    async def _serve(self, exchange: HttpExchange) -> bool:
        if exchange.target.partition("?")[0] != "/mcp":
            return await exchange.respond(404)
        match exchange.method:
            case "POST":
                return await self._post(exchange)
            case "GET" if self.script.get_stream and self.script.era != "modern":
                return await self._get(exchange)
            case "DELETE" if self.script.sessions and self.script.era != "modern":
                return await self._delete(exchange)
        return await exchange.respond(405, b"", (("Allow", "POST"),))

    # --- POST -------------------------------------------------------------------------------------------------------

    async def _post(self, exchange: HttpExchange) -> bool:
        accepts = exchange.get("accept") or ""
        if "application/json" not in accepts or "text/event-stream" not in accepts:
            return await _refused(exchange, 406, Refusal(-32600, "Not Acceptable: accept both JSON and event streams"))
        if (exchange.get("content-type") or "").partition(";")[0].strip() != "application/json":
            return await _refused(exchange, 415, Refusal(-32600, "Unsupported Media Type"))
        try:
            incoming = message.read(exchange.body)
        except ValueError:
            self.recorder.add(Received("garbage", exchange.body, headers=exchange.headers, connection=exchange.number))
            return await _refused(exchange, 400, Refusal(-32700, "Parse error"))
        if self._is_modern(exchange, incoming):
            return await self._post_modern(exchange, incoming)
        return await self._post_handshake(exchange, incoming)

    def _is_modern(self, exchange: HttpExchange, incoming: Message) -> bool:
        if self.script.era != "both":
            return self.script.era == "modern"
        is_named = exchange.get("mcp-protocol-version") == MODERN_VERSION and incoming.method != "initialize"
        return is_named or incoming.meta_version is not None

    async def _post_modern(self, exchange: HttpExchange, incoming: Message) -> bool:
        conversation = ScriptedConversation(self.engine, number=exchange.number)
        try:
            if conversation.accept(exchange.body, exchange.headers) is None:
                return await exchange.respond(202)
            self._check_modern(exchange, incoming)
            return await self._answer(exchange, incoming, conversation)
        except Refusal as refusal:
            return await _refused(exchange, _status(refusal.code), refusal, incoming.id or b"null")
        finally:
            self.engine.conversations.discard(conversation)

    def _check_modern(self, exchange: HttpExchange, incoming: Message) -> None:
        if incoming.method == "initialize" and incoming.meta_version is None:
            raise modern.unsupported(jsontext.value(jsontext.member(incoming.params, "protocolVersion")))
        modern.check_meta(incoming, exchange.headers)
        if incoming.method == "initialize":
            raise Refusal(-32601, "Method not found", {"method": "initialize"})
        name = jsontext.value(jsontext.member(incoming.params, "name"))
        if incoming.method == "tools/call" and name in self.engine.offers["tools"]:
            definition = self.engine.offers["tools"][name].definition
            modern.check_arguments(incoming, exchange.headers, definition.encode("utf-8", "surrogateescape"))

    async def _post_handshake(self, exchange: HttpExchange, incoming: Message) -> bool:
        version = exchange.get("mcp-protocol-version")
        if version is not None and version not in self.script.versions:
            return await _refused(exchange, 400, Refusal(-32000, f"Unsupported protocol version {version}"))
        session = None
        if incoming.method == "initialize":
            conversation = self._new_session(exchange)
            session = conversation.session
        else:
            found = self._session_of(exchange)
            if isinstance(found, int):
                if self.unknown_session is not None:
                    fault = self.unknown_session
                    body = fault.body.replace(b"$ID", incoming.id or b"null")
                    return await exchange.respond(fault.status, body, fault.headers)
                why = "Session not found" if found == 404 else "Missing session ID"
                return await _refused(exchange, found, Refusal(-32600, why))
            conversation = found
        if (pending := conversation.accept(exchange.body, exchange.headers)) is None or pending.id is None:
            if pending is not None:
                self._background(conversation, pending)
            return await exchange.respond(202)
        headers = () if session is None else (("Mcp-Session-Id", session),)
        return await self._answer(exchange, incoming, conversation, headers)

    def _new_session(self, exchange: HttpExchange) -> ScriptedConversation:
        if self._only is not None:
            return self._only
        session = secrets.token_hex(16)
        self.sessions[session] = ScriptedConversation(self.engine, number=exchange.number, session=session)
        return self.sessions[session]

    def _session_of(self, exchange: HttpExchange) -> ScriptedConversation | int:
        if self._only is not None:
            self._only.is_initialized = True
            return self._only
        session = exchange.get("mcp-session-id")
        if session is None:
            return 400
        return self.sessions.get(session, 404)

    def _background(self, conversation: ScriptedConversation, pending: Message) -> None:
        nowhere = _Nowhere(conversation)
        self.spawn(conversation.answer(pending, nowhere), f"scripted {pending.method}")

    async def _answer(
        self, exchange: HttpExchange, incoming: Message, conversation: ScriptedConversation, headers: Headers = ()
    ) -> bool:
        mode = "sse" if incoming.method == "subscriptions/listen" else self.script.replies
        channel = ReplyChannel(exchange, mode, conversation)
        channel.headers, channel.is_modern = headers, self._is_modern(exchange, incoming)
        answered = asyncio.Event()
        work = self.spawn(conversation.answer(incoming, channel, exchange.headers), f"turn {incoming.method}")
        work.add_done_callback(lambda _: answered.set())
        await first_of(answered, exchange.wire.ended)
        if answered.is_set():
            if channel.state == "waiting" and not work.cancelled() and not work.result():
                await exchange.wire.ended.wait()
            await channel.finish()
        elif channel.is_modern:
            # leaving is the modern cancellation; in the handshake era the turn goes on without a reader
            conversation.give_up(incoming.id or b"", b"disconnected")
        return not exchange.wire.ended.is_set()

    # --- GET and DELETE -----------------------------------------------------------------------------------------------

    async def _get(self, exchange: HttpExchange) -> bool:
        found = self._session_of(exchange)
        if isinstance(found, int):
            return await exchange.respond(found)
        channel = StandingChannel(exchange)
        await exchange.wire.write(compose("HTTP/1.1 200 OK", STREAM))
        self._standing.add(channel)
        found.open_standing(channel)
        self.recorder.wake()
        try:
            await first_of(channel.over, exchange.wire.ended)
        finally:
            self._standing.discard(channel)
            found.close_standing(channel)
        await exchange.wire.write(chunk(b""))
        return not exchange.wire.ended.is_set()

    async def _delete(self, exchange: HttpExchange) -> bool:
        session = exchange.get("mcp-session-id") or ""
        self.deletes.append(session)
        self.recorder.wake()
        conversation = self.sessions.pop(session, None)
        if conversation is None:
            return await exchange.respond(404)
        conversation.close()
        for channel in self._standing:
            if channel is conversation.standing:
                channel.over.set()
        return await exchange.respond(200)


class _Nowhere:
    """The channel of a scripted notification: what is sent takes the standing stream."""

    def __init__(self, conversation: ScriptedConversation) -> None:
        self._conversation = conversation

    def __repr__(self) -> str:
        return f"<_Nowhere of {self._conversation!r}>"

    async def send(self, message: bytes, *, final: bool = False) -> None:
        """Send once a stream is open."""
        await self._conversation.standing_opened.wait()
        await self._conversation.emit(message)

    async def write(self, data: bytes) -> None:
        """Write once a stream is open."""
        await self._conversation.standing_opened.wait()
        if self._conversation.standing is not None:
            await self._conversation.standing.write(data)

    def drop(self, code: int) -> None:
        """Reset the standing stream."""
        if self._conversation.standing is not None:
            self._conversation.standing.drop(code)


def _status(code: object) -> int:
    if code == -32601:
        return 404
    return 400 if code in _BAD_REQUESTS else 200


async def _refused(exchange: HttpExchange, status: int, refusal: Refusal, id_: bytes = b"null") -> bool:
    return await exchange.respond_json(status, message.failure(id_, refusal.text))
