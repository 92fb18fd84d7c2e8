"""A link: answers matched, callers failed at once and alone, notifications in order, requests taken back."""

import asyncio
import json
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.backends.link.link import number_of
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    RemoteError,
)
from mcp_manifold.wire import MODERN_VERSION, Payload, modern_stamp
from mcp_manifold.wire.protocol import META_CAPABILITIES, META_VERSION
from tests.unit.backends.linking import Caller, Heard, connected, new_link, raw, tool, within

pytestmark = pytest.mark.anyio

Asked = asyncio.Task[Payload]


def ask(link: object, method: str = "tools/call", *, timeout: float = 30.0, **kwargs: object) -> Asked:
    params = kwargs.pop("params", None) or tool("echo")
    return asyncio.ensure_future(link.request(method, params, timeout=timeout, **kwargs))  # type: ignore[attr-defined]  # a Link


async def failure(asked: Asked) -> BackendError:
    with pytest.raises(BackendError) as caught:
        await within(asked)
    return caught.value


# --- answers -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [b"1", b'"1"', b"1.0", b"1.000"])
async def test_an_id_comes_back_in_any_spelling(spelled: bytes) -> None:
    link, transport = connected()
    asked = ask(link)
    await transport.sent()
    link.fed(b'{"jsonrpc":"2.0","id":%b,"result":{ "a" : 1.50 }}' % spelled)
    assert bytes(await within(asked)) == b'{ "a" : 1.50 }'


@given(st.text(max_size=12) | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.integers()))
def test_no_other_id_is_ever_taken_for_one_of_ours(value: object) -> None:
    number = number_of(Payload(json.dumps(value).encode()))
    text = str(value).lstrip("-+ ")
    if isinstance(value, str):
        text = value.strip().replace("_", "")
    if number >= 0:
        assert Decimal(text) == number


async def test_answers_in_any_order_reach_their_own_callers() -> None:
    link, transport = connected()
    asked = [ask(link) for _ in range(3)]
    await transport.sent(3)
    for number in (3, 1, 2):
        link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{"n":%d}}' % (number, number))
    assert [bytes(await within(each)) for each in asked] == [b'{"n":1}', b'{"n":2}', b'{"n":3}']
    assert not link.is_busy


async def test_s28_an_answer_to_no_request_of_ours_changes_nothing() -> None:
    link, transport = connected()
    asked = ask(link)
    await transport.sent()
    for stray in (b"99", b'"x"', b"null", b"-1", b"0", b"1.5", b'"1.5"', b"[1]", b"true", b'""'):
        link.fed(b'{"jsonrpc":"2.0","id":%b,"result":{"stray":true}}' % stray)
    assert not asked.done()
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert bytes(await within(asked)) == b"{}"


async def test_s28_a_second_answer_is_dropped() -> None:
    link, transport = connected()
    asked = ask(link)
    await transport.sent()
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{"first":1}}')
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{"second":2}}')
    assert bytes(await within(asked)) == b'{"first":1}'
    assert link.calls == 1


async def test_s28_an_answer_on_another_requests_stream_is_dropped() -> None:
    link, transport = connected()
    mine, other = ask(link), ask(link)
    await transport.sent(2)
    stream = transport.requests[1][0]
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{"forged":true}}', stream)
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{"own":true}}', transport.requests[0][0])
    assert bytes(await within(mine)) == b'{"own":true}'
    assert not other.done()
    link.lost(BackendLost("notes", "over"))
    await failure(other)


async def test_a_late_answer_after_the_timeout_is_dropped() -> None:
    link, transport = connected()
    asked = ask(link, timeout=0.02)
    assert isinstance(await failure(asked), BackendTimeout)
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    assert link.calls == 0
    assert transport.notes[0]["params"]["requestId"] == 1


@pytest.mark.parametrize("odd", [b'"result":null', b'"result":[]', b'"result":7', b'"x":1'])
async def test_an_answer_without_a_result_object_is_not_mcp(odd: bytes) -> None:
    link, transport = connected()
    asked = ask(link)
    await transport.sent()
    link.fed(b'{"jsonrpc":"2.0","id":1,%b}' % odd)
    assert isinstance(await failure(asked), BackendProtocolError)


async def test_an_error_comes_through_byte_for_byte() -> None:
    link, transport = connected()
    asked = ask(link)
    await transport.sent()
    error = b'{ "message" : "gr\xc3\xbc\xc3\x9fe", "code" : -32001, "data" : 1e999 }'
    link.fed(b'{"jsonrpc":"2.0","id":1,"error":%b}' % error)
    with pytest.raises(RemoteError) as caught:
        await within(asked)
    assert caught.value.raw == error
    assert caught.value.backend == "notes"


# --- garbage -------------------------------------------------------------------------------------------------------


