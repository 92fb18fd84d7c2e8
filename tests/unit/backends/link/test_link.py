"""A link: matches answers, fails each request once, keeps notifications in order, cancels and times out requests."""

import asyncio
import json
from decimal import Decimal
from math import inf
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.backends.link.link import ANSWER_GRACE, Link, number_of
from mcp_manifold.backends.link.pending import HUMAN_WAIT, PendingRequest
from mcp_manifold.errors import (
    BackendError,
    BackendLost,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    RemoteError,
)
from mcp_manifold.model.call import Call
from mcp_manifold.wire import LARGE, MODERN_VERSION, Payload, modern_stamp
from mcp_manifold.wire.protocol import META_CAPABILITIES, META_VERSION
from tests.fakes.clock import FakeClock, settled
from tests.unit.backends.linking import Caller, FakeTransport, Heard, Sent, connected, new_link, send, within

pytestmark = pytest.mark.anyio

CANCELLED = "notifications/cancelled"
PROGRESS = b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%d,"progress":0.50}}'


def ready() -> tuple[Link, FakeTransport, FakeClock]:
    """A link whose time is moved by hand."""
    clock = FakeClock()
    return *connected(clock=clock), clock


def answer(link: Link, number: int = 1, result: bytes = b"{}", origin: PendingRequest | None = None) -> None:
    link.fed(b'{"jsonrpc":"2.0","id":%d,"result":%b}' % (number, result), origin)


def called(**params: Any) -> Call:
    return Caller().call(name="slow", **params)


# --- answers ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("spelled", [b"1", b'"1"', b"1.0", b"1.000"])
async def test_an_answer_in_any_spelling_of_its_id_is_reported_in_the_turn_it_arrives_in(spelled: bytes) -> None:
    link, transport = connected()
    sent = send(link)
    assert not sent.is_done
    assert transport.methods == ["tools/call"]
    link.fed(b'{"jsonrpc":"2.0","id":%b,"result":{ "a" : 1.50 }}' % spelled)
    assert sent.result == b'{ "a" : 1.50 }'
    assert not link.is_busy


@given(st.text(max_size=12) | st.integers() | st.floats() | st.none() | st.booleans() | st.lists(st.integers()))
def test_no_other_id_is_ever_taken_for_one_of_ours(value: object) -> None:
    number = number_of(Payload(json.dumps(value).encode()))
    text = str(value).lstrip("-+ ")
    if isinstance(value, str):
        text = value.strip().replace("_", "")
    if number >= 0:
        assert Decimal(text) == number


async def test_answers_in_any_order_reach_their_own_requests() -> None:
    link, _ = connected()
    sent = [send(link) for _ in range(3)]
    for number in (3, 1, 2):
        answer(link, number, b'{"n":%d}' % number)
    assert [each.result for each in sent] == [b'{"n":1}', b'{"n":2}', b'{"n":3}']


async def test_s28_an_answer_to_no_request_of_ours_changes_nothing() -> None:
    link, _ = connected()
    sent = send(link)
    for stray in (b"99", b'"x"', b"null", b"-1", b"0", b"1.5", b'"1.5"', b"[1]", b"true", b'""', b"1" * 5000):
        link.fed(b'{"jsonrpc":"2.0","id":%b,"result":{"stray":true}}' % stray)
    assert not sent.is_done
    answer(link)
    answer(link, result=b'{"second":2}')
    assert (sent.result, link.calls) == (b"{}", 1)


async def test_s28_an_answer_on_another_requests_stream_is_dropped() -> None:
    link, transport = connected()
    mine, other = send(link), send(link)
    answer(link, result=b'{"forged":true}', origin=other.pending)
    answer(link, result=b'{"own":true}', origin=transport.requests[0][0])
    assert (mine.result, other.is_done) == (b'{"own":true}', False)


