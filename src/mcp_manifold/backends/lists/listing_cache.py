"""What servers offered last time, kept on disk: read when the program starts, written each time one has listed.

Owns the form of a file, which begins with its version and a digest, so that what is damaged, or of another version, is
recognised and left alone. It holds what the server said, byte for byte, and nothing of the configuration: the file's
name is a hash of that.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final, Literal

import anyio.to_thread
import msgspec

from mcp_manifold.backends.link.connect import Kind
from mcp_manifold.backends.link.negotiation import Negotiation
from mcp_manifold.config import ServerSettings
from mcp_manifold.config.compare import fingerprint
from mcp_manifold.config.state_directory import StateDirectory
from mcp_manifold.model.catalogue import Hint, Listing
from mcp_manifold.wire import Payload

logger = logging.getLogger(__name__)

_MAGIC: Final = b"mcp-manifold listing "
_HEAD: Final = _MAGIC + b"1\n"
_DIGEST: Final = 32
_SUFFIX: Final = ".listing"
KEPT: Final = 90 * 86400
"""Seconds after which the entries of a server that nobody configured any more are forgotten."""


class _Entries(msgspec.Struct):
    """The content of a file."""

    at: float
    """When it was listed, in seconds since the epoch."""
    kind: Literal["stdio", "http", "sse"]
    era: Literal["handshake", "modern"]
    version: str
    capabilities: bytes
    server_info: bytes
    instructions: str
    tools: tuple[bytes, ...]
    prompts: tuple[bytes, ...]
    resources: tuple[bytes, ...]
    templates: tuple[bytes, ...]
    is_public: dict[str, bool]
    """By method: whether the answer may be kept by everybody. For how long is over by the time it is read again."""


_decode = msgspec.msgpack.Decoder(_Entries).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class CachedListing:
    """What is known of a server from an earlier time."""

    kind: Kind
    greeting: Negotiation
    listing: Listing
    age: float
    """Seconds since it was listed."""


class ListingCache:
    """See the module. What goes wrong is logged, once, and nothing more: without memory everything works, later."""

    def __init__(self, shelf: StateDirectory) -> None:
        self._shelf = shelf
        self._written: dict[str, bytes] = {}
        self._failed = ""
        self._is_tidy = False

    def __repr__(self) -> str:
        return f"<ListingCache {self._shelf!r} written={len(self._written)}>"

    def recall(self, server: ServerSettings) -> CachedListing | None:
        """What this server offered when it was last listed, by whoever keeps their memory here."""
        try:
            data = self._shelf.get(_name_of(server))
            return None if data is None else _recalled(server.name, _entries_in(data))
        except (OSError, _Unusable) as exc:
            logger.warning("what it offered last time is ignored: %s", exc, extra={"backend": server.name})
            return None

    async def keep(self, server: ServerSettings, listing: Listing, greeting: Negotiation, kind: Kind) -> None:
        """Remember this; what is known already costs nothing."""
        name, content = _name_of(server), _content(listing, greeting, kind)
        known = self._written.get(name, b"")
        try:
            self._written[name] = await anyio.to_thread.run_sync(
                self._write, name, content, known, abandon_on_cancel=True
            )
            await self._tidy()
        except OSError as exc:
            level = logging.DEBUG if str(exc) == self._failed else logging.WARNING
            self._failed = str(exc)
            logger.log(level, "what servers offer is not kept for the next start: %s", exc)

    def _write(self, name: str, content: _Entries, known: bytes) -> bytes:
        """Write a file unless its digest is `known`; the digest. In a thread: a listing may be large, a disk slow."""
        digest = hashlib.sha256(_encode(content)).digest()
        if digest != known:
            content.at = _now()
            self._shelf.put(name, _file_of(content))
        return digest

    async def _tidy(self) -> None:
        """Forget servers that were not listed for a long time; once is enough."""
        if self._is_tidy:
            return
        self._is_tidy, before = True, _now() - KEPT
        await anyio.to_thread.run_sync(lambda: self._shelf.tidy(_SUFFIX, before=before), abandon_on_cancel=True)


class _Unusable(Exception):
    """A file that is not one of ours; says why."""


def _name_of(server: ServerSettings) -> str:
    return fingerprint(server) + _SUFFIX


def _now() -> float:
    return datetime.now(UTC).timestamp()


def _content(listing: Listing, greeting: Negotiation, kind: Kind) -> _Entries:
    return _Entries(
        at=0.0,
        kind=kind,
        era=listing.era,
        version=greeting.version,
        capabilities=listing.capabilities,
        server_info=listing.server_info,
        instructions=listing.instructions,
        tools=listing.tools,
        prompts=listing.prompts,
        resources=listing.resources,
        templates=listing.templates,
        is_public={method: hint.is_public for method, hint in listing.hints.items()},
    )


def _file_of(content: _Entries) -> bytes:
    body = _encode(content)
    return _HEAD + hashlib.sha256(body).digest() + body


def _entries_in(data: bytes) -> _Entries:
    """The content of a file.

    Raises:
        _Unusable: it is damaged, or of another version.
    """
    if not data.startswith(_HEAD):
        raise _Unusable("its file is of another version" if data.startswith(_MAGIC) else "its file is not one of ours")
    digest, body = data[len(_HEAD) : len(_HEAD) + _DIGEST], data[len(_HEAD) + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise _Unusable("its file is damaged")
    try:
        return _decode(body)
    except msgspec.DecodeError as exc:
        raise _Unusable(f"its file cannot be read: {exc}") from exc


def _recalled(backend: str, found: _Entries) -> CachedListing:
    hints: Mapping[str, Hint] = {method: Hint(0, public, 0.0) for method, public in found.is_public.items()}
    listing = Listing(
        backend=backend,
        revision=0,
        era=found.era,
        tools=found.tools,
        prompts=found.prompts,
        resources=found.resources,
        templates=found.templates,
        capabilities=found.capabilities,
        instructions=found.instructions,
        server_info=found.server_info,
        hints=hints,
    )
    greeting = Negotiation(
        era=found.era,
        version=found.version,
        capabilities=Payload(found.capabilities),
        server_info=Payload(found.server_info),
        instructions=found.instructions,
        hint=hints.get("server/discover"),
    )
    return CachedListing(found.kind, greeting, listing, max(0.0, _now() - found.at))
