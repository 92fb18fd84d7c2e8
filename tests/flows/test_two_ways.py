"""A plain call takes a short way or the long one: nobody can tell which from what comes back."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from typing import Any, Final

import anyio.to_thread
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mcp_manifold import Manifold
from mcp_manifold.config import load_dict
from mcp_manifold.fronts.http.asgi import Receive, Scope, Send
from mcp_manifold.fronts.http.front import HttpFront
from mcp_manifold.fronts.server import Head, Passage, Reply
from tests.contract.asking import ACCEPTED, FORM, URL, asking, members
from tests.contract.offers import offering
from tests.contract.stand import LATEST, Stand, standing
from tests.peers.backend import Act, Script, tool
from tests.peers.clients import MODERN_VERSION, HttpClient
from tests.peers.processes import until
from tests.unit.fronts.wires import BOUND, Answer, Stage, Wire, staged

pytestmark = pytest.mark.anyio

META: Final = {
    "io.modelcontextprotocol/protocolVersion": MODERN_VERSION,
    "io.modelcontextprotocol/clientCapabilities": {},
    "io.modelcontextprotocol/clientInfo": {"name": "t", "version": "1"},
}
TOKENS: Final = [{"name": "one", "token": "token-one"}, {"name": "two", "token": "token-two"}]
MOST: Final = 4000
LIMITS: Final = {"maxBody": MOST, "maxCallsPerSession": 3}
CALL: Final = "tools/call"


class Door:
    """A front whose short way may be shut."""

    def __init__(self, front: HttpFront, *, is_short: bool) -> None:
        self.taken = 0
        self._front = front
        self._is_short = is_short

    def __repr__(self) -> str:
        return f"<Door {'short' if self._is_short else 'long'} taken={self.taken}>"

    def take(self, head: Head, body: bytes, reply: Reply) -> Passage | None:
        passage = self._front.take(head, body, reply) if self._is_short else None
        self.taken += passage is not None
        return passage

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._front(scope, receive, send)


@dataclass
class House:
    """One manifold with two doors, and who is known there."""

    stand: Stand
    manifold: Manifold
    front: HttpFront
    short: Stage
    long: Stage
    session: str = ""
    foreign: str = ""
    scoped: str = ""
    ended: str = ""

    async def open(self, version: str = LATEST, **how: Any) -> str:
        """The id of a new session."""
        params = {"protocolVersion": version, "capabilities": {}, "clientInfo": {"name": "t", "version": "1"}}
        greeting = message("initialize", params, 0)
        (answer,) = await self.long.asks(post(greeting, **how))
        assert answer.status == 200, answer
        id_ = answer.headers[b"mcp-session-id"].decode()
        note = {"jsonrpc": "2.0", "method": "notifications/initialized"}
        (answer,) = await self.long.asks(post(note, session=id_, **how))
        assert answer.status == 202, answer
        return id_

    async def both(self, *requests: bytes) -> list[Answer]:
        """What comes back for these, which is the same whichever way they go."""
        short, long = await say(self.short, *requests), await say(self.long, *requests)
        assert short == long
        return short

    @property
    def flying(self) -> int:
        """Calls the stages were told of that they were not told the end of."""
        return sum(self.manifold._counts.flying.values())

    @property
    def counted(self) -> dict[str, int]:
        """Calls of tools the stages were told the end of, by outcome."""
        found: dict[str, int] = {}
        for (method, _), series in self.manifold._counts.series.items():
            for outcome, count in series.outcomes.items() if method == CALL else ():
                if count:
                    found[outcome] = found.get(outcome, 0) + count
        return found


async def say(stage: Stage, *requests: bytes) -> list[Answer]:
    """What a client gets that keeps its connection for as long as it may."""
    wire, found = await stage.open(), []
    for sent in requests:
        await wire.send(sent)
        found.append(await wire.answer())
        if found[-1].closes:
            wire = await stage.open()
    return found


def message(method: str, params: Any = None, id_: Any = 1) -> dict[str, Any]:
    """A request."""
    return {"jsonrpc": "2.0", "id": id_, "method": method, **({} if params is None else {"params": params})}


def call(name: str = "web__echo", id_: Any = 1, **params: Any) -> dict[str, Any]:
    """A call of a tool."""
    return message(CALL, {"name": name, "arguments": {"text": "hi"}, **params}, id_)


def post(
    body: Any, *, session: str | None = None, token: str = "token-one", path: str = "/mcp", **lines: str | None
) -> bytes:
    """A request of the handshake era; `lines` replaces headers, or leaves them out."""
    plain: dict[str, str | None] = {
        "host": "localhost",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": f"Bearer {token}",
        "mcp-session-id": session,
    }
    return _written(body, path, plain, lines)


def modern(body: Any, *, path: str = "/mcp", **lines: str | None) -> bytes:
    """A request of 2026-07-28, with the headers that mirror it."""
    name = "web26__echo"
    if isinstance(body, dict):
        name = body["params"]["name"]
        body = {**body, "params": {"_meta": META, **body["params"]}}
    plain: dict[str, str | None] = {
        "host": "localhost",
        "content-type": "application/json",
        "accept": "application/json, text/event-stream",
        "authorization": "Bearer token-one",
        "mcp-protocol-version": MODERN_VERSION,
        "mcp-method": CALL,
        "mcp-name": name,
    }
    return _written(body, path, plain, lines)


def _written(body: Any, path: str, plain: dict[str, str | None], lines: Mapping[str, str | None]) -> bytes:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    named = {**plain, **{name.replace("_", "-"): value for name, value in lines.items()}}
    head = [f"POST {path} HTTP/1.1", f"content-length: {len(raw)}"]
    head += [f"{name}: {value}" for name, value in named.items() if value is not None]
    return "\r\n".join([*head, "", ""]).encode("latin-1") + raw


@asynccontextmanager
async def housed(*servers: str, scripts: Mapping[str, Script] | None = None, **entry: Any) -> AsyncIterator[House]:
    """A house over these servers, each of which has answered before; `entry` adds to what is configured for each."""
    known = {server: offering(server) for server in servers} | dict(scripts or {})
    settings = {"tokens": TOKENS, "limits": LIMITS}
    entries = {server: {"tools": {"block": ["only_*"]}, **entry} for server in known}
    async with (
        standing(known, manifold=settings, **entries) as stand,
        Manifold.from_config(stand.config) as manifold,
    ):
        front: Any = manifold.asgi_app()
        async with (
            staged(Door(front, is_short=True)) as short,
            staged(Door(front, is_short=False)) as long,
        ):
            house = House(stand, manifold, front, short, long)
            house.session = await house.open()
            for server in known:
                (answer,) = await long.asks(post(call(f"{server}__echo"), session=house.session))
                assert b'"result"' in answer.body, answer
            yield house
            await until(lambda: not house.flying, "the end of all calls")
        front.close()


# --- refusals and oddities --------------------------------------------------------------------------------------------

Case = Callable[[House], bytes]


def _sized(house: House, size: int) -> bytes:
    bare = json.dumps(call(arguments={"text": ""})).encode()
    return post(json.dumps(call(arguments={"text": "x" * (size - len(bare))})).encode(), session=house.session)


def _twice(sent: bytes, name: str, value: str) -> bytes:
    return sent.replace(b"\r\n\r\n", f"\r\n{name}: {value}\r\n\r\n".encode(), 1)


def _raw(text: str) -> Case:
    return lambda house: post(text.encode("utf-8", "surrogateescape"), session=house.session)


def _with(**lines: str | None) -> Case:
    return lambda house: post(call(), **{"session": house.session, **lines})  # type: ignore[arg-type]  # the session too


def _says(**params: Any) -> Case:
    return lambda house: post(call(**params), session=house.session)


def _modern(body: Any = None, **lines: str | None) -> Case:
    return lambda house: modern(call("web26__echo") if body is None else body, **lines)  # type: ignore[arg-type]  # as above


def _meta(**members: Any) -> dict[str, Any]:
    found = {**META, **{f"io.modelcontextprotocol/{key}": value for key, value in members.items()}}
    return call("web26__echo", _meta={key: value for key, value in found.items() if value is not None})


def _foreign(name: str) -> Case:
    return lambda house: modern(call(f"web__{name}"))


KINDS_OF_ANSWER: Final = ("echo", "failed", "error", "odd", "links")
TEXT: Final = '{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"web__echo","arguments":{"text":"hi"}}}'
TAKEN: Final[dict[str, Case]] = {
    "plain": _with(),
    "at the endpoint of one server": lambda house: post(call("echo"), session=house.scoped, path="/web/mcp"),
    "versioned": _with(mcp_protocol_version=LATEST),
    "of an older version": _with(mcp_protocol_version="2025-03-26"),
    "charset": _with(content_type="application/json; charset=utf-8"),
    "any accept": _with(accept="*/*"),
    "no accept": _with(accept=None),
    "id of text": _raw(TEXT.replace('"id":1', '"id":"\\u00e9\\/"')),
    "id of a fraction": _raw(TEXT.replace('"id":1', '"id":1.50')),
    "spaces": _raw(TEXT.replace(":", " : ").replace(",", " ,\n")),
    "unknown members": _raw(TEXT.replace('"params"', '"x":[null,1.50],"params"')),
    "a name twice": _raw(TEXT.replace('"name"', '"name":"x","name"')),
    "odd _meta": _says(_meta=[]),
    "no arguments": _says(arguments=None),
    "odd arguments": _says(arguments=[1]),
    "a token for progress": _says(_meta={"progressToken": "p"}),
    "a tool that fails": _says(name="web__failed"),
    "a tool that answers with an error": _says(name="web__error"),
    "a tool with an odd result": _says(name="web__odd"),
    "a tool with links": _says(name="web__links"),
    "at the limit": lambda house: _sized(house, MOST),
    "final slash": _with(path="/mcp/"),
    "modern": _modern(),
    "modern, with a session": _modern(mcp_session_id="x"),
    "modern, with an encoded name": _modern(mcp_name="=?base64?d2ViMjZfX2VjaG8=?="),
    "modern, with a level": _modern(_meta(logLevel="info")),
    "modern, spaces around": _modern(mcp_name=" web26__echo "),
    "modern, an error": lambda house: modern(call("web26__error")),
    "modern, a failure": lambda house: modern(call("web26__failed")),
    "modern, links": lambda house: modern(call("web26__links")),
    **{f"to the other era, {name}": _says(name=f"web26__{name}") for name in KINDS_OF_ANSWER},
    **{f"modern, to the other era, {name}": _foreign(name) for name in KINDS_OF_ANSWER},
}
"""What goes the short way where there is one."""
LEFT: Final[dict[str, Case]] = {
    "no host": _with(host=None),
    "a foreign host": _with(host="evil.example"),
    "two hosts": lambda house: _twice(post(call(), session=house.session), "host", "localhost"),
    "an own origin": _with(origin="http://localhost:3000"),
    "a foreign origin": _with(origin="http://evil.example"),
    "no token": _with(authorization=None),
    "a wrong token": _with(token="wrong"),
    "another scheme": _with(authorization="Basic dG9rZW4="),
    "a token twice": lambda house: _twice(post(call(), session=house.session), "authorization", "Bearer token-two"),
    "no session": _with(mcp_session_id=None),
    "an unknown session": _with(mcp_session_id="unknown"),
    "somebody else's session": lambda house: post(call(), session=house.foreign),
    "a session of another endpoint": lambda house: post(call(), session=house.scoped),
    "a session that ended": lambda house: post(call(), session=house.ended),
    "two sessions": lambda house: _twice(post(call(), session=house.session), "mcp-session-id", house.foreign),
    "a version not served": _with(mcp_protocol_version="1999-01-01"),
    "the modern version only": _with(mcp_protocol_version=MODERN_VERSION),
    "another type": _with(content_type="text/plain"),
    "no type": _with(content_type=None),
    "an encoding": _with(content_encoding="gzip"),
    "json only": _with(accept="application/json"),
    "above the limit": lambda house: _sized(house, MOST + 1),
    "a mirrored method": _with(mcp_method=CALL),
    "another mirrored method": _with(mcp_method="tools/list"),
    "a mirrored name": _with(mcp_name="web__echo"),
    "another mirrored name": _with(mcp_name="web__other"),
    "a query": _with(path="/mcp?a=b"),
    "an unknown endpoint": _with(path="/nowhere/mcp"),
    "no endpoint": _with(path="/elsewhere"),
    "not JSON": _raw('{"method":"tools/call"'),
    "not UTF-8": _raw(TEXT.replace("hi", "\udcff")),
    "a batch": _raw(f"[{TEXT}]"),
    "a method twice": _raw(TEXT.replace('"id":1', '"id":1,"method":"tools/list"')),
    "an id twice": _raw(TEXT.replace('"id":1', '"id":1,"id":2')),
    "no version": _raw(TEXT.replace('"jsonrpc":"2.0",', "")),
    "id null": _raw(TEXT.replace('"id":1', '"id":null')),
    "id of an object": _raw(TEXT.replace('"id":1', '"id":{}')),
    "a notification": _raw(TEXT.replace('"id":1,', "")),
    "a response": _raw('{"jsonrpc":"2.0","id":1,"result":{"x":"tools/call"}}'),
    "params of a list": _raw('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}'),
    "params null": _raw('{"jsonrpc":"2.0","id":1,"method":"tools/call","params":null}'),
    "no params": _raw('{"jsonrpc":"2.0","id":1,"method":"tools/call"}'),
    "another method": lambda house: post(message("ping", {"x": CALL}), session=house.session),
    "an escaped method": _raw(TEXT.replace("tools/call", "tools\\/call")),
    "no name": _raw(TEXT.replace('"name":"web__echo",', "")),
    "a name of a number": _says(name=1),
    "an unknown tool": _says(name="web__nothing"),
    "a hidden tool": _says(name="web__only_web"),
    "a task": _says(task={}),
    "modern, no method": _modern(mcp_method=None),
    "modern, another method": _modern(mcp_method="tools/list"),
    "modern, no name": _modern(mcp_name=None),
    "modern, another name": _modern(mcp_name="web__echo"),
    "modern, another name in the body": lambda house: modern(call("web26__error"), mcp_name="web26__echo"),
    "modern, another method in the body": lambda house: modern(
        message("tools/list", {"_meta": META, "name": "web26__echo", "x": CALL}), mcp_name="web26__echo"
    ),
    "modern, no name in the body": lambda house: modern(call(None), mcp_name="web26__echo"),  # type: ignore[arg-type]  # that is what is wrong
    "modern, two names": lambda house: _twice(modern(call("web26__echo")), "mcp-name", "web26__echo"),
    "modern, two versions": lambda house: _twice(modern(call("web26__echo")), "mcp-protocol-version", MODERN_VERSION),
    "modern, no version header": _modern(mcp_protocol_version=None),
    "modern, no _meta": _modern(json.dumps(call("web26__echo")).encode()),
    "modern, no capabilities": _modern(_meta(clientCapabilities=None)),
    "modern, odd capabilities": _modern(_meta(clientCapabilities=[])),
    "modern, odd info": _modern(_meta(clientInfo=1)),
    "modern, an odd level": _modern(_meta(logLevel="loud")),
    "modern, another version": _modern(_meta(protocolVersion="2099-01-01")),
    "modern, to the other era, with a level": lambda house: modern(
        call("web__echo", _meta={**META, "io.modelcontextprotocol/logLevel": "info"})
    ),
    "modern, to the other era, with input": lambda house: modern(call("web__echo", inputResponses={})),
    "modern, to the other era, with a state": lambda house: modern(call("web__echo", requestState="x")),
    "modern, an unknown tool": lambda house: modern(call("web26__nothing")),
    "modern, a hidden tool": lambda house: modern(call("web26__only_web26")),
    "modern, a wrong token": _modern(authorization="Bearer wrong"),
}
"""What does not."""


@asynccontextmanager
async def peopled() -> AsyncIterator[House]:
    async with housed("web", "web26") as house:
        house.foreign = await house.open(token="token-two")
        house.scoped = await house.open(path="/web/mcp")
        house.ended = await house.open()
        sent = post(b"", session=house.ended).replace(b"POST", b"DELETE", 1)
        (answer,) = await house.long.asks(sent)
        assert answer.status == 204
        await house.long.asks(post(call("echo"), session=house.scoped, path="/web/mcp"))  # which opens its link
        yield house


async def test_a_call_is_answered_the_same_whichever_way_it_takes() -> None:
    async with peopled() as house:
        for name, case in TAKEN.items():
            sent, before = case(house), house.short.app.taken
            await house.both(sent, sent)
            assert house.short.app.taken == before + 2, name
        assert not house.long.app.taken


async def test_what_is_unusual_is_left_to_the_long_way_and_answered_the_same() -> None:
    async with peopled() as house:
        old, new = post(call(), session=house.session), modern(call("web26__echo"))
        for name, case in LEFT.items():
            before = house.short.app.taken
            sent = case(house)
            answers = await house.both(old, sent, new, sent, new)  # heads that were let in do not help it
            assert house.short.app.taken == before + 3, name
            assert answers[1] == answers[3], name
            assert [answer.status for answer in answers[::2]] == [200, 200, 200]


@dataclass(frozen=True)
class Change:
    """One way to spoil a request."""

    kind: str
    at: int
    what: str


WORDS: Final = (
    *("", " ", "*/*", "application/json", "text/event-stream", "localhost", "evil.example", "Bearer token-one"),
    *("Bearer token-two", "Bearer", "2025-11-25", "2025-06-18", MODERN_VERSION, CALL, "tools/list", "web__echo"),
    *("web26__echo", "gzip", "http://localhost", "null", "web__only_web"),
)
NAMES: Final = (
    *("host", "content-type", "accept", "authorization", "mcp-session-id", "mcp-protocol-version", "mcp-method"),
    *("mcp-name", "origin", "content-encoding", "mcp-param-x", "x-other"),
)
PIECES: Final = (
    '"',
    "{",
    "}",
    "[",
    ",",
    ":",
    "null",
    "1",
    "\\u0000",
    "\\",
    '"id":2,',
    '"task":{},',
    '"_meta":{},',
    "é",
)
CHANGES: Final = st.lists(
    st.one_of(
        st.builds(Change, st.sampled_from(["drop", "rename"]), st.integers(0, 8), st.sampled_from(NAMES)),
        st.builds(Change, st.just("value"), st.integers(0, 8), st.sampled_from(WORDS)),
        st.builds(Change, st.sampled_from(NAMES), st.just(0), st.sampled_from(WORDS)),
        st.builds(Change, st.sampled_from(["insert", "over"]), st.integers(0, 400), st.sampled_from(PIECES)),
        st.builds(Change, st.just("delete"), st.integers(0, 400), st.just("")),
    ),
    min_size=1,
    max_size=3,
)


def changed(sent: bytes, changes: list[Change]) -> bytes:
    """A request, spoilt; only its framing stays right."""
    head, _, raw = sent.partition(b"\r\n\r\n")
    first, _, *lines = head.decode("latin-1").split("\r\n")
    body = raw.decode()
    for change in changes:
        at = change.at % len(lines) if lines else 0
        where = change.at % (len(body) + 1)
        name, _, value = lines[at].partition(": ") if lines else ("x", "", "")
        if change.kind == "drop":
            lines = lines[:at] + lines[at + 1 :]
        elif change.kind == "rename":
            lines = [*lines[:at], f"{change.what}: {value}", *lines[at + 1 :]]
        elif change.kind == "value":
            lines = [*lines[:at], f"{name}: {change.what}", *lines[at + 1 :]]
        elif change.kind == "delete":
            body = body[:where] + body[where + 1 :]
        elif change.kind in ("insert", "over"):
            body = body[:where] + change.what + body[where + (change.kind == "over") :]
        else:
            lines = [*lines, f"{change.kind}: {change.what}"]
    whole = body.encode()
    return "\r\n".join([first, f"content-length: {len(whole)}", *lines, "", ""]).encode("latin-1") + whole


async def test_no_change_to_a_request_makes_a_difference_between_the_ways() -> None:
    async with housed("web", "web26") as house:
        loop = asyncio.get_running_loop()
        good = (
            *(post(call(f"{server}__echo"), session=house.session) for server in ("web", "web26")),
            *(modern(call(f"{server}__echo")) for server in ("web", "web26")),
        )

        @given(st.sampled_from(good), CHANGES)
        def prop(base: bytes, changes: list[Change]) -> None:
            sent = changed(base, changes)
            asyncio.run_coroutine_threadsafe(house.both(base, sent), loop).result(BOUND)

        await anyio.to_thread.run_sync(prop)
        assert house.short.app.taken > 20


# --- what is going on besides -----------------------------------------------------------------------------------------


@asynccontextmanager
async def held(house: House, *ids: int, stage: Stage | None = None) -> AsyncIterator[list[Wire]]:
    """Calls that hang, the short way unless said otherwise."""
    wires = []
    begun = len(house.stand["web"].calls(CALL))
    for count, id_ in enumerate(ids, begun + 1):
        wires.append(await (stage or house.short).open())
        await wires[-1].send(post(call("web__hang", id_), session=house.session))
        await house.stand["web"].wait_for(CALL, count=count)
    yield wires
    await house.stand["web"].release()
    for wire in wires:
        assert b'"result"' in (await wire.answer()).body
    await house.stand["web"].hold()


async def test_an_id_in_use_is_refused_whichever_way_the_two_take() -> None:
    async with housed("web") as house:
        for stage in (house.short, house.long):
            async with held(house, 7, stage=stage):
                taken = house.short.app.taken
                for id_ in (7, 7.0):
                    answer, _ = await house.both(
                        post(call(id_=id_), session=house.session), post(call(), session=house.session)
                    )
                    assert b"still in flight" in answer.body
                assert house.short.app.taken == taken + 2


async def test_too_many_calls_in_flight_are_refused_either_way() -> None:
    async with housed("web") as house, held(house, 1, 2, 3):
        assert house.short.app.taken == 3
        (answer,) = await house.both(post(call(id_=4), session=house.session))
        assert b"Too many requests in flight" in answer.body
        assert house.short.app.taken == 3


async def test_a_front_that_is_closing_begins_no_call_either_way() -> None:
    async with housed("web", "web26") as house, held(house, 1):
        house.front.drain(lambda: None)
        for sent in (post(call(id_=2), session=house.session), modern(call("web26__echo"))):
            (answer,) = await house.both(sent)
            assert answer.status == 503
        assert house.short.app.taken == 1


async def test_a_front_is_drained_when_the_last_call_of_the_short_way_is_answered() -> None:
    drained = asyncio.Event()
    async with housed("web") as house:
        async with held(house, 1):
            house.front.drain(drained.set)
            assert not drained.is_set()
        async with asyncio.timeout(BOUND):
            await drained.wait()


@pytest.mark.parametrize("gone", ["token", "server"])
async def test_who_may_no_longer_come_in_after_a_reload_is_refused_either_way(gone: str) -> None:
    async with housed("web", "web26") as house:
        scoped = await house.open(path="/web/mcp")
        lines = [
            post(call("echo"), session=scoped, path="/web/mcp"),
            modern(call("echo"), path="/web26/mcp"),
        ]
        wires = [(await stage.open(), sent) for stage in (house.short, house.long) for sent in lines]
        for wire, sent in wires:  # connections whose heads are known by now
            for _ in range(2):
                await wire.send(sent)
                assert (await wire.answer()).status == 200
        config = json.loads(json.dumps(house.stand.config))
        if gone == "token":
            config["manifold"]["tokens"] = TOKENS[1:]
        else:
            config["mcpServers"] = {"other": config["mcpServers"]["web26"]}
        done = await house.manifold.reload(load_dict(config, environ={}))
        assert not done.error
        taken = house.short.app.taken
        answers = []
        for wire, sent in wires:
            await wire.send(sent)
            answers.append(await wire.answer())
        assert answers[:2] == answers[2:]
        assert {answer.status for answer in answers} == {401 if gone == "token" else 404}
        assert house.short.app.taken == taken


async def test_a_session_that_ends_is_gone_for_connections_that_know_its_head() -> None:
    async with housed("web") as house:
        wires = [await stage.open() for stage in (house.short, house.long)]
        sent = post(call(), session=house.session)
        for wire in wires:
            for _ in range(2):
                await wire.send(sent)
                assert (await wire.answer()).status == 200
        await house.long.asks(post(b"", session=house.session).replace(b"POST", b"DELETE", 1))
        for wire in wires:
            await wire.send(sent)
            assert (await wire.answer()).status == 404


# --- calls that turn out not to be plain ------------------------------------------------------------------------------


def events(answer: Answer) -> list[bytes]:
    """The messages of an event stream, without the ids it may be resumed by."""
    lines = answer.body.split(b"\n")
    return [line for line in lines if line.startswith(b"data: ") and line != b"data: "]


NOISY: Final = {
    "progress": (Act("progress", n=3), {"_meta": {"progressToken": "p"}}, 4),
    "log": (Act("log", n=2), {}, 3),
}


@pytest.mark.parametrize("noise", NOISY)
@pytest.mark.parametrize("server", ["web", "web26"])
async def test_a_call_with_something_to_tell_becomes_the_same_stream(server: str, noise: str) -> None:
    act, params, count = NOISY[noise]
    script = replace(offering(server), tools=(tool("echo"), tool("noisy", act)))
    async with housed(scripts={server: script}) as house:
        counted = house.counted
        answers = []
        for stage in (house.short, house.long):
            if server == "web":
                sent = post(call("web__noisy", **params), session=house.session)
            else:
                meta = {**META, **params.get("_meta", {}), "io.modelcontextprotocol/logLevel": "debug"}
                sent = modern(call("web26__noisy", _meta=meta))
            wire = await stage.open()
            await wire.send(sent)
            answers.append(await wire.answer())
            await wire.send(post(call(f"{server}__echo"), session=house.session))
            assert (await wire.answer()).status == 200  # the connection goes on
        assert [answer.headers[b"content-type"] for answer in answers] == [b"text/event-stream"] * 2
        assert events(answers[0]) == events(answers[1])
        assert len(events(answers[0])) == count
        assert answers[0].lines == answers[1].lines
        assert house.short.app.taken >= 1
        await until(lambda: not house.flying, "the end of all calls")
        assert house.counted["ok"] == counted["ok"] + 4


@pytest.mark.parametrize("server", ["web", "web26"])
async def test_a_question_in_the_middle_of_a_call_makes_it_a_stream_and_is_answered(server: str) -> None:
    scripts = {server: asking(server)}
    asked: list[bytes] = []

    def answer(params: bytes) -> str:
        asked.append(params)
        return ACCEPTED

    async with housed(scripts=scripts) as house:
        for stage in (house.short, house.long):
            host, port = stage.address
            async with HttpClient(
                f"http://{host}:{port}/mcp", token="token-one", answers={"elicitation/create": answer}
            ) as client:
                await client.connect(LATEST)
                await client.call(f"{server}__echo")  # which may have to open its link
                taken = stage.app.taken
                reply = await client.call(f"{server}__elicit")
                assert ACCEPTED.encode() in (reply.result or b""), reply
                assert stage.app.taken == taken + (stage is house.short)
        assert [members(params)["requestedSchema"] for params in asked] == [
            members(FORM.encode())["requestedSchema"]
        ] * 2
        assert house.counted == {"ok": 5}


@pytest.mark.parametrize("server", ["pipe", "web", "stream"])
async def test_a_question_to_a_modern_client_parks_its_call_which_goes_on_when_it_comes_back(server: str) -> None:
    tool_name, meta = f"{server}__elicit", {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {}}}
    async with housed(scripts={server: asking(server)}) as house:
        found = []
        for stage in (house.short, house.long):
            (parked,) = await stage.asks(modern(call(tool_name, _meta=meta)))
            wanted = json.loads(parked.body)["result"]
            (key,) = wanted["inputRequests"]
            again = {"inputResponses": {key: json.loads(ACCEPTED)}, "requestState": wanted.pop("requestState")}
            (answer,) = await stage.asks(modern(call(tool_name, _meta=meta, **again)))
            (spent,) = await stage.asks(modern(call(tool_name, _meta=meta, **again)))
            wanted["inputRequests"] = list(wanted["inputRequests"].values())
            found.append((parked.status, wanted, answer, spent))
        assert found[0] == found[1]
        assert found[0][1]["resultType"] == "input_required"
        assert ACCEPTED.split('"big":')[1].encode() in found[0][2].body
        assert house.short.app.taken == 1
        assert len(house.stand[server].calls(CALL)) == 3
        assert house.counted == {"ok": 5, "invalid": 2}


async def test_a_url_that_is_needed_first_is_asked_of_a_modern_client_either_way() -> None:
    needed = f'{{"code":-32042,"message":"Sign in first","data":{{"elicitations":[{URL}]}}}}'
    script = replace(offering("web"), tools=(tool("echo"), tool("locked", Act("error", needed))))
    meta = {**META, "io.modelcontextprotocol/clientCapabilities": {"elicitation": {"url": {}}}}
    async with housed(scripts={"web": script}) as house:
        found = []
        for stage in (house.short, house.long):
            (answer,) = await stage.asks(modern(call("web__locked", _meta=meta)))
            found.append(json.loads(answer.body)["result"])
        assert found[0].pop("requestState") != found[1].pop("requestState")
        assert found[0] == found[1]
        assert found[0]["inputRequests"]["url-1"]["params"]["url"] == "https://id.example.test/a?b=c"
        assert house.short.app.taken == 1
        assert house.counted == {"ok": 3}


async def test_a_silent_call_of_2025_11_25_becomes_a_stream_that_can_be_resumed() -> None:
    async with housed("web") as house:
        wire = await house.short.open()
        await wire.send(post(call("web__hang", 5), session=house.session))
        head = await wire.head()
        assert head.headers[b"content-type"] == b"text/event-stream"
        opening = await wire.chunk()
        assert opening.startswith(b"id: ")
        await house.stand["web"].release()
        came = b""
        while chunk := await wire.chunk():
            came += chunk
        assert b'"id":5' in came
        assert house.short.app.taken == 1


# --- calls that end otherwise -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("server", ["web", "web26"])
async def test_a_call_taken_back_by_a_notification_ends_the_same(server: str) -> None:
    async with housed(server) as house:
        answers = []
        for count, stage in enumerate((house.short, house.long), 1):
            wire = await stage.open()
            await wire.send(post(call(f"{server}__hang", 9), session=house.session))
            await house.stand[server].wait_for(CALL, count=count + 1)
            note = {"jsonrpc": "2.0", "method": "notifications/cancelled", "params": {"requestId": 9}}
            (accepted,) = await stage.asks(post(note, session=house.session))
            assert accepted.status == 202
            answers.append(await wire.answer())
            await house.stand[server].wait_cancelled(count=count)
        assert answers[0].body == answers[1].body
        assert answers[0].status == answers[1].status
        await until(lambda: house.counted.get("cancelled") == 2, "both counted")
        assert house.short.app.taken == 1


@pytest.mark.parametrize("server", ["pipe", "web", "web26"])
async def test_leaving_takes_a_modern_call_back(server: str) -> None:
    async with housed(server) as house:
        for count, stage in enumerate((house.short, house.long), 1):
            wire = await stage.open()
            await wire.send(modern(call(f"{server}__hang")))
            await house.stand[server].wait_for(CALL, count=count + 1)
            wire.leave()
            await house.stand[server].wait_cancelled(count=count)
            await until(lambda: not house.flying, "the end of the call")
        assert house.counted["cancelled"] == 2
        assert house.short.app.taken == 1


async def test_leaving_leaves_calls_of_earlier_revisions_alone() -> None:
    async with housed("web") as house:
        wire = await house.short.open()
        await wire.send(post(call("web__hang", 3), session=house.session))
        await house.stand["web"].wait_for(CALL, count=2)
        wire.leave()
        await house.stand["web"].release()
        await until(lambda: not house.flying, "the end of the call")
        assert "cancelled" not in house.counted
        (answer,) = await house.both(post(call(id_=3), session=house.session))
        assert answer.status == 200  # its id is free again


async def test_a_call_whose_server_dies_is_answered_once_and_the_same() -> None:
    script = replace(offering("pipe"), tools=(tool("echo"), tool("die", Act("die"))))
    async with housed(scripts={"pipe": script}) as house:
        before = sum(house.counted.values())
        answers = []
        for stage in (house.short, house.long):
            await until_there(house)
            wire = await stage.open()
            await wire.send(post(call("pipe__die", 4), session=house.session))
            answers.append(await wire.answer())
            await wire.send(post(message("ping", id_=5), session=house.session))
            assert b'"id":5' in (await wire.answer()).body
        codes = [json.loads(answer.body)["error"]["code"] for answer in answers]
        assert codes[0] == codes[1]
        assert house.short.app.taken == 1
        assert house.counted["backend_down"] >= 2
        assert sum(house.counted.values()) > before


async def until_there(house: House) -> None:
    """Wait until the server answers, which may have been started again."""
    for _ in range(50):
        (answer,) = await house.long.asks(post(call("pipe__echo", 1), session=house.session))
        if b'"result"' in answer.body:
            return
        await asyncio.sleep(0.1)  # its back-off, which nothing tells the end of
    raise AssertionError(answer)


async def test_a_call_over_a_session_the_server_forgot_is_made_again_once() -> None:
    async with housed("web") as house:
        for count, stage in enumerate((house.short, house.long), 1):
            house.stand["web"].forget_sessions()
            (answer,) = await stage.asks(post(call(id_=count), session=house.session))
            assert b'"result"' in answer.body, answer
            assert len(house.stand["web"].calls(CALL)) == 1 + count
        assert house.short.app.taken == 1
        assert house.counted == {"ok": 3}


REPEATED: Final = {"annotations": {"idempotentHint": True}}


@pytest.mark.parametrize(("retry", "times"), [("never", 1), ("idempotent", 2)])
async def test_a_call_that_may_be_repeated_is_sent_once_more_either_way(retry: str, times: int) -> None:
    script = replace(offering("web"), tools=(tool("echo"), tool("die", Act("die"), **REPEATED)))
    async with housed(scripts={"web": script}, retry=retry) as house:
        codes = []
        for stage in (house.short, house.long):
            before = len(house.stand["web"].calls(CALL))
            (answer,) = await stage.asks(post(call("web__die"), session=house.session))
            codes.append(json.loads(answer.body)["error"]["code"])
            assert len(house.stand["web"].calls(CALL)) == before + times
        assert codes[0] == codes[1]
        assert house.short.app.taken == 1
        assert sum(house.counted.values()) == 3
        assert sum(status.retries for status in house.manifold.status()) == 2 * (times - 1)
