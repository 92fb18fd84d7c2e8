"""The router: which backend gets a call, in which words, and what nobody is told."""

import json
from typing import Any

import pytest

from mcp_manifold.errors import (
    BackendError,
    BackendUnavailable,
    InvalidParams,
    RemoteError,
    UnknownItem,
    UnknownMethod,
)
from mcp_manifold.model.call import Call, Session
from mcp_manifold.model.policy import ANONYMOUS
from mcp_manifold.wire import HANDSHAKE_VERSIONS, LATEST_HANDSHAKE, MODERN_VERSION, Era, Payload, error_of
from tests.unit.core.house import LISTS, META, House, server, unheard

pytestmark = pytest.mark.anyio


# --- methods --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [*HANDSHAKE_VERSIONS, MODERN_VERSION])
async def test_each_era_has_its_own_methods(version: str) -> None:
    house = House()
    own, other = (["server/discover"], ["initialize", "ping"])
    if version != MODERN_VERSION:
        own, other = other, own
    for method in (*LISTS, *own):
        assert isinstance(await house.ask(method, version), dict)
    for method in other:
        assert isinstance(await house.refused(method, version), UnknownMethod)


@pytest.mark.parametrize("method", ["", "tools/Call", "Tools/call", "tools/call ", "x" * 10_000, "__class__"])
async def test_any_other_method_is_unknown_and_quoted_briefly(method: str) -> None:
    refused = await House().refused(method)
    assert isinstance(refused, UnknownMethod)
    assert len(str(refused)) < 200


# --- calls ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a__t", "t"])
async def test_a_tool_is_called_by_its_public_or_its_own_name(name: str) -> None:
    house = House(server("a"))
    backend = house.offers("a", lambda *_: {"content": []}, tools=["t"])
    assert await house.ask("tools/call", name=name, arguments={"x": 1}, extra=[None]) == {"content": []}
    assert backend.asked == [("tools/call", {"name": "t", "arguments": {"x": 1}, "extra": [None]})]


async def test_names_two_backends_have_lead_to_the_right_one() -> None:
    house = House(server("a"), server("b"))
    backends = [house.offers(name, tools=["t"], prompts=["p"]) for name in ("a", "b")]
    await house.ask("tools/call", name="b__t")
    await house.ask("prompts/get", name="a__p")
    assert isinstance(await house.refused("tools/call", name="t"), UnknownItem)
    assert [backend.asked for backend in backends] == [
        [("prompts/get", {"name": "p"})],
        [("tools/call", {"name": "t"})],
    ]


async def test_what_is_not_a_name_is_refused() -> None:
    house = House(server("a"))
    for method, key in (("tools/call", "name"), ("prompts/get", "name"), ("resources/read", "uri")):
        assert isinstance(await house.refused(method), InvalidParams)
        for value in (None, 5, ["a__t"], {"name": "a__t"}):
            wrong: dict[str, Any] = {key: value}
            assert isinstance(await house.refused(method, **wrong), InvalidParams)


async def test_a_backend_that_left_the_configuration_is_named() -> None:
    house = House(server("a"))
    house.offers("a", tools=["t"])
    house.fleet.clear()
    refused = await house.refused("tools/call", name="a__t")
    assert isinstance(refused, BackendUnavailable)
    assert refused.backend == "a"


async def test_a_call_says_which_backend_it_went_to() -> None:
    house = House(server("a"))
    house.offers("a", lambda *_: RemoteError(b"{}", code=-1, backend="a"), tools=["t"])
    call = Call("tools/call", {"name": Payload(b'"a__t"')}, Session("", ANONYMOUS, "", LATEST_HANDSHAKE), unheard)
    with pytest.raises(RemoteError):
        await house.router.route(call)
    assert call.backend == "a"


