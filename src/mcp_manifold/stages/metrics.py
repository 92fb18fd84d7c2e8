"""Counts every call by method, server and outcome, and how long it took. Knows no exposition format and no registry.

On the way of every call, so it is plain integers of the one event loop: no lock, and nothing is computed that can be
computed when somebody asks. The labels are bounded: methods from a fixed set, servers that exist, outcomes from a list.
"""

import asyncio
import re
from bisect import bisect_left
from collections.abc import Callable, Mapping
from time import perf_counter
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
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload, client_meta

BOUNDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
"""Upper bounds of the latency buckets, in seconds."""
OTHER: Final = "other"
METHODS: Final = frozenset(
    {
        "completion/complete", "initialize", "logging/setLevel", "ping", "prompts/get", "prompts/list",
        "resources/list", "resources/read", "resources/subscribe", "resources/templates/list",
        "resources/unsubscribe", "server/discover", "subscriptions/listen", "tasks/cancel", "tasks/get", "tasks/list",
        "tasks/result", "tasks/update", "tools/call", "tools/list",
    }
)  # fmt: skip
"""The values of the label `method`; all others are `other`."""
ENDLESS: Final = frozenset({"subscriptions/listen"})
"""Calls that last until their caller has enough: how long says nothing."""

OK: Final = "ok"
TOOL_ERROR: Final = "tool_error"
CANCELLED: Final = "cancelled"
DEFECT: Final = "internal_error"
_OUTCOMES: Final = (
    (TooManyRequests, "overloaded"),
    (BackendOverloaded, "overloaded"),
    (AnswerDropped, "overloaded"),
    (RequestError, "invalid"),
    (RemoteError, "protocol_error"),
    (BackendProtocolError, "protocol_error"),
    (BackendTimeout, "timeout"),
    (BackendError, "backend_down"),
    (CallCancelled, CANCELLED),
    (asyncio.CancelledError, CANCELLED),
)
"""The first that fits counts. What is in none is a fault of ours."""
OUTCOMES: Final = tuple(dict.fromkeys((OK, TOOL_ERROR, *(outcome for _, outcome in _OUTCOMES), DEFECT)))
"""The values of the label `outcome`."""

_FAILED: Final = re.compile(rb'"isError"\s*:\s*true')
_WINDOW: Final = 1024
"""Bytes at either end of a long result in which `isError` is looked for: servers write it first or last."""


class Series:
    """The counts of one method on one server. `buckets` are not cumulative; the last is above all bounds."""

    __slots__ = ("buckets", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<Series {sum(self.outcomes.values())} calls, {self.seconds:.3f} s>"


class Counts:
    """The counters of all calls, and the Stage that counts them.

    Args:
        is_server: whether there is a server of that name; asked when one is first met.
    """

    __slots__ = ("_is_server", "_series", "flying")

    def __init__(self, is_server: Callable[[str], bool]) -> None:
        self._is_server = is_server
        self._series: dict[tuple[str, str], Series] = {}
        self.flying: dict[str, int] = dict.fromkeys((*METHODS, OTHER), 0)
        """Calls being answered now, by method."""

    def __repr__(self) -> str:
        return f"<Counts {len(self._series)} series, {sum(self.flying.values())} calls in flight>"

    @property
    def series(self) -> Mapping[tuple[str, str], Series]:
        """The counts so far, by method and server; the server is empty for what is answered here."""
        return self._series

    def began(self, call: Call) -> None:
        """A call is being answered."""
        self.flying[call.method if call.method in METHODS else OTHER] += 1

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """Count it."""
        method = call.method if call.method in METHODS else OTHER
        self.flying[method] -= 1
        if result is None:
            outcome = outcome_of(failure)
        else:
            outcome = TOOL_ERROR if method == "tools/call" and is_tool_error(result) else OK
        series = self._series.get((method, call.backend)) or self._meet(method, call.backend)
        series.outcomes[outcome] += 1
        if method not in ENDLESS:
            seconds = perf_counter() - call.began
            series.seconds += seconds
            series.buckets[bisect_left(BOUNDS, seconds)] += 1

    def _meet(self, method: str, server: str) -> Series:
        return self._series.setdefault((method, server if server and self._is_server(server) else ""), Series())


def outcome_of(exc: BaseException | None) -> str:
    """The value of the label `outcome` for a call that raised."""
    return next((outcome for kind, outcome in _OUTCOMES if isinstance(exc, kind)), DEFECT)


def is_tool_error(result: Payload) -> bool:
    """Whether a tool's result says that it failed.

    Found by its bytes, near either end; only where they are there is the result taken apart, since a structured result
    may have a member of that name itself.
    """
    size = len(result)
    if size <= 2 * _WINDOW:
        found = _FAILED.search(result)
    else:
        found = _FAILED.search(result, 0, _WINDOW) or _FAILED.search(result, size - _WINDOW)
    return found is not None and bytes(client_meta(result).get("isError", b"")) == b"true"
