"""HTTP/1.1 from clients, owned from the socket to the request; knows nothing of MCP, JSON or event streams.

`connection` reads requests within limits and writes their answers, `cycle` is one request served by an ASGI
application, `service` what all connections share, `head` the pure part: what a request's head says, and the bytes of a
response's.
"""

from mcp_manifold.fronts.server.connection import Connection
from mcp_manifold.fronts.server.service import BULKY, Limits, Passage, Reply, Service
from mcp_manifold.http1.head import Head

__all__ = ["BULKY", "Connection", "Head", "Limits", "Passage", "Reply", "Service"]
