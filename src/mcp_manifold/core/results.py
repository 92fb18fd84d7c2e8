"""Turns a backend's outcome into the client's answer, for every method and both eras.

In this order: send a modern backend's input requests to a handshake-era client; name the server in them; replace native
resource URIs by public ones; adapt the result to the client's era; give tasks their public ids.
"""

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Final

from mcp_manifold import wire
from mcp_manifold.backends.link.pending import PendingRequest
from mcp_manifold.core.bridge import INTERACTIVE, MAX_ROUNDS, UNSAFE_URL, Bridge
from mcp_manifold.core.hub import Hub
from mcp_manifold.core.plan import Changes, Send, Wait
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.errors import BackendProtocolError, RemoteError
from mcp_manifold.model.call import Call
from mcp_manifold.wire import Payload, ResultView
from mcp_manifold.wire.protocol import URL_ELICITATION_REQUIRED

_URI: Final = b'"uri"'


class Results:
    """Turns the outcome of every call into the answer for its client."""

    def __init__(self, hub: Hub, bridge: Bridge, tasks: Tasks, *, server_info: Payload) -> None:
        self._hub = hub
        self._bridge = bridge
        self._tasks = tasks
        self._server_info = server_info

    def __repr__(self) -> str:
        return f"<Results {self._hub!r}>"

    def finish(
        self,
        call: Call,
        send: Send,
        pending: PendingRequest | None,
        result: Payload | None,
        failure: Exception | None,
    ) -> Payload | Wait | Exception:
        """The client's answer; or a Wait, if the client must be asked first or the work takes several turns.

        Args:
            pending: the request that was answered; None if it could not be sent.

        Raises:
            ManifoldError: this client cannot handle the result.
        """
        if result is None or pending is None:
            return self._failed(call, send, failure)
        has_uri = len(result) >= wire.LARGE or _URI in bytes(result)
        is_plain = not has_uri and call.backend_era == call.session.era == "handshake"
        if is_plain and send.task is None and not send.creates_task:
            return result
        if send.task is not None:
            return self._adapted(call, self._tasks.shown(call.method, send.task, call.session.scope, result), None)
        view = wire.view_of(result, pending.view)
        if call.backend_era == "modern" and call.method in INTERACTIVE:
            if call.session.era == "handshake":
                wanted = wire.input_required(result, view)
                if wanted is not None:
                    return Wait("client", partial(self._ask, call, send, wanted))
            elif wire.may_ask(result, view):
                result = self._bridge.named(call, result, view)
                view = wire.view_of(result, view)
        if len(result) >= wire.LONG and view is not None and not (view.is_known and view.is_plain):
            return Wait("long result", partial(self._finish_long, call, send, pending, result, view))
        if has_uri:
            result = wire.map_resource_refs(call.method, result, self._public(call), view)
        return self._translated(call, send, pending, result)

    async def _ask(self, call: Call, send: Send, wanted: wire.InputRequired) -> Changes:
        if call.rounds >= MAX_ROUNDS:
            reason = f"requested input more than {MAX_ROUNDS} times in one call"
            raise BackendProtocolError(send.backend.name, reason)
        return Changes(params=await self._bridge.ask(call, send.backend.name, wanted))

    async def _finish_long(
        self, call: Call, send: Send, pending: PendingRequest, result: Payload, view: ResultView
    ) -> Payload:
        """Finish a long result in steps, each in its own turn of the event loop."""
        steps = wire.ref_steps(call.method, result, self._public(call), view)
        while True:
            try:
                next(steps)
            except StopIteration as done:
                mapped: Payload = done.value
                return self._translated(call, send, pending, mapped)
            await asyncio.sleep(0)

    def _translated(self, call: Call, send: Send, pending: PendingRequest, result: Payload) -> Payload:
        """Adapt a result whose URIs are public, and give its task a public id."""
        view = wire.view_of(result, pending.view)
        adapted = self._adapted(call, result, view)
        return self._tasks.arrived(call, send.link, pending.number, adapted, view, creates_task=send.creates_task)

    def _adapted(self, call: Call, result: Payload, view: ResultView | None) -> Payload:
        if call.backend_era == call.session.era == "handshake":
            return result
        return wire.adapt_result(
            result,
            method=call.method,
            backend=call.backend_era,
            client=call.session.era,
            server_info=self._server_info,
            view=view,
        )

    def _public(self, call: Call) -> Callable[[str], str]:
        return partial(self._hub.public_uri, call.session.scope, call.backend)

    def _failed(self, call: Call, send: Send, failure: Exception | None) -> Payload | Exception:
        """The failure for the client; or a result, if the client's era has no such error."""
        if not isinstance(failure, RemoteError):
            return failure or RuntimeError("neither a result nor a failure")
        session = call.session
        if failure.code == URL_ELICITATION_REQUIRED:
            if any(wire.opens_unsafe_url("elicitation/create", each) for each in wire.required_urls(failure.raw)):
                return BackendProtocolError(failure.backend, UNSAFE_URL)
            if session.era == "handshake":
                self._bridge.remember_urls(failure, send.backend.open_session_link(session), session)
            elif call.backend_era == "handshake":
                instead = self._bridge.url_required(failure, call, send.target(call.method))
                if instead is not None:
                    return self._named_url(call, instead)
        public = self._hub.view(session.scope).whole.public_uri
        return failure.rewritten(wire.map_error_ref(failure.raw, partial(public, call.backend)))

    def _named_url(self, call: Call, result: Payload) -> Payload:
        return self._adapted(call, result, wire.view_of(result))
