"""Backends that die, restart, hang or talk nonsense: their own callers get one clear error, everybody else nothing."""

import json
from dataclasses import replace

import pytest

from tests.contract.offers import offering, offerings
from tests.contract.stand import KINDS, LATEST, refused, until_well
from tests.faults.invariants import enduring
from tests.peers.backend import HTML, Act, Fault, Script, tool
from tests.peers.clients import MODERN_VERSION
from tests.peers.ways import Way

pytestmark = pytest.mark.anyio

HTTP = Way("http", LATEST)
NOTE = '{"jsonrpc":"2.0","method":"notifications/message","params":{"level":"info","data":"so far"}}'


# --- gone and back (R1, R10) -------------------------------------------------------------------------------------


async def test_r10_a_forgotten_session_is_renewed_without_the_caller_noticing() -> None:
    async with enduring(offerings(("web",))) as stand, stand.client(HTTP) as client:
        assert (await client.call("web__echo", {"text": "before"})).text == "before"
        for _ in range(3):
            stand["web"].forget_sessions()
            await until_well(client, "web__echo")
        assert (await client.call("web__echo", {"text": "after"})).text == "after"
        sent = [json.loads(each.params)["arguments"]["text"] for each in stand["web"].calls("tools/call")]
        assert sent == ["before", "back", "back", "back", "after"]


@pytest.mark.parametrize("kind", ["web", "web26", "stream"])
async def test_r10_a_backend_that_is_down_refuses_promptly_and_works_when_it_is_back(kind: str) -> None:
    async with enduring(offerings((kind,))) as stand, stand.client(HTTP) as client:
        pending = await client.begin("tools/call", {"name": f"{kind}__hang"})
        await stand[kind].wait_for("tools/call")
        await stand[kind].refuse()
        refused(await pending.reply(), kind, "BackendLost")
        refused(await client.call(f"{kind}__echo"), kind, "BackendUnavailable", "BackendLost")
        names = [each["name"] for each in (await client.request("tools/list")).value["tools"]]
        assert f"{kind}__echo" in names  # the last listing stays
        await stand[kind].listen()
        await until_well(client, f"{kind}__echo")


async def test_r7_an_event_stream_that_ends_mid_call_fails_the_call_and_is_opened_again() -> None:
    async with enduring(offerings(("stream",))) as stand, stand.client(HTTP) as client:
        pending = await client.begin("tools/call", {"name": "stream__hang"})
        await stand["stream"].wait_for("tools/call")
        stand["stream"].end_streams()
        refused(await pending.reply(), "stream", "BackendLost")
        await until_well(client, "stream__echo")


@pytest.mark.parametrize("kind", ["web", "web26", "stream"])
async def test_r7_an_answer_that_falls_silent_is_given_up_after_its_time(kind: str) -> None:
    quiet = {kind: {"sseReadTimeout": "1h", "timeout": "400ms", "pingInterval": 0}}
    script = replace(offering(kind), tools=(tool("echo"), tool("fades", Act("notify", NOTE, then=Act("hang")))))
    async with enduring({kind: script}, **quiet) as stand, stand.client(HTTP) as client:
        refused(await client.call(f"{kind}__fades"), kind, "BackendLost", "BackendTimeout")
        await until_well(client, f"{kind}__echo")


async def test_r7_a_standing_stream_that_falls_silent_is_opened_again() -> None:
    quiet = {"web": {"sseReadTimeout": "400ms", "pingInterval": 0}}
    async with enduring(offerings(("web",)), **quiet) as stand, stand.client(HTTP) as client:
        await stand["web"].wait_for(lambda item: item.kind == "http" and item.method == "GET", count=3)
        await until_well(client, "web__echo")


# --- idle (R11) --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["web", "web26", "stream"])
async def test_r11_the_first_call_after_a_rest_in_which_connections_were_cut_works(kind: str) -> None:
    async with enduring(offerings((kind,))) as stand, stand.client(HTTP) as client:
        for text in ("first", "second"):
            assert (await client.call(f"{kind}__echo", {"text": text})).text == text
            await stand[kind].reset_connections()  # as routers do with what is idle
            assert (await client.call(f"{kind}__echo", {"text": f"after {text}"})).text == f"after {text}"


# --- hanging (R2) ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
async def test_r2_a_call_without_an_answer_ends_at_the_servers_timeout_and_is_cancelled(kind: str) -> None:
    limits = {kind: {"timeout": "400ms"}}
    script = Script(name=kind, era=offering(kind).era, tools=(tool("late", Act("late")), tool("echo")))
    async with enduring({kind: script}, **limits) as stand, stand.client(HTTP) as client:
        refused(await client.call(f"{kind}__late"), kind, "BackendTimeout")
        await stand[kind].wait_cancelled()
        await stand[kind].release()
        assert (await client.call(f"{kind}__echo", {"text": "its own"})).text == "its own"


# --- statuses (R8, R9) -------------------------------------------------------------------------------------------


INSTEAD = {
    "500": Fault(500, b"Traceback: boom", method="tools/call"),
    "502": Fault(502, b"<html>", method="tools/call"),
    "429": Fault(429, headers=(("Retry-After", "1"),), method="tools/call"),
    "401": Fault(401, headers=(("WWW-Authenticate", "Bearer"),), method="tools/call"),
    "403": Fault(403, method="tools/call"),
    "html": Fault(200, HTML.body, HTML.headers, method="tools/call"),
    "empty": Fault(200, b"", (("Content-Type", "application/json"),), method="tools/call"),
    "reset": Fault(kind="reset", method="tools/call"),
    "cut": Fault(kind="cut", method="tools/call"),
}