@pytest.mark.parametrize("era", ["handshake", "modern"])
async def test_results_are_told_in_the_clients_era(era: Era) -> None:
    house = House(server("a"))
    body = (
        b'{ "content":[] , "x":1e999, "resultType":"complete"}' if era == "modern" else b'{ "content":[] , "x":1e999}'
    )
    house.offers("a", lambda *_: body, era=era, tools=["t"])
    handshake = await house.raw("tools/call", name="a__t")
    assert handshake == (b'{"content":[],"x":1e999}' if era == "modern" else body)
    modern = await house.raw("tools/call", MODERN_VERSION, name="a__t")
    assert b'"x":1e999' in modern
    assert {"resultType": "complete", "_meta": META}.items() <= json.loads(modern.replace(b"1e999", b"1")).items()


async def test_links_in_results_lead_back_to_their_backend() -> None:
    house = House(server("a"), server("b"))

    def answer(method: str, params: dict[str, Any]) -> object:
        if method == "resources/read":
            return {"contents": [{"uri": params["uri"], "text": ""}]}
        return {
            "content": [{"type": "resource_link", "uri": "x:1", "name": ""}, {"type": "resource_link", "uri": "n:1"}]
        }

    house.offers("a", resources=["x:1"])
    backend = house.offers("b", answer, tools=["t"])
    found = await house.ask("tools/call", name="b__t")
    uris = [block["uri"] for block in found["content"]]
    assert uris == ["b+x:1", "n:1"]
    for uri, native in zip(uris, ("x:1", "n:1"), strict=True):
        assert (await house.ask("resources/read", uri=uri))["contents"][0]["uri"] == uri
        assert backend.asked[-1] == ("resources/read", {"uri": native})


@pytest.mark.parametrize(
    ("ref", "sent"),
    [
        ({"type": "ref/prompt", "name": "b__p", "title": "T"}, {"type": "ref/prompt", "name": "p", "title": "T"}),
        ({"type": "ref/prompt", "name": "q"}, {"type": "ref/prompt", "name": "q"}),
        ({"type": "ref/resource", "uri": "b+x:{v}"}, {"type": "ref/resource", "uri": "x:{v}"}),
        ({"type": "ref/resource", "uri": "y:1"}, {"type": "ref/resource", "uri": "y:1"}),
    ],
)
async def test_completion_references_are_sent_in_the_backends_own_words(ref: object, sent: object) -> None:
    house = House(server("a"), server("b"))
    house.offers("a", prompts=["p"], templates=["x:{v}"])
    backend = house.offers("b", prompts=["p", "q"], templates=["x:{v}"], resources=["y:1"])
    await house.ask("completion/complete", ref=ref, argument={"name": "v", "value": ""})
    assert backend.asked == [("completion/complete", {"ref": sent, "argument": {"name": "v", "value": ""}})]


@pytest.mark.parametrize("ref", [None, 5, {}, {"type": 5}, {"type": "ref/tool", "name": "a"}, {"type": "ref/prompt"}])
async def test_a_completion_reference_that_is_none_is_refused(ref: object) -> None:
    assert isinstance(await House().refused("completion/complete", ref=ref), InvalidParams)


async def test_a_handshake_client_that_cannot_be_asked_is_told_what_the_backend_wanted() -> None:
    house = House(server("a"))
    request = {"method": "elicitation/create", "params": {"message": "?", "requestedSchema": {}}}
    house.offers(
        "a", lambda *_: {"resultType": "input_required", "inputRequests": {"q": request}}, era="modern", tools=["t"]
    )
    refused = await house.refused("tools/call", name="a__t")
    assert isinstance(refused, BackendError)
    assert refused.backend == "a"
    assert "elicitation/create" in str(refused)


async def test_a_modern_client_is_handed_what_a_modern_backend_wants() -> None:
    house = House(server("a"))
    wanted = {"resultType": "input_required", "inputRequests": {"q": {"method": "roots/list"}}, "requestState": "s"}
    backend = house.offers("a", lambda *_: wanted, era="modern", tools=["t"])
    found = await house.ask("tools/call", MODERN_VERSION, name="a__t", requestState="s", inputResponses={"q": {}})
    assert wanted.items() <= found.items()
    assert backend.asked == [("tools/call", {"name": "t", "requestState": "s", "inputResponses": {"q": {}}})]


# --- S43: what is hidden is not there -------------------------------------------------------------------------------

