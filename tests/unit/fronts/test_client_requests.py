"""Questions to one client: ids of its own, answered once, taken back, and no more of them than there may be."""

import asyncio
import json
from typing import Any

import pytest

from mcp_manifold.errors import CallCancelled
from mcp_manifold.fronts.client_requests import MOST, PendingClientRequests
from mcp_manifold.wire import Envelope, Payload, parse

pytestmark = pytest.mark.anyio


class Client:
    """Where questions go: remembers them."""

    def __init__(self) -> None:
        self.got: list[dict[str, Any]] = []
        self.questions = PendingClientRequests()
        self.listens = True

    def __repr__(self) -> str:
        return f"<Client {len(self.got)}>"

    def ask(self, params: bytes | None = b'{"a":1.50}') -> "asyncio.Future[Envelope]":
        given = None if params is None else Payload(params)
        return self.questions.ask("roots/list", given, self.post)

    def post(self, message: bytes) -> bool:
        if self.listens:
            self.got.append(json.loads(message))
        return self.listens

    def answer(self, text: str) -> None:
        self.questions.answered(parse(text.encode()))


async def settled() -> None:
    """Let the callbacks of futures run."""
    await asyncio.sleep(0)
    await asyncio.sleep(0)


async def test_each_question_has_an_id_of_its_own_and_its_own_answer() -> None:
    client = Client()
    first, second = client.ask(), client.ask(None)
    assert client.got == [
        {"jsonrpc": "2.0", "id": 1, "method": "roots/list", "params": {"a": 1.5}},
        {"jsonrpc": "2.0", "id": 2, "method": "roots/list"},
    ]
    client.answer('{"jsonrpc":"2.0","id":2,"result":{"n":1.50}}')
    client.answer('{"jsonrpc":"2.0","id":1,"error":{"code":-1,"message":"no"}}')
    assert bytes((await second).result or b"") == b'{"n":1.50}'
    assert bytes((await first).error or b"") == b'{"code":-1,"message":"no"}'
    await settled()
    assert len(client.questions) == 0
    assert repr(client.questions) == "<PendingClientRequests open=0>"


@pytest.mark.parametrize("id_", ["2", '"1"', "null", "1.5", "[1]"])
async def test_an_answer_to_nothing_that_was_asked_goes_nowhere(id_: str) -> None:
    client = Client()
    asked = client.ask()
    client.questions.answered(Envelope(id=Payload(id_.encode()), result=Payload(b"{}")))
    assert not asked.done()


async def test_only_the_first_answer_counts() -> None:
    client = Client()
    asked = client.ask()
    client.answer('{"jsonrpc":"2.0","id":1,"result":{"n":1}}')
    client.answer('{"jsonrpc":"2.0","id":1,"result":{"n":2}}')
    assert bytes((await asked).result or b"") == b'{"n":1}'


async def test_a_question_that_is_taken_back_is_taken_back_at_the_client_once() -> None:
    client = Client()
    asked = client.ask()
    asked.cancel()
    asked.cancel()
    await settled()
    assert [each["method"] for each in client.got] == ["roots/list", "notifications/cancelled"]
    assert client.got[1]["params"]["requestId"] == 1
    client.answer('{"jsonrpc":"2.0","id":1,"result":{}}')
    assert len(client.questions) == 0


async def test_when_the_client_leaves_every_question_fails() -> None:
    client = Client()
    asked = [client.ask() for _ in range(3)]
    client.questions.close()
    client.questions.close()
    for each in asked:
        with pytest.raises(CallCancelled, match="left"):
            await each
    await settled()
    assert len(client.got) == 3


async def test_a_question_that_did_not_get_through_fails_and_no_other() -> None:
    client = Client()
    first = client.ask()
    client.listens = False
    with pytest.raises(CallCancelled, match="no stream"):
        await client.ask()
    assert not first.done()


async def test_a_withdrawal_that_does_not_get_through_fails_no_other_question() -> None:
    client = Client()
    first, second = client.ask(), client.ask()
    client.listens = False
    first.cancel()
    await settled()
    assert len(client.questions) == 1
    assert not second.done()


async def test_one_question_too_many_fails_at_once_and_never_reaches_the_client() -> None:
    client = Client()
    asked = [client.ask() for _ in range(MOST)]
    with pytest.raises(CallCancelled, match="too many"):
        await client.ask()
    assert len(client.got) == MOST
    asked[0].cancel()
    await settled()
    assert not client.ask().done()
