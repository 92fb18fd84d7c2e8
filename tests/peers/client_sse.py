"""A raw client over HTTP+SSE (2024-11-05): one event stream, messages by POST."""

import asyncio
from typing import Any
from urllib.parse import urljoin

from tests.peers import BOUND, message
from tests.peers.client import Client, Params, PendingRequest, Reply, raw_params
from tests.peers.http_caller import HttpCaller, Response
from tests.peers.http_wire import Headers, WireEvent


class SseClient(Client):
    """`async with SseClient(url) as c: await c.connect("2024-11-05")`."""

    def __init__(self, url: str, *, token: str | None = None, headers: Headers = (), **options: Any) -> None:
        super().__init__(**options)
        self.url = url
        self.caller = HttpCaller(url, token=token, headers=headers)
        self.endpoint: str | None = None
        """Where to POST, as the server told it."""
        self.events: list[WireEvent] = []
        self.stream_ended = asyncio.Event()
        self._stream: Response | None = None

    async def open_stream(self) -> int:
        """GET the stream and read the endpoint; the status, which only 200 is good."""
        self._stream = await self.caller.send("GET", (("Accept", "text/event-stream"),))
        if self._stream.status == 200:
            async with asyncio.timeout(BOUND):
                first = await self._stream.next_event()
            assert first is not None, "the stream ended before the endpoint"
            assert first.name == "endpoint", first
            self.events.append(first)
            self.endpoint = first.data.decode()
            self._start(self._follow(self._stream))
        return self._stream.status

    async def connect(self, version: str = "2024-11-05") -> Reply:
        """Open the stream, then shake hands. A stream that is refused is a reply with its status."""
        status = await self.open_stream() if self.endpoint is None else 200
        if status != 200:
            return Reply(b"", status=status)
        return await super().connect(version)

    async def post(self, body: bytes | str, *, endpoint: str | None = None) -> int:
        """One raw POST to the endpoint (or another one); the status."""
        raw = body.encode() if isinstance(body, str) else body
        where = urljoin(self.url, endpoint or self.endpoint or "")
        target = where.removeprefix(self.url.split("/", 3)[0] + "//" + self.caller.authority)
        json = (("Content-Type", "application/json"),)
        async with await self.caller.send("POST", json, raw, target=target) as response:
            await response.body.all()
            return response.status

    async def notify(self, method: str, params: Params = None) -> None:
        """Send a notification."""
        await self._post(message.request(b"", method, raw_params(params)))

    async def watch(self) -> None:
        """Everything comes on the one stream."""

    async def close(self) -> None:
        """Leave the stream."""
        await self._end()
        await self.caller.close()

    async def _send(self, pending: PendingRequest) -> None:
        await self._post(message.request(pending.id, pending.method, pending.params))

    async def _respond(self, response: bytes) -> None:
        await self._post(response)

    async def _post(self, body: bytes) -> None:
        status = await self.post(body)
        if status != 202:
            raise ConnectionError(f"the message was answered with {status}")

    async def _follow(self, stream: Response) -> None:
        async with stream:
            try:
                while (event := await stream.events.next()) is not None:
                    self.events.append(event)
                    if event.data:
                        self._take(event.data)
            except ConnectionError:
                self.stream_ended.set()
        self.stream_ended.set()
        for pending in self.pending.values():
            pending.fail(ConnectionResetError("the event stream ended"))
