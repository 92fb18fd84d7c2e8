"""`plan`: every method in every state of its backend gives exactly one step, and nothing changes."""

import asyncio
from typing import Any

import pytest

from mcp_manifold.core.plan import NOT_IN, OWNER_WAIT, Answer, Level, Send, Slot, Step, Wait, plan
from mcp_manifold.errors import (
    BackendLost,
    BackendUnavailable,
    InvalidParams,
    ManifoldError,
    UnknownItem,
    UnknownMethod,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.catalogue import Kind, Listing
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import (
    HANDSHAKE_VERSIONS,
    LATEST_HANDSHAKE,
    MODERN_VERSION,
    Era,
    encode,
    error_of,
)
from tests.unit.core.house import LISTS, FakeBackend, House, call_of, server

pytestmark = pytest.mark.anyio

VERSIONS = (LATEST_HANDSHAKE, MODERN_VERSION)
OFFER: dict[str, Any] = {"tools": ["t"], "prompts": ["p"], "resources": ["x:1"], "templates": ["y:{v}"]}
RUNS_TASKS = b'{"tasks":{"requests":{"tools":{"call":{}}},"cancel":{}},"logging":{}}'
CALLS: dict[str, tuple[str, dict[str, Any], dict[str, Any], str]] = {
    "tool": ("tools/call", {"name": "a__t", "arguments": {"x": 1}}, {"name": "t", "arguments": {"x": 1}}, "t"),
    "prompt": ("prompts/get", {"name": "a__p"}, {"name": "p"}, "p"),
    "resource": ("resources/read", {"uri": "x:1"}, {"uri": "x:1"}, "x:1"),
    "completion": (
        "completion/complete",
        {"ref": {"type": "ref/prompt", "name": "a__p"}},
        {"ref": {"type": "ref/prompt", "name": "p"}},
        "p",
    ),
    "extension": ("x/y", {"z": None}, {"z": None}, ""),
}
"""Method, the client's params, the backend's params, the native name."""
ITEMS = ("tool", "prompt", "resource", "completion")
every_call = pytest.mark.parametrize("what", CALLS)
every_version = pytest.mark.parametrize("version", VERSIONS)


def house_of(era: Era = "handshake", **more: Any) -> House:
    """A house with one backend, `a`, that has listed."""
    house = House(server("a", max_concurrency=1, breaker={"failures": 1}, **more))
    house.offers("a", era=era, **OFFER)
    return house


def call(what: str = "tool", version: str = LATEST_HANDSHAKE, scope: str = "", **more: Any) -> Call:
    method, params, _, _ = CALLS[what]
    return call_of(Session("", ANONYMOUS, scope, version), method, **params, **more)


def step(house: House, made: Call) -> Step:
    return plan(made, house.hub.view(made.session.scope), house.facts)


def wait_of(house: House, made: Call) -> str:
    found = step(house, made)
    assert isinstance(found, Wait)
    return found.why


def send_of(house: House, made: Call) -> Send:
    found = step(house, made)
    assert isinstance(found, Send), found
    return found


def fill(house: House) -> FakeBackend:
    """Take the only slot."""
    backend = house.fleet["a"]
    backend.executor.running = 1
    return backend


# --- sending ----------------------------------------------------------------------------------------------------------


@every_version
@every_call
async def test_a_call_is_sent_to_its_backend_under_the_native_name(what: str, version: str) -> None:
    for era in ("handshake", "modern"):
        house = house_of(era)
        send = send_of(house, call(what, version))
        assert (send.backend, send.link, send.native) == (house.backend(), house.fleet["a"].link, CALLS[what][3])
        assert encode(send.params) == encode(CALLS[what][2])
        assert (send.task, send.creates_task, send.parked) == (None, False, None)


async def test_a_name_of_two_backends_leads_to_the_prefixed_one_only() -> None:
    house = House(server("a"), server("b"))
    for name in ("a", "b"):
        house.offers(name, tools=["t"], prompts=["p"])
    house.attempted()
    for method, name in (("tools/call", "b__t"), ("prompts/get", "a__p")):
        send = send_of(house, call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), method, name=name))
        assert (send.backend.name, send.native) == tuple(name.split("__"))
    with pytest.raises(UnknownItem):
        step(house, call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), name="t"))


