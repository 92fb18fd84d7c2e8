"""The test's view of a scripted backend: what it received, and its controls. Knows no transport."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import Any

from tests.peers.recorder import PeerRecorder, Received
from tests.peers.script import Offer, Script


class Face(ABC):
    """A running scripted backend."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.recorder = PeerRecorder(keeps=script.records)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.script.name} {self.recorder!r}>"

    @property
    def requests(self) -> list[Received]:
        """Every JSON-RPC request so far, raw and in order."""
        return self.recorder.of("request")

    @property
    def notifications(self) -> list[Received]:
        """Every notification so far."""
        return self.recorder.of("notification")

    @property
    def responses(self) -> list[Received]:
        """Every response to a request of the backend's own."""
        return self.recorder.of("response")

    @property
    def cancelled(self) -> list[Received]:
        """Every request cancelled in flight: its `id`, `method` and `params`; `raw` is the reason."""
        return self.recorder.of("cancelled")

    def calls(self, method: str) -> list[Received]:
        """The requests of one method."""
        return [item for item in self.requests if item.method == method]

    async def wait_for(self, what: str | Callable[[Received], bool], *, count: int = 1) -> Received:
        """The `count`-th thing ever received that is of that method or satisfies the predicate."""
        return await self.recorder.wait_for(what, count=count)

    async def wait_cancelled(self, *, count: int = 1) -> Received:
        """The `count`-th cancellation."""
        return await self.wait_for(lambda item: item.kind == "cancelled", count=count)

    async def release(self, gate: str = "") -> None:
        """Open a gate for good: acts that wait for it continue."""
        await self._order({"do": "release", "gate": gate})

    async def hold(self, gate: str = "") -> None:
        """Close a gate again."""
        await self._order({"do": "hold", "gate": gate})

    async def announce(self, method: str, params: str | None = None) -> None:
        """Send a notification on the standing streams (and the listens that asked for it)."""
        await self._order({"do": "announce", "method": method, "params": params})

    async def set_tools(self, offers: Iterable[Offer], *, times: int = 1) -> None:
        """Offer these tools from now on and announce the change (`times` times)."""
        await self.set_offers("tools", offers, times=times)

    async def set_offers(self, kind: str, offers: Iterable[Offer], *, times: int = 1) -> None:
        """The same for `tools`, `resources`, `templates` or `prompts`."""
        await self._order({"do": "set_offers", "kind": kind, "offers": tuple(offers), "times": times})

    async def end_listens(self) -> None:
        """End every `subscriptions/listen` with its result."""
        await self._order({"do": "end_listens"})

    @abstractmethod
    async def _order(self, order: dict[str, Any]) -> None: ...
