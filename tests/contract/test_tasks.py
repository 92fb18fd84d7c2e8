"""Tasks through the merged endpoint: in each era's form, on the backends and to the clients of that era."""

import pytest

from tests.contract.behaviours import shows
from tests.contract.stand import HANDSHAKE_KINDS, LATEST, MODERN, STREAMED, WAYS, script_of, standing
from tests.peers import jsontext, tasks
from tests.peers.backend import Act, Script, tool
from tests.peers.clients import MODERN_VERSION, Client, PendingRequest
from tests.peers.message import META
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

TASKED = tuple(way for way in WAYS if way.version == LATEST)
TOKENS = {"tokens": [{"token": "one", "name": "one"}, {"token": "two", "name": "two"}]}
RELATED = "io.modelcontextprotocol/related-task"
DECLARING = f'{{"extensions":{{"{tasks.EXTENSION}":{{}}}}}}'


def script(server: str, *, has_tasks: bool = True) -> Script:
    declared = tasks.MODERN_CAPABILITIES if "26" in server else tasks.CAPABILITIES
    return script_of(
        server,
        capabilities=declared if has_tasks else '{"tools":{}}',
        tools=(
            tool("slow", Act("task", "done"), execution={"taskSupport": "optional", "x": 1}),
            tool("asks", Act("asking_task"), execution={"taskSupport": "required"}),
        ),
    )


def scripts(*servers: str) -> dict[str, Script]:
    return {server: script(server) for server in servers}


async def begun(client: Client, server: str, text: str = "hi", tool: str = "slow") -> str:
    """The id of a new task."""
    params = {"name": f"{server}__{tool}", "arguments": {"text": text}}
    if not client.is_modern:
        params["task"] = {"ttl": 60000}
        made = (await client.request("tools/call", params)).value["task"]
    else:
        made = (await client.request("tools/call", params)).value
        assert made["resultType"] == "task"
    assert (made["status"], made["x-unknown"]) == ("working" if tool == "slow" else "completed", None)
    return str(made["taskId"])


# --- 2025-11-25 -----------------------------------------------------------------------------------------------------


@shows("tasks-run", "tasks-capability")
@pytest.mark.parametrize("way", TASKED, ids=str)
async def test_a_call_runs_as_a_task_of_its_backend_and_its_result_is_got_there(way: Way) -> None:
    async with standing(scripts(*HANDSHAKE_KINDS)) as stand, stand.client(way, connect=False) as client:
        offered = (await client.connect(way.version)).value["capabilities"]
        assert offered["tasks"] == {"list": {}, "cancel": {}, "requests": {"tools": {"call": {}}}}
        ids = {server: await begun(client, server, f"of {server}") for server in HANDSHAKE_KINDS}
        assert len(set(ids.values())) == len(ids)
        assert not any(id_.endswith("task-1") for id_ in ids.values())
        listed = (await client.request("tasks/list")).value["tasks"]
        assert [each["taskId"] for each in listed] == list(ids.values())
        for server, id_ in ids.items():
            shown = await client.request("tasks/get", {"taskId": id_})
            assert (shown.value["taskId"], shown.value["status"]) == (id_, "working")
            waiting = await client.begin("tasks/result", {"taskId": id_})
            asked = await stand[server].wait_for("tasks/result")
            assert jsontext.member(asked.params, "taskId") == b'"task-1"'
            assert not waiting.is_done
            await stand[server].release("done")
            result = await waiting.reply()
            assert result.text == f"of {server}"
            assert result.value["_meta"][RELATED] == {"taskId": id_}
            assert (await client.request("tasks/cancel", {"taskId": id_})).value["status"] == "cancelled"


@shows("tasks-status")
@pytest.mark.parametrize("way", [way for way in STREAMED if way.version == LATEST], ids=str)
async def test_status_and_progress_of_a_task_reach_the_client_that_made_it(way: Way) -> None:
    async with standing(scripts(*HANDSHAKE_KINDS)) as stand, stand.client(way) as client, stand.client(way) as other:
        await client.watch()
        await other.watch()
        for number, server in enumerate(HANDSHAKE_KINDS, start=1):
            asked = {"name": f"{server}__slow", "task": {}, "_meta": {"progressToken": server}}
            id_ = (await client.request("tools/call", asked)).value["task"]["taskId"]
            token = jsontext.member((await stand[server].wait_for("tools/call")).params, "_meta", "progressToken")
            await stand[server].announce("notifications/tasks/status", '{"taskId":"task-1","status":"x","n":1.50}')
            told = await client.wait_for("notifications/tasks/status", count=number)
            assert b'"n":1.50' in (told.params or b"")
            assert jsontext.value(jsontext.member(told.params, "taskId")) == id_
            assert token is not None
            await stand[server].announce("notifications/progress", f'{{"progressToken":{token.decode()},"progress":7}}')
            told = await client.wait_for("notifications/progress", count=number)
            assert jsontext.value(told.params) == {"progressToken": server, "progress": 7}
        assert not [each for each in other.received if each.method and each.method.startswith("notifications/")]


