"""What the protocol lets others add: extensions, methods of their own, apps, trace context, mirrored arguments."""

import asyncio
from dataclasses import replace

import pytest

from tests.contract.behaviours import shows
from tests.contract.offers import offerings
from tests.contract.stand import KINDS, LATEST, MODERN, STREAMED, WAYS, script_of, standing
from tests.peers import jsontext
from tests.peers.backend import Act, Offer, Script, resource, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

UI = "io.modelcontextprotocol/ui"
OWN = "com.example/search"


def extending(server: str, *keys: str, experimental: str = "") -> Script:
    extensions = ",".join(f'"{key}":{{"n":1.50}}' for key in keys)
    tried = f',"experimental":{{"{experimental}":{{}}}}' if experimental else ""
    return script_of(
        server,
        capabilities=f'{{"tools":{{}},"extensions":{{{extensions}}}{tried}}}',
        tools=(tool("echo"), tool("mirror", Act("mirror"))),
        on={f"{OWN}/run": Act("mirror"), "tried/run": Act("mirror"), f"notifications/{OWN}/note": Act("silent")},
    )


# --- extensions -----------------------------------------------------------------------------------------------------


@shows("extensions")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_extension_is_told_if_one_backend_of_the_clients_era_has_it(way: Way) -> None:
    made = {
        "web": extending("web", UI, "x/old", "x/both", "x/two", experimental="tried"),
        "web_2": extending("web_2", "x/two"),
        "web26": extending("web26", "x/new", "x/both", UI, experimental="newer"),
    }
    async with standing(made) as stand, stand.client(way, connect=False) as client:
        offered = (await client.connect(way.version)).value["capabilities"]
        old = way.version != MODERN_VERSION
        assert offered["extensions"] == {"x/old" if old else "x/new": {"n": 1.5}, UI: {"n": 1.5}}
        assert offered["experimental"] == {"tried" if old else "newer": {}}


@shows("extensions")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_what_a_client_extends_is_told_to_the_backends_of_its_era(way: Way) -> None:
    declared = '{"extensions":{"x/mine":{"n":1.50}}}'
    servers = ("web", "web26")
    async with standing({each: extending(each) for each in servers}) as stand:
        async with stand.client(way, capabilities=declared) as client:
            for server in servers:
                await client.call(f"{server}__echo")
        (asked,) = stand["web26"].calls("tools/call")
        said = jsontext.member(asked.params, "_meta", "io.modelcontextprotocol/clientCapabilities")
        assert said == declared.encode()
        assert not any(b"x/mine" in each.raw for each in stand["web"].requests)


@shows("extensions")
async def test_what_a_handshake_client_extends_is_told_on_its_own_link() -> None:
    declared = '{"extensions":{"x/mine":{"n":1.50}},"tasks":{}}'
    servers = ("web", "web26")
    async with (
        standing({each: extending(each) for each in servers}) as stand,
        stand.client(Way("http", LATEST), capabilities=declared) as client,
    ):
        for server in servers:
            await client.call(f"{server}__echo")
        said = jsontext.member(stand["web"].calls("initialize")[-1].params, "capabilities")
        assert said == b'{"extensions":{"x/mine":{"n":1.50}}}'
        assert not any(b"x/mine" in each.raw for each in stand["web26"].calls("tools/call"))


# --- apps -----------------------------------------------------------------------------------------------------------


@shows("apps")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_an_app_is_read_as_it_is_and_calls_its_tools_by_their_own_names(way: Way) -> None:
    page = '{"contents":[{"uri":"ui://app/main","mimeType":"text/html;profile=mcp-app","text":"<p>","_meta":{"ui":{"csp":{"x":1.50}}}}]}'
    made = {
        server: script_of(
            server,
            tools=(
                tool(f"show_{server}", _meta={"ui": {"resourceUri": "ui://app/main", "visibility": ["app"]}}),
                tool("refresh"),
                tool(f"only_{server}"),
            ),
            resources=(resource("ui://app/main", Act("raw", page), mimeType="text/html;profile=mcp-app"),),
        )
        for server in ("web", "web26")
    }
    async with standing(made) as stand, stand.client(way) as client:
        for server in made:
            shown = [each for each in await client.list_all("tools/list") if f"__show_{server}".encode() in each]
            ui = jsontext.value(jsontext.member(shown[0], "_meta", "ui"))
            assert ui == {
                "resourceUri": "ui://app/main" if server == "web" else "web26+ui://app/main",
                "visibility": ["app"],
            }
            read = await client.request("resources/read", {"uri": ui["resourceUri"]})
            (content,) = read.entries("contents")
            assert jsontext.member(content, "_meta") == b'{"ui":{"csp":{"x":1.50}}}'
            assert jsontext.value(jsontext.member(content, "uri")) == ui["resourceUri"]
            assert (await client.call(f"only_{server}", {"text": "again"})).text == "again"


