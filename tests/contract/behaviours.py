"""The behaviours mcp-manifold promises at its fronts: one row each, with its source.

A test names the rows it shows with `@shows(...)`, and `test_behaviours` compares both sides. Rows are grouped by
feature, in the order of a session. `ABSENT` names the rows that a front or revision cannot have, with the reason.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One promise. `source` is a section of the specification, with its revision, or a decision of the design."""

    feature: str
    id: str
    source: str
    says: str


_ROWS: Final[tuple[str | tuple[str, str, str], ...]] = (
    "Negotiation",
    ("version", "2025-11-25 basic/lifecycle, Version Negotiation", "the server answers with the requested revision"),
    ("version-other", "2025-11-25 basic/lifecycle, Version Negotiation",
     "an unknown revision is answered with the latest one"),
    ("discover", "2026-07-28 server/discover", "`server/discover` names the modern revision and its time to live"),
    ("identity", "D10", "`serverInfo` is mcp-manifold's own, never a backend's"),
    ("capabilities", "2025-11-25 basic/lifecycle, Capability Negotiation",
     "the declared capabilities are those of the backends"),
    ("instructions", "D7", "instructions are joined, each under its server's name"),
    ("initialize-first", "2025-11-25 basic/lifecycle", "before `initialize`, only `ping` is answered"),
    ("ping", "2025-11-25 basic/utilities/ping", "mcp-manifold answers `ping` itself"),
    ("ping-modern", "2026-07-28 changelog", "the modern revision has no `ping`"),
    "Tools",
    ("tools-list", "D7", "every tool of every backend is listed once, with its server's prefix, in order"),
    ("tools-call", "D7", "a call reaches the one backend that owns the name, under its native name"),
    ("tools-alias", "D7", "a native name is accepted if exactly one backend has it"),
    ("tools-unknown", "2026-07-28 server/tools, Error Handling", "an unknown tool is -32602 and reaches no backend"),
    ("tools-error", "D2", "a backend's error is forwarded byte for byte"),
    ("tools-failed", "2025-11-25 server/tools, Error Handling", "`isError` results are forwarded as results"),
    ("tools-unknown-members", "D2", "unknown members of definitions and results are kept"),
    "Resources",
    ("resources-list", "D8", "resources and templates are listed under their own URIs"),
    ("resources-read", "D8", "a listed URI is read from its backend unchanged"),
    ("resources-template", "D8", "a URI that matches a template is read from the template's backend"),
    ("resources-unknown", "2026-07-28 server/resources, Error Handling",
     "an unknown URI is an error with the era's code"),
    ("resources-error", "D2", "a failed read keeps the backend's error"),
    ("resources-linked", "D8", "a URI seen in a result is read from that result's backend, listed or not"),
    ("resources-collision", "D8", "a URI of two backends stays the first one's; the other becomes `<server>+<uri>`"),
    ("resources-collision-in-results", "D8", "a renamed URI is renamed in results too, wherever it names the resource"),
    "Prompts and completion",
    ("prompts-list", "D7", "prompts are listed with their server's prefix"),
    ("prompts-get", "D7", "a prompt is fetched from its backend under its native name"),
    ("prompts-unknown", "2025-11-25 server/prompts, Error Handling", "an unknown prompt is -32602"),
    ("complete-prompt", "D8", "a completion for a prompt reaches its backend with the native name"),
    ("complete-template", "D8", "a completion for a renamed template reaches its backend with the native URI"),
    "Calls",
    ("progress", "2025-11-25 basic/utilities/progress",
     "progress carries the caller's token and arrives in order, before the result"),
    ("progress-unasked", "2025-11-25 basic/utilities/progress", "without a token, no progress is requested or sent"),
    ("progress-own", "D9", "two clients with the same token get only their own progress"),
    ("cancel", "2025-11-25 basic/utilities/cancellation",
     "a cancellation reaches the backend with the backend's own request id"),
    ("cancel-modern-http", "2026-07-28 basic/transports/streamable-http", "closing the stream cancels the call"),
    ("cancel-leaving", "2025-11-25 basic/transports, Sending Messages", "closing a POST does not cancel the call"),
    ("concurrent", "D5", "concurrent calls each get their own answer"),
    "Server requests",
    ("ask-sampling", "2025-11-25 client/sampling; 2026-07-28 basic/patterns/mrtr",
     "a sampling request reaches the caller"),
    ("ask-roots", "2025-11-25 client/roots; 2026-07-28 basic/patterns/mrtr", "a roots request reaches the caller"),
    ("ask-elicitation", "2025-11-25 client/elicitation", "accept, decline and cancel reach the server unchanged"),
    ("ask-tools", "2025-11-25 client/sampling, Tools in Sampling",
     "sampling requests with tools reach clients that declared them"),
    ("ask-url", "2025-11-25 client/elicitation, URL Mode",
     "URL elicitation has an `elicitationId` only in the era that defines it"),
    ("ask-rounds", "2026-07-28 basic/patterns/mrtr", "consecutive and concurrent requests each get their own answer"),
    ("ask-anywhere", "2026-07-28 basic/patterns/mrtr", "prompts and resources may send requests too"),
    ("ask-unknown", "D2", "an unknown server request is left to the client"),
    ("ask-signed", "2025-11-25 client/elicitation, Security", "with several servers, a request names its server"),
    ("ask-undeclared", "2025-11-25 basic/lifecycle, Capability Negotiation",
     "a request without the client's declared capability is refused"),
    ("ask-error", "2025-11-25 client/sampling, Error Handling", "a client's error is forwarded to the server"),
    ("ask-unprovoked", "D9", "a request outside of a call reaches the client that owns the link"),
    ("ask-withdrawn", "2025-11-25 basic/utilities/cancellation",
     "a server's cancellation of its request reaches the client"),
    ("ask-cancelled", "2025-11-25 basic/utilities/cancellation", "cancelling a call cancels its open server requests"),
    ("ask-left", "D11", "a client that disconnects during a server request leaves no state"),
    ("ask-deadline", "D11", "no timeout runs while the client answers a request"),
    ("ask-state", "2026-07-28 basic/patterns/mrtr", "a `requestState` is valid once, for its own call and principal"),
    ("ask-parked", "D10, D11", "parked calls expire, are limited in number, and end with their server"),
    ("ask-untouched", "D2", "between modern ends the server's `requestState` is forwarded byte for byte"),
    ("url-required", "2025-11-25 client/elicitation, URL Elicitation Required",
     "-32042 becomes an input request in 2026-07-28"),
    ("url-complete", "2025-11-25 client/elicitation, Completion Notifications",
     "only the client that was sent to a URL is notified of its completion"),
    "Isolation",
    ("mail", "D9", "clients of a shared backend never get each other's messages"),
    ("isolation-mirror", "D9", "the backend receives the client's own capabilities"),
    ("isolation-era", "D10", "a dual-era HTTP backend is used in the client's era"),
    ("isolation-auto", "D9", "a process is shared until its first server request; then clients get their own"),
    ("isolation-shared", "D9", "on a shared link, an ambiguous server request is refused"),
    ("isolation-client", "D9, D12", "different principals never share a stateful link"),
    ("isolation-cap", "D11", "a client beyond `maxClientProcesses` is refused with a reason until one is free"),
    ("isolation-idle", "D11", "an idle process stops and starts again when needed"),
    ("isolation-left", "D11", "a client's links close when it disconnects"),
    ("left-clean", "D11", "a client that vanishes at any point leaves no state"),
    "Resumption",
    ("resume-call", "2025-11-25 basic/transports, Resumability", "a resumed stream continues up to the result"),
    ("resume-opening", "2025-11-25 basic/transports, Sending Messages",
     "streams of 2025-11-25 open with an event id; others do not"),
    ("resume-standing", "2025-11-25 basic/transports, Resumability", "a resumed standing stream continues"),
    ("resume-own", "2025-11-25 basic/transports, Resumability", "only the session's own events are replayed"),
    ("resume-modern", "2026-07-28 changelog", "the modern revision has no event ids and no resumption"),
    "Pages and caching",
    ("pages", "2025-11-25 server/utilities/pagination", "a paginated list is complete"),
    ("pages-cursors", "2025-11-25 server/utilities/pagination",
     "a cursor is valid for one list of one endpoint; otherwise it is -32602"),
    ("pages-changed", "D6", "a cursor stays valid when the list changes, unless its entry is gone"),
    ("hints", "2026-07-28 server/utilities/caching", "a merged list's `ttlMs` is the minimum of its parts"),
    "Tasks",
    ("tasks-run", "2025-11-25 basic/utilities/tasks", "a task has a public id and reaches its own backend"),
    ("tasks-status", "2025-11-25 basic/utilities/tasks, Task Status Notification",
     "the creator of a task gets its status"),
    ("tasks-ask", "2025-11-25 basic/utilities/tasks, Related Task Metadata", "each side sees its own task id"),
    ("tasks-bound", "2025-11-25 basic/utilities/tasks, Task Isolation",
     "a task of another principal or session is unknown"),
    ("tasks-capability", "2025-11-25 basic/utilities/tasks, Capabilities",
     "tasks are declared only to clients of a server's form of tasks"),
    ("tasks-extension", "SEP-2663", "extension tasks are for clients that declared the extension in the request"),
    ("tasks-followed", "SEP-2663, Task Status Notifications", "a client that follows a task gets its status"),
    "Extensions",
    ("extensions", "2026-07-28 server/discover",
     "an extension is declared in its era if one backend has it, and forwarded to backends"),
    ("apps", "D7, D8", "an app's page is read unchanged, and its tool names lead to its own server"),
    ("custom-methods", "D7", "a custom method reaches the only backend it can mean, else it is -32601"),
    ("custom-notes", "D9", "a custom notification reaches the caller, or the backend of its extension"),
    ("roots-changed", "2025-11-25 client/roots", "`roots/list_changed` reaches the backends on the client's own links"),
    ("question-progress", "2025-11-25 basic/utilities/progress",
     "progress of a server request carries the server's token"),
    ("elicited", "2025-11-25 client/elicitation", "a completed elicitation is announced to the client that was asked"),
    ("trace", "2026-07-28 basic, OpenTelemetry", "trace context is forwarded both ways, in all eras"),
    ("mirrored", "2026-07-28 basic/transports/streamable-http, Custom headers",
     "arguments are mirrored into headers on both connections"),
    ("mirrored-anew", "2026-07-28 basic/transports/streamable-http",
     "after -32020 from a backend, the tool is listed and called again"),
    "Subscriptions",
    ("subscribe", "2025-11-25 server/resources, Subscriptions",
     "a subscribed client is notified of changes until it unsubscribes"),
    ("subscribe-own", "D9", "a client gets no notification it did not subscribe to"),
    ("subscribe-once", "D9", "the clients of a link share one subscription at the backend"),
    ("subscribe-kept", "D9", "subscriptions survive a reconnect to the backend"),
    ("subscribe-refused", "2025-11-25 server/resources, Subscriptions", "a subscription that cannot work is refused"),
    ("listen", "2026-07-28 basic/patterns/subscriptions",
     "a `subscriptions/listen` is acknowledged first, and its notifications are tagged"),
    ("listen-filter", "2026-07-28 basic/patterns/subscriptions", "only acknowledged notifications are sent"),
    ("listen-closed", "2026-07-28 basic/patterns/subscriptions",
     "a subscription that ends normally ends with its result"),
    "Log messages",
    ("log-level", "2025-11-25 server/utilities/logging", "a client gets messages at or above its level"),
    ("log-level-bad", "2025-11-25 server/utilities/logging, Error Handling", "an unknown level is -32602"),
    ("log-level-most", "D9", "a shared backend logs at the most verbose level of its clients"),
    ("log-default", "2025-11-25 server/utilities/logging",
     "without a level, a client gets its own calls' messages from `info` up"),
    ("log-modern", "2026-07-28 server/utilities/logging", "a request gets messages at its requested level, or none"),
    ("log-own", "D9", "a message reaches the client of its call; an ambiguous one is dropped"),
    ("log-signed", "D7", "with several servers, `logger` names the server"),
    "Scopes",
    ("scope-server", "D7", "a server's endpoint offers its items under their native names"),
    ("scope-group", "D7", "a group's endpoint offers only its servers"),
    ("scope-unknown", "D12", "an endpoint that is not configured is not found"),
    ("filters", "D12", "a filtered item is not listed and behaves as unknown"),
    ("filters-alias", "D7", "no alias bypasses a filter"),
    "Changes",
    ("changes-late", "D6", "a backend that becomes ready late is announced"),
    ("changes-real", "D6", "a real difference of a list is announced once; nothing else is"),
    ("changes-before-initialized", "2025-11-25 basic/lifecycle", "nothing is announced before `initialized`"),
    "Malformed input",
    ("malformed-message", "JSON-RPC 2.0, 4 and 5.1", "an invalid message gets its error code and no id"),
    ("malformed-request", "JSON-RPC 2.0, 5.1", "an invalid request gets its error code under its id"),
    ("malformed-headers", "2025-11-25 basic/transports", "wrong content types and sessions get their HTTP status"),
    ("malformed-modern", "2026-07-28 basic/transports/streamable-http",
     "modern errors have the HTTP status of their code"),
    ("header-mismatch", "2026-07-28 basic/transports/streamable-http", "headers that differ from the body are -32020"),
    ("malformed-survived", "D11", "an invalid message does not end the session"),
    ("oversized", "D12", "an oversized message is refused without reading the rest"),
    "Access",
    ("token", "D12", "with tokens configured, a request without one is refused"),
    ("token-bound", "D12", "a session belongs to the token that opened it"),
    ("host", "2025-11-25 basic/transports, Security Warning", "a foreign `Host` or `Origin` is refused"),
    "Observability",
    ("health", "D11", "`/health/servers` reports each server's state, since when, the cause and the next attempt"),
    ("ready", "D11", "`/_readyz` is ready with the required servers, until shutdown"),
    ("metrics", "D11", "calls, connections and waits move the metrics of their server and outcome"),
    ("metrics-safe", "D12", "metrics and health need a token and contain no payloads"),
    "Byte-for-byte forwarding",
    ("faithful-results", "D2", "results are forwarded byte for byte, through every front, from every backend"),
    ("faithful-errors", "D2", "errors are forwarded byte for byte"),
    ("faithful-lists", "D2", "definitions are forwarded byte for byte, except names and URIs"),
    ("faithful-reads", "D2", "resources and prompts are forwarded byte for byte"),
    ("faithful-params", "D2", "params reach the backend byte for byte, except ids and `_meta` of the connection"),
)  # fmt: skip


