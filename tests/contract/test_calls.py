"""What goes on while a call is in flight: progress and cancellation, every front, every kind of backend."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offerings
from tests.contract.stand import KINDS, LATEST, WAYS, standing
from tests.peers import jsontext
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio


def _asked(name: str, token: str) -> bytes:
    """The params of a call that asks for progress under a token, raw."""
    members = (name.encode(), token.encode())
    return b'{"name":"%b","arguments":{"text":"end"},"_meta":{"progressToken":%b}}' % members


def _progress(notifications: list[bytes]) -> list[bytes | None]:
    """The params of the progress notifications among these."""
    return [jsontext.member(each, "params") for each in notifications if b"notifications/progress" in each]


@shows("progress", "progress-unasked")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_progress_comes_in_order_before_the_result_with_the_callers_token(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        for kind, token in zip(KINDS, ('"t\\u00f6k/+ \\""', "7", '"7"', "0", '""'), strict=True):
            params = _asked(f"{kind}__progress", token)
            reply = await client.request("tools/call", params)
            assert reply.text == "end"
            heard = _progress(reply.notifications)
            assert [jsontext.member(each, "progress") for each in heard] == [b"1", b"2", b"3"]
            assert [jsontext.member(each, "progressToken") for each in heard] == [token.encode()] * 3
            unknown = b'{"big":123456789012345678901234,"nil":null}'
            assert [jsontext.member(each, "x-unknown") for each in heard] == [unknown] * 3
            assert _progress((await client.call(f"{kind}__progress")).notifications) == []
            asked, plain = stand[kind].calls("tools/call")
            assert jsontext.member(asked.params, "_meta", "progressToken") is not None
            assert jsontext.member(plain.params, "_meta", "progressToken") is None


@shows("progress-own")
@pytest.mark.parametrize("way", [way for way in WAYS if way.transport != "stdio"], ids=str)
async def test_two_clients_with_the_same_token_hear_their_own_progress(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as first, stand.client(way) as second:
        for kind in KINDS:
            waiting = await first.begin("tools/call", _asked(f"{kind}__hang", "1"), id=41)
            await stand[kind].wait_for("tools/call")
            other = _asked(f"{kind}__progress", "1")
            assert len(_progress((await second.request("tools/call", other, id=41)).notifications)) == 3
            await stand[kind].release()
            assert _progress((await waiting.reply()).notifications) == []


@shows("cancel", "cancel-modern-http")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_cancelled_call_is_cancelled_at_its_backend_under_its_own_id(way: Way) -> None:
    async with standing(offerings()) as stand, stand.client(way) as client:
        for kind in KINDS:
            pending = await client.begin("tools/call", {"name": f"{kind}__hang"}, id="the client's")
            asked = await stand[kind].wait_for("tools/call")
            await client.cancel(pending)
            cancelled = await stand[kind].wait_cancelled()
            assert cancelled.id == asked.id
            assert (cancelled.raw == b"disconnected") is (kind == "web26")
            assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"
            assert not any(each.result for each in client.received if each.id == pending.id)
            assert len(stand[kind].cancelled) == 1


@shows("cancel-leaving")
async def test_hanging_up_a_handshake_post_does_not_cancel_the_call() -> None:
    async with standing(offerings()) as stand, stand.client(Way("http", LATEST)) as client:
        for kind in KINDS:
            pending = await client.begin("tools/call", {"name": f"{kind}__hang"})
            await stand[kind].wait_for("tools/call")
            client.abandon(pending)
            assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next"
            assert stand[kind].cancelled == []
            await stand[kind].release()


@shows("cancel")
@pytest.mark.parametrize(
    "way", [way for way in WAYS if way.transport == "sse" or way.version == MODERN_VERSION], ids=str
)
async def test_a_client_that_leaves_takes_its_calls_back(way: Way) -> None:
    async with standing(offerings()) as stand:
        async with stand.client(way) as client:
            for kind in KINDS:
                await client.begin("tools/call", {"name": f"{kind}__hang"})
                await stand[kind].wait_for("tools/call")
        for kind in KINDS:
            if way.transport != "stdio" or kind not in ("pipe", "pipe26"):
                await stand[kind].wait_cancelled()
