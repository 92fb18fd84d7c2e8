"""What a scope says of itself: who it is, what it can do, what it lists. Answered from the hub's view alone."""

import asyncio
import math
from collections.abc import Mapping
from typing import Any, Final

from mcp_manifold import wire
from mcp_manifold.core.hub import Hub, View
from mcp_manifold.errors import AllUnavailable
from mcp_manifold.model.call import Call
from mcp_manifold.model.capabilities import extending, runs_tasks
from mcp_manifold.model.catalogue import Hint, Kind, Listing, encode_list
from mcp_manifold.model.catalogue.cursors import Cursors
from mcp_manifold.wire import MODERN_VERSION, Payload, Pieces
from mcp_manifold.wire.protocol import META_MISSING, META_SERVER_INFO

LISTS: Final = {
    "tools/list": (Kind.TOOL, "tools"),
    "prompts/list": (Kind.PROMPT, "prompts"),
    "resources/list": (Kind.RESOURCE, "resources"),
    "resources/templates/list": (Kind.TEMPLATE, "resourceTemplates"),
}
MAX_INSTRUCTIONS: Final = 4000
"""Characters of one backend's instructions that are passed on: they are put into a model's context."""
_NO_TTL: Final = b"0}"


class ScopeResponder:
    """See the module. `page_size`: entries on one page of a list; 0 for all."""

    def __init__(self, hub: Hub, *, server_info: Payload, instructions: str, page_size: int = 0) -> None:
        self._hub = hub
        self._page_size = page_size
        self._cursors = Cursors()
        self._server_info = server_info
        self._instructions = instructions

    methods: Final = frozenset({"initialize", "server/discover", "ping", *LISTS})
    """The methods it answers."""

    def __repr__(self) -> str:
        return f"<ScopeResponder {self._hub!r}>"

    def adapt(self, *, instructions: str, page_size: int) -> None:
        """Say this, and list so many on a page, from now on."""
        self._instructions = instructions
        self._page_size = page_size

    def answer(self, call: Call) -> Pieces:
        """The result of one of `methods`, from what is known at this moment.

        Raises:
            AllUnavailable: every server of the scope failed, and nothing is known of what any offers.
            InvalidParams: the cursor is none of this list's.
        """
        match call.method:
            case "initialize":
                return (self._initialize(call),)
            case "server/discover":
                return (self._discover(call),)
            case "ping":
                return (b"{}",)
            case _:
                return self.listed(call)

    def _initialize(self, call: Call) -> bytes:
        scope, version = call.session.scope, call.session.version
        view = self._hub.view(scope)
        answer: dict[str, object] = {
            "protocolVersion": version,
            "capabilities": _capabilities(view, completions=version != "2024-11-05")
            | extending(view.listings, version),
            "serverInfo": self._server_info,
        }
        instructions = self._merged_instructions(view, scope)
        if instructions:
            answer["instructions"] = instructions
        return wire.encode(answer)

    def _discover(self, call: Call) -> bytes:
        scope = call.session.scope
        view = self._hub.view(scope)
        answer: dict[str, object] = {
            "supportedVersions": [MODERN_VERSION],
            "capabilities": _capabilities(view, completions=True) | extending(view.listings, MODERN_VERSION),
            "resultType": "complete",
            "ttlMs": self._ttl(view, call.method),
            "cacheScope": self._cache_scope(view, call.method),
            "_meta": {META_SERVER_INFO: self._server_info},
        }
        instructions = self._merged_instructions(view, scope)
        if instructions:
            answer["instructions"] = instructions
        return wire.encode(answer)

    def listed(self, call: Call) -> Pieces:
        """What a list request gets at this moment; the bulk of it is kept, and the same bytes for everybody.

        Raises:
            AllUnavailable: every server of the scope failed, and nothing is known of what any offers.
            InvalidParams: the cursor is none of this list's.
        """
        kind, member = LISTS[call.method]
        version = call.session.version
        view = self._hub.view(call.session.scope)
        if view.is_lost:
            raise AllUnavailable({absence.server: absence.reason for absence in view.unavailable})
        place = self._place(call, view, kind)
        found = view.encoded.get((kind, version, place))
        if found is None:
            found = view.encoded[(kind, version, place)] = self._page(call, view, member, place)
        if version == MODERN_VERSION and (ttl := self._ttl(view, call.method)):
            return (memoryview(found)[: -len(_NO_TTL)], b"%d}" % ttl)
        return (found,)

    def _place(self, call: Call, view: View, kind: Kind) -> int:
        cursor = call.params.get("cursor")
        if cursor is None or wire.first_byte(cursor) == b"n":
            return 0
        keys = tuple(view.shown.table(kind))
        return self._cursors.place(f"{kind} {call.session.scope}", keys, wire.text(cursor, "cursor"))

    def _page(self, call: Call, view: View, member: str, place: int) -> bytes:
        """One page; for a modern client it ends in `_NO_TTL`, where the time that is left goes."""
        (kind, _), version = LISTS[call.method], call.session.version
        entries = view.shown.entries(kind)
        end = place + self._page_size if self._page_size else len(entries)
        without_tasks = {listing.backend for listing in view.listings if not runs_tasks(listing)}
        items = encode_list(entries[place:end], kind, version=version, without_tasks=without_tasks)
        page: dict[str, object] = {member: Payload(items)}
        if end < len(entries):
            keys = tuple(view.shown.table(kind))
            page["nextCursor"] = self._cursors.after(f"{kind} {call.session.scope}", keys, end)
        meta: dict[str, object] = {}
        if version == MODERN_VERSION:
            meta[META_SERVER_INFO] = self._server_info
        if view.unavailable:
            meta[META_MISSING] = [absence.to_dict() for absence in view.unavailable]
        if meta:
            page["_meta"] = meta
        if version == MODERN_VERSION:
            scope = self._cache_scope(view, call.method)
            page |= {"resultType": "complete", "cacheScope": scope, "ttlMs": 0}
        return wire.encode(page)

    def _ttl(self, view: View, method: str) -> int:
        """How long an answer made of the backends' may be kept: as long as the first of theirs, less its age here."""
        if view.missing or view.unavailable or not _are_modern(view):
            return 0
        now = asyncio.get_running_loop().time()
        return max(0, min((_left(hint, now) for hint in _hints(view, method)), default=0))

    def _cache_scope(self, view: View, method: str) -> str:
        hints = _hints(view, method)
        public = self._hub.is_same_for_all and bool(hints) and all(hint.is_public for hint in hints)
        is_whole = not view.missing and not view.unavailable
        return "public" if public and is_whole and _are_modern(view) else "private"

    def _merged_instructions(self, view: View, scope: str) -> str:
        """Our own, then each backend's under its name; backends speak of their tools by native names."""
        if scope.startswith("server:"):
            return "\n\n".join(listing.instructions for listing in view.listings)
        parts = [self._instructions] if self._instructions else []
        parts += [
            f"# Server {listing.backend}\n{_cut(listing.instructions)}"
            for listing in view.listings
            if listing.instructions and listing.backend in view.shown.backends
        ]
        return "\n\n".join(parts)


