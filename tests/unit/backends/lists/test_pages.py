"""Fetching lists: every page, declared lists only, and the bounds on pages, entries, size and time."""

from collections.abc import Mapping

import msgspec
import pytest

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.backends.lists.pages import LIST_METHODS, Found, Pages, list_all
from mcp_manifold.clock import LoopClock
from mcp_manifold.config import LimitSettings
from mcp_manifold.errors import BackendProtocolError, BackendTimeout, RemoteError
from mcp_manifold.wire import Payload
from tests.unit.backends.linking import Answer, FakeTransport, connected, within

pytestmark = pytest.mark.anyio

EVERYTHING = b'{"tools":{},"prompts":{},"resources":{}}'


def paged(pages: Mapping[str, bytes]) -> Answer:
    """Answer `tools/list` with the page of the cursor asked for; all other lists are empty."""

    def answer(pending: PendingRequest) -> bytes:
        if pending.method != "tools/list":
            return b'"result":{"%b":[]}' % LIST_METHODS[pending.method][1].encode()
        cursor = msgspec.json.decode(pending.params["cursor"]) if "cursor" in pending.params else ""
        return b'"result":' + pages[cursor]

    return answer


def listing(answer: Answer | None, capabilities: bytes = EVERYTHING) -> tuple[Link, FakeTransport]:
    link, transport = connected(answer)
    link.adopt("2025-11-25", Payload(capabilities))
    return link, transport


async def walked(
    link: Link, *methods: str, pages: int = 10, entries: int = 100, size: int = 10_000, timeout: float = 30
) -> dict[str, Pages]:
    asked = frozenset(methods or LIST_METHODS)
    limits = LimitSettings().model_copy(update={"list_pages": pages, "list_entries": entries, "max_message": size})
    found = Found()
    await within(list_all(link, asked, found, clock=LoopClock(), timeout=timeout, limits=limits))
    fetched: dict[str, Pages] = {}
    for method, each in found.items():
        if not isinstance(each, Pages):
            raise each
        fetched[method] = each
    return fetched


async def test_all_pages_are_gathered_in_order_and_raw() -> None:
    answer = paged({"": b'{"tools":[{ "name":"a" }, 1.50],"nextCursor":"2"}', "2": b'{"tools":[{"x":1e999}],"y":0}'})
    link, transport = listing(answer)
    found = await walked(link)
    assert found["tools/list"].items == (b'{ "name":"a" }', b"1.50", b'{"x":1e999}')
    assert sorted(found) == sorted(LIST_METHODS)
    assert transport.methods.count("tools/list") == 2


async def test_a_list_that_was_not_declared_is_not_asked_for() -> None:
    link, transport = listing(paged({"": b'{"tools":[]}'}), b'{"tools":{"listChanged":true}}')
    found = await walked(link)
    assert transport.methods == ["tools/list"]
    assert found["prompts/list"].items == ()


async def test_a_list_the_backend_does_not_know_is_empty_and_another_error_is_raised() -> None:
    link, _ = listing(lambda pending: b'"error":{"code":-32601,"message":"no"}')
    assert all(pages.items == () for pages in (await walked(link)).values())
    link, _ = listing(lambda pending: b'"error":{"code":-32603,"message":"broken"}')
    with pytest.raises(RemoteError, match="-32603"):
        await walked(link)


async def test_a_list_that_fails_takes_no_other_away() -> None:
    link, _ = listing(
        lambda pending: (
            b'"error":{"code":-32603,"message":"broken"}'
            if pending.method == "prompts/list"
            else b'"result":{"%b":[1]}' % LIST_METHODS[pending.method][1].encode()
        )
    )
    found = Found()
    await within(list_all(link, frozenset(LIST_METHODS), found, clock=LoopClock(), timeout=30, limits=LimitSettings()))
    assert isinstance(found.pop("prompts/list"), RemoteError)
    assert all(isinstance(each, Pages) and each.items == (b"1",) for each in found.values())


