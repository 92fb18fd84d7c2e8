"""Negotiates a link with the official SDK's `ClientSession`, which runs on the link through a `Dispatcher` of ours.

The only importer of `mcp.client`. The dispatcher passes the session's requests to the link and keeps the raw results.
The session ends after the negotiation, because all later messages are relayed as bytes.
"""

import json
import logging
from collections.abc import Mapping, Sequence
from typing import Any, Final

import anyio
import mcp_types
import msgspec
from anyio.abc import TaskStatus
from mcp.client.session import ClientSession
from mcp.shared.dispatcher import CallOptions, OnNotify, OnNotifyIntercept, OnRequest
from mcp.shared.exceptions import MCPError
from mcp.shared.inbound import (
    find_invalid_x_mcp_header,
    mcp_param_headers,
    validate_mcp_param_headers,
    x_mcp_header_map,
)
from pydantic import ValidationError

from mcp_manifold import wire
from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import (
    PROBE_WAIT,
    TOO_MANY,
    Identity,
    Negotiation,
    discovered,
    initialized,
    telling,
)
from mcp_manifold.clock import Clock
from mcp_manifold.errors import BackendError, BackendProtocolError, RemoteError
from mcp_manifold.wire import MODERN_VERSION, Era, Payload
from mcp_manifold.wire.param_headers import ParameterHeaders, without_annotations
from mcp_manifold.wire.protocol import HANDSHAKE_VERSIONS, METHOD_NOT_FOUND, TASKS_EXTENSION

__all__ = ["greet", "parameters", "validate_mcp_param_headers"]

logger = logging.getLogger(__name__)

_PLACEHOLDER: Final = mcp_types.Implementation(name="mcp-manifold", version="0")
"""Required by the session; the dispatcher sends the identity's raw `clientInfo` in its place."""
_DRAFT: Final = "2024-10-07"
"""The revision before the first; the messages that both have are the same, and the TypeScript client accepts it."""
INITIALIZED_WAIT: Final = 5.0
"""Seconds to wait until `initialized` is accepted; a silent server would hang the connect."""


class _LinkDispatcher:
    """Adapts a link to the SDK's `Dispatcher` (mcp/shared/dispatcher.py)."""

    def __init__(self, link: Link, identity: Identity, timeout: float, clock: Clock) -> None:
        self._link = link
        self.clock = clock
        self.identity = identity
        self._timeout = timeout
        self.raw: Payload = wire.EMPTY

    def __repr__(self) -> str:
        return f"<_LinkDispatcher on {self._link!r}>"

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """Wait for ever: the transport feeds the link, so no loop is needed here."""
        task_status.started()
        await anyio.sleep_forever()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Send a request of the SDK's session, with the raw members of our identity."""
        sent = {key: Payload(wire.encode(value)) for key, value in (params or {}).items()}
        timeout = self._timeout
        if method == "initialize":
            sent["clientInfo"], sent["capabilities"] = self.identity.client_info, self.identity.capabilities
        else:
            timeout = min(timeout, PROBE_WAIT)
        try:
            raw = bytes(await self._link.request(method, sent, timeout=timeout))
        except RemoteError as exc:
            raise _as_mcp_error(exc) from exc
        readable = wire.without_lone_surrogates(raw)
        self.raw = Payload(readable)
        if readable is not raw:
            logger.warning("greeting repaired: lone surrogate replaced", extra={"backend": self._link.backend})
        if method == "initialize":
            negotiation = initialized(self.raw)
            self._link.adopt(negotiation.version, negotiation.capabilities)
        decoded: dict[str, Any] = msgspec.json.decode(self.raw)
        if method == "initialize" and decoded.get("protocolVersion") == _DRAFT:
            decoded["protocolVersion"] = HANDSHAKE_VERSIONS[0]
        return decoded

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Send a notification, and wait within a time limit until the peer accepts it."""
        accepted = self._link.notify(method, None if params is None else Payload(wire.encode(params)))
        if accepted is not None:
            await self.clock.wait(accepted, seconds=INITIALIZED_WAIT)


def _as_mcp_error(exc: RemoteError) -> MCPError:
    try:
        error: dict[str, Any] = msgspec.json.decode(exc.raw)
        return MCPError(exc.code, str(error.get("message", "")), error.get("data"))
    except (msgspec.DecodeError, AttributeError):
        return MCPError(exc.code, str(exc))


async def greet(link: Link, *, eras: tuple[Era, ...], identity: Identity, timeout: float, clock: Clock) -> Negotiation:
    """Negotiate through the SDK's client session, in the first of `eras` that the server speaks."""
    dispatcher = _LinkDispatcher(link, identity, timeout, clock)
    async with ClientSession(dispatcher=dispatcher, client_info=_PLACEHOLDER) as session:
        outcome = await _negotiate(session, dispatcher, link, eras)
    if isinstance(outcome, Negotiation):
        return outcome
    raise outcome  # outside the session, whose task group would wrap it


