"""A server's requests: each answered or withdrawn once, sent to the right client, and pausing the right deadlines."""

import json

import pytest

from mcp_manifold.backends.link.monitors import FLOOD, LOGGED, InvalidMessageMonitor
from mcp_manifold.backends.link.server_requests import MAX_OPEN_REQUESTS, ServerRequest
from mcp_manifold.errors import BackendLost, BackendTimeout, CallCancelled
from mcp_manifold.model.policy import ANONYMOUS, Principal
from mcp_manifold.wire import MODERN_VERSION, Payload
from tests.fakes.clock import FakeClock
from tests.unit.backends.linking import Caller, FakeTransport, Sent, new_link, send

pytestmark = pytest.mark.anyio


class Asking:
    """A link on which calls are made, and the requests that its server sends."""

    def __init__(self, *, holder: Caller | None = None) -> None:
        self.requests: list[ServerRequest] = []
        self.withdrawn: list[str] = []
        self.clock = FakeClock()
        session = None if holder is None else holder.session
        self.link = new_link(on_request=self._requested, holder=session, clock=self.clock)
        self.transport = FakeTransport(self.link)

    def _requested(self, request: ServerRequest) -> None:
        self.requests.append(request)
        request.when_withdrawn(lambda: self.withdrawn.append(request.method))

    def call(self, caller: Caller, *, timeout: float = 60.0) -> Sent:
        return send(self.link, caller.call(name="t"), timeout=timeout)

    def abandon(self, sent: Sent) -> None:
        assert sent.pending is not None
        self.link.abandon(sent.pending, CallCancelled())

    def ask(self, id_: int = 7, method: str = "elicitation/create", origin: int | None = None) -> ServerRequest:
        body = {"jsonrpc": "2.0", "id": id_, "method": method, "params": {"a": 1}}
        self.link.fed(json.dumps(body).encode(), None if origin is None else self.transport.requests[origin][0])
        return self.requests[-1]

    def answer(self, number: int) -> None:
        self.link.fed(b'{"jsonrpc":"2.0","id":%d,"result":{}}' % number)

    def cancel(self, id_: int) -> None:
        body = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":%d}}'
        self.link.fed(body % id_)

    @property
    def sent(self) -> list[dict[str, object]]:
        """The responses that were sent to the server."""
        return [note for note in self.transport.notes if "method" not in note]


# --- answers ----------------------------------------------------------------------------------------------------------


async def test_the_first_answer_is_sent_under_the_requests_own_id() -> None:
    asking = Asking()
    asking.call(Caller("a"))
    request = asking.ask(41)
    request.answer(Payload(b'{"action":"accept"}'))
    request.answer(Payload(b'{"action":"decline"}'))
    request.fail(b'{"code":1,"message":"late"}')
    request.withdraw()
    assert asking.sent == [{"jsonrpc": "2.0", "id": 41, "result": {"action": "accept"}}]
    assert asking.withdrawn == []


async def test_names_in_an_answer_are_replaced() -> None:
    asking = Asking()
    request = asking.ask()
    request.replace_params(Payload(b"{}"), lambda result: Payload(bytes(result).replace(b"ours", b"theirs")))
    request.answer(Payload(b'{"id":"ours"}'))
    assert asking.sent[0]["result"] == {"id": "theirs"}


async def test_a_cancelled_request_is_never_answered() -> None:
    asking = Asking()
    asking.call(Caller("a"))
    request = asking.ask(41)
    asking.cancel(41)
    request.answer(Payload(b"{}"))
    assert (asking.sent, asking.withdrawn) == ([], ["elicitation/create"])
    assert repr(request) == "<ServerRequest elicitation/create of notes closed>"


@pytest.mark.parametrize("end", ["answered", "cancelled", "timed out", "failed", "lost"])
async def test_the_end_of_a_call_withdraws_the_requests_it_caused(end: str) -> None:
    asking = Asking()
    sent = asking.call(Caller("a"))
    request = asking.ask(1, origin=0)
    assert sent.pending is not None
    match end:
        case "answered":
            asking.answer(1)
        case "cancelled":
            asking.abandon(sent)
        case "timed out":
            await asking.clock.advance(4000)
        case "failed":
            asking.link.fail(sent.pending, BackendLost("notes", "reset"))
        case "lost":
            asking.link.lost(BackendLost("notes", "gone"))
    assert sent.is_done
    assert (request.is_open, asking.withdrawn, asking.sent) == (False, ["elicitation/create"], [])


async def test_a_request_for_roots_beside_a_call_outlives_it() -> None:
    caller = Caller("a")
    asking = Asking(holder=caller)
    asking.call(caller)
    request = asking.ask(5, "roots/list")
    asking.answer(1)
    request.answer(Payload(b'{"roots":[]}'))
    assert asking.sent == [{"jsonrpc": "2.0", "id": 5, "result": {"roots": []}}]


async def test_a_detached_request_outlives_the_call_it_came_with() -> None:
    asking, other = Asking(), Caller("b")
    sent = asking.call(Caller("a"), timeout=10.0)
    request = asking.ask(1, origin=0)
    request.detach(other.session)
    assert (request.pending, request.session) == (None, other.session)
    await asking.clock.advance(10)
    assert isinstance(sent.failure, BackendTimeout)
    assert request.is_open


