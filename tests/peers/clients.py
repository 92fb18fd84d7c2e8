"""Raw clients: the names that tests import. Everything lives in the modules beside this one."""

from tests.peers.client import Answer, Client, Params
from tests.peers.client_http import GetStream, HttpClient, HttpReply, ModernClient
from tests.peers.client_sse import SseClient
from tests.peers.client_stdio import PairClient, StdioClient
from tests.peers.http_wire import Event, Headers
from tests.peers.message import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, Message
from tests.peers.reply import PendingRequest, Reply

__all__ = [
    "HANDSHAKE_VERSIONS",
    "LATEST_HANDSHAKE",
    "MODERN_VERSION",
    "Answer",
    "Client",
    "Event",
    "GetStream",
    "Headers",
    "HttpClient",
    "HttpReply",
    "Message",
    "ModernClient",
    "PairClient",
    "Params",
    "PendingRequest",
    "Reply",
    "SseClient",
    "StdioClient",
]
