"""A router over servers that have listed, with backends that answer as they are told."""

import json
from collections.abc import Callable
from typing import Any, cast

import pytest

from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.config import LimitSettings, ManifoldSettings, ServerSettings
from mcp_manifold.core.bridge import Bridge
from mcp_manifold.core.hub import Hub
from mcp_manifold.core.router import Router
from mcp_manifold.core.lists import ScopeResponder
from mcp_manifold.errors import BackendUnavailable, ManifoldError
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.model.policy import ANONYMOUS, policy_of
from mcp_manifold.wire import LATEST_HANDSHAKE, Era, Payload, encode

LISTS = ("tools/list", "prompts/list", "resources/list", "resources/templates/list")
INFO = Payload(b'{"name":"ours","version":"1"}')
META = {"io.modelcontextprotocol/serverInfo": {"name": "ours", "version": "1"}}
Answer = Callable[[str, dict[str, Any]], object]


class FakeBackend:
    """Answers as it is told, and remembers what it was asked."""

    def __init__(self, name: str, era: Era, answer: Answer) -> None:
        self.name = name
        self.era = era
        self.has_connected = True
        self.asked: list[tuple[str, dict[str, Any]]] = []
        self._answer = answer

    async def request(self, call: Call, method: str, params: dict[str, Payload]) -> Payload:
        call.backend_era = self.era
        asked = json.loads(encode(params))
        self.asked.append((method, asked))
        result = self._answer(method, asked)
        if isinstance(result, Exception):
            raise result
        return Payload(result if isinstance(result, bytes) else json.dumps(result).encode())


class FakeFleet(dict[str, FakeBackend]):
    """Backends by name."""

    def one(self, name: str) -> FakeBackend | None:
        return self.get(name)

    def find(self, name: str) -> FakeBackend:
        if name not in self:
            raise BackendUnavailable(name, "is no longer configured")
        return self[name]


def nothing(method: str, params: dict[str, Any]) -> object:
    return {}


def unheard(message: bytes, /, *, needed: bool = False) -> None:
    raise AssertionError(message)


class House:
    """A router over servers that have listed."""

    def __init__(self, *servers: ServerSettings, instructions: str = "", **settings: Any) -> None:
        manifold = ManifoldSettings.model_validate({"startup_timeout": 0.01, **settings})
        self.hub = Hub(servers, manifold, policy_of(servers))
        self.fleet = FakeFleet()
        fleet = cast("Fleet", self.fleet)  # only what the router asks of one
        self.bridge = Bridge(LimitSettings(), names_server=lambda scope: False)
        offering = ScopeResponder(self.hub, server_info=INFO, instructions=instructions)
        self.router = Router(self.hub, fleet, self.bridge, local=offering.methods, server_info=INFO)

    def offers(self, name: str, answer: Answer = nothing, *, era: Era = "handshake", **lists: Any) -> FakeBackend:
        """The backend, connected and listed."""
        members = {"tools": "name", "prompts": "name", "resources": "uri", "templates": "uriTemplate"}
        items: dict[str, Any] = {
            kind: tuple(json.dumps(item if isinstance(item, dict) else {"name": item, member: item}).encode()
                        for item in lists.pop(kind, ()))
            for kind, member in members.items()
        }  # fmt: skip
        self.hub.adopt(Listing(name, 1, era, **items, **lists))
        self.fleet[name] = FakeBackend(name, era, answer)
        return self.fleet[name]

    async def raw(self, method: str, version: str = LATEST_HANDSHAKE, scope: str = "", **params: Any) -> bytes:
        session = Session("", ANONYMOUS, scope, version)
        call = Call(method, {key: Payload(encode(value)) for key, value in params.items()}, session, unheard)
        return bytes(await self.router.route(call))

    async def ask(self, method: str, version: str = LATEST_HANDSHAKE, scope: str = "", **params: Any) -> Any:
        return json.loads(await self.raw(method, version, scope, **params))

    async def refused(self, method: str, version: str = LATEST_HANDSHAKE, **params: Any) -> ManifoldError:
        with pytest.raises(ManifoldError) as caught:
            await self.raw(method, version, **params)
        return caught.value


def server(name: str, **settings: Any) -> ServerSettings:
    return ServerSettings.model_validate({"name": name, "command": "x", **settings})
