"""What the manifold promises at its fronts: one row per behaviour, with where the promise comes from. Tests nothing.

A test says which rows it shows with `@shows(...)`; `test_behaviours` holds both sides to each other. Rows are grouped
by feature in the order of the conversation. `ABSENT` says which rows a front or revision cannot have, and why.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, TypeVar

F = TypeVar("F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One promise. `source` is a section of the specification (with the revision) or a decision of the design."""

    feature: str
    id: str
    source: str
    says: str


_ROWS: Final[tuple[str | tuple[str, str, str], ...]] = (
    "Negotiation",
    ("version", "2025-11-25 basic/lifecycle, Version Negotiation", "every revision asked for is the one answered"),
    ("version-other", "2025-11-25 basic/lifecycle, Version Negotiation", "an unknown revision gets the latest one"),
    ("discover", "2026-07-28 server/discover", "discovery names the modern revision and how long it may be kept"),
    ("identity", "D10", "the serverInfo is the manifold's own, never a backend's"),
    ("capabilities", "2025-11-25 basic/lifecycle, Capability Negotiation", "what is declared is what is offered"),
    ("instructions", "D7", "instructions are joined under the name of each server"),
    ("initialize-first", "2025-11-25 basic/lifecycle", "nothing but ping is answered before initialize"),
    ("ping", "2025-11-25 basic/utilities/ping", "ping is answered by the manifold itself"),
    ("ping-modern", "2026-07-28 changelog", "the modern revision has no ping"),
    "Tools",
    ("tools-list", "D7", "every tool of every backend is listed once, under its server's name, in order"),
    ("tools-call", "D7", "a call reaches the one backend the name belongs to, under its native name"),
    ("tools-alias", "D7", "a native name that one backend alone has is accepted"),
    ("tools-unknown", "2026-07-28 server/tools, Error Handling", "an unknown tool is -32602 and reaches no backend"),
    ("tools-error", "D2", "a backend's error is passed on byte for byte"),
    ("tools-failed", "2025-11-25 server/tools, Error Handling", "isError results pass as results"),
    ("tools-unknown-members", "D2", "members nobody knows are kept, in definitions and results"),
    "Resources",
    ("resources-list", "D8", "resources and templates are listed under their own URIs"),
    ("resources-read", "D8", "a listed URI is read from its backend as it is"),
    ("resources-template", "D8", "a URI of a template is read from the template's backend"),
    ("resources-unknown", "2026-07-28 server/resources, Error Handling", "an unknown URI has the code of the era"),
    ("resources-error", "D2", "a failing read keeps the backend's error"),
    ("resources-linked", "D8", "a URI seen in a result is read from who said it, listed or not"),
    ("resources-collision", "D8", "a URI of two backends stays the first one's; the other is `<server>+<uri>`"),
    ("resources-collision-in-results", "D8", "a renamed URI is renamed wherever a result speaks of the resource"),
    "Prompts and completion",
    ("prompts-list", "D7", "prompts are listed under their server's name"),
    ("prompts-get", "D7", "a prompt is got from its backend under its native name"),
    ("prompts-unknown", "2025-11-25 server/prompts, Error Handling", "an unknown prompt is -32602"),
    ("complete-prompt", "D8", "a completion for a prompt reaches its backend with the native name"),
    ("complete-template", "D8", "a completion for a renamed template reaches its backend with the native one"),
    "Calls",
    ("progress", "2025-11-25 basic/utilities/progress", "progress has the caller's token, in order, before the result"),
    ("progress-unasked", "2025-11-25 basic/utilities/progress", "without a token no progress comes, nor is asked for"),
    ("progress-own", "D9", "two clients with the same token hear their own progress only"),
    ("cancel", "2025-11-25 basic/utilities/cancellation", "the backend hears of a cancellation under its own id"),
    ("cancel-modern-http", "2026-07-28 basic/transports/streamable-http", "closing the stream cancels, and only then"),
    ("cancel-leaving", "2025-11-25 basic/transports, Sending Messages", "hanging up a POST is no cancellation"),
    ("concurrent", "D5", "calls in flight together each get their own answer"),
    "Server requests",
    ("ask-sampling", "2025-11-25 client/sampling; 2026-07-28 basic/patterns/mrtr", "sampling is asked of the caller"),
    ("ask-roots", "2025-11-25 client/roots; 2026-07-28 basic/patterns/mrtr", "roots are asked of the caller"),
    ("ask-elicitation", "2025-11-25 client/elicitation", "accept, decline and cancel arrive as they were said"),
    ("ask-tools", "2025-11-25 client/sampling, Tools in Sampling", "tools are offered to who declared them"),
    ("ask-url", "2025-11-25 client/elicitation, URL Mode", "a page to visit has an elicitationId in its era alone"),
    ("ask-rounds", "2026-07-28 basic/patterns/mrtr", "questions in turn and at once are answered in their places"),
    ("ask-anywhere", "2026-07-28 basic/patterns/mrtr", "prompts and resources may ask as tools do"),
    ("ask-unknown", "D2", "a question nobody here knows is the client's to answer"),
    ("ask-signed", "2025-11-25 client/elicitation, Security", "who asks is named where there are several servers"),
    ("ask-undeclared", "2025-11-25 basic/lifecycle, Capability Negotiation", "what was not declared is not asked"),
    ("ask-error", "2025-11-25 client/sampling, Error Handling", "a client's error is the server's answer"),
    ("ask-unprovoked", "D9", "what is asked outside a call is asked of the client whose link it is"),
    ("ask-withdrawn", "2025-11-25 basic/utilities/cancellation", "a question that is taken back is so at the client"),
    ("ask-cancelled", "2025-11-25 basic/utilities/cancellation", "a cancelled call takes its question along"),
    ("ask-left", "D11", "a client that leaves in the middle of a question leaves nothing behind"),
    ("ask-deadline", "D11", "no deadline runs while a person is asked"),
    ("ask-state", "2026-07-28 basic/patterns/mrtr", "a state is good once, for its own call and principal"),
    ("ask-parked", "D10, D11", "parked calls end in time, are limited in number, and hear of their server's end"),
    ("ask-untouched", "D2", "between modern ends the state is the server's own, byte for byte"),
    ("url-required", "2025-11-25 client/elicitation, URL Elicitation Required", "-32042 is a question in 2026-07-28"),
    ("url-complete", "2025-11-25 client/elicitation, Completion Notifications", "who was sent off hears it is done"),
    "Isolation",
    ("mail", "D9", "of many clients on one shared backend, none gets a message that is for another"),
    ("isolation-mirror", "D9", "a client's own link, or request, tells the backend what that client can do"),
    ("isolation-era", "D10", "over HTTP a backend of both eras is spoken to in the client's own"),
    ("isolation-auto", "D9", "a process is shared until it asks; then those who can answer have their own"),
    ("isolation-shared", "D9", "on a shared link no question is put to somebody it may not be about"),
    ("isolation-client", "D9, D12", "different principals never share a link that has a state"),
    ("isolation-cap", "D11", "more clients than processes are refused in words, until one leaves"),
    ("isolation-idle", "D11", "a process nobody used for long is stopped, and started again when it is"),
    ("isolation-left", "D11", "the links of a client that left are closed"),
    ("left-clean", "D11", "of a client that vanishes in the middle of anything, nothing is left"),
    "Resumption",
    ("resume-call", "2025-11-25 basic/transports, Resumability", "a lost stream goes on, to the answer, when resumed"),
    ("resume-opening", "2025-11-25 basic/transports, Sending Messages", "its streams, and no others, open with an id"),
    ("resume-standing", "2025-11-25 basic/transports, Resumability", "a lost standing stream goes on when resumed"),
    ("resume-own", "2025-11-25 basic/transports, Resumability", "only the session's own events are replayed"),
    ("resume-modern", "2026-07-28 changelog", "the modern revision has no event ids and resumes nothing"),
    "Pages and caching",
    ("pages", "2025-11-25 server/utilities/pagination", "a list in pages is the whole list"),
    ("pages-cursors", "2025-11-25 server/utilities/pagination", "a cursor is of one list of one endpoint, or -32602"),
    ("pages-changed", "D6", "a cursor outlives a change of the list, unless its entry is gone"),
    ("hints", "2026-07-28 server/utilities/caching", "what is merged may be kept as long as each of its parts"),
    "Tasks",
    ("tasks-run", "2025-11-25 basic/utilities/tasks", "a task is asked after under an id of ours, at its own backend"),
    ("tasks-status", "2025-11-25 basic/utilities/tasks, Task Status Notification", "who made it hears of a task"),
    ("tasks-ask", "2025-11-25 basic/utilities/tasks, Related Task Metadata", "each side reads the id it knows"),
    ("tasks-bound", "2025-11-25 basic/utilities/tasks, Task Isolation", "another's task is an unknown one"),
    ("tasks-capability", "2025-11-25 basic/utilities/tasks, Capabilities", "only who has tasks is told to have them"),
    ("tasks-extension", "SEP-2663", "tasks of the extension, for who declared it in the request"),
    ("tasks-followed", "SEP-2663, Task Status Notifications", "who follows a task hears how it stands"),
    "Extensions",
    ("extensions", "2026-07-28 server/discover", "an extension is told to its era, if one backend has it; and back"),
    ("apps", "D7, D8", "an app's page is read as it is, and its own tool names lead to its own server"),
    ("custom-methods", "D7", "a method nobody defines goes to the one backend that can be meant, else -32601"),
    ("custom-notes", "D9", "a notification nobody defines goes with the call it belongs to"),
    ("roots-changed", "2025-11-25 client/roots", "changed roots are told on links that are this client's alone"),
    ("question-progress", "2025-11-25 basic/utilities/progress", "progress of a question has the server's token"),
    ("elicited", "2025-11-25 client/elicitation", "a finished elicitation is told to the client that was asked"),
    ("trace", "2026-07-28 basic, OpenTelemetry", "trace context passes both ways, in all eras"),
    ("mirrored", "2026-07-28 basic/transports/streamable-http, Custom headers", "arguments are mirrored on every hop"),
    ("mirrored-anew", "2026-07-28 basic/transports/streamable-http", "-32020 from a backend: listed and called anew"),
    "Subscriptions",
    ("subscribe", "2025-11-25 server/resources, Subscriptions", "a change is told to who subscribed, while it does"),
    ("subscribe-own", "D9", "nobody hears of a resource, or a list, it did not ask for"),
    ("subscribe-once", "D9", "clients of one link are one subscription at the backend, from the first to the last"),
    ("subscribe-kept", "D9", "subscriptions outlive the connection to the backend"),
    ("subscribe-refused", "2025-11-25 server/resources, Subscriptions", "what cannot be subscribed to is said so"),
    ("listen", "2026-07-28 basic/patterns/subscriptions", "a subscription is acknowledged first, and tagged"),
    ("listen-filter", "2026-07-28 basic/patterns/subscriptions", "nothing comes that was not asked for and honoured"),
    ("listen-closed", "2026-07-28 basic/patterns/subscriptions", "a subscription that ends well ends with its result"),
    "Log messages",
    ("log-level", "2025-11-25 server/utilities/logging", "a client hears what is at or above the level it set"),
    ("log-level-bad", "2025-11-25 server/utilities/logging, Error Handling", "an unknown level is -32602"),
    ("log-level-most", "D9", "a shared backend logs at the most verbose level anybody wants, for as long"),
    ("log-default", "2025-11-25 server/utilities/logging", "without a level, own calls are heard from info up"),
    ("log-modern", "2026-07-28 server/utilities/logging", "a request hears what it asked for, or nothing"),
    ("log-own", "D9", "a message goes to the call it is about, or to nobody"),
    ("log-signed", "D7", "the logger is named after its server where there are several"),
    "Scopes",
    ("scope-server", "D7", "a server's own endpoint offers its items under their own names"),
    ("scope-group", "D7", "a group's endpoint offers its servers and no others"),
    ("scope-unknown", "D12", "an endpoint nobody configured is not found"),
    ("filters", "D12", "what is filtered out is neither listed nor told from what does not exist"),
    ("filters-alias", "D7", "no alias leads around a filter"),
    "Changes",
    ("changes-late", "D6", "a backend that comes up late is announced"),
    ("changes-real", "D6", "a real difference of a list is announced, once, and nothing else"),
    ("changes-before-initialized", "2025-11-25 basic/lifecycle", "nothing is announced before initialized"),
    "Malformed input",
    ("malformed-message", "JSON-RPC 2.0, 4 and 5.1", "what is no message has the code for it, and answers no id"),
    ("malformed-request", "JSON-RPC 2.0, 5.1", "a bad request is answered under its id, with the code for it"),
    ("malformed-headers", "2025-11-25 basic/transports", "wrong content types and sessions have their status"),
    ("malformed-modern", "2026-07-28 basic/transports/streamable-http", "modern errors have the status of their code"),
    ("header-mismatch", "2026-07-28 basic/transports/streamable-http", "headers that differ from the body are -32020"),
    ("malformed-survived", "D11", "a malformed message costs the conversation nothing"),
    ("oversized", "D12", "a message over the limit is refused without reading it on"),
    "Access",
    ("token", "D12", "with tokens configured, nobody gets in without one"),
    ("token-bound", "D12", "a session belongs to the token that opened it"),
    ("host", "2025-11-25 basic/transports, Security Warning", "a foreign Host or Origin is refused"),
    "What an operator sees",
    ("health", "D11", "health is honest about each server: its state, since when, why, and when the next try is"),
    ("ready", "D11", "it is ready with its required servers, until it shuts down"),
    ("metrics", "D11", "calls, connections and waits move the metrics of their server and outcome"),
    ("metrics-safe", "D12", "metrics and health are for those with a token, and quote nobody"),
    "Faithfulness",
    ("faithful-results", "D2", "results arrive as they were sent, through every front, from every backend"),
    ("faithful-errors", "D2", "errors arrive as they were sent"),
    ("faithful-lists", "D2", "definitions arrive as they were sent, names and URIs aside"),
    ("faithful-reads", "D2", "resources and prompts arrive as they were sent"),
    ("faithful-params", "D2", "params reach the backend as they were sent, hop members aside"),
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
    """What certain fronts, in certain eras, cannot have, and why."""

    ids: str
    columns: tuple[str, ...]
    why: str


ABSENT: Final = (
    Absent(
        "discover ping-modern hints",
        HANDSHAKE,
        "2026-07-28, changelog: `server/discover`, `ttlMs` and `cacheScope` came, and `ping` went, with this revision.",
    ),
    Absent(
        "version-other initialize-first ping changes-before-initialized",
        MODERN,
        "2026-07-28, changelog: there is no `initialize`, no session and no `ping`; each request says its revision.",
    ),
    Absent(
        "initialize-first changes-before-initialized",
        ("HTTP",),
        "2025-11-25 basic/transports, Session Management: what comes without the `Mcp-Session-Id` that `initialize` "
        "gave is a 400, and nothing can be announced on a stream that only the session can open.",
    ),
    Absent(
        "listen listen-filter listen-closed",
        HANDSHAKE,
        "2026-07-28 basic/patterns/subscriptions: `subscriptions/listen` is of this revision; earlier clients have "
        "`resources/subscribe` and hear of lists without asking.",
    ),
    Absent(
        "subscribe subscribe-kept subscribe-refused changes-late changes-real",
        MODERN,
        "2026-07-28, changelog: `resources/subscribe` is gone, and nothing is sent that was not asked for: changes "
        "come on `subscriptions/listen`.",
    ),
    Absent(
        "log-level log-default",
        MODERN,
        "2026-07-28 server/utilities/logging: `logging/setLevel` is gone; each request carries the level it wants.",
    ),
    Absent("log-modern", HANDSHAKE, "2025-11-25 server/utilities/logging: the level is a session's, not a request's."),
    Absent(
        "tasks-run tasks-status tasks-ask tasks-bound",
        MODERN,
        "SEP-2663: the tasks of 2025-11-25 and those of the extension are not compatible: neither becomes the other.",
    ),
    Absent(
        "tasks-extension tasks-followed",
        HANDSHAKE,
        "SEP-2663: the tasks extension is of 2026-07-28; it is not told to clients of earlier revisions.",
    ),
    Absent(
        "url-complete elicited",
        MODERN,
        "2026-07-28, changelog: `notifications/elicitation/complete` and `elicitationId` are gone; clients ask again.",
    ),
    Absent(
        "roots-changed",
        MODERN,
        "2026-07-28, changelog: `notifications/roots/list_changed` is gone; roots are asked for when they are needed.",
    ),
    Absent(
        "ask-unknown ask-error ask-withdrawn ask-cancelled ask-left question-progress",
        MODERN,
        "2026-07-28 basic/patterns/mrtr: servers send no requests; a call ends with `input_required`, and its client "
        "comes back with the answers, or does not.",
    ),
    Absent(
        "ask-state ask-parked ask-untouched",
        HANDSHAKE,
        "2026-07-28 basic/patterns/mrtr: `requestState` is of this revision; earlier clients are asked meanwhile.",
    ),
    Absent(
        "cancel-modern-http",
        (*HANDSHAKE, "stdio 2026"),
        "2026-07-28 basic/transports: a closed stream is a cancellation over Streamable HTTP of this revision alone; "
        "elsewhere `notifications/cancelled` is.",
    ),
    Absent(
        "cancel-leaving",
        (*STDIO, "SSE", "HTTP 2026"),
        "2025-11-25 basic/transports: only Streamable HTTP answers on the request's own response, and from 2026-07-28 "
        "on hanging up is a cancellation.",
    ),
    Absent(
        "malformed-headers malformed-modern header-mismatch token",
        STDIO,
        "2025-11-25 basic/transports: stdio has neither headers nor statuses, and who starts a process is its client.",
    ),
    Absent(
        "malformed-modern header-mismatch",
        ("HTTP", "SSE"),
        "2026-07-28 basic/transports/streamable-http: requests repeat themselves in headers from this revision on.",
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