@pytest.mark.parametrize("odd", [b'"result":null', b'"result":[]', b'"result":7'])
async def test_an_answer_without_a_result_object_is_not_mcp(odd: bytes) -> None:
    link, _ = connected()
    sent = send(link)
    link.fed(b'{"jsonrpc":"2.0","id":1,%b}' % odd)
    assert isinstance(sent.failure, BackendProtocolError)
    assert not link.is_busy


async def test_an_error_comes_through_byte_for_byte() -> None:
    link, _ = connected()
    sent = send(link)
    error = b'{ "message" : "gr\xc3\xbc\xc3\x9fe", "code" : -32001, "data" : 1e999 }'
    link.fed(b'{"jsonrpc":"2.0","id":1,"error":%b}' % error)
    assert isinstance(sent.failure, RemoteError)
    assert (sent.failure.raw, sent.failure.backend) == (error, "notes")


async def test_the_members_of_a_large_result_are_kept_with_its_request() -> None:
    link, _ = connected()
    sent = send(link)
    answer(link, result=b'{"content":[],"x":"%b"}' % (b"y" * LARGE))
    assert sent.pending is not None
    assert sent.pending.view is not None


# --- invalid messages -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "reason"),
    [(None, "larger than the message limit"), (b"<!doctype html>", "not valid JSON")],
    ids=["too large", "on its stream"],
)
async def test_an_invalid_message_fails_the_request_it_answers_and_no_other(message: bytes | None, reason: str) -> None:
    link, transport = connected()
    first, second = send(link), send(link)
    if message is None:
        link.oversized(b'{"jsonrpc":"2.0","id":1,"result":{"content":[')
    else:
        link.fed(message, transport.requests[0][0] if message.startswith(b"<") else None)
    assert isinstance(first.failure, BackendProtocolError)
    assert reason in str(first.failure)
    answer(link, 2)
    assert second.result == b"{}"


NOISE = (
    b"this is not JSON",
    b"[]",
    b"7",
    b'"text"',
    b"\xff\xfe",
    b"",
    b"{}",
    b'{"id":1e5}x',
    b'DEBUG got {"id": 1, "method": "tools/call"}',
    b'[debug] -> {"jsonrpc":"2.0","id":1,"result":{}}',
    b'[{"id":1,"state":"running"}]',
    b'[{"jsonrpc":"2.0","id":1,"result":{}}]',
    b'{"jsonrpc":"2.0","id":1}',
    b'{"jsonrpc":"2.0","id":1,"error":null}',
    b'{"jsonrpc":"2.0","id":1,"x":1}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"slow"}}',
    b'{"jsonrpc":"2.0","id":1,"method":"tools/',
    b'{"level":30,"id":1,"msg":"request received"}',
    b'{"level":50,"id":1,"error":"not found"}',
    b'{"level":30,"id":1,"result":"ok"}',
    b'{"level":30,"id":1,"data":{"jsonrpc":"2.0","id":1,"result":{"cut of',
)


@pytest.mark.parametrize("line", NOISE)
async def test_what_is_no_answer_ends_no_request_and_is_not_answered(line: bytes) -> None:
    link, transport = connected()
    sent = send(link)
    link.fed(line)
    assert not sent.is_done
    assert transport.notes == []
    answer(link)
    assert sent.result == b"{}"


CUT_OFF = (
    b'{"jsonrpc":"2.0","id": 1,"result":{"cut of',
    b'{"id":"1","jsonrpc":"2.0","error":{"code":-3',
    b'{"jsonrpc": "2.0", "id": 1}',
)


@pytest.mark.parametrize("line", CUT_OFF)
async def test_a_garbled_answer_fails_its_request_unless_the_whole_one_follows(line: bytes) -> None:
    link, _, clock = ready()
    first, second = send(link), send(link)
    link.fed(line)
    link.fed(line.replace(b'"1"', b'"2"').replace(b":1", b":2").replace(b": 1", b": 2"))
    answer(link, 2)
    await clock.advance(ANSWER_GRACE)
    assert isinstance(first.failure, BackendProtocolError)
    assert "answer" in str(first.failure)
    assert second.result == b"{}"


