"""The listening socket of the HTTP front: the checks before it, and the socket itself. Starts nothing else."""

import socket
from typing import Final

from mcp_manifold.config import ManifoldSettings
from mcp_manifold.errors import ConfigError
from mcp_manifold.http1.origin import addresses, is_loopback

BACKLOG: Final = 2048


def require_safe(settings: ManifoldSettings) -> None:
    """Refuse to listen for other machines without authentication.

    Raises:
        ConfigError: the host is not a loopback address, there is no token, and `insecure` is off.
    """
    if settings.tokens or settings.insecure or all(map(is_loopback, addresses(settings.host))):
        return
    raise ConfigError(
        f'refusing to listen on "{settings.host}" without authentication: anyone who can reach it could use every '
        'configured server. Set "tokens" in the "manifold" object (or MCP_MANIFOLD_TOKENS), or pass --insecure if '
        "a proxy in front of it authenticates clients"
    )


def bound(settings: ManifoldSettings) -> tuple[socket.socket, ...]:
    """A listening socket for each configured host, all on the configured port. `::` serves IPv4 as well.

    Raises:
        ConfigError: an address is invalid, unavailable or in use; no socket stays open.
    """
    port, found = settings.port, list[socket.socket]()
    for host in addresses(settings.host):
        try:
            found.append(_listening(host, port))
        except (OSError, ValueError) as exc:  # ValueError: the host name has an invalid form
            for each in found:
                each.close()
            reason = getattr(exc, "strerror", None) or str(exc)
            raise ConfigError(f"cannot listen on {host} port {port}: {reason}; choose another with --port") from exc
        port = found[0].getsockname()[1]
    return tuple(found)


def _listening(host: str, port: int) -> socket.socket:
    family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    is_for_both = host == "::" and socket.has_dualstack_ipv6()
    listening = socket.create_server(address[:2], family=family, backlog=BACKLOG, dualstack_ipv6=is_for_both)
    listening.setblocking(False)
    listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # inherited; asyncio sets it for some sockets only
    return listening
