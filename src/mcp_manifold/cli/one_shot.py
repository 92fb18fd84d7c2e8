"""One request to a Manifold that was opened for it: opened, waited for, asked, closed. Knows no output."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

from mcp_manifold.cli import statuses
from mcp_manifold.cli.exits import Failed, did_you_mean
from mcp_manifold.cli.opening import Endpoint
from mcp_manifold.cli.running import run
from mcp_manifold.errors import UnknownItem

T = TypeVar("T")
Lister = Callable[[Endpoint], Awaitable[list[dict[str, Any]]]]


def ask(manifold: Endpoint, question: Callable[[Endpoint], Awaitable[T]]) -> T:
    """The answer to `question`, once every server was tried."""

    async def asked() -> T:
        async with manifold:
            await manifold.settle()
            return await question(manifold)

    return run(asked())


async def or_suggest(manifold: Endpoint, answer: Awaitable[T], *, listers: Sequence[tuple[Lister, str]]) -> T:
    """The answer; where the item asked for is unknown, an error that says what is there.

    Raises:
        Failed: nothing of that name is visible.
    """
    try:
        return await answer
    except UnknownItem as exc:
        known = [str(item.get(key, "")) for lister, key in listers for item in await lister(manifold)]
        missing = [statuses.outcome(status) for status in manifold.status() if not statuses.is_fine(status)]
        hint = did_you_mean(exc.name, known) or f" See: mcp-manifold list --{exc.kind}s"
        raise Failed("\n".join([f"{exc}.{hint}", *missing])) from exc
