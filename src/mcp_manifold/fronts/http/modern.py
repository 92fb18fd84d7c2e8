"""2026-07-28 over HTTP: every POST stands alone. Holds no session; the stream closing is the cancellation."""

import asyncio
from collections.abc import Callable

from mcp_manifold.errors import InvalidParams, RequestError, TooManyRequests
from mcp_manifold.fronts.gateway import Gateway
from mcp_manifold.fronts.http.asgi import Refused, send_empty, send_json
from mcp_manifold.fronts.http.request import HttpRequest
from mcp_manifold.fronts.http.responder import Responder
from mcp_manifold.fronts.http.stream import Tally
from mcp_manifold.fronts.in_flight import Flight, answered
from mcp_manifold.fronts.inbound import (
    VERSION_HEADER,
    ParamCheck,
    admit,
    check_params,
    is_routing,
    log_level,
    repeated,
    unsupported,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import MODERN_VERSION, UNSET, Envelope, Payload, error_of, failure, http_status, text
from mcp_manifold.wire.protocol import HEADER_MISMATCH, INVALID_REQUEST

_MODERN_HEADER = MODERN_VERSION.encode()


class Modern:
    """Answers 2026-07-28 messages."""

    __slots__ = ("_check_params", "_gateway", "_listens", "_tally")

    def __init__(self, gateway: Gateway, check_params: ParamCheck, tally: Tally) -> None:
        self._gateway = gateway
        self._check_params = check_params
        self._tally = tally
        self._listens: set[Flight] = set()

    def __repr__(self) -> str:
        return f"<Modern listens={len(self._listens)}>"

    async def post(self, request: HttpRequest, envelope: Envelope, params: dict[str, Payload]) -> None:
        """Answer one POSTed message."""
        method, id_ = envelope.method, envelope.id
        if method is UNSET:
            raise Refused(400, "Invalid request: clients post no responses in this revision", code=INVALID_REQUEST)
        if id_ is UNSET:
            await self._acknowledge(request)
            return
        try:
            info, capabilities = self._admit(request, method, params)
            level = log_level(params)
        except RequestError as exc:
            error = error_of(exc, "modern", method=method)
            await send_json(request.send, http_status(error), failure(id_, error))
            return
        session = Session(
            "", request.principal, request.route.scope, MODERN_VERSION, info, capabilities, log_level=level
        )
        responder = Responder(request.send, self._tally)
        flight = Flight(Call(method, params, session, responder.emit, id=id_), asyncio.current_task())
        try:
            if method == "subscriptions/listen":
                self._listens.add(flight)
            responder.open_watched(request.receive, flight.take_back)
            message, status = await answered(self._gateway.handle, flight, id_)
            await responder.finish(message, status)
        finally:
            self._listens.discard(flight)
            responder.close()

    def keep(self, is_kept: Callable[[Session], bool]) -> None:
        """End the standing streams that are not to be kept."""
        for flight in [flight for flight in self._listens if not is_kept(flight.call.session)]:
            flight.call.finish()

    def close(self) -> None:
        """End what would never end by itself."""
        for flight in list(self._listens):
            flight.call.finish()

    async def _acknowledge(self, request: HttpRequest) -> None:
        """This revision has no notifications from clients over HTTP, but clients send them: accepted and dropped."""
        header = request.headers.get(VERSION_HEADER, _MODERN_HEADER)
        if header != _MODERN_HEADER:
            exc = unsupported(header.decode("latin-1"))
            error = error_of(exc, "modern")
            await send_json(request.send, http_status(error), failure(Payload(b"null"), error))
            return
        await send_empty(request.send, 202)

    def _admit(self, request: HttpRequest, method: str, params: dict[str, Payload]) -> tuple[Payload, Payload]:
        if len(request.lines) != len(request.headers):
            twice = repeated(request.lines, is_routing)
            if twice is not None:
                raise RequestError(f"Header mismatch: {twice} header appears more than once", code=HEADER_MISMATCH)
        admitted = admit(method, params, request.headers)
        if method == "tools/call":
            self._hold_to_headers(request, params)
        elif method == "subscriptions/listen" and len(self._listens) >= self._gateway.settings.limits.max_streams:
            raise TooManyRequests("Too many subscriptions are open", retry_after=10.0)
        return admitted

    def _hold_to_headers(self, request: HttpRequest, params: dict[str, Payload]) -> None:
        name = params.get("name")
        if name is None:
            raise InvalidParams('Invalid params: "name" is missing')
        schema = self._gateway.input_schema(request.route.scope, text(name, "name"))
        if schema is not None:
            check_params(self._check_params, schema, params, request.headers, request.lines)
