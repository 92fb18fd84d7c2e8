"""What one link writes into the `_meta` of requests: its own stamp in the modern era, and progress tokens of its own.

A 2026-07-28 client says the same of itself in every request, byte for byte; so what becomes of a `_meta` without a
progress token is remembered by its text. Pure.
"""

from collections.abc import Mapping
from typing import Final

from mcp_manifold import wire
from mcp_manifold.model.call import Call, Session
from mcp_manifold.wire import Payload
from mcp_manifold.wire.protocol import DEFAULT_LOG_LEVEL, META_CAPABILITIES, META_LOG_LEVEL

MOST_KNOWN: Final = 16
"""Texts that are remembered for one link: as many as there are different clients at a time, usually fewer."""
LONGEST_KNOWN: Final = 2048
"""Bytes of a text beyond which it is not."""


class MetaRewriter:
    """See the module."""

    __slots__ = ("_known", "_stamp", "era", "has_logging")

    def __init__(self) -> None:
        self._stamp: dict[str, Payload] | None = None
        self._known: dict[bytes, Payload] = {}
        self.era: wire.Era = "handshake"
        """The era the link speaks."""
        self.has_logging = False
        """Whether the backend sends log messages to who asks for them."""

    def __repr__(self) -> str:
        return f"<MetaRewriter {self.era} known={len(self._known)}>"

    def adopt(self, stamp: dict[str, Payload] | None) -> None:
        """Speak the modern era from now on, every request carrying `stamp`; None: the handshake era."""
        self._stamp = stamp
        self._known = {}
        self.era = "handshake" if stamp is None else "modern"

    def put(self, params: dict[str, Payload], number: int, call: Call | None) -> tuple[bytes | None, Payload | None]:
        """The params of a request as this link sends them, and the progress token its caller gave it.

        Args:
            number: the request's id, which is its token here.
            call: the client's request behind it.
        """
        meta = params.get("_meta")
        if meta is None or call is None:
            return wire.hop_params(params, token=number, stamp=self._stamp_for(call)), None
        written = bytes(meta)
        known = self._known.get(written)
        if known is not None and self._is_all(call.session):
            return wire.encode({**params, "_meta": known}), None
        found = wire.client_meta(meta)
        token = found.get("progressToken")
        put = wire.hop_meta(found, token=number, stamp=self._stamp_for(call))
        if token is None and self._is_all(call.session) and len(written) <= LONGEST_KNOWN:
            if len(self._known) >= MOST_KNOWN:
                self._known.clear()
            self._known[written] = put
        return wire.encode({**params, "_meta": put}), token

    def _is_all(self, session: Session) -> bool:
        """Whether a request's `_meta` decides alone what becomes of it, and nothing its session said before."""
        return self._stamp is None or session.era == "modern"

    def _stamp_for(self, call: Call | None) -> dict[str, Payload] | None:
        """Our stamp with what this client can do: the backend must not ask for what nobody can answer."""
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


def token_of(params: Mapping[str, Payload]) -> Payload | None:
    """The progress token a request carries."""
    meta = params.get("_meta")
    return None if meta is None else wire.client_meta(meta).get("progressToken")