async def test_bytes_that_are_not_utf8_do_not_cost_the_answer() -> None:
    link, _ = connected()
    sent = send(link)
    answer(link, result=b'{"x":"caf\xe9"}')
    assert sent.result == '{"x":"caf\N{REPLACEMENT CHARACTER}"}'.encode()


# --- progress and other notifications ---------------------------------------------------------------------------------


async def test_progress_goes_to_its_caller_under_the_callers_own_token_and_before_the_result() -> None:
    link, transport = connected()
    caller = Caller()
    send(link, caller.call(name="slow", _meta={"progressToken": "their own", "x": 1}))
    assert transport.requests[0][1]["params"]["_meta"] == {"progressToken": 1, "x": 1}
    link.fed(PROGRESS % 1)
    answer(link)
    link.fed(PROGRESS % 1)
    assert caller.emitted == [
        b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":"their own","progress":0.50}}'
    ]


async def test_two_callers_with_the_same_token_receive_only_their_own_progress() -> None:
    link, _ = connected()
    callers = [Caller("a"), Caller("b")]
    for caller in callers:
        send(link, caller.call(name="slow", _meta={"progressToken": 5}))
    link.fed(PROGRESS % 2)
    assert [len(caller.emitted) for caller in callers] == [0, 1]
    assert b'"progressToken":5' in callers[1].emitted[0]


async def test_unwanted_progress_is_not_passed_on() -> None:
    link, _ = connected()
    caller = Caller()
    send(link, caller.call(name="slow"))
    for token in (b"1", b"7", b'"x"', b"null"):
        link.fed(
            b'{"jsonrpc":"2.0","method":"notifications/progress","params":{"progressToken":%b,"progress":1}}' % token
        )
    assert caller.emitted == []


async def test_other_notifications_are_handed_on_raw_with_the_call_they_came_with() -> None:
    heard = Heard()
    link, transport = connected(heard=heard)
    calls = [Caller("a").call(name="x"), Caller("b").call(name="x")]
    for call in calls:
        send(link, call)
    link.fed(
        b'{"jsonrpc":"2.0","method":"notifications/message","params":{ "level":"info" }}', transport.requests[1][0]
    )
    link.fed(b'{"jsonrpc":"2.0","method":"notifications/tools/list_changed"}')
    assert heard.notes == [
        ("notifications/message", b'{ "level":"info" }', calls[1]),
        ("notifications/tools/list_changed", b"{}", None),
    ]


async def test_a_ping_is_answered_here() -> None:
    link, transport = connected()
    link.fed(b'{"jsonrpc":"2.0","id":"p-1","method":"ping"}')
    assert transport.notes == [{"jsonrpc": "2.0", "id": "p-1", "result": {}}]


# --- deadlines --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "seconds", "spent"),
    [
        ({"timeout": 10.0}, 10.0, "10 s"),
        ({"timeout": 10.0, "waited": 4.0}, 6.0, "10 s"),
        ({"timeout": 60.0, "ceiling": 7.0}, 7.0, "7 s"),
    ],
)
async def test_a_request_without_an_answer_in_time_is_cancelled(
    limits: dict[str, Any], seconds: float, spent: str
) -> None:
    link, transport, clock = ready()
    sent = send(link, **limits)
    await clock.advance(seconds - 0.5)
    assert not sent.is_done
    await clock.advance(0.5)
    assert isinstance(sent.failure, BackendTimeout)
    assert f"no answer within {spent}" in str(sent.failure)
    assert [(note["method"], note["params"]["requestId"]) for note in transport.notes] == [(CANCELLED, 1)]
    answer(link)
    assert (link.calls, link.ended.done()) == (0, False)


