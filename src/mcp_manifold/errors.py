"""The error tree: the errors that reach a client or a caller of this package, what they mean and what to do.

ManifoldError                      base class; catch it to catch all of them
├─ ConfigError                     the configuration is invalid; exit code 2
├─ RequestError                    the client's request is invalid or not allowed
│   ├─ MalformedMessage            not JSON, not JSON-RPC, or ambiguous
│   ├─ UnknownMethod / UnknownItem / InvalidParams
│   ├─ TooManyRequests             a limit of ours was reached; try again later
│   └─ Refused                     an HTTP refusal; defined in `fronts.http_errors`
├─ RemoteError                     the backend answered with a JSON-RPC error; it is relayed
├─ CallCancelled                   the client cancelled the request
└─ BackendError                    a backend failed; always names it
    ├─ BackendUnavailable          no live link; the request was not sent, or not accepted
    │   └─ AllUnavailable          no server of the endpoint is available
    ├─ BackendOverloaded           too many calls; the call was not sent
    ├─ AnswerDropped               the response exceeded the memory budget; the call took effect
    ├─ BackendTimeout              no response in time; the outcome is unknown
    ├─ BackendLost                 the link was lost during the call; the outcome is unknown
    │   ├─ BackendCrashed          ... because the server's process exited
    │   └─ SessionExpired          ... because the server dropped our session; the call took no effect
    └─ BackendProtocolError        the response violates MCP

Imports nothing of this package. `wire.rpc_errors` decides the JSON-RPC code of each; `fronts.http_errors` its HTTP
status. An exception outside the tree, such as `HttpFailure`, is a signal between modules, and is caught in the package.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self


class ManifoldError(Exception):
    """Base class of the error tree."""


@dataclass(frozen=True, slots=True)
class ConfigProblem:
    """One problem of a configuration. `str()` is `file:line:column: key: what; remedy`, without what is not known."""

    what: str
    severity: Literal["error", "broken", "warning"] = "error"
    """`error`: the configuration is refused. `broken`: one server cannot be used. `warning`: something is ignored."""
    remedy: str = ""
    file: str = ""
    line: int = 0
    """From 1; 0 where the place is not known."""
    column: int = 0
    key: str = ""
    """The path of the key, such as `mcpServers.git.args[0]`; or the flag or variable."""
    server: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        what = f"{self.what}; {self.remedy}" if self.remedy else self.what
        return ": ".join(part for part in (place, self.key, what) if part)


class ConfigError(ManifoldError):
    """The configuration cannot be used. `problems` has all that was found; `str()` has a line for each but warnings.

    `path`, `line`, `column` and `server` are those of the first error.
    """

    def __init__(
        self,
        reason: str = "",
        *,
        path: str = "",
        line: int = 0,
        column: int = 0,
        server: str = "",
        problems: Sequence[ConfigProblem] = (),
    ) -> None:
        given = ConfigProblem(reason, file=path, line=line, column=column, server=server)
        self.problems = tuple(problems) or (given,)
        ranks = ("error", "broken", "warning")
        first = min(self.problems, key=lambda problem: ranks.index(problem.severity))
        self.reason, self.path, self.line, self.column = first.what, first.file, first.line, first.column
        self.server = first.server
        super().__init__("\n".join(str(problem) for problem in self.problems if problem.severity != "warning"))


class RequestError(ManifoldError):
    """The client's request cannot be served; nothing was sent to a backend. `code` is the JSON-RPC error code."""

    code = -32600

    def __init__(self, message: str, *, code: int | None = None, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code


class MalformedMessage(RequestError):
    """The message is not JSON (-32700), or not one unambiguous JSON-RPC message (-32600)."""


class InvalidParams(RequestError):
    """`params` are missing, of the wrong type, or ambiguous."""

    code = -32602


class UnknownMethod(RequestError):
    """The method does not exist, or no backend supports it."""

    code = -32601


class UnknownItem(RequestError):
    """No tool, prompt or resource of that name is visible to the caller; list the items again.

    `kind` is `tool`, `prompt` or `resource`. For resources the code depends on the era (see `wire.rpc_errors`).
    """

    code = -32602

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"Unknown {kind}: {name}")
        self.kind = kind
        self.name = name


class TooManyRequests(RequestError):
    """A limit was reached. Try again after `retry_after` seconds."""

    code = -32603

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, data={"retryAfterSeconds": retry_after})
        self.retry_after = retry_after


