"""Decides the next step of a call, for every method, from the current state. Pure: waits for nothing, changes nothing.

A step is a value. What waits, or makes an answer, is only named by it; the Dispatcher runs it. After a Wait, the call
is planned again. Policy decides on the entry that is called: the scope's view is given once, and contains only entries
that the client may see. All others are answered like unknown names.
"""

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Final, NamedTuple

from mcp_manifold import wire
from mcp_manifold.backends.backend import Backend
from mcp_manifold.backends.calls.executor import RequestExecutor
from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.link import Link
from mcp_manifold.core.bridge import Bridge, CallTarget, Parked, Repeat
from mcp_manifold.core.hub import Hub, View
from mcp_manifold.core.notifications import ExtensionMethods
from mcp_manifold.core.scope_responder import ScopeResponder
from mcp_manifold.core.tasks import Tasks
from mcp_manifold.errors import BackendUnavailable, InvalidParams, UnknownItem, UnknownMethod
from mcp_manifold.model.call import Call, Handler
from mcp_manifold.model.capabilities import offers_completions
from mcp_manifold.model.catalogue import Kind
from mcp_manifold.model.task_table import Task
from mcp_manifold.wire import Payload, Pieces

NOT_IN: Final[Mapping[str, frozenset[str]]] = {
    "handshake": frozenset({"server/discover", "subscriptions/listen"}),
    "modern": frozenset({"initialize", "logging/setLevel", "ping", "resources/subscribe", "resources/unsubscribe"}),
}
"""Methods that an era does not have."""
_CONTINUATION: Final = frozenset({"requestState", "inputResponses"})
"""Members of a modern client's retry after `input_required`."""


class Send(NamedTuple):
    """The step that sends the call to a backend, over this link, with these params (native names)."""

    backend: Backend
    link: Link
    params: dict[str, Payload]
    native: str = ""
    """The name or URI the backend knows the item by."""
    task: Task[Link] | None = None
    """The task that a `tasks/*` request is about. It takes no slot, and uses the link that created the task."""
    creates_task: bool = False
    """The call requests a task (2025-11-25)."""
    parked: Parked | Repeat | None = None
    """The parked call that it resumes, which sends nothing; or the call that it repeats."""
    is_unlisted: bool = False
    """Its backend does not list the item, so what is known of its lists may be out of date."""

    def target(self, method: str) -> CallTarget:
        """The target of the call, for comparison with a retry."""
        return CallTarget(method, self.backend, self.native)


class Answer(NamedTuple):
    """The step that answers the call with this result."""

    work: Callable[[], Pieces]


class Changes(NamedTuple):
    """What a Wait changed in a call. The Dispatcher applies it before it plans the call again."""

    waited: float = 0.0
    """Seconds spent, which count towards its timeout."""
    slot: RequestExecutor | None = None
    """The executor whose slot it holds now."""
    level: Link | None = None
    """The link whose log level was raised for it."""
    params: dict[str, Payload] | None = None
    """The params of the next request, with its client's input."""


class Slot(NamedTuple):
    """A slot of this executor, which the call then holds."""

    executor: RequestExecutor
    params: dict[str, Payload]
    """Those that will be sent."""


class Level(NamedTuple):
    """The log level of the call, raised on this link."""

    link: Link


class Wait(NamedTuple):
    """The step that waits for `work`, which returns the call's answer; or Changes or None, to plan the call again."""

    why: str
    work: Slot | Level | Callable[[], Awaitable[Payload | Changes | None]]


class Fail(NamedTuple):
    """The step that answers the call with this failure."""

    failure: Exception


Step = Send | Answer | Wait | Fail
OWNER_WAIT: Final = 15.0
"""Seconds that a URI without a known owner waits for starting servers, of which one may hang."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The parts that `plan` reads."""

    hub: Hub
    fleet: Fleet
    responder: ScopeResponder
    tasks: Tasks
    bridge: Bridge
    extensions: ExtensionMethods
    local: Mapping[str, Handler]
    """Handlers of the methods that are answered without a backend, and may wait."""
    raise_level: Callable[[Link, str], Awaitable[None]]
    """Raises a handshake-era backend's log level for the length of a call."""


