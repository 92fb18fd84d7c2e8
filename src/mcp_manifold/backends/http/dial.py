"""Opens a TCP or TLS connection to a host by racing its addresses. Knows nothing of what is then said on it.

A name with addresses of both families is tried as RFC 8305 says: families in turn, each next attempt a little after
the one before, or at once when that one failed; the first to connect wins and the others are closed.
"""

import asyncio
import ipaddress
import itertools
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

P = TypeVar("P", bound=asyncio.BaseProtocol)

_STAGGER = 0.25  # RFC 8305, section 5: what one address has for itself before the next one joins
_PENDING_END = 1.0  # seconds for a lost attempt to end; closing a socket takes no time, so nothing should reach this


@dataclass(frozen=True, slots=True)
class Address:
    """One resolved place to connect to."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


async def dial(factory: Callable[[], P], host: str, port: int, *, ssl_context: ssl.SSLContext | None) -> P:
    """Connect, shake hands, and return the protocol that got the connection.

    Raises:
        OSError: no address could be connected to (`socket.gaierror`: no address at all; `ssl.SSLError`: TLS).
    """
    sock = await race(await resolve(host, port))
    try:
        _, protocol = await asyncio.get_running_loop().create_connection(
            factory, sock=sock, ssl=ssl_context, server_hostname=host if ssl_context else None
        )
    except BaseException:
        sock.close()
        raise
    return protocol


async def resolve(host: str, port: int) -> list[Address]:
    """The addresses of a host, families alternating; a literal address needs no resolver."""
    try:
        literal = ipaddress.ip_address(host)
    except ValueError:
        pass
    else:
        return [Address(socket.AF_INET if literal.version == 4 else socket.AF_INET6, (host, port))]
    infos = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return _alternate(Address(family, sockaddr) for family, _, _, _, sockaddr in infos)


def _alternate(addresses: Iterable[Address]) -> list[Address]:
    families: dict[int, list[Address]] = {}
    for address in addresses:
        families.setdefault(address.family, []).append(address)
    rows = itertools.zip_longest(*families.values())
    return [address for row in rows for address in row if address is not None]


async def race(addresses: Sequence[Address]) -> socket.socket:
    """The first socket to connect; every other one is closed.

    Raises:
        OSError: that of the first attempt, when all have failed.
    """
    if len(addresses) == 1:
        return await _attempt(addresses[0])
    waiting = deque(addresses)
    running: set[asyncio.Task[socket.socket]] = set()
    errors: list[BaseException] = []
    try:
        while waiting or running:
            if waiting:
                running.add(asyncio.create_task(_attempt(waiting.popleft()), name="dial attempt"))
            stagger = _STAGGER if waiting else None  # bounded by the caller's connect timeout
            done, _ = await asyncio.wait(running, timeout=stagger, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                running.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                errors.append(error)
    finally:
        await _call_off(running)
    raise errors[0] if errors else OSError("the name has no address")


async def _attempt(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio does so only for sockets it made itself
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def _call_off(attempts: set[asyncio.Task[socket.socket]]) -> None:
    for task in attempts:
        task.cancel()
    if not attempts:
        return
    await asyncio.wait(attempts, timeout=_PENDING_END)
    for task in attempts:
        if task.done() and not task.cancelled() and task.exception() is None:
            task.result().close()