async def test_progress_restarts_the_timeout_up_to_the_ceiling() -> None:
    link, _, clock = ready()
    patient, impatient = send(link, timeout=10.0, ceiling=25.0), send(link, timeout=10.0)
    for _ in range(2):
        await clock.advance(8)
        link.fed(PROGRESS % 1)
    assert isinstance(impatient.failure, BackendTimeout)
    await clock.advance(8)
    assert not patient.is_done
    await clock.advance(1)
    assert "no answer within 25 s in all" in str(patient.failure)


async def test_the_earliest_deadline_comes_first() -> None:
    link, _, clock = ready()
    sent = [send(link, timeout=seconds) for seconds in (30, 10, 20)]
    ends: list[int] = []
    for _ in range(3):
        await clock.advance(10)
        ends.append(sum(each.is_done for each in sent))
    assert ends == [1, 2, 3]


async def test_a_stalled_request_is_paused_within_a_bound_and_its_ceiling_moves_with_it() -> None:
    link, _, clock = ready()
    sent, forgotten = send(link, timeout=10.0, ceiling=15.0), send(link, timeout=10.0)
    assert sent.pending is not None
    assert forgotten.pending is not None
    link.stall(forgotten.pending)
    for _ in range(2):
        link.stall(sent.pending)
    await clock.advance(100)
    link.release(sent.pending)
    await clock.advance(100)
    assert not sent.is_done
    link.release(sent.pending)
    await clock.advance(8)
    link.fed(PROGRESS % 1)
    await clock.advance(6.5)
    assert not sent.is_done
    await clock.advance(0.5)
    assert "15 s in all" in str(sent.failure)
    await clock.advance(HUMAN_WAIT)
    assert isinstance(forgotten.failure, BackendTimeout)


# --- cancelling -------------------------------------------------------------------------------------------------------


async def test_an_abandoned_request_ends_at_once_and_is_cancelled_at_the_backend_once() -> None:
    link, transport = connected()
    sent = send(link, called())
    assert sent.pending is not None
    for _ in range(2):
        link.abandon(sent.pending, CallCancelled("the caller cancelled"))
    assert isinstance(sent.failure, CallCancelled)
    assert [note["params"] for note in transport.notes] == [{"requestId": 1, "reason": "the caller cancelled"}]
    answer(link, result=b'{"late":true}')
    link.lost(BackendLost("notes", "is gone"))
    assert len(transport.notes) == 1


async def test_in_the_modern_era_cancelling_closes_the_requests_own_stream() -> None:
    link, transport = connected()
    link.stamp(modern_stamp(Payload(b"{}"), Payload(b"{}")))
    sent = send(link, called())
    assert sent.pending is not None
    closed: list[None] = []
    sent.pending.abort = lambda: closed.append(None)
    link.abandon(sent.pending, CallCancelled())
    assert (len(closed), transport.notes) == (1, [])


async def test_a_waiting_task_that_is_cancelled_abandons_its_request() -> None:
    link, transport = connected()
    asking = asyncio.ensure_future(link.request("tools/list", {}, timeout=30.0))
    await transport.sent()
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    assert transport.notes[0]["params"] == {"requestId": 1, "reason": "the caller went away"}
    assert not link.is_busy


async def test_initialize_is_never_cancelled() -> None:
    link, transport, clock = ready()
    sent = send(link, method="initialize", timeout=10.0)
    await clock.advance(10)
    assert isinstance(sent.failure, BackendTimeout)
    assert transport.notes == []


# --- parking ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("when", ["while parked", "after resuming"])
async def test_a_parked_request_is_answered_twice_and_its_outcome_goes_to_the_second_call(when: str) -> None:
    link, _, clock = ready()
    first, second, retry = send(link, called(), timeout=10.0), Sent(), called(_meta={"progressToken": "new"})
    assert first.pending is not None
    link.park(first.pending, Payload(b'{"resultType":"input_required"}'))
    assert first.result == b'{"resultType":"input_required"}'
    await clock.advance(100)
    if when == "while parked":
        answer(link)
    link.resume(first.pending, retry, second.on_result)
    assert not second.is_done
    if when == "after resuming":
        await clock.advance(9)
        answer(link)
    await clock.advance(0)
    assert second.result == b"{}"
    assert not link.is_busy


