"""Optional capabilities of a scope: tasks, extensions, experimental ones. Pure functions of listings.

A backend's capability is declared to clients of its own era only, because it is relayed and not translated. The
exception is MCP Apps: data that both eras carry alike.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from mcp_manifold import wire
from mcp_manifold.errors import RequestError
from mcp_manifold.model.catalogue import Listing
from mcp_manifold.wire import Era, Payload, era_of
from mcp_manifold.wire.protocol import MISSING_CLIENT_CAPABILITY, TASKS_EXTENSION, UI_EXTENSION

TASKS_VERSION: Final = "2025-11-25"
"""The only handshake revision with tasks."""


def extending(listings: Sequence[Listing], version: str) -> dict[str, Any]:
    """The `tasks`, `extensions` and `experimental` capabilities to declare to a client of this revision."""
    era = era_of(version)
    found: dict[str, Any] = {
        "tasks": _tasks(listings) if version == TASKS_VERSION else {},
        "extensions": _extensions(listings, era),
        "experimental": _sole(listings, era, "experimental"),
    }
    return {name: offered for name, offered in found.items() if offered}


def declared(listing: Listing, *path: str) -> Mapping[str, Payload]:
    """The members at a path of a backend's capabilities; empty when the path does not exist."""
    found = wire.object_members(Payload(listing.capabilities))
    for key in path:
        found = wire.object_members(found.get(key))
    return found


def offers_completions(listing: Listing) -> bool:
    """Whether the backend completes arguments."""
    return "completions" in declared(listing)


def runs_tasks(listing: Listing) -> bool:
    """Whether the backend's tools can be called as tasks (2025-11-25 basic/utilities/tasks)."""
    return listing.era == "handshake" and "call" in declared(listing, "tasks", "requests", "tools")


def extends_tasks(listing: Listing) -> bool:
    """Whether the backend may answer a call with a task (2026-07-28 tasks extension, SEP-2663)."""
    return listing.era == "modern" and TASKS_EXTENSION in declared(listing, "extensions")


def knows_tasks(capabilities: Payload) -> bool:
    """Whether a client declared the tasks extension."""
    extensions = wire.object_members(capabilities).get("extensions")
    return TASKS_EXTENSION in wire.object_members(extensions)


def require_tasks(capabilities: Payload) -> None:
    """Require the tasks extension of a client (SEP-2663).

    Raises:
        RequestError: the client did not declare it (-32021).
    """
    if not knows_tasks(capabilities):
        needed: dict[str, object] = {"extensions": {TASKS_EXTENSION: {}}}
        raise RequestError(
            f"Missing required client capability: {TASKS_EXTENSION}",
            code=MISSING_CLIENT_CAPABILITY,
            data={"requiredCapabilities": needed},
        )


def owners(listings: Iterable[Listing], key: str) -> list[str]:
    """The backends that declare the extension or experimental capability `key`."""
    return [
        listing.backend
        for listing in listings
        if key in declared(listing, "extensions") or key in declared(listing, "experimental")
    ]


def _tasks(listings: Sequence[Listing]) -> dict[str, Any]:
    able = [listing for listing in listings if runs_tasks(listing)]
    if not able:
        return {}
    offered = {key for listing in able for key in declared(listing, "tasks")}
    parts: dict[str, Any] = {key: {} for key in ("list", "cancel") if key in offered}
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
    """The capabilities that exactly one backend declares. With two, a client's request could not be routed."""
    return {
        key: value
        for listing in listings
        if listing.era == era
        for key, value in declared(listing, member).items()
        if key not in known and len([each for each in listings if key in declared(each, member)]) == 1
    }
