"""Every request that the stdio front read is answered or refused under its own id, however its client ends."""

import asyncio
import json
from typing import Any

import pytest

from mcp_manifold.fronts.stdio import StdioFront, id_in
from tests.unit.fronts.fakes import META, FakeGateway, Held, encoded, note, request, scripted
from tests.unit.fronts.test_stdio import BOUND, Peer, claim, pipes, serving

pytestmark = pytest.mark.anyio

LONG = "x" * 5000


async def rest(peer: Peer) -> list[Any]:
    """What comes until the output ends."""
    found = []
    try:
        while True:
            found.append(await peer.receive())
    except EOFError:
        return found


@pytest.mark.parametrize("params", [{"name": "x"}, {"name": "x", "_meta": META}], ids=["handshake", "modern"])
async def test_what_is_in_flight_when_the_input_ends_is_refused_but_nothing_that_was_cancelled(
    params: dict[str, Any],
) -> None:
    async with serving(scripted(tools_call=Held())) as (peer, _):
        await peer.greet()
        peer.send(*(request("tools/call", id_, **params) for id_ in (1, "two", 3)))
        peer.send(note("notifications/cancelled", requestId=3), request("ping", 4))
        peer.leave()
        answers = await rest(peer)
    codes = {answer["id"]: answer.get("error", {}).get("code") for answer in answers}
    assert (codes, len(answers)) == ({4: None, 1: -32800, "two": -32800}, 3)


async def test_what_was_read_but_not_begun_when_the_server_stops_is_refused() -> None:
    held = Held()
    gateway = scripted(tools_call=held)
    (source, target), theirs = pipes()
    front = StdioFront(gateway, claim=claim(source, target))
    task = asyncio.create_task(front.serve())
    peer = Peer(*theirs)
    await peer.greet()
    count = 100
    peer.send(*(request("tools/call", number, name="x") for number in range(count)))
    async with asyncio.timeout(BOUND):
        await held.begun.wait()
    front.stop()
    front.stop()
    answers = await rest(peer)
    async with asyncio.timeout(BOUND):
        await task
    peer.leave()
    assert sorted(answer["id"] for answer in answers) == list(range(count))
    assert all("error" in answer for answer in answers)
    assert len(gateway.calls) < count


ORDERS = {
    "id first": b'{"jsonrpc":"2.0","id":%b,"method":"m","params":{"a":"%b","id":5,"x":{"id":6}}}',
    "id last": b'{"method":"m","params":{"id":5,"a":"%.0b%b","x":{"id":6}},"jsonrpc":"2.0","id":%b}',
    "id before others": b'{"method":"m", "params":{"a":["%.0b%b",{"id":5}]} , "id" : %b , "jsonrpc":"2.0" }',
}


def long(order: str, id_: bytes, size: int = 5000) -> bytes:
    text = b"y" * size
    return ORDERS[order].replace(b"%.0b", b"") % ((id_, text) if order == "id first" else (text, id_))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("id_", [b"7", b'"seven"', b'"a \\"b\\" \xc3\xa9"', b"-1"])
@pytest.mark.parametrize("end", [b"\n", b"\r\n", b""])
async def test_a_request_over_the_limit_is_refused_under_its_id(order: str, id_: bytes, end: bytes) -> None:
    async with serving(FakeGateway(limits={"max_body": 10_000})) as (peer, _):
        peer.send_raw(long(order, id_, 20_000) + end)
        peer.send(request("ping", 99)) if end else peer.leave()
        answers = [await peer.receive() for _ in range(2)] if end else await rest(peer)
    ids = [answer["id"] for answer in answers]
    assert json.loads(id_) in ids
    assert len(ids) == (2 if end else 1)


@pytest.mark.parametrize(
    "line",
    [
        b'{"jsonrpc":"2.0","id":7,"result":{"a":"%b"}}',
        b'{"jsonrpc":"2.0","method":"m","params":{"a":"%b","id":7}}',
        b'{"jsonrpc":"2.0","method":"m","params":{"a":"%b \\"id\\":7"}}',
        b'{"jsonrpc":"2.0","method":"m","params":{"a":"%b"},"id":{"a":7}}',
        b'{"jsonrpc":"2.0","id":[7],"method":"m","params":{"a":"%b"}}',
        b"%b",
    ],
)
def test_what_is_no_request_with_an_id_has_none(line: bytes) -> None:
    whole = line % (b"z" * 20_000)
    assert bytes(id_in(whole[:4096] + whole[-4096:])) == b"null"


async def test_a_response_over_the_limit_is_not_taken_for_a_request() -> None:
    async with serving(FakeGateway(limits={"max_body": 10_000})) as (peer, _):
        peer.send_raw(encoded({"jsonrpc": "2.0", "id": 1, "result": {"x": LONG * 5}}) + b"\n")
        assert (await peer.receive())["id"] is None
