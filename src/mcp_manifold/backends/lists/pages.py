"""Fetches all pages of a backend's lists, within limits. Cursors are not trusted to end."""

from collections.abc import Mapping
from typing import Final, NamedTuple

import anyio
import anyio.lowlevel
import msgspec

from mcp_manifold.backends.link.link import Link
from mcp_manifold.clock import Clock
from mcp_manifold.config import LimitSettings
from mcp_manifold.errors import BackendError, BackendProtocolError, RemoteError
from mcp_manifold.model.catalogue import Fault, Hint, Kind, repair
from mcp_manifold.wire import NULL_ID, Payload, encode, first_byte, loose_items, object_members, text_at
from mcp_manifold.wire.protocol import METHOD_NOT_FOUND

LIST_METHODS: Final[Mapping[str, tuple[str, str]]] = {
    "tools/list": ("tools", "tools"),
    "prompts/list": ("prompts", "prompts"),
    "resources/list": ("resources", "resources"),
    "resources/templates/list": ("resources", "resourceTemplates"),
}
"""List method to its capability and to the result member that holds the items."""
_FIELDS: Final = {"resourceTemplates": "templates"}
"""Result member to its field of a page, where they differ."""


KIND_OF_LIST: Final = {
    "tools/list": Kind.TOOL,
    "prompts/list": Kind.PROMPT,
    "resources/list": Kind.RESOURCE,
    "resources/templates/list": Kind.TEMPLATE,
}
MAX_FAULTS: Final = 50
"""Invalid items of one list that are described."""
_SLICE: Final = 100
"""Repairs in one turn of the event loop; one takes about 0.1 ms."""


class _Page(msgspec.Struct):
    tools: list[Payload] = []
    prompts: list[Payload] = []
    resources: list[Payload] = []
    tasks: list[Payload] = []
    templates: list[Payload] = msgspec.field(name="resourceTemplates", default_factory=list)
    next: Payload = msgspec.field(name="nextCursor", default=NULL_ID)
    ttl_ms: float | None = msgspec.field(name="ttlMs", default=None)
    scope: str | None = msgspec.field(name="cacheScope", default=None)

    @property
    def cursor(self) -> str | None:
        """The cursor of the next page; None when there is none, or it is not a string."""
        return text_at(self.next)

    @property
    def problem(self) -> str:
        """The reason why the next page cannot be fetched; empty if it can, or if there is none."""
        is_usable = first_byte(self.next) == b"n" or self.cursor is not None
        return "" if is_usable else f"unusable nextCursor {bytes(self.next)[:40].decode(errors='replace')}"


_decode_page = msgspec.json.Decoder(_Page).decode


class Pages(msgspec.Struct, frozen=True):
    """All items of one list method, raw, with the shortest lifetime and narrowest scope of the pages.

    `hint` is None for a list that the backend does not offer. `faults` are filled in by `usable`. `problem` says why
    there may be more items.
    """

    items: tuple[bytes, ...] = ()
    hint: Hint | None = None
    faults: tuple[Fault, ...] = ()
    problem: str = ""


Found = dict[str, Pages | BackendError | RemoteError]
"""List method to its pages, or the reason why there are none."""


async def list_all(
    link: Link, methods: frozenset[str], found: Found, *, clock: Clock, timeout: float, limits: LimitSettings
) -> None:
    """Fetch several complete lists of a backend at the same time, each into `found` as soon as it is complete.

    Args:
        methods: keys of `LIST_METHODS`. An undeclared capability or an unknown method gives empty pages. Tools are
            asked for even so, because some servers offer them without declaring it.
        timeout: seconds for all of it.
    """
    declared = object_members(link.capabilities)
    walk = _Walk(link, clock, timeout, clock.now() + timeout, limits)

    async def fetch(method: str) -> None:
        try:
            found[method] = await walk.all_pages(method)
        except (BackendError, RemoteError) as exc:
            found[method] = exc if LIST_METHODS[method][0] in declared else Pages()

    async with anyio.create_task_group() as group:
        for method in methods:
            if LIST_METHODS[method][0] in declared or method == "tools/list":
                group.start_soon(fetch, method, name=f"{link.backend} {method}")
            else:
                found[method] = Pages()


