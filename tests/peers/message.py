"""One JSON-RPC message cut into raw slices, and the few ways to write one. Knows no transport and no method."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Final

from tests.peers import jsontext

META: Final = "io.modelcontextprotocol/"
HANDSHAKE_VERSIONS: Final = ("2024-11-05", "2025-03-26", "2025-06-18", "2025-11-25")
LATEST_HANDSHAKE: Final = "2025-11-25"
MODERN_VERSION: Final = "2026-07-28"
NAMED: Final = (
    ("tools/call", "name"),
    ("prompts/get", "name"),
    ("resources/read", "uri"),
    ("tasks/get", "taskId"),
    ("tasks/update", "taskId"),
    ("tasks/cancel", "taskId"),
)
"""Methods whose `Mcp-Name` header mirrors a member of their params."""

EVERY_CHANGE: Final = MappingProxyType(
    {"toolsListChanged": True, "promptsListChanged": True, "resourcesListChanged": True}
)
"""A listen filter that asks for every list."""


@dataclass(frozen=True, slots=True)
class Message:
    """A message as it came; every member is the slice of `raw` that holds it."""

    raw: bytes
    id: bytes | None = None
    method: str | None = None
    params: bytes | None = None
    result: bytes | None = None
    error: bytes | None = None

    @property
    def is_request(self) -> bool:
        """Whether an answer is owed."""
        return self.method is not None and self.id is not None

    @property
    def is_response(self) -> bool:
        """Whether it answers a request."""
        return self.method is None

    @property
    def meta_version(self) -> str | None:
        """The revision named in the params' `_meta`, which makes it a modern request."""
        version = jsontext.value(jsontext.member(self.params, "_meta", META + "protocolVersion"))
        return None if version is None else str(version)


def read(raw: bytes) -> Message:
    """Cut a message.

    Raises:
        ValueError: it is not an object, or its method is not a string.
    """
    found = dict(jsontext.walk(raw))
    method = jsontext.value(found.get("method"))
    if method is not None and not isinstance(method, str):
        raise ValueError("the method is not a string")
    return Message(raw, found.get("id"), method, found.get("params"), found.get("result"), found.get("error"))


def request(id_: bytes, method: str, params: bytes | None) -> bytes:
    """A request, or with an empty id a notification."""
    head = b'{"jsonrpc":"2.0",' + (b'"id":%b,' % id_ if id_ else b"") + b'"method":%b' % jsontext.text(method)
    return head + (b"}" if params is None else b',"params":%b}' % params)


def response(id_: bytes, result: bytes) -> bytes:
    """A successful response."""
    return b'{"jsonrpc":"2.0","id":%b,"result":%b}' % (id_, result)


def failure(id_: bytes, error: bytes) -> bytes:
    """An error response."""
    return b'{"jsonrpc":"2.0","id":%b,"error":%b}' % (id_, error)


def error_text(code: int, message: str, data: object = None) -> bytes:
    """The text of an error object; `data` is left out when None."""
    fields: dict[str, object] = {"code": code, "message": message}
    if data is not None:
        fields["data"] = data
    return jsontext.text(fields)


class Refusal(Exception):
    """A request is answered with this error object."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        super().__init__(message)
        self.code = code
        self.text = error_text(code, message, data)
