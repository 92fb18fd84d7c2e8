"""Rewrites the `_meta` of requests for one link: this hop's stamp in the modern era, and its own progress tokens.

A 2026-07-28 client repeats the same `_meta` in every request, so the rewritten form of one without a progress token is
remembered by its text. Pure.
"""

from typing import Final

from mcp_manifold import wire
from mcp_manifold.bounded_cache import BoundedCache
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import DEFAULT_LOG_LEVEL, META_CAPABILITIES, META_LOG_LEVEL

MAX_REMEMBERED: Final = 16
"""Texts remembered for one link: one for each client that calls at the same time."""
MAX_TEXT: Final = 2048
"""Bytes of a text beyond which it is not remembered."""


class MetaRewriter:
    """Rewrites the `_meta` of the requests that one link sends."""

    __slots__ = ("_remembered", "_stamp", "era", "has_logging", "is_plain")

    def __init__(self) -> None:
        self._stamp: dict[str, Payload] | None = None
        self._remembered: BoundedCache[bytes, Payload] = BoundedCache(MAX_REMEMBERED)
        self.era: wire.Era = "handshake"
        self.is_plain = True
        """Whether params without `_meta` are sent unchanged."""
        self.has_logging = False
        """Whether the backend sends log messages to clients that ask for them."""

    def __repr__(self) -> str:
        return f"<MetaRewriter {self.era} remembered={len(self._remembered)}>"

    def adopt(self, stamp: dict[str, Payload] | None) -> None:
        """Speak the modern era, with `stamp` in every request. With None, speak the handshake era."""
        self._stamp = stamp
        self._remembered.clear()
        self.era = "handshake" if stamp is None else "modern"
        self.is_plain = stamp is None

    def adopt_logging(self, has_logging: bool) -> None:
        """Note whether the backend offers logging."""
        self.has_logging = has_logging

    def rewrite(
        self, params: dict[str, Payload], number: int, call: Call | None
    ) -> tuple[bytes | None, Payload | None]:
        """The params as this link sends them (None if empty), and the progress token that the client gave.

        Args:
            number: the request's id, which is its progress token on this link.
            call: the client's request behind it.
        """
        meta = params.get("_meta")
        if meta is None or call is None:
            return wire.hop_params(params, token=number, stamp=self._stamp_for(call)), None
        text = bytes(meta)
        known = self._remembered.get(text)
        if known is not None and self._depends_on_text_alone(call.session):
            return wire.encode({**params, "_meta": known}), None
        found = wire.object_members(meta)
        token = found.get("progressToken")
        rewritten = wire.hop_meta(found, token=number, stamp=self._stamp_for(call))
        if token is None and self._depends_on_text_alone(call.session) and len(text) <= MAX_TEXT:
            self._remembered.put(text, rewritten)
        return wire.encode({**params, "_meta": rewritten}), token

    def _depends_on_text_alone(self, session: Session) -> bool:
        """Whether the session's earlier messages have no part in the rewritten form."""
        return self._stamp is None or session.era == "modern"

    def _stamp_for(self, call: Call | None) -> dict[str, Payload] | None:
        """The stamp with this client's capabilities: a backend must not ask for what the client cannot answer."""
        stamp = self._stamp
        if stamp is None or call is None:
            return stamp
        session = call.session
        found = {**stamp, META_CAPABILITIES: session.relayable("modern")}
        level = session.log_level
        if not level and self.has_logging and session.era == "handshake":
            level = DEFAULT_LOG_LEVEL
        if level:
            found[META_LOG_LEVEL] = Payload(wire.encode(level))
        return found
