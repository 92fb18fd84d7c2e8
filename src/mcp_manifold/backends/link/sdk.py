"""The official SDK's client session, run on a link of ours: it negotiates, the link relays.

The only importer of `mcp.client`. `ClientSession` takes any `Dispatcher`; ours hands its requests to the link, keeps
the raw answers, and is left once the session is agreed, because everything later is relayed as bytes.
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
from mcp_manifold.backends.link.negotiation import PROBE_WAIT, Identity, Negotiation, discovered, initialized
from mcp_manifold.errors import BackendError, BackendProtocolError, BackendTimeout, BackendUnavailable, RemoteError
from mcp_manifold.wire import MODERN_VERSION, Era, Payload
from mcp_manifold.wire.param_headers import ParameterHeaders, without_annotations
from mcp_manifold.wire.protocol import TASKS_EXTENSION

__all__ = ["greet", "parameters", "validate_mcp_param_headers"]

logger = logging.getLogger(__name__)

_PLACEHOLDER: Final = mcp_types.Implementation(name="mcp-manifold", version="0")
"""What the session would say we are; the dispatcher says it in the identity's own words instead."""
NOTE_WAIT: Final = 5.0
"""Seconds to wait until `initialized` was accepted; a server that never says so hangs the connect without."""


class _LinkDispatcher:
    """A link as the SDK's `Dispatcher` (mcp/shared/dispatcher.py)."""

    def __init__(self, link: Link, identity: Identity, timeout: float) -> None:
        self._link = link
        self._identity = identity
        self._timeout = timeout
        self.raw: Payload = wire.EMPTY

    async def run(
        self,
        on_request: OnRequest,
        on_notify: OnNotify,
        on_notify_intercept: OnNotifyIntercept | None = None,
        *,
        task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED,
    ) -> None:
        """The link is fed by its transport; there is no loop to drive."""
        task_status.started()
        await anyio.sleep_forever()

    async def send_raw_request(
        self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None
    ) -> dict[str, Any]:
        """Relay a request of the session's; who we are is said in the words we were given."""
        sent = {key: Payload(wire.encode(value)) for key, value in (params or {}).items()}
        timeout = self._timeout
        if method == "initialize":
            sent["clientInfo"], sent["capabilities"] = self._identity.client_info, self._identity.capabilities
        else:
            timeout = min(timeout, PROBE_WAIT)
        try:
            self.raw = await self._link.request(method, sent, timeout=timeout)
        except RemoteError as exc:
            raise _as_mcp_error(exc) from exc
        if method == "initialize":
            greeting = initialized(self.raw)
            self._link.adopt(greeting.version, greeting.capabilities)
        decoded: dict[str, Any] = msgspec.json.decode(self.raw)
        return decoded

    async def notify(self, method: str, params: Mapping[str, Any] | None, opts: CallOptions | None = None) -> None:
        """Relay a notification and wait, within a bound, until it was accepted."""
        accepted = self._link.notify(method, None if params is None else Payload(wire.encode(params)))
        if accepted is not None:
            with anyio.move_on_after(NOTE_WAIT):
                await accepted


def _as_mcp_error(exc: RemoteError) -> MCPError:
    try:
        error: dict[str, Any] = msgspec.json.decode(exc.raw)
        return MCPError(exc.code, str(error.get("message", "")), error.get("data"))
    except (msgspec.DecodeError, AttributeError):
        return MCPError(exc.code, str(exc))


async def greet(link: Link, *, eras: tuple[Era, ...], identity: Identity, timeout: float) -> Negotiation:
    """See `greeting.Greet`. An era that is refused, or met with silence, gives way to the next one."""
    dispatcher = _LinkDispatcher(link, identity, timeout)
    async with ClientSession(dispatcher=dispatcher, client_info=_PLACEHOLDER) as session:
        outcome = await _negotiate(session, dispatcher, link, eras)
    if isinstance(outcome, Negotiation):
        return outcome
    raise outcome  # out here, because the session's task group would wrap it


async def _negotiate(
    session: ClientSession, dispatcher: _LinkDispatcher, link: Link, eras: tuple[Era, ...]
) -> Negotiation | BackendError | RemoteError:
    outcome: BackendError | RemoteError = BackendProtocolError(link.backend, "no era of the protocol may be tried")
    for era in eras:
        try:
            return await _greet_in(session, dispatcher, link, era)
        except (BackendProtocolError, BackendTimeout) as exc:
            outcome = exc
        except MCPError as exc:
            outcome = BackendProtocolError(link.backend, f"it refused the connection: {exc.message} ({exc.code})")
        except (BackendError, RemoteError) as exc:
            return exc
        link.stamp(None)
        link.transport.adopt("")
    return outcome


async def _greet_in(session: ClientSession, dispatcher: _LinkDispatcher, link: Link, era: Era) -> Negotiation:
    identity = dispatcher._identity
    try:
        if era == "handshake":
            await session.initialize()
            return initialized(dispatcher.raw)
        link.stamp(wire.modern_stamp(identity.client_info, wire.with_extension(identity.capabilities, TASKS_EXTENSION)))
        link.transport.adopt(MODERN_VERSION)
        await session.discover()
    except BackendUnavailable as exc:
        if exc.status not in (400, 404, 405, 406, 415, 501):
            raise
        raise BackendProtocolError(link.backend, exc.message, status=exc.status) from exc
    except (ValidationError, RuntimeError, msgspec.DecodeError) as exc:
        raise BackendProtocolError(link.backend, f"its {era} greeting is not MCP: {_first_line(exc)}") from exc
    greeting = discovered(dispatcher.raw)
    link.adopt(greeting.version, greeting.capabilities)
    return greeting


def parameters(
    backend: str, tools: Sequence[bytes], *, mirrored: bool
) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
    """See `greeting.Parameters`."""
    kept: list[bytes] = []
    maps: dict[str, dict[tuple[str, ...], str]] = {}
    for raw in tools:
        tool = wire.client_meta(Payload(raw)) if b"x-mcp-header" in raw else {}
        schema = tool.get("inputSchema", wire.EMPTY)
        if b"x-mcp-header" not in bytes(schema):
            kept.append(raw)
            continue
        try:
            decoded = msgspec.json.decode(schema)
        except msgspec.DecodeError:  # only nearly JSON: as it came, somebody may still understand it
            kept.append(raw)
            continue
        problem = find_invalid_x_mcp_header(decoded)
        if problem is None:
            kept.append(raw)
            maps[str(json.loads(bytes(tool.get("name", wire.NULL_ID))))] = x_mcp_header_map(decoded)
        elif mirrored:
            logger.warning("tool left out: %s", problem, extra={"backend": backend})
        else:
            kept.append(without_annotations(raw))

    def headers(tool: str, arguments: Payload) -> Mapping[str, str]:
        wanted = maps.get(tool)
        return mcp_param_headers(wanted, json.loads(bytes(arguments))) if wanted else {}  # which may hold 1e999

    return tuple(kept), headers if maps and mirrored else None


def _first_line(exc: Exception) -> str:
    return str(exc).splitlines()[0][:200] if str(exc) else type(exc).__name__