@pytest.mark.parametrize(
    ("ref", "native"),
    [
        ({"type": "ref/prompt", "name": "b__p", "title": "T"}, {"type": "ref/prompt", "name": "p", "title": "T"}),
        ({"type": "ref/prompt", "name": "q"}, {"type": "ref/prompt", "name": "q"}),
        ({"type": "ref/resource", "uri": "b+x:{v}"}, {"type": "ref/resource", "uri": "x:{v}"}),
        ({"type": "ref/resource", "uri": "y:1"}, {"type": "ref/resource", "uri": "y:1"}),
    ],
)
async def test_completion_references_are_sent_with_native_names(ref: object, native: object) -> None:
    house = House(server("a"), server("b"))
    house.offers("a", prompts=["p"], templates=["x:{v}"])
    house.offers("b", prompts=["p", "q"], templates=["x:{v}"], resources=["y:1"])
    send = send_of(house, call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "completion/complete", ref=ref))
    assert (send.backend.name, encode(send.params)) == ("b", encode({"ref": native}))


# --- waiting ----------------------------------------------------------------------------------------------------------


@every_version
@every_call
async def test_a_call_waits_for_what_is_missing(what: str, version: str) -> None:
    house = house_of()
    backend = house.fleet["a"]
    backend.link.lost(BackendLost("a", "gone"))
    assert wait_of(house, call(what, version)) == "link"
    backend.life.shared = None
    assert wait_of(house, call(what, version)) == "link"
    fill(house)
    assert wait_of(house, call(what, version)) == "slot"
    has_slot = call(what, version)
    has_slot.slot = backend.executor
    assert wait_of(house, has_slot) == "link"
    backend.open()
    assert send_of(house, has_slot).link is backend.link
    backend.has_connected = False
    expected = "first connection" if version == MODERN_VERSION else "slot"
    assert wait_of(house, call(what, version)) == expected


@every_version
@every_call
async def test_a_call_is_refused_while_the_circuit_breaker_is_open(what: str, version: str) -> None:
    house = house_of()
    breaker = house.fleet["a"].executor.breaker
    breaker.failed(house.clock.now(), "no answer")
    for has_slot in (True, False):  # even if it would have to wait
        house.fleet["a"].executor.running = int(not has_slot)
        with pytest.raises(BackendUnavailable, match="circuit breaker open"):
            step(house, call(what, version))
    house.fleet["a"].executor.running = 0
    again = call(what, version)
    again.attempts = 1
    assert isinstance(step(house, again), Send)
    await house.clock.advance(3600)
    assert isinstance(step(house, call(what, version)), Send), "the trial"
    assert not breaker.admits(house.clock.now() - 3600), "planning does not take the trial"


@every_version
@every_call
async def test_a_removed_backend_is_named(what: str, version: str) -> None:
    house = house_of()
    del house.fleet["a"]
    with pytest.raises(BackendUnavailable, match="no longer configured") as caught:
        step(house, call(what, version))
    assert caught.value.backend == "a"


@pytest.mark.parametrize(
    ("version", "era", "level", "waits"),
    [
        (MODERN_VERSION, "handshake", "debug", True),
        (MODERN_VERSION, "handshake", "", False),
        (MODERN_VERSION, "modern", "debug", False),
        (LATEST_HANDSHAKE, "handshake", "debug", False),
    ],
)
@every_call
async def test_only_a_modern_call_that_wants_one_waits_for_a_handshake_links_log_level(
    what: str, version: str, era: Era, level: str, waits: bool
) -> None:
    house, made = house_of(era), call(what, version)
    made.session.log_level = level
    found = step(house, made)
    assert isinstance(found, Wait) is waits
    if isinstance(found, Wait):
        assert found == ("log level", Level(house.fleet["a"].link))
        made.level = house.fleet["a"].link
        assert isinstance(step(house, made), Send)
        house.fleet["a"].open()
        assert wait_of(house, made) == "log level", "of the new link"


# --- unknown names ----------------------------------------------------------------------------------------------------