async def test_a_resumed_request_times_out_anew() -> None:
    link, _, clock = ready()
    first, second = send(link, called(), timeout=10.0), Sent()
    assert first.pending is not None
    link.park(first.pending, Payload(b"{}"))
    await clock.advance(1000)
    link.resume(first.pending, called(), second.on_result)
    await clock.advance(10)
    assert isinstance(second.failure, BackendTimeout)


# --- the end of a link ------------------------------------------------------------------------------------------------


async def test_when_it_is_lost_every_request_fails_at_once_with_the_first_reason() -> None:
    link, transport = connected()
    sent = [send(link) for _ in range(20)]
    link.lost(BackendLost("notes", "the server exited with status 3"))
    link.lost(BackendLost("notes", "another one"))
    for each in sent:
        assert isinstance(each.failure, BackendLost)
        assert "exited with status 3" in str(each.failure)
        assert "outcome is unknown" in str(each.failure)
    with pytest.raises(BackendUnavailable, match="exited with status 3") as caught:
        send(link)
    assert caught.value.is_unsent
    assert (len(transport.requests), link.is_busy, link.notify("notifications/x")) == (20, False, None)
    assert "ended" in repr(link)


async def test_a_callback_may_send_again_when_the_link_is_lost() -> None:
    link, _ = connected()
    refused: list[BackendError] = []

    def again(pending: PendingRequest, result: Payload | None, failure: Exception | None) -> None:
        with pytest.raises(BackendUnavailable) as caught:
            send(link)
        refused.append(caught.value)

    link.send("tools/call", {}, again, timeout=30.0)
    other = send(link)
    link.lost(BackendLost("notes", "is gone"))
    assert isinstance(other.failure, BackendLost)
    assert len(refused) == 1


async def test_a_request_that_cannot_be_sent_is_raised_and_leaves_nothing_behind() -> None:
    link, transport = connected()
    transport.refusal = BackendUnavailable("notes", "too much is waiting")
    with pytest.raises(BackendUnavailable, match="too much is waiting"):
        send(link)
    assert not link.pending
    with pytest.raises(BackendUnavailable, match="not connected yet"):
        send(new_link())


# --- requests of our own ----------------------------------------------------------------------------------------------


async def test_the_outcome_of_a_request_of_our_own_is_in_its_future() -> None:
    link, _ = connected(lambda pending: b'"result":{"n":%d}' % pending.number)
    assert bytes(await within(link.request("tools/list", {}, timeout=30.0))) == b'{"n":1}'
    assert bytes(await within(link.begin("tools/list", {}, timeout=30.0).future)) == b'{"n":2}'
    standing = link.begin("subscriptions/listen", {})
    assert (standing.timeout, link.is_busy) == (inf, False)
    await settled()


# --- the `_meta` of this hop ------------------------------------------------------------------------------------------


async def test_a_modern_link_stamps_every_request() -> None:
    link, transport = connected()
    link.stamp(modern_stamp(Payload(b'{"name":"me"}'), Payload(b'{"roots":{}}')))
    call = Caller().call(name="x", _meta={META_VERSION: "1999-01-01", "vendor/x": None})
    call.session.capabilities = Payload(b'{"roots":{}}')
    send(link, call)
    meta = transport.requests[0][1]["params"]["_meta"]
    assert (meta[META_VERSION], meta[META_CAPABILITIES], meta["vendor/x"]) == (MODERN_VERSION, {"roots": {}}, None)


async def test_ids_are_never_used_twice() -> None:
    link, transport = connected()
    for number in range(1, 51):
        send(link)
        answer(link, number)
    assert [sent["id"] for _, sent in transport.requests] == list(range(1, 51))
