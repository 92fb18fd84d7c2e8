"""The memory budget: large buffers are admitted within it and counted until released; small ones are not counted."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.config.environment import memory_given
from mcp_manifold.fronts.http import asgi
from mcp_manifold.fronts.http.asgi import PIECE, Message, Receive, Refused, send_json
from mcp_manifold.fronts.http.request import read_body
from mcp_manifold.fronts.http.resumption import Journals
from mcp_manifold.fronts.http.stream import EventStream, Tally
from mcp_manifold.model.budget import MAX_DEFAULT, MIN_COUNTED, MemoryBudget, Reservation, default_limit
from mcp_manifold.wire.lines import LineSplitter

MIB = 1 << 20


async def nowhere(message: object) -> None:
    """A client that reads everything at once."""


def test_small_buffers_are_not_counted() -> None:
    budget = MemoryBudget(0)
    reservation = Reservation(budget)
    assert reservation.try_resize(MIN_COUNTED)
    assert (budget.held, reservation.size) == (0, 0)


def test_large_buffers_are_admitted_within_the_limit() -> None:
    budget = MemoryBudget(3 * MIB)
    first, second = Reservation(budget), Reservation(budget)
    assert first.try_resize(2 * MIB)
    assert not second.try_resize(2 * MIB)
    assert (budget.held, second.size, budget.refused) == (2 * MIB, 0, 1)
    assert first.try_resize(MIB)
    assert second.try_resize(2 * MIB)
    first.release()
    second.release()
    assert budget.held == 0


def test_buffered_data_counts_beyond_the_limit() -> None:
    budget = MemoryBudget(MIB)
    inside = Reservation(budget)
    inside.resize(2 * MIB)
    assert budget.held == 2 * MIB
    assert not Reservation(budget).try_resize(MIN_COUNTED + 1)
    inside.resize(MIN_COUNTED)
    assert budget.held == 0


@given(
    st.lists(
        st.tuples(st.integers(0, 3), st.sampled_from(["try_resize", "resize", "release"]), st.integers(0, 4 * MIB))
    )
)
def test_the_budget_equals_the_sum_of_its_reservations(steps: list[tuple[int, str, int]]) -> None:
    budget = MemoryBudget(6 * MIB)
    reservations = [Reservation(budget) for _ in range(4)]
    for which, step, size in steps:
        reservation, before = reservations[which], budget.held
        if step == "try_resize":
            if reservation.try_resize(size) and budget.held > before:
                assert budget.held <= budget.limit
        elif step == "resize":
            reservation.resize(size)
        else:
            reservation.release()
        assert budget.held == sum(each.size for each in reservations)
    for reservation in reservations:
        reservation.release()
    assert budget.held == 0


@pytest.mark.parametrize(("there", "limit"), [(256 * MIB, 32 * MIB), (1 << 40, MAX_DEFAULT)])
def test_the_default_limit_is_a_fraction_of_the_memory(there: int, limit: int) -> None:
    assert default_limit(there) == limit


def test_a_container_may_have_less_memory_than_the_machine(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("268435456\n")
    (tmp_path / "unlimited").write_text("max\n")
    assert memory_given([tmp_path / "unlimited", tmp_path / "given", tmp_path / "none"]) == 256 * MIB
    assert memory_given([tmp_path / "unlimited"]) > 256 * MIB


def test_an_incomplete_line_can_be_dropped() -> None:
    lines = LineSplitter(1000)
    assert list(lines.feed(b'{"id":7,')) == []
    assert lines.held == 8
    assert lines.skip() == b'{"id":7,'
    assert list(lines.feed(b'"more"}\n{"id":8}\n')) == [b'{"id":8}']
    assert (lines.held, lines.oversized) == (0, [])


# --- data from clients ------------------------------------------------------------------------------------------


def arriving(*pieces: bytes) -> Receive:
    """A request body that arrives in these pieces."""
    left = list(pieces)

    async def receive() -> Message:
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return receive


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {b"content-length": b"%d" % (2 * MIB)}])
async def test_a_large_request_reserves_memory_or_is_refused(headers: dict[bytes, bytes]) -> None:
    budget = MemoryBudget(3 * MIB)
    first, second = Reservation(budget), Reservation(budget)
    body = await read_body(arriving(b"x" * MIB, b"y" * MIB), headers, 4 * MIB, first)
    assert (len(body), budget.held) == (2 * MIB, 2 * MIB)
    with pytest.raises(Refused) as refused:
        await read_body(arriving(b"x" * MIB, b"y" * MIB), headers, 4 * MIB, second)
    assert (refused.value.status, refused.value.headers[0]) == (503, (b"retry-after", b"1"))
    second.release()
    assert len(await read_body(arriving(b"small"), {}, 4 * MIB, second)) == 5
    first.release()
    assert budget.held == 0


# --- data for clients -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_an_unread_stream_uses_the_budget_then_drops_droppable_events() -> None:
    tally = Tally(budget=MemoryBudget(MIB))
    stream = EventStream(nowhere, tally)
    taken = [stream.push(b"x" * 200_000) for _ in range(10)]
    assert (taken.count(True), taken[:5]) == (5, [True] * 5)
    assert tally.dropped_events == 5
    stream.post(b"x" * MIB)
    assert tally.budget.held > MIB
    stream.hang_up()
    assert tally.budget.held == 0


@pytest.mark.anyio
async def test_a_large_response_is_sent_in_pieces_until_the_reader_stalls(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sent: list[bytes] = []
    last = 4

    async def send(message: Message) -> None:
        sent.append(message.get("body", b""))
        if len(sent) > last:
            await asyncio.get_running_loop().create_future()

    body = b"x" * (2 * PIECE + 1)
    await send_json(send, 200, body)
    assert [len(piece) for piece in sent] == [0, PIECE, PIECE, 1]
    monkeypatch.setattr(asgi, "STALL", 0.01)
    sent.clear()
    with pytest.raises(TimeoutError):
        await send_json(send, 200, body + body)


@pytest.mark.anyio
async def test_written_data_releases_its_memory() -> None:
    tally = Tally(budget=MemoryBudget(MIB))
    stream = EventStream(nowhere, tally)
    stream.post(b"x" * MIB)
    stream.end(b"x" * MIB)
    assert tally.budget.held == 2 * MIB
    await stream.run()
    assert tally.budget.held == 0


@pytest.mark.anyio
async def test_journals_release_memory_first() -> None:
    budget = MemoryBudget(MIB)
    journals = Journals("m", "2025-11-25", budget)
    first = journals.begin(EventStream(nowhere, Tally()))
    first.end(b"x" * (MIB // 2))
    assert budget.held > MIB // 2
    second = journals.begin(EventStream(nowhere, Tally()))
    second.end(b"x" * 2 * MIB)
    assert budget.held == 0
    assert journals.find(f"{first.name}-1") is not None
    journals.close()
    assert budget.held == 0