async def test_an_id_that_is_used_again_is_another_request() -> None:
    asking = Asking()
    asking.call(Caller("a"))
    first, second = asking.ask(9), asking.ask(9)
    first.answer(Payload(b'{"n":1}'))
    assert second.is_open
    asking.cancel(9)
    assert (second.is_open, len(asking.withdrawn)) == (False, 1)


async def test_requests_beyond_a_number_are_refused() -> None:
    asking = Asking()
    for number in range(MAX_OPEN_REQUESTS + 1):
        asking.ask(number, "roots/list")
    assert [(note["id"], note["error"]["message"]) for note in asking.transport.notes] == [
        (MAX_OPEN_REQUESTS, "Too many requests are open")
    ]


# --- which client -----------------------------------------------------------------------------------------------------


async def test_on_a_pipe_a_request_belongs_to_the_only_client_with_calls_in_flight() -> None:
    asking, one, other = Asking(), Caller("a"), Caller("b")
    asking.call(one)
    assert asking.ask(1).session is one.session
    asking.call(one)
    request = asking.ask(2)
    assert (request.session, request.pending) == (one.session, None)
    asking.call(other)
    assert asking.ask(3).session is None


async def test_on_its_own_stream_a_request_belongs_to_that_call() -> None:
    asking, one, other = Asking(), Caller("a"), Caller("b")
    asking.call(one)
    asking.call(other)
    assert asking.ask(1, origin=0).session is one.session
    assert asking.ask(2, origin=1).session is other.session


async def test_on_a_link_of_one_client_a_request_belongs_to_it_even_without_a_call() -> None:
    caller = Caller("a")
    request = Asking(holder=caller).ask(1, "roots/list")
    assert (request.session, request.pending) == (caller.session, None)


async def test_after_an_abandoned_call_of_another_client_a_request_is_ambiguous_until_that_is_answered() -> None:
    asking, one, other = Asking(), Caller("a"), Caller("b")
    asking.abandon(asking.call(one))
    asking.call(other)
    assert asking.ask(1).session is None
    assert not asking.link.is_clear
    asking.answer(1)
    assert asking.ask(2).session is other.session
    asking.answer(2)
    assert asking.link.is_clear


async def test_an_abandoned_call_is_forgotten_after_its_timeout() -> None:
    asking, other = Asking(), Caller("b")
    asking.abandon(asking.call(Caller("a"), timeout=10.0))
    await asking.clock.advance(10)
    asking.call(other)
    assert asking.ask(1).session is other.session


@pytest.mark.parametrize(
    ("key", "principal", "is_certain"),
    [("a", ANONYMOUS, True), ("", ANONYMOUS, False), ("", Principal("x", "x"), True)],
)
async def test_after_an_abandoned_call_only_a_client_that_is_certainly_the_same_gets_requests(
    key: str, principal: Principal, is_certain: bool
) -> None:
    asking = Asking()
    first = Caller(key, version=MODERN_VERSION, principal=principal)
    second = first if key else Caller(key, version=MODERN_VERSION, principal=principal)
    asking.abandon(asking.call(first))
    asking.call(second)
    assert (asking.ask().session is second.session) is is_certain


# --- deadlines --------------------------------------------------------------------------------------------------------


async def test_an_open_request_pauses_the_calls_it_may_belong_to() -> None:
    caller = Caller("a")
    asking = Asking(holder=caller)
    paused = [asking.call(caller, timeout=10.0) for _ in range(2)]
    request = asking.ask(1)
    later = asking.call(caller, timeout=10.0)
    await asking.clock.advance(10)
    assert isinstance(later.failure, BackendTimeout)
    assert [each.is_done for each in paused] == [False, False]
    request.answer(Payload(b"{}"))
    await asking.clock.advance(10)
    assert all(isinstance(each.failure, BackendTimeout) for each in paused)


async def test_a_call_is_paused_until_the_last_of_its_requests_is_closed() -> None:
    asking = Asking()
    sent = asking.call(Caller("a"), timeout=10.0)
    first, second = asking.ask(1), asking.ask(2)
    first.answer(Payload(b"{}"))
    await asking.clock.advance(10)
    assert not sent.is_done
    second.fail(b'{"code":-1,"message":"no"}')
    await asking.clock.advance(10)
    assert isinstance(sent.failure, BackendTimeout)


# --- invalid messages -------------------------------------------------------------------------------------------------


def test_invalid_messages_are_logged_at_a_rate_and_a_flood_is_recognised(caplog: pytest.LogCaptureFixture) -> None:
    monitor = InvalidMessageMonitor("notes")
    assert [monitor.is_flood(b"noise", "no JSON", 1.0) for _ in range(FLOOD)] == [False] * (FLOOD - 1) + [True]
    assert len(caplog.records) == LOGGED
    assert not monitor.is_flood(b"noise", "no JSON", 2.0)
    assert caplog.records[-2].__dict__["times"] == FLOOD - LOGGED


async def test_a_flood_of_invalid_messages_ends_the_link() -> None:
    asking = Asking()
    for _ in range(FLOOD):
        asking.link.fed(b"noise")
    assert "too many invalid messages" in str(asking.link.ended.result())