@shows("tasks-ask")
@pytest.mark.parametrize("way", TASKED, ids=str)
async def test_a_server_asks_for_its_task_under_the_id_the_client_knows(way: Way) -> None:
    told: list[bytes] = []

    def agree(params: bytes) -> str:
        told.append(params)
        related = jsontext.member(params, "_meta", RELATED) or b"null"
        return f'{{"action":"accept","content":{{}},"_meta":{{"{RELATED}":{related.decode()}}}}}'

    async with (
        standing(scripts(*HANDSHAKE_KINDS)) as stand,
        stand.client(way, answers={"elicitation/create": agree}) as client,
    ):
        for server in HANDSHAKE_KINDS:
            id_ = await begun(client, server, tool="asks")
            result = await client.request("tasks/result", {"taskId": id_})
            got = result.value["structuredContent"]["got"]["result"]
            assert (got["action"], got["_meta"][RELATED]) == ("accept", {"taskId": "task-1"})
            assert result.value["_meta"][RELATED] == {"taskId": id_}
            assert jsontext.value(jsontext.member(told[-1], "_meta", RELATED)) == {"taskId": id_}
        assert len(told) == len(HANDSHAKE_KINDS)


@shows("tasks-bound")
@pytest.mark.parametrize("way", [way for way in TASKED if way.transport != "stdio"], ids=str)
async def test_a_task_is_its_principals_and_unknown_to_everybody_else(way: Way) -> None:
    async with (
        standing(scripts("web"), manifold=TOKENS) as stand,
        stand.client(way, token="one") as mine,
        stand.client(way, token="two") as theirs,
    ):
        id_ = await begun(mine, "web")
        for method in ("tasks/get", "tasks/result", "tasks/cancel"):
            assert (await theirs.request(method, {"taskId": id_})).code == -32602
            assert (await theirs.request(method, {"taskId": "web.task-1"})).code == -32602
            assert (await theirs.request(method, {"taskId": "task-1"})).code == -32602
        assert (await theirs.request("tasks/list")).value == {"tasks": []}
        async with stand.client(way, token="one") as again:
            assert [each["taskId"] for each in (await again.request("tasks/list")).value["tasks"]] == [id_]
            assert (await again.request("tasks/get", {"taskId": id_})).value["taskId"] == id_


@shows("tasks-bound")
async def test_where_nobody_says_who_they_are_a_list_shows_the_tasks_of_the_session() -> None:
    way = Way("http", LATEST)
    async with standing(scripts("web")) as stand, stand.client(way) as mine, stand.client(way) as theirs:
        await begun(mine, "web")
        assert (await theirs.request("tasks/list")).value == {"tasks": []}
        assert len((await mine.request("tasks/list")).value["tasks"]) == 1


@shows("tasks-capability")
@pytest.mark.parametrize("way", WAYS, ids=str)
async def test_tasks_are_not_offered_for_backends_or_to_clients_without_them(way: Way) -> None:
    async with (
        standing({"web": script("web"), "web_2": script("web_2", has_tasks=False)}) as stand,
        stand.client(way, connect=False) as client,
    ):
        offered = (await client.connect(way.version)).value["capabilities"]
        listed = (await client.request("tools/list")).value["tools"]
        shown = {each["name"]: each.get("execution") for each in listed}
        able = way.version == LATEST
        assert ("tasks" in offered) is able
        assert shown["web__slow"] == ({"taskSupport": "optional", "x": 1} if able else None)
        assert shown["web_2__slow"] == ({"x": 1} if able else None)
        assert shown["web_2__asks"] is None
        wanted = {"name": "web_2__slow", "arguments": {"text": "now"}, "task": {}}
        assert (await client.request("tools/call", wanted)).text == "now"
        assert jsontext.member(stand["web_2"].calls("tools/call")[0].params, "task") is None
        if not able:
            plain = await client.request("tools/call", {**wanted, "name": "web__slow"})
            assert plain.text == "now"
            for method in ("tasks/get", "tasks/result", "tasks/list", "tasks/update"):
                assert (await client.request(method, {"taskId": "x"})).code == -32601


