"""Call counts: every call once, under a bounded set of labels."""

import asyncio

import pytest

from mcp_manifold.errors import BackendTimeout, UnknownMethod
from mcp_manifold.model.call import Call, Session, Stages
from mcp_manifold.model.policy import Principal
from mcp_manifold.stages import BOUNDS, METHODS, Counts
from mcp_manifold.wire import EMPTY, Payload

pytestmark = pytest.mark.anyio
SECRET = "hunter2"
FAILED = Payload(b'{"content":[],"isError":true}')
Outcome = Payload | BaseException


def unheard(message: bytes, /, *, needed: bool = True) -> None:
    raise AssertionError(message)


def call(method: str = "tools/call") -> Call:
    session = Session(f"key-{SECRET}", Principal(SECRET, SECRET), f"server:{SECRET}", "2025-11-25")
    return Call(method, {"name": Payload(b'"%b"' % SECRET.encode())}, session, unheard)


class Counted:
    """The stage around a handler with a given outcome."""

    def __init__(self, *servers: str) -> None:
        self.counts = Counts(lambda name: name in servers)

    async def ran(self, outcome: Outcome, *, method: str = "tools/call", server: str = "") -> None:
        async def handler(call: Call) -> Payload:
            call.backend = server
            assert sum(self.counts.in_flight.values()) == 1
            if isinstance(outcome, BaseException):
                raise outcome
            return outcome

        (found,) = await asyncio.gather(Stages([self.counts]).around(handler)(call(method)), return_exceptions=True)
        assert found is outcome or isinstance(found, asyncio.CancelledError)

    @property
    def found(self) -> dict[tuple[str, str, str], int]:
        return {
            (method, server, outcome): number
            for (method, server), series in self.counts.series.items()
            for outcome, number in series.outcomes.items()
            if number
        }


@pytest.mark.parametrize(
    ("outcome", "word"),
    [
        (EMPTY, "ok"),
        (FAILED, "tool_error"),
        (BackendTimeout("notes", SECRET), "timeout"),
        (asyncio.CancelledError(), "cancelled"),
        (ZeroDivisionError(SECRET), "internal_error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
async def test_a_call_counts_once_under_its_outcome(outcome: Outcome, word: str) -> None:
    counted = Counted("notes")
    await counted.ran(outcome, server="notes")
    assert counted.found == {("tools/call", "notes", word): 1}
    assert sum(counted.counts.in_flight.values()) == 0


async def test_calls_are_counted_by_method_server_and_outcome() -> None:
    counted = Counted("notes", "files")
    for server in ("notes", "notes", "files", ""):
        await counted.ran(EMPTY, server=server)
    await counted.ran(FAILED, server="notes")
    await counted.ran(EMPTY, method="tools/list")
    assert counted.found == {
        ("tools/call", "notes", "ok"): 2,
        ("tools/call", "notes", "tool_error"): 1,
        ("tools/call", "files", "ok"): 1,
        ("tools/call", "", "ok"): 1,
        ("tools/list", "", "ok"): 1,
    }


async def test_a_latency_counts_in_exactly_one_bucket() -> None:
    counted = Counted("notes")
    for _ in range(3):
        await counted.ran(EMPTY, server="notes")
    series = counted.counts.series["tools/call", "notes"]
    assert (sum(series.buckets), len(series.buckets)) == (3, len(BOUNDS) + 1)
    assert series.seconds > 0


async def test_an_endless_call_has_no_latency() -> None:
    counted = Counted()
    await counted.ran(EMPTY, method="subscriptions/listen")
    series = counted.counts.series["subscriptions/listen", ""]
    assert (sum(series.buckets), series.seconds, series.outcomes["ok"]) == (0, 0.0, 1)


async def test_s21_made_up_names_create_no_labels() -> None:
    counted = Counted("notes")
    for number in range(200):
        await counted.ran(UnknownMethod("no"), method=f"{SECRET}/{number}")
        await counted.ran(EMPTY, server=f"{SECRET}-{number}")
    assert counted.found == {("other", "", "invalid"): 200, ("tools/call", "", "ok"): 200}
    assert set(counted.counts.in_flight) == {*METHODS, "other"}
    assert SECRET not in repr((counted.counts, list(counted.counts.series.values()), counted.counts.in_flight))


async def test_a_call_is_in_flight_until_it_ends() -> None:
    counts = Counts(lambda name: True)
    going = asyncio.Event()

    async def handler(call: Call) -> Payload:
        await going.wait()
        return EMPTY

    handle = Stages([counts]).around(handler)
    tasks = [asyncio.ensure_future(handle(call(method))) for method in ("tools/call", "tools/call", "x")]
    for _ in range(2):
        await asyncio.sleep(0)
    assert (counts.in_flight["tools/call"], counts.in_flight["other"], dict(counts.series)) == (2, 1, {})
    tasks[0].cancel()
    going.set()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert sum(counts.in_flight.values()) == 0
    outcomes = counts.series["tools/call", ""].outcomes
    assert (outcomes["ok"], outcomes["cancelled"]) == (1, 1)
