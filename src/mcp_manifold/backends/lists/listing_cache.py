"""The listing cache: each server's last Listing on disk, read at start and written after each listing.

Owns the file format. A file begins with a version and a digest, so that damaged files and other versions are detected
and ignored. It holds the server's data byte for byte, and no configuration: the file name is a hash of that.
"""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

import anyio.to_thread
import msgspec

from mcp_manifold.backends.link.negotiation import Negotiation, TransportKind
from mcp_manifold.clock import Clock
from mcp_manifold.config import ServerSettings
from mcp_manifold.config.compare import fingerprint
from mcp_manifold.config.state_directory import StateDirectory
from mcp_manifold.model.catalogue import Fault, Hint, Listing
from mcp_manifold.wire import Payload

logger = logging.getLogger(__name__)

_MAGIC: Final = b"mcp-manifold listing "
_HEAD: Final = _MAGIC + b"2\n"
_DIGEST: Final = 32
_SUFFIX: Final = ".listing"
LISTING_KEPT: Final = 90 * 86400
"""Seconds after which the file of a server that is no longer listed is deleted."""


class _Entries(msgspec.Struct):
    """The content of a file."""

    at: float
    """Time of the listing, in seconds since the epoch."""
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
    """Method to whether its cache scope is public. Lifetimes are not kept: they are over when the file is read."""
    faults: tuple[Fault, ...]


_decode = msgspec.msgpack.Decoder(_Entries).decode
_encode = msgspec.msgpack.Encoder().encode


@dataclass(frozen=True, slots=True)
class CachedListing:
    """A server's Listing and negotiation from an earlier run."""

    kind: TransportKind
    greeting: Negotiation
    listing: Listing
    age: float
    """Seconds since the listing."""


class ListingCache:
    """The Listings on disk. Failures are only logged, once, because the cache merely speeds up the start."""

    def __init__(self, directory: StateDirectory, clock: Clock) -> None:
        self._directory = directory
        self._clock = clock
        self._written: dict[str, bytes] = {}
        self._failed = ""
        self._is_tidy = False

    def __repr__(self) -> str:
        return f"<ListingCache {self._directory!r} written={len(self._written)}>"

    def recall(self, server: ServerSettings) -> CachedListing | None:
        """The cached Listing of a server. Any process with this state directory may have written it."""
        try:
            data = self._directory.get(_name_of(server))
            return None if data is None else _recalled(server.name, _entries_in(data), self._now())
        except (OSError, _Unusable) as exc:
            logger.warning("cached listing ignored: %s", exc, extra={"backend": server.name})
            return None

    async def keep(
        self, server: ServerSettings, listing: Listing, negotiation: Negotiation, kind: TransportKind
    ) -> None:
        """Write a Listing, unless the file already holds the same one."""
        name, content = _name_of(server), _content(listing, negotiation, kind)
        known = self._written.get(name, b"")
        try:
            self._written[name] = await anyio.to_thread.run_sync(
                self._write, name, content, known, abandon_on_cancel=True
            )
            await self._tidy()
        except OSError as exc:
            level = logging.DEBUG if str(exc) == self._failed else logging.WARNING
            self._failed = str(exc)
            logger.log(level, "listing cache cannot be written: %s", exc)

    def _write(self, name: str, content: _Entries, known: bytes) -> bytes:
        """Write the file unless its digest is `known`; returns the digest. In a thread: disks can be slow."""
        digest = hashlib.sha256(_encode(content)).digest()
        if digest != known:
            content.at = self._now()
            self._directory.put(name, _file_of(content))
        return digest

    async def _tidy(self) -> None:
        """Delete old files, once per run."""
        if self._is_tidy:
            return
        self._is_tidy, before = True, self._now() - LISTING_KEPT
        await anyio.to_thread.run_sync(lambda: self._directory.tidy(_SUFFIX, before=before), abandon_on_cancel=True)

    def _now(self) -> float:
        """Seconds since the epoch; any thread may ask."""
        return self._clock.wall().timestamp()


class _Unusable(Exception):
    """The file cannot be used; the message says why."""


def _name_of(server: ServerSettings) -> str:
    return fingerprint(server) + _SUFFIX


def _content(listing: Listing, negotiation: Negotiation, kind: TransportKind) -> _Entries:
    return _Entries(
        at=0.0,
        kind=kind,
        era=listing.era,
        version=negotiation.version,
        capabilities=listing.capabilities,
        server_info=listing.server_info,
        instructions=listing.instructions,
        tools=listing.tools,
        prompts=listing.prompts,
        resources=listing.resources,
        templates=listing.templates,
        is_public={method: hint.is_public for method, hint in listing.hints.items()},
        faults=listing.faults,
    )


def _file_of(content: _Entries) -> bytes:
    body = _encode(content)
    return _HEAD + hashlib.sha256(body).digest() + body


def _entries_in(data: bytes) -> _Entries:
    """Read the content of a file.

    Raises:
        _Unusable: it is damaged, or has another version.
    """
    if not data.startswith(_HEAD):
        raise _Unusable("the file has another version" if data.startswith(_MAGIC) else "the file is not a listing")
    digest, body = data[len(_HEAD) : len(_HEAD) + _DIGEST], data[len(_HEAD) + _DIGEST :]
    if hashlib.sha256(body).digest() != digest:
        raise _Unusable("the file is damaged")
    try:
        return _decode(body)
    except msgspec.DecodeError as exc:
        raise _Unusable(f"the file cannot be read: {exc}") from exc


def _recalled(backend: str, found: _Entries, now: float) -> CachedListing:
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
        faults=found.faults,
    )
    negotiation = Negotiation(
        era=found.era,
        version=found.version,
        capabilities=Payload(found.capabilities),
        server_info=Payload(found.server_info),
        instructions=found.instructions,
        hint=hints.get("server/discover"),
    )
    return CachedListing(found.kind, negotiation, listing, max(0.0, now - found.at))