EARLY = """\
{"jsonrpc":"2.0","method":"notifications/tasks/status","params":{"taskId":"t","status":"working"}}
{"jsonrpc":"2.0","id":"q","method":"roots/list","params":{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"t"}}}}
{"jsonrpc":"2.0","id":$ID,"result":{"task":{"taskId":"t","status":"working"}}}"""


@shows("tasks-status", "tasks-ask")
@pytest.mark.parametrize("server", ["web", "stream"])
async def test_what_is_said_of_a_task_before_it_is_known_waits_for_it(server: str) -> None:
    way = Way("sse", LATEST)
    early = script_of(server, capabilities=tasks.CAPABILITIES, tools=(tool("early", Act("messages", EARLY)),))
    roots = {"roots/list": '{"roots":[]}'}
    async with standing({server: early}) as stand, stand.client(way, answers=roots) as client:
        made = await client.request("tools/call", {"name": f"{server}__early", "task": {}})
        told = await client.wait_for("notifications/tasks/status")
        assert jsontext.value(jsontext.member(told.params, "taskId")) == made.value["task"]["taskId"]
        asked = await client.wait_for("roots/list")
        related = jsontext.value(jsontext.member(asked.params, "_meta", RELATED))
        assert related == {"taskId": made.value["task"]["taskId"]}
        answered = await stand[server].wait_for(lambda each: each.kind == "response")
        assert (answered.id, jsontext.member(answered.raw, "result")) == (b'"q"', b'{"roots":[]}')


# --- 2026-07-28 -----------------------------------------------------------------------------------------------------


@shows("tasks-extension")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_a_modern_server_makes_a_task_of_a_call_and_is_asked_for_it(way: Way) -> None:
    servers = ("pipe26", "web26")
    async with (
        standing(scripts(*servers), pipe26={"era": "modern"}) as stand,
        stand.client(way, capabilities=DECLARING, connect=False) as client,
    ):
        offered = (await client.connect(way.version)).value["capabilities"]
        assert (offered["extensions"], "tasks" in offered) == ({tasks.EXTENSION: {}}, False)
        for server in servers:
            id_ = await begun(client, server, f"of {server}")
            shown = (await client.request("tasks/get", {"taskId": id_})).value
            assert (shown["taskId"], shown["status"], shown["resultType"]) == (id_, "working", "complete")
            done = await client.request("tasks/update", {"taskId": id_, "inputResponses": {"a": {"n": 1}}})
            assert (done.value["resultType"], "taskId" in done.value) == ("complete", False)
            shown = (await client.request("tasks/get", {"taskId": id_})).value
            assert shown["result"]["content"][0]["text"] == f"of {server}"
            assert (await client.request("tasks/cancel", {"taskId": id_})).value["resultType"] == "complete"
            for asked in stand[server].calls("tasks/get"):
                assert jsontext.member(asked.params, "taskId") == b'"task-1"'
        for method, code in (("tasks/get", -32602), ("tasks/result", -32601), ("tasks/list", -32601)):
            assert (await client.request(method, {"taskId": "web26.task-1"})).code == code


@shows("tasks-extension")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_a_client_that_did_not_declare_the_extension_gets_no_task(way: Way) -> None:
    async with standing(scripts("web26")) as stand, stand.client(way) as client:
        assert (await client.call("web26__slow", {"text": "now"})).text == "now"
        for method in ("tasks/get", "tasks/update", "tasks/cancel"):
            refused = await client.request(method, {"taskId": "x"})
            assert refused.code == -32021
            data = jsontext.value(jsontext.member(refused.error, "data"))
            assert data == {"requiredCapabilities": {"extensions": {tasks.EXTENSION: {}}}}
        assert not stand["web26"].calls("tasks/get")


@shows("tasks-extension", "tasks-capability")
@pytest.mark.parametrize("way", TASKED, ids=str)
async def test_the_extension_is_not_told_across_eras(way: Way) -> None:
    async with standing(scripts("web26")) as stand, stand.client(way, connect=False, capabilities=DECLARING) as client:
        offered = (await client.connect(way.version)).value["capabilities"]
        assert not {"extensions", "tasks"} & offered.keys()
        assert (await client.request("tools/call", {"name": "web26__slow", "task": {}})).text == ""
        assert (await client.request("tasks/get", {"taskId": "x"})).code == -32601