@every_version
@pytest.mark.parametrize("what", ITEMS)
async def test_an_unlisted_name_waits_for_the_first_attempts_and_is_then_its_servers_or_unknown(
    what: str, version: str
) -> None:
    house = House(server("a"))
    house.fleet["a"] = FakeBackend(house.servers["a"], "handshake", house, lambda *_: None)
    assert wait_of(house, call(what, version)) == "catalogue"
    house.attempted()
    house.fleet["a"] = FakeBackend(house.servers["a"], "handshake", house, lambda *_: None)
    for _ in ("before it has listed", "after that"):
        if what in ("tool", "prompt"):
            sent = send_of(house, call(what, version))
            assert (sent.backend.name, sent.native, sent.is_unlisted) == ("a", what[0], True)
            assert bytes(sent.params["name"]) == b'"%b"' % what[:1].encode()
        else:
            with pytest.raises(UnknownItem):
                step(house, call(what, version))
        house.offers("a")


@pytest.mark.parametrize("value", [None, 5, ["a__t"], {"name": "a__t"}])
@pytest.mark.parametrize(
    ("method", "member"), [("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")]
)
async def test_a_name_must_be_text(method: str, member: str, value: object) -> None:
    for params in ({}, {member: value}):
        with pytest.raises(InvalidParams):
            step(house_of(), call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), method, **params))


@pytest.mark.parametrize("ref", [None, 5, {}, {"type": 5}, {"type": "ref/tool", "name": "a"}, {"type": "ref/prompt"}])
async def test_an_invalid_completion_reference_is_refused(ref: object) -> None:
    with pytest.raises(InvalidParams):
        step(house_of(), call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "completion/complete", ref=ref))


BLOCKED: dict[str, Any] = {
    "tools": {"block": ["secret"]},
    "prompts": {"block": ["secret"]},
    "resources": {"block": ["x:secret", "y:*"]},
    "overrides": {"tools": {"secret": {"name": "renamed"}}},
}
TOOLS = (
    "a__secret", "secret", "Secret", "A__SECRET", "a__renamed", "renamed", "\uff53ecret", "secret\x00",
)  # fmt: skip
URIS = ("x:secret", "X:secret", "x:%73ecret", "a+x:secret", "y:1", "a+y:1")
HIDDEN: tuple[tuple[str, dict[str, Any]], ...] = (
    *(("tools/call", {"name": name}) for name in TOOLS),
    *(("prompts/get", {"name": name}) for name in ("a__secret", "secret", "SECRET")),
    *(("resources/read", {"uri": uri}) for uri in URIS),
    *(("completion/complete", {"ref": {"type": "ref/prompt", "name": name}}) for name in ("a__secret", "secret")),
    *(
        ("completion/complete", {"ref": {"type": "ref/resource", "uri": uri}})
        for uri in ("x:secret", "y:{v}", "a+y:{v}")
    ),
)


def refusal(house: House, method: str, version: str, **params: Any) -> ManifoldError:
    with pytest.raises(ManifoldError) as caught:
        step(house, call_of(Session("", ANONYMOUS, "", version), method, **params))
    return caught.value


@every_version
@pytest.mark.parametrize(("method", "params"), HIDDEN)
async def test_s43_hidden_and_unknown_are_refused_alike(method: str, params: dict[str, Any], version: str) -> None:
    full, empty = House(server("a", **BLOCKED)), House(server("a", **BLOCKED))
    full.offers("a", tools=["secret", "t"], prompts=["secret"], resources=["x:secret"], templates=["y:{v}"])
    empty.offers("a", tools=["t"])
    answers = [refusal(house, method, version, **params) for house in (full, empty)]
    era: Era = "modern" if version == MODERN_VERSION else "handshake"
    assert isinstance(answers[0], UnknownItem)
    assert error_of(answers[0], era, method=method) == error_of(answers[1], era, method=method)


async def test_s43_an_empty_allow_list_hides_everything_in_every_scope() -> None:
    none: dict[str, list[str]] = {"allow": []}
    house = House(server("a", tools=none, prompts=none, resources=none), groups={"team": ["a"]})
    house.offers("a", **OFFER)
    for params in ({"name": "t"}, {"name": "a__t"}):
        assert isinstance(refusal(house, "tools/call", LATEST_HANDSHAKE, **params), UnknownItem)
    for uri in ("x:1", "y:1", "a+z:1"):
        assert isinstance(refusal(house, "resources/read", LATEST_HANDSHAKE, uri=uri), UnknownItem)
    for scope in ("", "server:a", "group:team"):
        for method in LISTS:
            (items,) = (await house.ask(method, scope=scope)).values()
            assert items == []


