"""The judges that let requests in, as the settings in force have them: the same for the long way and the short one."""

from typing import Final

from mcp_manifold.config import ManifoldSettings
from mcp_manifold.fronts.http.asgi import Refused
from mcp_manifold.fronts.http.auth import Tokens
from mcp_manifold.fronts.http.guard import Gate, Verdicts, accepts_both, is_json
from mcp_manifold.fronts.http.routes import Routes
from mcp_manifold.fronts.server import Head
from mcp_manifold.model.policy import Principal

_UNUSUAL: Final = frozenset({b"origin", b"content-encoding", b"transfer-encoding"})


class RequestValidator:
    """See the module; made anew when the settings are."""

    __slots__ = ("accepts", "gate", "is_json", "max_body", "max_calls", "routes", "tokens")

    def __init__(self, settings: ManifoldSettings) -> None:
        self.tokens = Tokens([(token.name, token.token.get_secret_value()) for token in settings.tokens])
        self.gate = Gate(
            settings.host,
            has_tokens=bool(settings.tokens),
            allowed_hosts=settings.allowed_hosts,
            allowed_origins=settings.allowed_origins,
        )
        self.routes = Routes(settings.base_path)
        self.is_json = Verdicts(is_json)
        self.accepts = Verdicts(accepts_both)
        self.max_body = settings.limits.max_body
        self.max_calls = settings.limits.max_calls_per_session

    def __repr__(self) -> str:
        return f"<RequestValidator {self.routes!r} {self.tokens!r}>"

    def admit(self, head: Head) -> tuple[Principal, str] | None:
        """Who sends a POST to which scope; None unless everything about it is as usual and as it should be."""
        headers = head.headers
        if len(headers) != len(head.lines) or not _UNUSUAL.isdisjoint(headers):
            return None
        route = self.routes.find(head.target)
        if route is None or route.kind != "mcp":
            return None
        is_fit = (
            self.gate.admits_host(headers.get(b"host", b""))
            and self.is_json(headers.get(b"content-type", b""))
            and self.accepts(headers.get(b"accept", b"*/*"))
        )
        try:
            return (self.tokens.principal(headers.get(b"authorization")), route.scope) if is_fit else None
        except Refused:
            return None
