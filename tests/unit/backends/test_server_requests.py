"""A server's question: answered once, withdrawn once, and what stands still in between."""

import asyncio
import json

import pytest

from mcp_manifold.backends.link.server_requests import ServerRequest, open_link
from mcp_manifold.errors import BackendLost, BackendTimeout, CallCancelled
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import MODERN_VERSION, Payload
from tests.unit.backends.linking import Caller, FakeTransport, Heard, new_session, text_of, tool, within

pytestmark = pytest.mark.anyio


class Asked:
    """A link on which calls are made and questions are collected."""

    def __init__(self, *, holder: Caller | None = None) -> None:
        self.questions: list[ServerRequest] = []
        self.withdrawn: list[str] = []
        held = None if holder is None else holder.session
        self.link = open_link("notes", on_notification=Heard(), on_question=self._asked, holder=held)
        self.transport = FakeTransport(self.link)
        self._tasks: list[asyncio.Task[Payload]] = []

    def __repr__(self) -> str:
        return f"<Asked {len(self.questions)}>"

    def _asked(self, question: ServerRequest) -> None:
        self.questions.append(question)
        question.on_withdrawn = lambda: self.withdrawn.append(question.method)

    async def call(self, caller: Caller, *, timeout: float = 60.0) -> "tuple[Call, asyncio.Task[Payload]]":
        call = caller.call()
        work = self.link.request("tools/call", tool("t"), timeout=timeout, call=call)
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.append(task)
        await self.transport.sent(len(self.transport.requests) + 1)
        return call, task

    def ask(self, id_: int = 7, method: str = "elicitation/create", origin: int | None = None) -> ServerRequest:
        body = {"jsonrpc": "2.0", "id": id_, "method": method, "params": {"a": 1}}
        came = None if origin is None else self.transport.requests[origin][0]
        self.link.fed(json.dumps(body).encode(), came)
        return self.questions[-1]

    def answer(self, number: int, text: str = "done") -> None:
        result = {"content": [{"type": "text", "text": text}]}
        self.link.fed(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}).encode())

    async def over(self) -> None:
        """Nobody waits any more."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def sent(self) -> list[dict[str, object]]:
        """The responses that went to the backend."""
        return [note for note in self.transport.notes if "method" not in note]


async def test_an_answer_goes_to_the_backend_once_under_its_own_id() -> None:
    asked = Asked()
    _, task = await asked.call(Caller("a"))
    question = asked.ask(41)
    question.answer(Payload(b'{"action":"accept"}'))
    question.answer(Payload(b'{"action":"decline"}'))
    question.fail(b'{"code":1,"message":"late"}')
    question.withdraw()
    assert asked.sent == [{"jsonrpc": "2.0", "id": 41, "result": {"action": "accept"}}]
    assert asked.withdrawn == []
    asked.answer(1)
    assert text_of(await within(task)) == "done"


async def test_an_answer_passes_through_its_translation() -> None:
    asked = Asked()
    await asked.call(Caller("a"))
    question = asked.ask()
    question.translate = lambda result: Payload(bytes(result).replace(b"ours", b"theirs"))
    question.answer(Payload(b'{"id":"ours"}'))
    assert asked.sent[0]["result"] == {"id": "theirs"}
    await asked.over()


async def test_a_withdrawn_question_is_never_answered() -> None:
    asked = Asked()
    await asked.call(Caller("a"))
    question = asked.ask(41)
    asked.link.fed(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":41}}')
    question.answer(Payload(b"{}"))
    assert (asked.sent, asked.withdrawn) == ([], ["elicitation/create"])
    assert repr(question) == "<ServerRequest elicitation/create of notes closed>"
    await asked.over()


async def test_the_end_of_a_call_however_it_ends_withdraws_what_was_asked_for_it() -> None:
    asked = Asked()
    _, answered = await asked.call(Caller("a"))
    first = asked.ask(1, origin=0)
    asked.answer(1)
    await within(answered)
    call, cancelled = await asked.call(Caller("a"))
    second = asked.ask(2, origin=1)
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(cancelled)
    _, lost = await asked.call(Caller("a"))
    third = asked.ask(3, origin=2)
    asked.link.lost(BackendLost("notes", "gone"))
    with pytest.raises(BackendLost):
        await within(lost)
    assert not any(question.is_open for question in (first, second, third))
    assert len(asked.withdrawn) == 3
    assert asked.sent == []


async def test_roots_asked_for_at_no_calls_request_outlive_the_call_beside_them() -> None:
    caller = Caller("a")
    asked = Asked(holder=caller)
    _, task = await asked.call(caller)
    question = asked.ask(5, "roots/list")
    asked.answer(1)
    await within(task)
    question.answer(Payload(b'{"roots":[]}'))
    assert asked.sent == [{"jsonrpc": "2.0", "id": 5, "result": {"roots": []}}]


@pytest.mark.parametrize(("principal", "is_told"), [(ANONYMOUS, False), (Principal("x", "x"), True)])
async def test_after_a_call_was_given_up_only_one_who_is_certainly_the_same_client_is_asked(
    principal: Principal, is_told: bool
) -> None:
    asked = Asked()
    for _ in range(2):  # each request of 2026-07-28 is a session of its own
        caller = Caller()
        caller.session = Session("", principal, "", MODERN_VERSION)
        call, task = await asked.call(caller)
        if len(asked.transport.requests) == 1:
            call.cancel()
            with pytest.raises(CallCancelled):
                await within(task)
    assert (asked.ask().session is caller.session) is is_told
    await asked.over()


async def test_an_id_that_is_used_again_is_another_question() -> None:
    asked = Asked()
    await asked.call(Caller("a"))
    first, second = asked.ask(9), asked.ask(9)
    first.answer(Payload(b'{"n":1}'))
    assert second.is_open
    asked.link.fed(b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":9}}')
    assert (repr(second), len(asked.withdrawn)) == ("<ServerRequest elicitation/create of notes closed>", 1)
    await asked.over()


# --- whose it is ------------------------------------------------------------------------------------------------------


async def test_on_a_pipe_it_is_the_one_client_that_waits_and_nobodys_when_there_are_two() -> None:
    asked, one, other = Asked(), Caller("a"), Caller("b")
    await asked.call(one)
    assert asked.ask(1).session is one.session
    await asked.call(one)
    question = asked.ask(2)
    assert (question.session, question.pending) == (one.session, None)
    await asked.call(other)
    assert asked.ask(3).session is None
    await asked.over()


async def test_after_a_call_was_given_up_it_is_nobodys_until_that_is_answered_after_all() -> None:
    asked, one, other = Asked(), Caller("a"), Caller("b")
    call, given_up = await asked.call(one)
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(given_up)
    await asked.call(other)
    assert asked.ask(1).session is None
    assert not asked.link.is_clear
    asked.answer(1)
    assert asked.ask(2).session is other.session
    asked.answer(2)
    assert asked.link.is_clear


async def test_ones_own_call_given_up_changes_nothing() -> None:
    asked, one = Asked(), Caller("a")
    call, given_up = await asked.call(one)
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(given_up)
    await asked.call(one)
    assert asked.ask(1).session is one.session
    await asked.over()


async def test_on_its_own_stream_it_belongs_to_that_call_whoever_else_waits() -> None:
    asked, one, other = Asked(), Caller("a"), Caller("b")
    await asked.call(one)
    await asked.call(other)
    assert asked.ask(1, origin=0).session is one.session
    assert asked.ask(2, origin=1).session is other.session
    await asked.over()


async def test_on_a_held_link_it_is_the_holders_even_without_a_call() -> None:
    caller = Caller("a")
    asked = Asked(holder=caller)
    question = asked.ask(1, "roots/list")
    assert (question.session, question.pending) == (caller.session, None)
    assert new_session("a") is not caller.session


# --- time stands still -----------------------------------------------------------------------------------------------


async def test_the_time_of_the_calls_it_may_belong_to_stands_still_while_it_is_open() -> None:
    caller = Caller("a")
    asked = Asked(holder=caller)
    _, first = await asked.call(caller, timeout=0.05)
    _, second = await asked.call(caller, timeout=0.05)
    question = asked.ask(1)
    _, other = await asked.call(caller, timeout=0.05)
    with pytest.raises(BackendTimeout):
        await within(other)
    assert not first.done()
    assert not second.done()
    question.answer(Payload(b"{}"))
    for task in (first, second):
        with pytest.raises(BackendTimeout):
            await within(task)


async def test_of_two_questions_the_last_one_lets_time_go_on() -> None:
    asked, caller = Asked(), Caller("a")
    _, task = await asked.call(caller, timeout=0.05)
    first, second = asked.ask(1), asked.ask(2)
    first.answer(Payload(b"{}"))
    _, other = await asked.call(caller, timeout=0.05)
    with pytest.raises(BackendTimeout):
        await within(other)
    assert not task.done()
    second.fail(b'{"code":-1,"message":"no"}')
    with pytest.raises(BackendTimeout):
        await within(task)


async def test_a_flood_of_questions_is_refused_beyond_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mcp_manifold.backends.link.server_requests.MAX_QUESTIONS", 2)
    link = open_link("notes", on_notification=Heard(), on_question=lambda question: None)
    transport = FakeTransport(link)
    for number in range(3):
        link.fed(b'{"jsonrpc":"2.0","id":%d,"method":"roots/list"}' % number)
    assert [(note["id"], note["error"]["message"]) for note in transport.notes] == [(2, "Too many requests are open")]
