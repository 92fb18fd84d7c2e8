"""The outcome of a call in one word, the same in metrics, logs and audit records."""

import asyncio
import re
from typing import Final

from mcp_manifold.errors import (
    AnswerDropped,
    BackendError,
    BackendOverloaded,
    BackendProtocolError,
    BackendTimeout,
    CallCancelled,
    RemoteError,
    RequestError,
    TooManyRequests,
)
from mcp_manifold.wire import Payload, object_members

_FAILURES: Final = (
    (TooManyRequests, "overloaded"),
    (BackendOverloaded, "overloaded"),
    (AnswerDropped, "overloaded"),
    (RequestError, "invalid"),
    (RemoteError, "protocol_error"),
    (BackendProtocolError, "protocol_error"),
    (BackendTimeout, "timeout"),
    (BackendError, "backend_down"),
    (CallCancelled, "cancelled"),
    (asyncio.CancelledError, "cancelled"),
)
"""Error class to outcome; the first match counts, so subclasses come before their bases."""
OUTCOMES: Final = tuple(dict.fromkeys(("ok", "tool_error", *(word for _, word in _FAILURES), "internal_error")))
"""Every value `outcome_of` returns."""

_IS_ERROR: Final = re.compile(rb'"isError"\s*:\s*true')
_WINDOW: Final = 1024
"""Bytes at either end of a large result that are searched for `isError`: servers write it first or last."""


def outcome_of(failure: BaseException | None, *, method: str = "", result: Payload | None = None) -> str:
    """The outcome of a call, one of `OUTCOMES`: from `failure`, or from `result` if `failure` is None.

    Give `method` and `result` to tell `tool_error` from `ok`. An exception outside the error tree, other than a
    cancellation, is an `internal_error`.
    """
    if failure is None:
        is_error = method == "tools/call" and result is not None and is_tool_error(result)
        return "tool_error" if is_error else "ok"
    return next((word for kind, word in _FAILURES if isinstance(failure, kind)), "internal_error")


def is_tool_error(result: Payload) -> bool:
    """Whether a tool's result has `isError: true` at its top level (2026-07-28 server/tools, "Error Handling").

    A byte search comes first, in results over 2 KiB near either end only. The result is parsed only on a match, because
    a structured result may hold a member of the same name.
    """
    size = len(result)
    if size <= 2 * _WINDOW:
        found = _IS_ERROR.search(result)
    else:
        found = _IS_ERROR.search(result, 0, _WINDOW) or _IS_ERROR.search(result, size - _WINDOW)
    return found is not None and bytes(object_members(result).get("isError", b"")) == b"true"