@pytest.mark.parametrize("kind", ["web", "web26", "stream"])
async def test_r8_a_status_instead_of_an_answer_is_an_error_that_names_the_server(kind: str) -> None:
    async with enduring(offerings((kind,)), **{kind: {"timeout": "1s"}}) as stand, stand.client(HTTP) as client:
        for name, fault in INSTEAD.items():
            before = len(stand[kind].calls("tools/call"))
            stand[kind].fail(fault)
            reply = await client.call(f"{kind}__echo", {"text": name})
            if kind == "stream" and reply.error is None:
                assert reply.text == name  # the answer takes the stream; what became of the POST need not matter
            else:
                refused(reply, kind)
                assert reply.status == 200, "a backend's 401 must not look like our own"
                assert b"boom" not in reply.raw
            assert len(stand[kind].calls("tools/call")) - before <= 1, "a call is never repeated"
            await until_well(client, f"{kind}__echo")


@pytest.mark.parametrize(
    "fault",
    [Fault(405, method="GET", times=0), Fault(kind="hang", method="GET", times=0), HTML],
    ids=["405", "hang", "html"],
)
async def test_r9_a_backend_without_a_standing_stream_stays_usable(fault: Fault) -> None:
    if fault is HTML:
        fault = Fault(HTML.status, HTML.body, HTML.headers, method="GET", times=0)
    async with enduring(offerings(("web",))) as stand:
        stand["web"].fail(fault)
        async with stand.client(HTTP) as client:
            for number in range(5):
                assert (await client.call("web__echo", {"text": str(number)})).text == str(number)
            assert len(stand["web"].calls("initialize")) <= 2  # one to list, one for the client
        stand["web"].heal()
        await stand["web"].release("fault")


# --- nonsense (R12, R13, R14) --------------------------------------------------------------------------------------

STRANGE = ("garbage", "invalid_utf8", "wrong_id", "duplicate", "string_id", "float_id", "null_id")
WRONG = ("null_result", "list_result", "no_result")


@pytest.mark.parametrize("kind", KINDS)
async def test_r14_strange_lines_ids_and_results_cost_at_most_their_own_call(kind: str) -> None:
    tools = tuple(tool(name, Act(name)) for name in (*STRANGE, *WRONG, "echo"))
    script = Script(name=kind, era=offering(kind).era, tools=tools)
    async with enduring({kind: script}, **{kind: {"timeout": "1s"}}) as stand, stand.client(HTTP) as client:
        for name in (*STRANGE, *WRONG):
            reply = await client.call(f"{kind}__{name}", {"text": name})
            if reply.error is None:
                assert name in STRANGE, reply
                assert reply.text == name
            elif name != "null_id" or reply.code != -32700:  # an error without an id may be meant for the request
                refused(reply, kind)
            assert (await client.call(f"{kind}__echo", {"text": "next"})).text == "next", name


@pytest.mark.parametrize("kind", KINDS)
async def test_r12_a_message_over_the_limit_costs_its_own_call_only(kind: str) -> None:
    tools = (tool("big", Act("big", n=300_000)), tool("echo"))
    limits = {"limits": {"maxMessage": 100_000}}
    script = Script(name=kind, era=offering(kind).era, tools=tools)
    async with enduring({kind: script}, manifold=limits) as stand, stand.client(HTTP) as client:
        refused(await client.call(f"{kind}__big"), kind)
        await until_well(client, f"{kind}__echo")


async def test_r12_noise_on_stdout_costs_nobody_anything() -> None:
    noise = (
        "Starting up...",
        '{"level":"info"}',
        "[]",
        "null",
        "\x1b[31mred\x1b[0m",
        "",
        "\udcff\udcfe",
        "x" * 100_000,
    )
    script = Script(
        name="pipe",
        era="handshake",
        banner="\n".join(noise[:-2]) + "\n",
        tools=(tool("noisy", Act("garbage", "\n".join(noise))), tool("echo")),
    )
    async with enduring({"pipe": script}) as stand, stand.client(HTTP) as client:
        for text in ("one", "two"):
            assert (await client.call("pipe__noisy", {"text": text})).text == text
        assert len(stand["pipe"].children) == 1


async def test_r12_a_line_without_an_end_is_dropped_and_costs_its_own_call_only() -> None:
    endless = Act("endless", n=1_000_000, then=Act())
    script = Script(name="pipe", era="handshake", tools=(tool("endless", endless), tool("echo")))
    limits = {"limits": {"maxMessage": 100_000}}
    async with enduring({"pipe": script}, manifold=limits) as stand, stand.client(HTTP) as client:
        assert (await client.call("pipe__endless", {"text": "behind it"})).text == "behind it"
        assert (await client.call("pipe__echo", {"text": "next"})).text == "next"
        assert len(stand["pipe"].children) == 1


async def test_r13_a_child_that_floods_its_stderr_is_not_held_up() -> None:
    noise = Act("stderr", "y" * 100, n=20_000)
    script = Script(name="pipe", era="handshake", stderr="at the start\n", tools=(tool("noise", noise),))
    async with enduring({"pipe": script}) as stand, stand.client(Way("http", MODERN_VERSION)) as client:
        for _ in range(5):
            assert (await client.call("pipe__noise")).error is None
