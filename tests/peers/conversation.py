"""One client's conversation with a scripted backend: eras, ids, cancellation, ordinary answers. Knows no transport."""

import asyncio
import itertools
from collections.abc import Coroutine, Mapping
from types import MappingProxyType
from typing import Any, Final

from tests.peers import acts, answers, jsontext, message, modern, tasks
from tests.peers.engine import Engine, OpenListen
from tests.peers.message import LATEST_HANDSHAKE, Message, Refusal
from tests.peers.recorder import Received
from tests.peers.script import Act, Offer
from tests.peers.turn import Turn, TurnChannel
from tests.peers.wire import first_of

_CAPABILITY: Final[Mapping[str, str]] = MappingProxyType(
    {
        "tools": "tools",
        "resources": "resources",
        "prompts": "prompts",
        "completion": "completions",
        "logging": "logging",
    }
)
_MODERN_ONLY: Final = ("server/discover", "subscriptions/listen")


class ScriptedConversation:
    """One client's connection, session or (modern over HTTP) single request."""

    def __init__(self, engine: Engine, *, number: int = 0, session: str | None = None) -> None:
        self.engine = engine
        self.number = number
        self.session = session
        self.version: str | None = None
        self.era: str | None = None
        self.is_initialized = not engine.script.require_initialize
        self.level = "debug"
        self.subscribed: set[str] = set()
        self.client_capabilities: bytes = b"{}"
        self.standing: TurnChannel | None = None
        self.standing_opened = asyncio.Event()
        self.turns: dict[bytes, Turn] = {}
        self._asked: dict[bytes, tuple[asyncio.Future[Message], Turn | None]] = {}
        self._ask_ids = itertools.count(1)
        engine.conversations.add(self)

    def __repr__(self) -> str:
        return f"<ScriptedConversation {self.number} {self.era or 'new'} {self.version} {len(self.turns)} turns>"

    def close(self) -> None:
        """End the conversation and cancel what is in flight."""
        self.engine.conversations.discard(self)
        for id_ in list(self.turns):
            self.give_up(id_, b"disconnected")
        for future, _ in self._asked.values():
            future.cancel()

    def open_standing(self, channel: TurnChannel) -> None:
        """Use this channel for messages outside requests."""
        self.standing = channel
        self.standing_opened.set()

    def close_standing(self, channel: TurnChannel) -> None:
        """Forget this channel if it is the standing one."""
        if self.standing is channel:
            self.standing = None
            self.standing_opened.clear()

    async def emit(self, raw: bytes) -> None:
        """Send outside any request; dropped where no stream is open or the client is a modern one."""
        if self.standing is not None and self.era == "handshake":
            await self.standing.send(raw)

    # --- arriving -------------------------------------------------------------------------------------------------

    def accept(self, raw: bytes, headers: tuple[tuple[str, str], ...] = ()) -> Message | None:
        """Record a message. Returns it if it needs a turn; responses and plain notifications are handled here."""
        try:
            incoming = message.read(raw)
        except ValueError:
            self._record("garbage", Message(raw), headers)
            return None
        kind = "request" if incoming.is_request else "response" if incoming.is_response else "notification"
        self._record(kind, incoming, headers)
        if incoming.is_response:
            future, _ = self._asked.pop(incoming.id or b"", (None, None))
            if future is not None and not future.done():
                future.set_result(incoming)
            return None
        return incoming if incoming.is_request else self._noted(incoming)

    def _noted(self, incoming: Message) -> Message | None:
        if incoming.method == "notifications/cancelled":
            self.give_up(jsontext.member(incoming.params, "requestId") or b"", incoming.raw)
        elif incoming.method == "notifications/initialized":
            self.is_initialized = True
        return incoming if incoming.method in self.engine.script.on else None

    def _record(self, kind: Any, incoming: Message, headers: tuple[tuple[str, str], ...] = ()) -> None:
        method = incoming.method or ""
        what = (kind, incoming.raw, method, incoming.id, incoming.params)
        self.engine.recorder.add(Received(*what, headers, self.session, self.number))

    def give_up(self, id_: bytes, why: bytes) -> None:
        """Cancel a turn and record why."""
        turn = self.turns.get(id_)
        if turn is not None and not turn.cancelled.is_set() and turn.method != "initialize":
            self._record("cancelled", Message(why, id_, turn.method, turn.message.params))
            turn.cancelled.set()
            for future, asker in self._asked.values():
                if asker is turn:
                    future.cancel()

    def answer(
        self, incoming: Message, channel: TurnChannel, headers: tuple[tuple[str, str], ...] = ()
    ) -> Coroutine[Any, Any, bool]:
        """Open the turn of a request (or a scripted notification); the coroutine deals with it to its end.

        The turn can be cancelled from now on, before the coroutine runs. It returns whether it was.
        """
        is_modern = incoming.method != "initialize" and (
            incoming.meta_version is not None or incoming.method in _MODERN_ONLY or self.engine.script.era == "modern"
        )
        turn = Turn(self, incoming, channel, modern=is_modern, headers=headers)
        if incoming.id is not None:
            self.turns[incoming.id] = turn
        return self._deal_with(turn)

    async def _deal_with(self, turn: Turn) -> bool:
        try:
            self._check_era(turn)
            await acts.perform(turn, self.engine.script.on.get(turn.method, Act("default")))
        except Refusal as refusal:
            await turn.fail(refusal.text)
        finally:
            if self.turns.get(turn.message.id or b"") is turn:
                del self.turns[turn.message.id or b""]
        return turn.cancelled.is_set()

    def _check_era(self, turn: Turn) -> None:
        script = self.engine.script
        if turn.modern and script.era == "handshake":
            if turn.method in _MODERN_ONLY:
                raise Refusal(-32601, "Method not found", {"method": turn.method})
            turn.modern = False
        elif turn.modern:
            modern.check_meta(turn.message)
        elif script.era == "modern":
            raise modern.unsupported(_requested(turn))
        if turn.message.id is not None and turn.method != "ping":
            self.era = "modern" if turn.modern else "handshake"
        if not turn.modern and not self.is_initialized and turn.method not in ("initialize", "ping"):
            raise Refusal(-32600, "Not initialized")

    # --- ordinary answers -------------------------------------------------------------------------------------------

    async def ordinary(self, turn: Turn) -> None:
        """Answer as a well-behaved server does."""
        method = turn.method
        for listing, kind, name in answers.LISTS:
            if method == listing:
                self._require_capability(turn)
                await turn.reply(answers.listed(turn, list(self.engine.offers[kind].values()), name))
                return
        if method in ("tools/call", "prompts/get", "resources/read"):
            self._require_capability(turn)
            await acts.perform(turn, self._offer(turn).act)
        elif method == "subscriptions/listen":
            await self._listen(turn)
        elif method.startswith("tasks/") and "tasks" in self.engine.script.capabilities:
            await tasks.answered(turn)
        else:
            await turn.reply(self._local(turn))

    def _offer(self, turn: Turn) -> Offer:
        offers = self.engine.offers
        if turn.method == "resources/read":
            uri = turn.text_param("uri")
            found = offers["resources"].get(uri) or answers.matching(offers["templates"], uri)
            if found is None:
                raise Refusal(-32602 if turn.modern else -32002, "Resource not found", {"uri": uri})
            return found
        kind, name = turn.method.split("/")[0], turn.text_param("name")
        if name not in offers[kind]:
            raise Refusal(-32602, f"Unknown {kind[:-1]}: {name}")
        return offers[kind][name]

    def _local(self, turn: Turn) -> bytes:
        match turn.method:
            case "initialize":
                return self._initialize(turn)
            case "server/discover":
                return answers.discovered(self.engine.script)
            case "ping" if not turn.modern:
                return b"{}"
        self._require_capability(turn)
        match turn.method:
            case "completion/complete":
                return answers.completed(turn)
            case "logging/setLevel" if not turn.modern:
                self.level = turn.text_param("level")
            case "resources/subscribe" if not turn.modern:
                self.subscribed.add(turn.text_param("uri"))
            case "resources/unsubscribe" if not turn.modern:
                self.subscribed.discard(turn.text_param("uri"))
            case other:
                raise Refusal(-32601, "Method not found", {"method": other})
        return b"{}"

    def _initialize(self, turn: Turn) -> bytes:
        script, requested = self.engine.script, turn.text_param("protocolVersion")
        latest = script.versions[-1] if script.versions else LATEST_HANDSHAKE
        self.version = requested if requested in script.versions else latest
        self.client_capabilities = turn.param("capabilities") or b"{}"
        return answers.initialized(script, self.version)

    def _require_capability(self, turn: Turn) -> None:
        needed = _CAPABILITY.get(turn.method.split("/")[0])
        declared = answers.capabilities(self.engine.script, self.version or LATEST_HANDSHAKE)
        if needed and jsontext.member(declared, needed) is None:
            raise Refusal(-32601, "Method not found", {"method": turn.method})

    async def _listen(self, turn: Turn) -> None:
        granted = jsontext.value(turn.param("notifications")) or {}
        if "taskIds" in granted:
            tasks.require_declared(turn)
        listen = OpenListen(turn, granted)
        shown = b'{"notifications":%b,%b}' % (turn.param("notifications") or b"{}", listen.stamp())
        await turn.notify("notifications/subscriptions/acknowledged", shown)
        self.engine.listens.append(listen)
        try:
            await first_of(listen.ended, turn.cancelled)
        finally:
            self.engine.listens.remove(listen)
        await turn.reply(b'{"resultType":"complete",%b}' % listen.stamp())

    # --- asking -------------------------------------------------------------------------------------------------------

    def capabilities_of(self, turn: Turn) -> bytes:
        """The client's capabilities for this request."""
        return (turn.meta("clientCapabilities") if turn.modern else self.client_capabilities) or b"{}"

    async def ask(self, method: str, params: bytes, turn: Turn | None) -> Message:
        """Send a request to the client and wait for its response.

        The request takes the turn's channel; without a turn, the standing stream once that is open.
        """
        # small integers on purpose: they collide with the client's own ids
        id_ = b"%d" % next(self._ask_ids)
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._asked[id_] = (future, turn)
        if turn is None:
            await self.standing_opened.wait()
        target = self.standing if turn is None else turn.channel
        if target is not None:
            await target.send(message.request(id_, method, params))
        return await future


def _requested(turn: Turn) -> str | None:
    return turn.message.meta_version or turn.text_param("protocolVersion") or None