async def _negotiate(
    session: ClientSession, dispatcher: _LinkDispatcher, link: Link, eras: tuple[Era, ...]
) -> Negotiation | BackendError | RemoteError:
    """Try the eras, and return the first outcome or the most telling failure.

    A server that does not know `server/discover` may refuse it in any way. Only what concerns all requests is final.
    """
    outcome: BackendError | None = None
    for era in eras:
        try:
            return await _negotiate_in(session, dispatcher, link, era)
        except MCPError as exc:
            failed: BackendError = BackendProtocolError(
                link.backend, f"connection refused by the server: {exc.message} ({exc.code})"
            )
            if outcome is not None and exc.code == METHOD_NOT_FOUND:  # of an unknown era: the first refusal says more
                failed = outcome
        except BackendError as exc:
            failed = exc
        except RemoteError as exc:
            return exc
        if outcome is None or telling(outcome) <= min(telling(failed), 2):
            outcome = failed
        if failed.is_unsent or failed.status == TOO_MANY or link.ended.done():
            return outcome
        link.stamp(None)
        link.transport.adopt("")
    return outcome or BackendProtocolError(link.backend, "no protocol era is enabled")


async def _negotiate_in(session: ClientSession, dispatcher: _LinkDispatcher, link: Link, era: Era) -> Negotiation:
    identity = dispatcher.identity
    try:
        if era == "handshake":
            await session.initialize()
            return initialized(dispatcher.raw)
        link.stamp(wire.modern_stamp(identity.client_info, wire.with_extension(identity.capabilities, TASKS_EXTENSION)))
        link.transport.adopt(MODERN_VERSION)
        await session.discover()
    except (ValidationError, RuntimeError, msgspec.DecodeError) as exc:
        raise BackendProtocolError(link.backend, f"invalid {era} negotiation: {_first_line(exc)}") from exc
    negotiation = discovered(dispatcher.raw, now=dispatcher.clock.now())
    link.adopt(negotiation.version, negotiation.capabilities)
    return negotiation


def parameters(
    backend: str, tools: Sequence[bytes], *, mirrored: bool
) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
    """The tools whose `x-mcp-header` marks are valid, and the header of each marked argument."""
    kept: list[bytes] = []
    maps: dict[str, dict[tuple[str, ...], str]] = {}
    for raw in tools:
        tool = wire.object_members(Payload(raw)) if b"x-mcp-header" in raw else {}
        schema = tool.get("inputSchema", wire.EMPTY)
        if b"x-mcp-header" not in bytes(schema):
            kept.append(raw)
            continue
        try:
            decoded = msgspec.json.decode(schema)
        except msgspec.DecodeError:  # not quite JSON: forwarded as it is, a client may still read it
            kept.append(raw)
            continue
        problem = find_invalid_x_mcp_header(decoded)
        if problem is None:
            kept.append(raw)
            maps[str(json.loads(bytes(tool.get("name", wire.NULL_ID))))] = x_mcp_header_map(decoded)
        elif mirrored:
            logger.warning("tool left out, invalid x-mcp-header: %s", problem, extra={"backend": backend})
        else:
            kept.append(without_annotations(raw))

    def headers(tool: str, arguments: Payload) -> Mapping[str, str]:
        wanted = maps.get(tool)
        return mcp_param_headers(wanted, json.loads(bytes(arguments))) if wanted else {}  # msgspec refuses 1e999

    return tuple(kept), headers if maps and mirrored else None


def _first_line(exc: Exception) -> str:
    return str(exc).splitlines()[0][:200] if str(exc) else type(exc).__name__