def plan(call: Call, view: View, facts: Facts) -> Step:
    """The next step of a call.

    Args:
        view: that of its scope.

    Raises:
        ManifoldError: the call is invalid, or its item or backend is missing; the same as Fail.
    """
    method = call.method
    if method == "tools/call":
        return _tool(call, view, facts)
    if method in NOT_IN[call.session.era]:
        raise _unknown(method)
    if method in facts.responder.methods:
        wait = None if method == "ping" else _unlistable(call, facts)
        return wait or Answer(partial(facts.responder.answer, call))
    if method in facts.local:
        return Wait(method, partial(facts.local[method], call))
    decide = _ROUTED.get(method)
    if decide is not None:
        return decide(call, view, facts)
    if facts.tasks.routes(method):
        return _task(call, facts)
    return _extension(call, facts)


def _tool(call: Call, view: View, facts: Facts) -> Step:
    params = call.params
    name = wire.text(params.get("name"), "name")
    entry = view.catalogue.tools.get(name) or view.catalogue.find(Kind.TOOL, name)
    if entry is None:
        return _missing(call, facts, Kind.TOOL, name)
    creates_task = False
    if "task" in params:
        wait = _unlistable(call, facts)
        if wait is not None:
            return wait
        creates_task, params = facts.tasks.requested(call, entry)
    params = {**params, "name": Payload(entry.native_json)}
    return _send(call, facts, entry.backend, params, entry.native, creates_task=creates_task)


def _prompt(call: Call, view: View, facts: Facts) -> Step:
    name = wire.text(call.params.get("name"), "name")
    entry = view.catalogue.find(Kind.PROMPT, name)
    if entry is None:
        return _missing(call, facts, Kind.PROMPT, name)
    params = {**call.params, "name": Payload(entry.native_json)}
    return _send(call, facts, entry.backend, params, entry.native)


def _resource(call: Call, _: View, facts: Facts) -> Step:
    uri, scope = wire.text(call.params.get("uri"), "uri"), call.session.scope
    route = facts.hub.route_resource(scope, uri)
    if route is None:
        starting = facts.hub.untried(scope)
        if not starting:
            raise UnknownItem("resource", uri)
        seconds = max(facts.fleet.find(each).executor.longest_wait(call.method, call.params) for each in starting)
        return Wait("catalogue", partial(facts.hub.wait_routed, scope, uri, min(seconds, OWNER_WAIT)))
    params = {**call.params, "uri": Payload(wire.encode(route.uri))}
    return _send(call, facts, route.backend, params, route.uri)


def _completion(call: Call, view: View, facts: Facts) -> Step:
    ref = wire.object_members(call.params.get("ref"))
    kind = wire.text(ref.get("type"), "ref.type")
    wait = _unlistable(call, facts)
    if wait is not None:
        return wait
    catalogue = view.catalogue
    if not view.missing and not any(offers_completions(listing) for listing in view.listings):
        raise _unknown(call.method)
    if kind == "ref/prompt":
        member, name = "name", wire.text(ref.get("name"), "ref.name")
        entry, missing = catalogue.find(Kind.PROMPT, name), UnknownItem("prompt", name)
    elif kind == "ref/resource":
        member, uri = "uri", wire.text(ref.get("uri"), "ref.uri")
        entry = catalogue.find(Kind.TEMPLATE, uri) or catalogue.find(Kind.RESOURCE, uri)
        missing = UnknownItem("resource template", uri)
    else:
        raise InvalidParams(f"Invalid params: unknown completion reference {kind[:40]!r}")
    if entry is None:
        raise missing
    params = {**call.params, "ref": Payload(wire.encode({**ref, member: Payload(entry.native_json)}))}
    return _send(call, facts, entry.backend, params, entry.native)


def _task(call: Call, facts: Facts) -> Step:
    wait = _unlistable(call, facts)
    if wait is not None:
        return wait
    task = facts.tasks.find(call)
    return _send(call, facts, task.backend, facts.tasks.native_params(call, task), task.native, task=task)


def _extension(call: Call, facts: Facts) -> Step:
    """A method that the protocol does not define is sent to the only backend it can belong to."""
    if facts.extensions.knows(call.method):
        wait = _unlistable(call, facts)
        if wait is not None:
            return wait
        backend = facts.extensions.owner(call.session.scope, call.method)
        if backend:
            return _send(call, facts, backend, call.params)
    raise _unknown(call.method)


