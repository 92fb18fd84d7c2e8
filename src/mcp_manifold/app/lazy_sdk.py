"""The SDK's functions, imported on first use: a front that answers from the catalogue never needs them."""

from collections.abc import Mapping, Sequence
from typing import Final

import anyio
import anyio.to_thread

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Greet, Identity, Negotiation, import_lazily
from mcp_manifold.clock import Clock
from mcp_manifold.fronts.checks import ParamRejection
from mcp_manifold.wire import Era
from mcp_manifold.wire.param_headers import ParameterHeaders

_PACKAGES: Final = ("mcp", "mcp.client")
"""SDK packages whose `__init__` is not needed."""


class LazyNegotiator:
    """Negotiates with servers through the SDK. The first one imports it in a thread, so the event loop never waits."""

    def __init__(self) -> None:
        self._greet: Greet | None = None
        self._importing = anyio.Lock()

    def __repr__(self) -> str:
        return f"<LazyNegotiator {'imported' if self._greet else 'not imported'}>"

    async def greet(
        self, link: Link, *, eras: tuple[Era, ...], identity: Identity, timeout: float, clock: Clock
    ) -> Negotiation:
        """Open a session over the link; the first call imports the SDK."""
        if self._greet is None:
            async with self._importing:  # servers that start together use one thread, not one each
                self._greet = await anyio.to_thread.run_sync(_import_greet)
        return await self._greet(link, eras=eras, identity=identity, timeout=timeout, clock=clock)


def header_parameters(
    backend: str, tools: Sequence[bytes], *, mirrored: bool
) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
    """The usable tools, and the headers that mirror their arguments; imports the SDK if a tool has any."""
    if not any(b"x-mcp-header" in tool for tool in tools):
        return tuple(tools), None
    import_lazily(*_PACKAGES)
    from mcp_manifold.backends.link.sdk import parameters  # noqa: PLC0415 - the SDK takes 0.3 s to import

    return parameters(backend, tools, mirrored=mirrored)


def check_param_headers(
    schema: object, arguments: Mapping[str, object], headers: Mapping[str, str]
) -> ParamRejection | None:
    """The reason why the headers do not mirror the tool's arguments; None if they do."""
    import_lazily(*_PACKAGES)
    from mcp_manifold.backends.link.sdk import validate_mcp_param_headers  # noqa: PLC0415 - as above

    return validate_mcp_param_headers(schema, arguments, headers)


def _import_greet() -> Greet:
    import_lazily(*_PACKAGES)
    from mcp_manifold.backends.link.sdk import greet  # noqa: PLC0415 - as above

    return greet
