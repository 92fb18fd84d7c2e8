"""The SDK's functions, imported on first use: a front that answers from the catalogue never needs them."""

from collections.abc import Mapping, Sequence

import anyio
import anyio.to_thread

from mcp_manifold.backends.link.link import Link
from mcp_manifold.backends.link.negotiation import Greet, Identity, Negotiation, Parameters, import_lazily
from mcp_manifold.clock import Clock
from mcp_manifold.fronts.http.checks import ParamCheck, ParamRejection
from mcp_manifold.wire import Era
from mcp_manifold.wire.param_headers import ParameterHeaders


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
        """See `negotiation.Greet`."""
        if self._greet is None:
            async with self._importing:  # servers that start together use one thread, not one each
                self._greet = await anyio.to_thread.run_sync(_sdk_greet)
        return await self._greet(link, eras=eras, identity=identity, timeout=timeout, clock=clock)


def header_parameters(
    backend: str, tools: Sequence[bytes], *, mirrored: bool
) -> tuple[tuple[bytes, ...], ParameterHeaders | None]:
    """See `negotiation.Parameters`."""
    if not any(b"x-mcp-header" in tool for tool in tools):
        return tuple(tools), None
    return _sdk_parameters()(backend, tools, mirrored=mirrored)


def check_params(schema: object, arguments: Mapping[str, object], headers: Mapping[str, str]) -> ParamRejection | None:
    """See `checks.ParamCheck`."""
    return _sdk_param_check()(schema, arguments, headers)


def _sdk_greet() -> Greet:
    import_lazily("mcp", "mcp.client")
    from mcp_manifold.backends.link.sdk import greet  # noqa: PLC0415 - the SDK takes 0.3 s to import

    return greet


def _sdk_parameters() -> Parameters:
    import_lazily("mcp", "mcp.client")
    from mcp_manifold.backends.link.sdk import parameters  # noqa: PLC0415 - as above

    return parameters


def _sdk_param_check() -> ParamCheck:
    import_lazily("mcp", "mcp.client")
    from mcp_manifold.backends.link.sdk import validate_mcp_param_headers  # noqa: PLC0415 - as above

    return validate_mcp_param_headers
