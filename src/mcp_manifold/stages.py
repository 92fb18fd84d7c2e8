"""Stages: observers of every call. `Counts` feeds the metrics, `CallLog` the log. No stage knows another."""

import logging
from bisect import bisect_left
from collections.abc import Callable, Mapping
from typing import Final

from mcp_manifold.model.call import Call
from mcp_manifold.model.outcomes import OUTCOMES, outcome_of
from mcp_manifold.wire import Payload

logger = logging.getLogger(__name__)

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
"""The values of the label `method`; every other method counts as `OTHER`."""
UNTIMED: Final = frozenset({"subscriptions/listen"})
"""Methods without a latency: they last until the client ends them."""


_SMALL: Final = 2048
"""Bytes of a result that is searched for `isError` before anything else decides on its outcome."""


def _is_plain(result: Payload | None) -> bool:
    """Whether a result is small and certainly no tool error."""
    return result is not None and len(result) <= _SMALL and b'"isError"' not in bytes(result)


class Series:
    """The counts for one method on one server. `buckets` are not cumulative; the last counts all above the bounds."""

    __slots__ = ("buckets", "outcomes", "seconds")

    def __init__(self) -> None:
        self.outcomes = dict.fromkeys(OUTCOMES, 0)
        self.buckets = [0] * (len(BOUNDS) + 1)
        self.seconds = 0.0

    def __repr__(self) -> str:
        return f"<Series {sum(self.outcomes.values())} calls, {self.seconds:.3f} s>"


class Counts:
    """Counts calls by method, server and outcome, with latency histograms; `fronts/http/metrics` exports them.

    It is on the hot path and runs on one event loop: plain integers, no lock, and sums are computed at export. Label
    values are bounded: methods from a fixed set, configured servers, outcomes from a fixed list.

    Args:
        is_server: whether a server of that name is configured; asked when the name is first seen.
    """

    __slots__ = ("_is_server", "_series", "in_flight")

    def __init__(self, is_server: Callable[[str], bool]) -> None:
        self._is_server = is_server
        self._series: dict[tuple[str, str], Series] = {}
        self.in_flight: dict[str, int] = dict.fromkeys((*METHODS, OTHER), 0)
        """Calls in flight, by method."""

    def __repr__(self) -> str:
        return f"<Counts {len(self._series)} series, {sum(self.in_flight.values())} calls in flight>"

    @property
    def series(self) -> Mapping[tuple[str, str], Series]:
        """The counts by (method, server). The server is empty for calls answered without a backend."""
        return self._series

    @property
    def is_active(self) -> bool:
        """Whether calls are counted. Always true: this stage exists only where there are metrics."""
        return True

    def began(self, call: Call) -> None:
        """Count a call in flight."""
        self.in_flight[call.method if call.method in METHODS else OTHER] += 1

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """Count the outcome and the latency."""
        method = call.method if call.method in METHODS else OTHER
        self.in_flight[method] -= 1
        series = self._series.get((method, call.backend)) or self._new_series(method, call.backend)
        series.outcomes["ok" if _is_plain(result) else outcome_of(failure, method=method, result=result)] += 1
        if method not in UNTIMED:
            series.seconds += call.seconds
            series.buckets[bisect_left(BOUNDS, call.seconds)] += 1

    def _new_series(self, method: str, server: str) -> Series:
        return self._series.setdefault((method, server if server and self._is_server(server) else ""), Series())


class CallLog:
    """Logs one line per call at level DEBUG. While that is off, a call costs one comparison.

    The line has no arguments, results, headers or session ids.
    """

    def __repr__(self) -> str:
        return "<CallLog>"

    @property
    def is_active(self) -> bool:
        """Whether the log level includes DEBUG."""
        return logger.isEnabledFor(logging.DEBUG)

    def began(self, call: Call) -> None:
        """Do nothing: a call is logged at its end."""

    def ended(self, call: Call, result: Payload | None, failure: BaseException | None) -> None:
        """Log the call. `error` is the class of the failure, if any."""
        outcome = outcome_of(failure, method=call.method, result=result)
        fields = {
            "backend": call.backend,
            "principal": call.session.principal.name,
            "scope": call.session.scope,
            "error": "" if failure is None else type(failure).__name__,
        }
        logger.debug("%s %s in %.1f ms", call.method, outcome, call.seconds * 1000, extra=fields)
