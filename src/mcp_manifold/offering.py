"""What a scope says of itself: who it is, what it can do, what it lists. Answered from the hub's view alone."""

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec

from mcp_manifold import wire
from mcp_manifold.call import Call, Handler
from mcp_manifold.catalogue import Kind, encode_list
from mcp_manifold.errors import InvalidParams
from mcp_manifold.hub import Hub, View
from mcp_manifold.wire import MODERN_VERSION, Payload
from mcp_manifold.wire.protocol import META_SERVER_INFO

LISTS: Final = {
    "tools/list": (Kind.TOOL, "tools"),
    "prompts/list": (Kind.PROMPT, "prompts"),
    "resources/list": (Kind.RESOURCE, "resources"),
    "resources/templates/list": (Kind.TEMPLATE, "resourceTemplates"),
}
MAX_INSTRUCTIONS: Final = 4000
"""Characters of one backend's instructions that are passed on: they are put into a model's context."""
_PRIVATE: Final = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}


class Offering:
    """See the module. Holds nothing but what it is told at its making."""

    def __init__(self, hub: Hub, *, server_info: Payload, instructions: str) -> None:
        self._hub = hub
        self._server_info = server_info
        self._instructions = instructions

    def __repr__(self) -> str:
        return f"<Offering {self._hub!r}>"

    @property
    def methods(self) -> Mapping[str, Handler]:
        """The methods it answers."""
        return {
            "initialize": self._initialize,
            "server/discover": self._discover,
            "ping": self._ping,
            **dict.fromkeys(LISTS, self._list),
        }

    async def _initialize(self, call: Call) -> Payload:
        scope, version = call.session.scope, call.session.version
        await self._hub.settle(scope)
        view = self._hub.view(scope)
        answer: dict[str, object] = {
            "protocolVersion": version,
            "capabilities": _capabilities(view, listens=True, completions=version != "2024-11-05"),
            "serverInfo": self._server_info,
        }
        instructions = self._merged_instructions(view, scope)
        if instructions:
            answer["instructions"] = instructions
        return Payload(wire.encode(answer))

    async def _discover(self, call: Call) -> Payload:
        scope = call.session.scope
        await self._hub.settle(scope)
        view = self._hub.view(scope)
        answer: dict[str, object] = {
            "supportedVersions": [MODERN_VERSION],
            "capabilities": _capabilities(view, listens=False, completions=True),
            **_PRIVATE,
            "_meta": {META_SERVER_INFO: self._server_info},
        }
        instructions = self._merged_instructions(view, scope)
        if instructions:
            answer["instructions"] = instructions
        return Payload(wire.encode(answer))

    async def _ping(self, call: Call) -> Payload:
        return wire.EMPTY

    async def _list(self, call: Call) -> Payload:
        if "cursor" in call.params and wire.first_byte(call.params["cursor"]) != b"n":
            raise InvalidParams("Invalid cursor: lists are served whole, so no cursor was ever given out")
        kind, member = LISTS[call.method]
        await self._hub.settle(call.session.scope)
        view = self._hub.view(call.session.scope)
        version = call.session.version
        found = view.encoded.get((kind, version))
        if found is None:
            found = view.encoded[(kind, version)] = self._encode(view, kind, member, version)
        return found

    def _encode(self, view: View, kind: Kind, member: str, version: str) -> Payload:
        items = Payload(encode_list(view.catalogue.entries(kind), kind, version=version))
        if version != MODERN_VERSION:
            return Payload(wire.encode({member: items}))
        return Payload(wire.encode({member: items, **_PRIVATE, "_meta": {META_SERVER_INFO: self._server_info}}))

    def _merged_instructions(self, view: View, scope: str) -> str:
        """Our own, then each backend's under its name; backends speak of their tools by native names."""
        if scope.startswith("server:"):
            return "\n\n".join(listing.instructions for listing in view.listings)
        parts = [self._instructions] if self._instructions else []
        parts += [
            f"# Server {listing.backend}\n{_cut(listing.instructions)}"
            for listing in view.listings
            if listing.instructions and listing.backend in view.catalogue.backends
        ]
        return "\n\n".join(parts)


def _capabilities(view: View, *, listens: bool, completions: bool) -> dict[str, Any]:
    """What the scope offers. Lists may always come and go, so they are declared even while they are empty."""
    changing = {"listChanged": True} if listens else {}
    offered: dict[str, Any] = {"tools": changing, "resources": changing, "prompts": changing}
    if completions and any("completions" in _declared(listing.capabilities) for listing in view.listings):
        offered["completions"] = {}
    return offered


_declared: Callable[[bytes], dict[str, Payload]] = msgspec.json.Decoder(dict[str, Payload]).decode


def _cut(text: str) -> str:
    return text if len(text) <= MAX_INSTRUCTIONS else text[:MAX_INSTRUCTIONS] + " [...]"
