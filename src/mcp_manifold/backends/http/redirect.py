"""A redirect that is followed: on the same origin, with the same method, headers and body (RFC 9110, section 15.4).

The credentials are for the configured origin, so every other redirect is an error that names its target.
"""

from collections.abc import Callable
from typing import Final
from urllib.parse import urljoin

from mcp_manifold.backends.http.exchange import Exchange, HttpFailure, ResponseHeaders
from mcp_manifold.http1.origin import Origin

REDIRECTS: Final = frozenset({307, 308})
"""Statuses of redirects that keep the method."""
MAX_REDIRECTS: Final = 5
"""Redirects that are followed for one request; without this limit a loop would not end."""


class Redirect:
    """Receives the rest of a redirect response; then calls `send` to send the request to `path`."""

    def __init__(self, exchange: Exchange, path: str, send: Callable[[Exchange], None]) -> None:
        self._exchange = exchange
        self._path = path
        self._send = send
        self._receiver = exchange.receiver
        self._request = exchange.request

    def __repr__(self) -> str:
        return f"<Redirect of {self._exchange!r}>"

    def responded(self, status: int, headers: ResponseHeaders) -> None:
        pass  # the head is known

    def received(self, data: bytes) -> None:
        pass  # its body is for people

    def ended(self) -> None:
        head, extra, body = self._request
        method, _, rest = head.split(b" ", 2)
        head = b"%b %b %b" % (method, self._path.encode(), rest)
        self._exchange.moves(self._receiver, self._path, (head, extra, body))
        self._send(self._exchange)

    def failed(self, exc: HttpFailure) -> None:
        self._receiver.failed(exc)


def path_of(origin: Origin, head: bytes, location: str | None) -> str | None:
    """The path and query that a redirect leads to; None without a target or with one on another origin."""
    url = f"{'https' if origin.is_tls else 'http'}://{origin.authority}{head.split(b' ', 2)[1].decode()}"
    try:
        target = Origin.of(urljoin(url, location or ""))
    except ValueError:
        return None
    return target.path if location and target.is_same(origin) else None