# --- methods ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*HANDSHAKE_VERSIONS, MODERN_VERSION])
async def test_each_era_has_its_own_methods(version: str) -> None:
    house = house_of()
    era: Era = "modern" if version == MODERN_VERSION else "handshake"
    own = {"handshake": ("initialize", "ping"), "modern": ("server/discover",)}
    for method in (*LISTS, *own[era]):
        assert isinstance(step(house, call_of(Session("", ANONYMOUS, "", version), method)), Answer)
    for method in NOT_IN[era]:
        assert isinstance(refusal(house, method, version), UnknownMethod)


@pytest.mark.parametrize("method", ["", "tools/Call", "Tools/call", "tools/call ", "x" * 10_000, "__class__"])
async def test_any_other_method_is_unknown_and_quoted_briefly(method: str) -> None:
    house = House(server("a"), server("b"))
    house.attempted()
    refused = refusal(house, method, LATEST_HANDSHAKE)
    assert isinstance(refused, UnknownMethod)
    assert len(str(refused)) < 200


async def test_a_method_answered_here_is_a_wait_for_its_handler() -> None:
    house = house_of()
    assert wait_of(house, call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "resources/subscribe")) == (
        "resources/subscribe"
    )


@every_version
@pytest.mark.parametrize("method", [*LISTS, "x/y", "completion/complete", "tasks/get"])
async def test_during_startup_a_call_that_needs_the_whole_catalogue_waits(method: str, version: str) -> None:
    house = House(server("a"), server("b"))
    ref = {"type": "ref/prompt", "name": "p"}
    made = call_of(Session("", ANONYMOUS, "", version), method, ref=ref)
    one = call_of(Session("", ANONYMOUS, "server:a", version), method, ref=ref)
    house.offers("a")
    assert wait_of(house, made) == "catalogue"
    if method in LISTS:
        assert isinstance(step(house, one), Answer)
    house.hub.expect_attempt("a")
    assert wait_of(house, one) == "catalogue"
    house.hub.adopt_cached(Listing("a", 1, "handshake"))
    if method in LISTS:
        assert isinstance(step(house, made), Answer), "a cached listing is known"
    else:
        with pytest.raises(ManifoldError):
            step(house, made)


async def test_a_ping_never_waits() -> None:
    made = call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "ping")
    assert isinstance(step(House(server("a")), made), Answer)


@pytest.mark.parametrize(
    ("declared", "owner"), [((), ""), (("a",), "a"), (("b",), "b"), (("a", "b"), "")], ids=["0", "a", "b", "2"]
)
async def test_an_extension_method_is_sent_to_its_only_owner(declared: tuple[str, ...], owner: str) -> None:
    house = House(server("a"), server("b"))
    for name in ("a", "b"):
        house.offers(name, capabilities=b'{"experimental":{"x":{}}}' if name in declared else b"{}")
    made = call("extension")
    if owner:
        assert send_of(house, made).backend.name == owner
    else:
        with pytest.raises(UnknownMethod):
            step(house, made)


async def test_a_kind_of_item_is_not_found_under_the_method_of_another() -> None:
    house = house_of()
    house.attempted()
    assert house.hub.view("").catalogue.find(Kind.PROMPT, "a__p") is not None
    sent = send_of(house, call_of(Session("", ANONYMOUS, "", LATEST_HANDSHAKE), "tools/call", name="a__p"))
    assert (sent.native, sent.is_unlisted) == ("p", True)


async def test_a_uri_without_an_owner_waits_for_a_hanging_server_for_a_bounded_time() -> None:
    house = House(server("a", timeout=300))
    house.fleet["a"] = FakeBackend(house.servers["a"], "handshake", house, lambda *_: None)
    wait = step(house, call("resource", LATEST_HANDSHAKE))
    assert isinstance(wait, Wait)
    assert not isinstance(wait.work, Slot | Level)
    waiting = asyncio.ensure_future(wait.work())
    await house.clock.advance(OWNER_WAIT - 1)
    assert not waiting.done()
    await house.clock.advance(2)
    with pytest.raises(UnknownItem):
        await waiting