async def test_garbage_that_names_a_request_fails_that_request_at_once() -> None:
    link, transport = connected()
    first, second = ask(link), ask(link)
    await transport.sent(2)
    link.fed(b'{"jsonrpc":"2.0","id": 1,"result":{"cut of')
    assert "answer is not valid JSON" in str(await failure(first))
    assert not second.done()
    link.fed(b'{"jsonrpc":"2.0","id":2,"result":{}}')
    await within(second)


@pytest.mark.parametrize("line", [b"this is not JSON", b"[]", b"7", b'"text"', b"\xff\xfe", b"", b"{}", b'{"id":1e5}x'])
async def test_garbage_that_names_none_of_them_fails_nobody(line: bytes) -> None:
    link, transport = connected()
    asked = ask(link)
    await transport.sent()
    link.fed(line)
    assert not asked.done()
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    await within(asked)


async def test_an_answer_over_the_limit_fails_only_its_caller() -> None:
    link, transport = connected()
    first, second = ask(link), ask(link)
    await transport.sent(2)
    link.oversized(b'{"jsonrpc":"2.0","id":2,"result":{"content":[')
    assert "larger than the message limit" in str(await failure(second))
    assert not first.done()
    link.lost(BackendLost("notes", "over"))
    await failure(first)


async def test_garbage_on_a_requests_own_stream_fails_that_request() -> None:
    link, transport = connected()
    asked = ask(link)
    pending = await transport.sent()
    link.fed(b"<!doctype html>", pending)
    assert isinstance(await failure(asked), BackendProtocolError)


# --- progress and other notifications -------------------------------------------------------------------------------


