"""What extends the protocol in a scope: tasks, extensions, experiments. Pure on listings; names only what is relayed.

It is declared to clients of the backend's own era only, except for MCP Apps, which is data that both eras carry alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mcp_manifold import wire
from mcp_manifold.errors import RequestError
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.wire import Era, Payload, era_of
from mcp_manifold.wire.protocol import MISSING_CLIENT_CAPABILITY, TASKS_EXTENSION, UI_EXTENSION

TASKS_VERSION: Final = "2025-11-25"
"""The one handshake revision that has tasks."""


def extending(listings: Sequence[Listing], version: str) -> dict[str, Any]:
    """The capabilities a client of this revision is told besides those of the protocol's core."""
    era = era_of(version)
    found: dict[str, Any] = {
        "tasks": _tasks(listings) if version == TASKS_VERSION else {},
        "extensions": _extensions(listings, era),
        "experimental": _sole(listings, era, "experimental"),
    }
    return {name: offered for name, offered in found.items() if offered}


def declared(listing: Listing, *path: str) -> Mapping[str, Payload]:
    """The members of what a backend declared at a path; empty for what is not there."""
    found = wire.object_members(Payload(listing.capabilities))
    for key in path:
        found = wire.object_members(found.get(key))
    return found


def runs_tasks(listing: Listing) -> bool:
    """Whether its tools can be called as tasks, as 2025-11-25 has them."""
    return listing.era == "handshake" and "call" in declared(listing, "tasks", "requests", "tools")


def extends_tasks(listing: Listing) -> bool:
    """Whether it may answer a call with a task, as the extension of 2026-07-28 has them."""
    return listing.era == "modern" and TASKS_EXTENSION in declared(listing, "extensions")


def knows_tasks(capabilities: Payload) -> bool:
    """Whether a client's capabilities are those of one that can deal with tasks of the extension."""
    extensions = wire.object_members(capabilities).get("extensions")
    return TASKS_EXTENSION in wire.object_members(extensions)


def require_tasks(capabilities: Payload) -> None:
    """Refuse a request that needs the extension, of a client that did not declare it (SEP-2663).

    Raises:
        RequestError: it did not.
    """
    if not knows_tasks(capabilities):
        needed: dict[str, object] = {"extensions": {TASKS_EXTENSION: {}}}
        raise RequestError(
            f"Missing required client capability: {TASKS_EXTENSION}",
            code=MISSING_CLIENT_CAPABILITY,
            data={"requiredCapabilities": needed},
        )


def owners(listings: Iterable[Listing], key: str) -> list[str]:
    """The backends that declare this extension, or experimental capability."""
    return [
        listing.backend
        for listing in listings
        if key in declared(listing, "extensions") or key in declared(listing, "experimental")
    ]


def _tasks(listings: Sequence[Listing]) -> dict[str, Any]:
    able = [listing for listing in listings if runs_tasks(listing)]
    if not able:
        return {}
    said = {key for listing in able for key in declared(listing, "tasks")}
    parts: dict[str, Any] = {key: {} for key in ("list", "cancel") if key in said}
    return {**parts, "requests": {"tools": {"call": {}}}}


def _extensions(listings: Sequence[Listing], era: Era) -> dict[str, Payload]:
    found = _sole(listings, era, "extensions", known=frozenset({TASKS_EXTENSION, UI_EXTENSION}))
    for listing in listings:
        offered = declared(listing, "extensions")
        if UI_EXTENSION in offered:
            found.setdefault(UI_EXTENSION, offered[UI_EXTENSION])
        if era == "modern" and extends_tasks(listing):
            found.setdefault(TASKS_EXTENSION, offered[TASKS_EXTENSION])
    return found


def _sole(
    listings: Sequence[Listing], era: Era, member: str, *, known: frozenset[str] = frozenset()
) -> dict[str, Payload]:
    """What one backend alone declares: of two who say the same, nobody could tell whom a client means."""
    return {
        key: value
        for listing in listings
        if listing.era == era
        for key, value in declared(listing, member).items()
        if key not in known and len([each for each in listings if key in declared(each, member)]) == 1
    }
