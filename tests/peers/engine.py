"""A scripted backend without a transport: its offers, gates, watchers. Touches no socket, answers nothing itself."""

import asyncio
from collections.abc import Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from tests.peers import acts, jsontext, message
from tests.peers.message import META
from tests.peers.recorder import PeerRecorder
from tests.peers.script import Act, Offer, Script
from tests.peers.tasks import ScriptedTask
from tests.peers.turn import Turn

if TYPE_CHECKING:
    import subprocess

    from tests.peers.conversation import ScriptedConversation

_CHANGED: Final[Mapping[str, str]] = MappingProxyType(
    {
        "notifications/tools/list_changed": "toolsListChanged",
        "notifications/prompts/list_changed": "promptsListChanged",
        "notifications/resources/list_changed": "resourcesListChanged",
    }
)


class Engine:
    """The state that all conversations of one backend share."""

    def __init__(self, script: Script, recorder: PeerRecorder) -> None:
        self.script = script
        self.recorder = recorder
        self.offers: dict[str, dict[str, Offer]] = {}
        for kind in ("tools", "resources", "templates", "prompts"):
            self._adopt(kind, getattr(script, kind))
        self.conversations: set[ScriptedConversation] = set()
        self.listens: list[OpenListen] = []
        self.states: dict[str, tuple[int, tuple[bytes, ...]]] = {}
        self.tasks: dict[str, ScriptedTask] = {}
        self.grandchildren: list[subprocess.Popen[bytes]] = []
        self._gates: dict[str, asyncio.Event] = {}
        for act in script.on.values():
            _require_known(act)

    def __repr__(self) -> str:
        return f"<Engine {self.script.name} {len(self.conversations)} conversations>"

    def gate(self, name: str) -> asyncio.Event:
        """The event that acts with this gate wait for."""
        return self._gates.setdefault(name, asyncio.Event())

    def release(self, gate: str = "") -> None:
        """Open a gate for good; the unnamed one is the default."""
        self.gate(gate).set()

    def hold(self, gate: str = "") -> None:
        """Close a gate again."""
        self.gate(gate).clear()

    def _adopt(self, kind: str, offers: tuple[Offer, ...]) -> None:
        for offer in offers:
            _require_known(offer.act)
        self.offers[kind] = {offer.key(): offer for offer in offers}

    async def set_offers(self, kind: str, offers: tuple[Offer, ...], *, times: int = 1) -> None:
        """Replace the tools, resources, templates or prompts and announce it `times` times."""
        self._adopt(kind, offers)
        changed = "resources" if kind == "templates" else kind
        for _ in range(times):
            await self.announce(f"notifications/{changed}/list_changed")

    async def announce(self, method: str, params: str | None = None) -> None:
        """Send a notification to all standing streams, and to the subscriptions that ask for it."""
        raw = None if params is None else params.encode()
        uri = jsontext.value(jsontext.member(raw, "uri"))
        for conversation in list(self.conversations):
            if method != "notifications/resources/updated" or uri in conversation.subscribed:
                await conversation.emit(message.request(b"", method, raw))
        for listen in list(self.listens):
            await listen.tell(method, raw, uri)

    def end_listens(self) -> None:
        """End every subscription with its result, as a server does that shuts down."""
        for listen in self.listens:
            listen.ended.set()

    async def command(self, order: dict[str, Any]) -> None:
        """Execute an order of the test; orders are named after the methods above."""
        match order["do"]:
            case "release" | "hold" as name:
                getattr(self, name)(order["gate"])
            case "announce":
                await self.announce(order["method"], order["params"])
            case "set_offers":
                await self.set_offers(order["kind"], order["offers"], times=order["times"])
            case "end_listens":
                self.end_listens()
            case other:
                raise ValueError(f"no such order: {other}")


def _require_known(act: object) -> None:
    while isinstance(act, Act):
        if act.do not in acts.ACTS:
            raise ValueError(f"no act is called {act.do!r}")
        act = act.then


class OpenListen:
    """One open `subscriptions/listen` with its filter."""

    def __init__(self, turn: Turn, granted: dict[str, Any]) -> None:
        self.turn = turn
        self.granted = granted
        self.ended = asyncio.Event()

    def __repr__(self) -> str:
        return f"<OpenListen {self.turn.message.id!r} {self.granted}>"

    def stamp(self) -> bytes:
        """The `_meta` member that every message of this subscription carries."""
        return b'"_meta":{"%bsubscriptionId":%b}' % (META.encode(), self.turn.message.id or b"null")

    async def tell(self, method: str, params: bytes | None, uri: object) -> None:
        """Send a notification that the filter admits."""
        wanted = _CHANGED.get(method)
        member, name = "resourceSubscriptions", uri
        if method == "notifications/tasks":
            member, name = "taskIds", jsontext.value(jsontext.member(params, "taskId"))
        if self.granted.get(wanted) is True if wanted else name in self.granted.get(member, ()):
            await self.turn.notify(method, jsontext.with_members(params or b"{}", self.stamp()))