_ROUTED: Final[Mapping[str, Callable[[Call, View, Facts], Step]]] = {
    "prompts/get": _prompt,
    "resources/read": _resource,
    "completion/complete": _completion,
}


def _unlistable(call: Call, facts: Facts) -> Wait | None:
    """The wait for a catalogue that is not known yet; None if it can be listed."""
    scope = call.session.scope
    return None if facts.hub.is_listable(scope) else Wait("catalogue", partial(facts.hub.wait_listable, scope))


def _missing(call: Call, facts: Facts, kind: Kind, name: str) -> Step:
    """Handle a name that is not listed: the one backend that it can belong to answers it, once that was tried."""
    scope, hub = call.session.scope, facts.hub
    route = None if "task" in call.params else hub.route_name(scope, kind, name)
    untried = hub.untried(scope)
    if route is not None and route[0] in untried:
        params = {**call.params, "name": Payload(wire.encode(route[1]))}
        return Wait("catalogue", partial(facts.fleet.find(route[0]).until_listed, call, params))
    if not hub.has_attempted(scope):
        return Wait("catalogue", partial(hub.wait_attempted, scope))
    if route is None:
        unprefixed = next((each for each in untried if not hub.prefix(scope, each)), None)
        if unprefixed is None:
            raise UnknownItem(kind, name)
        return Wait("catalogue", partial(facts.fleet.find(unprefixed).until_listed, call, call.params))
    backend, native = route
    return _unlisted(_send(call, facts, backend, {**call.params, "name": Payload(wire.encode(native))}, native))


def _unlisted(step: Step) -> Step:
    return step._replace(is_unlisted=True) if isinstance(step, Send) else step


def _send(
    call: Call,
    facts: Facts,
    name: str,
    params: dict[str, Payload],
    native: str = "",
    *,
    task: Task[Link] | None = None,
    creates_task: bool = False,
) -> Step:
    """Send to a backend; or wait for a first connection, a slot, a link or a log level."""
    backend = facts.fleet.backends.get(name)
    if backend is None:
        raise BackendUnavailable(name, "is no longer configured")
    parked: Parked | Repeat | None = None
    if call.session.era == "modern" and task is None:
        if not backend.has_connected:
            return Wait("first connection", partial(backend.meet, call, params))  # its era decides on the state
        if backend.era == "handshake" and not _CONTINUATION.isdisjoint(params):
            parked, params = _continued(call, facts, params, CallTarget(call.method, backend, native))
            if isinstance(parked, Parked):
                return Send(backend, parked.link, params, native, parked=parked)
    executor = backend.executor
    if executor.breaker.is_shut and not call.attempts:
        executor.require_admitted()
    if executor.running >= executor.most and call.slot is not executor and task is None:
        return Wait("slot", Slot(executor, params))
    link = _open_link(call, backend, task)
    if link is None:
        return Wait("link", partial(backend.connect, call, params))
    if _lacks_level(call, link):
        return Wait("log level", Level(link))
    return Send(backend, link, params, native, task, creates_task, parked)


def _open_link(call: Call, backend: Backend, task: Task[Link] | None) -> Link | None:
    """The open link for a call; for a task, the link that created it."""
    link = None if task is None else task.link
    if link is None or link.ended.done():
        link = backend.life.shared if backend.has_one_link else backend.open_call_link(call)
    return None if link is None or link.ended.done() else link


def _continued(
    call: Call, facts: Facts, params: dict[str, Payload], target: CallTarget
) -> tuple[Parked | Repeat | None, dict[str, Payload]]:
    """The call that a modern client's retry continues at a handshake-era backend, and the params without its state."""
    parked = None
    if "requestState" in params and not call.attempts:
        parked = facts.bridge.find_parked(call, target)
    return parked, {key: value for key, value in params.items() if key not in _CONTINUATION}


def _lacks_level(call: Call, link: Link) -> bool:
    """Whether a 2026-07-28 request wants a log level to which its handshake-era link was not raised yet."""
    session = call.session
    return bool(session.log_level) and session.era == "modern" and link.era == "handshake" and call.level is not link


def _unknown(method: str) -> UnknownMethod:
    return UnknownMethod(f"Method not found: {method[:100]}")
