"""What is posted reaches the descriptor: in order, in as few system calls as can be, and not without bounds."""

import asyncio
import os
import socket

import pytest

from mcp_manifold.fronts.line_writer import LineWriter
from mcp_manifold.fronts.pipes import unblocked

pytestmark = pytest.mark.anyio


async def test_notifications_are_dropped_before_answers_are() -> None:
    writer = LineWriter(2)
    assert writer.push(b"1")
    assert writer.push(b"2")
    assert not writer.push(b"3")
    writer.post(b"4")
    assert writer.dropped == 1
    source, target = os.pipe()
    writer.end()
    await writer.run(target, lambda: None)
    assert os.read(source, 100) == b"1\n2\n4\n"
    os.close(source)


async def test_what_is_posted_in_a_turn_is_written_by_one_system_call() -> None:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)  # what is written at once is read at once
    with unblocked(ours.fileno()), theirs:
        writer = LineWriter(10)
        running = asyncio.create_task(writer.run(ours.detach(), lambda: None))
        theirs.setblocking(False)
        await asyncio.sleep(0)
        writer.post(b"1")
        writer.post(b"2")
        assert await asyncio.wait_for(asyncio.get_running_loop().sock_recv(theirs, 100), 5) == b"1\n2\n"
        writer.post(b"3")
        writer.end()
        await running
        assert theirs.recv(100) == b"3\n"


async def test_who_waits_for_the_reader_is_told_when_it_has_caught_up() -> None:
    source, target = os.pipe()
    with unblocked(target):
        writer = LineWriter(3)
        running = asyncio.create_task(writer.run(target, lambda: None))
        message = b"x" * 200_000  # more than a pipe holds
        freed = asyncio.Event()
        for _ in range(4):
            writer.post(message)
        assert writer.is_full
        writer.when_free(freed.set)
        read = 0
        while read < 4 * len(message) + 4:
            read += len(await asyncio.to_thread(os.read, source, 65536))
        await asyncio.wait_for(freed.wait(), 5)
        assert repr(writer) == "<LineWriter open waiting=0 dropped=0>"
        writer.end()
        await running
    os.close(source)


async def test_a_reader_that_is_gone_is_told_of_once_and_nothing_is_kept_for_it() -> None:
    source, target = os.pipe()
    told: list[str] = []
    with unblocked(target):
        writer = LineWriter(3)
        running = asyncio.create_task(writer.run(target, lambda: told.append("gone")))
        os.close(source)
        writer.post(b"1")
        await asyncio.wait_for(running, 5)
        writer.post(b"2")
        assert (writer.broken, told, repr(writer)) == (True, ["gone"], "<LineWriter broken waiting=0 dropped=0>")