FOLLOWED = '{"taskId":"task-1","status":"%s","n":1.50,"x":null}'
ACKNOWLEDGED = "notifications/subscriptions/acknowledged"
TOLD = "notifications/tasks"


async def followed(client: Client, *ids: str, **others: object) -> PendingRequest:
    """An acknowledged subscription to tasks."""
    pending = await client.begin("subscriptions/listen", {"notifications": {"taskIds": list(ids), **others}}, id="l")
    await pending.heard()
    return pending


def honoured(pending: PendingRequest) -> object:
    return jsontext.value(jsontext.member(pending.notifications[0], "params", "notifications"))


@shows("tasks-followed")
@pytest.mark.parametrize("way", MODERN, ids=str)
async def test_who_follows_a_task_hears_how_it_stands(way: Way) -> None:
    servers = ("pipe26", "web26")
    async with (
        standing(scripts(*servers), pipe26={"era": "modern"}) as stand,
        stand.client(way, capabilities=DECLARING) as client,
    ):
        ids = {server: await begun(client, server) for server in servers}
        pending = await followed(client, *ids.values(), "web26.unknown", "task-1", toolsListChanged=True)
        assert honoured(pending) == {"toolsListChanged": True, "taskIds": list(ids.values())}
        for number, server in enumerate(servers, start=1):
            link = f'"result":{{"content":[{{"type":"resource_link","uri":"x://{server}","name":"n"}}]}}'
            said = FOLLOWED % "completed"
            await stand[server].announce(TOLD, f"{said[:-1]},{link}}}")
            told = await client.wait_for(TOLD, count=number)
            members = jsontext.value(told.params)
            assert members.pop("_meta") == {META + "subscriptionId": "l"}
            assert (members["taskId"], members["status"], b'"n":1.50' in told.raw) == (ids[server], "completed", True)
            assert members["result"]["content"][0]["uri"] == f"x://{server}"
        await stand["web26"].announce(TOLD, FOLLOWED.replace("task-1", "task-2") % "working")
        asks = '"inputRequests":{"k":{"method":"elicitation/create","params":{"message":"sure?","x":1.50}}}'
        await stand["web26"].announce(TOLD, f"{(FOLLOWED % 'input_required')[:-1]},{asks}}}")
        told = await client.wait_for(TOLD, count=len(servers) + 1)
        asked = jsontext.member(told.params, "inputRequests", "k", "params")
        assert asked == b'{"message":"[web26] sure?","x":1.50}'
        await client.cancel(pending)
        for server in servers:
            await stand[server].wait_cancelled()
            (listened,) = stand[server].calls("subscriptions/listen")
            assert jsontext.value(jsontext.member(listened.params, "notifications")) == {"taskIds": ["task-1"]}
        assert len([each for each in client.received if each.method == TOLD]) == len(servers) + 1


@shows("tasks-followed")
async def test_a_task_followed_over_a_lost_connection_is_told_as_it_stands() -> None:
    async with (
        standing(scripts("web26")) as stand,
        stand.client(Way("http", MODERN_VERSION), capabilities=DECLARING) as client,
    ):
        id_ = await begun(client, "web26", "hi")
        await followed(client, id_)
        await stand["web26"].release("done")
        await stand["web26"].end_listens()
        told = await client.wait_for(TOLD)
        members = jsontext.value(told.params)
        assert (members["taskId"], members["status"]) == (id_, "completed")
        assert members["result"]["content"][0]["text"] == "hi"
        assert "resultType" not in members


@shows("tasks-followed")
async def test_nobody_follows_anothers_task_or_one_without_having_declared_the_extension() -> None:
    way = Way("http", MODERN_VERSION)
    async with (
        standing({**scripts("web26"), "web": script("web")}, manifold=TOKENS) as stand,
        stand.client(way, token="one", capabilities=DECLARING) as mine,
        stand.client(way, token="two", capabilities=DECLARING) as theirs,
        stand.client(way, token="one") as undeclared,
        stand.client(way, token="one", scope="web") as without,
    ):
        id_ = await begun(mine, "web26")
        assert honoured(await followed(theirs, id_)) == {}
        assert honoured(await followed(without, id_)) == {}
        refused = await undeclared.request("subscriptions/listen", {"notifications": {"taskIds": [id_]}})
        assert (refused.code, refused.status) == (-32021, 400)
        wrong = await mine.request("subscriptions/listen", {"notifications": {"taskIds": [1]}})
        assert wrong.code == -32602