class RemoteError(ManifoldError):
    """The backend answered with a JSON-RPC error, which the client receives.

    `raw` is the error object byte for byte, `code` its code, `era` the era in which that code was sent.
    """

    def __init__(self, raw: bytes, *, code: int, backend: str, era: str = "handshake") -> None:
        super().__init__(f"{backend} answered with error {code}")
        self.raw = raw
        self.code = code
        self.backend = backend
        self.era = era

    def rewritten(self, raw: bytes) -> "RemoteError":
        """This error with another error object, such as one that names public URIs."""
        return self if raw is self.raw else RemoteError(raw, code=self.code, backend=self.backend, era=self.era)


class CallCancelled(ManifoldError):
    """The client cancelled the request or left. No response is sent."""


class BackendError(ManifoldError):
    """A backend failed, or the connection to it.

    Args:
        next_try: seconds until the next connection attempt.
        since: the RFC 3339 time since which the backend has failed.
        status: the HTTP status that caused the error; 0 without one.
        advice: one sentence for the person or model that made the call; the default is that of the class.
    """

    advice = ""

    def __init__(
        self,
        backend: str,
        message: str,
        *,
        next_try: float | None = None,
        since: str = "",
        status: int = 0,
        advice: str = "",
    ) -> None:
        super().__init__(f"{backend}: {message}")
        self.backend = backend
        self.message = message
        self.next_try = next_try
        self.since = since
        self.status = status
        self.advice = advice or type(self).advice
        self.is_unsent = False
        """True when the request certainly did not reach the backend, so that a retry is safe."""

    @property
    def explanation(self) -> str:
        """The message and the advice, for the person or model that made the call."""
        return f"{self}. {self.advice}" if self.advice else str(self)

    def unsent(self) -> Self:
        """Mark the request as certainly not sent; returns this error itself."""
        self.is_unsent = True
        return self

    def data(self) -> dict[str, object]:
        """The `data` member of the JSON-RPC error: server, reason (class name), detail, since, next attempt, advice."""
        out: dict[str, object] = {
            "server": self.backend,
            "reason": type(self).__name__,
            "detail": self.message,
        }
        if self.since:
            out["since"] = self.since
        if self.next_try is not None:
            out["nextAttemptInSeconds"] = round(self.next_try, 1)
        if self.advice:
            out["advice"] = self.advice
        return out


class BackendUnavailable(BackendError):
    """There is no live link to the backend, or it refused the request (HTTP 401, 403, 429, 5xx). Try again later."""

    advice = "Try again later, or go on without this server."


class AllUnavailable(BackendUnavailable):
    """Every server of an endpoint is unavailable and none has a cached listing. `servers` maps each to its reason."""

    def __init__(self, servers: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in servers.items())
        super().__init__(", ".join(servers), f"all servers of this endpoint are unavailable ({reasons})")
        self.servers = dict(servers)

    def __str__(self) -> str:
        return self.message

    def data(self) -> dict[str, object]:
        """The `data` member of the JSON-RPC error: every server with its reason, and the advice."""
        servers = [{"server": name, "detail": reason} for name, reason in self.servers.items()]
        return {"reason": type(self).__name__, "servers": servers, "advice": self.advice}


class BackendOverloaded(BackendError):
    """The backend's concurrency limit and queue are full; the call was not sent.

    `running` and `waiting` count its calls; try again after `retry_after` seconds.
    """

    advice = "Try again in a few seconds, with fewer calls at the same time."

    def __init__(self, backend: str, why: str, *, running: int, waiting: int, retry_after: float = 1.0) -> None:
        super().__init__(backend, f"overloaded: {why} ({running} in flight, {waiting} waiting); the call was not sent")
        self.running = running
        self.waiting = waiting
        self.retry_after = retry_after

    def data(self) -> dict[str, object]:
        """The `data` member of the JSON-RPC error, with the call counts and `retryAfterSeconds`."""
        more = {"running": self.running, "waiting": self.waiting, "retryAfterSeconds": self.retry_after}
        return super().data() | more


class AnswerDropped(BackendError):
    """The response was dropped because the memory budget was exhausted. The call took effect."""

    advice = "The call took effect. Request less data at once, or try again later."

    def __init__(self, backend: str) -> None:
        super().__init__(backend, "response dropped: too many large responses in flight")


class BackendTimeout(BackendError):
    """The backend did not answer in time. Whether the call took effect is unknown."""

    advice = "The call may have taken effect: check before you repeat it."


class BackendLost(BackendError):
    """The link was lost while the call was in flight. Whether the call took effect is unknown."""

    advice = "The call may have taken effect: check before you repeat it."


class BackendCrashed(BackendLost):
    """The backend's process exited on its own."""


class SessionExpired(BackendLost):
    """The backend no longer knows our session. The call took no effect; repeat it over a new link."""


class BackendProtocolError(BackendError):
    """The backend's response is not valid MCP. A retry rarely helps."""

    advice = "A retry rarely helps: the operator of this server should look at its log."
