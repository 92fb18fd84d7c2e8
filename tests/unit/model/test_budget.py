"""Room for large messages: let in while there is some, counted until they are gone, and small ones never."""

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
from mcp_manifold.model.budget import MIN_COUNTED, MOST, MemoryBudget, Reservation, most_of
from mcp_manifold.wire.lines import LineCutter

MIB = 1 << 20


async def nowhere(message: object) -> None:
    """A client that reads everything."""


def test_what_is_small_takes_no_room() -> None:
    budget = MemoryBudget(0)
    load = Reservation(budget)
    assert load.try_resize(MIN_COUNTED)
    assert (budget.held, load.size) == (0, 0)


def test_what_is_large_is_let_in_while_there_is_room() -> None:
    budget = MemoryBudget(3 * MIB)
    first, second = Reservation(budget), Reservation(budget)
    assert first.keep(2 * MIB)
    assert not second.keep(2 * MIB)
    assert (budget.held, second.size, budget.refused) == (2 * MIB, 0, 1)
    assert first.keep(MIB)
    assert second.keep(2 * MIB)
    first.drop()
    second.drop()
    assert budget.held == 0


def test_what_is_inside_counts_whether_there_is_room_or_not() -> None:
    budget = MemoryBudget(MIB)
    inside = Reservation(budget)
    inside.hold(2 * MIB)
    assert budget.held == 2 * MIB
    assert not Reservation(budget).keep(MIN_COUNTED + 1)
    inside.hold(MIN_COUNTED)
    assert budget.held == 0


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["keep", "hold", "drop"]), st.integers(0, 4 * MIB))))
def test_nothing_is_counted_twice_or_forgotten(steps: list[tuple[int, str, int]]) -> None:
    budget = MemoryBudget(6 * MIB)
    loads = [Reservation(budget) for _ in range(4)]
    for which, step, size in steps:
        load, before = loads[which], budget.held
        if step == "keep":
            if load.try_resize(size) and budget.held > before:
                assert budget.held <= budget.most
        elif step == "hold":
            load.resize(size)
        else:
            load.release()
        assert budget.held == sum(each.size for each in loads)
    for load in loads:
        load.release()
    assert budget.held == 0


@pytest.mark.parametrize(("there", "most"), [(256 * MIB, 32 * MIB), (1 << 40, MOST)])
def test_without_a_word_it_is_a_part_of_the_memory_there_is(there: int, most: int) -> None:
    assert most_of(there) == most


def test_a_container_may_have_less_memory_than_the_machine(tmp_path: Path) -> None:
    (tmp_path / "given").write_text("268435456\n")
    (tmp_path / "unlimited").write_text("max\n")
    assert memory_given([tmp_path / "unlimited", tmp_path / "given", tmp_path / "none"]) == 256 * MIB
    assert memory_given([tmp_path / "unlimited"]) > 256 * MIB


def test_a_line_can_be_dropped_before_its_end() -> None:
    lines = LineCutter(1000)
    assert list(lines.feed(b'{"id":7,')) == []
    assert lines.held == 8
    assert lines.skip() == b'{"id":7,'
    assert list(lines.feed(b'"more"}\n{"id":8}\n')) == [b'{"id":8}']
    assert (lines.held, lines.oversized) == (0, [])


# --- what comes from clients ---------------------------------------------------------------------------------------


def arriving(*pieces: bytes) -> Receive:
    """A body that comes in these pieces."""
    left = list(pieces)

    async def receive() -> Message:
        piece = left.pop(0)
        return {"type": "http.request", "body": piece, "more_body": bool(left)}

    return receive


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [{}, {b"content-length": b"%d" % (2 * MIB)}])
async def test_a_large_request_takes_room_or_is_refused(headers: dict[bytes, bytes]) -> None:
    budget = MemoryBudget(3 * MIB)
    first, second = Reservation(budget), Reservation(budget)
    body = await read_body(arriving(b"x" * MIB, b"y" * MIB), headers, 4 * MIB, first)
    assert (len(body), budget.held) == (2 * MIB, 2 * MIB)
    with pytest.raises(Refused) as refused:
        await read_body(arriving(b"x" * MIB, b"y" * MIB), headers, 4 * MIB, second)
    assert (refused.value.status, refused.value.headers[0]) == (503, (b"retry-after", b"1"))
    second.drop()
    assert len(await read_body(arriving(b"small"), {}, 4 * MIB, second)) == 5
    first.drop()
    assert budget.held == 0


# --- what waits for clients ----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_stream_nobody_reads_takes_room_and_then_loses_what_may_be_lost() -> None:
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
async def test_a_large_answer_goes_piece_by_piece_and_not_to_who_stopped_reading(
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
async def test_what_was_written_takes_no_room_any_more() -> None:
    tally = Tally(budget=MemoryBudget(MIB))
    stream = EventStream(nowhere, tally)
    stream.post(b"x" * MIB)
    stream.end(b"x" * MIB)
    assert tally.budget.held == 2 * MIB
    await stream.run()
    assert tally.budget.held == 0


@pytest.mark.anyio
async def test_what_is_kept_for_clients_that_may_come_back_gives_way_first() -> None:
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
