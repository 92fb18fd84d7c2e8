"""Raw clients over Streamable HTTP: the handshake revisions with sessions, and 2026-07-28 without. Hide nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tests.peers import jsontext, message, modern
from tests.peers.client import Client, Params, PendingRequest, Reply, raw_params
from tests.peers.http_caller import HttpCaller, Response
from tests.peers.http_wire import Headers, WireEvent, header
from tests.peers.message import MODERN_VERSION, NAMED, Message

_UNVERSIONED = ("2024-11-05", "2025-03-26")


@dataclass(frozen=True, slots=True)
class HttpReply:
    """A whole HTTP response; `events` if it was a stream, comments included."""

    status: int
    headers: Headers
    body: bytes
    events: tuple[WireEvent, ...] = ()

    def get(self, name: str) -> str | None:
        """The first header of that name."""
        return header(self.headers, name)

    @property
    def messages(self) -> list[bytes]:
        """The JSON-RPC messages it carried."""
        return [event.data for event in self.events if event.data] if self.events else [self.body]

    @property
    def error_code(self) -> int | None:
        """The code of the JSON-RPC error in it."""
        found = jsontext.value(jsontext.member(self.messages[-1], "error", "code")) if self.body else None
        return None if found is None else int(found)


class GetStream:
    """An open GET stream; its messages reach the client as they come."""

    def __init__(self, response: Response) -> None:
        self._response = response
        self.events: list[WireEvent] = []
        self.has_ended = False

    def __repr__(self) -> str:
        return f"<GetStream {self.status} {len(self.events)} events{' ended' if self.has_ended else ''}>"

    @property
    def status(self) -> int:
        """The HTTP status; only 200 is a stream."""
        return self._response.status

    @property
    def headers(self) -> Headers:
        """The response's headers."""
        return self._response.headers

    def close(self) -> None:
        """Leave it."""
        self._response.wire.close()

    async def follow(self, take: Callable[[bytes], None]) -> None:
        """Hand over every message until the stream ends."""
        async with self._response:
            try:
                while (event := await self._response.events.next()) is not None:
                    if not event.raw.startswith(b":"):  # a comment is no event
                        self.events.append(event)
                    if event.data:
                        take(event.data)
            except ConnectionError:
                self.has_ended = True
            self.has_ended = True


