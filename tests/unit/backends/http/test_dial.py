"""Which of several addresses a connection goes to."""

import asyncio
import socket
from collections.abc import Iterator

import pytest

from mcp_manifold.backends.http.dial import Address, race, resolve
from mcp_manifold.clock import LoopClock
from tests.fakes.clock import FakeClock
from tests.unit.backends.linking import eventually, full_listener, within

pytestmark = pytest.mark.anyio


@pytest.fixture
def listener() -> Iterator[socket.socket]:
    """Accepts, through its backlog."""
    with socket.create_server(("127.0.0.1", 0)) as sock:
        yield sock


@pytest.fixture
def refusing() -> Address:
    """An address where nothing listens."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return Address(socket.AF_INET, sock.getsockname())


def address_of(sock: socket.socket) -> Address:
    return Address(socket.AF_INET, sock.getsockname())


async def test_a_literal_address_needs_no_resolver() -> None:
    assert await resolve("127.0.0.1", 80) == [Address(socket.AF_INET, ("127.0.0.1", 80))]
    assert await resolve("::1", 80) == [Address(socket.AF_INET6, ("::1", 80))]


async def test_a_connection_sends_small_requests_at_once(listener: socket.socket) -> None:
    with await race([address_of(listener)], LoopClock()) as sock:
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


async def test_an_address_that_refuses_is_passed_over(listener: socket.socket, refusing: Address) -> None:
    with await race([refusing, refusing, address_of(listener)], LoopClock()) as sock:
        assert sock.getpeername() == listener.getsockname()


async def test_an_address_of_an_unusable_family_is_passed_over(listener: socket.socket) -> None:
    unusable = Address(socket.AF_INET6, ("2001:db8::1", 9, 0, 0))
    with await race([unusable, address_of(listener)], LoopClock()) as sock:
        assert sock.getpeername() == listener.getsockname()


async def test_when_every_address_refuses_the_first_error_is_raised(refusing: Address) -> None:
    with pytest.raises(ConnectionRefusedError):
        await race([refusing, refusing], LoopClock())


async def test_a_name_without_addresses_is_an_error() -> None:
    with pytest.raises(OSError, match="no address"):
        await race([], LoopClock())


async def test_of_several_that_accept_one_stays_open(listener: socket.socket) -> None:
    sock = await race([address_of(listener)] * 3, LoopClock())
    with sock:
        assert sock.getpeername() == listener.getsockname()
    assert not [task for task in asyncio.all_tasks() if task.get_name() == "dial attempt"]


async def test_an_address_that_does_not_answer_is_overtaken_and_called_off(listener: socket.socket) -> None:
    clock = FakeClock()
    with full_listener() as port:
        full = Address(socket.AF_INET, ("127.0.0.1", port))
        racing = asyncio.ensure_future(race([full, address_of(listener)], clock))
        await eventually(lambda: clock.pending)
        await clock.advance(0.25)
        with await within(racing) as sock:
            assert sock.getpeername() == listener.getsockname()
        assert not [task for task in asyncio.all_tasks() if task.get_name() == "dial attempt"]
