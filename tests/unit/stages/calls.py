"""Calls for tests that need no dispatcher, and what a stage observes of them."""

from mcp_manifold.model.call import Call, Session, Stage
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import LATEST_HANDSHAKE, Payload, Pieces

Outcome = Payload | BaseException


class Answers:
    """A Reply that keeps the answers to one call."""

    def __init__(self) -> None:
        self.given: list[Payload | Pieces | BaseException | None] = []

    def emit(self, message: bytes, /, *, needed: bool = False) -> None:
        raise AssertionError(message)

    def stream(self) -> None:
        raise AssertionError("no stream expected")

    def disconnected(self) -> None:
        raise AssertionError("no client that leaves")

    def respond(self, result: Payload | Pieces | None, failure: BaseException | None) -> None:
        self.given.append(failure if result is None else result)


def make_call(
    method: str = "tools/call",
    params: dict[str, Payload] | None = None,
    *,
    version: str = LATEST_HANDSHAKE,
    scope: str = "",
    key: str = "",
    principal: Principal = ANONYMOUS,
) -> Call:
    return Call(method, params or {}, Session(key, principal, scope, version), Answers())


def observe(stage: Stage, call: Call, outcome: Outcome, *, backend: str = "", seconds: float = 0.25) -> None:
    """Let a stage see a call begin, reach a backend, and end with a result or a failure."""
    stage.began(call)
    call.backend, call.seconds = backend, seconds
    if isinstance(outcome, BaseException):
        stage.ended(call, None, outcome)
    else:
        stage.ended(call, outcome, None)
