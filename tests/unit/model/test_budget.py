"""The memory budget: large buffers are admitted while there is room, and counted until they are gone."""

import asyncio
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold.config.environment import memory_given
from mcp_manifold.fronts.http.asgi import PIECE, STALL, AsgiReceive, Message, send_json
from mcp_manifold.fronts.http.request import read_body
from mcp_manifold.fronts.http.stream import EventStream
from mcp_manifold.fronts.http_errors import Refused
from mcp_manifold.fronts.resumption import Journals
from mcp_manifold.fronts.tally import Tally
from mcp_manifold.model.budget import MAX_DEFAULT, MIN_COUNTED, MemoryBudget, Reservation, default_limit

MIB = 1 << 20


async def nowhere(message: object) -> None:
    """A client that reads everything."""


def test_a_small_buffer_is_not_counted() -> None:
    budget = MemoryBudget(0)
    reservation = Reservation(budget)
    assert reservation.try_resize(MIN_COUNTED)
    assert (budget.held, reservation.size) == (0, 0)


def test_a_large_buffer_is_admitted_while_there_is_room() -> None:
    budget = MemoryBudget(3 * MIB)
    first, second = Reservation(budget), Reservation(budget)
    assert first.try_resize(2 * MIB)
    assert not second.try_resize(2 * MIB)
    assert (budget.held, second.size, budget.refused) == (2 * MIB, 0, 1)
    assert first.try_resize(MIB)
    assert second.try_resize(2 * MIB)


def test_a_buffered_message_counts_even_beyond_the_limit() -> None:
    budget = MemoryBudget(4 * MIB)
    budget.change_limit(MIB)
    buffered = Reservation(budget)
    buffered.resize(2 * MIB)
    assert repr(buffered) == f"<Reservation {2 * MIB} of <MemoryBudget {2 * MIB}/{MIB}>>"
    assert not Reservation(budget).try_resize(MIN_COUNTED + 1)
    buffered.resize(MIN_COUNTED)
    assert budget.held == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["try", "resize", "release"]), st.integers(0, 4 * MIB))))
def test_the_budget_is_the_sum_of_its_reservations(steps: list[tuple[int, str, int]]) -> None:
    budget = MemoryBudget(6 * MIB)
    loads = [Reservation(budget) for _ in range(4)]
    for which, step, size in steps:
        load, before = loads[which], budget.held
        if step == "try":
            if load.try_resize(size) and budget.held > before:
                assert budget.held <= budget.limit
        elif step == "resize":
            load.resize(size)
        else:
            load.release()
        assert budget.held == sum(each.size for each in loads)
    for load in loads:
        load.release()
    assert budget.held == 0


@pytest.mark.parametrize(("memory", "limit"), [(256 * MIB, 32 * MIB), (1 << 40, MAX_DEFAULT)])
def test_the_default_limit_is_a_share_of_the_memory(memory: int, limit: int) -> None:
    assert default_limit(memory) == limit


def test_the_memory_of_a_container_is_read_from_its_control_group(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("268435456\n")
    (tmp_path / "unlimited").write_text("max\n")
    assert memory_given([tmp_path / "unlimited", tmp_path / "given", tmp_path / "none"]) == 256 * MIB
    assert memory_given([tmp_path / "unlimited"]) > 256 * MIB


def arriving(*pieces: bytes) -> AsgiReceive:
    """A body that comes in these pieces."""
    left = list(pieces)

    async def receive() -> Message:
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return receive


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {b"content-length": b"%d" % (2 * MIB)}])
async def test_a_large_request_is_counted_or_refused(headers: dict[bytes, bytes]) -> None:
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


@pytest.mark.anyio
async def test_an_unread_stream_fills_the_budget_and_then_drops_notifications() -> None:
    tally = Tally(budget=MemoryBudget(MIB))
    stream = EventStream(nowhere, tally)
    taken = [stream.push(b"x" * 200_000) for _ in range(10)]
    assert (taken.count(True), taken[:5]) == (5, [True] * 5)
    assert tally.dropped_events == 5
    stream.post(b"x" * MIB)
    assert tally.budget.held > MIB
    stream.hang_up()
    assert tally.budget.held == 0


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop whose time a test moves."""

    skipped = 0.0

    def time(self) -> float:
        return super().time() + self.skipped


def test_a_large_answer_is_sent_in_pieces_until_its_reader_stalls() -> None:
    loop, sent = SkippingLoop(), list[int]()

    async def send(message: Message) -> None:
        sent.append(len(message.get("body", b"")))
        if len(sent) == 6:
            loop.skipped += STALL
            await loop.create_future()

    with asyncio.Runner(loop_factory=lambda: loop) as runner:
        runner.run(send_json(send, 200, b"x" * (2 * PIECE + 1)))
        assert sent == [0, PIECE, PIECE, 1]
        with pytest.raises(TimeoutError):
            runner.run(send_json(send, 200, b"x" * (2 * PIECE + 1)))


@pytest.mark.anyio
async def test_written_messages_are_no_longer_counted() -> None:
    tally = Tally(budget=MemoryBudget(MIB))
    stream = EventStream(nowhere, tally)
    stream.post(b"x" * MIB)
    stream.end(b"x" * MIB)
    assert tally.budget.held == 2 * MIB
    await stream.run()
    assert tally.budget.held == 0


@pytest.mark.anyio
async def test_journals_of_finished_streams_make_room_first() -> None:
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