# --- methods of their own -------------------------------------------------------------------------------------------


@shows("custom-methods")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_method_nobody_defines_goes_to_the_one_backend_it_can_be_meant_for(way: Way) -> None:
    made = {"web": extending("web", OWN), "web26": extending("web26", experimental="tried")}
    asked = '{"q":{"n":1.50,"big":12345678901234567890123},"x":null}'
    async with standing(made) as stand:
        async with stand.client(way) as client:
            for method, server in ((f"{OWN}/run", "web"), ("tried/run", "web26")):
                reply = await client.request(method, asked)
                sent = jsontext.member(reply.result, "structuredContent", "params")
                assert jsontext.member(sent, "q") == b'{"n":1.50,"big":12345678901234567890123}'
                assert len(stand[server].calls(method)) == 1
            for unknown in ("com.example/other", "other", f"{OWN}x/run", "tools/run", "Tools/run", "resources/x/y"):
                assert (await client.request(unknown)).code == -32601
        async with stand.client(way, scope="web26") as own:
            assert (await own.request(f"{OWN}/run", asked)).result is not None
            for ours in ("tools/run", "tasks/list", "server/other"):
                assert (await own.request(ours)).code == -32601
        assert not [each for each in stand["web26"].requests if each.method in ("tools/run", "server/other")]


@shows("custom-notes")
@pytest.mark.parametrize("way", [way for way in STREAMED if way.version == LATEST], ids=str)
async def test_notifications_of_their_own_go_where_their_calls_do(way: Way) -> None:
    note = f'{{"jsonrpc":"2.0","method":"notifications/{OWN}/note","params":{{"n":1.50}}}}'
    noting = tool("note", Act("notify", note))
    made = {"web": extending("web", OWN), "web26": extending("web26")}
    made = {server: replace(script, tools=(*script.tools, noting)) for server, script in made.items()}
    async with standing(made) as stand, stand.client(way) as client, stand.client(way) as other:
        await client.watch()
        await other.watch()
        for server in made:
            reply = await client.call(f"{server}__note")
            assert [jsontext.member(each, "params") for each in reply.notifications] == [b'{"n":1.50}']
        await client.notify(f"notifications/{OWN}/note", {"a": 1})
        told = await stand["web"].wait_for(f"notifications/{OWN}/note")
        assert jsontext.value(told.params) == {"a": 1}
        assert not [each for each in stand["web26"].notifications if OWN in each.method]
        assert not [each for each in other.received if OWN in (each.method or "")]


# --- what is told in between ----------------------------------------------------------------------------------------


@shows("roots-changed")
@pytest.mark.parametrize("way", STREAMED, ids=str)
async def test_changed_roots_are_told_where_they_are_this_clients_alone(way: Way) -> None:
    changed = "notifications/roots/list_changed"
    async with standing(offerings(("web", "stream", "web26"))) as stand:
        roots = '{"roots":{"listChanged":true}}'
        async with stand.client(way, capabilities=roots) as client:
            for server in ("web", "stream", "web26"):
                await client.call(f"{server}__echo")
            await client.notify(changed)
            for server in ("web", "stream"):
                await stand[server].wait_for(changed)
            await client.call("web26__echo")
            assert [
                len([each for each in stand[server].notifications if each.method == changed])
                for server in stand.backends
            ] == [1, 1, 0]


@shows("question-progress")
@pytest.mark.parametrize("way", [way for way in STREAMED if way.version == LATEST], ids=str)
async def test_a_client_tells_how_far_it_is_with_what_a_server_asked(way: Way) -> None:
    tokens: list[bytes] = []
    answered = asyncio.Event()

    def sample(params: bytes) -> str:
        tokens.append(jsontext.member(params, "_meta", "progressToken") or b"null")
        answered.set()
        return "{}"

    asking = '{"method":"sampling/createMessage","params":{"messages":[],"_meta":{"progressToken":1}}}'
    made = {server: script_of(server, tools=(tool("ask", Act("insist", asking)),)) for server in ("web", "stream")}
    async with standing(made) as stand, stand.client(way, answers={"sampling/createMessage": sample}) as client:
        respond = client._respond
        held: asyncio.Event = asyncio.Event()

        async def late(response: bytes) -> None:
            await held.wait()
            await respond(response)

        client._respond = late
        for server in made:
            held.clear()
            answered.clear()
            pending = await client.begin("tools/call", {"name": f"{server}__ask"})
            await answered.wait()
            for token in (tokens[-1].decode(), "99"):
                await client.notify("notifications/progress", f'{{"progressToken":{token},"progress":1.50}}')
            told = await stand[server].wait_for("notifications/progress")
            assert jsontext.member(told.params, "progressToken") == b"1"
            assert jsontext.member(told.params, "progress") == b"1.50"
            held.set()
            await pending.reply()
            assert len([each for each in stand[server].notifications if each.method == "notifications/progress"]) == 1
        assert tokens[0] != tokens[1]


