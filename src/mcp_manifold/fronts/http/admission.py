"""Admission of requests by their heads: the principal, the endpoint and the session, or the reason of a refusal.

All entry points use the same decision. A connection caches it with the head: a request with an identical head is not
checked again until the settings change or its session ends.
"""

from collections.abc import Callable
from typing import Final

from mcp_manifold.config import ManifoldSettings
from mcp_manifold.fronts.checks import (
    METHOD_HEADER,
    NAME_HEADER,
    VERSION_HEADER,
    Headers,
    is_single,
    log_level,
    repeated,
    require_known,
    require_modern,
    serves_handshake,
)
from mcp_manifold.fronts.http.guard import AcceptedForms, Gate, HeaderCheck, Tokens, accepted_forms, is_json
from mcp_manifold.fronts.http.routes import EndpointRoute, EndpointRoutes
from mcp_manifold.fronts.http_errors import HttpError, Refused
from mcp_manifold.fronts.sessions import OpenSession, Sessions
from mcp_manifold.http1.head import Head, Line
from mcp_manifold.model.call import Session
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import MODERN_VERSION, NULL_ID, Payload

SESSION_HEADER: Final = b"mcp-session-id"
_PROBES: Final = (b"/_healthz", b"/_readyz")
_OAUTH: Final = (b"/register", b"/authorize", b"/token")
"""Paths that clients try where they look for OAuth. 401 would tell them to go on looking; there is none, so 404."""
_WELL_KNOWN: Final = b"/.well-known/"
_CORS_HEADERS: Final = frozenset(
    {"accept", "authorization", "content-type", "last-event-id", "mcp-method", "mcp-name", "mcp-protocol-version",
     "mcp-session-id"}
)  # fmt: skip
_CORS_EXPOSED: Final = (b"access-control-expose-headers", b"Mcp-Session-Id, WWW-Authenticate, Retry-After")
_VARY: Final = (b"vary", b"Origin")
_MAX_CONTEXT: Final = 8192
"""Bytes of a client's description and a request's name beyond which they are not cached with the head."""


class ClientContext:
    """The client of a 2026-07-28 request as its `_meta` describes it, checked against the HTTP head.

    Raises:
        RequestError: the headers and the body differ (see `checks.require_modern`).
    """

    __slots__ = ("_capabilities", "_info", "_level", "_meta", "_method", "_name")

    def __init__(self, method: str, params: dict[str, Payload], headers: Headers) -> None:
        require_known(params, headers)
        info, capabilities = require_modern(method, params, headers)
        self._method = method
        self._level = log_level(params)
        self._meta, self._name = bytes(params["_meta"]), _named(params)
        # Copies: a slice would keep the whole body of this request in memory.
        self._info, self._capabilities = Payload(bytes(info)), Payload(bytes(capabilities))

    def __repr__(self) -> str:
        return f"<ClientContext {self._method}>"

    def session(self, principal: Principal, scope: str) -> Session:
        """A new session for one request of this client."""
        return Session("", principal, scope, MODERN_VERSION, self._info, self._capabilities, log_level=self._level)

    @property
    def is_small(self) -> bool:
        """Whether this object may be cached: a connection caches several."""
        return len(self._meta) + sum(map(len, self._name)) <= _MAX_CONTEXT

    def holds(self, method: str, params: dict[str, Payload]) -> bool:
        """Whether another request has the same method, `_meta`, and name, URI or task id, byte for byte."""
        return (
            method == self._method
            and bytes(params.get("_meta", NULL_ID)) == self._meta
            and _named(params) == self._name
        )


def _named(params: dict[str, Payload]) -> tuple[bytes, ...]:
    """The members that `Mcp-Name` may mirror (2026-07-28 basic/transports/streamable-http)."""
    return tuple(bytes(params.get(key, NULL_ID)) for key in ("name", "uri", "taskId"))