class HttpClient(Client):
    """`async with HttpClient(url) as c: await c.connect("2025-11-25")`."""

    def __init__(self, url: str, *, token: str | None = None, headers: Headers = (), **options: Any) -> None:
        super().__init__(**options)
        self.caller = HttpCaller(url, token=token, headers=headers)
        self.session: str | None = None
        self.override: dict[str, str | None] = {}
        """Headers that replace ours (by lower-case name; None: not sent), to break them one by one."""
        self.extra: Headers = ()
        """Headers sent besides, duplicates allowed."""

    async def exchange(
        self, body: bytes | str | None = None, headers: Headers = (), *, method: str = "POST"
    ) -> HttpReply:
        """One raw HTTP request with exactly these headers (and Host, token, length), its response read to the end."""
        raw = body.encode() if isinstance(body, str) else body
        async with await self.caller.send(method, headers, raw) as response:
            if not response.is_stream:
                return HttpReply(response.status, response.headers, await response.body.all())
            events = []
            while (event := await response.events.next()) is not None:
                events.append(event)
            return HttpReply(response.status, response.headers, b"".join(e.raw for e in events), tuple(events))

    async def post(self, body: bytes | str, message_headers: Headers | None = None) -> HttpReply:
        """One raw POST with the ordinary headers of this conversation, or those given instead."""
        return await self.exchange(body, self.headers_for(None) if message_headers is None else message_headers)

    async def notify(self, method: str, params: Params = None) -> None:
        """Send a notification.

        Raises:
            AssertionError: it was not accepted.
        """
        reply = await self.post(message.request(b"", method, raw_params(params)))
        assert reply.status == 202, reply

    async def watch(self) -> None:
        """Open the GET stream."""
        stream = await self.open_get_stream()
        assert stream.status == 200, stream

    async def open_get_stream(self, *, last_event_id: str | None = None) -> GetStream:
        """GET; a stream that is one is followed from now on."""
        resume = () if last_event_id is None else (("Last-Event-ID", last_event_id),)
        headers = (("Accept", "text/event-stream"), *self._session_headers(), *resume, *self.extra)
        stream = GetStream(await self.caller.send("GET", self._overridden(headers)))
        if stream.status == 200:
            self._start(stream.follow(self._take))
        else:
            stream.close()
        return stream

    async def delete(self) -> int:
        """End the session; the status."""
        reply = await self.exchange(None, self._overridden(self._session_headers()), method="DELETE")
        return reply.status

    async def cancel(self, pending: PendingRequest) -> None:
        """Handshake: the notification. Modern: close the response."""
        if self.is_modern:
            self.abandon(pending)
        else:
            await super().cancel(pending)

    def abandon(self, pending: PendingRequest) -> None:
        """Close the connection that a request waits on."""
        if pending.work is not None:
            pending.work.cancel()

    async def close(self) -> None:
        """Close every connection; the session is not deleted."""
        await self._end()
        await self.caller.close()

    # --- headers ----------------------------------------------------------------------------------------------------

    def headers_for(self, sent: PendingRequest | None) -> Headers:
        """The headers a POST carries."""
        plain = (("Content-Type", "application/json"), ("Accept", "application/json, text/event-stream"))
        named = self._modern_headers(sent) if self.is_modern else self._session_headers()
        return (*self._overridden((*plain, *named)), *self.extra)

    def _overridden(self, headers: Headers) -> Headers:
        kept = tuple((name, value) for name, value in headers if name.lower() not in self.override)
        return kept + tuple((name, value) for name, value in self.override.items() if value is not None)

    def _session_headers(self) -> Headers:
        session = () if self.session is None else (("Mcp-Session-Id", self.session),)
        is_told = self.version is not None and self.version not in _UNVERSIONED and self.is_connected
        return session + ((("MCP-Protocol-Version", self.version or ""),) if is_told else ())

    def _modern_headers(self, sent: PendingRequest | None) -> Headers:
        version = (("MCP-Protocol-Version", MODERN_VERSION),)
        if sent is None:
            return version
        params = dict(NAMED).get(sent.method)
        name = jsontext.value(jsontext.member(sent.params, params)) if params is not None else None
        named = (("Mcp-Name", modern.encode_header(str(name))),) if name is not None else ()
        return (*version, ("Mcp-Method", sent.method), *named, *self._param_headers(sent))

    def _param_headers(self, sent: PendingRequest) -> Headers:
        """What the last listed definition of the tool wants mirrored."""
        wanted = jsontext.member(sent.params, "name") if sent.method == "tools/call" else None
        for listed in reversed(self.received if wanted is not None else []):
            for tool in jsontext.elements(jsontext.member(listed.result, "tools") or b"[]"):
                if jsontext.member(tool, "name") == wanted:
                    shown = modern.mirrored(tool, sent.params)
                    return tuple((name, modern.encode_header(value)) for name, value in shown if value is not None)
        return ()

    # --- exchanging --------------------------------------------------------------------------------------------------

    async def _send(self, pending: PendingRequest) -> None:
        pending.work = self._start(self._converse(pending))

    async def _converse(self, pending: PendingRequest) -> None:
        body = message.request(pending.id, pending.method, pending.params)
        try:
            async with await self.caller.send("POST", self.headers_for(pending), body) as response:
                if response.get("mcp-session-id") is not None and pending.method == "initialize":
                    self.session = response.get("mcp-session-id")
                await (self._stream(response, pending) if response.is_stream else self._whole(response, pending))
        except OSError as problem:
            pending.fail(problem if isinstance(problem, ConnectionError) else ConnectionError(str(problem)))
        finally:
            self.pending.pop(pending.id, None)
            pending.fail(ConnectionAbortedError("given up"))

    async def _whole(self, response: Response, pending: PendingRequest) -> None:
        raw = await response.body.all()
        self._answered(raw, pending, response)

    async def _stream(self, response: Response, pending: PendingRequest) -> None:
        while (event := await response.next_event()) is not None:
            if _is_answer(event.data, pending.id):
                self._answered(event.data, pending, response)
            else:
                self._take(event.data, pending)
        if not pending.is_done:
            raise ConnectionResetError("the stream ended without an answer")

    def _answered(self, raw: bytes, pending: PendingRequest, response: Response) -> None:
        try:
            got = message.read(raw)
        except ValueError:
            got = Message(raw)
        self.received.append(got)
        self._arrived.set()
        self.pending.pop(pending.id, None)
        pending.answer(Reply(raw, got.result, got.error, pending.notifications, response.status, response.headers))

    async def _respond(self, response: bytes) -> None:
        reply = await self.post(response)
        assert reply.status == 202, reply


def _is_answer(raw: bytes, id_: bytes) -> bool:
    try:
        found = message.read(raw)
    except ValueError:
        return False
    return found.is_response and found.id == id_


class ModernClient(HttpClient):
    """2026-07-28 over HTTP: `async with ModernClient(url) as c: await c.connect()`.

    To break requests: `override` and `extra` for headers, `meta_override` for the reserved members of `_meta`.
    """

    def __init__(self, url: str, **options: Any) -> None:
        super().__init__(url, **options)
        self.version = MODERN_VERSION
        self.meta_override: dict[str, bytes | None] = {}
        """Reserved members of `_meta` by short name, raw (None: not sent), that replace ours."""

    async def connect(self, version: str = MODERN_VERSION) -> Reply:
        """Discover."""
        return await super().connect(version)

    async def watch(self) -> None:
        """Listen to every list."""
        await (await self.listen(message.EVERY_CHANGE)).heard()

    async def listen(self, notifications: Mapping[str, object]) -> PendingRequest:
        """Open a `subscriptions/listen` stream; what it brings is in the pending's notifications, the ack first."""
        return await self.begin("subscriptions/listen", {"notifications": dict(notifications)})

    def _meta(self) -> dict[str, bytes | None]:
        return {**super()._meta(), **self.meta_override}