async def test_progress_goes_to_its_caller_under_the_callers_own_token_and_before_the_result() -> None:
    link, transport = connected()
    caller = Caller()
    call = caller.call(name="slow", _meta={"progressToken": "their own", "x": 1})
    asked = ask(link, params=call.params, call=call)
    await transport.sent()
    sent = transport.requests[0][1]["params"]["_meta"]
    assert sent == {"progressToken": 1, "x": 1}
    link.fed(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":0.50,"x":{}}}')
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    link.fed(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":9}}')
    await within(asked)
    assert caller.emitted == [
        b'{"jsonrpc":"2.0","method":"notifications/progress",'
        b'"params":{"progressToken":"their own","progress":0.50,"x":{}}}'
    ]


async def test_two_callers_with_the_same_token_hear_only_their_own_progress() -> None:
    link, transport = connected()
    callers = [Caller("a"), Caller("b")]
    for caller in callers:
        call = caller.call(name="slow", _meta={"progressToken": 5})
        ask(link, params=call.params, call=call)
    await transport.sent(2)
    link.fed(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":2,"progress":1}}')
    assert [len(caller.emitted) for caller in callers] == [0, 1]
    assert b'"progressToken":5' in callers[1].emitted[0]


async def test_unwanted_progress_is_not_passed_on() -> None:
    link, transport = connected()
    caller = Caller()
    call = caller.call(name="slow")
    ask(link, params=call.params, call=call)
    await transport.sent()
    for token in (b"1", b"7", b'"x"', b"null"):
        link.fed(
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b,"progress":1}}' % token
        )
    assert caller.emitted == []


async def test_other_notifications_are_handed_on_raw_with_the_call_they_came_with() -> None:
    heard = Heard()
    link, transport = connected(heard=heard)
    calls = [Caller("a").call(name="x"), Caller("b").call(name="x")]
    asked = [ask(link, params=call.params, call=call) for call in calls]
    await transport.sent(2)
    link.fed(
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{ "level":"info" }}', transport.requests[1][0]
    )
    link.fed(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
    assert heard.notes == [
        ("notifications/message", b'{ "level":"info" }', calls[1]),
        ("notifications/tools/list_changed", b"{}", None),
    ]
    link.lost(BackendLost("notes", "over"))
    for each in asked:
        await failure(each)


async def test_a_ping_is_answered_here() -> None:
    link, transport = connected()
    link.fed(b'{"jsonrpc":"2.0","id":"p-1","method":"ping"}')
    assert transport.notes == [{"jsonrpc": "2.0", "id": "p-1", "result": {}}]


# --- time -----------------------------------------------------------------------------------------------------------


async def test_no_answer_in_time_is_a_timeout_that_tells_the_backend() -> None:
    link, transport = connected()
    failed = await failure(ask(link, timeout=0.02))
    assert "no answer within 0.02 s" in str(failed)
    assert [note["method"] for note in transport.notes] == ["notifications/cancelled"]
    assert not link.ended.done()


async def test_progress_starts_the_time_anew() -> None:
    link, transport = connected()
    patient, impatient = ask(link, timeout=0.02), ask(link, timeout=0.02)
    await transport.sent(2)
    pending = transport.requests[0][0]
    pending.timeout = 30.0
    link.fed(b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":1,"progress":1}}')
    assert isinstance(await failure(impatient), BackendTimeout)
    assert not patient.done()
    link.fed(b'{"jsonrpc":"2.0","id":1,"result":{}}')
    await within(patient)


async def test_a_short_timeout_after_a_long_one_is_kept() -> None:
    link, _ = connected()
    long, short = ask(link, timeout=30), ask(link, timeout=0.02)
    assert isinstance(await failure(short), BackendTimeout)
    assert not long.done()
    link.lost(BackendLost("notes", "over"))
    await failure(long)


# --- taking back ----------------------------------------------------------------------------------------------------


async def test_a_cancelled_call_is_cancelled_at_the_backend_and_its_caller_told() -> None:
    link, transport = connected()
    call = Caller().call(name="slow")
    asked = ask(link, params=call.params, call=call)
    await transport.sent()
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(asked)
    assert [(note["method"], note["params"]["requestId"]) for note in transport.notes] == [
        ("notifications/cancelled", 1)
    ]
    call.cancel()
    assert len(transport.notes) == 1


async def test_in_the_modern_era_cancelling_closes_the_requests_own_stream() -> None:
    link, transport = connected()
    link.stamp(modern_stamp(Payload(b"{}"), Payload(b"{}")))
    call = Caller().call(name="slow")
    asked = ask(link, params=call.params, call=call)
    pending = await transport.sent()
    closed: list[PendingRequest] = []
    pending.abort = lambda: closed.append(pending)
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(asked)
    assert closed == [pending]
    assert transport.notes == []


async def test_a_waiting_task_that_is_cancelled_takes_its_request_back() -> None:
    link, transport = connected()
    asked = ask(link)
    await transport.sent()
    asked.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asked
    assert transport.notes[0]["params"] == {"requestId": 1, "reason": "the caller went away"}
    assert not link.is_busy


async def test_initialize_is_never_cancelled() -> None:
    link, transport = connected()
    assert isinstance(await failure(ask(link, "initialize", timeout=0.02)), BackendTimeout)
    assert transport.notes == []


async def test_a_call_cancelled_before_it_was_sent_does_not_wait() -> None:
    link, transport = connected()
    call = Caller().call(name="slow")
    call.cancel()
    with pytest.raises(CallCancelled):
        await within(ask(link, params=call.params, call=call))
    assert transport.notes[0]["method"] == "notifications/cancelled"


# --- the end of a link ----------------------------------------------------------------------------------------------


async def test_when_it_is_lost_everything_pending_fails_at_once_with_the_reason() -> None:
    link, transport = connected()
    asked = [ask(link) for _ in range(20)]
    await transport.sent(20)
    link.lost(BackendLost("notes", "the server exited with status 3"))
    for each in asked:
        failed = await failure(each)
        assert isinstance(failed, BackendLost)
        assert "exited with status 3" in str(failed)
        assert "outcome is unknown" in str(failed)
    assert not link.is_busy


async def test_after_its_end_a_request_is_refused_at_once_and_the_first_reason_stays() -> None:
    link, transport = connected()
    link.lost(BackendLost("notes", "the first reason"))
    link.lost(BackendLost("notes", "another one"))
    failed = await failure(ask(link))
    assert isinstance(failed, BackendUnavailable)
    assert "the first reason" in str(failed)
    assert transport.requests == []
    assert link.notify("notifications/x") is None
    assert "ended" in repr(link)


async def test_a_request_that_cannot_be_sent_leaves_nothing_behind() -> None:
    link, transport = connected()
    transport.refusal = BackendUnavailable("notes", "too much is waiting")
    assert "too much is waiting" in str(await failure(ask(link)))
    assert not link.is_busy


async def test_without_a_transport_it_is_not_connected_yet() -> None:
    link = new_link()
    assert "not connected yet" in str(await failure(ask(link)))


# --- the envelope of this hop ---------------------------------------------------------------------------------------


async def test_a_modern_link_stamps_every_request() -> None:
    link, transport = connected()
    link.stamp(modern_stamp(Payload(b'{"name":"me"}'), Payload(b'{"roots":{}}')))
    asked = ask(link, params=raw(name="x", _meta={META_VERSION: "1999-01-01", "vendor/x": None}))
    await transport.sent()
    meta = transport.requests[0][1]["params"]["_meta"]
    assert (meta[META_VERSION], meta[META_CAPABILITIES], meta["vendor/x"]) == (MODERN_VERSION, {"roots": {}}, None)
    asked.cancel()


async def test_ids_are_never_used_twice() -> None:
    link, transport = connected(lambda pending: b'"result":{}')
    for _ in range(50):
        await within(ask(link))
    assert [sent["id"] for _, sent in transport.requests] == list(range(1, 51))
