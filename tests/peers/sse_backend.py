"""A scripted backend over the HTTP+SSE transport of 2024-11-05: one event stream, messages by POST."""

import secrets
from typing import Literal

from tests.peers.conversation import ScriptedConversation
from tests.peers.http_backend import STREAM, StandingChannel
from tests.peers.http_wire import chunk, compose, event
from tests.peers.listener import HttpExchange, Listener
from tests.peers.script import Script
from tests.peers.wire import first_of

Endpoint = Literal["relative", "absolute", "foreign"]


class SseBackend(Listener):
    """`async with SseBackend(script) as b: b.url`.

    `endpoint` is how the POST address is told; `foreign` is another host.
    """

    def __init__(
        self, script: Script | None = None, *, token: str | None = None, port: int = 0, endpoint: Endpoint = "relative"
    ) -> None:
        super().__init__(script, token=token, port=port)
        self.endpoint: Endpoint = endpoint
        self.streams: dict[str, ScriptedConversation] = {}
        self._channels: dict[str, StandingChannel] = {}

    async def __aenter__(self) -> "SseBackend":
        await self.listen()
        return self

    @property
    def url(self) -> str:
        """The event stream's address."""
        return f"{self.origin}/sse"

    def end_streams(self) -> None:
        """End every event stream in good order."""
        for channel in self._channels.values():
            channel.over.set()

    async def _serve(self, exchange: HttpExchange) -> bool:
        path, _, query = exchange.target.partition("?")
        match exchange.method, path:
            case "GET", "/sse":
                return await self._stream(exchange)
            case "POST", "/messages":
                return await self._message(exchange, query.removeprefix("session_id="))
            case _, "/sse" | "/messages":
                return await exchange.respond(405)
        return await exchange.respond(404)

    async def _stream(self, exchange: HttpExchange) -> bool:
        session = secrets.token_hex(16)
        conversation = ScriptedConversation(self.engine, number=exchange.number, session=session)
        channel = self._channels[session] = StandingChannel(exchange)
        self.streams[session] = conversation
        conversation.open_standing(channel)
        address = f"{self._host()}/messages?session_id={session}".encode()
        await exchange.wire.write(compose("HTTP/1.1 200 OK", STREAM) + chunk(event(address, name="endpoint")))
        try:
            await first_of(channel.over, exchange.wire.ended)
        finally:
            del self.streams[session], self._channels[session]
            conversation.close_standing(channel)
            conversation.close()
        await exchange.wire.write(chunk(b""))
        return not exchange.wire.ended.is_set()

    def _host(self) -> str:
        return {"relative": "", "absolute": self.origin, "foreign": "http://127.0.0.2:9"}[self.endpoint]

    async def _message(self, exchange: HttpExchange, session: str) -> bool:
        conversation = self.streams.get(session)
        if conversation is None:
            return await exchange.respond(404)
        pending = conversation.accept(exchange.body, exchange.headers)
        if pending is not None:
            channel = self._channels[session]
            self.spawn(conversation.answer(pending, channel, exchange.headers), f"turn {pending.method}")
        return await exchange.respond(202, b"Accepted")