def _capabilities(view: View, *, completions: bool) -> dict[str, Any]:
    """What the scope offers. Lists may always come and go, so they are declared even while they are empty."""
    changing = {"listChanged": True}
    offered: dict[str, Any] = {"tools": changing, "resources": changing, "prompts": changing}
    declared = [_declared(listing) for listing in view.listings]
    if any(bytes(wire.object_members(each.get("resources")).get("subscribe", b"")) == b"true" for each in declared):
        offered["resources"] = {"subscribe": True, **changing}
    if any("logging" in each for each in declared):
        offered["logging"] = {}
    if completions and any("completions" in each for each in declared):
        offered["completions"] = {}
    return offered


def _hints(view: View, method: str) -> list[Hint]:
    return [listing.hints[method] for listing in view.listings if method in listing.hints]


def _left(hint: Hint, now: float) -> int:
    return hint.ttl_ms - math.ceil((now - hint.at) * 1000)


def _are_modern(view: View) -> bool:
    """Whether every answer came with a hint: earlier revisions have none."""
    return all(listing.era == "modern" for listing in view.listings)


def _declared(listing: Listing) -> Mapping[str, Payload]:
    return wire.object_members(Payload(listing.capabilities))  # empty for what is no object


def _cut(text: str) -> str:
    return text if len(text) <= MAX_INSTRUCTIONS else text[:MAX_INSTRUCTIONS] + " [...]"