@pytest.mark.parametrize("cursor", [b"0", b"false", b"[]"])
async def test_a_cursor_that_is_not_a_string_ends_the_list_with_a_problem(cursor: bytes) -> None:
    link, _ = listing(paged({"": b'{"tools":[1],"nextCursor":%b}' % cursor}))
    found = (await walked(link, "tools/list"))["tools/list"]
    assert (found.items, found.problem) == ((b"1",), f"unusable nextCursor {cursor.decode()}")


LOOP = {
    "": b'{"tools":[],"nextCursor":"a"}',
    "a": b'{"tools":[],"nextCursor":"b"}',
    "b": b'{"tools":[],"nextCursor":"a"}',
}
LARGE = {"": b'{"tools":["%b"],"nextCursor":"x"}' % (b"x" * 600), "x": b'{"tools":["%b"]}' % (b"x" * 600)}


@pytest.mark.parametrize(
    ("pages", "limits", "message", "requests"),
    [
        (LOOP, {"pages": 2}, "tools/list has more than 2 pages", 2),
        (LOOP, {}, "a cursor was repeated", 3),
        (LARGE, {"size": 1200}, "tools/list is larger than 1200 bytes", 2),
        (
            {"": b'{"tools":[1,2,3],"nextCursor":"x"}', "x": b'{"tools":[4,5,6]}'},
            {"entries": 5},
            "more than 5 entries",
            2,
        ),
    ],
)
async def test_a_list_is_bounded(pages: dict[str, bytes], limits: dict[str, int], message: str, requests: int) -> None:
    link, transport = listing(paged(pages))
    with pytest.raises(BackendProtocolError, match=message):
        await walked(link, "tools/list", **limits)
    assert len(transport.requests) == requests


@pytest.mark.parametrize(
    ("pages", "limits", "count"),
    [(LARGE, {"size": 1300, "entries": 2, "pages": 2}, 2), ({"": b'{"tools":[1],"nextCursor":null}'}, {"pages": 1}, 1)],
)
async def test_a_list_within_its_bounds_is_taken(pages: dict[str, bytes], limits: dict[str, int], count: int) -> None:
    link, transport = listing(paged(pages))
    assert len((await walked(link, "tools/list", **limits))["tools/list"].items) == count
    assert len(transport.requests) == len(pages)


@pytest.mark.parametrize("odd", [b'{"tools":{}}', b'{"tools":null}'])
async def test_an_invalid_list_is_a_protocol_error(odd: bytes) -> None:
    link, _ = listing(paged({"": odd}))
    with pytest.raises(BackendProtocolError, match="invalid response to tools/list"):
        await walked(link)


@pytest.mark.parametrize(
    ("again", "items"),
    [
        (b'{"tools":[2]}', (b"1", b"2")),
        (b'{"tools":[2],"nextCursor":"x"}', (b"1", b"2", b"3")),
        (b'{"tools":[1],"nextCursor":""}', (b"1",)),
        (None, (b"1",)),
    ],
)
async def test_an_empty_cursor_is_followed_and_may_turn_out_to_be_the_end(
    again: bytes | None, items: tuple[bytes, ...]
) -> None:
    def answer(pending: PendingRequest) -> bytes:
        asked = bytes(pending.params.get("cursor", b""))
        said = {b"": b'{"tools":[1],"nextCursor":""}', b'""': again, b'"x"': b'{"tools":[3]}'}[asked]
        return b'"error":{"code":-32602,"message":"no"}' if said is None else b'"result":' + said

    link, _ = listing(answer)
    assert (await walked(link, "tools/list"))["tools/list"].items == items


async def test_the_timeout_bounds_all_lists_together() -> None:
    link, _ = listing(None)
    with pytest.raises(BackendTimeout):
        await walked(link, timeout=0.02)
    assert not link.is_busy


async def test_a_list_has_the_shortest_ttl_and_the_narrowest_scope_of_its_pages() -> None:
    pages = {
        "": b'{"tools":[],"ttlMs":9000,"cacheScope":"public","nextCursor":"x"}',
        "x": b'{"tools":[],"ttlMs":-5.5,"cacheScope":"private"}',
    }
    link, _ = listing(paged(pages))
    hint = (await walked(link))["tools/list"].hint
    assert hint is not None
    assert (hint.ttl_ms, hint.is_public) == (0, False)
