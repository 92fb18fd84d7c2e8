"""Notifications between clients and backends, and the names that may belong to extensions."""

from typing import Any, cast

import pytest

from mcp_manifold.backends.fleet import Fleet
from mcp_manifold.backends.link.server_requests import ServerNotification, ServerRequest
from mcp_manifold.core.notifications import MAX_TOKENS, Notifications
from mcp_manifold.model.call import Session
from mcp_manifold.wire import EMPTY, Payload, encode
from tests.unit.backends.linking import raw, reply_of
from tests.unit.core.house import Client, House, server

pytestmark = pytest.mark.anyio


class Place:
    """One backend, one client, and the notifications between them."""

    def __init__(self) -> None:
        self.house = House(server("a"))
        self.backend = self.house.offers("a", lambda *_: None, tools=["t"])
        self.client = Client()
        fleet = cast("Fleet", self.house.fleet)
        self.elicited: Session | None = None
        self.notifications = Notifications(fleet, self.house.facts.extensions, elicited=lambda link, id_: self.elicited)

    def from_client(self, method: str, **params: object) -> None:
        self.notifications.from_client(self.client.session, method, raw(**params))

    def from_backend(self, method: str, **more: Any) -> None:
        self.notifications.from_backend(ServerNotification(self.backend.link, method, EMPTY, **more))

    def request(self, token: object) -> ServerRequest:
        """A server request of the client's call, with its progress token replaced."""
        inbox: Any = self.backend.link.handler
        request = ServerRequest(inbox, Payload(b"1"), "sampling/createMessage", None)
        request.replace_params(Payload(encode({"_meta": {"progressToken": token}})))
        request.detach(self.client.session)
        self.notifications.replace_token(request)
        return request


@pytest.mark.parametrize(
    ("method", "is_known"),
    [
        ("x/y", True), ("vendor.tool", True), ("notifications/x", True), ("", False), ("tools/x", False),
        ("Tools/x", False), (" tools/x", False), ("tasks/x", False), ("notifications/message", False),
        ("notifications/tools/x", False), ("notifications/cancelled", False),
    ],
)  # fmt: skip
async def test_names_below_those_of_the_protocol_are_never_an_extensions(method: str, is_known: bool) -> None:
    assert Place().house.facts.extensions.knows(method) is is_known


@pytest.mark.parametrize("is_alone", [True, False])
async def test_changed_roots_are_reported_only_to_links_of_that_client_alone(is_alone: bool) -> None:
    place = Place()
    place.house.dispatch(place.client.call(name="a__t"))
    if not is_alone:
        place.house.dispatch(Client().call(name="a__t"))
    place.from_client("notifications/roots/list_changed")
    assert len(place.backend.transport.notes) == is_alone


@pytest.mark.parametrize("method", ["notifications/x/y", "notifications/tools/x"])
async def test_an_extensions_notification_goes_to_its_backend(method: str) -> None:
    place = Place()
    place.from_client(method, a=1)
    expected = [{"jsonrpc": "2.0", "method": method, "params": {"a": 1}}] if "tools" not in method else []
    assert place.backend.transport.notes == expected


async def test_progress_on_a_server_request_is_reported_under_the_servers_token() -> None:
    place = Place()
    first, second = place.request("same"), place.request("same")
    assert (bytes(first.params or b""), bytes(second.params or b"")) == (
        b'{"_meta":{"progressToken":1}}', b'{"_meta":{"progressToken":2}}',
    )  # fmt: skip
    for token in (2, 7, "1", None):
        place.from_client("notifications/progress", progressToken=token, progress=1)
    second.withdraw()
    place.from_client("notifications/progress", progressToken=2, progress=1)
    assert [note["params"] for note in place.backend.transport.notes] == [{"progressToken": "same", "progress": 1}]
    for _ in range(MAX_TOKENS):
        place.request("more")
    place.from_client("notifications/progress", progressToken=1, progress=1)
    assert len(place.backend.transport.notes) == 1


async def test_an_extensions_notification_goes_to_its_call_or_else_to_its_client() -> None:
    place = Place()
    call = place.client.call()
    place.from_backend("notifications/x", call=call, session=call.session)
    assert len(reply_of(call).emitted) == 1
    place.from_backend("notifications/x", session=call.session)
    place.from_backend("notifications/x")
    place.from_backend("notifications/tools/x", session=call.session)
    assert [each["method"] for each in place.client.told] == ["notifications/x"]