class AdmissionDecision:
    """The result of checking a request's head. `refusal` is None if the request is admitted.

    A cached decision is valid until the validator is replaced. Its `session` may have ended.
    """

    __slots__ = (
        "accepted", "context", "cors", "has_mirrors", "is_modern", "named", "principal", "refusal", "route",
        "session", "session_refusal", "speaks_handshake",
        "validator",
    )  # fmt: skip

    def __init__(self, validator: "RequestValidator") -> None:
        self.validator = validator
        self.refusal: Refused | None = None
        self.cors: tuple[Line, ...] = ()
        """The CORS header lines of the response."""
        self.route: EndpointRoute | None = None
        """The MCP endpoint; None for other paths."""
        self.principal: Principal = ANONYMOUS
        self.accepted = AcceptedForms(json=True, events=True)
        """The forms that the Accept header takes."""
        self.is_modern = False
        """The version header names a revision outside the handshake era."""
        self.speaks_handshake = False
        """The version header names a revision of the handshake era."""
        self.has_mirrors = False
        """The request has headers that mirror its body, or repeated ones. They are optional in the handshake era."""
        self.named = False
        """The request has a session id."""
        self.session: OpenSession | None = None
        """The session of that id, if it belongs to the caller."""
        self.session_refusal: Refused | None = None
        """The reason why there is no session. It applies only if the message needs one."""
        self.context: ClientContext | None = None
        """Cached from the last 2026-07-28 request with this head."""

    def __repr__(self) -> str:
        state = "refused" if self.refusal else "other path" if self.route is None else f"scope={self.route.scope!r}"
        return f"<AdmissionDecision {state}>"

    def require_session(self) -> OpenSession:
        """The session that a GET or DELETE names.

        Raises:
            Refused: 404 for an unknown session id; without an id, 400 in the handshake era and 405 otherwise.
        """
        if self.session is not None:
            self.session.touch()
            return self.session
        if self.named:
            raise self.session_refusal or Refused(HttpError.UNKNOWN_SESSION)
        raise Refused(HttpError.NO_SESSION_HEADER if self.speaks_handshake else HttpError.POST_ONLY)

    def client(self, method: str, params: dict[str, Payload], headers: Headers) -> ClientContext:
        """The client of a 2026-07-28 request, cached from the last request if that had the same client."""
        context = self.context
        if context is None or not context.holds(method, params):
            context = ClientContext(method, params, headers)
            self.context = context if context.is_small else None
        return context


