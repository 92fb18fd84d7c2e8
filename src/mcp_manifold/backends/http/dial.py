"""Opens a TCP or TLS connection to a host by racing its addresses (RFC 8305, "happy eyeballs"). Knows no HTTP.

Address families alternate. Each attempt starts a moment after the previous one, or as soon as that one fails. The first
socket to connect wins; the others are closed.
"""

import asyncio
import ipaddress
import itertools
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

from mcp_manifold.clock import Clock

P = TypeVar("P", bound=asyncio.BaseProtocol)

_STAGGER: Final = 0.25
"""Seconds before the next address is tried as well (RFC 8305, section 5)."""
_CANCEL_WAIT: Final = 1.0
"""Seconds for a cancelled attempt to end; without it a socket that does not close would hang the dial."""


@dataclass(frozen=True, slots=True)
class Address:
    """One resolved socket address."""

    family: int
    sockaddr: tuple[str, int] | tuple[str, int, int, int] | tuple[int, bytes]


async def dial(
    factory: Callable[[], P], host: str, port: int, *, ssl_context: ssl.SSLContext | None, clock: Clock
) -> P:
    """Connect, do the TLS handshake, and return the protocol of the new connection.

    Raises:
        OSError: no address could be connected to (`socket.gaierror`: no address at all; `ssl.SSLError`: TLS).
    """
    sock = await race(await resolve(host, port), clock)
    try:
        _, protocol = await asyncio.get_running_loop().create_connection(
            factory, sock=sock, ssl=ssl_context, server_hostname=host if ssl_context else None
        )
    except BaseException:
        sock.close()
        raise
    return protocol


async def resolve(host: str, port: int) -> list[Address]:
    """Look up the addresses of a host, and order them with alternating families. A literal address needs no look-up."""
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


async def race(addresses: Sequence[Address], clock: Clock) -> socket.socket:
    """Connect to the addresses in parallel; returns the first connected socket, and closes every other one.

    Raises:
        OSError: the first attempt's, when all have failed.
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
            await clock.wait(*running, seconds=stagger)
            for task in [task for task in running if task.done()]:
                running.discard(task)
                error = task.exception()
                if error is None:
                    return task.result()
                errors.append(error)
    finally:
        await _cancel(running, clock)
    raise errors[0] if errors else OSError("the name has no address")


async def _attempt(address: Address) -> socket.socket:
    sock = socket.socket(address.family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # asyncio sets it only on sockets it creates
        await asyncio.get_running_loop().sock_connect(sock, address.sockaddr)
    except BaseException:
        sock.close()
        raise
    return sock


async def _cancel(attempts: set[asyncio.Task[socket.socket]], clock: Clock) -> None:
    for task in attempts:
        task.cancel()
    if not attempts:
        return
    await clock.wait(asyncio.gather(*attempts, return_exceptions=True), seconds=_CANCEL_WAIT)
    for task in attempts:
        if task.done() and not task.cancelled() and task.exception() is None:
            task.result().close()
