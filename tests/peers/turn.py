"""One request at a scripted backend, and the channel of its replies."""

import asyncio
import re
from typing import TYPE_CHECKING, Final, Protocol

from tests.peers import jsontext, message
from tests.peers.message import META, Message
from tests.peers.wire import first_of

if TYPE_CHECKING:
    from tests.peers.conversation import ScriptedConversation

_SLOT: Final = re.compile(rb"\$(ID|TOKEN|ARGS|TEXT|NAME)")


class TurnChannel(Protocol):
    """The way of a backend's messages: stdout, one HTTP reply, or one event stream."""

    async def send(self, message: bytes, *, final: bool = False) -> None:
        """Frame and write one message; `final` says that it answers the request."""

    async def write(self, data: bytes) -> None:
        """Write bytes below the framing."""

    def drop(self, code: int) -> None:
        """End the process, or cut the connection, at once."""


class Turn:
    """A request, or a notification (no id), that an act handles."""

    def __init__(
        self,
        conversation: "ScriptedConversation",
        incoming: Message,
        channel: TurnChannel,
        *,
        modern: bool,
        headers: tuple[tuple[str, str], ...] = (),
    ) -> None:
        self.conversation = conversation
        self.message = incoming
        self.channel = channel
        self.modern = modern
        self.headers = headers
        self.cancelled = asyncio.Event()

    def __repr__(self) -> str:
        return f"<Turn {self.method} id={self.message.id!r}{' cancelled' if self.cancelled.is_set() else ''}>"

    @property
    def method(self) -> str:
        """The request's method."""
        return self.message.method or ""

    @property
    def is_owed(self) -> bool:
        """Whether an answer is still expected."""
        return self.message.id is not None and not self.cancelled.is_set()

    def param(self, *path: str) -> bytes | None:
        """A raw slice of the params."""
        return jsontext.member(self.message.params, *path)

    def text_param(self, *path: str) -> str:
        """A string member of the params; empty when absent.

        Raises:
            Refusal: -32602, it is no string.
        """
        found = jsontext.value(self.param(*path))
        if found is not None and not isinstance(found, str):
            raise message.Refusal(-32602, f"{path[-1]} must be a string")
        return found or ""

    def meta(self, name: str) -> bytes | None:
        """A reserved member of the request's `_meta`."""
        return self.param("_meta", META + name)

    def result(self, members: bytes) -> bytes:
        """A result object of these members in the era of the request."""
        head = b'"resultType":"complete"' if self.modern else b""
        return b"{" + b",".join(part for part in (head, members) if part) + b"}"

    def fill(self, template: str) -> bytes:
        """A template's bytes with slices of this request in its slots."""
        slots = {
            b"ID": self.message.id or b"null",
            b"TOKEN": self.param("_meta", "progressToken") or b"null",
            b"ARGS": self.param("arguments") or b"{}",
            b"TEXT": self.param("arguments", "text") or b'""',
            b"NAME": self.param("name") or b'""',
        }
        return _SLOT.sub(lambda hit: slots[hit.group(1)], template.encode("utf-8", "surrogateescape"))

    async def notify(self, method: str, params: bytes) -> None:
        """A notification on this request's own channel."""
        await self.channel.send(message.request(b"", method, params))

    async def reply(self, result: bytes) -> None:
        """Answer, unless the request was given up or is a notification."""
        if self.is_owed:
            await self.channel.send(message.response(self.message.id or b"null", result), final=True)

    async def fail(self, error: bytes) -> None:
        """Answer with an error object, unless the request was given up or is a notification."""
        if self.is_owed:
            await self.channel.send(message.failure(self.message.id or b"null", error), final=True)

    async def ask(self, method: str, params: bytes) -> Message:
        """Send a request of the backend's own on this channel and wait for what comes back."""
        return await self.conversation.ask(method, params, self)

    async def held(self, gate: str) -> bool:
        """Wait for a gate to open; False when the request was given up first."""
        await first_of(self.conversation.engine.gate(gate), self.cancelled)
        return not self.cancelled.is_set()