class RequestValidator:
    """Checks the heads of requests against the settings. A reload replaces it.

    Args:
        has_scope: tells whether an endpoint's scope exists.
    """

    def __init__(self, settings: ManifoldSettings, sessions: Sessions, has_scope: Callable[[str], bool]) -> None:
        self.tokens = Tokens([(token.name, token.token.get_secret_value()) for token in settings.tokens])
        self.routes = EndpointRoutes(settings.base_path)
        self.max_body = settings.limits.max_body
        self.max_calls = settings.limits.max_calls_per_session
        self.max_streams = settings.limits.max_streams
        self._gate = Gate(
            settings.host,
            has_tokens=bool(settings.tokens),
            allowed_hosts=settings.allowed_hosts,
            allowed_origins=settings.allowed_origins,
        )
        self._is_json = HeaderCheck(is_json)
        self._accepts = HeaderCheck(accepted_forms)
        base = settings.base_path.rstrip("/").encode()
        self._probes = frozenset(base + path for path in _PROBES)
        self._open_paths = self._probes | {base + path for path in _OAUTH} | set(_OAUTH)
        self._sessions = sessions
        self._has_scope = has_scope

    def __repr__(self) -> str:
        return f"<RequestValidator {self.routes!r} {self.tokens!r}>"

    def admit(self, head: Head) -> AdmissionDecision:
        """The decision on a head. A refusal is part of the decision; nothing is raised."""
        decision = AdmissionDecision(self)
        try:
            self._check(head, decision)
        except Refused as refused:
            decision.refusal = refused.bare()
        return decision

    def _check(self, head: Head, decision: AdmissionDecision) -> None:
        headers = head.headers
        if len(headers) != len(head.lines):
            _require_single(head)
        path = head.target.partition(b"?")[0]
        self._gate.check(headers, is_any_host=path in self._probes)
        if b"origin" in headers:
            decision.cors = ((b"access-control-allow-origin", headers[b"origin"]), _VARY, _CORS_EXPOSED)
        route = decision.route = self.routes.find(path)
        if route is None:
            if path not in self._open_paths and _WELL_KNOWN not in path:
                self.tokens.principal(headers.get(b"authorization"))
            return
        method = head.method.decode("latin-1")
        if method not in route.methods:
            raise Refused(HttpError.METHOD_NOT_ALLOWED, headers=(allow(route),))
        if method == "OPTIONS":
            return
        decision.principal = self.tokens.principal(headers.get(b"authorization"))
        if route.scope and not self._has_scope(route.scope):
            raise Refused(HttpError.UNKNOWN_SCOPE)
        decision.accepted = self._accepts(b", ".join([value for name, value in head.lines if name == b"accept"]))
        if method == "POST":
            self._check_media_types(headers, route, decision.accepted)
        if route.kind == "mcp":
            decision.has_mirrors = METHOD_HEADER in headers or NAME_HEADER in headers or len(headers) != len(head.lines)
            self._find_session(headers, route, decision)

    def _check_media_types(self, headers: Headers, route: EndpointRoute, accepted: AcceptedForms) -> None:
        if not self._is_json(headers.get(b"content-type", b"")):
            raise Refused(HttpError.NOT_JSON)
        if b"content-encoding" in headers:
            raise Refused(HttpError.ENCODED_BODY)
        if route.kind == "mcp" and not any(accepted):
            raise Refused(HttpError.NO_COMMON_FORM)

    def _find_session(self, headers: Headers, route: EndpointRoute, decision: AdmissionDecision) -> None:
        version, named = headers.get(VERSION_HEADER), headers.get(SESSION_HEADER)
        decision.is_modern = version is not None and not serves_handshake(version)
        decision.speaks_handshake = version is not None and not decision.is_modern
        decision.named = named is not None
        if decision.is_modern:
            decision.session_refusal = Refused(HttpError.UNKNOWN_VERSION)
        elif named is None:
            decision.session_refusal = Refused(HttpError.NOT_INITIALIZED)
        else:
            try:
                decision.session = self._sessions.find(named, "mcp", decision.principal, route.scope)
            except Refused as refused:
                decision.session_refusal = refused.bare()


def _require_single(head: Head) -> None:
    twice = repeated(head.lines, is_single)
    if twice is not None:
        gives_access = twice in ("host", "origin")
        raise Refused(HttpError.REPEATED_ORIGIN if gives_access else HttpError.REPEATED_HEADER, header=twice)


def allow(route: EndpointRoute) -> Line:
    """The value of an endpoint's `Allow` header."""
    return (b"allow", ", ".join(sorted(route.methods)).encode())


def preflight(route: EndpointRoute, headers: Headers) -> list[Line]:
    """The header lines that answer OPTIONS. The request's Origin was checked before."""
    if b"origin" not in headers:
        return [allow(route)]
    asked = headers.get(b"access-control-request-headers", b"").decode("latin-1").lower().split(",")
    granted = [name for part in asked if (name := part.strip()) in _CORS_HEADERS or _is_param(name)]
    return [
        (b"access-control-allow-methods", allow(route)[1]),
        (b"access-control-allow-headers", ", ".join(granted).encode()),
        (b"access-control-max-age", b"600"),
    ]


def _is_param(name: str) -> bool:
    return name.startswith("mcp-param-") and name.replace("-", "").isalnum() and name.isascii()