# --- trace context --------------------------------------------------------------------------------------------------


@shows("trace")
@pytest.mark.parametrize("way", [way for way in WAYS if way.version in (LATEST, MODERN_VERSION)], ids=str)
async def test_trace_context_passes_both_ways_between_all_eras(way: Way) -> None:
    trace = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=1",
        "baggage": "u=2",
    }
    members = jsontext.text(trace)[1:-1].decode()
    answer = f'{{"content":[],"resultType":"complete","_meta":{{{members}}}}}'
    told = f'{{"progressToken":$TOKEN,"progress":1,"_meta":{{{members}}}}}'
    note = f'{{"jsonrpc":"2.0","method":"notifications/progress","params":{told}}}'
    traced = tool("traced", Act("notify", note, then=Act("raw", answer)))
    made = {server: replace(script, tools=(traced,)) for server, script in offerings(KINDS).items()}
    async with standing(made) as stand, stand.client(way) as client:
        for server in KINDS:
            params = {"name": f"{server}__traced", "_meta": {**trace, "progressToken": 5, "x": {"n": 1}}}
            reply = await client.request("tools/call", params)
            sent = jsontext.value((await stand[server].wait_for("tools/call")).params)["_meta"]
            assert {key: sent.get(key) for key in trace} == trace
            assert sent["x"] == {"n": 1}
            back = reply.value["_meta"]
            assert {key: back.get(key) for key in trace} == trace
            assert jsontext.value(jsontext.member(reply.notifications[0], "params", "_meta")) == trace


# --- mirrored arguments ---------------------------------------------------------------------------------------------


def region(name: str = "Region") -> dict[str, object]:
    return {"type": "object", "properties": {"region": {"type": "string", "x-mcp-header": name}}}


def regional(name: str = "Region") -> Offer:
    return tool("find", Act("mirror"), inputSchema=region(name))


@shows("mirrored")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_arguments_are_mirrored_into_headers_whoever_calls(way: Way) -> None:
    made = {server: script_of(server, tools=(regional(),)) for server in ("web", "web26")}
    async with standing(made) as stand, stand.client(way) as client:
        await client.request("tools/list")
        for server in made:
            reply = await client.call(f"{server}__find", {"region": "Z\u00fcrich "})
            assert reply.value["structuredContent"]["params"]["arguments"] == {"region": "Z\u00fcrich "}
        headers = {name.lower(): value for name, value in stand["web26"].calls("tools/call")[0].headers}
        assert headers["mcp-param-region"] == "=?base64?WsO8cmljaCA=?="


@shows("mirrored")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_an_annotation_that_is_not_valid_is_stripped_where_it_is_not_needed(way: Way) -> None:
    properties = {
        "x-mcp-header": {"type": "string", "default": {"x-mcp-header": 1}},
        "region": {"type": "object", "x-mcp-header": "no good"},
    }
    broken = tool("find", inputSchema={"type": "object", "properties": properties}, n=[1.5])
    made = {server: script_of(server, tools=(broken, tool("echo"))) for server in ("pipe", "web", "web26")}
    async with standing(made) as stand, stand.client(way) as client:
        shown = {each["name"]: each for each in (await client.request("tools/list")).value["tools"]}
        assert list(shown) == ["pipe__find", "pipe__echo", "web__find", "web__echo", "web26__echo"]
        for server in ("pipe", "web"):
            kept = shown[f"{server}__find"]["inputSchema"]["properties"]
            assert kept == {**properties, "region": {"type": "object"}}
            assert (await client.call(f"{server}__find", {"text": "t", "region": {}})).text == "t"


@shows("mirrored-anew")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_a_backend_that_wants_other_headers_is_listed_and_called_once_more(way: Way) -> None:
    async with standing({"web26": script_of("web26", tools=(regional(),))}) as stand, stand.client(way) as client:
        await client.request("tools/list")
        await stand["web26"].set_offers("tools", (regional("Place"),), times=0)
        reply = await client.call("web26__find", {"region": "here"})
        assert reply.value["structuredContent"]["params"]["arguments"] == {"region": "here"}
        first, second = stand["web26"].calls("tools/call")
        assert "mcp-param-region" in {name.lower() for name, _ in first.headers}
        assert "mcp-param-place" in {name.lower() for name, _ in second.headers}
