"""Lists, page by page, and `initialize` and `server/discover`: everything that is answered from a scope's View alone.

A page is encoded once for each kind, revision and position; all clients of the scope get the same bytes.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from mcp_manifold import wire
from mcp_manifold.core.hub import Hub, View
from mcp_manifold.errors import AllUnavailable
from mcp_manifold.model.call import Call
from mcp_manifold.model.capabilities import extending, offers_completions, runs_tasks
from mcp_manifold.model.catalogue import Hint, Kind, Listing, encode_list
from mcp_manifold.model.catalogue.cursors import Cursors
from mcp_manifold.model.unavailability import UnavailableServer
from mcp_manifold.wire import MODERN_VERSION, Payload, Pieces
from mcp_manifold.wire.protocol import META_INVALID, META_MISSING, META_SERVER_INFO

LISTS: Final = {
    "tools/list": (Kind.TOOL, "tools"),
    "prompts/list": (Kind.PROMPT, "prompts"),
    "resources/list": (Kind.RESOURCE, "resources"),
    "resources/templates/list": (Kind.TEMPLATE, "resourceTemplates"),
}
MAX_INSTRUCTIONS: Final = 4000
"""Characters of one backend's instructions that are passed on: clients put them into a model's context."""
_KINDS: Final = {"tools": (Kind.TOOL,), "resources": (Kind.RESOURCE, Kind.TEMPLATE), "prompts": (Kind.PROMPT,)}
_NO_TTL: Final = b"0}"


class ScopeResponder:
    """Answers lists, `initialize` and `server/discover` from the View of a scope.

    Args:
        instructions: the text before the instructions of the backends.
        page_size: entries on one page of a list; 0 for all.
    """

    def __init__(self, hub: Hub, *, server_info: Payload, instructions: str, page_size: int = 0) -> None:
        self._hub = hub
        self._page_size = page_size
        self._cursors = Cursors()
        self._server_info = server_info
        self._instructions = instructions

    methods: Final = frozenset({"initialize", "server/discover", "ping", *LISTS})
    """The methods that it answers."""

    def __repr__(self) -> str:
        return f"<ScopeResponder {self._hub!r}>"

    def adapt(self, *, instructions: str, page_size: int) -> None:
        """Use other settings from now on."""
        self._instructions = instructions
        self._page_size = page_size

    def answer(self, call: Call) -> Pieces:
        """The result of one of `methods`.

        Raises:
            AllUnavailable: every server of the scope failed, and no listing of any is known.
            InvalidParams: the cursor does not belong to this list.
        """
        match call.method:
            case "initialize":
                return (self._initialize(call),)
            case "server/discover":
                return (self._discover(call),)
            case "ping":
                return (b"{}",)
            case _:
                return self._list(call)

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

    def _list(self, call: Call) -> Pieces:
        """One page. Only its `ttlMs`, if there is one, is encoded for each call."""
        kind, member = LISTS[call.method]
        version = call.session.version
        view = self._hub.view(call.session.scope)
        if view.is_lost:
            raise AllUnavailable({each.server: each.reason for each in view.unavailable})
        start = self._start(call, view, kind)
        found = view.encoded.get((kind, version, start))
        if found is None:
            found = view.encoded[(kind, version, start)] = self._page(call, view, member, start)
        if version == MODERN_VERSION and (ttl := self._ttl(view, call.method)):
            return (memoryview(found)[: -len(_NO_TTL)], b"%d}" % ttl)
        return (found,)

    def _start(self, call: Call, view: View, kind: Kind) -> int:
        cursor = call.params.get("cursor")
        if cursor is None or wire.first_byte(cursor) == b"n":
            return 0
        keys = tuple(view.shown.table(kind))
        return self._cursors.index(f"{kind} {call.session.scope}", keys, wire.text(cursor, "cursor"))

    def _page(self, call: Call, view: View, member: str, start: int) -> bytes:
        """One page. For a modern client it ends in `_NO_TTL`, which is replaced by the remaining time."""
        (kind, _), version = LISTS[call.method], call.session.version
        entries = view.shown.entries(kind)
        end = start + self._page_size if self._page_size else len(entries)
        without_tasks = {listing.backend for listing in view.listings if not runs_tasks(listing)}
        items = encode_list(entries[start:end], kind, version=version, without_tasks=without_tasks)
        page: dict[str, object] = {member: Payload(items)}
        if end < len(entries):
            keys = tuple(view.shown.table(kind))
            page["nextCursor"] = self._cursors.after(f"{kind} {call.session.scope}", keys, end)
        meta: dict[str, object] = {}
        if version == MODERN_VERSION:
            meta[META_SERVER_INFO] = self._server_info
        missing = [each.to_dict() for each in (*view.unavailable, *_failed(view, call.method))]
        if missing:
            meta[META_MISSING] = missing
        if faults := [fault.to_dict() for fault in view.faults if fault.kind is kind]:
            meta[META_INVALID] = faults
        if meta:
            page["_meta"] = meta
        if version == MODERN_VERSION:
            scope = self._cache_scope(view, call.method)
            page |= {"resultType": "complete", "cacheScope": scope, "ttlMs": 0}
        return wire.encode(page)

    def _ttl(self, view: View, method: str) -> int:
        """Milliseconds that clients may cache the result: the least of the backends' own, less their age here."""
        if view.missing or view.unavailable or not _are_modern(view) or _failed(view, method):
            return 0
        now = self._hub.clock.now()
        return max(0, min((_left(hint, now) for hint in _hints(view, method)), default=0))

    def _cache_scope(self, view: View, method: str) -> str:
        hints = _hints(view, method)
        public = self._hub.is_same_for_all and bool(hints) and all(hint.is_public for hint in hints)
        is_whole = not view.missing and not view.unavailable and not _failed(view, method)
        return "public" if public and is_whole and _are_modern(view) else "private"

    def _merged_instructions(self, view: View, scope: str) -> str:
        """Our own, then each backend's under a heading with its name: backends use native names in them."""
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
    """The capabilities of the scope. A kind is declared while it may exist: some server has it, or has not listed yet.

    Every list can change, and is fetched again where its server promises no notification.
    """
    declared = [_declared(listing) for listing in view.listings]
    is_known = bool(view.listings) and not view.missing
    found: dict[str, Any] = {}
    for name, kinds in _KINDS.items():
        has_items = any(listing.items(kind) for listing in view.listings for kind in kinds)
        if not is_known or has_items or any(name in each for each in declared):
            found[name] = {"listChanged": True}
    if any(bytes(wire.object_members(each.get("resources")).get("subscribe", b"")) == b"true" for each in declared):
        found["resources"] = {"subscribe": True, **found["resources"]}
    if any("logging" in each for each in declared):
        found["logging"] = {}
    if completions and any(map(offers_completions, view.listings)):
        found["completions"] = {}
    return found


def _failed(view: View, method: str) -> list[UnavailableServer]:
    """The servers of which this list failed, though they are connected."""
    away = {each.server for each in view.unavailable}
    return [
        UnavailableServer(each.backend, each.failed[method], is_listed=bool(each.items(LISTS[method][0])))
        for each in view.listings
        if method in each.failed and each.backend not in away
    ]


def _hints(view: View, method: str) -> list[Hint]:
    return [listing.hints[method] for listing in view.listings if method in listing.hints]


def _left(hint: Hint, now: float) -> int:
    return hint.ttl_ms - math.ceil((now - hint.at) * 1000)


def _are_modern(view: View) -> bool:
    """Whether all listings are of the modern era, whose results carry cache hints."""
    return all(listing.era == "modern" for listing in view.listings)


def _declared(listing: Listing) -> Mapping[str, Payload]:
    return wire.object_members(Payload(listing.capabilities))  # empty if they are not an object


def _cut(text: str) -> str:
    return text if len(text) <= MAX_INSTRUCTIONS else text[:MAX_INSTRUCTIONS] + " [...]"
