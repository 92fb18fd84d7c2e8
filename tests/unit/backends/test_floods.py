"""What bounds a flood: the pace of reading, the count of noise, and the alarm that gives late answers a chance."""

import asyncio

import pytest
from mcp_manifold.backends.link.deadline_timer import DeadlineTimer
from mcp_manifold.backends.link.invalid_messages import FLOOD, SAID, InvalidMessageMonitor

from mcp_manifold.backends.link import deadline_timer as alarm
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.clock import RateLimiter
from mcp_manifold.wire.lines import ENDLESS_LINE, LineCutter

pytestmark = pytest.mark.anyio


def test_what_is_within_the_pace_rests_for_nothing_and_what_is_over_it_until_the_second_is_over() -> None:
    pace = RateLimiter(10)
    assert [pace.rest(5, 7.25), pace.rest(5, 7.25), pace.rest(1, 7.25), pace.rest(10, 8.0)] == [0, 0, 0.75, 0]


def test_noise_is_said_at_a_rate_and_a_flood_is_told_from_it(caplog: pytest.LogCaptureFixture) -> None:
    noise = InvalidMessageMonitor("notes")
    assert [noise.is_flood("no JSON", 1.0) for _ in range(FLOOD)] == [False] * (FLOOD - 1) + [True]
    assert len(caplog.records) == SAID
    assert not noise.is_flood("no JSON", 2.0)  # another second
    assert caplog.records[-2].__dict__["times"] == FLOOD - SAID


def test_a_line_that_is_far_too_long_is_one_without_an_end_until_it_ends() -> None:
    lines = LineCutter(10)
    pieces = (b"x" * 11, b"x" * (ENDLESS_LINE + 1), b"\nnext\n")
    seen = [(list(lines.feed(piece)), lines.is_endless) for piece in pieces]
    assert seen == [([], False), ([], True), ([b"next"], False)]


async def test_an_alarm_that_is_very_late_waits_for_what_is_still_unread() -> None:
    loop = asyncio.get_running_loop()
    order: list[str] = []
    rung = asyncio.Event()

    def expired(pending: PendingRequest, _: str) -> None:
        waiting.clear()
        order.append("rung")
        rung.set()

    pending = PendingRequest(1, "tools/call", {}, 0.01, loop.create_future())
    waiting = [pending]
    DeadlineTimer(lambda: waiting, expired).watch(pending, waited=alarm.STOOD_STILL + 1)
    loop.call_later(alarm.CATCH_UP / 10, order.append, "read")
    await asyncio.wait_for(rung.wait(), 10)
    assert order == ["read", "rung"]