def _behaviours() -> Iterator[Behaviour]:
    feature = ""
    for row in _ROWS:
        if isinstance(row, str):
            feature = row
        else:
            yield Behaviour(feature, *row)


BEHAVIOURS: Final = tuple(_behaviours())

STDIO: Final = ("stdio", "stdio 2026")
HANDSHAKE: Final = ("stdio", "HTTP", "SSE")
MODERN: Final = ("stdio 2026", "HTTP 2026")


@dataclass(frozen=True, slots=True)
class Absent:
    """Behaviours that some columns cannot have, and the reason."""

    ids: str
    columns: tuple[str, ...]
    why: str


ABSENT: Final = (
    Absent(
        "discover ping-modern hints",
        HANDSHAKE,
        "2026-07-28, changelog: this revision added `server/discover`, `ttlMs` and `cacheScope`, and removed `ping`.",
    ),
    Absent(
        "version-other initialize-first ping changes-before-initialized",
        MODERN,
        "2026-07-28, changelog: no `initialize`, session or `ping`; each request names its revision.",
    ),
    Absent(
        "initialize-first changes-before-initialized",
        ("HTTP",),
        "2025-11-25 basic/transports, Session Management: a request without the `Mcp-Session-Id` of `initialize` is a "
        "400, and only a session can open the stream for notifications.",
    ),
    Absent(
        "listen listen-filter listen-closed",
        HANDSHAKE,
        "2026-07-28 basic/patterns/subscriptions: `subscriptions/listen` belongs to this revision; earlier clients "
        "have `resources/subscribe` and get `list_changed` unasked.",
    ),
    Absent(
        "subscribe subscribe-kept subscribe-refused changes-late changes-real",
        MODERN,
        "2026-07-28, changelog: `resources/subscribe` is removed; changes are sent on `subscriptions/listen`.",
    ),
    Absent(
        "log-level log-default",
        MODERN,
        "2026-07-28 server/utilities/logging: `logging/setLevel` is removed; each request carries its level.",
    ),
    Absent("log-modern", HANDSHAKE, "2025-11-25 server/utilities/logging: the level belongs to the session."),
    Absent(
        "tasks-run tasks-status tasks-ask tasks-bound",
        MODERN,
        "SEP-2663: the tasks of 2025-11-25 and those of the extension are incompatible and not converted.",
    ),
    Absent(
        "tasks-extension tasks-followed",
        HANDSHAKE,
        "SEP-2663: the tasks extension belongs to 2026-07-28 and is not declared to earlier clients.",
    ),
    Absent(
        "url-complete elicited",
        MODERN,
        "2026-07-28, changelog: `notifications/elicitation/complete` and `elicitationId` are removed; clients "
        "call again.",
    ),
    Absent(
        "roots-changed",
        MODERN,
        "2026-07-28, changelog: `notifications/roots/list_changed` is removed; servers request roots when needed.",
    ),
    Absent(
        "ask-unknown ask-error ask-withdrawn ask-cancelled ask-left question-progress",
        MODERN,
        "2026-07-28 basic/patterns/mrtr: servers send no requests; a call ends with `input_required`, and the client "
        "may call again with the answers.",
    ),
    Absent(
        "ask-state ask-parked ask-untouched",
        HANDSHAKE,
        "2026-07-28 basic/patterns/mrtr: `requestState` belongs to this revision; earlier clients get requests.",
    ),
    Absent(
        "cancel-modern-http",
        (*HANDSHAKE, "stdio 2026"),
        "2026-07-28 basic/transports: closing the stream cancels only over Streamable HTTP of this revision; elsewhere "
        "clients send `notifications/cancelled`.",
    ),
    Absent(
        "cancel-leaving",
        (*STDIO, "SSE", "HTTP 2026"),
        "2025-11-25 basic/transports: only Streamable HTTP answers in the request's own response; from 2026-07-28 on, "
        "closing it cancels the call.",
    ),
    Absent(
        "malformed-headers malformed-modern header-mismatch token",
        STDIO,
        "2025-11-25 basic/transports: stdio has no headers, statuses or tokens; the client starts the process.",
    ),
    Absent(
        "malformed-modern header-mismatch",
        ("HTTP", "SSE"),
        "2026-07-28 basic/transports/streamable-http: earlier revisions do not mirror requests in headers.",
    ),
    Absent(
        "progress-own mail tasks-bound url-complete subscribe-once isolation-auto isolation-shared isolation-client "
        "isolation-cap isolation-left",
        STDIO,
        "2025-11-25 basic/transports: a stdio server has one client, the one that started it.",
    ),
)  # fmt: skip


def shows(*ids: str) -> Callable[[F], F]:
    """Mark a test as one that shows these behaviours."""

    def mark(test: F) -> F:
        test.behaviours = ids  # type: ignore[attr-defined]  # how a test is asked for them
        return test

    return mark
