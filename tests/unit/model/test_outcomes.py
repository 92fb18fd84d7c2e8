"""Outcome words: one for every way a call can end."""

import asyncio
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.errors import (
    AnswerDropped,
    BackendLost,
    BackendOverloaded,
    BackendProtocolError,
    BackendTimeout,
    BackendUnavailable,
    CallCancelled,
    InvalidParams,
    RemoteError,
    RequestError,
    SessionExpired,
    TooManyRequests,
    UnknownItem,
    UnknownMethod,
)
from mcp_manifold.model.outcomes import OUTCOMES, is_tool_error, outcome_of
from mcp_manifold.wire import EMPTY, Payload

FAILED = Payload(b'{"content":[],"isError":true}')
LONG = b"x" * 10_000


@pytest.mark.parametrize(
    ("word", "failures"),
    [
        ("ok", [None]),
        ("protocol_error", [RemoteError(b"{}", code=1, backend="notes"), BackendProtocolError("notes", "no object")]),
        ("invalid", [UnknownItem("tool", "t"), UnknownMethod("m"), InvalidParams("p")]),
        ("invalid", [RequestError("r")]),
        ("timeout", [BackendTimeout("notes", "late")]),
        ("cancelled", [CallCancelled(), asyncio.CancelledError()]),
        ("backend_down", [kind("notes", "gone") for kind in (BackendUnavailable, BackendLost, SessionExpired)]),
        ("overloaded", [TooManyRequests("many", retry_after=1), AnswerDropped("notes")]),
        ("overloaded", [BackendOverloaded("notes", "many", running=1, waiting=1)]),
        ("internal_error", [ZeroDivisionError()]),
    ],
)
def test_every_way_to_end_has_one_outcome(word: str, failures: list[BaseException | None]) -> None:
    assert {outcome_of(failure) for failure in failures} == {word} <= set(OUTCOMES)


def test_only_a_tool_call_can_end_with_a_tool_error() -> None:
    assert outcome_of(None, method="tools/call", result=FAILED) == "tool_error"
    assert outcome_of(None, method="tools/call", result=EMPTY) == "ok"
    assert outcome_of(None, method="resources/read", result=FAILED) == "ok"
    assert outcome_of(BackendTimeout("notes", "late"), method="tools/call", result=None) == "timeout"


@pytest.mark.parametrize(
    ("is_error", "results"),
    [
        (True, (b'{"isError":true}', b'{"content":[],"isError" : true}')),
        (True, (b'{"isError":true,"content":["%b"]}' % LONG, b'{"content":["%b"],"isError":true}' % LONG)),
        (False, (b'{"content":["%b"],"isError":false}' % LONG, b'{"isError":"true"}', b"{}")),
        (False, (b'{"content":[],"structuredContent":{"isError":true}}',)),
        (False, (b'{"content":[{"type":"text","text":"\\"isError\\":true"}]}',)),
    ],
    ids=range(5),
)
def test_a_tool_error_is_stated_at_the_top_level_of_the_result(is_error: bool, results: tuple[bytes, ...]) -> None:
    assert [is_tool_error(Payload(result)) for result in results] == [is_error] * len(results)


@given(
    st.lists(st.sampled_from([b'"isError":', b"true", b"{", b"}", b",", b'"', b"[", b"\\", b"x" * 2000]), max_size=12)
)
def test_malformed_results_are_judged_without_an_exception(parts: Iterable[bytes]) -> None:
    assert is_tool_error(Payload(b"".join(parts))) in (True, False)
