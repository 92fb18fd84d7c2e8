"""Call counts: every call once, under a bounded set of labels."""

import pytest

from mcp_manifold.errors import UnknownMethod
from mcp_manifold.model.call import Call
from mcp_manifold.model.policy import Principal
from mcp_manifold.stages import BOUNDS, METHODS, Counts
from mcp_manifold.wire import EMPTY, Payload
from tests.unit.stages.calls import Outcome, make_call, observe

SECRET = "hunter2"
FAILED = Payload(b'{"content":[],"isError":true}')


def secret_call(method: str = "tools/call") -> Call:
    params = {"name": Payload(b'"%b"' % SECRET.encode())}
    principal = Principal(SECRET, SECRET)
    return make_call(method, params, key=f"key-{SECRET}", scope=f"server:{SECRET}", principal=principal)


class Counted:
    """The metrics stage of a program with these servers, and the calls it counted."""

    def __init__(self, *servers: str) -> None:
        self.counts = Counts(lambda name: name in servers)

    def run(self, outcome: Outcome, *, method: str = "tools/call", server: str = "") -> None:
        observe(self.counts, secret_call(method), outcome, backend=server)

    @property
    def found(self) -> dict[tuple[str, str, str], int]:
        return {
            (method, server, outcome): number
            for (method, server), series in self.counts.series.items()
            for outcome, number in series.outcomes.items()
            if number
        }


def test_calls_are_counted_by_method_server_and_outcome() -> None:
    counted = Counted("notes", "files")
    for server in ("notes", "notes", "files", ""):
        counted.run(EMPTY, server=server)
    counted.run(FAILED, server="notes")
    counted.run(EMPTY, method="tools/list")
    counted.run(Payload(b'{"x":"%b"}' % (b"y" * 3000)))
    assert counted.found == {
        ("tools/call", "notes", "ok"): 2,
        ("tools/call", "notes", "tool_error"): 1,
        ("tools/call", "files", "ok"): 1,
        ("tools/call", "", "ok"): 2,
        ("tools/list", "", "ok"): 1,
    }


def test_a_latency_is_counted_in_the_first_bucket_that_holds_it() -> None:
    counts = Counts(lambda name: True)
    for seconds in (0.0005, 0.25, 0.3, 61.0):
        observe(counts, make_call(), EMPTY, seconds=seconds)
    series = counts.series["tools/call", ""]
    found = {limit: number for limit, number in zip((*BOUNDS, "more"), series.buckets, strict=True) if number}
    assert found == {0.001: 1, 0.25: 1, 0.5: 1, "more": 1}
    assert series.seconds == pytest.approx(61.5505)


def test_an_endless_call_has_no_latency() -> None:
    counted = Counted()
    counted.run(EMPTY, method="subscriptions/listen")
    series = counted.counts.series["subscriptions/listen", ""]
    assert (sum(series.buckets), series.seconds, series.outcomes["ok"]) == (0, 0.0, 1)


def test_s21_made_up_names_create_no_labels() -> None:
    counted = Counted("notes")
    for number in range(200):
        counted.run(UnknownMethod("no"), method=f"{SECRET}/{number}")
        counted.run(EMPTY, server=f"{SECRET}-{number}")
    assert counted.found == {("other", "", "invalid"): 200, ("tools/call", "", "ok"): 200}
    assert set(counted.counts.in_flight) == {*METHODS, "other"}
    assert SECRET not in repr((counted.counts, list(counted.counts.series.values()), counted.counts.in_flight))


def test_a_call_is_in_flight_until_it_ends() -> None:
    counts = Counts(lambda name: True)
    assert counts.is_active
    calls = [make_call(method) for method in ("tools/call", "tools/call", "x")]
    for call in calls:
        counts.began(call)
    assert (counts.in_flight["tools/call"], counts.in_flight["other"], dict(counts.series)) == (2, 1, {})
    for call in calls:
        counts.ended(call, EMPTY, None)
    assert sum(counts.in_flight.values()) == 0