async def usable(pages: Pages, method: str, backend: str) -> Pages:
    """Return the pages with invalid items repaired or left out. Yields to the event loop after every few items."""
    kept: list[bytes] = []
    faults: list[Fault] = []
    for place, raw in enumerate(pages.items, start=1):
        item, fault = repair(KIND_OF_LIST[method], backend, raw, place)
        if fault is not None:
            faults.append(fault)
            if len(faults) % _SLICE == 0:
                await anyio.lowlevel.checkpoint()
        if item is not None:
            kept.append(item)
    if not faults:
        return pages
    return msgspec.structs.replace(pages, items=tuple(kept), faults=tuple(faults[:MAX_FAULTS]))


class _Walk(NamedTuple):
    """One walk through a backend's lists. `end` is the time of `clock` at which `timeout` is over."""

    link: Link
    clock: Clock
    timeout: float
    end: float
    limits: LimitSettings

    async def all_pages(self, method: str) -> Pages:
        """Fetch all pages of one list.

        Raises:
            BackendError: no response, an invalid one, or more than the limits allow.
            RemoteError: the backend refused a list that it declared.
        """
        field = _FIELDS.get(LIST_METHODS[method][1], LIST_METHODS[method][1])
        items: list[bytes] = []
        size = 0
        ttls: list[int] = []
        scopes: set[str] = set()
        seen: set[str] = set()
        problem, cursor = "", None
        for _ in range(self.limits.list_pages):
            try:
                result = await self._request(method, cursor)
            except RemoteError as exc:
                if exc.code == METHOD_NOT_FOUND or cursor == "":  # some servers mean the end by an empty cursor
                    break
                raise
            page = _page(self.link, method, result)
            if page.cursor == cursor == "":  # the first page again
                break
            items += [bytes(item) for item in getattr(page, field)]
            size += memoryview(result).nbytes
            ttls.append(max(0, int(page.ttl_ms or 0)))
            scopes.add(page.scope or "private")
            self._check(method, size=size, entries=len(items))
            problem = page.problem
            if page.cursor is None:
                break
            if page.cursor in seen:
                raise BackendProtocolError(self.link.backend, f"invalid {method}: a cursor was repeated")
            cursor = page.cursor
            seen.add(cursor)
        else:
            raise BackendProtocolError(self.link.backend, f"{method} has more than {self.limits.list_pages} pages")
        hint = Hint(min(ttls, default=0), scopes == {"public"}, self.clock.now())
        return Pages(tuple(items), hint, problem=problem)

    async def _request(self, method: str, cursor: str | None) -> Payload:
        params = {} if cursor is None else {"cursor": Payload(encode(cursor))}
        waited = self.timeout - (self.end - self.clock.now())
        return await self.link.request(method, params, timeout=self.timeout, waited=waited)

    def _check(self, method: str, *, size: int, entries: int) -> None:
        if size > self.limits.max_message:
            raise BackendProtocolError(self.link.backend, f"{method} is larger than {self.limits.max_message} bytes")
        if entries > self.limits.list_entries:
            raise BackendProtocolError(self.link.backend, f"{method} has more than {self.limits.list_entries} entries")


def _page(link: Link, method: str, result: Payload) -> _Page:
    try:
        return _decode_page(result)
    except msgspec.ValidationError as exc:
        raise _invalid(link, method, exc) from exc
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return _loose_page(link, method, result)


def _loose_page(link: Link, method: str, result: Payload) -> _Page:
    """A page that is not quite JSON, because of an item that is not."""
    members = object_members(result)
    try:
        items = {key: loose_items(members.pop(key)) for _, key in LIST_METHODS.values() if key in members}
        page = _decode_page(encode(members))
    except (ValueError, RecursionError) as exc:
        raise _invalid(link, method, exc) from exc
    return msgspec.structs.replace(page, **{_FIELDS.get(key, key): found for key, found in items.items()})


def _invalid(link: Link, method: str, exc: Exception) -> BackendProtocolError:
    return BackendProtocolError(link.backend, f"invalid response to {method}: {exc}")


async def list_tasks(link: Link, *, timeout: float, max_pages: int) -> list[Payload]:
    """Fetch the tasks that a backend lists over a link, at most `max_pages` pages.

    Raises:
        BackendError: no response, or an invalid one.
        RemoteError: the backend refused.
    """
    items: list[Payload] = []
    params: dict[str, Payload] = {}
    for _ in range(max_pages):
        page = _page(link, "tasks/list", await link.request("tasks/list", params, timeout=timeout))
        items += page.tasks
        if page.cursor is None:
            break
        params = {"cursor": Payload(encode(page.cursor))}
    return items