BLOCKED = {
    "tools": {"block": ["secret"]},
    "prompts": {"block": ["secret"]},
    "resources": {"block": ["x:secret", "y:*"]},
    "overrides": {"tools": {"secret": {"name": "renamed"}}},
}


@pytest.mark.parametrize("version", [LATEST_HANDSHAKE, MODERN_VERSION])
@pytest.mark.parametrize(
    ("method", "member", "hidden"),
    [
        ("tools/call", "name", "a__secret"),
        ("tools/call", "name", "secret"),
        ("tools/call", "name", "Secret"),
        ("tools/call", "name", "A__SECRET"),
        ("tools/call", "name", "a__renamed"),
        ("tools/call", "name", "renamed"),
        ("tools/call", "name", "\uff53ecret"),
        ("tools/call", "name", "secret\x00"),
        ("prompts/get", "name", "a__secret"),
        ("prompts/get", "name", "secret"),
        ("prompts/get", "name", "SECRET"),
        ("resources/read", "uri", "x:secret"),
        ("resources/read", "uri", "X:secret"),
        ("resources/read", "uri", "x:%73ecret"),
        ("resources/read", "uri", "a+x:secret"),
        ("resources/read", "uri", "y:1"),
        ("resources/read", "uri", "a+y:1"),
    ],
)
async def test_s43_hidden_and_unknown_are_answered_alike(method: str, member: str, hidden: str, version: str) -> None:
    full, empty = House(server("a", **BLOCKED)), House(server("a", **BLOCKED))
    backend = full.offers("a", tools=["secret", "t"], prompts=["secret"], resources=["x:secret"], templates=["y:{v}"])
    empty.offers("a", tools=["t"])
    answers = [await house.refused(method, version, **{member: hidden}) for house in (full, empty)]
    era: Era = "modern" if version == MODERN_VERSION else "handshake"
    told = [error_of(answer, era, method=method) for answer in answers]
    assert isinstance(answers[0], UnknownItem)
    assert told[0] == told[1]
    assert backend.asked == []


@pytest.mark.parametrize(
    "ref",
    [
        {"type": "ref/prompt", "name": "a__secret"},
        {"type": "ref/prompt", "name": "secret"},
        {"type": "ref/resource", "uri": "x:secret"},
        {"type": "ref/resource", "uri": "y:{v}"},
        {"type": "ref/resource", "uri": "a+y:{v}"},
    ],
)
async def test_s43_completion_knows_nothing_of_what_is_hidden(ref: dict[str, str]) -> None:
    full, empty = House(server("a", **BLOCKED)), House(server("a", **BLOCKED))
    backend = full.offers("a", prompts=["secret"], resources=["x:secret"], templates=["y:{v}"])
    empty.offers("a")
    answers = [await house.refused("completion/complete", ref=ref) for house in (full, empty)]
    assert isinstance(answers[0], UnknownItem)
    assert error_of(answers[0], "handshake") == error_of(answers[1], "handshake")
    assert backend.asked == []


async def test_s43_lists_and_instructions_of_scopes_hide_it_too() -> None:
    house = House(server("a", **BLOCKED), groups={"team": ["a"]})
    house.offers("a", tools=["secret"], prompts=["secret"], resources=["x:secret"], templates=["y:{v}"])
    for scope in ("", "server:a", "group:team"):
        for method in LISTS:
            (items,) = (await house.ask(method, scope=scope)).values()
            assert items == []


async def test_an_empty_allow_list_hides_everything() -> None:
    none: dict[str, list[str]] = {"allow": []}
    house = House(server("a", tools=none, prompts=none, resources=none))
    backend = house.offers("a", tools=["t"], prompts=["p"], resources=["x:1"], templates=["y:{v}"])
    for method, params in (
        ("tools/call", {"name": "t"}),
        ("prompts/get", {"name": "a__p"}),
        ("resources/read", {"uri": "x:1"}),
        ("resources/read", {"uri": "y:1"}),
        ("resources/read", {"uri": "a+z:1"}),
    ):
        assert isinstance(await house.refused(method, **params), UnknownItem)
    assert backend.asked == []


async def test_a_router_tells_its_state() -> None:
    assert repr(House().router) == "<Router <Hub listings=0/0 scopes=[]>>"
