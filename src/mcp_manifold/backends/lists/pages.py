"""Walks a backend's lists to their end: every page, within bounds, without believing its cursors."""

import asyncio
from collections.abc import Mapping
from typing import Final

import anyio
import msgspec

from mcp_manifold.backends.link.link import Link
from mcp_manifold.errors import BackendError, BackendProtocolError, RemoteError
from mcp_manifold.model.catalogue import Hint
from mcp_manifold.wire import Payload, encode
from mcp_manifold.wire.protocol import METHOD_NOT_FOUND

LISTS: Final[Mapping[str, tuple[str, str]]] = {
    "tools/list": ("tools", "tools"),
    "prompts/list": ("prompts", "prompts"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("resources", "resourceTemplates"),
}
"""List method to the capability that offers it, and the member of the result that holds the items."""


class _Page(msgspec.Struct):
    tools: list[Payload] = []
    prompts: list[Payload] = []
    resources: list[Payload] = []
    templates: list[Payload] = msgspec.field(name="resourceTemplates", default_factory=list)
    cursor: str | None = msgspec.field(name="nextCursor", default=None)
    ttl_ms: float | None = msgspec.field(name="ttlMs", default=None)
    scope: str | None = msgspec.field(name="cacheScope", default=None)


_decode_page = msgspec.json.Decoder(_Page).decode


class Pages(msgspec.Struct, frozen=True):
    """What one list method gave in the end, raw; with the shortest lifetime and narrowest scope of its pages.

    A list that the backend does not offer has no hint.
    """

    items: tuple[bytes, ...] = ()
    hint: Hint | None = None


async def list_all(
    link: Link, methods: frozenset[str], *, timeout: float, max_pages: int, max_entries: int, max_bytes: int
) -> dict[str, Pages]:
    """The full lists of a backend, asked for at the same time.

    Args:
        methods: which of `LISTS`; those of an undeclared capability, or unknown to the backend, give empty pages.
        timeout: seconds for all of it.

    Raises:
        BackendError: no answer, or not a list.
        RemoteError: the backend refused a list it declared.
    """
    declared = msgspec.json.decode(link.capabilities, type=dict[str, Payload])
    found: dict[str, Pages] = {}
    end = asyncio.get_running_loop().time() + timeout

    async def walk(method: str) -> None:
        bounds = {"max_pages": max_pages, "max_entries": max_entries, "max_bytes": max_bytes}
        found[method] = await _walk(link, method, timeout=timeout, end=end, **bounds)

    try:
        async with anyio.create_task_group() as group:
            for method in methods:
                if LISTS[method][0] in declared:
                    group.start_soon(walk, method, name=f"{link.backend} {method}")
                else:
                    found[method] = Pages()
    except* (BackendError, RemoteError) as failures:
        raise failures.exceptions[0] from None
    return found


async def _walk(
    link: Link, method: str, *, timeout: float, end: float, max_pages: int, max_entries: int, max_bytes: int
) -> Pages:
    loop = asyncio.get_running_loop()
    field = "templates" if method == "resources/templates/list" else LISTS[method][1]
    items: list[bytes] = []
    size = 0
    ttls: list[int] = []
    scopes: set[str] = set()
    seen: set[str] = set()
    params: dict[str, Payload] = {}
    cursor: str | None = None
    for _ in range(max_pages):
        try:
            result = await link.request(method, params, timeout=timeout, waited=timeout - (end - loop.time()))
        except RemoteError as exc:
            if exc.code == METHOD_NOT_FOUND or cursor == "":  # which may be one, but some write it for the end
                break
            raise
        page = _page(link, method, result)
        if page.cursor == cursor == "":  # the first page again
            break
        items += [bytes(item) for item in getattr(page, field)]
        size += memoryview(result).nbytes
        if size > max_bytes:
            raise BackendProtocolError(link.backend, f"{method} is larger than {max_bytes} bytes")
        ttls.append(max(0, int(page.ttl_ms or 0)))
        scopes.add(page.scope or "private")
        if len(items) > max_entries:
            raise BackendProtocolError(link.backend, f"{method} gives more than {max_entries} entries")
        if page.cursor is None:
            break
        if page.cursor in seen:
            raise BackendProtocolError(link.backend, f"{method} turns in a circle: a cursor came twice")
        cursor = page.cursor
        seen.add(cursor)
        params = {"cursor": Payload(encode(cursor))}
    else:
        raise BackendProtocolError(link.backend, f"{method} has more than {max_pages} pages")
    hint = Hint(min(ttls, default=0), scopes == {"public"}, loop.time())
    return Pages(tuple(items), hint)


def _page(link: Link, method: str, result: Payload) -> _Page:
    try:
        return _decode_page(result)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BackendProtocolError(link.backend, f"its answer to {method} is not a list: {exc}") from exc


class _TaskPage(msgspec.Struct):
    tasks: list[Payload] = []
    cursor: str | None = msgspec.field(name="nextCursor", default=None)


async def list_tasks(link: Link, *, timeout: float, max_pages: int) -> list[Payload]:
    """The tasks a link's backend lists, as far as `max_pages` go.

    Raises:
        BackendError: no answer, or not a list.
        RemoteError: the backend refused.
    """
    items: list[Payload] = []
    params: dict[str, Payload] = {}
    for _ in range(max_pages):
        result = await link.request("tasks/list", params, timeout=timeout)
        try:
            page = msgspec.json.decode(result, type=_TaskPage)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
            raise BackendProtocolError(link.backend, f"its answer to tasks/list is not a list: {exc}") from exc
        items += page.tasks
        if page.cursor is None:
            break
        params = {"cursor": Payload(encode(page.cursor))}
    return items
