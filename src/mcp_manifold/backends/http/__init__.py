"""HTTP/1.1 to one origin, owned end to end; knows nothing of MCP, JSON or event streams.

`pool` keeps connections and waiting requests, `connection` carries one exchange at a time, `exchange` is what callers
see of it; `dial`, `inflate` and `request` are the pure or cold parts.
"""

from mcp_manifold.backends.http.exchange import Exchange, FailureKind, Headers, HttpFailure, Receiver
from mcp_manifold.backends.http.pool import HttpPool
from mcp_manifold.backends.http.request_head import RESERVED_HEADERS, header_line

__all__ = [
    "RESERVED_HEADERS",
    "Exchange",
    "FailureKind",
    "Headers",
    "HttpFailure",
    "HttpPool",
    "Receiver",
    "header_line",
]
