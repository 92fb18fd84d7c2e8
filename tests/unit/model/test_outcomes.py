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
    Forbidden,
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
    ("failure", "word"),
    [
        (None, "ok"),
        (RemoteError(b'{"code":1}', code=1, backend="notes"), "protocol_error"),
        (BackendProtocolError("notes", "no object"), "protocol_error"),
        (UnknownItem("tool", "t"), "invalid"),
        (UnknownMethod("m"), "invalid"),
        (InvalidParams("p"), "invalid"),
        (Forbidden("tool", "t"), "invalid"),
        (RequestError("r"), "invalid"),
        (BackendTimeout("notes", "late"), "timeout"),
        (CallCancelled(), "cancelled"),
        (asyncio.CancelledError(), "cancelled"),
        (BackendUnavailable("notes", "gone"), "backend_down"),
        (BackendLost("notes", "gone"), "backend_down"),
        (SessionExpired("notes", "gone"), "backend_down"),
        (TooManyRequests("many", retry_after=1), "overloaded"),
        (BackendOverloaded("notes", "many", running=1, waiting=1), "overloaded"),
        (AnswerDropped("notes"), "overloaded"),
        (ZeroDivisionError(), "internal_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_way_to_end_has_one_outcome(failure: BaseException | None, word: str) -> None:
    assert outcome_of(failure) == word
    assert word in OUTCOMES


def test_only_a_tool_call_can_end_with_a_tool_error() -> None:
    assert outcome_of(None, method="tools/call", result=FAILED) == "tool_error"
    assert outcome_of(None, method="tools/call", result=EMPTY) == "ok"
    assert outcome_of(None, method="resources/read", result=FAILED) == "ok"
    assert outcome_of(BackendTimeout("notes", "late"), method="tools/call", result=None) == "timeout"


@pytest.mark.parametrize(
    ("result", "is_error"),
    [
        (b'{"isError":true}', True),
        (b'{"content":[],"isError" : true}', True),
        (b'{"isError":true,"content":["%b"]}' % LONG, True),
        (b'{"content":["%b"],"isError":true}' % LONG, True),
        (b'{"content":["%b"],"isError":false}' % LONG, False),
        (b'{"content":[],"structuredContent":{"isError":true}}', False),
        (b'{"content":[{"type":"text","text":"\\"isError\\":true"}]}', False),
        (b'{"isError":"true"}', False),
        (b"{}", False),
    ],
    ids=range(9),
)
def test_a_tool_error_is_stated_at_the_top_level_of_the_result(result: bytes, is_error: bool) -> None:
    assert is_tool_error(Payload(result)) is is_error


@given(
    st.lists(st.sampled_from([b'"isError":', b"true", b"{", b"}", b",", b'"', b"[", b"\\", b"x" * 2000]), max_size=12)
)
def test_malformed_results_are_judged_without_an_exception(parts: Iterable[bytes]) -> None:
    assert is_tool_error(Payload(b"".join(parts))) in (True, False)
