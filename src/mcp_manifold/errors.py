"""The error tree: whose fault it was, where, and what to do. Plain fields only; knows no other module.

ManifoldError                      never raised itself
├─ ConfigError                     the configuration is wrong; exit code 2
├─ RequestError                    the client's fault
│   ├─ MalformedMessage            not JSON, not JSON-RPC, or ambiguous
│   ├─ UnknownMethod / UnknownItem / InvalidParams
│   ├─ Forbidden                   on the wire the same as UnknownItem
│   └─ TooManyRequests
├─ RemoteError                     a backend's own error: relayed as it came
├─ CallCancelled                   the caller took the request back; nobody waits for an answer
└─ BackendError                    always names the backend
    ├─ BackendUnavailable          not connected now
    │   └─ AllUnavailable          nor is any other of the same endpoint
    ├─ BackendOverloaded           has more to do than it may: the call was not begun
    ├─ AnswerDropped               its answer found no room
    ├─ BackendTimeout              did not answer in time
    ├─ BackendLost                 the link died with the call in flight; the outcome is unknown
    │   ├─ BackendCrashed          because its process ended by itself
    │   └─ SessionExpired          because it forgot our session: nothing happened
    └─ BackendProtocolError        answered something that is not MCP
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Self


class ManifoldError(Exception):
    """Root of everything this package raises on purpose."""


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
        first = next((problem for problem in self.problems if problem.severity == "error"), self.problems[0])
        self.reason, self.path, self.line, self.column = first.what, first.file, first.line, first.column
        self.server = first.server
        super().__init__("\n".join(str(problem) for problem in self.problems if problem.severity != "warning"))


class RequestError(ManifoldError):
    """The client asked for something that cannot be done. `code` is the JSON-RPC error code."""

    code = -32600

    def __init__(self, message: str, *, code: int | None = None, data: dict[str, object] | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.data = data
        if code is not None:
            self.code = code


class MalformedMessage(RequestError):
    """Not JSON (-32700), or JSON that is no acceptable JSON-RPC message (-32600)."""


class InvalidParams(RequestError):
    """Params are missing, of the wrong type, or ambiguous."""

    code = -32602


class UnknownMethod(RequestError):
    """No such method, or nobody here offers it."""

    code = -32601


class UnknownItem(RequestError):
    """No tool, prompt or resource of that name is visible to the caller.

    `kind` is `tool`, `prompt` or `resource`; the code of an unknown resource depends on the era (see `wire`).
    """

    code = -32602

    def __init__(self, kind: str, name: str) -> None:
        super().__init__(f"Unknown {kind}: {name}")
        self.kind = kind
        self.name = name


class Forbidden(UnknownItem):
    """The item exists but the caller may not use it: indistinguishable from UnknownItem on the wire."""


class TooManyRequests(RequestError):
    """A limit was reached. `retry_after` is in seconds."""

    code = -32603

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message, data={"retryAfterSeconds": retry_after})
        self.retry_after = retry_after


class RemoteError(ManifoldError):
    """A backend answered with a JSON-RPC error. `raw` is its error object, byte for byte; `code` is read from it."""

    def __init__(self, raw: bytes, *, code: int, backend: str, era: str = "handshake") -> None:
        super().__init__(f"{backend} answered with error {code}")
        self.era = era
        """The era the backend was spoken to in, whose codes these are."""
        self.raw = raw
        self.code = code
        self.backend = backend


class CallCancelled(ManifoldError):
    """The caller cancelled the request."""


class BackendError(ManifoldError):
    """Something between us and a backend failed. `data()` is the structured part of the wire error."""

    advice = ""
    """What whoever made the call, a person or a model, can do about it: one sentence."""

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
        """The HTTP status behind it; 0 where there is none."""
        self.advice = advice or type(self).advice
        self.is_unsent = False
        """Whether the request certainly never reached the backend."""

    @property
    def told(self) -> str:
        """The whole of it in words, for whoever made the call."""
        return f"{self}. {self.advice}" if self.advice else str(self)

    def unsent(self) -> Self:
        """The same, of a request that certainly never reached the backend."""
        self.is_unsent = True
        return self

    def data(self) -> dict[str, object]:
        """Which backend, what, since when (RFC 3339) and in how many seconds it is tried again."""
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
    """There is no live link to the backend."""

    advice = "Try again later, or go on without this server."


class AllUnavailable(BackendUnavailable):
    """No backend of an endpoint can be reached, and nothing of what they offer is known. `servers`: name to reason."""

    def __init__(self, servers: Mapping[str, str]) -> None:
        reasons = "; ".join(f"{name}: {reason}" for name, reason in servers.items())
        super().__init__(", ".join(servers), f"none of the servers here can be reached ({reasons})")
        self.servers = dict(servers)

    def __str__(self) -> str:
        return self.message

    def data(self) -> dict[str, object]:
        """Every server with its reason."""
        servers = [{"server": name, "detail": reason} for name, reason in self.servers.items()]
        return {"reason": type(self).__name__, "servers": servers, "advice": self.advice}


class BackendOverloaded(BackendError):
    """Too much goes on with the backend: the call was not begun. `running` and `waiting` are the calls that are."""

    advice = "Try again in a few seconds, with fewer calls at the same time."

    def __init__(self, backend: str, why: str, *, running: int, waiting: int, retry_after: float = 1.0) -> None:
        super().__init__(backend, f"is overloaded: {why} ({running} in flight, {waiting} waiting); it was not begun")
        self.running = running
        self.waiting = waiting
        self.retry_after = retry_after

    def data(self) -> dict[str, object]:
        """As of every backend error, and how much there is to do."""
        more = {"running": self.running, "waiting": self.waiting, "retryAfterSeconds": self.retry_after}
        return super().data() | more


class AnswerDropped(BackendError):
    """The backend answered, but there was no room for the answer."""

    advice = "What was asked for has been done: ask for less at a time, or again in a while."

    def __init__(self, backend: str) -> None:
        super().__init__(backend, "its answer was dropped: too many large answers are on their way at the same time")


class BackendTimeout(BackendError):
    """The backend did not answer within its timeout."""

    advice = "It may have taken effect all the same: check before repeating it."


class BackendLost(BackendError):
    """The link was lost while the call was in flight: whether it took effect is unknown."""

    advice = "Check whether it took effect before repeating it."


class BackendCrashed(BackendLost):
    """The backend's process ended without being told to."""


class SessionExpired(BackendLost):
    """The backend refused the request because it forgot our session: certainly nothing happened, try a new link."""


class BackendProtocolError(BackendError):
    """The backend sent something that is not MCP."""

    advice = "Repeating it will hardly help: whoever runs the server should look at its log."
